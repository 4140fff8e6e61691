"""Compares an answer with the recorded label, level by level.

| vocabulary | levels | headline |
|---|---|---|
| ICD-10-CM | code, category (3 characters), CCSR group, block, chapter | CCSR group, chapter |
| closed, whose entries stand for groups of recorded terms | group | group |
| closed, without | term | term |

A label outside a closed vocabulary is a miss. An ICD-9-CM label is compared at every level but the code, by the
ICD-10-CM code that the equivalence mappings give for it (`is_mapped` tells); an ICD-10 label of another country at its
category. Of an ICD label that the tables do not know only the code is compared, and codes of two systems never agree.
"""

from __future__ import annotations

from functools import cache

from clinical_data.case import Coding
from clinical_data.codes import icd_classes, is_icd10, standard_system
from clinical_data.ground_truth import GroundTruth, Label
from clinical_data.vocabulary import Vocabulary, normalise
from evaluation.record import RunRecord
from search.trajectory import Status

CODE, CATEGORY, CCSR, BLOCK, CHAPTER, TERM, GROUP = "code", "category", "ccsr", "block", "chapter", "term", "group"
LEVELS = (CODE, CATEGORY, CCSR, BLOCK, CHAPTER, TERM, GROUP)
_ICD_LEVELS = (CODE, CATEGORY, CCSR, BLOCK, CHAPTER)


def levels_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Returns the levels at which answers of a vocabulary are compared, finest first."""
    if is_icd10(vocabulary.system):
        return _ICD_LEVELS
    return (GROUP,) if vocabulary.groups else (TERM,)


def headline_levels(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Returns the levels whose figures may be headlined: for ICD the CCSR group and the chapter.

    Source: clinical.md, "Answer vocabularies": category and code are shown, never headlined.
    """
    return (CCSR, CHAPTER) if is_icd10(vocabulary.system) else levels_of(vocabulary)


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
    if not is_icd10(vocabulary.system):
        return {
            level: int(level in recorded and recorded[level] == answered.get(level)) for level in levels_of(vocabulary)
        }
    found = {level: int(recorded[level] == answered.get(level)) for level in recorded}
    if CCSR in found and _is_category(answered) and found[CATEGORY]:
        # The codes of a category may lie in several CCSR groups. Naming the category of the label names its group too.
        found[CCSR] = 1
    return found


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
        return dict(_icd(coding.system, coding.code, vocabulary.system))
    entry = _member(coding, vocabulary) if vocabulary.groups else _named(coding, vocabulary)
    return {} if entry is None else {levels_of(vocabulary)[0]: entry}


def answer_classes(code: str, vocabulary: Vocabulary) -> dict[str, str]:
    """Returns the class of an answer's code per level."""
    if is_icd10(vocabulary.system):
        return dict(_icd(vocabulary.system, code, vocabulary.system))
    return {levels_of(vocabulary)[0]: code}


def answer_class(code: str, vocabulary: Vocabulary) -> str | None:
    """Returns the class of an answer's code at the level of the answer key."""
    return answer_classes(code, vocabulary).get(key_level(vocabulary))


def is_mapped(label: Label, vocabulary: Vocabulary) -> bool:
    """Says whether a label is compared by a code that the mapping from ICD-9-CM gave for it."""
    classes = icd_classes(label.coding) if is_icd10(vocabulary.system) else None
    return classes is not None and classes.mapped_to is not None


@cache
def _icd(system: str, code: str, among: str) -> tuple[tuple[str, str], ...]:
    """Returns (level, class) pairs of a coding, as they are compared among codes of the system `among`."""
    classes = icd_classes(Coding(system, code))
    if classes is None:
        return ((CODE, f"{system}|{code}"),)
    own = classes.coding
    same = own.system == standard_system(among)
    found = [(CODE, own.code if same else f"{own.system}|{own.code}")]
    places = ((CATEGORY, classes.category), (CCSR, classes.ccsr), (BLOCK, classes.block), (CHAPTER, classes.chapter))
    return (*found, *((level, place) for level, place in places if place is not None))


def _is_category(classes: dict[str, str]) -> bool:
    return CATEGORY in classes and classes.get(CODE) == classes[CATEGORY]


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
