"""Monte Carlo tree search over turns: select, expand, simulate, back up; and the peer, concurrently.

    repeat in waves until the rollouts are spent or the vote is settled:
        select    an unexpanded slot uniformly at random, else argmax UCT
        expand    generate only that slot's children; merge siblings with equal key
        simulate  go on through random slots to a conclusion
        back up   W += value, N += 1 along the path

Source: rStar, arXiv 2408.06195; what differs is in search.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clinical_data.vocabulary import normalise
from search.actions import ActionKind, depth_of, legal_kinds
from search.desk import GENERATOR, PEER, Desk, Part, Running
from search.peer import verify
from search.problem import Models, SearchProblem
from search.seeds import derive_random
from search.selection import choose_child, choose_slot, class_masses, final_rule, mass
from search.settings import SearchSettings
from search.trajectory import Candidate, Conclusion, SearchResult, Turn, Verification
from search.tree import Node, Slot, Tree
from search.turns import TurnMaker
from search.value import value_source

EARLIEST_STOP = 4  # rollouts


@dataclass(slots=True)
class Search:
    """One search in progress.

    Attributes:
        maker: makes the generator's turns; its seed derives from run seed, case, step and occurrence, and all
            other seeds derive from that one.
        desk: where models are asked.
        checks: terminal node -> the peer's check of it.
    """

    maker: TurnMaker
    desk: Desk
    tree: Tree = field(default_factory=Tree)
    checks: dict[int, Running[Verification]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree.add(Node(0, None, None, "", self.slots(()), ""))

    def slots(self, turns: tuple[Turn, ...]) -> list[Slot]:
        """Returns the slots after some turns: legal kinds, within depth and requests; FINISH alone at the limit."""
        kinds = [t.action.kind for t in turns]
        if kinds and kinds[-1] is ActionKind.FINISH:
            return []
        if depth_of(kinds) + 1 >= self.maker.settings.depth:
            return [Slot(ActionKind.FINISH)]
        legal = legal_kinds(kinds)
        if kinds.count(ActionKind.REQUEST) >= self.maker.settings.max_requests or not self.maker.items_left(turns):
            legal = tuple(k for k in legal if k is not ActionKind.REQUEST)
        if ActionKind.REPHRASE in kinds:
            legal = tuple(k for k in legal if k is not ActionKind.REPHRASE)
        return [Slot(k) for k in legal]

    def rollout(self) -> Part[Node]:
        """Goes from the root to a conclusion and returns its node; the path carries virtual loss meanwhile."""
        node = self.tree.root
        node.virtual += 1
        while node.conclusion is None:
            random = derive_random(self.maker.seed, "select", node.path, node.visits + node.virtual)
            slot = choose_slot(node, random)
            if slot is not None:
                children = yield from self.expand(node, slot)
                node = self.tree.nodes[random.choice(children)]
            else:
                child = choose_child(self.tree, node, self.maker.settings.exploration)
                if child is None:  # every slot here is being expanded by another rollout of this wave
                    yield []
                    continue
                node = child
            node.virtual += 1
        return node

    def expand(self, node: Node, slot: Slot) -> Part[list[int]]:
        """Generates the children of one slot and merges those with equal key."""
        slot.in_flight = True
        turns = self.tree.turns_to(node)
        made = yield from self.maker.make(slot.kind, self.maker.spot(turns, f"{node.path}/{slot.kind.value}"))
        by_key: dict[str, Node] = {}
        for turn, conclusion in made:
            key = turn_key(turn, conclusion)
            if key in by_key:
                by_key[key].duplicates += 1
                continue
            path = f"{node.path}/{slot.kind.value}{len(by_key)}"
            slots = self.slots((*turns, turn))
            by_key[key] = self.tree.add(Node(len(self.tree.nodes), node.node_id, turn, key, slots, path, conclusion))
        slot.children = [n.node_id for n in by_key.values()]
        slot.in_flight = False
        return slot.children

    def back_up(self, leaf: Node) -> None:
        """Adds the value of a rollout's conclusion along its path and takes back the virtual loss."""
        if leaf.terminal_value is None:
            value = value_source(self.maker.settings.value)
            leaf.terminal_value = value(self.tree.trajectory(leaf), self.maker.settings)
        leaf.terminal_visits += 1
        self.tree.rollouts.append(leaf.node_id)
        for node in self.tree.path_to(leaf):
            node.visits += 1
            node.value_sum += leaf.terminal_value
            node.virtual -= 1

    def check(self, leaf: Node) -> None:
        """Starts the peer on a trajectory, once."""
        if leaf.node_id not in self.checks:
            part = verify(self.tree.trajectory(leaf), leaf.path, self.maker)
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
            )
            for n in self.tree.terminals()
            if n.terminal_visits
        ]

    def _verification(self, node: Node) -> Verification:
        running = self.checks.get(node.node_id)
        return running.result if running is not None and running.done else Verification(None)

    def settled(self) -> bool:
        """Says whether the rollouts left can change neither the winning class nor that it is far enough ahead.

        Each can add at most 1 (value 1, agreement 1) to another class. Only once every peer check is in.
        """
        done = self.tree.root.visits
        if done < EARLIEST_STOP or not all(c.done for c in self.checks.values()):
            return False
        candidates, left = self.candidates(), self.maker.settings.rollouts - done
        masses = sorted(class_masses(candidates, verified_only=True).values(), reverse=True)
        lead = masses[0] - (masses[1] if len(masses) > 1 else 0.0) if masses else 0.0
        most = sum(mass(c, verified_only=False) for c in candidates) + left
        return lead > left and (lead - left) / most >= self.maker.settings.abstain_below


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
    on_rollout: Callable[[int], None] | None = None,
) -> SearchResult:
    """Searches with MCTS, verifies with the peer, and returns the best answer that both reach.

    Args:
        seed: seed of the run.
        on_rollout: called with the number of rollouts done, after each wave.
    """
    maker = TurnMaker.begin(problem, settings, seed)
    search = Search(maker, Desk(models))
    search.desk.run(maker.prepare((GENERATOR,) if models.peer_is_generator else (GENERATOR, PEER)))
    while search.tree.root.visits < settings.rollouts and not search.settled():
        left = settings.rollouts - search.tree.root.visits
        wave = [search.desk.start(search.rollout()) for _ in range(min(settings.wave, left))]
        search.desk.round()  # at least one, so that peer checks go on while rollouts revisit known conclusions
        while not all(r.done for r in wave):
            search.desk.round()
        for running in wave:
            search.back_up(running.result)
        for running in wave:
            search.check(running.result)
        if on_rollout is not None:
            on_rollout(search.tree.root.visits)
    search.desk.finish()
    return conclude(search)


def conclude(search: Search) -> SearchResult:
    """Returns the result of a finished search."""
    candidates = search.candidates()
    settings = search.maker.settings
    verdict = final_rule(settings.selection)(candidates, search.maker.problem.vocabulary, settings.abstain_below)
    return SearchResult(
        status=verdict.status,
        conclusion=verdict.conclusion,
        winner=verdict.winner.node if verdict.winner else None,
        tree=search.tree.to_json(),
        candidates=candidates,
        peer_agreement=verdict.winner.verification.agreement if verdict.winner else None,
        margin=verdict.margin,
        rollouts=search.tree.root.visits,
        tokens=search.desk.tokens,
        calls=search.desk.calls,
        reason=verdict.reason,
    )
