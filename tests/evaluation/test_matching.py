"""Answers against labels, level by level."""

import pytest
from run_records import GROUPED, GROUPS, ICD, TERMS, WARD, record_of, truth_of

from clinical_data.case import Coding
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.vocabulary import load_vocabulary
from evaluation.matching import (
    LEVELS,
    credit,
    headline_levels,
    in_vocabulary,
    is_mapped,
    key_level,
    levels_of,
    match,
    principal_label,
    rank_of_truth,
    truth_rows,
)

ICD9 = "http://hl7.org/fhir/sid/icd-9-cm"


def levels(code, category, ccsr, block, chapter):
    return {"code": code, "category": category, "ccsr": ccsr, "block": block, "chapter": chapter}


@pytest.mark.parametrize(
    ("answer", "label", "expected"),
    [
        # J18 and J17 share CCSR group, block and chapter; J13 only block and chapter; J44 the chapter; I50 nothing.
        ("J18", "J18", levels(1, 1, 1, 1, 1)),
        ("J18", "J18.9", levels(0, 1, 1, 1, 1)),
        ("J18.9", "J189", levels(1, 1, 1, 1, 1)),
        ("J17", "J18.9", levels(0, 0, 1, 1, 1)),
        ("J13", "J18.9", levels(0, 0, 0, 1, 1)),
        ("J44", "J18.9", levels(0, 0, 0, 0, 1)),
        ("I50", "J18.9", levels(0, 0, 0, 0, 0)),
        # Hypostatic pneumonia (J18.2) is of another CCSR group than most of J18: the category names it, J18.9 does not.
        ("J18", "J18.2", levels(0, 1, 1, 1, 1)),
        ("J18.9", "J18.2", levels(0, 1, 0, 1, 1)),
        # No group holds most of K92: it names the group of a label of its own, and of no other.
        ("K92", "K92.2", levels(0, 1, 1, 1, 1)),
        ("K92", "K25.4", levels(0, 0, 0, 0, 1)),
        # Not in ICD-10-CM: only the code is compared.
        ("J18", "J18.97", {"code": 0}),
        ("J18.97", "J18.97", {"code": 1}),
    ],
)
def test_icd_levels(answer, label, expected):
    assert match(record_of(answer), truth_of(label), WARD) == expected


@pytest.mark.parametrize(
    ("answer", "label", "expected"),
    [
        ("J18", "486", levels(0, 1, 1, 1, 1)),  # J18.9 by the mapping
        ("J18.9", "486", levels(0, 1, 1, 1, 1)),  # never the code: it is of another system
        ("I50", "486", levels(0, 0, 0, 0, 0)),
        ("J18", "E850.3", {"code": 0}),  # nothing to map to
        ("J18", "J18.9", {"code": 0}),  # no ICD-9-CM code
    ],
)
def test_icd9_labels_are_compared_through_the_mapping(answer, label, expected):
    truth = truth_of(label, system=ICD9)
    assert match(record_of(answer), truth, WARD) == expected
    assert is_mapped(truth.labels[0], WARD) == (len(expected) > 1)


def test_what_is_mapped_is_flagged():
    assert not is_mapped(truth_of("J18.9").labels[0], WARD)
    assert not is_mapped(truth_of("486", system=ICD9).labels[0], GROUPED)
    assert in_vocabulary(truth_of("486", system=ICD9), WARD)
    assert rank_of_truth(record_of("I50", "J18"), truth_of("486", system=ICD9), WARD) == 2


def test_a_label_of_another_country_is_compared_at_its_category():
    gm = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
    assert match(record_of("J18.9"), truth_of("J18.9", system=gm), WARD) == {"code": 0, "category": 1}
    assert match(record_of("I50"), truth_of("J18.9", system=gm), WARD) == {"code": 0, "category": 0}


def test_a_code_of_another_system_is_never_equal():
    snomed = "http://snomed.info/sct"
    assert match(record_of("J18"), truth_of("J18", system=snomed), WARD) == {"code": 0}
    assert not in_vocabulary(truth_of("J18", system=snomed), WARD)


def test_headlines_are_ccsr_and_chapter():
    assert headline_levels(WARD) == ("ccsr", "chapter")
    assert headline_levels(GROUPED) == ("group",)
    assert set(headline_levels(WARD)) < set(levels_of(WARD)) < set(LEVELS)


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
    assert set(found) == {"code", "category", "ccsr", "block", "chapter"}


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
    assert levels_of(ward) == ("code", "category", "ccsr", "block", "chapter")
    for term, group in groups.members.items():
        recorded = truth_of(term, system="wardstar:eicu/admissiondx")
        assert match(record_of(group), recorded, groups) == {"group": 1}
    for entry in ward.entries:  # every answer has a place in the classification
        found = match(record_of(entry.code), truth_of(entry.code), ward)
        assert found == {level: 1 for level in levels_of(ward) if level in found}
        assert set(levels_of(ward)) - set(found) <= {"ccsr"}  # codes of a category may lie in several groups
