"""Scores the stored records of a run against the recorded labels in the database; runs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine

from evaluation import baselines, matching
from evaluation.baselines import CLINICIANS, FULL_INFORMATION, MAJORITY, REGRESSION, TrainLabel
from evaluation.formatting import metric_text
from evaluation.metrics import Metric, ScoredStep, against_labels, difference, summarise
from evaluation.metrics.sets import of_level
from evaluation.record import RunRecord
from evaluation.record_scoring import RecordScorer, by_step, rescored
from evaluation.store.run_store import RunStore
from evaluation.visible_text import VisibleText, visible_texts
from search.trajectory import Status

_NOTHING: dict[str, Any] = {"value": None, "low": None, "high": None, "n": 0}
_TABLE = (
    "accuracy_",
    "set_f1_",
    "top_",
    "recall_at_5",
    "mrr",
    "half_credit",
    "expected_calibration_error",
    "area_under_risk_coverage",
    "quadratic_weighted_kappa",
    "under_triage",
    "confident_misses",
    "must_not_miss_recall",
    "truth_outside_vocabulary",
    "verified",
    "abstain",
    "failed",
    "unparseable",
    "peer_agreement",
    "unanswerable_requests",
    "request_cost_usd",
)
# What tells of a search, not of its answers: a baseline does not search.
_OF_SEARCH = (
    "verified_misses",
    "required_item_recall",
    "coverage",
    "accuracy_when_answered",
    "accuracy_of_abstained",
)


@dataclass(frozen=True, slots=True)
class _StepRun:
    """The case-steps of one step of a run, as scored, with the labels of the train split."""

    step: str
    records: tuple[RunRecord, ...]
    scored: tuple[ScoredStep, ...]
    train: tuple[TrainLabel, ...]

    @property
    def labelled(self) -> list[ScoredStep]:
        return [s for s in self.scored if s.labelled]

    @property
    def labelled_records(self) -> list[RunRecord]:
        return [r for r, s in zip(self.records, self.scored, strict=True) if s.labelled]


def score_run(
    engine: Engine, run_name: str, *, baseline_run: str | None = None, seed: int = 0, regression: bool = True
) -> dict[str, Any]:
    """Scores a run again: labels and marks that have changed since are stored; records stay as they are.

    Args:
        engine: the database of cases and runs.
        run_name: the run.
        baseline_run: run of strategy `full-information` to compare with; None takes `RUN-full-information` if stored.
        seed: of the bootstrap intervals.
        regression: fit the regression baseline, which reads every labelled case of the train split.

    Returns:
        `{"run": NAME, "steps": {STEP: {"n": labelled case-steps, "metrics": {NAME: M}, "baselines": {NAME: M}}}}`
        where M is `{"value", "low", "high", "n"}`, with `"seed"` of the interval (or `"interval": "exact"` of a share
        of 0 or 1) and `"reason"` where value or interval is None. Metrics: see `evaluation.metrics.summarise`, and
        `gain_over_BASELINE`, the paired difference of the first answer at the level of the answer key (of sets, of the
        F1 there), with `"discordant"`, patients that differ, and a `"reason"` that begins "few discordant" where they
        are fewer than ten. Baselines (`evaluation.baselines`), by that same figure; each with `"levels"`, all its
        figures by name, and those that learn with `"n_train"`.

    Raises:
        UsageError: no such run, a baseline run that is none, a vocabulary that no longer exists, or records that were
            valued by recorded labels outside of the train split.
        StorageError: the database failed, or holds a record that cannot be read.
    """
    store = RunStore(engine)
    run = store.get(run_name)
    scorer = RecordScorer(engine, run)
    pairs: dict[str, list[tuple[RunRecord, ScoredStep]]] = {}
    for record, scored in rescored(store, run, scorer):
        pairs.setdefault(record.step, []).append((record, scored))
    companion, reason = baselines.find_companion(store, run, baseline_run)
    theirs: dict[str, list[ScoredStep]] = {}
    if companion is not None:
        theirs = by_step(scorer.scored(stored) for stored in store.records(companion.run_id))
    order = [*(s for s in run.config.get("steps", ()) if s in pairs), *pairs]
    runs = {step: _step_run(engine, scorer, step, pairs[step]) for step in dict.fromkeys(order)}
    texts = _texts(engine, scorer, runs, regression)
    steps = {}
    for step, own in runs.items():
        full = reason if companion is None else theirs.get(step, [])
        steps[step] = _step_score(scorer, own, full, texts.get(step, {}), seed, regression)
    return {"run": run.name, "steps": steps}


def _step_run(
    engine: Engine, scorer: RecordScorer, step: str, pairs: Sequence[tuple[RunRecord, ScoredStep]]
) -> _StepRun:
    vocabularies = scorer.used.get(step, {})
    train = baselines.train_labels(engine, scorer.truths(step), vocabularies, scorer.split_scheme)
    return _StepRun(step, tuple(r for r, _ in pairs), tuple(s for _, s in pairs), tuple(train))


def _texts(
    engine: Engine, scorer: RecordScorer, runs: Mapping[str, _StepRun], regression: bool
) -> dict[str, dict[str, VisibleText]]:
    """Returns step -> case id -> visible text, of the applicable case-steps and of the train cases of their sources."""
    wanted = {}
    for step, own in runs.items():
        applicable = [s for s in own.scored if s.status != Status.NOT_APPLICABLE]
        sources = {s.source for s in applicable if s.labelled}
        if step in scorer.rules:
            learned = [t.case_id for t in own.train if t.source in sources]
            wanted[step] = {s.case_id for s in applicable} | set(learned if regression else ())
    return visible_texts(engine, scorer.rules, wanted)


def result_rows(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a score as flat rows `{step, method, metric, value, low, high, n}`; method `run` or a baseline's name."""
    rows = []
    for step, of_step in score["steps"].items():
        for name, metric in of_step["metrics"].items():
            rows.append(_row(step, "run", name, metric))
        for method, baseline in of_step["baselines"].items():
            for name, metric in baseline["levels"].items():
                rows.append(_row(step, method, name, metric))
    return rows


