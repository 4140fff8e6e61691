"""Turns, trajectories and conclusions: what a search is made of and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from clinical_data.chart import Answer
from search.actions import Action, ActionKind
from search.models.language_model import Segment


class Hypothesis(NamedTuple):
    """One possible answer with its share: a named tuple, since every vote makes one for each answer there is.

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
        ranked: hypotheses, most probable first. Probabilities of one answer sum to at most 1; those of a set are
            marginals, each in [0, 1].
        answer_key: key of the first hypothesis, or that of the chosen set; None when nothing could be parsed.
        supporting: ids of the findings revealed on the way.
        chosen: keys of the items of a set, in the order of `ranked`; empty where one answer is asked for.
        draws: samples drawn for this vote; 0 when it was exact.
        unparseable: draws among them that named no answer.
    """

    ranked: tuple[Hypothesis, ...]
    answer_key: str | None
    supporting: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    draws: int = 0
    unparseable: int = 0

    def probability_of(self, key: str) -> float:
        """Returns the probability of a key, 0 when it is not ranked."""
        return next((h.probability for h in self.ranked if h.key == key), 0.0)

    @property
    def share(self) -> float:
        """Share of the vote for the answer, of a set the mean marginal of its items; 0 without an answer."""
        if self.answer_key is None:
            return 0.0
        keys = self.chosen or (self.answer_key,)
        return sum(self.probability_of(key) for key in keys) / len(keys)

    @property
    def words(self) -> str:
        """The answer in words, items of a set separated by semicolons; empty without an answer."""
        if self.answer_key is None:
            return ""
        return "; ".join(h.display for h in self.ranked[: len(self.chosen) or 1])


@dataclass(frozen=True, slots=True)
class Turn:
    """An action and what it brought.

    Attributes:
        action: what was done.
        text: what the model wrote (thought, question and answer, answer words, imagined result), or the item asked for.
        segments: prompt segments this turn adds, cue included, exactly as later prompts hold them.
        answer: the chart's answer to a REQUEST, else None.
        imagined: the answer was made up by a world model and is no finding.
        logprob: ln likelihood of what the model wrote.
        tokens: number of tokens it wrote.
        confidence: share of its draws that say the same as the one kept (state confidence of RAP); 1 where there is
            one draw, or where the chart answered.
        evaluation: the model's own share of "Yes" to whether this turn was useful; None when it was not asked.
    """

    action: Action
    text: str
    segments: tuple[Segment, ...] = ()
    answer: Answer | None = None
    imagined: bool = False
    logprob: float = 0.0
    tokens: int = 0
    confidence: float = 1.0
    evaluation: float | None = None


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
        agreement: share of the peer's completions with the same answer key, of sets the mean Jaccard index; None
            when it could not be cut.
        cuts: number of turns kept for each completion.
        answers: the peer's answer key for each cut.
    """

    agreement: float | None
    cuts: tuple[int, ...] = ()
    answers: tuple[str | None, ...] = ()

    @property
    def verified(self) -> bool:
        """The agreement is at least a half. Source: search.md, "Peer verification"."""
        return self.agreement is not None and self.agreement >= 0.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """One distinct concluded trajectory of a search.

    Attributes:
        node: id of its terminal node in the tree.
        multiplicity: rollouts that ended there.
        value: its value, in [0, 1].
        path_values: mean value Q of each node from the root's child to the terminal one; empty without a tree.
    """

    node: int
    trajectory: Trajectory
    multiplicity: int
    value: float
    verification: Verification
    path_values: tuple[float, ...] = ()


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
        role: `generator`, `peer`, `world_model` or `value`.
        purpose: `think`, `ask`, `answer`, `rephrase`, `request`, `vote`, `prior` (the vote without a case), `imagine`,
            `evaluate`, `value`.
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
        imagined_requests: distinct requests that a world model answered; free, and no findings.
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
    imagined_requests: int = 0
