"""The FHIR importer: what becomes a case, when a fact is known, what is never shown, what labels a case."""

import json
from dataclasses import asdict

import pytest
from fhir_building import (
    CANARY,
    CODED,
    PROBLEM,
    E,
    P,
    concept,
    condition,
    diagnosis,
    encounter,
    finding,
    loader,
    observation,
    only,
    patient,
    without,
)

from clinical_data.catalogue import load_catalogue
from clinical_data.chart import open_chart


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


def test_a_case_with_its_parts(load):
    parts = {"partOf": E}
    one = only(
        load(
            patient(),
            encounter(hospitalization={"admitSource": {"text": "from home"}}),
            encounter("ed", "2024-01-10T06:00:00+01:00", "2024-01-10T10:20:00+01:00", **parts)
            | {"class": {"code": "EMER"}},
            encounter("icu", "2024-01-11T06:00:00+01:00", "2024-01-12T06:00:00+01:00", **parts)
            | {"class": {"code": "ACUTE"}},
            observation(
                key="o", encounter={"reference": "Encounter/ed"}, effectiveDateTime="2024-01-10T07:00:00+01:00"
            ),
        )
    ).case
    assert (one.case_id, one.source, one.source_id) == ("fhir-e", "fhir", "e")
    assert (one.patient.patient_id, one.patient.sex, one.age) == ("fhir-p", "female", 73)
    assert [(e.encounter_id, e.kind, e.start, e.end) for e in one.encounters] == [
        ("e", "inpatient", 0, 5760),
        ("ed", "emergency", -240, 20),
        ("icu", "icu", 1200, 2640),
    ]
    assert one.anchors == {
        "admission": 0,
        "triage": -240,
        "ed_arrival": -240,
        "ed_departure": 20,
        "end_of_stay": 5760,
    }
    assert one.context == {"admission_source": "from home"}
    assert [f.charted for f in one.findings] == [-180]


@pytest.mark.parametrize(
    ("code", "source", "is_case"),
    [
        ("IMP", False, 1),
        ("ACUTE", False, 1),
        ("NONAC", False, 1),
        ("OBSENC", False, 1),
        ("SS", False, 1),
        ("EMER", False, 1),
        ("AMB", False, 0),
        ("HH", False, 0),
        ("AMB", True, 1),
    ],
)
def test_what_is_one_case(load, code, source, is_case):
    more = {"hospitalization": {"admitSource": {"text": "x"}}} if source else {}
    cases, broken, _ = load(patient(), encounter(**more) | {"class": {"code": code}})
    assert (len(cases), broken) == (is_case, [])


def test_an_emergency_without_a_parent_is_its_own_ed_stay(load):
    one = only(load(patient(), encounter() | {"class": {"code": "EMER"}})).case
    assert one.encounters[0].kind == "emergency"
    assert (one.anchors["ed_arrival"], one.anchors["ed_departure"]) == (0, 5760)


@pytest.mark.parametrize(
    ("change", "charted", "available", "pending"),
    [
        ({"issued": "2024-01-10T11:45:00+01:00"}, 60, 105, 60),
        ({"issued": "2024-01-10T10:45:00Z"}, 60, 105, 60),
        ({"issued": "2024-01-10T11:45:30+01:00"}, 60, 106, 60),  # rounded up: never known too early
        ({}, 60, 300, 60),  # laboratory without issued: + 4 h
        ({"effectiveDateTime": "2024-01-10T09:00:00Z"}, 0, 240, 0),
        ({"category": [concept("vital-signs")]}, 60, 60, None),
        (
            {"category": [concept("exam")], "effectiveDateTime": "2024-01-10"},
            -600,
            840,
            None,
        ),  # date only: end of that day
        ({"category": [concept("microbiology")]}, 60, 60 + 9 * 1440, 60),
        ({"code": concept("600-7", text="Blood culture")}, 60, 60 + 9 * 1440, 60),
        ({"issued": "2024-01-10T10:30:00+01:00"}, 60, 60, None),  # issued before it was taken: not before it was taken
    ],
)
def test_when_a_result_is_known(load, change, charted, available, pending):
    one = finding(load(patient(), encounter(), observation() | change))
    assert (one.charted, one.available, one.pending_from) == (charted, available, pending)


