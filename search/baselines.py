"""Strategies without a tree, under the same signature and record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from clinical_data.chart import AnswerState
from search.actions import ActionKind
from search.budgets import Budget
from search.desk import GENERATOR, Desk, Part, together
from search.mcts import OnRollout, result_of
from search.problem import Models, SearchProblem
from search.seeds import derive_random
from search.settings import SearchSettings
from search.trajectory import Candidate, SearchResult, Trajectory, Turn, Verification
from search.turns import TurnMaker
from search.value import Judge, appraised
from search.world_model import evaluated


def one_path(maker: TurnMaker, label: str) -> Part[Trajectory]:
    """Requests one item after the other up to the limit, thinks once, and concludes, as far as `actions` allow."""
    turns: tuple[Turn, ...] = ()
    kinds = maker.settings.kinds
    requests = maker.settings.max_requests if ActionKind.REQUEST in kinds else 0
    while len(turns) < requests and maker.items_left(turns):
        spot = maker.spot(turns, f"{label}/request{len(turns)}")
        opened = yield from maker.request(spot)
        turns = (*turns, *(yield from evaluated(maker, spot, opened[:1])))
    if ActionKind.THINK in kinds:
        spot = maker.spot(turns, label)
        thoughts = yield from maker.write(ActionKind.THINK, spot, 1)
        turns = (*turns, *(yield from evaluated(maker, spot, thoughts[:1])))
    spot = maker.spot(turns, label)
    turn, conclusion = yield from maker.finish(spot)
    return Trajectory((*turns, *(yield from evaluated(maker, spot, [turn]))), conclusion)


def greedy(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: OnRollout = None,
    judge: Judge | None = None,
) -> SearchResult:
    """Follows the likeliest item and word at every turn: one trajectory, no search, no peer, no value."""
    desk = Desk(models)
    maker = TurnMaker.begin(problem, replace(_unvalued(settings), temperature=0.0), seed)
    desk.run(maker.prepare((GENERATOR,)))
    trajectory = desk.run(one_path(maker, "greedy"))
    if on_rollout is not None:
        on_rollout(1)
    return _result([trajectory], desk, maker)


def self_consistency(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: OnRollout = None,
    judge: Judge | None = None,
) -> SearchResult:
    """Samples `rollouts` trajectories side by side and takes the majority answer; no value, no peer.

    Source: Wang et al. 2022 (arXiv 2203.11171).
    """
    desk = Desk(models)
    maker = TurnMaker.begin(problem, _unvalued(settings), seed)
    trajectories, reason = _sampled(maker, desk, on_rollout, lambda i: one_path(maker, f"sample{i}"))
    return _result(trajectories, desk, maker, reason)


def best_of_n(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: OnRollout = None,
    judge: Judge | None = None,
) -> SearchResult:
    """Samples `rollouts` trajectories side by side and takes the answer of the one of highest value; no peer.

    Source: Cobbe et al. 2021 (arXiv 2110.14168), section 4: samples ranked by a verifier; here by `settings.value`.
    """
    desk = Desk(models)
    maker = TurnMaker.begin(problem, settings, seed)
    trajectories, reason = _sampled(maker, desk, on_rollout, lambda i: one_path(maker, f"sample{i}"))
    values = desk.run(together([appraised(t, maker, judge) for t in trajectories]))
    valued = enumerate(zip(trajectories, values, strict=True))
    candidates = [Candidate(i, t, 1, value, Verification(None)) for i, (t, value) in valued]
    return result_of(candidates, "best-value", maker, desk, checked=False, reason=reason)


def full_information(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: OnRollout = None,
    judge: Judge | None = None,
) -> SearchResult:
    """Puts all that was recorded by the clock into one prompt and asks for the answer, whatever `actions` say."""
    desk = Desk(models)
    maker = TurnMaker.begin(problem, settings, seed)
    desk.run(maker.prepare((GENERATOR,)))
    turns = _recorded(maker)
    trajectory = desk.run(_concluded(maker, turns, "full"))
    if on_rollout is not None:
        on_rollout(1)
    return _result([trajectory], desk, maker)


def part_information(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: OnRollout = None,
    judge: Judge | None = None,
) -> SearchResult:
    """Puts a random part of what was recorded by the clock into each of `rollouts` prompts; the majority answers.

    A part holds up to `max_requests` items, of random number and order; each is looked up as a REQUEST would be, so
    that the record holds how likely the model would have asked for it. Which items were recorded is given away, as in
    `full-information`; the strategy makes charts of every length for a model to learn from: what those who kept the
    record looked at, and what followed.
    """
    desk = Desk(models)
    maker = TurnMaker.begin(problem, _unvalued(settings), seed)
    recorded = _recorded(maker)
    most = min(settings.max_requests, len(recorded)) if ActionKind.REQUEST in settings.kinds else 0

    def path(i: int) -> Part[Trajectory]:
        random = derive_random(maker.seed, "part", i)
        return _asked_for(maker, random.sample(recorded, random.randint(0, most)), f"part{i}")

    trajectories, reason = _sampled(maker, desk, on_rollout, path)
    return _result(trajectories, desk, maker, reason)


def _recorded(maker: TurnMaker) -> tuple[Turn, ...]:
    """Returns a turn for each item with something recorded by the clock, at no cost."""
    opened = [maker.opened(item) for item in maker.items_left(())]
    shown = [t for t in opened if t.answer is not None and t.answer.state is AnswerState.RECORDED]
    return tuple(replace(t, answer=replace(t.answer, cost_usd=0.0)) for t in shown if t.answer is not None)


def _asked_for(maker: TurnMaker, part: Sequence[Turn], label: str) -> Part[Trajectory]:
    """Requests given items one after the other, whatever the model would have asked for, and concludes."""
    turns: tuple[Turn, ...] = ()
    for turn in part:
        items = maker.items_left(turns)
        scores = yield from maker.score_items(maker.spot(turns, label), items)
        at = [item.item_id for item in items].index(turn.action.item_id)
        turns = (*turns, replace(turn, logprob=scores.logprobs[at], tokens=len(scores.choice_ids[at])))
    return (yield from _concluded(maker, turns, label))


def _concluded(maker: TurnMaker, turns: tuple[Turn, ...], label: str) -> Part[Trajectory]:
    turn, conclusion = yield from maker.finish(maker.spot(turns, label))
    return Trajectory((*turns, turn), conclusion)


def _unvalued(settings: SearchSettings) -> SearchSettings:
    """Returns settings under which no turn is judged: the strategy reads no value."""
    return replace(settings, value="self_consistency")


def _sampled(
    maker: TurnMaker, desk: Desk, on_rollout: OnRollout, path: Callable[[int], Part[Trajectory]]
) -> tuple[list[Trajectory], str]:
    """Samples `rollouts` trajectories, each by `path`: all side by side, or wave by wave until a budget is spent.

    Returns:
        The trajectories, and which budget ended them, in words.
    """
    settings, budget = maker.settings, Budget(maker.settings)
    desk.run(maker.prepare((GENERATOR,)))
    size = max(settings.wave, 1) if budget.limited else settings.rollouts
    found: list[Trajectory] = []
    while len(found) < settings.rollouts:
        last = min(len(found) + size, settings.rollouts)
        running = [desk.start(path(i)) for i in range(len(found), last)]
        desk.finish()
        found += [r.result for r in running]
        if on_rollout is not None:
            on_rollout(len(found))
        if budget.limited and (spent := budget.spent(desk.tokens, (turn for t in found for turn in t.turns))):
            return found, f"{spent} after {len(found)} rollouts"
    return found, ""


def _result(trajectories: Sequence[Trajectory], desk: Desk, maker: TurnMaker, reason: str = "") -> SearchResult:
    """Returns the majority vote over trajectories."""
    candidates = [Candidate(i, t, 1, t.conclusion.share, Verification(None)) for i, t in enumerate(trajectories)]
    return result_of(candidates, "majority", maker, desk, checked=False, reason=reason)
