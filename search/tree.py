"""The search tree: nodes, slots and their statistics, and nothing that chooses among them."""

from __future__ import annotations

from dataclasses import dataclass, field

from search.actions import ActionKind
from search.trajectory import Conclusion, Trajectory, Turn


@dataclass(slots=True)
class Slot:
    """A legal kind of action at a node, whose children are generated only when it is first chosen.

    Attributes:
        kind: what its children do.
        children: node ids, in order of generation; None until expanded.
        in_flight: a rollout is generating its children now.
    """

    kind: ActionKind
    children: list[int] | None = None
    in_flight: bool = False


@dataclass(slots=True)
class Node:
    """A state of the search: the turns from the root to here.

    Attributes:
        node_id: index in the tree; the root is 0.
        parent: id of the parent; None at the root.
        turn: the turn that led here; None at the root.
        key: siblings with equal keys are merged.
        slots: legal kinds here.
        conclusion: set exactly on terminal nodes (after FINISH).
        path: label that seeds derive from: slot kinds and child indices from the root.
        visits: N. value_sum: W. virtual: rollouts in flight through here. terminal_visits: rollouts that ended here.
        terminal_value: value of the conclusion; None elsewhere.
        duplicates: siblings that were merged into this one.
    """

    node_id: int
    parent: int | None
    turn: Turn | None
    key: str
    slots: list[Slot]
    path: str
    conclusion: Conclusion | None = None
    visits: int = 0
    value_sum: float = 0.0
    virtual: int = 0
    terminal_visits: int = 0
    terminal_value: float | None = None
    duplicates: int = 0

    @property
    def mean(self) -> float:
        """Q: mean value, 0 when unvisited."""
        return self.value_sum / self.visits if self.visits else 0.0


@dataclass(slots=True)
class Tree:
    """A list of nodes; ids are indices, so a parent's id is always less than its child's.

    Attributes:
        nodes: all nodes.
        rollouts: the terminal node that each rollout reached, in the order of backing up.
    """

    nodes: list[Node] = field(default_factory=list)
    rollouts: list[int] = field(default_factory=list)

    def add(self, node: Node) -> Node:
        """Appends a node, whose id must be the next index."""
        if node.node_id != len(self.nodes):
            raise ValueError("node ids are indices")
        self.nodes.append(node)
        return node

    @property
    def root(self) -> Node:
        """The node without a parent."""
        return self.nodes[0]

    def path_to(self, node: Node) -> list[Node]:
        """Returns the nodes from the root to a node, both included."""
        path = [node]
        while path[-1].parent is not None:
            path.append(self.nodes[path[-1].parent])
        return path[::-1]

    def turns_to(self, node: Node) -> tuple[Turn, ...]:
        """Returns the turns from the root to a node."""
        turns = []
        while node.turn is not None and node.parent is not None:
            turns.append(node.turn)
            node = self.nodes[node.parent]
        return tuple(turns[::-1])

    def children(self, node: Node) -> list[Node]:
        """Returns the generated children of a node, slot by slot."""
        return [self.nodes[i] for slot in node.slots for i in slot.children or ()]

    def trajectory(self, node: Node) -> Trajectory:
        """Returns the trajectory that ends at a terminal node."""
        if node.conclusion is None:
            raise ValueError(f"node {node.node_id} is not terminal")
        return Trajectory(self.turns_to(node), node.conclusion)

    def terminals(self) -> list[Node]:
        """Returns the terminal nodes in order of id."""
        return [n for n in self.nodes if n.conclusion is not None]

    def to_json(self) -> dict[str, object]:
        """Returns the tree as plain data, from which reports draw it and the answer can be found again.

        `{"nodes": [{"id", "parent", "kind", "item", "state", "text", "visits", "value_sum", "depth", "answer",
        "probability", "terminal_visits", "terminal_value", "duplicates", "open": [kinds not expanded]}],
        "rollouts": [terminal node of each rollout, in order]}`
        """
        depths: list[int] = []  # a parent comes before its children
        for node in self.nodes:
            own = int(node.turn is not None and node.turn.action.kind is not ActionKind.REQUEST)
            depths.append(own if node.parent is None else depths[node.parent] + own)
        nodes = [self._node_json(n, depth) for n, depth in zip(self.nodes, depths, strict=True)]
        return {"nodes": nodes, "rollouts": self.rollouts}

    def _node_json(self, node: Node, depth: int) -> dict[str, object]:
        turn, conclusion = node.turn, node.conclusion
        imagined = {"imagined": True} if turn and turn.imagined else {}
        return {
            "id": node.node_id,
            "parent": node.parent,
            "kind": turn.action.kind.value if turn else "root",
            "item": turn.action.item_id if turn else "",
            "state": turn.answer.state.value if turn and turn.answer else "",
            "text": turn.text if turn else "",
            "depth": depth,
            "visits": node.visits,
            "value_sum": node.value_sum,
            "terminal_visits": node.terminal_visits,
            "terminal_value": node.terminal_value,
            "answer_key": conclusion.answer_key if conclusion else None,
            "answer": conclusion.words if conclusion else "",
            "probability": conclusion.share if conclusion and conclusion.ranked else None,
            "duplicates": node.duplicates,
            "open": [s.kind.value for s in node.slots if s.children is None],
            **imagined,
        }
