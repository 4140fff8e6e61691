"""How far a probability may be trusted: calibration, and accuracy against coverage.

The probability of an answer is a share of votes or a normalised likelihood until it is calibrated on the tuning split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from evaluation.metrics.intervals import Floats, Metric, mean_metric, weighted_metric
from evaluation.metrics.scored_step import ScoredStep, mean_of
from search.trajectory import Status

BINS = 10
CONFIDENT = 0.5  # probability from which a wrong answer is a confident miss
COVERAGES = (50, 80)  # percent
_POINTS = 20  # of the curve
LEAST_PROBABILITY = 1e-6  # floor of the log score: an answer outside the vocabulary would cost infinity


def brier_score(probabilities: dict[str, float], truth: str | None) -> float:
    """Returns the multi-class Brier score of one case-step: sum over classes of (p - y)^2, in [0, 2].

    Args:
        probabilities: class -> probability; a class that is missing has 0.
        truth: the class that is right; None (outside the vocabulary) is a class of its own with probability 0.

    No answer costs 1, less than a confident wrong answer: a system that falls silent can lower its mean.

    Source: Brier 1950, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78:1-3.
    """
    right = probabilities.get(truth, 0.0) if truth is not None else 0.0
    return sum(p * p for p in probabilities.values()) - right**2 + (1 - right) ** 2


def log_score(probabilities: dict[str, float], truth: str | None) -> float:
    """Returns ln p(truth) of one case-step, in (-13.9, 0]: p is at least 1e-6, also without an answer.

    Source: Good 1952, Rational decisions, Journal of the Royal Statistical Society B 14:107-114.
    """
    right = probabilities.get(truth, 0.0) if truth is not None else 0.0
    return math.log(max(right, LEAST_PROBABILITY))


def expected_calibration_error(labelled: Sequence[ScoredStep], seed: int) -> Metric:
    """Returns the expected calibration error of the first answers, with the bins of its reliability diagram.

    ECE = sum over bins b of (n_b / n) |accuracy_b - mean probability_b|, over ten bins of equal width, (0, 0.1] to
    (0.9, 1]. Over case-steps with an answer and its probability, at the level of the answer key. It depends on the bins
    and is above 0 for small n even of a perfect forecaster, and so is its interval.

    Source: Naeini, Cooper and Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning, AAAI;
    bins as in Guo et al. 2017, On calibration of modern neural networks, ICML (arXiv 1706.04599).
    """
    steps = [s for s in labelled if s.confidence is not None and s.right is not None]
    confidence = np.array([s.confidence for s in steps], dtype=float)
    right = np.array([s.right for s in steps], dtype=float)
    which = np.clip(np.ceil(np.round(confidence * BINS, 9)).astype(int) - 1, 0, BINS - 1)
    in_bin = np.zeros((len(steps), BINS))
    in_bin[np.arange(len(steps)), which] = 1.0
    gaps = in_bin * (right - confidence)[:, None]

    def error(weights: Floats) -> Floats:
        return np.asarray(np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1))

    patients = [s.patient_id for s in steps]
    metric = weighted_metric(error, patients, seed)
    return metric.with_detail(bins=_bins(in_bin, confidence, right, patients, seed))


def _bins(
    in_bin: Floats, confidence: Floats, right: Floats, patients: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Returns the bins that hold case-steps: limits, number, mean probability, and accuracy with its interval."""
    found = []
    for b in range(BINS):
        inside = in_bin[:, b] > 0
        if number := int(inside.sum()):
            own = [patients[int(i)] for i in np.flatnonzero(inside)]
            accuracy = mean_metric(right[inside].tolist(), own, seed, share=True)
            found.append(
                {
                    "above": b / BINS,
                    "up_to": (b + 1) / BINS,
                    "n": number,
                    "probability": float(confidence[inside].mean()),
                    "accuracy": accuracy.value,
                    "low": accuracy.low,
                    "high": accuracy.high,
                }
            )
    return found


