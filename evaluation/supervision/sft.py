"""Rows for supervised fine-tuning: after a prompt of the search, what a model should have written.

One trajectory of each case-step is taught. Of those that agree with the record the best: verified before others, then
by value, the peer's agreement and the likelihood of the label. Where none agrees, the branch under which the recorded
label is likeliest, with the label in the place of its conclusion (cold start).

Source: rejection-sampling fine-tuning, Yuan et al. 2023 (arXiv 2308.01825), with rStar's mutual consistency (arXiv
2408.06195) as the filter; the cold start is after STaR's rationalisation, Zelikman et al. 2022 (arXiv 2203.14465), but
puts no hint into the prompt.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from evaluation.supervision.branches import Leaf
from evaluation.supervision.lessons import Lesson
from evaluation.supervision.targets import Target, keys_of, vote_after
from evaluation.supervision.traces import ANSWER, THOUGHT, Piece, Trace
from search import prompts
from search.actions import Action
from search.desk import GENERATOR, PEER
from search.models.language_model import Segment
from search.peer import redacted
from search.trajectory import Status, Turn

END = "\n"
"""What ends a completion: a search stops a sample at a line break, and the next cue begins with one."""

VOTE, BY_PEER, RECORD, REVIEWER = "vote", "peer", "record", "reviewer"
LABEL_SOURCES = (VOTE, BY_PEER, RECORD, REVIEWER)
"""Who gave an answer or a label: the model's own vote, vote and peer together, the record, a clinician."""


ROLES = (GENERATOR, PEER)
"""The models that a set may be for."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What the peer made of a trajectory's beginning.

    Attributes:
        thought: what it wrote.
        answer_prompt: the prompt of its vote.
        words: its answer as prompts hold it.
        rightness: how right that is, in [0, 1].
        likelihood: share of its vote for the recorded answer.
    """

    thought: Piece
    answer_prompt: str
    words: str
    rightness: float
    likelihood: float


def taught(lesson: Lesson) -> tuple[Leaf, bool]:
    """Returns the trajectory that a case-step teaches, and whether it is a cold start."""
    agreeing = [leaf for leaf in lesson.leaves if leaf.right]
    if agreeing:
        return max(agreeing, key=_merit), False
    return max(lesson.leaves, key=lambda x: (x.likelihood, x.candidate.value, -x.candidate.node)), True


def of_role(rows: Iterable[dict[str, Any]], role: str | None) -> Iterator[dict[str, Any]]:
    """Yields the rows that teach one model; None: all.

    The generator learns what it writes itself. The peer learns its own completions, and the generator's answers: most
    case-steps of a weak pair have no completion of the peer (a direct answer cannot be cut; not every strategy asks a
    peer), and without the answers it would learn next to nothing of what follows from a chart. It is never asked for a
    thought before a cut, a question or a request, so it is not taught them.
    """
    for row in rows:
        if role is None or row["role"] == role or (role == PEER and row["turn"] == ANSWER):
            yield row


def _merit(leaf: Leaf) -> tuple[Any, ...]:
    *own, node = _own_merit(leaf)
    return *own, leaf.likelihood, node


def _own_merit(leaf: Leaf) -> tuple[Any, ...]:
    """Returns by what trajectories are told apart without a label."""
    candidate = leaf.candidate
    return leaf.verified, candidate.value, candidate.agreement or 0.0, -candidate.node


