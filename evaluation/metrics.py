"""Figures over the scored case-steps of one step: each with n and a 95 % interval, None with a reason, never NaN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.trajectory import Status

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 4_000_000  # drawn indices held at once: 32 MB


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Attributes:
        value: the figure; None when it cannot be computed.
        low, high: limits of its 95 % interval; None when there is none.
        n: case-steps that it rests on.
        reason: why value or interval is None.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns `{"value", "low", "high", "n"}`, and `"reason"` if something is missing."""
        row: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return {**row, "reason": self.reason} if self.reason else row


@dataclass(frozen=True, slots=True)
class ScoredStep:
    """What metrics need to know of one case-step.

    Attributes:
        match: level -> 0 or 1; empty without a recorded label.
        classes: class of the principal label per level; empty when it is outside the vocabulary.
        labelled: a principal label is recorded and the step was applicable.
        rank: place of the label among the answers, from 1; None when none names it.
        credit: 1, 0.5 for a listed near miss, or 0; None without a label.
        brier: multi-class Brier score in [0, 2]; None without a label.
        outside: no answer of the vocabulary could have been right.
        parseable: there is an answer.
        requests, unanswered: items opened, and those of them not answered by a recorded value.
        cost: US dollars of all items opened.
        tokens: logical token counts.
    """

    case_id: str
    step: str
    occurrence: int
    source: str
    patient_id: str
    status: str
    match: dict[str, int] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    labelled: bool = False
    rank: int | None = None
    credit: float | None = None
    brier: float | None = None
    outside: bool = False
    parseable: bool = True
    peer_agreement: float | None = None
    requests: int = 0
    unanswered: int = 0
    cost: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str, int]:
        """Case, step and occurrence."""
        return self.case_id, self.step, self.occurrence


def clustered_ratio(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[str], seed: int
) -> Metric:
    """Returns sum(numerators) / sum(denominators) with a percentile bootstrap interval that resamples clusters.

    2,000 resamples draw as many clusters as there are, with replacement; a cluster brings all its items. Resamples
    whose denominators sum to 0 are left out. A share that is 0 or 1 in every cluster has an interval without width.

    Args:
        numerators, denominators: one pair per case-step; denominators of 1 give a mean.
        clusters: patient of each case-step.
        seed: of the resamples.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 (one-sample problems with more
        general data structures: the patient is the unit drawn) and 13 (the percentile interval).
    """
    n = len(numerators)
    total = float(np.sum(denominators)) if n else 0.0
    if total == 0:
        return Metric(None, None, None, n, "no case-step to compute it from" if n == 0 else "nothing to divide by")
    names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([names[c] for c in clusters])
    tops, bottoms = np.zeros(len(names)), np.zeros(len(names))
    np.add.at(tops, index, np.asarray(numerators, dtype=float))
    np.add.at(bottoms, index, np.asarray(denominators, dtype=float))
    value = float(np.sum(numerators)) / total
    if len(names) < 2:
        return Metric(value, None, None, n, "one patient gives no interval")
    ratios = _resampled(tops, bottoms, np.random.default_rng(seed))
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Metric(value, float(low), float(high), n)


def mean_metric(values: Sequence[float], clusters: Sequence[str], seed: int) -> Metric:
    """Returns the mean with its interval; see `clustered_ratio`."""
    return clustered_ratio(values, [1.0] * len(values), clusters, seed)


def difference(one: Sequence[float], other: Sequence[float], clusters: Sequence[str], seed: int) -> Metric:
    """Returns the mean paired difference `one - other` with its interval; see `clustered_ratio`."""
    return mean_metric([a - b for a, b in zip(one, other, strict=True)], clusters, seed)


def brier_score(probabilities: dict[str, float], truth: str | None) -> float:
    """Returns the multi-class Brier score of one case-step: sum over classes of (p - y)^2, in [0, 2].

    Args:
        probabilities: class -> probability; a class that is missing has 0.
        truth: the class that is right; None (outside the vocabulary) is a class of its own with probability 0.

    Source: Brier 1950, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78:1-3.
    """
    right = probabilities.get(truth, 0.0) if truth is not None else 0.0
    return sum(p * p for p in probabilities.values()) - right**2 + (1 - right) ** 2


