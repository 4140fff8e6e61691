"""Rules that choose: which slot or child a rollout takes, and which answer a search gives."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from clinical_data.errors import UsageError
from clinical_data.vocabulary import Vocabulary
from search.answers import rank
from search.trajectory import Candidate, Conclusion, Status
from search.tree import Node, Slot, Tree


def uct(node: Node, parent_visits: int, exploration: float) -> float:
    """Returns W/N + c * sqrt(ln N_parent / N); an unvisited child comes before every visited one.

    Rollouts in flight count as visits of value 0 (virtual loss).

    Source: Kocsis and Szepesvari 2006; rStar, arXiv 2408.06195, equation 1.
    """
    visits = node.visits + node.virtual
    if visits == 0:
        return math.inf
    return node.value_sum / visits + exploration * math.sqrt(math.log(max(parent_visits, 1)) / visits)


def choose_slot(node: Node, random: Random) -> Slot | None:
    """Returns an unexpanded slot uniformly at random, or None when all are expanded or being expanded."""
    unexpanded = [s for s in node.slots if s.children is None and not s.in_flight]
    return random.choice(unexpanded) if unexpanded else None


def choose_child(tree: Tree, node: Node, exploration: float) -> Node | None:
    """Returns the child with the highest UCT, the earliest among equals; None when there is none yet.

    The rollout that asks has marked `node` already; it does not count among the parent's visits.
    """
    children = tree.children(node)
    visits = node.visits + max(node.virtual - 1, 0)
    return max(children, key=lambda c: (uct(c, visits, exploration), -c.node_id), default=None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a search.

    Attributes:
        winner: the best trajectory of the winning class; None when nothing was concluded.
        margin: class score of the winner minus that of the next class.
        reason: why it is not verified; empty otherwise.
    """

    status: Status
    conclusion: Conclusion
    winner: Candidate | None
    margin: float | None
    reason: str = ""


FinalRule = Callable[[Sequence[Candidate], Vocabulary, float], Verdict]


def mass(candidate: Candidate, *, verified_only: bool) -> float:
    """Returns multiplicity x value (x agreement, 0 below the threshold, when only the verified count)."""
    weight = candidate.multiplicity * candidate.value
    if not verified_only:
        return weight
    check = candidate.verification
    return weight * check.agreement if check.verified and check.agreement is not None else 0.0


def class_masses(candidates: Sequence[Candidate], *, verified_only: bool) -> dict[str, float]:
    """Returns the summed mass of each answer key, trajectories without an answer left out."""
    masses: dict[str, float] = defaultdict(float)
    for candidate in candidates:
        if (key := candidate.trajectory.conclusion.answer_key) is not None:
            masses[key] += mass(candidate, verified_only=verified_only)
    return dict(masses)


def verified_vote(candidates: Sequence[Candidate], vocabulary: Vocabulary, abstain_below: float) -> Verdict:
    """Chooses among the classes that the peer agreed with; without any, the plain vote, called unverified.

    class score = sum over verified trajectories of (multiplicity x value x agreement), over the sum over all
    of (multiplicity x value). Ties: more verified trajectories (survival), then key order.

    Source: search.md, "Final selection"; after rStar, arXiv 2408.06195, section 3.3.
    """
    total = sum(mass(c, verified_only=False) for c in candidates)
    survivors = [c for c in candidates if c.verification.verified and c.trajectory.conclusion.answer_key is not None]
    used = survivors or [c for c in candidates if c.trajectory.conclusion.answer_key is not None]
    if not used:
        return Verdict(Status.ABSTAIN, Conclusion((), None), None, None, "no answer could be read")
    verified = bool(survivors)
    masses = class_masses(used, verified_only=verified)
    scores = {key: m / total if total else 1.0 / len(masses) for key, m in masses.items()}
    survival = {key: sum(c.trajectory.conclusion.answer_key == key for c in used) for key in scores}
    order = sorted(scores, key=lambda key: (-scores[key], -survival[key], key))
    leader = order[0]
    margin = scores[leader] - (scores[order[1]] if len(order) > 1 else 0.0)
    best = max(
        (c for c in used if c.trajectory.conclusion.answer_key == leader),
        key=lambda c: (mass(c, verified_only=verified), -c.node),
    )
    conclusion = _mixture(used, verified, vocabulary, scores, leader, best)
    if margin < abstain_below:
        reason = f"the two leading answers are closer than {abstain_below:g}"
        return Verdict(Status.ABSTAIN, conclusion, best, margin, reason)
    if not verified:
        return Verdict(Status.UNVERIFIED, conclusion, best, margin, "the second model agreed with no trajectory")
    return Verdict(Status.VERIFIED, conclusion, best, margin)


def _mixture(
    used: Sequence[Candidate],
    verified: bool,
    vocabulary: Vocabulary,
    scores: dict[str, float],
    leader: str,
    best: Candidate,
) -> Conclusion:
    """Returns the ranking: the winning class first, then by the average of the trajectories' distributions."""
    weights = [mass(c, verified_only=verified) for c in used]
    total = sum(weights)
    if total == 0:
        weights, total = [1.0] * len(used), float(len(used))
    shares: dict[str, float] = defaultdict(float)
    for candidate, weight in zip(used, weights, strict=True):
        for hypothesis in candidate.trajectory.conclusion.ranked:
            shares[hypothesis.key] += weight / total * hypothesis.probability
    supporting = best.trajectory.conclusion.supporting
    ranked = rank(dict(shares), vocabulary, supporting, first={**scores, leader: 2.0})
    return ranked


FINAL_RULES: dict[str, FinalRule] = {"verified": verified_vote}


def final_rule(name: str) -> FinalRule:
    """Returns the final selection rule of that name, or raises UsageError."""
    if name not in FINAL_RULES:
        raise UsageError(f"no final selection named {name}", hint=f"known: {', '.join(FINAL_RULES)}")
    return FINAL_RULES[name]
