"""Figures with their intervals: percentile bootstrap over patients; of a share of 0 or 1 the exact bound.

Every metric of this package is made here, so that one seed resamples all metrics of the same case-steps alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95
EXACT = "exact"
FEW_DISCORDANT = 10  # patients; with fewer the bootstrap of a difference has too few values to draw from
FEW_WORDS = "few discordant"
_CHUNK = 4_000_000  # numbers held at once: 32 MB
_COPIES = 16  # room for what a statistic makes of its weights
_ONE_PATIENT = "one patient gives no interval"
_MOST_UNDEFINED = (1 - LEVEL) / 2  # share of resamples without a value: beyond it a limit could lie among them


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Attributes:
        value: the figure; None when it cannot be computed.
        low, high: limits of its 95 % interval; None when there is none.
        n: case-steps that it rests on.
        reason: why value or interval is None, or why the interval of a difference is not to be trusted.
        seed: of the resamples; None where there is no interval.
        detail: what a report needs besides, by name (bins of a calibration plot, points of a curve).
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str = ""
    seed: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns `{"value", "low", "high", "n"}`, `"seed"` of a bootstrap interval, `"reason"` if there is one."""
        row: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        if self.seed is not None:
            row["seed"] = self.seed
        if self.reason:
            row["reason"] = self.reason
        return {**row, **self.detail}

    def with_detail(self, **detail: Any) -> Metric:
        """Returns the same figure with more for a report."""
        return replace(self, detail={**self.detail, **detail})


def clustered_ratio(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[str], seed: int
) -> Metric:
    """Returns sum(numerators) / sum(denominators) with a percentile bootstrap interval that resamples clusters.

    2,000 resamples draw as many clusters as there are, with replacement; a cluster brings all its items. Resamples
    whose denominators sum to 0 have no value; more than 2.5 % of them, and there is no interval.

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
    index, count = _cluster_index(clusters)
    tops, bottoms = np.zeros(count), np.zeros(count)
    np.add.at(tops, index, np.asarray(numerators, dtype=float))
    np.add.at(bottoms, index, np.asarray(denominators, dtype=float))
    value = float(np.sum(numerators)) / total
    if count < 2:
        return Metric(value, None, None, n, _ONE_PATIENT)
    ratios = []
    for drawn in _draws(count, seed):
        below = bottoms[drawn].sum(axis=1)
        above = tops[drawn].sum(axis=1)
        ratios.append(np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0))
    return _with_limits(value, np.concatenate(ratios), n, seed)


def mean_metric(values: Sequence[float], clusters: Sequence[str], seed: int, *, share: bool = False) -> Metric:
    """Returns the mean with its interval; see `clustered_ratio`.

    Args:
        values: one per case-step.
        clusters: patient of each case-step.
        seed: of the resamples.
        share: the values lie between 0 and 1. Where all are 0, or all 1, every resample is, and the bootstrap would
            give an interval without width: the interval then ends at the exact (Clopper-Pearson) limit, with the number
            of patients for n, and has `"interval": "exact"` and no seed.

    Source: Clopper and Pearson 1934, Biometrika 26:404-413. Without an event the upper limit is 1 - 0.025^(1/n). It
    bounds the share of patients with a value above 0, hence also the mean of values of at most 1.
    """
    count = len(set(clusters))
    if share and count > 1 and (set(values) == {0.0} or set(values) == {1.0}):
        value = float(values[0])
        far = float(1 - ((1 - LEVEL) / 2) ** (1 / count))
        low, high = (0.0, far) if value == 0 else (1 - far, 1.0)
        return Metric(value, low, high, len(values), detail={"interval": EXACT})
    return clustered_ratio(values, [1.0] * len(values), clusters, seed)


def difference(one: Sequence[float], other: Sequence[float], clusters: Sequence[str], seed: int) -> Metric:
    """Returns the mean paired difference `one - other` with its interval; see `clustered_ratio`.

    `"discordant"` counts the patients with a pair that differs. With fewer than ten the interval is too narrow
    (where four differ, all one way, it excludes 0, and the exact p is 0.125): `reason` begins "few discordant".
    """
    gaps = [a - b for a, b in zip(one, other, strict=True)]
    metric = mean_metric(gaps, clusters, seed)
    if metric.value is None:
        return metric
    discordant = len({c for gap, c in zip(gaps, clusters, strict=True) if gap})
    if discordant < FEW_DISCORDANT and metric.low is not None:
        metric = replace(metric, reason=f"{FEW_WORDS}: {discordant} patients differ")
    return metric.with_detail(discordant=discordant)


def few_discordant(metric: Mapping[str, Any]) -> bool:
    """Says whether a difference, as JSON, rests on so few discordant patients that its interval is too narrow."""
    return str(metric.get("reason", "")).startswith(FEW_WORDS)


def weighted_metric(
    statistic: Callable[[Floats], Floats], clusters: Sequence[str], seed: int, missing: str = "nothing to divide by"
) -> Metric:
    """Returns a statistic that is no ratio of sums, with the interval of `clustered_ratio`.

    Args:
        statistic: takes weights of shape (resamples, case-steps), how often each case-step was drawn, and returns one
            value per resample; NaN where a resample has none. Where more than 2.5 % have none there is no interval: a
            limit could lie among those, and an interval over the rest alone is too narrow.
        clusters: patient of each case-step, in the order of the weights.
        seed: of the resamples.
        missing: why there is no value, where the statistic of all case-steps is NaN.
    """
    n = len(clusters)
    if n == 0:
        return Metric(None, None, None, 0, "no case-step to compute it from")
    value = float(statistic(np.ones((1, n)))[0])
    if not np.isfinite(value):
        return Metric(None, None, None, n, missing)
    index, count = _cluster_index(clusters)
    if count < 2:
        return Metric(value, None, None, n, _ONE_PATIENT)
    found = []
    for drawn in _draws(count, seed, width=_COPIES * max(n, count)):
        row = np.arange(len(drawn))[:, None] * count
        times = np.bincount((drawn + row).ravel(), minlength=len(drawn) * count).reshape(len(drawn), count)
        found.append(statistic(times[:, index].astype(float)))
    return _with_limits(value, np.concatenate(found), n, seed)


def _cluster_index(clusters: Sequence[str]) -> tuple[NDArray[np.intp], int]:
    names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    return np.array([names[c] for c in clusters]), len(names)


def _draws(clusters: int, seed: int, width: int = 0) -> Iterator[NDArray[np.int64]]:
    """Yields drawn clusters, shape (some, clusters), RESAMPLES rows in all; `width` numbers per row are to be held."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // max(width, clusters))
    for start in range(0, RESAMPLES, rows):
        yield rng.integers(clusters, size=(min(rows, RESAMPLES - start), clusters))


def _with_limits(value: float, resampled: Floats, n: int, seed: int) -> Metric:
    """Returns the figure with the percentile limits of its resamples, of which a few may be NaN."""
    defined = resampled[np.isfinite(resampled)]
    undefined = 1 - len(defined) / len(resampled)
    if undefined > _MOST_UNDEFINED:
        return Metric(value, None, None, n, f"no interval: {undefined:.1%} of the resamples have no value")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Metric(value, float(low), float(high), n, seed=seed)