def result_table(score: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the main figures of a score in words: one row per step and figure, one column per method.

    Intervals are 95 %; `n` counts the case-steps behind the figure of the run. Figures that no method has are left out.
    """
    rows = []
    for step, of_step in score["steps"].items():
        for name, metric in of_step["metrics"].items():
            if not name.startswith(_TABLE):
                continue
            cells = {"run": metric}
            for method, baseline in of_step["baselines"].items():
                cells[method] = baseline["levels"].get(name, _NOTHING)
            if any(cell["value"] is not None for cell in cells.values()):
                texts = {method: metric_text(cell) for method, cell in cells.items()}
                rows.append({"step": step, "figure": name.replace("_", " "), **texts, "n": str(metric["n"])})
    return rows


def _row(step: str, method: str, name: str, metric: Mapping[str, Any]) -> dict[str, Any]:
    figures = {key: metric[key] for key in ("value", "low", "high", "n")}
    return {"step": step, "method": method, "metric": name, **figures}


def _step_score(
    scorer: RecordScorer,
    own: _StepRun,
    full: Sequence[ScoredStep] | str,
    texts: Mapping[str, VisibleText],
    seed: int,
    regression: bool,
) -> dict[str, Any]:
    """Returns metrics and baselines of one step; `full` is the baseline run's, or why there is none."""
    vocabularies = scorer.used.get(own.step, {})
    levels_seen = [level for v in vocabularies.values() for level in (matching.key_level(v), *matching.levels_of(v))]
    levels = list(dict.fromkeys(levels_seen)) or [matching.CODE]
    key_level = levels[0]
    scored = [_with_ceiling(s, texts) for s in own.scored]
    metrics = summarise(scored, key_level, seed)
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, steps: Sequence[ScoredStep] | str, **more: Any) -> None:
        reason = steps if isinstance(steps, str) else ""
        answered = [] if isinstance(steps, str) else list(steps)
        mine, other = baselines.in_common(own.labelled, answered)
        found[name] = {**_baseline(other, levels, seed, reason), **more}
        if other:
            metrics[f"gain_over_{name}"] = _gain(mine, other, key_level, seed)

    n_train = {"n_train": len(own.train)}
    if any(s.answer_set for s in own.labelled):
        add(MAJORITY, baselines.majority_set_steps(scorer, own.labelled_records, own.train), **n_train)
    else:
        found[MAJORITY] = {**_majority(own, levels, seed), **n_train}
        metrics[f"gain_over_{MAJORITY}"] = _gain_over_majority(own, key_level, seed)
    fitted = _regression(scorer, own, texts) if regression else "it was not asked for"
    add(REGRESSION, fitted, n_train=sum(t.case_id in texts for t in own.train))
    add(FULL_INFORMATION, full or "the full-information run shares no case-step with a recorded label")
    clinicians = baselines.clinician_steps(scorer, own.labelled)
    if clinicians is not None:
        add(CLINICIANS, clinicians)
        answers = {f"accuracy_{level}" for level in levels}  # one diagnosis each: no ranking and no probability
        found[CLINICIANS]["levels"] = {n: m for n, m in found[CLINICIANS]["levels"].items() if n in answers}
    return {
        "n": len(own.labelled),
        "metrics": {name: metric.to_json() for name, metric in metrics.items()},
        "baselines": found,
    }


