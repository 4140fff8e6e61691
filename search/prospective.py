"""The prospective chart: search with imagined results, commit the best turn, open the chart for it, search again.

    repeat:
        grow a fresh tree from the committed turns; requests in it are answered by the world model
        commit the best child: most visits, then mean value, then the earliest
        a REQUEST opens the real chart, and its recorded answer is what the next tree starts from
    until FINISH is committed; the last tree gives the answer, which the peer then checks

Source: search.md, "Chart access"; planning with a world model and acting on the best action, RAP, arXiv 2305.14992,
section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from search.actions import ActionKind
from search.budgets import Budget, cost_usd
from search.desk import Desk, Part
from search.mcts import OnRollout, Search, conclude, grow, roles
from search.problem import Models, SearchProblem
from search.settings import SearchSettings
from search.trajectory import SearchResult, Turn
from search.tree import Node
from search.turns import TurnMaker
from search.value import Judge
from search.world_model import evaluated


@dataclass(slots=True)
class _Progress:
    """What the trees so far came to.

    Attributes:
        turns: the committed turns.
        commits: the earlier trees as plain data, each with the turn that was committed from it.
        rollouts: rollouts of all trees.
        imagined: distinct imagined requests of all trees.
        reason: the budget that ended requests or the search, in words.
    """

    turns: tuple[Turn, ...] = ()
    commits: list[dict[str, Any]] = field(default_factory=list)
    rollouts: int = 0
    imagined: int = 0
    reason: str = ""


def prospective(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: OnRollout = None,
    judge: Judge | None = None,
    *,
    peer: bool = True,
) -> SearchResult:
    """Searches commit by commit; only committed requests open the chart.

    `rollouts` of the result sums those of all trees. Its tree is the last one, which begins with the committed turns;
    the earlier ones stand under `"commits": [{"turn": {"kind", "item", "state", "text"}, "node": id of the committed
    child, "nodes": [...], "rollouts": [...]}]`. A budget of tokens or seconds ends the search with the tree at hand;
    one of money ends the requests.

    Args:
        problem, models, settings, seed, judge: as `search.strategies.run_search`.
        on_rollout: called with the number of rollouts done in all trees.
        peer: let the peer check the trajectories of the last tree.
    """
    desk = Desk(models)
    maker = TurnMaker.begin(problem, settings, seed)
    desk.run(maker.prepare(roles(models, peer=peer)))
    budget = Budget(replace(settings, max_cost_usd=0.0))
    progress = _Progress()
    while True:
        label = f"@{len(progress.commits)}" if progress.commits else ""
        search = Search(maker, desk, judge, peer=False, imagines=True, committed=progress.turns, label=label)
        spent = grow(search, budget, _counted(on_rollout, progress.rollouts))
        progress.rollouts += search.tree.root.visits
        progress.imagined += sum(n.turn is not None and n.turn.imagined for n in search.tree.nodes)
        if spent or not search.tree.rollouts or search.best().conclusion is not None:
            break
        desk.run(_commit(search, search.best(), progress))
        if settings.max_cost_usd and not progress.reason and cost_usd(progress.turns) >= settings.max_cost_usd:
            opened = sum(t.action.kind is ActionKind.REQUEST for t in progress.turns)
            maker = replace(maker, settings=replace(settings, max_requests=opened))
            progress.reason = f"the budget of {settings.max_cost_usd:g} USD for requests is spent"
    if peer:
        for leaf in search.tree.terminals():
            if leaf.terminal_visits:
                search.check(leaf)
        desk.finish()
    result = conclude(search, spent or progress.reason)
    result.rollouts, result.imagined_requests = progress.rollouts, progress.imagined
    result.tree = {**search.tree.to_json(), "commits": progress.commits}
    return result


def _commit(search: Search, best: Node, progress: _Progress) -> Part[None]:
    """Commits a child of the start; an imagined request is asked of the chart instead, and judged again."""
    turn = best.turn
    assert turn is not None
    if turn.imagined:
        item = next(i for i in search.maker.problem.items if i.item_id == turn.action.item_id)
        spot = search.maker.spot(progress.turns, f"{search.label}/commit")
        (turn,) = yield from evaluated(search.maker, spot, [search.maker.opened(item, turn.logprob, turn.tokens)])
    progress.commits.append({"turn": _turn_json(turn), "node": best.node_id, **search.tree.to_json()})
    progress.turns = (*progress.turns, turn)


def _turn_json(turn: Turn) -> dict[str, str]:
    state = turn.answer.state.value if turn.answer else ""
    return {"kind": turn.action.kind.value, "item": turn.action.item_id, "state": state, "text": turn.text}


def _counted(on_rollout: OnRollout, before: int) -> OnRollout:
    """Returns a listener that adds the rollouts of earlier trees."""
    if on_rollout is None:
        return None
    return lambda done: on_rollout(before + done)
