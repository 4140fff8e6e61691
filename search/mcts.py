"""Monte Carlo tree search over turns: select, expand, simulate, back up; and the peer, concurrently.

    repeat in waves until the rollouts or a budget are spent, or the vote is settled:
        select    an unexpanded slot uniformly at random, else argmax UCT
        expand    generate only that slot's children; merge siblings with equal key
        simulate  go on through random slots to a conclusion
        back up   W += value, N += 1  along the path

With `expansion: node` all slots of a node are expanded at once and its unvisited children come first, at random, as in
the reference code.

Source: rStar, arXiv 2408.06195; what differs is in search.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from clinical_data.vocabulary import normalise
from search.actions import ActionKind, depth_of, legal_kinds
from search.budgets import Budget
from search.desk import GENERATOR, PEER, Desk, Part, Running, together
from search.peer import verify
from search.problem import Models, SearchProblem
from search.seeds import derive_random
from search.selection import choose_child, choose_slot, class_masses, final_rule, mass
from search.settings import SearchSettings
from search.trajectory import Candidate, Conclusion, SearchResult, Status, Turn, Verification
from search.tree import Node, Slot, Tree
from search.turns import TurnMaker
from search.value import Judge, appraised
from search.world_model import evaluated, imagine

EARLIEST_STOP = 4  # rollouts
NO_PEER = "this strategy asks no second model"
OnRollout = Callable[[int], None] | None


@dataclass(slots=True)
class Search:
    """One tree in progress.

    Attributes:
        maker: makes the generator's turns; its seed derives from run seed, case, step and occurrence, and all
            other seeds derive from that one.
        desk: where models are asked.
        judge: values conclusions where `settings.value` is `ground_truth`.
        peer: a peer checks every conclusion as it is reached.
        imagines: requests are answered by the world model instead of the chart.
        committed: turns that the search starts from; the tree begins with them, one node below the other.
        label: stands before the paths that seeds derive from, so that a tree that starts deeper draws anew.
        checks: terminal node -> the peer's check of it.
    """

    maker: TurnMaker
    desk: Desk
    judge: Judge | None = None
    peer: bool = True
    imagines: bool = False
    committed: tuple[Turn, ...] = ()
    label: str = ""
    tree: Tree = field(default_factory=Tree)
    checks: dict[int, Running[Verification]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree.add(Node(0, None, None, "", self.slots(()), self.label))
        for at, turn in enumerate(self.committed, start=1):
            above = self.start
            above.slots = [Slot(turn.action.kind, [at])]
            path = f"{above.path}/{turn.action.kind.value}0"
            self.tree.add(Node(at, at - 1, turn, turn_key(turn, None), self.slots(self.committed[:at]), path))

    @property
    def start(self) -> Node:
        """The node after the committed turns."""
        return self.tree.nodes[min(len(self.committed), len(self.tree.nodes) - 1)]

    def slots(self, turns: tuple[Turn, ...]) -> list[Slot]:
        """Returns the slots after some turns: legal kinds, within depth and requests; FINISH alone at the limit.

        FINISH waits for `min_requests`, unless nothing may be requested any more.
        """
        kinds = [t.action.kind for t in turns]
        if kinds and kinds[-1] is ActionKind.FINISH:
            return []
        if depth_of(kinds) + 1 >= self.maker.settings.depth:
            return [Slot(ActionKind.FINISH)]
        legal = tuple(k for k in legal_kinds(kinds) if k in self.maker.settings.kinds)
        requests = kinds.count(ActionKind.REQUEST)
        if requests >= self.maker.settings.max_requests or not self.maker.items_left(turns):
            legal = tuple(k for k in legal if k is not ActionKind.REQUEST)
        if requests < self.maker.settings.min_requests and ActionKind.REQUEST in legal:
            legal = tuple(k for k in legal if k is not ActionKind.FINISH)
        if ActionKind.REPHRASE in kinds:
            legal = tuple(k for k in legal if k is not ActionKind.REPHRASE)
        return [Slot(k) for k in legal]

    def rollout(self) -> Part[Node]:
        """Goes from the root to a conclusion, values it, returns its node; the path carries virtual loss meanwhile."""
        node = self.tree.root
        node.virtual += 1
        while node.conclusion is None:
            random = derive_random(self.maker.seed, "select", node.path, node.visits + node.virtual)
            child = yield from self.descend(node, random)
            if child is None:  # every slot here is being expanded by another rollout of this wave
                yield []
                continue
            node = child
            node.virtual += 1
        return (yield from self.valued(node))

    def valued(self, node: Node) -> Part[Node]:
        """Gives a concluded node its value, once, and returns it."""
        if node.terminal_value is None:
            node.terminal_value = yield from appraised(self.tree.trajectory(node), self.maker, self.judge)
        return node

    def descend(self, node: Node, random: Random) -> Part[Node | None]:
        """Goes one turn down: through an unexpanded slot where there is one, else by UCT; None where it must wait."""
        slot = choose_slot(node, random)
        if self.maker.settings.expansion == "node":
            if slot is not None:
                yield from together([self.expand(node, s) for s in node.slots])
            fresh = [c for c in self.tree.children(node) if c.visits + c.virtual == 0]
            if fresh:
                return random.choice(fresh)
        elif slot is not None:
            children = yield from self.expand(node, slot)
            return self.tree.nodes[random.choice(children)]
        return choose_child(self.tree, node, self.maker.settings.exploration)

    def expand(self, node: Node, slot: Slot) -> Part[list[int]]:
        """Generates the children of one slot and merges those with equal key."""
        slot.in_flight = True
        turns = self.tree.turns_to(node)
        spot = self.maker.spot(turns, f"{node.path}/{slot.kind.value}")
        if slot.kind is ActionKind.REQUEST and self.imagines:
            made: list[tuple[Turn, Conclusion | None]] = [(t, None) for t in (yield from imagine(self.maker, spot))]
        else:
            made = yield from self.maker.make(slot.kind, spot)
        groups = self._merged(made)
        kept = yield from evaluated(self.maker, spot, [group[0][0] for group in groups])
        slot.children = []
        for turn, group in zip(kept, groups, strict=True):
            conclusion = group[0][1]
            path = f"{node.path}/{slot.kind.value}{len(slot.children)}"
            slots, key = self.slots((*turns, turn)), turn_key(turn, conclusion)
            child = self.tree.add(Node(len(self.tree.nodes), node.node_id, turn, key, slots, path, conclusion))
            child.duplicates = len(group) - 1
            slot.children.append(child.node_id)
        slot.in_flight = False
        return slot.children

    def _merged(self, made: Sequence[tuple[Turn, Conclusion | None]]) -> list[list[tuple[Turn, Conclusion | None]]]:
        """Returns the turns in groups of equal key, in order; each alone where siblings are never merged."""
        if self.maker.settings.merge == "never":
            return [[one] for one in made]
        groups: dict[str, list[tuple[Turn, Conclusion | None]]] = {}
        for turn, conclusion in made:
            groups.setdefault(turn_key(turn, conclusion), []).append((turn, conclusion))
        return list(groups.values())

    def back_up(self, leaf: Node) -> None:
        """Adds the value of a rollout's conclusion along its path and takes back the virtual loss."""
        value = leaf.terminal_value
        assert value is not None
        leaf.terminal_visits += 1
        self.tree.rollouts.append(leaf.node_id)
        for node in self.tree.path_to(leaf):
            node.visits += 1
            node.value_sum += value
            node.virtual -= 1

    def check(self, leaf: Node) -> None:
        """Starts the peer on a trajectory, once."""
        if leaf.node_id not in self.checks:
            other = not self.desk.models.peer_is_generator
            part = verify(self.tree.trajectory(leaf), leaf.path, self.maker, other_model=other)
            self.checks[leaf.node_id] = self.desk.start(part)

    def candidates(self) -> list[Candidate]:
        """Returns the trajectories concluded so far, with the peer's word where it is there."""
        return [
            Candidate(
                node=n.node_id,
                trajectory=self.tree.trajectory(n),
                multiplicity=n.terminal_visits,
                value=n.terminal_value or 0.0,
                verification=self._verification(n),
                path_values=tuple(above.mean for above in self.tree.path_to(n)[1:]),
            )
            for n in self.tree.terminals()
            if n.terminal_visits
        ]

    def _verification(self, node: Node) -> Verification:
        running = self.checks.get(node.node_id)
        return running.result if running is not None and running.done else Verification(None)

    def settled(self) -> bool:
        """Says whether the rollouts left can change nothing that counts.

        Where the tree gives the answer: neither the winning class nor that it is far enough ahead. Each rollout can
        add at most 1 (value 1, agreement 1) to another class. Only once every peer check is in. Where requests are
        imagined: the turn to commit.
        """
        settings, left = self.maker.settings, self._left()
        if not self._may_end() or not all(c.done for c in self.checks.values()):
            return False
        if self.imagines:
            return self._commit_settled(left)
        candidates = self.candidates()
        masses = sorted(class_masses(candidates, verified_only=self.peer).values(), reverse=True)
        lead = masses[0] - (masses[1] if len(masses) > 1 else 0.0) if masses else 0.0
        most = sum(mass(c, verified_only=False) for c in candidates) + left
        return lead > left and (lead - left) / most >= settings.abstain_below

    def hinges_on_checks(self) -> bool:
        """Says whether the search would be settled now if the peer checks under way all favoured one class."""
        pending = {node for node, check in self.checks.items() if not check.done}
        if not pending or self.imagines or not self._may_end():
            return False
        candidates = self.candidates()
        sure = class_masses(candidates, verified_only=True)
        hoped = class_masses([c for c in candidates if c.node in pending], verified_only=False)
        for key in hoped:
            others = max((m for other, m in sure.items() if other != key), default=0.0)
            if sure.get(key, 0.0) + hoped[key] - others > self._left():
                return True
        return False

    def _left(self) -> int:
        return self.maker.settings.rollouts - self.tree.root.visits

    def _may_end(self) -> bool:
        """Says whether settings and rollouts done admit an early end at all: no lead exceeds the rollouts done."""
        settings, done = self.maker.settings, self.tree.root.visits
        if settings.stop == "never" or done < EARLIEST_STOP or done <= self._left():
            return False
        return self.imagines or settings.selection == "verified"  # the bounds are those of class scores

    def _commit_settled(self, left: int) -> bool:
        """Says whether the best child stays the most visited; never of FINISH, whose tree gives the answer."""
        ranked = sorted(self.tree.children(self.start), key=preference, reverse=True)
        if not ranked or ranked[0].conclusion is not None:
            return False
        return ranked[0].visits - (ranked[1].visits if len(ranked) > 1 else 0) > left

    def best(self) -> Node:
        """Returns the best child of the start: most visits, then mean value, then the earliest."""
        return max(self.tree.children(self.start), key=preference)