def sft_rows(lesson: Lesson, *, answers_only: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the rows of a case-step whose answer is known: the generator's turns, then the peer's.

    A turn that the limit of tokens cut is not taught, for its end is none; `"cut": True` marks it for the caller. One
    that readers rated below acceptable has `"disliked": True`.

    Args:
        lesson: the case-step.
        answers_only: the generator's answer alone.
    """
    target = lesson.target
    assert target is not None
    leaf, cold = taught(lesson)
    exact = not cold and target.rightness(keys_of(leaf.candidate)) == 1.0
    source = _source(lesson, (BY_PEER if leaf.verified else VOTE) if exact else RECORD)
    disliked = lesson.disliked
    for turn in leaf.trace.turns:
        for piece in turn.pieces:
            if piece.name == ANSWER:
                words = piece.text if exact and not target.several else target.words
                yield _row(lesson, leaf, GENERATOR, ANSWER, piece.prompt, words, source, cold)
            elif not answers_only:
                row = _row(lesson, leaf, GENERATOR, piece.name, piece.prompt, piece.text, source, cold, piece.cut)
                yield {**row, "disliked": turn.after in disliked}
    if not answers_only:
        yield from _peer_rows(lesson, leaf, target)


def _source(lesson: Lesson, otherwise: str) -> str:
    """Returns who gave the label of a case-step."""
    return REVIEWER if lesson.by_reader else otherwise


def prompt_rows(lesson: Lesson) -> Iterator[dict[str, Any]]:
    """Yields the prompt of the answer that the search found best, by its own lights: no label is looked at.

    Where that is the winning one and the peer verified it, the row holds it as its completion; else that is empty.
    """
    leaf = max(lesson.leaves, key=_own_merit)
    for piece in leaf.trace.turns[-1].pieces:
        if piece.name == ANSWER:
            stood_by = leaf is lesson.winning and lesson.record.status == Status.VERIFIED
            stood_by = stood_by and leaf.verified and not leaf.candidate.chosen  # of a set TTRL has no vote
            stood_by = stood_by and piece.text in lesson.vocabulary.choices
            yield {
                "prompt": piece.prompt,
                "completion": piece.text + END if stood_by else "",
                "role": GENERATOR,
                "turn": ANSWER,
                **origin(lesson),
                "label_source": BY_PEER if stood_by else VOTE,
            }


def without_disputed(rows: Iterable[dict[str, Any]], dropped: Counter[str]) -> list[dict[str, Any]]:
    """Returns prompts, of which none keeps an answer where peers stood by different ones after the same prompt."""
    rows = list(rows)
    answers: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["completion"]:
            answers[row["prompt"]].add(row["completion"])
    found = []
    for row in rows:
        if row["completion"] and len(answers[row["prompt"]]) > 1:
            dropped["answer of a peer that differs from another to the same prompt"] += 1
            row = {**row, "completion": "", "label_source": VOTE}
        found.append(row)
    return found


def _peer_rows(lesson: Lesson, leaf: Leaf, target: Target) -> Iterator[dict[str, Any]]:
    """Yields what the peer should write after each cut: its own completions that end right, or else the likeliest one,
    with the label in the place of its answer."""
    made = list(completions_of(lesson, leaf, target))
    right = [c for c in made if c.rightness == 1.0]
    chosen = right or ([max(made, key=lambda c: c.likelihood)] if made else [])
    source = _source(lesson, (BY_PEER if leaf.right else VOTE) if right else RECORD)
    for one in chosen:
        thought = one.thought
        yield _row(lesson, leaf, PEER, THOUGHT, thought.prompt, thought.text, source, not right, thought.cut)
        words = one.words if right and not target.several else target.words
        yield _row(lesson, leaf, PEER, ANSWER, one.answer_prompt, words, source, not right)


def completions_of(lesson: Lesson, leaf: Leaf, target: Target) -> Iterator[Completed]:
    """Yields the stored completions of a trajectory by the peer, each distinct one once, in the order of its cuts."""
    candidate, vocabulary = leaf.candidate, lesson.vocabulary
    for cut, answer in zip(candidate.cuts, candidate.peer_answers, strict=True):
        prompt = peer_prompt(leaf.trace, cut, keys_of(candidate), lesson)
        for thought in lesson.book.drafts(PEER, "think", THOUGHT, prompt):
            asked = f"{prompt}{thought.text}\n{lesson.answer_cue}:"
            if target.several:
                if lesson.book.find(PEER, "vote", asked):
                    rightness = target.rightness(answer.split(" + ") if answer else ())
                    yield Completed(thought, asked, "", rightness, rightness)
                continue
            vote = vote_after(lesson.book, PEER, asked, vocabulary)
            if vote is not None:
                keys = () if vote.answer_key is None else (vote.answer_key,)
                words, rightness = f" {vote.words}", target.rightness(keys)
                if words not in vocabulary.choices:
                    rightness = 0.0
                yield Completed(thought, asked, words, rightness, target.likelihood(vote))


def peer_prompt(trace: Trace, cut: int, keys: tuple[str, ...], lesson: Lesson) -> str:
    """Returns what the peer was sent: the first turns with the answer blanked out, and its cue."""
    text = trace.opening
    for turn in trace.turns[:cut]:
        segments = tuple(Segment(part) for part in turn.segments)
        shown = redacted(Turn(Action(turn.kind), turn.added, segments), keys, lesson.vocabulary)
        text += "".join(segment.text for segment in shown.segments)
    return text + prompts.PEER_CUE


def _row(
    lesson: Lesson,
    leaf: Leaf,
    role: str,
    turn: str,
    prompt: str,
    text: str,
    label_source: str,
    cold_start: bool,
    cut: bool = False,
) -> dict[str, Any]:
    target = lesson.target
    assert target is not None
    return {
        "prompt": prompt,
        "completion": text + END,
        "role": role,
        "turn": turn,
        **origin(lesson),
        "answer": target.code,
        "label_source": label_source,
        "cold_start": cold_start,
        "verified": leaf.verified and leaf.right and not cold_start,
        "cut": cut or not text.strip(),
    }


def origin(lesson: Lesson) -> dict[str, Any]:
    """Returns where a row comes from."""
    record = lesson.record
    return {
        "step": record.step,
        "case_id": record.case_id,
        "patient_id": record.patient_id,
        "source": record.source,
        "split": lesson.split,
        "occurrence": record.occurrence,
        "run": lesson.run,
    }
