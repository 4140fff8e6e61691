"""The engine at the ends of its settings and with models that misbehave: it ends, and says how."""

from dataclasses import replace

import pytest
from conftest import VOCABULARY, make_problem
from scripted_trees import BROKEN, EQUAL, LONG, NOTHING, ONE_PATH, PLAIN, TableModel
from tree_checks import check_result

from search.models.toys import RandomModel
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import STRATEGIES, run_search
from search.trajectory import Status

pytestmark = pytest.mark.timeout(20)

SMALL = SearchSettings(rollouts=6, think=2, ask=2, ask_votes=2, request=2, imagine=2, votes=5)
ENDS = {
    "one-rollout": {"rollouts": 1},
    "depth-one": {"depth": 1},
    "deep": {"depth": 40, "rollouts": 4},
    "wave-above-rollouts": {"wave": 50},
    "one-of-everything": {"think": 1, "ask": 1, "request": 1, "ask_votes": 1, "imagine": 1, "votes": 1},
    "greedy-sampling": {"temperature": 0.0},
    "hot": {"temperature": 1e6},
    "tiny-top-p": {"top_p": 1e-9},
    "one-token": {"turn_tokens": 1},
    "no-requests": {"max_requests": 0},
    "more-requests-than-items": {"max_requests": 100, "request": 100},
    "no-exploration": {"exploration": 0.0},
    "endless-exploration": {"exploration": 1e300},
    "always-abstain": {"abstain_below": 1.5},
    "everything-costs-too-much": {"cost_weight": 1e12},
    "no-peer": {"peer_cuts": 0},
    "many-cuts": {"peer_cuts": 1000},
    "no-weights": {"likelihood_weight": 0.0, "confidence_weight": 0.0, "evaluation_weight": 0.0},
    "one-token-budget": {"max_tokens": 1},
    "one-cent-budget": {"max_cost_usd": 0.01},
    "no-time": {"max_seconds": 1e-9},
    "as-published": {"expansion": "node", "merge": "never", "vote": "drawn", "vote_stop": "never", "stop": "never"},
    "free": {"vote": "free"},
    "drawn": {"vote": "drawn"},
}
MODELS = {
    "random": lambda: RandomModel(1),
    "nothing": lambda: TableModel(1, NOTHING),
    "empty": lambda: TableModel(1, ("",)),
    "the-same-always": lambda: TableModel(1, (" yes",), ((-1.0,),)),
    "equal": lambda: TableModel(1, EQUAL),
    "endless": lambda: TableModel(1, LONG),
    "not-a-number": lambda: TableModel(1, EQUAL, BROKEN[:1]),
    "impossible": lambda: TableModel(1, EQUAL, BROKEN[1:2]),
    "broken-now-and-then": lambda: TableModel(1, EQUAL, PLAIN + BROKEN),
}
PROBLEMS = {
    "plain": {},
    "no-items": {"items": ()},
    "one-answer": {"vocabulary": replace(VOCABULARY, entries=VOCABULARY.entries[:1])},
    "nothing-known": {"clock": -100},
    "a-set": {"form": "set", "most": 2},
    "a-set-of-all": {"form": "set", "most": 50},
}


def holds(strategy, problem, model, settings):
    models = Models(model, model)
    result = run_search(strategy, problem, models, settings, 3)
    check_result(result, problem, settings)
    assert result.status in (Status.VERIFIED, Status.UNVERIFIED, Status.ABSTAIN)
    return result


def accesses(strategy):
    return ("hindsight",) if strategy in ONE_PATH else ("hindsight", "prospective")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("end", ENDS)
def test_settings_at_their_ends(end, model):
    for strategy in STRATEGIES:
        for access in accesses(strategy):
            holds(strategy, make_problem(), MODELS[model](), SMALL.with_options(chart_access=access, **ENDS[end]))


@pytest.mark.parametrize("vote", ["exact", "drawn", "free"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_at_their_ends(name, model, vote):
    for strategy in STRATEGIES:
        for access in accesses(strategy):
            settings = SMALL.with_options(chart_access=access, vote=vote)
            holds(strategy, make_problem(**PROBLEMS[name]), MODELS[model](), settings)
