"""The branches of a stored search, rebuilt from its concluded trajectories, with what the record says of each.

Every visited node of a search lies on a concluded trajectory, so that visits and values are those of the stored tree;
strategies without a tree (greedy, samples, full information) give branches in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from evaluation.record import CandidateRecord
from evaluation.supervision.traces import Trace, TracedTurn


@dataclass(frozen=True, slots=True)
class Leaf:
    """A concluded trajectory.

    Attributes:
        candidate: as the record keeps it.
        trace: as the models saw it.
        likelihood: share of its vote for the recorded answer, in [0, 1]; 0 without a recorded answer.
        right: its answer agrees with the record.
    """

    candidate: CandidateRecord
    trace: Trace
    likelihood: float = 0.0
    right: bool = False

    @property
    def verified(self) -> bool:
        """The peer agreed with it. Source: search.md, "Peer verification"."""
        return self.candidate.agreement is not None and self.candidate.agreement >= 0.5


@dataclass(eq=False, slots=True)
class Branch:
    """A turn and everything tried after it.

    Attributes:
        turn: the turn that leads here; None at the start.
        leaves: the trajectories through here.
        children: the next turns, by the prompt after them.
    """

    turn: TracedTurn | None = None
    leaves: list[Leaf] = field(default_factory=list)
    children: dict[str, Branch] = field(default_factory=dict)

    @property
    def visits(self) -> int:
        """Rollouts through here."""
        return sum(leaf.candidate.multiplicity for leaf in self.leaves)

    def mean(self, of: Callable[[Leaf], float]) -> float:
        """Returns the mean of a figure over the rollouts through here."""
        return sum(leaf.candidate.multiplicity * of(leaf) for leaf in self.leaves) / self.visits

    @property
    def value(self) -> float:
        """Q: mean value of the rollouts through here."""
        return self.mean(lambda leaf: leaf.candidate.value)

    @property
    def likelihood(self) -> float:
        """Mean share for the recorded answer over the rollouts through here."""
        return self.mean(lambda leaf: leaf.likelihood)

    def walk(self) -> Iterator[Branch]:
        """Yields this branch and all below, each before its children."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def branches(leaves: list[Leaf]) -> Branch:
    """Returns the branches of a case-step; equal turns after equal turns are one branch."""
    root = Branch(leaves=list(leaves))
    for leaf in leaves:
        node = root
        for turn in leaf.trace.turns:
            node = node.children.setdefault(turn.after, Branch(turn))
            node.leaves.append(leaf)
    return root