def _regression(scorer: RecordScorer, own: _StepRun, texts: Mapping[str, VisibleText]) -> Sequence[ScoredStep] | str:
    if not own.labelled:
        return "no case-step with a recorded label"
    if own.step not in scorer.rules:
        return "the run does not hold the pathway that says what was visible"
    return baselines.regression_steps(scorer, own.labelled_records, own.train, texts)


def _majority(own: _StepRun, levels: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns the baseline of one answer; its class is the commonest at each level by itself."""
    found = {f"accuracy_{level}": baselines.majority_metric(own.train, own.labelled, level, seed) for level in levels}
    as_json = {name: metric.to_json() for name, metric in found.items()}
    return {**as_json[f"accuracy_{levels[0]}"], "levels": as_json}


def _gain_over_majority(own: _StepRun, key_level: str, seed: int) -> Metric:
    labelled = own.labelled
    marks = baselines.majority_marks(own.train, labelled, key_level)
    return difference(
        [float(labelled[i].match[key_level]) for i in marks],
        [float(m) for m in marks.values()],
        [labelled[i].patient_id for i in marks],
        seed,
    )


def _baseline(steps: Sequence[ScoredStep], levels: Sequence[str], seed: int, reason: str) -> dict[str, Any]:
    """Returns the figures of a baseline over its case-steps: the main one, and all under `levels`."""
    if not steps:
        nothing = Metric(None, None, None, 0, reason or "no case-step in common with a recorded label").to_json()
        return {**nothing, "levels": {f"accuracy_{level}": nothing for level in levels}}
    key_level = levels[0]
    figures = {name: m for name, m in against_labels(steps, key_level, seed).items() if name not in _OF_SEARCH}
    as_json = {name: metric.to_json() for name, metric in figures.items() if metric.value is not None}
    main = figures[f"set_f1_{key_level}" if any(s.answer_set for s in steps) else f"accuracy_{key_level}"]
    return {**main.to_json(), "levels": as_json}


def _gain(mine: Sequence[ScoredStep], other: Sequence[ScoredStep], key_level: str, seed: int) -> Metric:
    """Returns the paired difference of the main figure; see `_main`."""
    both = [
        (a, b, s.patient_id)
        for s, o in zip(mine, other, strict=True)
        if (a := _main(s, key_level)) is not None and (b := _main(o, key_level)) is not None
    ]
    return difference([a for a, _, _ in both], [b for _, b, _ in both], [p for _, _, p in both], seed)


def _main(step: ScoredStep, key_level: str) -> float | None:
    """Returns whether the first answer is right at the level of the answer key; of a set its F1 there."""
    value = of_level("f1", key_level)(step)
    return step.match.get(key_level) if value is None else value


def _with_ceiling(step: ScoredStep, texts: Mapping[str, VisibleText]) -> ScoredStep:
    text = texts.get(step.case_id)
    if text is None or not text.offered or step.status == Status.NOT_APPLICABLE:
        return step
    return replace(step, ceiling=text.recorded / text.offered)
