"""The benchmark of whole searches: it walks the ways it says, with each expansion, and concludes."""

import pytest

from benchmarks.search_speed import SEED, SETTINGS, GuidedSearch, ways
from search.budgets import Budget
from search.desk import Desk
from search.mcts import conclude, grow
from search.models.toys import RandomModel
from search.problem import Models
from search.turns import TurnMaker


@pytest.mark.parametrize("expansion", ["slot", "node"])
@pytest.mark.parametrize("wave", [1, 2])
def test_guided_rollouts_go_the_given_ways(problem, expansion, wave):
    settings = SETTINGS.with_options(expansion=expansion, wave=wave, turn_tokens=4)
    model = RandomModel(3)
    search = GuidedSearch(TurnMaker.begin(problem, settings, 1), Desk(Models(model, model)), peer=False)
    search.ways = ways(settings, SEED)
    expected = [[kind.value for kind, _ in way] for way in search.ways]
    grow(search, Budget(settings))
    result = conclude(search)
    walked = [
        [turn.action.kind.value for turn in search.tree.trajectory(search.tree.nodes[i]).turns]
        for i in result.tree["rollouts"]
    ]
    assert walked == expected
    assert result.rollouts == settings.rollouts
