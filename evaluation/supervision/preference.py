"""Pairs for preference tuning: after one prompt of the search, what should and what should not have been written.

| `pair` | chosen | rejected | score of each |
|---|---|---|---|
| `conclusion` | the recorded answer | the wrong answer that the vote ranked highest | its share of that vote |
| `override` | the answer with which a reader overrode the model's | the model's | as above |
| `branch` | a turn that raised the likelihood of the recorded answer | a sibling that lowered it | that likelihood |

The likelihood after a turn is the mean share of the votes for the recorded answer, over the rollouts through that turn.

"Raised" and "lowered" are against concluding at once before the turn where the search tried that, else against the
mean over all rollouts through that place. Of a set of answers the score is its Jaccard index with the recorded ones.

Source: step-wise preference pairs from a search tree, Xie et al. 2024 (arXiv 2405.00451), section 3; here with the
likelihood of the recorded label in the place of Q.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from evaluation.supervision.branches import Branch, branches
from evaluation.supervision.lessons import Lesson
from evaluation.supervision.sft import END, RECORD, REVIEWER, origin
from evaluation.supervision.targets import keys_of, vote_after
from evaluation.supervision.traces import ANSWER, Piece
from search.actions import ActionKind
from search.desk import GENERATOR

CONCLUSION, BRANCH, OVERRIDE = "conclusion", "branch", "override"
SIBLINGS = (ActionKind.THINK, ActionKind.ASK, ActionKind.REQUEST)  # the kinds that have several children


def preference_rows(lesson: Lesson, *, answers_only: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the pairs of a case-step whose answer is known: recorded, or a reader's.

    One of branches that prefers a turn that readers rated below acceptable has `"disliked": True`.

    Args:
        lesson: the case-step.
        answers_only: pairs of conclusions alone.
    """
    yield from _override(lesson)
    root = branches(lesson.leaves)
    for node in root.walk():
        if not answers_only:
            yield from _siblings(lesson, node)
        if node.turn is not None and node.turn.kind is ActionKind.FINISH:
            yield from _conclusions(lesson, node)


def sure_enough(rows: Iterable[dict[str, Any]], *, margin: float, visits: int) -> list[dict[str, Any]]:
    """Returns pairs without those of branches that differ by less than a margin, or were visited too seldom to tell."""
    return [
        row
        for row in rows
        if row["pair"] != BRANCH
        or (row["margin"] >= margin and min(row["chosen_visits"], row["rejected_visits"]) >= visits)
    ]


def _override(lesson: Lesson) -> Iterator[dict[str, Any]]:
    """Yields what a reader said against what the model said, after the prompt with which the search concluded."""
    leaf, target, model = lesson.winning, lesson.target, lesson.overridden
    if leaf is None or model is None or not leaf.trace.turns[-1].pieces:
        return
    assert target is not None
    piece = leaf.trace.turns[-1].pieces[0]
    if target.several:
        likelihood, score = 1.0, target.rightness(keys_of(leaf.candidate))
    else:
        vote = vote_after(lesson.book, GENERATOR, piece.prompt, lesson.vocabulary)
        likelihood, score = leaf.likelihood, 0.0 if vote is None else model.likelihood(vote)
    pair = (Piece(ANSWER, piece.prompt, target.words), Piece(ANSWER, piece.prompt, model.words))
    visits = leaf.candidate.multiplicity
    yield _row(lesson, OVERRIDE, pair, (likelihood, score, likelihood), (visits, visits))


def _siblings(lesson: Lesson, node: Branch) -> Iterator[dict[str, Any]]:
    by_kind: dict[ActionKind, list[Branch]] = defaultdict(list)
    for child in node.children.values():
        assert child.turn is not None
        by_kind[child.turn.kind].append(child)
    at_once = by_kind.get(ActionKind.FINISH)
    before = at_once[0].likelihood if at_once else node.likelihood
    for kind in SIBLINGS:
        raised = [c for c in by_kind.get(kind, ()) if c.likelihood > before]
        lowered = [c for c in by_kind.get(kind, ()) if c.likelihood < before]
        if not raised or not lowered:
            continue
        best = max(raised, key=lambda c: (c.likelihood, c.visits))
        worst = min(lowered, key=lambda c: (c.likelihood, -c.visits))
        pieces = _differing(best, worst)
        if pieces is not None:
            scores = (best.likelihood, worst.likelihood, before)
            row = _row(lesson, BRANCH, pieces, scores, (best.visits, worst.visits))
            yield {**row, "disliked": best.turn is not None and best.turn.after in lesson.disliked}


def _differing(one: Branch, other: Branch) -> tuple[Piece, Piece] | None:
    """Returns the first pieces in which two siblings differ; None where the models did not write the difference."""
    assert one.turn is not None
    assert other.turn is not None
    for mine, theirs in zip(one.turn.pieces, other.turn.pieces, strict=False):
        if mine.text.strip() != theirs.text.strip():
            return (mine, theirs) if mine.prompt == theirs.prompt else None
    return None


def _conclusions(lesson: Lesson, node: Branch) -> Iterator[dict[str, Any]]:
    """Yields the recorded answer against the best wrong one of the same vote, if it named a wrong one."""
    target, turn, leaf = lesson.target, node.turn, node.leaves[0]
    assert target is not None
    assert turn is not None
    piece = turn.pieces[0]
    if target.several:
        keys = keys_of(leaf.candidate)
        wrong, score, likelihood = piece.text, target.rightness(keys), 1.0
        known = 1.0 - score > 0.0 and all(lesson.vocabulary.entry(key) for key in keys) and bool(keys)
    else:
        vote = vote_after(lesson.book, GENERATOR, piece.prompt, lesson.vocabulary)
        ranked = () if vote is None else vote.ranked
        worst = next((h for h in ranked if h.code and not target.agrees((h.key,))), None)
        wrong, score, likelihood = "", 0.0, leaf.likelihood
        if worst is not None:
            wrong, score = f" {worst.display}", worst.probability
        known = worst is not None
    if known:
        right = Piece(ANSWER, piece.prompt, target.words)
        pair = (right, Piece(ANSWER, piece.prompt, wrong))
        yield _row(lesson, CONCLUSION, pair, (likelihood, score, likelihood), (node.visits, node.visits))


def _row(
    lesson: Lesson,
    pair: str,
    pieces: tuple[Piece, Piece],
    scores: tuple[float, float, float],
    visits: tuple[int, int],
) -> dict[str, Any]:
    target, (chosen, rejected) = lesson.target, pieces
    assert target is not None
    return {
        "prompt": chosen.prompt,
        "chosen": chosen.text + END,
        "rejected": rejected.text + END,
        "role": GENERATOR,
        "pair": pair,
        "turn": chosen.name,
        **origin(lesson),
        "answer": target.code,
        "label_source": REVIEWER if lesson.by_reader else RECORD,
        "margin": float(scores[0] - scores[1]),
        "chosen_score": float(scores[0]),
        "rejected_score": float(scores[1]),
        "score_before": float(scores[2]),
        "chosen_visits": visits[0],
        "rejected_visits": visits[1],
        "cut": any(p.cut or not p.text.strip() for p in pieces),
    }
