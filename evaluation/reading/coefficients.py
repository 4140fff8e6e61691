"""Coefficients of agreement between readers, each with a bootstrap interval over patients.

The coefficients themselves are those of statsmodels and krippendorff. A resample that has none (all its answers are one
answer, so that nothing is left to chance) has no value; where more than 2.5 % have none there is no interval
(`evaluation.metrics.intervals.weighted_metric`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import krippendorff
import numpy as np
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from evaluation.metrics.intervals import Floats, Metric, mean_metric, weighted_metric

ONE_ANSWER = "every answer is the same: no agreement beyond chance can be told"
NO_OVERLAP = "nothing was answered by two readers"
LINEAR, QUADRATIC = "linear", "quadratic"


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing that was judged.

    Attributes:
        patient_id: whose; patients are what is resampled.
        said: reader -> answer. Who left it open is not in it.
    """

    patient_id: str
    said: Mapping[str, str]


def pairs_of(units: Sequence[Unit]) -> list[tuple[str, str]]:
    """Returns the pairs of readers that judged at least two things both, by name."""
    shared = Counter(pair for unit in units for pair in combinations(sorted(unit.said), 2))
    return sorted(pair for pair, times in shared.items() if times > 1)


def raw_agreement(units: Sequence[Unit], seed: int) -> Metric:
    """Returns the share of the pairs of readers that gave the same answer, averaged over what was judged."""
    judged = _by_two(units)
    if not judged:
        return Metric(None, None, None, 0, NO_OVERLAP)
    return mean_metric([_agreeing(unit) for unit in judged], [u.patient_id for u in judged], seed, share=True)


def cohen(
    units: Sequence[Unit], pair: tuple[str, str], domain: Sequence[str], seed: int, weights: str | None = None
) -> Metric:
    """Returns Cohen's kappa of two readers, over what both judged.

    Args:
        units: what was judged.
        pair: the readers.
        domain: the answers there are, in their order.
        seed: of the resamples.
        weights: None, or how disagreement grows with the distance of two ordered answers: `linear`, `quadratic`.

    Source: Cohen 1960, Educational and Psychological Measurement 20:37-46; weighted: Cohen 1968, Psychological Bulletin
        70:213-220.
    """
    place, k = _places(domain), len(domain)
    both = [unit for unit in units if pair[0] in unit.said and pair[1] in unit.said]
    cells = np.array([place[u.said[pair[0]]] * k + place[u.said[pair[1]]] for u in both], dtype=np.intp)

    def kappa(drawn: Floats) -> float:
        table = np.bincount(cells, weights=drawn, minlength=k * k).reshape(k, k)
        return float(cohens_kappa(table, wt=weights, return_results=False))

    return _metric(kappa, both, seed)


def fleiss(units: Sequence[Unit], domain: Sequence[str], seed: int) -> Metric:
    """Returns Fleiss' kappa, over the things that were judged by the commonest number of readers (two or more).

    It wants one number of readers for all, who may be others each time; `"readers"` says how many.

    Source: Fleiss 1971, Psychological Bulletin 76:378-382.
    """
    judged = _by_two(units)
    numbers = Counter(len(unit.said) for unit in judged)
    if not numbers:
        return Metric(None, None, None, 0, NO_OVERLAP)
    readers = max(numbers, key=lambda number: (numbers[number], number))
    chosen = [unit for unit in judged if len(unit.said) == readers]
    counts = _counts(chosen, domain)

    def kappa(drawn: Floats) -> float:
        return float(fleiss_kappa(np.repeat(counts, drawn.astype(int), axis=0)))

    return _metric(kappa, chosen, seed).with_detail(readers=readers)


def alpha(units: Sequence[Unit], domain: Sequence[str], seed: int, level: Literal["nominal", "ordinal"]) -> Metric:
    """Returns Krippendorff's alpha; any number of readers, and not all need have judged everything.

    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability, repository.upenn.edu/asc_papers/43.
    """
    judged = _by_two(units)
    counts = _counts(judged, domain)

    def value(drawn: Floats) -> float:
        if len(domain) < 2:
            return float("nan")
        return krippendorff.alpha(value_counts=np.repeat(counts, drawn.astype(int), axis=0), level_of_measurement=level)

    return _metric(value, judged, seed)


def _metric(statistic: Callable[[Floats], float], units: Sequence[Unit], seed: int) -> Metric:
    """Returns a coefficient; `statistic` takes how often each unit was drawn."""
    if not units:
        return Metric(None, None, None, 0, NO_OVERLAP)

    def of_all(weights: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.array([statistic(drawn) for drawn in weights])

    return weighted_metric(of_all, [unit.patient_id for unit in units], seed, ONE_ANSWER)


def _by_two(units: Sequence[Unit]) -> list[Unit]:
    return [unit for unit in units if len(unit.said) > 1]


def _agreeing(unit: Unit) -> float:
    pairs = list(combinations(unit.said.values(), 2))
    return sum(one == other for one, other in pairs) / len(pairs)


def _places(domain: Sequence[str]) -> dict[str, int]:
    return {answer: at for at, answer in enumerate(domain)}


def _counts(units: Sequence[Unit], domain: Sequence[str]) -> Floats:
    """Returns how many readers gave each answer, shape (units, answers)."""
    place, found = _places(domain), np.zeros((len(units), len(domain)))
    for row, unit in enumerate(units):
        for answer in unit.said.values():
            found[row, place[answer]] += 1
    return found
