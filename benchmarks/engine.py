"""Speed of the search itself, with a model that costs nothing: rollouts per second on a tree of depth 5."""

import time

from benchmarks.tokens import bundled_problems
from search.models.toys import RandomModel
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import run_search

SEARCHES = 30


def measure():
    """Returns rollouts per second of whole searches (tree, prompts, peer checks, audit trail) with the random model."""
    (problem,) = bundled_problems(("ward-0001",))
    model = RandomModel(1)
    models = Models(model, model)
    settings = SearchSettings(rollouts=32)
    run_search("rstar", problem, models, settings, 0)
    began = time.perf_counter()
    rollouts = sum(run_search("rstar", problem, models, settings, seed).rollouts for seed in range(SEARCHES))
    return {"engine_rollouts_per_second": round(rollouts / (time.perf_counter() - began), 1)}
