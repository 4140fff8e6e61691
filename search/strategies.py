"""All strategies by name: one signature, one result."""

from __future__ import annotations

from collections.abc import Callable

from clinical_data.errors import UsageError
from search.baselines import full_information, greedy, self_consistency
from search.mcts import rstar
from search.problem import Models, SearchProblem
from search.selection import final_rule
from search.settings import SearchSettings
from search.trajectory import SearchResult
from search.value import value_source

_BY_NAME = {
    "rstar": rstar,
    "greedy": greedy,
    "self-consistency": self_consistency,
    "full-information": full_information,
}
STRATEGIES: tuple[str, ...] = tuple(_BY_NAME)


def check_strategy(strategy: str, settings: SearchSettings) -> None:
    """Raises UsageError for an unknown strategy, value source or selection rule."""
    if strategy not in _BY_NAME:
        raise UsageError(f"no strategy named {strategy}", hint=f"known: {', '.join(STRATEGIES)}")
    value_source(settings.value)
    final_rule(settings.selection)


def run_search(
    strategy: str,
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: Callable[[int], None] | None = None,
) -> SearchResult:
    """Runs a strategy on a problem.

    Args:
        strategy: one of `STRATEGIES`.
        problem: the question, with its chart cut at the clock.
        models: generator and peer.
        settings: every choice of the search.
        seed: seed of the run; what the search draws derives from it, the case and the step.
        on_rollout: called with the number of rollouts done so far.

    Raises:
        UsageError: unknown strategy, value source or selection rule.
        ModelError: a model failed.
    """
    check_strategy(strategy, settings)
    return _BY_NAME[strategy](problem, models, settings, seed, on_rollout)