def preference(node: Node) -> tuple[int, float, int]:
    """Returns the order in which turns are committed: visits, mean value, age."""
    return node.visits, node.mean, -node.node_id


def turn_key(turn: Turn, conclusion: Conclusion | None) -> str:
    """Returns the key by which siblings are merged: the item, the answer, or the words."""
    if turn.action.kind is ActionKind.REQUEST:
        return turn.action.item_id
    return str(conclusion.answer_key) if conclusion is not None else normalise(turn.text)


def rstar(
    problem: SearchProblem,
    models: Models,
    settings: SearchSettings,
    seed: int,
    on_rollout: OnRollout = None,
    judge: Judge | None = None,
    *,
    peer: bool = True,
) -> SearchResult:
    """Searches with MCTS, verifies with the peer, and returns the best answer that both reach.

    Every branch reads the chart (hindsight); `search.prospective` is the other way.

    Args:
        problem, models, settings: as `search.strategies.run_search`.
        seed: seed of the run.
        on_rollout: called with the number of rollouts done, after each wave.
        judge: values conclusions where `settings.value` is `ground_truth`.
        peer: ask the peer; without it the vote over all trajectories decides.
    """
    maker = TurnMaker.begin(problem, settings, seed)
    search = Search(maker, Desk(models), judge, peer)
    budget = Budget(settings)
    search.desk.run(maker.prepare(roles(models, peer=peer)))
    reason = grow(search, budget, on_rollout)
    search.desk.finish()
    return conclude(search, reason)