def summarise(steps: Sequence[ScoredStep], key_level: str, seed: int) -> dict[str, Metric]:
    """Returns all metrics of one step by name; the first is accuracy at the level of the answer key.

    Over case-steps with a recorded label (failed and unparseable ones count as misses, abstentions like any answer):
    `accuracy_LEVEL`; `top_3`, `top_5` and `mrr` (mean of 1 / rank, 0 for a miss) at the level of the answer key;
    `half_credit`; `brier`; `truth_outside_vocabulary`. Over applicable case-steps: share of each status,
    `unparseable`, `peer_agreement` (where a peer was asked), `unanswerable_requests` (of all requests),
    `request_cost_usd`, tokens and seconds per case-step, `tokens_per_verified`. Over all: `not_applicable`.

    Args:
        steps: case-steps of one step.
        key_level: level of the answer key (`evaluation.matching.key_level`).
        seed: of all intervals, so that metrics of the same case-steps are resampled alike.

    Source: clinical.md, "Metrics"; MRR: Voorhees 1999, The TREC-8 Question Answering Track Report.
    """
    labelled = [s for s in steps if s.labelled]
    asked = [s for s in steps if s.status != Status.NOT_APPLICABLE]
    share = {Status.NOT_APPLICABLE.value: _mean(steps, _is(Status.NOT_APPLICABLE), seed)}
    return {**_against_labels(labelled, key_level, seed), **_of_search(asked, seed), **share}


def _against_labels(labelled: Sequence[ScoredStep], key_level: str, seed: int) -> dict[str, Metric]:
    levels = list(dict.fromkeys([key_level, *(level for s in labelled for level in s.match)]))
    found = {f"accuracy_{level}": accuracy(labelled, level, seed) for level in levels}
    found["top_3"] = _mean(labelled, lambda s: float(s.rank is not None and s.rank <= 3), seed)
    found["top_5"] = _mean(labelled, lambda s: float(s.rank is not None and s.rank <= 5), seed)
    found["mrr"] = _mean(labelled, lambda s: 1 / s.rank if s.rank else 0.0, seed)
    found["half_credit"] = _mean(labelled, lambda s: s.credit, seed)
    found["brier"] = _mean(labelled, lambda s: s.brier, seed)
    found["truth_outside_vocabulary"] = _mean(labelled, lambda s: float(s.outside), seed)
    return found


def _of_search(asked: Sequence[ScoredStep], seed: int) -> dict[str, Metric]:
    patients = [s.patient_id for s in asked]
    found = {
        status.value: _mean(asked, _is(status), seed)
        for status in (Status.VERIFIED, Status.UNVERIFIED, Status.ABSTAIN, Status.FAILED)
    }
    found["unparseable"] = _mean(asked, lambda s: float(not s.parseable and s.status != Status.FAILED), seed)
    found["peer_agreement"] = _mean(asked, lambda s: s.peer_agreement, seed)
    found["unanswerable_requests"] = clustered_ratio(
        [s.unanswered for s in asked], [s.requests for s in asked], patients, seed
    )
    found["request_cost_usd"] = _mean(asked, lambda s: s.cost, seed)
    for name in ("prefilled", "sampled", "reused"):
        found[f"tokens_{name}"] = _mean(asked, _tokens(name), seed)
    found["tokens_per_verified"] = clustered_ratio(
        [s.tokens.get("prefilled", 0) + s.tokens.get("sampled", 0) for s in asked],
        [float(s.status == Status.VERIFIED) for s in asked],
        patients,
        seed,
    )
    found["seconds"] = _mean(asked, lambda s: s.seconds, seed)
    return found


def accuracy(labelled: Sequence[ScoredStep], level: str, seed: int) -> Metric:
    """Returns the share of first answers that equal the label at a level, over labels that have a class there."""
    return _mean(labelled, lambda s: s.match.get(level), seed)


def _is(status: Status) -> Callable[[ScoredStep], float]:
    return lambda s: float(s.status == status)


def _tokens(name: str) -> Callable[[ScoredStep], float]:
    return lambda s: float(s.tokens.get(name, 0))


def _mean(steps: Sequence[ScoredStep], value: Callable[[ScoredStep], float | None], seed: int) -> Metric:
    """Returns the mean over the steps that have a value."""
    pairs = [(v, s.patient_id) for s in steps if (v := value(s)) is not None]
    return mean_metric([v for v, _ in pairs], [p for _, p in pairs], seed)


def _resampled(
    tops: NDArray[np.float64], bottoms: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Returns the ratio of each resample of clusters whose denominator is not 0; shape (RESAMPLES,) or less."""
    clusters = len(tops)
    rows = max(1, _CHUNK // clusters)
    ratios = []
    for start in range(0, RESAMPLES, rows):
        drawn = rng.integers(clusters, size=(min(rows, RESAMPLES - start), clusters))
        below = bottoms[drawn].sum(axis=1)
        ratios.append(tops[drawn].sum(axis=1)[below > 0] / below[below > 0])
    return np.concatenate(ratios)
