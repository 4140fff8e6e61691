"""Rows for models that judge turns: a trajectory turn by turn, with a label and values for each.

A turn's label is a hard estimate: true when some rollout through it ended well. Its value is the soft one: the share of
the rollouts through it that did. What "well" means is the label source:

| label source | a rollout ends well when |
|---|---|
| `record` | its answer agrees with the recorded label |
| `peer` | the second model verified it (value: mean agreement) |
| `vote` | its answer is the one that the search gave |

Source: Wang et al. 2023, Math-Shepherd (arXiv 2312.08935), section 3.3 (hard and soft estimation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clinical_data.errors import UsageError
from evaluation.record import RunRecord
from evaluation.supervision.branches import Branch, Leaf, branches
from evaluation.supervision.lessons import Lesson
from evaluation.supervision.sft import BY_PEER, LABEL_SOURCES, RECORD, REVIEWER, VOTE, origin
from evaluation.supervision.targets import keys_of
from search.desk import GENERATOR


def check_label_source(name: str) -> None:
    """Raises UsageError for a label source that does not exist, or not yet."""
    if name not in LABEL_SOURCES:
        raise UsageError(
            f"no label source named {name}", hint=f"known: {', '.join(s for s in LABEL_SOURCES if s != REVIEWER)}"
        )
    if name == REVIEWER:
        raise UsageError("label source reviewer is not available yet", hint="no ratings of reviewers are stored")


def stepwise_rows(lesson: Lesson, label_source: str = RECORD) -> Iterator[dict[str, Any]]:
    """Yields one row per distinct trajectory of a case-step; none where no peer was asked and labels are the peer's.

    The prompt and the completions, one after the other, are the text that the search ended with.
    """
    if label_source == BY_PEER and all(leaf.candidate.agreement is None for leaf in lesson.leaves):
        return
    well, share = _judgement(lesson.record, label_source)
    root = branches(lesson.leaves)
    for leaf in lesson.leaves:
        path = _path(root, leaf)
        row = {
            "prompt": leaf.trace.opening,
            "completions": [turn.added for turn in leaf.trace.turns],
            "labels": [any(map(well, node.leaves)) for node in path],
            "values": [float(node.mean(share)) for node in path],
            "values_visits": [float(node.value) for node in path],
            "visits": [node.visits for node in path],
            "turns": [turn.kind.value for turn in leaf.trace.turns],
            "role": GENERATOR,
            **origin(lesson),
            "label_source": label_source,
            "verified": leaf.verified,
        }
        if label_source == RECORD:
            assert lesson.target is not None
            row["values_record"] = [float(node.likelihood) for node in path]
            row["answer"] = lesson.target.code
        yield row


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