def test_an_admission_known_by_its_date_begins_at_midnight(load):
    stay = encounter(start="2024-01-10", end="2024-01-12")
    one = only(load(patient(), stay, observation(issued="2024-01-10T11:30:00+01:00"))).case
    assert one.anchors == {"admission": 0, "end_of_stay": 3 * 1440}
    assert [(f.charted, f.available) for f in one.findings] == [(660, 690)]


def test_a_time_without_a_zone_is_no_fhir(load):
    cases, broken, _ = load(patient(), encounter(), observation(effectiveDateTime="2024-01-10T11:00:00"))
    assert cases[0].case.findings == ()
    assert [q.reason for q in broken] == ["not valid FHIR R4: effectiveDateTime: value_error"]


def test_an_observation_without_a_time_is_unused(load):
    loaded = load(patient(), encounter(), without(observation(), "effectiveDateTime"))
    assert only(loaded).case.findings == ()
    assert loaded[2].unused["Observation: no time"] == 1


@pytest.mark.parametrize(
    ("value", "expected", "unit"),
    [
        ({"valueQuantity": {"value": 4.25, "unit": "mmol/L"}}, 4.25, "mmol/L"),
        ({"valueQuantity": {"value": 5, "comparator": ">", "code": "mg"}}, ">5", "mg"),
        ({"valueString": "clear"}, "clear", ""),
        ({"valueString": "咳嗽三天"}, "咳嗽三天", ""),
        ({"valueCodeableConcept": {"text": "positive"}}, "positive", ""),
        ({"valueInteger": 7}, 7.0, ""),
        ({"valueBoolean": False}, "no", ""),
        ({"dataAbsentReason": {"text": "hemolysed"}}, None, ""),
    ],
)
def test_values(load, value, expected, unit):
    one = finding(load(patient(), encounter(), without(observation(), "valueQuantity") | value))
    assert (one.value, one.unit, one.result_in_source) == (expected, unit, expected is not None)
    assert type(one.value) is type(expected)


def test_range_flag_code_and_version(load):
    coding = [
        {"system": "local", "code": "K"},
        {"system": "http://snomed.info/sct", "code": "1"},
        {"system": "http://loinc.org", "code": "2823-3", "version": "2.77"},
    ]
    one = finding(
        load(
            patient(),
            encounter(),
            observation(
                code={"coding": coding, "text": "Potassium"},
                referenceRange=[{"low": {"value": 3.5}, "high": {"value": 5}}],
                interpretation=[concept("HH")],
            ),
        )
    )
    assert (one.low, one.high, one.flag) == (3.5, 5.0, "HH")
    assert (one.code.system, one.code.code, one.code.display, one.code.version) == (
        "http://loinc.org",
        "2823-3",
        "Potassium",
        "2.77",
    )


def test_components_are_findings_of_their_own(load):
    pressure = without(observation(category="vital-signs"), "valueQuantity") | {
        "component": [{"code": concept(c), "valueQuantity": {"value": v}} for c, v in (("8480-6", 120), ("8462-4", 80))]
    }
    found = only(load(patient(), encounter(), pressure)).case.findings
    assert {f.code.code: f.value for f in found} == {"8480-6": 120.0, "8462-4": 80.0}


def history(load, *conditions, **more):
    return [f.code.code for f in only(load(patient(), encounter(**more), *conditions)).case.findings]


