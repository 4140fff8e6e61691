"""The FHIR importer on files: forms, damage, quarantine, published and bundled data."""

import gzip
import json
from pathlib import Path

import pytest
from fhir_building import (
    CANARY,
    E,
    P,
    condition,
    diagnosis,
    encounter,
    loader,
    observation,
    only,
    patient,
    read,
    without,
)
from pydantic import ValidationError

from clinical_data.case import FindingKind
from clinical_data.errors import BadInputError
from clinical_data.sources import ImportLog
from clinical_data.sources.fhir import FhirSource
from clinical_data.sources.fhir_models import model_of, validate
from clinical_data.sources.fhir_times import age_at, parse_moment
from clinical_data.sources.fhir_validate import why_invalid

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


STAY = [
    patient(),
    encounter(diagnosis=[diagnosis("DD", "c", 1)]),
    condition(encounter=E),
    observation("o1"),
    observation("o2"),
]


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


def test_every_form_of_the_same_content_gives_the_same_cases(tmp_path):
    lines = "\n".join(json.dumps(r) for r in STAY).encode()
    bundle = json.dumps(
        {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in STAY]}, indent=1
    ).encode()
    forms = {
        "lines": {"a.ndjson": lines},
        "packed": {"a.ndjson.gz": gzip.compress(lines)},
        "bundle": {"a.json": bundle},
        "packed-bundle": {"a.json.gz": gzip.compress(bundle)},
        "marked": {"a.json": b"\xef\xbb\xbf" + bundle},
        "singles": {f"{n}.json": json.dumps(r).encode() for n, r in enumerate(STAY)},
        "line-of-bundle": {"a.ndjson": json.dumps(json.loads(bundle)).encode()},
        "folders/deep/below": {"a.ndjson": lines, "readme.txt": b"no FHIR"},
    }
    results = []
    for name, files in forms.items():
        (tmp_path / name).mkdir(parents=True)
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
        cases, broken, _ = read(tmp_path / name.split("/")[0])
        assert broken == []
        results.append([(c.case.content_hash, c.truth) for c in cases])
    assert len(results[0]) == 1
    assert all(r == results[0] for r in results)
    assert read(tmp_path / "bundle" / "a.json")[0] == read(tmp_path / "lines")[0]


def test_a_large_bundle_is_read_piece_by_piece(load, monkeypatch):
    monkeypatch.setattr("clinical_data.sources.fhir_files._CHUNK", 100)
    many = [*STAY, *(observation(f"n{n}", valueString="é" * n) for n in range(1, 51))]
    for one in many[5:]:
        del one["valueQuantity"]
    bundle = {"resourceType": "Bundle", "type": "collection", "total": 55, "entry": [{"resource": r} for r in many]}
    one = only(load(**{"b.json": json.dumps(bundle, ensure_ascii=False).encode()}))
    assert len(one.case.findings) == 52


def test_what_is_broken_is_quarantined_with_its_place_and_without_its_values(load):
    good = [json.dumps(r) for r in STAY]
    bad = {
        2: ("{" + CANARY, "invalid JSON"),
        4: (json.dumps(observation("bad", status=[CANARY])), "not valid FHIR R4: status"),
        5: (json.dumps(observation("extra") | {"made_up": CANARY}), "not valid FHIR R4: made_up: extra_forbidden"),
        6: (json.dumps({"resourceType": f"Made{CANARY}", "id": CANARY}), "resourceType: unknown"),
        7: (json.dumps({"id": CANARY}), "resourceType: missing"),
        8: (json.dumps(without(encounter("n"), "period")), "period.start: missing"),
        9: (json.dumps(encounter("late", end="2024-01-09")), "period.end: before period.start"),
        10: (json.dumps(without(encounter("nobody"), "subject")), "subject: missing"),
        11: (json.dumps([CANARY]), "not a JSON object"),
        12: (json.dumps(observation("u", valueString="x")).replace('"x"', '"\\ud800"'), "invalid JSON"),
        13: (json.dumps(without(observation("nobody2"), "subject", "encounter")), "subject: missing"),
    }
    lines = [good.pop(0) if n not in bad else bad[n][0] for n in range(1, 17) if n in bad or good]
    cases, broken, log = load(**{"a.ndjson": "\n".join(lines).encode(), "b.json": json.dumps({"x": CANARY}).encode()})
    assert len(cases) == 1
    assert len(cases[0].case.findings) == 2
    assert [(q.file, q.line) for q in broken] == [*(("a.ndjson", n) for n in bad), ("b.json", None)]
    for held, (_, reason) in zip(broken, bad.values(), strict=False):
        assert reason in held.reason
    assert not any(CANARY in q.reason for q in broken)
    assert [q.resource for q in broken if q.line == 4] == ["Observation/bad"]
    assert log.read["Observation"] == 5


def test_wrong_encoding_and_damaged_gzip(load):
    lines = "\n".join(json.dumps(r) for r in STAY).encode()
    extra = [
        json.dumps(observation(f"x{n}", valueString=f"{CANARY}{n * 7919}")).replace('"valueQuantity"', '"_v"')
        for n in range(3000)
    ]
    latin = json.dumps(observation("l", valueString="é"), ensure_ascii=False).encode("latin-1")
    cases, broken, _ = load(
        **{
            "a.ndjson": lines,
            "b.ndjson": latin,
            "c.ndjson.gz": gzip.compress("\n".join(extra).encode())[:-500],
            "d.json": json.dumps(patient()).encode("utf-16"),
            "e.ndjson.gz": b"not gzip at all",
            "f.json": json.dumps({"resourceType": "Bundle", "entry": [{"resource": patient()}]}).encode()[:-20],
        }
    )
    assert len(cases) == 1
    reasons = {q.file: q.reason for q in broken}
    assert reasons["b.ndjson"] == "not UTF-8"
    assert reasons["c.ndjson.gz"].startswith("gzip data damaged")
    assert reasons["d.json"].startswith("not UTF-8")
    assert reasons["e.ndjson.gz"].startswith("gzip data damaged")
    assert reasons["f.json"].startswith("invalid JSON")
    assert not any(CANARY in q.reason for q in broken)


