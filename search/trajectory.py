"""Turns, trajectories and conclusions: what a search is made of and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from clinical_data.chart import Answer
from search.actions import Action, ActionKind
from search.models.language_model import Segment


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One possible answer with its share.

    Attributes:
        key: canonical key by which answers compare.
        display: words for people.
        system, code: coding of the answer; empty for a free text outside every vocabulary.
        probability: share of the vote, in [0, 1]; not calibrated unless the record says so.
    """

    key: str
    display: str
    system: str = ""
    code: str = ""
    probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a trajectory or a search concludes.

    Attributes:
        ranked: hypotheses, most probable first; probabilities sum to at most 1.
        answer_key: key of the first hypothesis; None when nothing could be parsed.
        supporting: ids of the findings revealed on the way.
    """

    ranked: tuple[Hypothesis, ...]
    answer_key: str | None
    supporting: tuple[str, ...] = ()

    def probability_of(self, key: str) -> float:
        """Returns the probability of a key, 0 when it is not ranked."""
        return next((h.probability for h in self.ranked if h.key == key), 0.0)


@dataclass(frozen=True, slots=True)
class Turn:
    """An action and what it brought.

    Attributes:
        action: what was done.
        text: what the model wrote (thought, question and answer, answer words); empty for REQUEST.
        segments: prompt segments this turn adds, cue included, exactly as later prompts hold them.
        answer: the chart's answer to a REQUEST, else None.
        imagined: the answer was made up by a world model and is no finding.
        logprob: ln likelihood of what the model wrote.
        tokens: number of tokens it wrote.
    """

    action: Action
    text: str
    segments: tuple[Segment, ...] = ()
    answer: Answer | None = None
    imagined: bool = False
    logprob: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Turns from the root to a FINISH, and the conclusion drawn there."""

    turns: tuple[Turn, ...]
    conclusion: Conclusion

    @property
    def kinds(self) -> tuple[ActionKind, ...]:
        """Kinds of the turns, in order."""
        return tuple(t.action.kind for t in self.turns)


class Status(StrEnum):
    """How a case-step ended."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    ABSTAIN = "abstain"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Verification:
    """A peer's word on one distinct trajectory.

    Attributes:
        agreement: share of the peer's completions with the same answer key; None when it could not be cut.
        cuts: number of turns kept for each completion.
        answers: the peer's answer key for each cut.
    """

    agreement: float | None
    cuts: tuple[int, ...] = ()
    answers: tuple[str | None, ...] = ()

    @property
    def verified(self) -> bool:
        """At least half of the peer's completions agree. Source: search.md, "Peer verification"."""
        return self.agreement is not None and self.agreement >= 0.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """One distinct concluded trajectory of a search.

    Attributes:
        node: id of its terminal node in the tree.
        multiplicity: rollouts that ended there.
        value: its value, in [0, 1].
    """

    node: int
    trajectory: Trajectory
    multiplicity: int
    value: float
    verification: Verification


@dataclass(slots=True)
class Tokens:
    """Logical token counts of one case-step, equal under cache, resume and workers.

    Attributes:
        prefilled: distinct prompt tokens (nodes of the prefix trie) of generator and peer.
        sampled: tokens sampled.
        reused: prompt tokens that an earlier prompt of this case-step already held.
    """

    prefilled: int = 0
    sampled: int = 0
    reused: int = 0


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One prompt sent to a model and what came back: a line of the audit trail.

    Attributes:
        role: `generator`, `peer` or `world_model`.
        purpose: `think`, `ask`, `answer`, `rephrase`, `request`, `vote`, `prior` (the vote without a case).
        text: the prompt, verbatim.
        prompt_ids: its token ids.
        completions: sampled text, or the choices scored.
        completion_ids: token ids of each completion.
        logprobs: ln likelihood of each completion.
        seed: seed of the sample; None when choices were scored.
    """

    role: str
    purpose: str
    text: str
    prompt_ids: tuple[int, ...]
    completions: tuple[str, ...]
    completion_ids: tuple[tuple[int, ...], ...]
    logprobs: tuple[float, ...]
    seed: int | None = None


@dataclass(slots=True)
class SearchResult:
    """What every strategy returns.

    Attributes:
        status: verified, unverified or abstain.
        conclusion: the answer.
        winner: terminal node id of the winning trajectory; None when no tree was grown.
        tree: the tree as plain data (`search.tree.Tree.to_json`); None when no tree was grown.
        candidates: distinct concluded trajectories.
        peer_agreement: agreement of the winner (None when no peer was asked).
        margin: class score of the winner minus that of the next.
        rollouts: rollouts done.
        tokens: logical token counts.
        calls: every call to a model, in canonical order.
        reason: why it abstained or stopped early, in words; empty otherwise.
    """

    status: Status
    conclusion: Conclusion
    winner: int | None = None
    tree: dict[str, object] | None = None
    candidates: list[Candidate] = field(default_factory=list)
    peer_agreement: float | None = None
    margin: float | None = None
    rollouts: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    calls: list[ModelCall] = field(default_factory=list)
    reason: str = ""
