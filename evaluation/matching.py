"""Compares an answer with the recorded label, level by level.

| vocabulary | levels |
|---|---|
| ICD-10-CM | code, category (3 characters), block, chapter |
| closed, whose entries stand for groups of recorded terms | group |
| closed, without | term |

A label outside a closed vocabulary is a miss. Of an ICD label that the hierarchy does not know (another release,
ICD-9) only the code is compared.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

from clinical_data.case import Coding
from clinical_data.ground_truth import GroundTruth, Label
from clinical_data.vocabulary import Vocabulary, normalise
from evaluation.record import RunRecord
from search.trajectory import Status

CODE, CATEGORY, BLOCK, CHAPTER, TERM, GROUP = "code", "category", "block", "chapter", "term", "group"
LEVELS = (CODE, CATEGORY, BLOCK, CHAPTER, "ccsr", TERM, GROUP)
_ICD_LEVELS = (CODE, CATEGORY, BLOCK, CHAPTER)


def levels_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Returns the levels at which answers of a vocabulary are compared, finest first."""
    if is_icd10(vocabulary.system):
        return _ICD_LEVELS
    return (GROUP,) if vocabulary.groups else (TERM,)


def key_level(vocabulary: Vocabulary) -> str:
    """Returns the level of the answer key: the 3-character category of ICD-10, else the vocabulary's own entries.

    Source: search.md, "Answers".
    """
    return CATEGORY if is_icd10(vocabulary.system) else levels_of(vocabulary)[0]


def match(record: RunRecord, truth: GroundTruth | None, vocabulary: Vocabulary) -> dict[str, int]:
    """Compares the first answer of a record with the principal label.

    Returns:
        Level -> 1 (equal) or 0. Empty without a label or when the step is not applicable. All 0 when the step failed
        or its answer could not be parsed; an answer that abstained is compared like any other.
    """
    label = principal_label(truth, vocabulary)
    if label is None or record.status == Status.NOT_APPLICABLE:
        return {}
    recorded = label_classes(label, vocabulary)
    answered: dict[str, str] = {}
    if record.ranked and record.status != Status.FAILED:
        answered = answer_classes(record.ranked[0].code, vocabulary)
    levels = recorded if is_icd10(vocabulary.system) else levels_of(vocabulary)
    return {level: int(level in recorded and recorded[level] == answered.get(level)) for level in levels}


def rank_of_truth(record: RunRecord, truth: GroundTruth | None, vocabulary: Vocabulary) -> int | None:
    """Returns the place of the principal label among the ranked answers, from 1, at the level of the answer key.

    None when there is no label, when no answer names it, or when the step failed.
    """
    wanted = truth_class(truth, vocabulary)
    if wanted is None or record.status in (Status.FAILED, Status.NOT_APPLICABLE):
        return None
    ranks = (i for i, a in enumerate(record.ranked, start=1) if answer_class(a.code, vocabulary) == wanted)
    return next(ranks, None)


def credit(record: RunRecord, truth: GroundTruth | None, vocabulary: Vocabulary) -> float | None:
    """Returns 1 for the right first answer, 0.5 for a listed near miss of the vocabulary, else 0; None without a label.

    Source: clinical_data.md, D, "Accept half credit".
    """
    if principal_label(truth, vocabulary) is None or record.status == Status.NOT_APPLICABLE:
        return None
    wanted = truth_class(truth, vocabulary)
    if wanted is None or not record.ranked or record.status == Status.FAILED:
        return 0.0
    given = answer_class(record.ranked[0].code, vocabulary)
    if given == wanted:
        return 1.0
    return 0.5 if frozenset((given, wanted)) in vocabulary.half_credit else 0.0


def truth_class(truth: GroundTruth | None, vocabulary: Vocabulary) -> str | None:
    """Returns the class of the principal label at the level of the answer key; None without one."""
    label = principal_label(truth, vocabulary)
    return None if label is None else label_classes(label, vocabulary).get(key_level(vocabulary))


def in_vocabulary(truth: GroundTruth | None, vocabulary: Vocabulary) -> bool:
    """Says whether some answer of the vocabulary could be right."""
    wanted = truth_class(truth, vocabulary)
    return wanted is not None and any(answer_class(e.code, vocabulary) == wanted for e in vocabulary.entries)


