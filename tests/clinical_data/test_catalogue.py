"""The request catalogue: matching rules, and what version 1 holds."""

import pytest

from clinical_data.case import Coding, Finding, FindingKind
from clinical_data.catalogue import Matcher, load_catalogue
from clinical_data.errors import BadInputError, UsageError

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"


def finding(system: str, code: str, kind: FindingKind = FindingKind.LABORATORY) -> Finding:
    return Finding("f1", kind, Coding(system, code), 1.0, 0, 0)


@pytest.mark.parametrize(
    ("matcher", "system", "code", "kind", "accepted"),
    [
        (Matcher("s", frozenset({"a"})), "s", "a", FindingKind.LABORATORY, True),
        (Matcher("s", frozenset({"a"})), "s", "ab", FindingKind.LABORATORY, False),
        (Matcher("s", frozenset({"a"})), "t", "a", FindingKind.LABORATORY, False),
        (Matcher("s", prefixes=("x", "ab")), "s", "abc", FindingKind.LABORATORY, True),
        (Matcher("s", prefixes=("x", "ab")), "s", "a", FindingKind.LABORATORY, False),
        (Matcher("s", frozenset({"a"}), ("b",)), "s", "bc", FindingKind.LABORATORY, True),
        (Matcher("s", frozenset({"a"}), ("b",)), "s", "a", FindingKind.LABORATORY, True),
        (Matcher("s"), "s", "anything", FindingKind.LABORATORY, True),
        (Matcher("", kinds=frozenset({FindingKind.ALLERGY})), "any", "code", FindingKind.ALLERGY, True),
        (Matcher("", kinds=frozenset({FindingKind.ALLERGY})), "any", "code", FindingKind.VITAL, False),
    ],
)
def test_a_matcher_accepts(matcher, system, code, kind, accepted):
    assert matcher.accepts(finding(system, code, kind)) is accepted


def write(tmp_path, matcher):
    path = tmp_path / "c.yaml"
    path.write_text(
        "version: 1\nitems:\n  - {id: x, display: x, group: g, cost_usd: 0, matches: {fhir: [" + matcher + "]}}\n"
    )
    return str(path)


@pytest.mark.parametrize("matcher", ["{code: [a], system: s}", "{codes: [a]}", "{}", "{system: s, codes: []}"])
def test_a_matcher_that_says_nothing_or_something_unknown_is_refused(tmp_path, matcher):
    with pytest.raises(BadInputError, match="catalogue"):
        load_catalogue(write(tmp_path, matcher))


def test_an_unknown_catalogue_is_a_usage_error():
    with pytest.raises(UsageError):
        load_catalogue("nosuch")


def test_version_1_names_every_item_once_and_by_words_of_its_own():
    catalogue = load_catalogue()
    owners: dict[str, set[str]] = {}
    for item in catalogue.items:
        for name in (item.item_id.replace("_", " "), item.display, *item.synonyms):
            owners.setdefault(name.lower(), set()).add(item.item_id)
    assert [name for name, ids in owners.items() if len(ids) > 1] == []
    assert all(catalogue.recognise(name).item_id in ids for name, ids in owners.items())
    assert len(catalogue.items) == 52


def test_version_1_says_where_each_price_comes_from_and_that_it_is_unchecked():
    for item in load_catalogue().items:
        assert item.cost_source
        assert item.cost_usd >= 0
        assert item.cost_usd == 0 or "unchecked" in item.cost_source


def test_every_item_is_obtainable_from_fhir_and_eicu_lacks_complaint_and_ecg():
    items = load_catalogue().items
    assert [i.item_id for i in items if not i.matches.get("fhir")] == []
    assert [i.item_id for i in items if not i.matches.get("eicu")] == ["chief_complaint", "ecg"]


@pytest.mark.parametrize(
    ("system", "code", "kind", "items"),
    [
        (LOINC, "2951-2", FindingKind.LABORATORY, ["basic_metabolic_panel"]),
        (LOINC, "2947-0", FindingKind.LABORATORY, ["basic_metabolic_panel"]),
        (LOINC, "8661-1", FindingKind.COMPLAINT, ["chief_complaint"]),
        (LOINC, "9269-2", FindingKind.EXAMINATION, ["gcs_consciousness"]),
        (LOINC, "600-7", FindingKind.MICROBIOLOGY, ["cultures"]),
        (LOINC, "39420-5", FindingKind.IMAGING, ["imaging_vascular_ultrasound"]),
        (SNOMED, "38341003", FindingKind.HISTORY, ["history_cardiovascular"]),
        (SNOMED, "38341003", FindingKind.PROCEDURE, []),
        ("http://hl7.org/fhir/sid/icd-10-cm", "I10", FindingKind.HISTORY, ["history_cardiovascular"]),
        ("http://hl7.org/fhir/sid/icd-10-cm", "I63.9", FindingKind.HISTORY, ["history_neurologic"]),
        ("http://hl7.org/fhir/sid/icd-10-cm", "J44.9", FindingKind.HISTORY, ["history_pulmonary"]),
        ("http://hl7.org/fhir/sid/icd-10-cm", "C34.1", FindingKind.HISTORY, ["history_cancer_haematology"]),
        ("http://hl7.org/fhir/sid/icd-10-cm", "D84.9", FindingKind.HISTORY, ["history_infection_immunity"]),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "1", FindingKind.MEDICATION_HOME, ["home_drugs"]),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "1", FindingKind.TREATMENT, []),
    ],
)
def test_version_1_assigns_a_fhir_finding_to(system, code, kind, items):
    found = finding(system, code, kind)
    assert [i.item_id for i in load_catalogue().items if i.accepts("fhir", found)] == items


def luhn(code: str) -> bool:
    body, check = code.split("-")
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return (-total) % 10 == int(check)


def verhoeff(code: str) -> bool:
    """Checks a SNOMED CT identifier: multiplication in the dihedral group D5."""

    def times(a: int, b: int) -> int:
        turned = (a + b) % 5 if a < 5 else (a - b) % 5
        return turned + (5 if (a < 5) != (b < 5) else 0)

    order = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    total = 0
    for place, digit in enumerate(reversed(code)):
        moved = int(digit)
        for _ in range(place % 8):
            moved = order[moved]
        total = times(total, moved)
    return total == 0


def test_every_standard_code_has_a_right_check_digit():
    checks = {LOINC: luhn, SNOMED: verhoeff}
    codes = {(m.system, c) for i in load_catalogue().items for m in i.matches.get("fhir", ()) for c in m.codes}
    known = [(system, code) for system, code in codes if system in checks]
    assert len(known) > 400
    assert [pair for pair in known if not checks[pair[0]](pair[1])] == []
