"""All strategies by name: one signature, one result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clinical_data.errors import UsageError
from search import mcts
from search.baselines import best_of_n, full_information, greedy, part_information, self_consistency
from search.problem import Models, SearchProblem
from search.prospective import prospective
from search.selection import final_rule
from search.settings import SearchSettings
from search.trajectory import SearchResult
from search.value import Judge, check_value, value_model


def _rstar(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: mcts.OnRollout,
    judge: Judge | None,
    *,
    peer: bool = True,
) -> SearchResult:
    """Searches a tree with the chart access that the settings say."""
    access = prospective if settings.chart_access == "prospective" else mcts.rstar
    return access(problem, models, settings, seed, on_rollout, judge, peer=peer)


def _rap(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: mcts.OnRollout,
    judge: Judge | None,
) -> SearchResult:
    """Searches as `rstar` does, but values by RAP's rewards and asks no peer. Source: RAP, arXiv 2305.14992."""
    return _rstar(problem, models, settings, seed, on_rollout, judge, peer=False)


_BY_NAME = {
    "rstar": _rstar,
    "rap": _rap,
    "greedy": greedy,
    "self-consistency": self_consistency,
    "best-of-n": best_of_n,
    "full-information": full_information,
    "part-information": part_information,
}
STRATEGIES: tuple[str, ...] = tuple(_BY_NAME)
_MANY_PATHS = ("self-consistency", "best-of-n", "part-information")  # without a tree there is nothing to commit


def settings_of(strategy: str, settings: SearchSettings) -> SearchSettings:
    """Returns the settings as a strategy takes them: `rap` values by `rap`."""
    return replace(settings, value="rap") if strategy == "rap" else settings


def check_strategy(strategy: str, settings: SearchSettings) -> None:
    """Raises UsageError for an unknown strategy, value source or selection rule, or for two that exclude each other."""
    if strategy not in _BY_NAME:
        raise UsageError(f"no strategy named {strategy}", hint=f"known: {', '.join(STRATEGIES)}")
    check_value(settings.value)
    final_rule(settings.selection)
    if settings.chart_access == "prospective" and strategy in _MANY_PATHS:
        raise UsageError(
            f"strategy {strategy} opens the chart in every sample; chart access prospective needs a search",
            hint="take rstar or rap, or greedy, whose one path opens no more than it commits",
        )


def run_search(
    strategy: str,
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: Callable[[int], None] | None = None,
    judge: Judge | None = None,
) -> SearchResult:
    """Runs a strategy on a problem.

    Args:
        strategy: one of `STRATEGIES`.
        problem: the question, with its chart cut at the clock.
        models: generator and peer, and the value model where the settings name one.
        settings: every choice of the search.
        seed: seed of the run; what the search draws derives from it, the case and the step.
        on_rollout: called with the number of rollouts done so far.
        judge: says how right a conclusion is, for value `ground_truth`; made outside, from training cases alone.

    Raises:
        UsageError: unknown strategy, value source or selection rule, value `ground_truth` without a judge, or a value
            model that is not among the models.
        ModelError: a model failed.
    """
    check_strategy(strategy, settings)
    if value_model(settings.value) and models.value is None:
        raise UsageError(f"value {settings.value} needs its model, and none was given")
    return _BY_NAME[strategy](problem, models, settings_of(strategy, settings), seed, on_rollout, judge)