def truth_rows(truth: GroundTruth | None) -> list[dict[str, str]]:
    """Returns the labels as rows `{system, code, display, strength}`, in order of rank."""
    return [
        {
            "system": label.coding.system,
            "code": label.coding.code,
            "display": label.coding.display,
            "strength": label.strength.value,
        }
        for label in (truth.labels if truth else ())
    ]


def principal_label(truth: GroundTruth | None, vocabulary: Vocabulary) -> Label | None:
    """Returns the label of lowest rank; of several codings at that rank, the first that the vocabulary can judge."""
    if truth is None or not truth.labels:
        return None
    lowest = min(label.rank for label in truth.labels)
    first = [label for label in truth.labels if label.rank == lowest]
    level = key_level(vocabulary)
    return next((label for label in first if level in label_classes(label, vocabulary)), first[0])


def label_classes(label: Label, vocabulary: Vocabulary) -> dict[str, str]:
    """Returns the class of a label per level; empty when it is outside a closed vocabulary."""
    coding = label.coding
    if is_icd10(vocabulary.system):
        # A code of another system equals no ICD-10 code, whatever its letters.
        return dict(icd_classes(coding.code)) if is_icd10(coding.system) else {CODE: f"{coding.system}|{coding.code}"}
    entry = _member(coding, vocabulary) if vocabulary.groups else _named(coding, vocabulary)
    return {} if entry is None else {levels_of(vocabulary)[0]: entry}


def answer_classes(code: str, vocabulary: Vocabulary) -> dict[str, str]:
    """Returns the class of an answer's code per level."""
    return dict(icd_classes(code)) if is_icd10(vocabulary.system) else {levels_of(vocabulary)[0]: code}


def answer_class(code: str, vocabulary: Vocabulary) -> str | None:
    """Returns the class of an answer's code at the level of the answer key."""
    return answer_classes(code, vocabulary).get(key_level(vocabulary))


def is_icd10(system: str) -> bool:
    """Says whether a code system is ICD-10 or a clinical modification of it."""
    flat = system.lower().replace("-", "")
    return "icd10" in flat and "icd10pcs" not in flat


@cache
def icd_classes(code: str) -> tuple[tuple[str, str], ...]:
    """Returns (level, class) pairs of an ICD-10-CM code: code, category, block, chapter; the code alone if unknown.

    Some blocks hold a single category and bear its name (C50).

    Source: ICD-10-CM tabular list, as packaged by simple_icd_10_cm.
    """
    icd = _classification()
    code = code.strip().upper()
    only_range = icd.is_chapter_or_block(code) and not icd.is_category_or_subcategory(code)
    if not icd.is_valid_item(code) or only_range:
        return ((CODE, code),)
    code = icd.add_dot(code)
    line = [code, *icd.get_ancestors(code)]
    chapter = next(item for item in line if icd.is_chapter(item))
    block = next((item for item in line if icd.is_block(item)), code[:3])
    return ((CODE, code), (CATEGORY, code[:3]), (BLOCK, block), (CHAPTER, chapter))


@cache
def _classification() -> ModuleType:
    """Returns the package, which reads the whole classification when imported, by a call that Python deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_module("simple_icd_10_cm")


def _member(coding: Coding, vocabulary: Vocabulary) -> str | None:
    """Returns the entry that a recorded term counts as. Synonyms of entries do not count: only members decide."""
    if coding.system == vocabulary.system and vocabulary.entry(coding.code):
        return coding.code
    if not vocabulary.members:
        return vocabulary.key_of_label(coding.code)
    terms = (coding.code, coding.display)
    exact = next((vocabulary.members[t] for t in terms if t in vocabulary.members), None)
    if exact is not None:
        return exact
    wanted = {normalise(t) for t in terms if t}
    return next((entry for term, entry in vocabulary.members.items() if normalise(term) in wanted), None)


def _named(coding: Coding, vocabulary: Vocabulary) -> str | None:
    return vocabulary.key_of(coding.code) or (vocabulary.key_of(coding.display) if coding.display else None)
