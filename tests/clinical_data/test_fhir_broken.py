"""Input that is damaged, hostile, or of another FHIR version: refused with its place, and the rest is imported."""

import gzip
import json

import pytest
from fhir_building import (
    CANARY,
    E,
    P,
    concept,
    condition,
    diagnosis,
    encounter,
    loader,
    observation,
    patient,
    without,
)

GOOD = [patient(), encounter(), observation("o1")]


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


def lines(*resources):
    return "\n".join(json.dumps(r) for r in resources).encode()


R5 = [
    without(encounter("x"), "period", "class")
    | {"class": [concept("IMP")], "actualPeriod": {"start": "2024-01-10T10:00:00Z"}},
    {"resourceType": "MedicationRequest", "id": "x", "status": "active", "intent": "order", "subject": P,
     "medication": {"concept": concept("1")}},
    {"resourceType": "Procedure", "id": "x", "status": "completed", "subject": P, "code": concept("1"),
     "occurrenceDateTime": "2024-01-10"},
    {"resourceType": "ServiceRequest", "id": "x", "status": "active", "intent": "order", "subject": P,
     "code": {"concept": concept("1")}},
    observation("x", meta={"profile": ["http://hl7.org/fhir/5.0/StructureDefinition/Observation"]}),
    {"resourceType": "CapabilityStatement", "id": "x", "fhirVersion": "5.0.0"},
]  # fmt: skip
STU3 = [
    encounter("x", reason=[concept("1")]),
    without(observation("x"), "encounter") | {"context": E},
    {"resourceType": "Condition", "id": "x", "subject": P, "clinicalStatus": "active",
     "verificationStatus": "confirmed", "code": concept("1")},
    {"resourceType": "MedicationStatement", "id": "x", "status": "active", "taken": "y", "subject": P,
     "medicationCodeableConcept": concept("1")},
    {"resourceType": "ProcedureRequest", "id": "x", "status": "active", "intent": "order", "subject": P,
     "code": concept("1")},
    {"resourceType": "AllergyIntolerance", "id": "x", "patient": P, "clinicalStatus": "active",
     "verificationStatus": "confirmed", "assertedDate": "2020"},
]  # fmt: skip


@pytest.mark.parametrize(("version", "resource"), [*(("R5", r) for r in R5), *(("STU3", r) for r in STU3)])
def test_resources_of_another_version_are_quarantined_by_its_name(load, version, resource):
    cases, broken, _ = load(*GOOD, resource)
    assert [len(c.case.findings) for c in cases] == [1]
    (held,) = broken
    assert held.reason.startswith(f"FHIR {version}, not R4: {resource['resourceType']}.")
    assert (held.file, held.line) == ("all.ndjson", 4)


def test_a_whole_bundle_of_another_version(load):
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in R5[:4]]}
    cases, broken, _ = load(*GOOD, **{"b.json": json.dumps(bundle).encode()})
    assert len(cases) == 1
    assert [(q.file, q.line) for q in broken] == [("b.json", n) for n in range(1, 5)]


def test_a_line_that_is_too_long_is_passed_over_without_holding_it(load, monkeypatch):
    monkeypatch.setattr("clinical_data.sources.fhir_files.LARGEST", 4096)
    monkeypatch.setattr("clinical_data.sources.fhir_files._CHUNK", 1000)
    long = json.dumps(observation("long", valueString=CANARY * 100_000)).encode()
    whole = lines(*GOOD[:2]) + b"\n" + long + b"\n" + lines(GOOD[2])
    for name, content in (("a.ndjson", whole), ("a.ndjson.gz", gzip.compress(whole))):
        cases, broken, _ = load(**{name: content})
        assert [len(c.case.findings) for c in cases] == [1]
        assert [(q.file, q.line) for q in broken] == [(name, 3)]
        assert broken[0].reason.startswith("line longer than")


def test_gzip_that_unpacks_to_nothing_is_given_up(load, monkeypatch):
    monkeypatch.setattr("clinical_data.sources.fhir_files._VAIN", 1 << 20)
    for bomb in (b"\n" * (1 << 22), b" " * (1 << 22)):
        cases, broken, _ = load(*GOOD, **{"z.ndjson.gz": gzip.compress(bomb)})
        assert len(cases) == 1
        assert [(q.file, "without a resource" in q.reason) for q in broken] == [("z.ndjson.gz", True)]
        cases, broken, _ = load(*GOOD, **{"z.json.gz": gzip.compress(bomb)})
        assert len(cases) == 1
        assert [(q.file, "without a resource" in q.reason) for q in broken] == [("z.json.gz", True)]


def nested(depth):
    return b'{"extension":[' * depth + b'{"url":"x","valueString":"y"}' + b"]}" * depth


@pytest.mark.parametrize("depth", [200, 900, 20_000])
def test_deep_nesting_is_quarantined(load, depth):
    deep = json.dumps(observation("deep", extension=[0])).encode().replace(b"[0]", b"[" + nested(depth) + b"]")
    bundle = b'{"resourceType":"Bundle","entry":[{"resource":' + deep + b"}]}"
    cases, broken, _ = load(**{"a.ndjson": lines(*GOOD), "b.ndjson": deep, "c.json": bundle})
    assert [len(c.case.findings) for c in cases] == [1]
    assert {q.file for q in broken} == {"b.ndjson", "c.json"}


def test_huge_numbers_are_quarantined(load):
    huge = json.dumps(observation("n")).replace('"value": 4', '"value": ' + "9" * 5000).encode()
    far = json.dumps(observation("f")).replace('"value": 4', '"value": 1e999').encode()
    cases, broken, _ = load(**{"a.ndjson": lines(*GOOD), "b.json": huge, "c.ndjson": huge + b"\n" + far})
    assert len(cases) == 1
    assert {q.file for q in broken} == {"b.json", "c.ndjson"}


def test_byte_order_mark_and_windows_line_ends(load):
    cases, broken, _ = load(**{"a.ndjson": b"\xef\xbb\xbf" + lines(*GOOD).replace(b"\n", b"\r\n\r\n") + b"\r\n"})
    assert broken == []
    assert [len(c.case.findings) for c in cases] == [1]


def test_of_a_duplicated_id_the_last_version_holds(load):
    second = observation("o1", valueQuantity={"value": 9}, issued="2024-01-12T10:00:00+01:00")
    (one,) = load(*GOOD, second)[0]
    assert [(f.value, f.available) for f in one.case.findings] == [(9.0, 2880)]


def test_dangling_references_lose_only_themselves(load):
    nowhere = {"reference": "Encounter/none"}
    cases, broken, log = load(
        *GOOD,
        observation("stray", encounter=nowhere),
        observation("nobody", subject={"reference": "Patient/none"}),
        encounter("part", partOf=nowhere),
        encounter("of-none", subject={"reference": "Patient/none"}, diagnosis=[diagnosis("DD", "none", 1)]),
        condition("c", encounter=nowhere),
    )
    assert broken == []
    found = {c.case.source_id: c for c in cases}
    assert {f.note for f in found["e"].case.findings} == {"Observation/o1", "Observation/stray"}
    assert found["of-none"].truth["discharge_diagnosis"].absent_reason == "Condition/none is not in the import"
    assert log.unused["Encounter: part of an encounter that is not there"] == 1


@pytest.mark.parametrize("birth", ["0001-01-01", "9999-01-01"])
def test_a_birth_date_out_of_range_costs_the_patient_not_the_case(load, birth):
    cases, broken, _ = load(patient(birthDate=birth), *GOOD[1:])
    assert [c.case.age for c in cases] == [None]
    assert len(broken) == 1
    assert birth not in broken[0].reason