def roles(models: Models, *, peer: bool) -> tuple[str, ...]:
    """Returns the roles whose answers without a case are asked for."""
    return (GENERATOR, PEER) if peer and not models.peer_is_generator else (GENERATOR,)


def grow(search: Search, budget: Budget, on_rollout: OnRollout = None) -> str:
    """Runs rollouts in waves until they or a budget are spent, or the tree is settled.

    At least one wave is run, however small the budget. Peer checks share the batches of the next wave; those on which
    an early end hinges are finished first. What is still under way at the end is finished later.

    Returns:
        Which budget ended it, in words; empty for none.
    """
    settings, root = search.maker.settings, search.tree.root
    spent = ""
    while root.visits < settings.rollouts and not spent and not search.settled():
        wave_size = min(max(settings.wave, 1), settings.rollouts - root.visits)
        wave = [search.desk.start(search.rollout()) for _ in range(wave_size)]
        search.desk.round()  # at least one, so that peer checks go on while rollouts revisit known conclusions
        while not all(r.done for r in wave):
            search.desk.round()
        for running in wave:
            search.back_up(running.result)
        if search.peer:
            for running in wave:
                search.check(running.result)
            if search.hinges_on_checks():
                search.desk.finish()
        if on_rollout is not None:
            on_rollout(root.visits)
        if budget.limited:
            spent = budget.spent(search.desk.tokens, (n.turn for n in search.tree.nodes if n.turn is not None))
    return f"{spent} after {root.visits} rollouts" if spent else ""