def test_entries_of_a_bundle_are_counted_from_one(load):
    entries = [{"resource": r} for r in STAY]
    entries.insert(2, {"resource": {"resourceType": "Observation", "id": "bad"}})
    entries.insert(3, {"fullUrl": "urn:uuid:1"})
    cases, broken, log = load(**{"b.json": json.dumps({"resourceType": "Bundle", "entry": entries}).encode()})
    assert len(cases) == 1
    assert [(q.file, q.line, q.resource) for q in broken] == [("b.json", 3, "Observation/bad")]
    assert log.unused["Bundle entry without resource: skipped"] == 1


@pytest.mark.parametrize("content", [{}, {"a.txt": b"x"}, {"a.json": b'{"name": "package"}'}, {"a.ndjson": b""}])
def test_a_folder_without_fhir_is_one_clear_error(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).write_bytes(text)
    with pytest.raises(BadInputError) as raised:
        read(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert raised.value.hint


def test_a_missing_path_is_one_clear_error(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        read(tmp_path / "none")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(BadInputError, match="not a FHIR file"):
        read(tmp_path / "a.csv")


def test_progress_ends_at_the_total(tmp_path):
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress("\n".join(json.dumps(r) for r in STAY * 300).encode()))
    seen = []
    list(FhirSource().read(tmp_path, ImportLog(lambda q: None, lambda done, total: seen.append((done, total)))))
    size = (tmp_path / "a.ndjson.gz").stat().st_size
    assert seen[-1] == (size, size)
    assert all(done <= total == size for done, total in seen)
    assert len(seen) > 2


def test_the_same_resource_twice_counts_once(load):
    cases, broken, _ = load(*STAY, *STAY)
    assert broken == []
    assert [len(c.case.findings) for c in cases] == [2]


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13", "2024-02-30", "2024-01-01T25:00:00Z", "0001-01-01"])
def test_no_fhir_time(text):
    with pytest.raises(ValueError) as raised:
        parse_moment(text)
    assert not text or text not in str(raised.value)


def test_moments_and_ages():
    assert str(parse_moment("2024").latest) == "2025-01-01 00:00:00"
    assert str(parse_moment("2024-12").latest) == "2025-01-01 00:00:00"
    assert str(parse_moment("2024-02").latest) == "2024-03-01 00:00:00"
    assert parse_moment("2016-12-31T23:59:60Z").latest.second == 59
    assert parse_moment("2024-01-01T10:00:00.123456789Z").latest.microsecond == 123456
    start = parse_moment("2024-06-01T10:00:00Z").earliest
    assert [age_at(start, b) for b in ("1950-06-01", "1950-06-02", "1950", "1920-01-01", "2025-01-01", None)] == [
        74,
        73,
        74,
        90,
        None,
        None,
    ]


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"acceptance data {name} is not beside the project")
    return read(path)


@pytest.mark.shared_data
def test_hl7_example():
    cases, broken, _ = shared("hl7-fhir-r4")
    assert (len(cases), broken) == (1, [])
    assert "Condition/stroke" in cases[0].truth["admission_diagnosis"].absent_reason
    assert "Condition/f201" in cases[0].truth["discharge_diagnosis"].absent_reason


@pytest.mark.shared_data
def test_synthea():
    cases, broken, log = shared("synthea-r4")
    assert broken == []
    assert len(cases) == 136 + 87
    assert log.read["Observation"] == 4873
    assert {f.kind for c in cases for f in c.case.findings} >= {
        FindingKind.LABORATORY,
        FindingKind.VITAL,
        FindingKind.HISTORY,
    }


def test_the_bundled_cases_import_without_loss():
    folder = Path(__file__).resolve().parents[2] / "clinical_data" / "demo" / "bundles"
    if not list(folder.glob("*.json.gz")):
        pytest.skip("no bundled cases")
    cases, broken, _ = read(folder)
    assert broken == []
    assert cases
    for one in cases:
        assert one.case.findings
        assert one.truth["admission_diagnosis"].labels
        assert one.truth["discharge_diagnosis"].labels


MUTATIONS = [
    {"status": 7},
    {"subject": [P]},
    {"subject": {"reference": 5}},
    {"code": {"coding": "x"}},
    {"code": {"coding": [{"code": "1", "extra": 2}]}},
    {"category": {"text": "not a list"}},
    {"category": [None]},
    {"category": [{"text": "a"}, {"coding": [{"code": []}]}]},
    {"valueQuantity": {"value": "many"}},
    {"valueString": "second value"},
    {"referenceRange": [{"low": {"value": 1}, "made_up": 1}]},
    {"contained": [{"resourceType": "Medication", "id": "m"}]},
    {"extension": [{"url": "x", "valueString": "y"}]},
    {"_status": {"extension": [{"url": "x"}]}},
    {"self": 1},
    {},
]


@pytest.mark.parametrize("change", MUTATIONS)
def test_equal_elements_are_validated_once_with_the_same_verdict(change):
    model = model_of("Observation")
    data = observation() | change
    verdicts = []
    for check in (lambda: model(**data), lambda: validate(model, data), lambda: validate(model, data)):
        try:
            check()
            verdicts.append("")
        except ValidationError as error:
            verdicts.append(why_invalid(error))
        except TypeError as error:
            verdicts.append(type(error).__name__)
    assert len(set(verdicts)) == 1