@pytest.mark.parametrize(
    ("more", "known"),
    [
        (PROBLEM | {"recordedDate": "2023-05-05"}, True),
        (PROBLEM | {"onsetDateTime": "2023-05-05"}, True),
        (PROBLEM, False),  # no date: hidden
        (PROBLEM | {"recordedDate": "2024-02-01"}, False),  # after the stay
        (PROBLEM | {"recordedDate": "2023-05-05", "encounter": E}, False),
        (CODED | {"recordedDate": "2023-05-05"}, False),
        (CODED | {"recordedDate": "2023-05-05", "encounter": E}, False),
        ({"recordedDate": "2023-05-05", "encounter": E}, False),
        (PROBLEM | {"recordedDate": "2023-05-05", "verificationStatus": concept("entered-in-error")}, False),
    ],
)
def test_which_conditions_are_findings(load, more, known):
    assert history(load, condition(**more)) == (["J18.9"] if known else [])


@pytest.mark.parametrize("use", ["AD", "DD", "CM", "billing", "CC"])
def test_a_condition_that_labels_the_case_is_never_a_finding_of_it(load, use):
    assert history(load, condition(**PROBLEM, recordedDate="2020-01-01"), diagnosis=[diagnosis(use, "c", 1)]) == []


def test_codes_of_an_earlier_admission_are_known_from_its_end(load):
    before = encounter(
        "before", "2023-01-01T00:00:00+01:00", "2023-01-05T00:00:00+01:00", diagnosis=[diagnosis("DD", "old2", 1)]
    )
    old = condition("old", "I50.9", encounter={"reference": "Encounter/before"}, **CODED)
    old2 = condition("old2", "E11.9", **CODED)
    later = condition("new", "J44.1", encounter=E, **CODED)
    cases, broken, _ = load(patient(), later, encounter(), old, old2, before)
    assert broken == []
    first, second = (c.case for c in cases)
    assert (first.case_id, first.findings) == ("fhir-before", ())
    ended = -(370 * 1440 + 600)  # 5 January 2023, 00:00, seen from 10 January 2024, 10:00
    assert {(f.code.code, f.available) for f in second.findings} == {
        ("I50.9", ended),
        ("E11.9", ended),
        ("prior_admission", ended),
    }


def test_facts_without_an_encounter_belong_by_time_and_facts_of_later_admissions_never(load):
    loose = without(observation("loose", effectiveDateTime="2024-01-12T11:00:00+01:00"), "encounter")
    after = without(observation("after", effectiveDateTime="2024-01-15T10:00:00+01:00"), "encounter")
    next_stay = encounter("next", "2024-01-13T10:00:00+01:00", "2024-01-20T10:00:00+01:00")  # overlaps, to be mean
    of_next = observation(
        "of-next", encounter={"reference": "Encounter/next"}, effectiveDateTime="2024-01-09T10:00:00+01:00"
    )
    cases, _, _ = load(patient(), encounter(), next_stay, loose, after, of_next)
    notes = {c.case.case_id: {f.note for f in c.case.findings} for c in cases}
    assert notes["fhir-e"] == {"Observation/loose"}
    assert notes["fhir-next"] == {"Observation/loose", "Observation/after", "Observation/of-next"}