def conclude(search: Search, reason: str = "") -> SearchResult:
    """Returns the result of a finished search; `reason` says why it ended early."""
    candidates, rule = search.candidates(), search.maker.settings.selection
    result = result_of(candidates, rule, search.maker, search.desk, checked=bool(search.checks), reason=reason)
    result.tree = search.tree.to_json()
    return result


def result_of(
    candidates: list[Candidate], rule: str, maker: TurnMaker, desk: Desk, *, checked: bool, reason: str = ""
) -> SearchResult:
    """Returns what a final selection rule makes of trajectories.

    Args:
        candidates: the trajectories; their multiplicities sum to the rollouts.
        rule: name of the rule.
        maker: knows the problem and its settings.
        desk: holds the calls and the token counts.
        checked: a peer was asked.
        reason: why the strategy ended early.
    """
    verdict = final_rule(rule)(candidates, maker.problem.vocabulary, maker.settings.abstain_below)
    why = NO_PEER if verdict.status is Status.UNVERIFIED and not checked else verdict.reason
    return SearchResult(
        status=verdict.status,
        conclusion=verdict.conclusion,
        winner=verdict.winner.node if verdict.winner else None,
        candidates=candidates,
        peer_agreement=verdict.winner.verification.agreement if verdict.winner else None,
        margin=verdict.margin,
        rollouts=sum(c.multiplicity for c in candidates),
        tokens=desk.tokens,
        calls=desk.calls,
        reason="; ".join(r for r in (why, reason) if r),
    )
