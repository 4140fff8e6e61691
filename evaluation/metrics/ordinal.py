"""Urgency on a scale whose first level is the most urgent (triage)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.metrics.intervals import Floats, Metric, weighted_metric
from evaluation.metrics.scored_step import ScoredStep


def quadratic_weighted_kappa(labelled: Sequence[ScoredStep], seed: int) -> Metric:
    """Returns Cohen's kappa with quadratic weights between answered and recorded level.

    kappa = 1 - sum w_ij O_ij / sum w_ij E_ij with w_ij = (i - j)^2, O the observed and E the table expected from the
    margins: 1 is full agreement, 0 what the margins alone give. Over case-steps with an answer (the others have no
    level; `unparseable` and `failed` count them). It depends on how often each level occurs.

    Source: Cohen 1968, Weighted kappa, Psychological Bulletin 70:213-220.
    """
    pairs = [(*s.urgency, s.patient_id) for s in labelled if s.urgency is not None and s.urgency[0] is not None]
    answered = np.array([a for a, _, _ in pairs], dtype=float)
    recorded = np.array([r for _, r, _ in pairs], dtype=float)

    def kappa(weights: Floats) -> Floats:
        # With quadratic weights both sums follow from moments: sum w O = sum (a - r)^2 / n, and
        # sum w E = mean a^2 + mean r^2 - 2 mean a mean r.
        n = weights.sum(axis=1)
        observed = weights @ (answered - recorded) ** 2 / n
        expected = weights @ (answered**2 + recorded**2) / n - 2 * (weights @ answered / n) * (weights @ recorded / n)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(expected > 1e-12, 1.0 - observed / expected, np.nan))

    return weighted_metric(kappa, [p for _, _, p in pairs], seed, "one level alone, on both sides")


def under_triage(step: ScoredStep) -> float | None:
    """Returns 1 where the answer is less urgent than recorded, or missing: without an answer nobody is called.

    Source: Hinson et al. 2019, Triage performance in emergency medicine: a systematic review, Annals of Emergency
    Medicine 74:140-152.
    """
    if step.urgency is None:
        return None
    answered, recorded = step.urgency
    return float(answered is None or answered > recorded)


def over_triage(step: ScoredStep) -> float | None:
    """Returns 1 where the answer is more urgent than recorded. Source: as `under_triage`."""
    if step.urgency is None:
        return None
    answered, recorded = step.urgency
    return float(answered is not None and answered < recorded)
