"""Set-valued answers (differential, workup, treatment) against recorded sets, case-step by case-step, then the mean.

A case-step without an answer has an empty set: precision, recall and F1 are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from evaluation.metrics.scored_step import ScoredStep, Value

DDXPLUS = "ddxplus"  # the source
DDX_FLOOR = 0.01  # probability from which an answer belongs to a differential of DDXPlus


def precision(chosen: Set[str], recorded: Set[str]) -> float:
    """Returns |chosen and recorded| / |chosen|; 0 for an empty choice.

    Source: Godbole and Sarawagi 2004, Discriminative methods for multi-labeled classification, PAKDD (example-based).
    """
    return len(chosen & recorded) / len(chosen) if chosen else 0.0


def recall(chosen: Set[str], recorded: Set[str]) -> float:
    """Returns |chosen and recorded| / |recorded|; 0 where nothing is recorded. Source: as `precision`."""
    return len(chosen & recorded) / len(recorded) if recorded else 0.0


def f1(chosen: Set[str], recorded: Set[str]) -> float:
    """Returns 2 |chosen and recorded| / (|chosen| + |recorded|); 0 for two empty sets. Source: as `precision`."""
    return 2 * len(chosen & recorded) / (len(chosen) + len(recorded)) if chosen or recorded else 0.0


def of_level(measure: str, level: str) -> Value:
    """Returns the function from a case-step to `precision`, `recall` or `f1` of its set at a level."""
    function = {"precision": precision, "recall": recall, "f1": f1}[measure]

    def value(step: ScoredStep) -> float | None:
        sets = step.answer_set
        if sets is None or level not in sets.recorded:
            return None
        return function(sets.chosen.get(level, frozenset()), sets.recorded[level])

    return value


def recall_at_5(step: ScoredStep) -> float | None:
    """Returns the share of the recorded set among the first 5 answers, whatever was chosen.

    Source: clinical.md, "Recorded label per step", row differential.
    """
    return None if step.answer_set is None else step.answer_set.found_5


def ddxplus(key_level: str) -> dict[str, Value]:
    """Returns DDR, DDP and DDF1 of DDXPlus, by name, as functions of a case-step of its differential.

    The predicted differential is every answer with a probability above 0.01, the recorded one all conditions that the
    release lists (its own cut at 0.01 cannot be made, since the labels keep the order and not the probabilities).
    DDR = |predicted and recorded| / |recorded|, DDP the same over |predicted|, DDF1 their harmonic mean; each averaged
    over patients.

    Source: Fansi Tchango et al. 2022, DDXPlus, NeurIPS Datasets and Benchmarks (arXiv 2205.09148), section 5.
    """

    def made(function: Callable[[Set[str], Set[str]], float]) -> Value:
        def value(step: ScoredStep) -> float | None:
            sets = step.answer_set
            if sets is None or step.source != DDXPLUS or key_level not in sets.recorded:
                return None
            return function(sets.likely, sets.recorded[key_level])

        return value

    return {"ddr": made(recall), "ddp": made(precision), "ddf1": made(f1)}


def chosen_cost(step: ScoredStep) -> float | None:
    """Returns the price of the chosen items, in US dollars; None where the answers are no items of the catalogue.

    Source: prices of the catalogue (CMS Clinical Laboratory Fee Schedule and Physician Fee Schedule).
    """
    return None if step.answer_set is None else step.answer_set.cost
