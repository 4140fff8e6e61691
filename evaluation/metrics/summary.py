"""All figures of one step: each with n and a 95 % interval, None with a reason, never NaN.

`comparable` lists those that are a mean over case-steps: two runs are compared by them, case-step by case-step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise

from clinical_data.chart import AnswerState
from evaluation.metrics import calibration, ordinal, sets
from evaluation.metrics.intervals import Metric, clustered_ratio, mean_metric
from evaluation.metrics.scored_step import ScoredStep, Value, mean_of
from search.trajectory import Status

SET_MEASURES = ("precision", "recall", "f1")
_STATUSES = (Status.VERIFIED, Status.UNVERIFIED, Status.ABSTAIN, Status.FAILED)
_SHARES = frozenset(
    {
        "top_3",
        "top_5",
        "recall_at_5",
        "mrr",
        "truth_outside_vocabulary",
        "confident_misses",
        "verified_misses",
        "must_not_miss_recall",
        "must_not_miss_recall_top_5",
        "must_not_miss_confident_misses",
        "required_item_recall",
        "under_triage",
        "over_triage",
        "unparseable",
        *(status.value for status in _STATUSES),
    }
)
"""Means of 0 and 1, besides `accuracy_LEVEL`."""


def label_means(labelled: Sequence[ScoredStep], key_level: str) -> dict[str, Value]:
    """Returns the means over case-steps with a recorded label, by name; the first is accuracy at the answer key.

    Those of sets, of urgency and of DDXPlus are there only where a case-step has such an answer.
    """
    levels = list(dict.fromkeys([key_level, *(level for s in labelled for level in s.match)]))
    found: dict[str, Value] = {f"accuracy_{level}": _match(level) for level in levels}
    found["top_3"] = lambda s: float(s.rank is not None and s.rank <= 3)
    found["top_5"] = lambda s: float(s.rank is not None and s.rank <= 5)
    found["mrr"] = lambda s: 1 / s.rank if s.rank else 0.0
    found["half_credit"] = lambda s: s.credit
    found["brier"] = lambda s: s.brier
    found["log_score"] = lambda s: s.log_score
    found["truth_outside_vocabulary"] = lambda s: float(s.outside)
    found["confident_misses"] = calibration.confident_miss
    found["verified_misses"] = calibration.verified_miss
    found["must_not_miss_recall"] = lambda s: None if s.must_not_miss is None else s.must_not_miss[0]
    found["must_not_miss_recall_top_5"] = lambda s: None if s.must_not_miss is None else s.must_not_miss[1]
    found["must_not_miss_confident_misses"] = lambda s: (
        None if s.must_not_miss is None else calibration.confident_miss(s)
    )
    found["required_item_recall"] = lambda s: None if s.required is None else s.required[0] / s.required[1]
    if any(s.urgency is not None for s in labelled):
        found["under_triage"], found["over_triage"] = ordinal.under_triage, ordinal.over_triage
    return {**found, **_set_means(labelled, key_level)}


def _set_means(labelled: Sequence[ScoredStep], key_level: str) -> dict[str, Value]:
    answers = [s.answer_set for s in labelled if s.answer_set is not None]
    if not answers:
        return {}
    levels = list(dict.fromkeys(level for a in answers for level in a.recorded))
    found = {f"set_{m}_{level}": sets.of_level(m, level) for level in levels for m in SET_MEASURES}
    found["recall_at_5"] = sets.recall_at_5
    if any(a.cost is not None for a in answers):
        found["chosen_cost_usd"] = sets.chosen_cost
    if any(s.source == sets.DDXPLUS for s in labelled):
        found.update(sets.ddxplus(key_level))
    return found


def search_means() -> dict[str, Value]:
    """Returns the means over applicable case-steps, by name."""
    found: dict[str, Value] = {status.value: _is(status) for status in _STATUSES}
    found["unparseable"] = lambda s: float(not s.parseable and s.status != Status.FAILED)
    found["peer_agreement"] = lambda s: s.peer_agreement
    found["majority_ratio"] = lambda s: s.majority
    found["information_ceiling"] = lambda s: s.ceiling
    found["requests"] = lambda s: float(s.requests)
    found["request_cost_usd"] = lambda s: s.cost
    for name in ("prefilled", "sampled", "reused"):
        found[f"tokens_{name}"] = _tokens(name)
    found["seconds"] = lambda s: s.seconds
    return found


def summarise(steps: Sequence[ScoredStep], key_level: str, seed: int) -> dict[str, Metric]:
    """Returns all metrics of one step by name; the first is accuracy at the level of the answer key.

    Over case-steps with a recorded label (failed and unparseable ones count as misses, abstentions like any answer):
    `accuracy_LEVEL`; `top_3`, `top_5` and `mrr` (mean of 1 / rank, 0 for a miss) at the level of the answer key;
    `half_credit`; `brier`; `log_score`; calibration and coverage (`evaluation.metrics.calibration`); must-not-miss;
    items that a guideline requires; urgency and sets where there are such. Over applicable case-steps: share of each
    status, `unparseable`, `unparseable_draws` (of all draws), `peer_agreement` (where a peer was asked),
    `majority_ratio`, `unanswerable_requests` and `requests_STATE` (of all requests), `request_cost_usd`, tokens and
    seconds per case-step, `tokens_per_verified`. Over all: `not_applicable`. docs/metrics.md has them all in a table.

    Args:
        steps: case-steps of one step.
        key_level: level of the answer key (`evaluation.matching.key_level`).
        seed: of all intervals, so that metrics of the same case-steps are resampled alike.

    Source: clinical.md, "Metrics"; MRR: Voorhees 1999, The TREC-8 Question Answering Track Report; majority ratio:
        TTRL, Zuo et al. 2025 (arXiv 2504.16084).
    """
    labelled = [s for s in steps if s.labelled]
    asked = [s for s in steps if s.status != Status.NOT_APPLICABLE]
    share = {Status.NOT_APPLICABLE.value: mean_of(steps, _is(Status.NOT_APPLICABLE), seed, share=True)}
    return {**against_labels(labelled, key_level, seed), **_of_search(asked, seed), **share}


def against_labels(labelled: Sequence[ScoredStep], key_level: str, seed: int) -> dict[str, Metric]:
    """Returns the metrics that compare answers with labels: those that any baseline has too."""
    found = _means(labelled, label_means(labelled, key_level), seed)
    found["expected_calibration_error"] = calibration.expected_calibration_error(labelled, seed)
    found.update(calibration.risk_coverage(labelled, seed))
    found.update(calibration.abstentions(labelled, seed))
    if any(s.urgency is not None for s in labelled):
        found["quadratic_weighted_kappa"] = ordinal.quadratic_weighted_kappa(labelled, seed)
    if changes := log_score_changes(labelled):
        found["log_score_change"] = mean_metric([c for c, _ in changes], [p for _, p in changes], seed)
    return found


def means_against_labels(
    labelled: Sequence[ScoredStep], key_level: str, seed: int, names: Collection[str]
) -> dict[str, Metric]:
    """Returns the named ones of the metrics that are means over case-steps with a recorded label (`label_means`)."""
    values = label_means(labelled, key_level)
    return _means(labelled, {name: values[name] for name in names}, seed)


def log_score_changes(labelled: Sequence[ScoredStep]) -> list[tuple[float, str]]:
    """Returns (change, patient) of the log score from one occurrence of the step in a case to the next.

    Above 0 the answer moved towards the label when new results came in.

    Source: clinical.md, "Recorded label per step", row result_update.
    """
    of_case: dict[str, list[ScoredStep]] = defaultdict(list)
    for step in labelled:
        if step.log_score is not None:
            of_case[step.case_id].append(step)
    found = []
    for steps in of_case.values():
        ordered = sorted(steps, key=lambda s: s.occurrence)
        for before, after in pairwise(ordered):
            found.append(((after.log_score or 0.0) - (before.log_score or 0.0), after.patient_id))
    return found


def accuracy(labelled: Sequence[ScoredStep], level: str, seed: int) -> Metric:
    """Returns the share of first answers that equal the label at a level, over labels that have a class there."""
    return mean_of(labelled, _match(level), seed, share=True)


def _means(steps: Sequence[ScoredStep], values: Mapping[str, Value], seed: int) -> dict[str, Metric]:
    return {
        name: mean_of(steps, value, seed, share=name in _SHARES or name.startswith(("accuracy_", "set_")))
        for name, value in values.items()
    }


def _of_search(asked: Sequence[ScoredStep], seed: int) -> dict[str, Metric]:
    def ratio(top: Callable[[ScoredStep], float], bottom: Callable[[ScoredStep], float]) -> Metric:
        return clustered_ratio([top(s) for s in asked], [bottom(s) for s in asked], [s.patient_id for s in asked], seed)

    found = _means(asked, search_means(), seed)
    found["unparseable_draws"] = ratio(lambda s: s.unparseable_draws, lambda s: s.draws)
    found["unanswerable_requests"] = ratio(lambda s: s.unanswered, lambda s: s.requests)
    for state in AnswerState:
        if state is not AnswerState.RECORDED:
            found[f"requests_{state.value}"] = ratio(_state(state.value), lambda s: s.requests)
    found["tokens_per_verified"] = ratio(
        lambda s: s.tokens.get("prefilled", 0) + s.tokens.get("sampled", 0), lambda s: s.status == Status.VERIFIED
    )
    return found


_BETTER_HIGH = ("accuracy_", "top_", "set_", "recall_at_", "must_not_miss_recall", "ddr", "ddp", "ddf1")
_HIGH = frozenset({"mrr", "half_credit", "log_score", "required_item_recall"})
_LOW = frozenset(
    {
        "brier",
        "confident_misses",
        "verified_misses",
        "must_not_miss_confident_misses",
        "under_triage",
        "over_triage",
        "failed",
        "unparseable",
        "chosen_cost_usd",
        "request_cost_usd",
        "tokens_prefilled",
        "tokens_sampled",
        "seconds",
    }
)


def better(name: str) -> str:
    """Returns which direction of a figure is better, `high` or `low`; empty where neither is by itself.

    More agreement of the peer, more requests or more abstaining is neither good nor bad.
    """
    if name in _LOW:
        return "low"
    return "high" if name in _HIGH or name.startswith(_BETTER_HIGH) else ""


def _match(level: str) -> Value:
    return lambda s: s.match.get(level)


def _is(status: Status) -> Value:
    return lambda s: float(s.status == status)


def _tokens(name: str) -> Value:
    return lambda s: float(s.tokens.get(name, 0))


def _state(name: str) -> Callable[[ScoredStep], float]:
    return lambda s: s.states.get(name, 0)


def comparable(labelled: Sequence[ScoredStep], key_level: str) -> Mapping[str, Value]:
    """Returns every metric that is a mean over case-steps, by name: those against labels, then those of the search."""
    return {**label_means(labelled, key_level), **search_means()}
