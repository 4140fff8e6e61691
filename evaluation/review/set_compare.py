"""The set of a record beside the recorded one, compared by the list of possible answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinical_data.case import Coding
from clinical_data.errors import WardstarError
from clinical_data.ground_truth import Label, Strength
from clinical_data.vocabulary import Vocabulary, load_vocabulary
from evaluation import matching
from evaluation.record import RunRecord
from evaluation.review import words
from evaluation.review.language import count, say
from evaluation.review.set_data import chosen_items, name_of
from evaluation.step_rules import step_rules
from search.answers import jaccard

Lookup = Callable[[RunRecord], Vocabulary | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the comparison: what stands for one class of answers on either side; a side without any is empty.

    Attributes:
        chosen: items of the model's set.
        recorded: items of the recorded set: (words, code and strength).
    """

    chosen: tuple[str, ...]
    recorded: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The model's set beside the recorded one.

    Attributes:
        pairs: items in both, then those of the model's set alone, then those recorded alone.
        words: the overlap in sentences; why there is none where the sets could not be compared.
        short: the overlap in a few words, for a table.
    """

    pairs: tuple[Pair, ...]
    words: str
    short: str


def vocabularies(config: Mapping[str, Any]) -> Lookup:
    """Returns a function from a record to the list of answers it is judged by, as the pathway of a run names it.

    It returns None for a list that cannot be read any more.
    """
    rules = step_rules(config)
    known: dict[str, Vocabulary | None] = {}

    def look_up(record: RunRecord) -> Vocabulary | None:
        rule = rules.get(record.step)
        name = (rule.vocabularies if rule else {}).get(record.source, record.vocabulary)
        if name not in known:
            try:
                known[name] = load_vocabulary(name)
            except WardstarError:
                known[name] = None
        return known[name]

    return look_up


def compare(record: RunRecord, truth: Sequence[Mapping[str, Any]], vocabulary: Vocabulary | None) -> Comparison:
    """Puts the set of a record beside the recorded one, at the level of the answer key.

    Items of one class (for ICD one category) count once. A label that is not among the possible answers is a recorded
    item that was missed.

    Args:
        record: a record with a set.
        truth: the recorded labels as rows `{system, code, display, strength}`.
        vocabulary: the possible answers; None: the sets stand beside each other uncompared.
    """
    if vocabulary is None:
        left = [Pair((name_of(a),), ()) for a in chosen_items(record)]
        return Comparison(
            (*left, *(Pair((), (_recorded(row),)) for row in truth)),
            say("case.compare.gone"),
            say("case.compare.gone_short"),
        )
    mine: dict[str, list[str]] = {}
    for answer in chosen_items(record):
        mine.setdefault(matching.answer_class(answer.code, vocabulary) or answer.code, []).append(name_of(answer))
    theirs: dict[str, list[tuple[str, str]]] = {}
    outside = set()
    possible = {matching.answer_class(e.code, vocabulary) for e in vocabulary.entries}
    for row in truth:
        found = matching.label_classes(_label(row), vocabulary).get(matching.key_level(vocabulary))
        key = found or f"{row.get('system')}|{row.get('code')}"
        theirs.setdefault(key, []).append(_recorded(row))
        if found not in possible:
            outside.add(key)
    order = sorted([*mine, *(k for k in theirs if k not in mine)], key=lambda k: k not in mine or k not in theirs)
    pairs = tuple(Pair(tuple(mine.get(k, ())), tuple(theirs.get(k, ()))) for k in order)
    if not theirs:
        return Comparison(pairs, say("case.compare.nothing"), say("case.compare.nothing_short"))
    both = len(mine.keys() & theirs.keys())
    text = say(
        f"case.compare.{_number(both)}",
        items=count(both, "item"),
        n=both,
        mine=len(mine),
        theirs=len(theirs),
        overlap=words.percent(jaccard(mine, theirs)),
        level=words.level_text(matching.key_level(vocabulary), record.step),
    )
    if outside:
        more = say(f"case.compare.outside_{_number(len(outside))}", items=count(len(outside), "item"))
        text += say("words.sentence_gap") + more
    return Comparison(pairs, text, say("case.in_common", n=both, all=count(len(order), "item")))


def _number(n: int) -> str:
    return ("none", "one")[n] if n < 2 else "many"


def _label(row: Mapping[str, Any]) -> Label:
    coding = Coding(str(row.get("system") or ""), str(row.get("code") or ""), str(row.get("display") or ""))
    return Label(coding, Strength.RECORDED_LATER)  # the strength does not bear on the class


def _recorded(row: Mapping[str, Any]) -> tuple[str, str]:
    name = words.short(str(row.get("display") or row.get("code") or ""), 300)
    coding = f"{words.system_text(str(row.get('system') or ''))} {words.short(str(row.get('code') or ''), 80)}".strip()
    strength = words.strength_text(str(row.get("strength") or ""))
    return name, f"{coding}; {strength}"
