"""Answers against labels, level by level."""

import pytest
from run_records import GROUPED, GROUPS, ICD, TERMS, WARD, record_of, truth_of

from clinical_data.case import Coding
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.vocabulary import load_vocabulary
from evaluation.matching import (
    credit,
    icd_classes,
    in_vocabulary,
    key_level,
    levels_of,
    match,
    principal_label,
    rank_of_truth,
    truth_rows,
)


@pytest.mark.parametrize(
    ("answer", "label", "expected"),
    [
        # J18 and J13 share the block J09-J18 and chapter 10; J44 only the chapter; I50 nothing.
        ("J18", "J18", {"code": 1, "category": 1, "block": 1, "chapter": 1}),
        ("J18", "J18.9", {"code": 0, "category": 1, "block": 1, "chapter": 1}),
        ("J18.9", "J189", {"code": 1, "category": 1, "block": 1, "chapter": 1}),
        ("J13", "J18.9", {"code": 0, "category": 0, "block": 1, "chapter": 1}),
        ("J44", "J18.9", {"code": 0, "category": 0, "block": 0, "chapter": 1}),
        ("I50", "J18.9", {"code": 0, "category": 0, "block": 0, "chapter": 0}),
        # Not in ICD-10-CM: only the code is compared.
        ("J18", "J18.97", {"code": 0}),
        ("J18.97", "J18.97", {"code": 1}),
    ],
)
def test_icd_levels(answer, label, expected):
    assert match(record_of(answer), truth_of(label), WARD) == expected


def test_a_code_of_another_system_is_never_equal():
    icd9 = "http://hl7.org/fhir/sid/icd-9-cm"
    assert match(record_of("486"), truth_of("486", system=icd9), WARD) == {"code": 0}
    assert not in_vocabulary(truth_of("486", system=icd9), WARD)


def test_icd_classes_follow_the_classification():
    assert dict(icd_classes("s72.001a")) == {"code": "S72.001A", "category": "S72", "block": "S70-S79", "chapter": "19"}
    assert dict(icd_classes("C50.911"))["block"] == "C50"  # a block of one category
    assert dict(icd_classes("J09-J18")) == {"code": "J09-J18"}  # a block is no diagnosis


@pytest.mark.parametrize(
    ("status", "codes", "expected"),
    [
        ("verified", ("J18",), 1),
        ("unverified", ("J18",), 1),
        ("abstain", ("J18",), 1),  # abstaining hides no answer from the score
        ("abstain", ("I50",), 0),
        ("failed", (), 0),
        ("failed", ("J18",), 0),
        ("unverified", (), 0),  # unparseable
    ],
)
def test_every_status_is_scored(status, codes, expected):
    found = match(record_of(*codes, status=status), truth_of("J18.9"), WARD)
    assert found["category"] == expected
    assert set(found) == {"code", "category", "block", "chapter"}


def test_nothing_to_score():
    assert match(record_of("J18"), None, WARD) == {}
    assert match(record_of("J18"), truth_of(), WARD) == {}
    assert match(record_of(status="not_applicable"), truth_of("J18.9"), WARD) == {}


def test_members_decide_groups():
    pneumonia = truth_of("Non-operative|Pneumonia, bacterial", system="wardstar:test/term")
    assert match(record_of("pneumonia"), pneumonia, GROUPED) == {"group": 1}
    assert match(record_of("sepsis"), pneumonia, GROUPED) == {"group": 0}
    assert match(record_of("mi"), truth_of("mi", system=GROUPS), GROUPED) == {"group": 1}


def test_a_label_outside_the_vocabulary_is_a_miss():
    # "heart attack" is the display of an entry, but only members place recorded terms.
    outside = truth_of("heart attack", system="wardstar:test/term")
    assert match(record_of("mi"), outside, GROUPED) == {"group": 0}
    assert not in_vocabulary(outside, GROUPED)
    assert rank_of_truth(record_of("mi", "sepsis"), outside, GROUPED) is None
    assert match(record_of("J18"), truth_of("K85.9"), WARD)["category"] == 0
    assert not in_vocabulary(truth_of("K85.9"), WARD)
    assert in_vocabulary(truth_of("J18.9"), WARD)


def test_terms_are_named_by_any_of_their_names():
    assert levels_of(TERMS) == ("term",)
    assert match(record_of("stemi"), truth_of("Heart attack", system="s"), TERMS) == {"term": 1}
    assert match(record_of("stemi"), truth_of("stroke", system="s"), TERMS) == {"term": 0}


def test_the_principal_label_counts():
    assert match(record_of("I50"), truth_of("J18.9", "I50.9"), WARD)["category"] == 0
    assert match(record_of("I50"), truth_of("J18.9", "I50.9", ranks=(2, 1)), WARD)["category"] == 1
    snomed = Label(Coding("http://snomed.info/sct", "233604007"), Strength.PROXY)
    icd = Label(Coding(ICD, "J18.9"), Strength.PROXY)
    assert principal_label(GroundTruth("c", "s", (snomed, icd)), WARD) is icd


def test_rank_of_truth_is_at_the_level_of_the_answer_key():
    assert key_level(WARD) == "category"
    assert rank_of_truth(record_of("I50", "A41", "J18"), truth_of("J18.9"), WARD) == 3
    assert rank_of_truth(record_of("I50", "A41"), truth_of("J18.9"), WARD) is None
    assert rank_of_truth(record_of("J18", status="failed"), truth_of("J18.9"), WARD) is None


def test_half_credit_is_for_listed_pairs_only():
    pneumonia = truth_of("Non-operative|Pneumonia, bacterial")
    found = [credit(record_of(c), pneumonia, GROUPED) for c in ("pneumonia", "sepsis", "mi")]
    assert found == [1.0, 0.5, 0.0]
    assert credit(record_of("mi"), truth_of("appendectomy"), GROUPED) == 0.0
    assert credit(record_of("mi"), truth_of(), GROUPED) is None


def test_truth_rows():
    row = {"system": ICD, "code": "J18.9", "display": "J18.9", "strength": "recorded-later"}
    assert truth_rows(truth_of("J18.9")) == [row]
    assert truth_rows(truth_of()) == truth_rows(None) == []


def test_bundled_vocabularies():
    groups, ward = load_vocabulary("eicu-admission-groups"), load_vocabulary("general-ward-icd10")
    assert levels_of(groups) == ("group",)
    assert levels_of(ward) == ("code", "category", "block", "chapter")
    for term, group in groups.members.items():
        recorded = truth_of(term, system="wardstar:eicu/admissiondx")
        assert match(record_of(group), recorded, groups) == {"group": 1}
    for entry in ward.entries:  # every answer has a place in the classification
        assert match(record_of(entry.code), truth_of(entry.code), ward) == dict.fromkeys(levels_of(ward), 1)
