"""Rows for models that judge turns: a trajectory turn by turn, with a label and values for each.

A turn's label is a hard estimate: true when some rollout through it ended well. Its value is the soft one: the share of
the rollouts through it that did. What "well" means is the label source:

| label source | a rollout ends well when |
|---|---|
| `record` | its answer agrees with the recorded label |
| `peer` | the second model verified it (value: mean agreement) |
| `vote` | its answer is the one that the search gave |

Labels of the source `reviewer` are no estimate: readers rated the turns of the winning trajectory.

Source: Wang et al. 2023, Math-Shepherd (arXiv 2312.08935), section 3.3 (hard and soft estimation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from clinical_data.errors import UsageError
from evaluation.record import RunRecord
from evaluation.supervision.branches import Branch, Leaf, branches
from evaluation.supervision.lessons import Lesson
from evaluation.supervision.readings import GOOD, value_of
from evaluation.supervision.sft import BY_PEER, LABEL_SOURCES, RECORD, REVIEWER, VOTE, origin
from evaluation.supervision.targets import keys_of
from search.desk import GENERATOR


def check_label_source(name: str) -> None:
    """Raises UsageError for a label source that does not exist."""
    if name not in LABEL_SOURCES:
        raise UsageError(f"no label source named {name}", hint=f"known: {', '.join(LABEL_SOURCES)}")


def stepwise_rows(lesson: Lesson, label_source: str = RECORD) -> Iterator[dict[str, Any]]:
    """Yields one row per distinct trajectory of a case-step; none where no peer was asked and labels are the peer's.

    The prompt and the completions, one after the other, are the text that the search ended with. Labels by readers: one
    row, the winning trajectory up to the first turn without a rating.
    """
    if label_source == REVIEWER:
        yield from _rated_rows(lesson)
        return
    if label_source == BY_PEER and all(leaf.candidate.agreement is None for leaf in lesson.leaves):
        return
    well, share = _judgement(lesson.record, label_source)
    root = branches(lesson.leaves)
    for leaf in lesson.leaves:
        path = _path(root, leaf)
        labels = [any(map(well, node.leaves)) for node in path]
        values = [float(node.mean(share)) for node in path]
        row = _row(lesson, leaf, path, labels, values, label_source)
        if label_source == RECORD:
            assert lesson.target is not None
            row["values_record"] = [float(node.likelihood) for node in path]
            row["answer"] = lesson.target.code
        yield row


def _rated_rows(lesson: Lesson) -> Iterator[dict[str, Any]]:
    leaf = lesson.winning
    if leaf is None:
        return
    path = _path(branches(lesson.leaves), leaf)
    rated = list(takewhile(lambda at: at in lesson.ratings, range(len(path))))
    if rated:
        ratings = [lesson.ratings[at] for at in rated]
        labels, values = [rating >= GOOD for rating in ratings], [value_of(rating) for rating in ratings]
        yield _row(lesson, leaf, path[: len(rated)], labels, values, REVIEWER)


def _row(
    lesson: Lesson, leaf: Leaf, path: Sequence[Branch], labels: list[bool], values: list[float], label_source: str
) -> dict[str, Any]:
    """Returns a trajectory as far as `path` goes."""
    turns = leaf.trace.turns[: len(path)]
    return {
        "prompt": leaf.trace.opening,
        "completions": [turn.added for turn in turns],
        "labels": labels,
        "values": values,
        "values_visits": [float(node.value) for node in path],
        "visits": [node.visits for node in path],
        "turns": [turn.kind.value for turn in turns],
        "role": GENERATOR,
        **origin(lesson),
        "label_source": label_source,
        "verified": leaf.verified,
    }


def _path(root: Branch, leaf: Leaf) -> list[Branch]:
    """Returns the branches of a trajectory, one per turn."""
    path, node = [], root
    for turn in leaf.trace.turns:
        node = node.children[turn.after]
        path.append(node)
    return path


def _judgement(record: RunRecord, label_source: str) -> tuple[Callable[[Leaf], bool], Callable[[Leaf], float]]:
    """Returns when a rollout ended well, and how well, in [0, 1]."""
    if label_source == BY_PEER:
        return (lambda leaf: leaf.verified), (lambda leaf: leaf.candidate.agreement or 0.0)
    if label_source == VOTE:
        given = set(record.chosen or [answer.code for answer in record.ranked[:1]])

        def as_given(leaf: Leaf) -> bool:
            return bool(given) and set(keys_of(leaf.candidate)) == given

        return as_given, lambda leaf: float(as_given(leaf))
    return (lambda leaf: leaf.right), (lambda leaf: float(leaf.right))
