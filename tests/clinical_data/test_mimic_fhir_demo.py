"""MIMIC-IV on FHIR: the published demo against counts of its own files."""

import csv
import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from fhir_building import read

from clinical_data.clocks import LOOK_BACK

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mimic-iv-demo"


@pytest.fixture(scope="module")
def demo():
    if not SHARED.is_dir():
        pytest.skip("acceptance data mimic-iv-demo is not beside the project")
    return read(SHARED / "fhir")


def raw(name):
    with gzip.open(SHARED / "fhir" / f"Mimic{name}.ndjson.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _admissions(demo):
    return {c.case.source_id: c for c in demo[0] if c.case.encounters[0].kind != "emergency"}


@pytest.mark.shared_data
def test_every_resource_of_the_demo_is_read(demo):
    cases, broken, log = demo
    counted = Counter()
    for file in (SHARED / "fhir").glob("*.ndjson.gz"):
        with gzip.open(file, "rt", encoding="utf-8") as text:
            counted.update(json.loads(line)["resourceType"] for line in text)
    assert broken == []
    assert log.read == counted
    assert len(cases) == 168 + 26
    assert len(_admissions(demo)) == 168


@pytest.mark.shared_data
def test_triage_acuity_against_the_raw_observations(demo):
    emergency = {r["id"]: r.get("partOf", {}).get("reference", "/")[10:] for r in raw("EncounterED")}
    levels = defaultdict(set)
    for row in raw("ObservationED"):
        if row["code"]["coding"][0]["code"] == "56839-4" and row.get("valueString"):
            stay = row["encounter"]["reference"][10:]
            levels[emergency[stay] or stay].add(row["valueString"])
    found = {c.case.source_id: c.truth["triage"].labels[0].coding.code for c in demo[0] if c.truth["triage"].labels}
    assert set(found) == set(levels)
    assert all(code in levels[key] for key, code in found.items())
    assert sum(key in _admissions(demo) for key in found) == 91


@pytest.mark.shared_data
def test_ranked_codes_against_the_raw_file(demo):
    emergency = {r["id"]: r.get("partOf", {}).get("reference", "/")[10:] for r in raw("EncounterED")}
    hospital, first = defaultdict(list), defaultdict(set)
    with gzip.open(SHARED / "condition_rank.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            place, key = int(row["seq_num"]), f"Condition/{row['condition_id']}"
            if row["module"] == "hosp":
                hospital[row["encounter_id"]].append((place, key))
            elif place == 1 and emergency[row["encounter_id"]]:
                first[emergency[row["encounter_id"]]].add(key)
    admissions = _admissions(demo)
    truth = {key: c.truth for key, c in admissions.items()}
    assert {k: [x.source_row for x in t["discharge_diagnosis"].labels] for k, t in truth.items()} == {
        k: [key for _, key in sorted(rows)] for k, rows in hospital.items()
    }
    told = {
        k: t["admission_diagnosis"].labels[0].source_row for k, t in truth.items() if t["admission_diagnosis"].labels
    }
    assert set(told) == set(first)
    assert all(key in first[k] for k, key in told.items())
    assert (len(truth), len(told), sum(bool(t["differential"].labels) for t in truth.values())) == (168, 100, 100)
    assert not any("mimic-diagnosis" in x.coding.system for t in truth.values() for s in t.values() for x in s.labels)


@pytest.mark.shared_data
def test_destinations_against_the_raw_encounters(demo):
    said = Counter(
        (r["hospitalization"].get("dischargeDisposition") or {"coding": [{"code": "missing"}]})["coding"][0]["code"]
        for r in raw("Encounter")
    )
    truth = [c.truth["disposition"] for c in _admissions(demo).values()]
    found = Counter(t.labels[0].coding.code if t.labels else t.absent_reason for t in truth)
    facility = said["SKILLED NURSING FACILITY"] + said["REHAB"] + said["CHRONIC/LONG TERM ACUTE CARE"]
    assert found == {
        "home": said["HOME"] + said["HOME HEALTH CARE"] + said["AGAINST ADVICE"],
        "facility": facility,
        "hospice": said["HOSPICE"],
        "other_hospital": said["ACUTE HOSPITAL"],
        "died in the stay": said["DIED"],
        "hospitalization.dischargeDisposition is missing": said["missing"],
    }
    assert sum(bool(t.labels) for t in truth) == 146


@pytest.mark.shared_data
def test_findings_of_the_emergency_department_against_the_raw_rows(demo):
    found = Counter(f.kind.value for c in demo[0] for f in c.case.findings)
    complaints = [r for r in raw("ObservationED") if r["code"]["coding"][0]["code"] == "8661-1"]
    assert found["complaint"] == len(complaints)
    assert found["medication_home"] == len(raw("MedicationStatementED"))
    rows = {f.note.split(" ")[0] for c in demo[0] for f in c.case.findings if f.kind.value == "vital"}
    assert {r["id"] for r in raw("ObservationVitalSignsED")} <= {key.removeprefix("Observation/") for key in rows}


@pytest.mark.shared_data
def test_cultures_of_the_demo_are_grouped_and_late(demo):
    tests = {f"Observation/{r['id']}": r for r in raw("ObservationMicroTest")}
    organisms = {f"Observation/{r['id']}" for r in raw("ObservationMicroOrg")}
    susceptible = {f"Observation/{r['id']}" for r in raw("ObservationMicroSusc")}
    found = [f for c in demo[0] for f in c.case.findings if f.note in tests]
    assert len({f.note for f in found}) > 900
    assert not any(f.note in organisms | susceptible for c in demo[0] for f in c.case.findings)
    assert all(f.available >= f.charted + 9 * 1440 for f in found)
    names = {f"Observation/{r['id']}": r["code"]["coding"][0]["display"] for r in raw("ObservationMicroOrg")}
    parts = {key: [names[m["reference"]] for m in row.get("hasMember", ())] for key, row in tests.items()}
    grown = [f for f in found if any(name != "CANCELLED" for name in parts[f.note])]
    cancelled = [f for f in found if set(parts[f.note]) == {"CANCELLED"}]
    assert grown
    assert cancelled
    assert not any("cancelled" in str(f.value).lower()[:20] for f in cancelled)
    assert all(isinstance(f.value, str) and f.result_in_source for f in grown)
    assert any("Resistant" in str(f.value) for f in grown)


@pytest.mark.shared_data
def test_clocks_of_the_demo(demo):
    anchors = [c.case.anchors for c in demo[0]]
    assert sum("ed_arrival" in a for a in anchors) == 101 + 26
    assert sum(a["admission"] > 0 for a in anchors) == 1  # the one admitted before the recorded arrival
    assert all(a["triage"] >= a["ed_arrival"] for a in anchors if "triage" in a)


def stays_of(demo):
    """Case by the id that the hospital gave the stay."""
    names = {r["id"]: r["identifier"][0]["value"] for r in raw("Encounter")}
    return {names[c.case.source_id]: c for c in demo[0] if c.case.source_id in names}


def labels(case, step):
    return {x.coding.code for x in case.truth[step].labels}


@pytest.mark.shared_data
def test_every_result_of_the_demo_is_of_its_episode(demo):
    late = ("laboratory", "microbiology", "imaging")
    unowned = {f"Observation/{r['id']}" for r in raw("ObservationLabevents") if "encounter" not in r}
    checked = 0
    for one in demo[0]:
        first = min(e.start for e in one.case.encounters)
        found = [f for f in one.case.findings if f.kind in late and f.note in unowned]
        assert all(f.charted >= first - LOOK_BACK for f in found)
        checked += len(found)
    assert checked > 5000


@pytest.mark.shared_data
def test_no_value_of_the_demo_is_masked_held_or_cancelled(demo):
    texts = [f.value for c in demo[0] for f in c.case.findings if isinstance(f.value, str)]
    wrong = [t for t in texts if not t.strip("_. ") or "(___)" in t or t.upper().startswith(("HOLD.", "TEST CANCEL"))]
    assert texts
    assert not wrong
    fluids = Counter(f.code.display for c in demo[0] for f in c.case.findings if f.code.code == "51492")
    assert set(fluids) == {"Protein, urine"}


@pytest.mark.shared_data
def test_dates_of_cultures_against_the_raw_rows(demo):
    by_day = {f"Observation/{r['id']}" for r in raw("ObservationMicroTest") if "T00:00:00" in r["effectiveDateTime"]}
    assert len(by_day) == 56
    found = stays_of(demo)["22429197"]
    screens = [f for f in found.case.findings if f.note in by_day]
    assert [f.pending_from for f in screens] == [920]
    assert "cultures" in labels(found, "workup")


@pytest.mark.shared_data
def test_orders_as_needed_and_never_begun_label_nothing(demo):
    stays = stays_of(demo)
    told = {d["authorizingPrescription"][0]["reference"]: d for d in raw("MedicationDispense")}
    needed = {k for k, d in told.items() if "PRN" in json.dumps(d.get("dosageInstruction", ""))}
    orders = [f for c in demo[0] for f in c.case.findings if f.note in needed]
    assert len(orders) > 2000
    assert all("PRN" in str(f.value) for f in orders)
    for key in ("27996267", "23300884"):
        assert "antipsychotics" not in labels(stays[key], "treatment")
    assert "diuretics" not in labels(stays["23559586"], "treatment")
    assert "antiplatelets" in labels(stays["24745425"], "treatment")  # what was cancelled does not come first


@pytest.mark.shared_data
def test_tests_of_an_unlinked_ed_are_not_new(demo):
    stays = stays_of(demo)
    for key in ("20291550", "25797028", "26275841", "27672872", "25177949"):
        first = min(e.start for e in stays[key].case.encounters)
        before = [f for f in stays[key].case.findings if f.kind == "laboratory" and f.charted < first]
        assert before
        assert not labels(stays[key], "workup") & {"blood_count", "basic_metabolic_panel"}
