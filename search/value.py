"""Where the value of a concluded trajectory comes from, chosen by name; every record says which."""

from __future__ import annotations

from collections.abc import Callable

from clinical_data.errors import UsageError
from search.settings import SearchSettings
from search.trajectory import Trajectory

ValueSource = Callable[[Trajectory, SearchSettings], float]


def self_consistency(trajectory: Trajectory, settings: SearchSettings) -> float:
    """Returns the share of the vote for the leading answer, minus the cost term, kept within [0, 1].

    An unparseable draw counts only below the line; a trajectory without an answer is worth 0.

    Source: rStar, arXiv 2408.06195, section 3.2; Wang et al. 2022 (arXiv 2203.11171).
    """
    conclusion = trajectory.conclusion
    if conclusion.answer_key is None:
        return 0.0
    cost = sum(t.answer.cost_usd for t in trajectory.turns if t.answer is not None)
    share = conclusion.probability_of(conclusion.answer_key) - settings.cost_weight * cost
    return min(max(share, 0.0), 1.0)


VALUE_SOURCES: dict[str, ValueSource] = {"self_consistency": self_consistency}


def value_source(name: str) -> ValueSource:
    """Returns the value source of that name, or raises UsageError."""
    if name not in VALUE_SOURCES:
        raise UsageError(f"no value source named {name}", hint=f"known: {', '.join(VALUE_SOURCES)}")
    return VALUE_SOURCES[name]
