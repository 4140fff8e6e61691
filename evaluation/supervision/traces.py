"""Rebuilds what a stored trajectory looked like to the models, byte for byte, from the calls stored with its record.

A record keeps turns for people: without the space before them, question and reply in one line, findings as a table.
What a model read stands only in the stored calls. Each turn is therefore looked up there: the call whose prompt is the
text so far and the turn's cue, and whose completion is what the record shows. Where several calls fit, the one from
which the search went on is taken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clinical_data.chart import AnswerState
from evaluation.record import CandidateRecord, RunRecord, TurnRecord
from search import prompts
from search.actions import ActionKind
from search.desk import GENERATOR
from search.trajectory import ModelCall

THOUGHT, QUESTION, REPLY, SECOND_REPLY = "thought", "question", "reply", "second_reply"
REPHRASE, REQUEST, ANSWER = "rephrase", "request", "answer"
PIECES = (THOUGHT, QUESTION, REPLY, SECOND_REPLY, REPHRASE, REQUEST, ANSWER)
"""Names of what a model writes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What a model wrote in one go.

    Attributes:
        name: one of `PIECES`.
        prompt: the prompt it was written after, verbatim.
        text: what it wrote, verbatim, without the line break that ended it.
        cut: the limit of tokens ended it, not the model.
    """

    name: str
    prompt: str
    text: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class TracedTurn:
    """One turn as prompts hold it.

    Attributes:
        kind: what was done.
        before: the prompt before it.
        segments: what it adds, in the parts in which the search adds it.
        pieces: what the model wrote of it; empty where the model was not asked (full information).
    """

    kind: ActionKind
    before: str
    segments: tuple[str, ...]
    pieces: tuple[Piece, ...]

    @property
    def added(self) -> str:
        """What it adds, cue included."""
        return "".join(self.segments)

    @property
    def after(self) -> str:
        """The prompt after it."""
        return self.before + self.added


@dataclass(frozen=True, slots=True)
class Trace:
    """A trajectory as prompts hold it: the prompt before any turn, then the turns up to the answer."""

    opening: str
    turns: tuple[TracedTurn, ...]


class CallBook:
    """The calls of one case-step, found by role, purpose and prompt.

    Args:
        calls: all of them, in stored order.
        turn_tokens: most tokens of one turn; a completion that reaches it was cut.
        likelihood: how the search added up the tokens of an answer, `mean` or `sum`.
    """

    def __init__(self, calls: Sequence[ModelCall], turn_tokens: int, likelihood: str = "mean") -> None:
        self.likelihood = likelihood
        self._calls: dict[tuple[str, str, str], list[ModelCall]] = defaultdict(list)
        self._turn_tokens = turn_tokens
        for call in calls:
            self._calls[call.role, call.purpose, call.text].append(call)
        self._texts = sorted({call.text for call in calls if call.role == GENERATOR and call.purpose != "prior"})

    def find(self, role: str, purpose: str, prompt: str) -> list[ModelCall]:
        """Returns the calls of a role and purpose with exactly that prompt, in stored order."""
        return self._calls.get((role, purpose, prompt), [])

    def prior(self, role: str) -> ModelCall | None:
        """Returns the vote without a case of a role, or else of the generator; None where votes were not calibrated."""
        for wanted in (role, GENERATOR):
            for (found, purpose, _), calls in self._calls.items():
                if found == wanted and purpose == "prior":
                    return calls[0]
        return None

    def drafts(self, role: str, purpose: str, name: str, prompt: str) -> list[Piece]:
        """Returns what a role wrote after a prompt, each distinct text once."""
        found: dict[str, Piece] = {}
        for call in self.find(role, purpose, prompt):
            cut = len(call.completion_ids[0]) >= self._turn_tokens
            found.setdefault(call.completions[0], Piece(name, prompt, call.completions[0], cut))
        return list(found.values())

    def goes_on(self, text: str) -> bool:
        """Says whether some prompt of the generator begins with a text."""
        at = bisect_left(self._texts, text)
        return at < len(self._texts) and self._texts[at].startswith(text)

    def lines_after(self, text: str) -> list[str]:
        """Returns what stands on the rest of the line wherever a prompt of the generator begins with a text."""
        found: dict[str, None] = {}
        for known in self._texts[bisect_left(self._texts, text) :]:
            if not known.startswith(text):
                break
            line, broken, _ = known[len(text) :].partition("\n")
            if broken:
                found[line] = None
        return list(found)

    def first_prompt(self) -> str | None:
        """Returns a prompt that holds the opening; None without calls."""
        return self._texts[0] if self._texts else None


def opening_of(record: RunRecord, book: CallBook) -> str | None:
    """Returns the prompt before any turn: header, patient, earlier conclusions, what the record answered at once.

    None where the stored prompts do not begin so.
    """
    text = book.first_prompt()
    head, blank, rest = (text or "").partition("\n\n")
    lines = rest.split("\n")
    if not blank or not lines[0].startswith("Patient: "):
        return None
    answered = sum(turn.state == AnswerState.RECORDED for turn in record.opening)
    earlier = 0
    while earlier + 1 < len(lines) and lines[earlier + 1].startswith("Earlier conclusion: "):
        earlier += 1
    opening = head + blank + "\n".join(lines[: 1 + earlier + answered])
    return opening if book.goes_on(opening + "\n") else None


def trace(candidate: CandidateRecord, opening: str, answer_cue: str, book: CallBook) -> Trace | None:
    """Returns a stored trajectory as the models saw it; None where the stored calls do not hold it.

    Args:
        candidate: a concluded trajectory without imagined results.
        opening: the prompt before any turn.
        answer_cue: word before the answer, as the pathway has it.
        book: the calls of its case-step.
    """
    found = next(_ways(candidate.turns, opening, f"\n{answer_cue}:", book), None)
    return None if found is None else Trace(opening, found)


def _ways(
    turns: Sequence[TurnRecord], before: str, answer_cue: str, book: CallBook
) -> Iterator[tuple[TracedTurn, ...]]:
    """Yields the ways in which turns can have come after a text, the first draws first."""
    if not turns:
        return
    turn, rest = turns[0], turns[1:]
    if turn.kind == ActionKind.FINISH:
        prompt = before + answer_cue
        if book.find(GENERATOR, "vote", prompt):
            words = f" {turn.text}"
            piece = Piece(ANSWER, prompt, words)
            yield (TracedTurn(ActionKind.FINISH, before, (answer_cue, words), (piece,)),)
        return
    for one in _drafts(turn, before, book):
        if book.goes_on(one.after + "\n"):
            for others in _ways(rest, one.after, answer_cue, book):
                yield (one, *others)


def _drafts(turn: TurnRecord, before: str, book: CallBook) -> Iterator[TracedTurn]:
    kind = ActionKind(turn.kind)
    if kind is ActionKind.REQUEST:
        yield from _requests(turn, before, book)
    elif kind is ActionKind.ASK:
        yield from _questions(turn, before, book)
    else:
        purpose, name, cue = {
            ActionKind.THINK: ("think", THOUGHT, prompts.CUES[ActionKind.THINK]),
            ActionKind.REPHRASE: ("rephrase", REPHRASE, prompts.CUES[ActionKind.REPHRASE]),
            ActionKind.REASK: ("reask", SECOND_REPLY, prompts.REASK_CUE),
        }[kind]
        for piece in book.drafts(GENERATOR, purpose, name, before + cue):
            if piece.text.strip() == turn.text:
                yield TracedTurn(kind, before, (cue, piece.text), (piece,))


def _questions(turn: TurnRecord, before: str, book: CallBook) -> Iterator[TracedTurn]:
    cue = prompts.CUES[ActionKind.ASK]
    for question in book.drafts(GENERATOR, "ask", QUESTION, before + cue):
        stem = before + cue + question.text + prompts.REPLY_CUE
        for reply in book.drafts(GENERATOR, "ask-reply", REPLY, stem):
            if f"{question.text.strip()} {reply.text.strip()}" == turn.text:
                segments = (cue, question.text, prompts.REPLY_CUE, reply.text)
                yield TracedTurn(ActionKind.ASK, before, segments, (question, reply))


def _requests(turn: TurnRecord, before: str, book: CallBook) -> Iterator[TracedTurn]:
    """Yields the request with the chart's answer, which later prompts hold; a world model's own texts are no answer."""
    cue, words = prompts.CUES[ActionKind.REQUEST], f" {turn.text}"
    asked = before + cue
    chosen = any(words in call.completions for call in book.find(GENERATOR, "request", asked))
    stem = asked + words + prompts.RESULT_CUE
    imagined = {call.completions[0] for call in book.find("world_model", "imagine", stem)}
    for line in book.lines_after(stem):
        if line not in imagined:
            pieces = (Piece(REQUEST, asked, words),) if chosen else ()
            yield TracedTurn(ActionKind.REQUEST, before, (cue, words, prompts.RESULT_CUE + line), pieces)
