"""Rules that choose: which slot or child a rollout takes, and which answer a search gives."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    used, verified = _survivors(candidates)
    weights = [mass(c, verified_only=verified) for c in used]
    total = sum(mass(c, verified_only=False) for c in candidates)
    masses = class_masses(used, verified_only=verified)
    scores = {key: m / total if total else 1.0 / len(masses) for key, m in masses.items()}
    return _decide(candidates, used, weights, scores, vocabulary, abstain_below)


def product(candidates: Sequence[Candidate], vocabulary: Vocabulary, abstain_below: float) -> Verdict:
    """Chooses the trajectory with the largest product of mean values Q along its path; it favours short paths.

    Where the peer agreed with some trajectories, only those compete. Class score = the best product of the class,
    over the sum of these over classes.

    Source: search.md, "Final selection".
    """
    return _best_path(candidates, vocabulary, abstain_below, math.prod)


def geometric(candidates: Sequence[Candidate], vocabulary: Vocabulary, abstain_below: float) -> Verdict:
    """Chooses as `product` does, by the geometric mean of the Q along a path, which favours no length.

    Source: search.md, "Final selection".
    """
    return _best_path(candidates, vocabulary, abstain_below, lambda qs: math.prod(qs) ** (1.0 / len(qs)))


def majority(candidates: Sequence[Candidate], vocabulary: Vocabulary, abstain_below: float) -> Verdict:
    """Chooses the answer of most trajectories, whatever they are worth and whatever the peer says.

    Class score = number of trajectories that end in the class, over that of all; one without an answer counts only
    below the line. Ties: more multiplicity x value, then key order. Verified when the peer agreed with one of the
    class, which is then the winner.

    Source: Wang et al. 2022 (arXiv 2203.11171).
    """
    used = _answered(candidates)
    weights = [float(c.multiplicity) for c in used]
    total = sum(c.multiplicity for c in candidates)
    counts: Counter[str] = Counter()
    for candidate in used:
        counts[_key(candidate)] += candidate.multiplicity
    scores = {key: n / total if total else 0.0 for key, n in counts.items()}  # counted first: equal counts stay equal
    merits = [(float(c.verification.verified), c.multiplicity, c.value) for c in used]
    ties = class_masses(used, verified_only=False)
    return _decide(candidates, used, weights, scores, vocabulary, abstain_below, merits, ties)


def best_value(candidates: Sequence[Candidate], vocabulary: Vocabulary, abstain_below: float) -> Verdict:
    """Chooses the trajectory of the highest value, whatever the peer says: best-of-n.

    Class score = the best value of the class, over the sum of these over classes. Verified when the peer agreed with
    the winner.

    Source: Nakano et al. 2021 (WebGPT, arXiv 2112.09332), best-of-n by a reward.
    """
    used = _answered(candidates)
    weights = [c.value for c in used]
    return _decide(candidates, used, weights, _best_of_classes(used, weights), vocabulary, abstain_below)


def _best_path(
    candidates: Sequence[Candidate],
    vocabulary: Vocabulary,
    abstain_below: float,
    merit: Callable[[Sequence[float]], float],
) -> Verdict:
    used, _ = _survivors(candidates)
    weights = [merit(c.path_values or (c.value,)) for c in used]
    return _decide(candidates, used, weights, _best_of_classes(used, weights), vocabulary, abstain_below)


def _key(candidate: Candidate) -> str:
    return str(candidate.trajectory.conclusion.answer_key)


def _answered(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.trajectory.conclusion.answer_key is not None]


def _survivors(candidates: Sequence[Candidate]) -> tuple[list[Candidate], bool]:
    """Returns the candidates that the peer agreed with, and True; without any, all that have an answer, and False."""
    answered = _answered(candidates)
    survivors = [c for c in answered if c.verification.verified]
    return survivors or answered, bool(survivors)


def _best_of_classes(used: Sequence[Candidate], weights: Sequence[float]) -> dict[str, float]:
    """Returns the best weight of each class over the sum of these; equal scores where all are 0."""
    best: dict[str, float] = {}
    for candidate, weight in zip(used, weights, strict=True):
        best[_key(candidate)] = max(weight, best.get(_key(candidate), 0.0))
    total = sum(best.values())
    return {key: weight / total if total else 1.0 / len(best) for key, weight in best.items()}


def _decide(
    candidates: Sequence[Candidate],
    used: Sequence[Candidate],
    weights: Sequence[float],
    scores: Mapping[str, float],
    vocabulary: Vocabulary,
    abstain_below: float,
    merits: Sequence[tuple[float, ...]] | None = None,
    ties: Mapping[str, float] | None = None,
) -> Verdict:
    """Returns the verdict: the class of the highest score, its best trajectory, and how sure that is.

    Args:
        candidates: all of them.
        used: those that compete.
        weights: weight of each that competes in the ranking.
        scores: class -> score in [0, 1].
        merits: what the best of a class has most of; by default the weight. Then the earliest.
        ties: what decides between classes of equal score; by default survival, the number of those that compete.
    """
    draws = sum(c.trajectory.conclusion.draws for c in candidates)
    unparseable = sum(c.trajectory.conclusion.unparseable for c in candidates)
    if not used:
        nothing = Conclusion((), None, draws=draws, unparseable=unparseable)
        return Verdict(Status.ABSTAIN, nothing, None, None, "no answer could be read")
    ties = ties or Counter(_key(c) for c in used)
    order = sorted(scores, key=lambda key: (-scores[key], -ties[key], key))
    leader = order[0]
    margin = scores[leader] - (scores[order[1]] if len(order) > 1 else 0.0)
    _, best = max(
        ((m, c) for m, c in zip(merits or [(w,) for w in weights], used, strict=True) if _key(c) == leader),
        key=lambda pair: (pair[0], -pair[1].node),
    )
    conclusion = _mixture(used, weights, best.trajectory.conclusion, vocabulary)
    conclusion = replace(conclusion, draws=draws, unparseable=unparseable)
    if margin < abstain_below:
        reason = f"the two leading answers are less than {abstain_below * 100:g} % apart"
        return Verdict(Status.ABSTAIN, conclusion, best, margin, reason)
    if not best.verification.verified:
        return Verdict(Status.UNVERIFIED, conclusion, best, margin, _why_unverified(candidates))
    return Verdict(Status.VERIFIED, conclusion, best, margin)


def _why_unverified(candidates: Sequence[Candidate]) -> str:
    others = any(c.verification.verified for c in candidates)
    return f"the second model agreed with {'other answers only' if others else 'no trajectory'}"


def _mixture(
    used: Sequence[Candidate],
    weights: Sequence[float],
    best: Conclusion,
    vocabulary: Vocabulary,
) -> Conclusion:
    """Returns the winner's answer first, then the others by the average of the trajectories' distributions.

    So the list falls from its second answer on; the first may stand above a more probable one that was not verified.

    Of a set the items are ranked: those chosen first, each with the average of its marginals.
    """
    total = sum(weights)
    if total == 0:
        weights, total = [1.0] * len(used), float(len(used))
    shares: dict[str, float] = defaultdict(float)
    for candidate, weight in zip(used, weights, strict=True):
        for hypothesis in candidate.trajectory.conclusion.ranked:
            shares[hypothesis.key] += weight / total * hypothesis.probability
    if not best.chosen:
        return rank(shares, vocabulary, best.supporting, first=(str(best.answer_key),))
    ranked = rank(shares, vocabulary, best.supporting, first=best.chosen)
    chosen = tuple(h.key for h in ranked.ranked[: len(best.chosen)])
    return replace(ranked, answer_key=best.answer_key, chosen=chosen)


FINAL_RULES: dict[str, FinalRule] = {
    "verified": verified_vote,
    "product": product,
    "geometric": geometric,
    "majority": majority,
    "best-value": best_value,
}


def final_rule(name: str) -> FinalRule:
    """Returns the final selection rule of that name, or raises UsageError."""
    if name not in FINAL_RULES:
        raise UsageError(f"no final selection named {name}", hint=f"known: {', '.join(FINAL_RULES)}")
    return FINAL_RULES[name]