class _Ordered:
    """Case-steps in order of falling confidence. Those of equal confidence enter together, in no order.

    `mistakes` of the k most confident are counted as their expectation over all orders of equals, so that no order of
    storage decides.
    """

    def __init__(self, labelled: Sequence[ScoredStep]) -> None:
        confidence = np.array([0.0 if s.confidence is None else round(s.confidence, 9) for s in labelled])
        wrong = np.array([1.0 - (s.right or 0) for s in labelled])
        self._order = np.argsort(-confidence, kind="stable")
        self._first = np.unique(-confidence[self._order], return_index=True)[1]  # of each group, in that order
        self._wrong = wrong[self._order]
        most = 64 * len(labelled)  # a resample can hold a large cluster many times
        self._harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, most + 1))])

    def groups(self, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Returns sizes and mistakes of the groups, and both summed over those before; each (resamples, groups)."""
        ordered = weights[:, self._order]
        sizes = np.add.reduceat(ordered, self._first, axis=1)
        ordered *= self._wrong
        mistakes = np.add.reduceat(ordered, self._first, axis=1)
        return sizes, mistakes, np.cumsum(sizes, axis=1) - sizes, np.cumsum(mistakes, axis=1) - mistakes

    def area(self, weights: Floats) -> Floats:
        """Returns the mean over k = 1..n of the share of mistakes among the k most confident, per resample.

        Within a group of m with e mistakes, after N case-steps with E mistakes, the sum over j = 1..m of
        (E + j e/m) / (N + j) is e + (E - N e/m) (H(N + m) - H(N)), with H the harmonic numbers.
        """
        sizes, mistakes, before, wrong_before = self.groups(weights)
        rate = np.divide(mistakes, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        first, last = before.round().astype(int), (before + sizes).round().astype(int)
        sums = mistakes + (wrong_before - before * rate) * (self._h(last) - self._h(first))
        return np.asarray(sums.sum(axis=1) / sizes.sum(axis=1))

    def accuracy_at(self, weights: Floats, coverage: float) -> Floats:
        """Returns the accuracy of the ceil(coverage n) most confident, per resample."""
        sizes, mistakes, before, _ = self.groups(weights)
        taken = np.ceil(np.round(coverage * sizes.sum(axis=1), 9))
        inside = np.clip(taken[:, None] - before, 0.0, sizes)
        rate = np.divide(mistakes, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        return np.asarray(1.0 - (inside * rate).sum(axis=1) / taken)

    def _h(self, numbers: Any) -> Floats:
        if numbers.max() < len(self._harmonic):
            return np.asarray(self._harmonic[numbers])
        from scipy.special import digamma

        return np.asarray(digamma(numbers + 1.0) + np.euler_gamma)


def risk_coverage(labelled: Sequence[ScoredStep], seed: int) -> dict[str, Metric]:
    """Returns what abstaining by the answer's probability would bring, at the level of the answer key.

    `area_under_risk_coverage`: mean over k = 1..n of the share of mistakes among the k case-steps of highest
    probability (0 best; a probability that says nothing gives the overall error), with its curve.
    `accuracy_at_coverage_50`, `_80`: accuracy of that half (four fifths) of the case-steps. An answer that is missing
    has probability 0 and is a mistake; equal probabilities enter together. Abstentions count like any answer.

    Source: El-Yaniv and Wiener 2010, On the foundations of noise-free selective classification, JMLR 11:1605-1641;
    area: Geifman, Uziel and El-Yaniv 2019, Bias-reduced uncertainty estimation, ICLR (arXiv 1805.08206).
    """
    judged = [s for s in labelled if s.right is not None and s.answer_set is None]
    ordered, patients = _Ordered(judged), [s.patient_id for s in judged]
    area = weighted_metric(ordered.area, patients, seed)
    found = {"area_under_risk_coverage": area.with_detail(curve=_curve(ordered, len(judged)))}
    for percent in COVERAGES:
        found[f"accuracy_at_coverage_{percent}"] = weighted_metric(
            partial(ordered.accuracy_at, coverage=percent / 100), patients, seed
        )
    return found


def _curve(ordered: _Ordered, n: int) -> list[dict[str, float]]:
    """Returns the points of the curve at every twentieth of the coverage."""
    every = np.ones((1, n))
    shares = [k / _POINTS for k in range(1, _POINTS + 1)] if n else []
    return [{"coverage": c, "risk": 1.0 - float(ordered.accuracy_at(every, c)[0])} for c in shares]


def confident_miss(step: ScoredStep) -> float | None:
    """Returns 1 for a wrong first answer with a probability of at least 0.5, whether or not the system abstained."""
    if step.right is None:
        return None
    return float(not step.right and (step.confidence or 0.0) >= CONFIDENT)


def verified_miss(step: ScoredStep) -> float | None:
    """Returns 1 for a wrong first answer that the second model agreed with."""
    return None if step.right is None else float(not step.right and step.status == Status.VERIFIED)


def abstentions(labelled: Sequence[ScoredStep], seed: int) -> dict[str, Metric]:
    """Returns what the system's own abstaining bought, at the level of the answer key.

    `coverage`: share of labelled case-steps with an answer that it did not abstain from; `accuracy_when_answered`: over
    those; `accuracy_of_abstained`: what the answers that it abstained from would have been worth. Where the last is as
    high as the second, abstaining told nothing.

    Source: Geifman and El-Yaniv 2017, Selective classification for deep neural networks, NeurIPS (arXiv 1705.08500).
    """
    judged = [s for s in labelled if s.right is not None]

    def gave(step: ScoredStep) -> bool:
        return step.parseable and step.status not in (Status.ABSTAIN, Status.FAILED)

    held = [s for s in judged if s.status == Status.ABSTAIN and s.parseable]
    return {
        "coverage": mean_of(judged, lambda s: float(gave(s)), seed, share=True),
        "accuracy_when_answered": mean_of([s for s in judged if gave(s)], lambda s: s.right, seed, share=True),
        "accuracy_of_abstained": mean_of(held, lambda s: s.right, seed, share=True),
    }
