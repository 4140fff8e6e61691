"""What pages say of an answer that is a set: its items, their shares, and how far two sets agree."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.record import RankedAnswer, RunRecord
from evaluation.review import words
from evaluation.review.language import count, say

BETWEEN = " + "
"""Stands between the keys of a set's items (`search.answers.set_key`)."""


def chosen_items(record: RunRecord) -> tuple[RankedAnswer, ...]:
    """Returns the items of a record's set, which its ranked answers begin with; none where one answer is asked for."""
    return record.ranked[: len(record.chosen)]


def name_of(answer: RankedAnswer) -> str:
    """Returns a ranked answer in words."""
    return words.short(answer.display, 160) or words.short(answer.code, 80)


def names_of(record: RunRecord) -> str:
    """Returns the items of a set in words, semicolons between."""
    return say("words.list_gap").join(map(name_of, chosen_items(record)))


def mean_share(record: RunRecord) -> float:
    """Returns the mean share of the items of a set, in [0, 1]; 0 without any."""
    items = chosen_items(record)
    return sum(a.probability for a in items) / len(items) if items else 0.0


def keys_of(key: str | None) -> frozenset[str]:
    """Returns the keys of the items behind the key of a set."""
    return frozenset(key.split(BETWEEN)) if key else frozenset()


def in_common(one: str | None, other: str | None) -> str:
    """Returns how far two sets, given by their keys, agree: `2 of 3 items in common`; empty where they are equal."""
    first, second = keys_of(one), keys_of(other)
    if first == second:
        return ""
    return say("case.in_common", n=len(first & second), all=count(len(first | second), "item"))


def key_words(key: str, names: Mapping[str, str]) -> str:
    """Returns the key of a set in words, given those of its items' keys."""
    return say("words.list_gap").join(names.get(k, k) for k in key.split(BETWEEN))