def test_home_drugs_allergies_family_reports_procedures_and_orders(load):
    drug = {"medicationReference": {"reference": "Medication/m"}, "subject": P}
    found = only(
        load(
            patient(),
            encounter(),
            {"resourceType": "Medication", "id": "m", "code": concept("197361", "rxnorm")},
            {
                "resourceType": "MedicationStatement",
                "id": "ms",
                "status": "active",
                "dateAsserted": "2024-01-10T10:30:00+01:00",
                "context": E,
                **drug,
            },
            {
                "resourceType": "MedicationRequest",
                "id": "mr",
                "status": "active",
                "intent": "order",
                "authoredOn": "2024-01-10T11:00:00+01:00",
                "encounter": E,
                **drug,
            },
            {
                "resourceType": "MedicationAdministration",
                "id": "ma",
                "status": "completed",
                "effectiveDateTime": "2024-01-10T12:00:00+01:00",
                "context": E,
                **drug,
            },
            {
                "resourceType": "ServiceRequest",
                "id": "sr",
                "status": "active",
                "intent": "order",
                "authoredOn": "2024-01-10T11:00:00+01:00",
                "encounter": E,
                "subject": P,
                "code": concept("24627-2"),
            },
            {
                "resourceType": "AllergyIntolerance",
                "id": "a",
                "patient": P,
                "recordedDate": "2019-01-01",
                "code": concept("7980", "rxnorm"),
            },
            {
                "resourceType": "FamilyMemberHistory",
                "id": "fh",
                "status": "completed",
                "patient": P,
                "date": "2019-01-01",
                "relationship": {"text": "mother"},
                "condition": [{"code": concept("22298006", "http://snomed.info/sct")}],
            },
            {
                "resourceType": "DiagnosticReport",
                "id": "dr",
                "status": "final",
                "category": [concept("RAD")],
                "code": concept("36643-5"),
                "subject": P,
                "encounter": E,
                "effectiveDateTime": "2024-01-10T11:00:00+01:00",
                "issued": "2024-01-10T13:00:00+01:00",
                "conclusion": "no infiltrate",
            },
            {
                "resourceType": "Procedure",
                "id": "pr",
                "status": "completed",
                "subject": P,
                "encounter": E,
                "code": concept("1", "http://snomed.info/sct"),
                "performedDateTime": "2024-01-11",
            },
            {
                "resourceType": "Procedure",
                "id": "pd",
                "status": "completed",
                "subject": P,
                "encounter": E,
                "code": concept("2", "http://snomed.info/sct"),
                "category": concept("103693007", "http://snomed.info/sct"),
                "performedDateTime": "2024-01-10T12:00:00+01:00",
            },
            {
                "resourceType": "Procedure",
                "id": "billed",
                "status": "completed",
                "subject": P,
                "encounter": E,
                "code": concept("0W9G3ZZ", "http://www.cms.gov/Medicare/Coding/ICD10/icd-10-pcs"),
                "performedDateTime": "2024-01-11",
            },
            {"resourceType": "Claim", "id": "x", "text": "whatever"},
        )
    ).case.findings
    assert {f.note: (f.kind.value, f.code.code, f.value, f.available) for f in found} == {
        "MedicationStatement/ms": ("medication_home", "197361", "recorded", 30),
        "MedicationRequest/mr": ("treatment", "197361", "ordered", 60),
        "MedicationAdministration/ma": ("treatment", "197361", "given", 120),
        "ServiceRequest/sr": ("treatment", "24627-2", "ordered", 60),
        "AllergyIntolerance/a": ("allergy", "7980", "recorded", found[0].available),
        "FamilyMemberHistory/fh#0": ("family", "22298006", "mother", found[0].available),
        "DiagnosticReport/dr": ("imaging", "36643-5", "no infiltrate", 180),
        "Procedure/pr": ("treatment", "1", "done", 2280),  # end of 11 January
        "Procedure/pd": ("procedure", "2", "done", 120),
        "Procedure/billed": ("treatment", "0W9G3ZZ", "done", 5760),  # a billing code: known at discharge
    }
    assert next(f.pending_from for f in found if f.note == "DiagnosticReport/dr") == 60


def test_contained_and_uuid_references(load):
    one = encounter(diagnosis=[{"condition": {"reference": "#c1"}, "use": concept("DD")}])
    one |= {"contained": [without(condition("c1"), "id") | {"id": "c1"}], "subject": {"reference": "urn:uuid:aaa-1"}}
    pill = {
        "resourceType": "MedicationStatement",
        "id": "ms",
        "status": "active",
        "dateAsserted": "2024-01-10T10:30:00+01:00",
        "contained": [{"resourceType": "Medication", "id": "m1", "code": concept("5", "rxnorm")}],
        "medicationReference": {"reference": "#m1"},
        "subject": {"reference": "urn:uuid:aaa-1"},
        "context": {"reference": "urn:uuid:bbb-2"},
    }
    entries = [
        {"fullUrl": "urn:uuid:bbb-2", "resource": without(one, "id")},
        {"fullUrl": "urn:uuid:ccc-3", "resource": without(pill, "id")},
        {"fullUrl": "urn:uuid:aaa-1", "resource": without(patient(), "id")},
    ]
    one = only(
        load(**{"b.json": json.dumps({"entry": entries, "type": "collection", "resourceType": "Bundle"}).encode()})
    )
    assert (one.case.case_id, one.case.patient.patient_id, one.case.age) == ("fhir-bbb-2", "fhir-aaa-1", 73)
    assert [f.code.code for f in one.case.findings] == ["5"]
    assert one.truth["discharge_diagnosis"].labels[0].coding.code == "J18.9"


