"""Metrics over scored case-steps.

    intervals.py     bootstrap over patients: ratios, means, paired differences, any weighted statistic
    scored_step.py   what metrics need to know of one case-step
    calibration.py   Brier, log score, calibration error, risk against coverage, abstentions
    ordinal.py       urgency: weighted kappa, under-triage
    sets.py          set-valued answers, DDXPlus
    summary.py       all of them, of one step

docs/metrics.md says of each what it means, where it comes from and what it does not say.
"""

from evaluation.metrics.calibration import brier_score, log_score
from evaluation.metrics.intervals import (
    FEW_WORDS,
    Metric,
    clustered_ratio,
    difference,
    few_discordant,
    mean_metric,
    weighted_metric,
)
from evaluation.metrics.scored_step import ScoredStep, SetAnswer, Value, mean_of
from evaluation.metrics.summary import (
    accuracy,
    against_labels,
    better,
    comparable,
    label_means,
    means_against_labels,
    summarise,
)

__all__ = [
    "FEW_WORDS",
    "Metric",
    "ScoredStep",
    "SetAnswer",
    "Value",
    "accuracy",
    "against_labels",
    "better",
    "brier_score",
    "clustered_ratio",
    "comparable",
    "difference",
    "few_discordant",
    "label_means",
    "log_score",
    "mean_metric",
    "mean_of",
    "means_against_labels",
    "summarise",
    "weighted_metric",
]
