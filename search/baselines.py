"""Strategies without a tree, under the same signature and record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clinical_data.chart import AnswerState
from search.actions import ActionKind
from search.answers import rank
from search.desk import GENERATOR, Desk, Part
from search.problem import Models, SearchProblem
from search.settings import SearchSettings
from search.trajectory import Candidate, SearchResult, Status, Trajectory, Turn, Verification
from search.turns import TurnMaker, supporting

OnRollout = Callable[[int], None] | None


def one_path(maker: TurnMaker, label: str) -> Part[Trajectory]:
    """Requests one item after the other up to the limit, thinks once, and concludes."""
    turns: tuple[Turn, ...] = ()
    while len(turns) < maker.settings.max_requests and maker.items_left(turns):
        opened = yield from maker.request(maker.spot(turns, f"{label}/request{len(turns)}"))
        turns = (*turns, opened[0])
    thoughts = yield from maker.write(ActionKind.THINK, maker.spot(turns, label), 1)
    turns = (*turns, thoughts[0])
    turn, conclusion = yield from maker.finish(maker.spot(turns, label))
    return Trajectory((*turns, turn), conclusion)


def greedy(
    problem: SearchProblem, models: Models, settings: SearchSettings, seed: int, on_rollout: OnRollout = None
) -> SearchResult:
    """Follows the likeliest item and word at every turn: one trajectory, no search, no peer."""
    settings = settings.with_options(temperature=0.0)
    desk = Desk(models)
    maker = TurnMaker.begin(problem, settings, seed)
    desk.run(maker.prepare((GENERATOR,)))
    trajectory = desk.run(one_path(maker, "greedy"))
    if on_rollout is not None:
        on_rollout(1)
    return _result([trajectory], desk, problem)


def self_consistency(
    problem: SearchProblem, models: Models, settings: SearchSettings, seed: int, on_rollout: OnRollout = None
) -> SearchResult:
    """Samples `rollouts` trajectories side by side and takes the majority answer.

    Source: Wang et al. 2022 (arXiv 2203.11171).
    """
    desk = Desk(models)
    maker = TurnMaker.begin(problem, settings, seed)
    desk.run(maker.prepare((GENERATOR,)))
    running = [desk.start(one_path(maker, f"sample{i}")) for i in range(settings.rollouts)]
    desk.finish()
    if on_rollout is not None:
        on_rollout(settings.rollouts)
    return _result([r.result for r in running], desk, problem)


def full_information(
    problem: SearchProblem, models: Models, settings: SearchSettings, seed: int, on_rollout: OnRollout = None
) -> SearchResult:
    """Puts all that was recorded by the clock into one prompt and asks for the answer: no requests, no search."""
    desk = Desk(models)
    maker = TurnMaker.begin(problem, settings, seed)
    desk.run(maker.prepare((GENERATOR,)))
    opened = [maker.opened(item) for item in maker.items_left(())]
    shown = [t for t in opened if t.answer is not None and t.answer.state is AnswerState.RECORDED]
    turns = tuple(replace(t, answer=replace(t.answer, cost_usd=0.0)) for t in shown if t.answer is not None)
    turn, conclusion = desk.run(maker.finish(maker.spot(turns, "full")))
    if on_rollout is not None:
        on_rollout(1)
    return _result([Trajectory((*turns, turn), conclusion)], desk, problem)


def _result(trajectories: list[Trajectory], desk: Desk, problem: SearchProblem) -> SearchResult:
    """Returns the vote over trajectories; shares are the mean of their distributions, the majority answer first."""
    answered = [t for t in trajectories if t.conclusion.answer_key is not None]
    candidates = [Candidate(i, t, 1, _share(t), Verification(None)) for i, t in enumerate(trajectories)]
    if not answered:
        conclusion = rank({}, problem.vocabulary)
        return SearchResult(
            Status.ABSTAIN,
            conclusion,
            candidates=candidates,
            rollouts=len(trajectories),
            tokens=desk.tokens,
            calls=desk.calls,
            reason="no answer could be read",
        )
    votes: dict[str, float] = {}
    shares: dict[str, float] = {}
    for t in answered:
        votes[str(t.conclusion.answer_key)] = votes.get(str(t.conclusion.answer_key), 0.0) + 1 / len(trajectories)
        for h in t.conclusion.ranked:
            shares[h.key] = shares.get(h.key, 0.0) + h.probability / len(answered)
    conclusion = rank(shares, problem.vocabulary, first=votes)
    best = max(
        (c for c in candidates if c.trajectory.conclusion.answer_key == conclusion.answer_key),
        key=lambda c: (c.value, -c.node),
    )
    conclusion = replace(conclusion, supporting=supporting(best.trajectory.turns))
    top = sorted(votes.values(), reverse=True)
    return SearchResult(
        status=Status.UNVERIFIED,
        conclusion=conclusion,
        winner=best.node,
        candidates=candidates,
        margin=top[0] - (top[1] if len(top) > 1 else 0.0),
        rollouts=len(trajectories),
        tokens=desk.tokens,
        calls=desk.calls,
        reason="this strategy asks no second model",
    )


def _share(trajectory: Trajectory) -> float:
    key = trajectory.conclusion.answer_key
    return trajectory.conclusion.probability_of(key) if key is not None else 0.0