def test_canaries_in_hidden_fields_never_reach_the_case(load):
    secret = {"text": CANARY, "coding": [{"code": CANARY, "display": CANARY}]}
    hidden = encounter(
        priority=secret,
        reasonCode=[secret],
        diagnosis=[diagnosis("DD", "c", 1), diagnosis("billing", "c2", 1)],
        hospitalization={"dischargeDisposition": secret, "destination": {"display": CANARY}},
        location=[{"location": {"display": CANARY}}],
    ) | {"class": {"code": "IMP", "display": CANARY}}
    labelled = [condition(k, CANARY, encounter=E, clinicalStatus=secret) for k in ("c", "c2")]
    lines = [
        patient(name=[{"family": CANARY}], deceasedDateTime="2024-01-14", maritalStatus=secret),
        hidden,
        *labelled,
        condition(
            "visible", "I10", recordedDate="2020-01-01", clinicalStatus=secret, abatementString=CANARY, **PROBLEM
        ),
        {
            "resourceType": "DiagnosticReport",
            "id": "note",
            "status": "final",
            "code": concept("18842-5"),
            "subject": P,
            "encounter": E,
            "category": [concept("LP173421-1")],
            "issued": "2024-01-10T11:00:00Z",
            "conclusion": CANARY,
        },
        {"resourceType": "Composition", "id": "x", "title": CANARY},
        observation(note=[{"text": CANARY}]),
    ]
    loaded = load(*lines)
    one = only(loaded)
    assert {f.note for f in one.case.findings} == {"Condition/visible", "Observation/o"}
    assert CANARY not in json.dumps(asdict(one.case), default=str)
    assert CANARY not in str(loaded[2].unused)
    assert one.truth["discharge_diagnosis"].labels[0].coding.code == CANARY


def test_what_comes_later_does_not_change_the_chart(load):
    base = [
        patient(),
        encounter("ed", "2024-01-10T06:00:00+01:00", "2024-01-10T10:20:00+01:00", partOf=E)
        | {"class": {"code": "EMER"}},
        observation("early", effectiveDateTime="2024-01-10T07:00:00+01:00", issued="2024-01-10T08:00:00+01:00"),
        observation("pending", effectiveDateTime="2024-01-10T09:50:00+01:00", issued="2024-01-10T12:00:00+01:00"),
    ]
    later = [
        observation("late", effectiveDateTime="2024-01-11T07:00:00+01:00"),
        condition("c", "A41.9", encounter=E, recordedDate="2024-01-14", **CODED),
        condition("new", "N17.9", recordedDate="2024-01-12", **PROBLEM),
        encounter("next", "2024-03-01T06:00:00+01:00", "2024-03-02T06:00:00+01:00"),
        {
            "resourceType": "Procedure",
            "id": "pr",
            "status": "completed",
            "subject": P,
            "encounter": E,
            "code": concept("1"),
            "performedDateTime": "2024-01-10",
        },
    ]
    catalogue = load_catalogue()
    plain = load(*base, encounter())[0][0].case
    full = load(*base, *later, encounter(end="2024-01-29T10:00:00+01:00", diagnosis=[diagnosis("AD", "c", 1)]))[0][
        0
    ].case
    assert plain.case_id == full.case_id == "fhir-e"
    assert len(full.findings) > len(plain.findings)
    chart = open_chart(plain, 0, catalogue)
    assert chart == open_chart(full, 0, catalogue)
    assert [f.note for f in chart.known()] == ["Observation/early"]
