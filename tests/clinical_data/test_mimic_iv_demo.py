"""The MIMIC-IV importer on the whole demo folder (hosp and icu), against counts of the raw files with plain csv."""

import csv
import gzip
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from clinical_data.case import FindingKind
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.codes import ICD9_CM, ICD10_CM
from clinical_data.sources import ImportLog
from clinical_data.sources.mimic_iv import MimicIvSource

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mimic-iv-demo"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the MIMIC-IV demo is not beside the project"),
]


@pytest.fixture(scope="module")
def imported():
    quarantined = []
    log = ImportLog(quarantined.append)
    cases = {c.case.source_id: c for c in MimicIvSource().read(FOLDER, log)}
    assert quarantined == []
    return cases, log


@pytest.fixture(scope="module")
def cases(imported):
    return imported[0]


def raw(name):
    with gzip.open(FOLDER / f"{name}.csv.gz", "rt", newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def stays():
    """subject_id -> (arrival or admission, discharge, hadm_id) of each admission."""
    found = defaultdict(list)
    for row in raw("hosp/admissions"):
        opened = min(row["admittime"], row["edregtime"] or row["admittime"])
        found[row["subject_id"]].append((opened, row["dischtime"], row["hadm_id"]))
    return found


def owner_of(stays, time):
    """The admission of a row without its id: that in which it lies, else the next that begins within a day."""
    held = [h for opened, end, h in stays if opened <= time <= end]
    within = str(datetime.fromisoformat(time) + timedelta(days=1))
    return held[-1] if held else next((h for opened, _, h in sorted(stays) if time < opened <= within), None)


def from_table(cases, table):
    return Counter({key: sum(f.note.split()[0] == table for f in c.case.findings) for key, c in cases.items()})


def test_every_admission_is_a_case(cases):
    admissions = {row["hadm_id"]: row for row in raw("hosp/admissions")}
    assert set(cases) == set(admissions)
    assert len(cases) == 168
    assert len({c.case.patient.source_id for c in cases.values()}) == 70
    for key, row in admissions.items():
        stay = datetime.fromisoformat(row["dischtime"]) - datetime.fromisoformat(row["admittime"])
        assert cases[key].case.anchors["end_of_stay"] == stay.total_seconds() // 60
        assert ("ed_arrival" in cases[key].case.anchors) == bool(row["edregtime"])
    assert sum("ed_arrival" in c.case.anchors for c in cases.values()) == 108


def test_every_laboratory_row_is_a_finding_of_its_stay(imported):
    cases, log = imported
    of, by_id, by_time, alone, held = stays(), Counter(), Counter(), 0, 0
    for row in raw("hosp/labevents"):
        said = row["value"].strip("_. ") or row["comments"].strip("_. ") * (row["valuenum"] == "")
        own = owner_of(of[row["subject_id"]], row["charttime"])
        if not row["hadm_id"] and not own:
            alone += 1
        elif said.upper().startswith("HOLD"):
            held += 1
        else:
            (by_id if row["hadm_id"] else by_time)[row["hadm_id"] or own] += 1
    assert (by_id.total(), by_time.total(), alone, held) == (52471, 5326, 12437, 280)  # of 70,514 rows
    assert from_table(cases, "labevents") == by_id + by_time
    assert log.unused["labevents: belongs to no case"] == alone
    assert log.unused["labevents: no finding for the chart"] == held


def test_every_culture_report_is_a_finding(cases):
    of, reports = stays(), set()
    for row in raw("hosp/microbiologyevents"):
        taken = row["charttime"] or str(datetime.fromisoformat(row["chartdate"]) + timedelta(days=1))
        own = owner_of(of[row["subject_id"]], taken)
        if row["hadm_id"] or own:
            owner = row["hadm_id"] or own
            reports.add((owner, row["micro_specimen_id"], row["test_seq"], row["storetime"] or row["storedate"]))
    found = [f for c in cases.values() for f in c.case.findings if f.note.startswith("microbiologyevents")]
    assert len(found) == len(reports)
    grown = [f for f in found if "escherichia coli" in str(f.value)]
    assert grown
    assert all(f.available > f.charted for f in grown)


def test_every_order_is_a_treatment(cases):
    containers = ("Bag", "Vial", "Soln", "Soln.", "Syringe", "Syringe (Chemo)")
    expected = Counter(
        r["hadm_id"]
        for r in raw("hosp/prescriptions")
        if r["drug"] not in containers and "CADD" not in r["drug"] and "Click" not in r["drug"]
    )
    assert +from_table(cases, "prescriptions") == expected
    found = [f for c in cases.values() for f in c.case.findings if f.note.startswith("prescriptions")]
    assert {f.kind for f in found} == {FindingKind.TREATMENT}
    entered = {r["pharmacy_id"]: r["entertime"] for r in raw("hosp/pharmacy")}
    late = sum(entered[r["pharmacy_id"]] > r["starttime"] for r in raw("hosp/prescriptions"))
    assert late > 0
    assert sum(f.available > f.charted for f in found) <= late


def test_truth_as_counted_in_the_raw_files(cases):
    covered = Counter(step for c in cases.values() for step, truth in c.truth.items() if truth.labels)
    went = Counter(r["discharge_location"] for r in raw("hosp/admissions"))
    alive = went.total() - went["DIED"] - went[""]
    assert covered["disposition"] == alive == 146
    labels = Counter(label.coding.code for c in cases.values() for label in c.truth["disposition"].labels)
    assert labels == {
        "home": went["HOME"] + went["HOME HEALTH CARE"] + went["AGAINST ADVICE"],
        "facility": went["SKILLED NURSING FACILITY"] + went["REHAB"] + went["CHRONIC/LONG TERM ACUTE CARE"],
        "hospice": went["HOSPICE"],
        "other_hospital": went["ACUTE HOSPITAL"],
    }
    coded = Counter(r["hadm_id"] for r in raw("hosp/diagnoses_icd"))
    assert covered["discharge_diagnosis"] == len(coded) == 168
    assert {k: len(c.truth["discharge_diagnosis"].labels) for k, c in cases.items()} == coded
    systems = Counter(c.truth["discharge_diagnosis"].labels[0].coding.system for c in cases.values())
    assert systems == {ICD9_CM: 101, ICD10_CM: 67}
    for step in ("triage", "admission_diagnosis", "differential"):
        table = "triage" if step == "triage" else "diagnosis"
        assert {c.truth[step].absent_reason for c in cases.values()} == {f"the ED module (ed/{table}) is not there"}


def test_workup_and_treatment_lie_in_their_windows(cases):
    covered = Counter()
    for labelled in cases.values():
        admission = labelled.case.anchors["admission"]
        for step, start in (("workup", 8 * 60), ("treatment", 24 * 60)):
            for label in labelled.truth[step].labels:
                assert admission + start < label.entered <= admission + start + 24 * 60
            covered[step] += bool(labelled.truth[step].labels)
    # At most the admissions with any first test (order) of its kind in the window, counted apart: 136 and 139.
    assert 90 <= covered["workup"] <= 136
    assert 50 <= covered["treatment"] <= 139


def test_own_codes_never_appear_before_the_end(cases):
    """Trap 1: a diagnosis that a case shows was coded for an earlier stay."""
    history = 0
    for labelled in cases.values():
        for finding in labelled.case.findings:
            if finding.note.startswith("diagnoses_icd"):
                history += 1
                assert finding.kind is FindingKind.HISTORY
                assert finding.available <= 0
    assert history > 3000


def test_metabolic_panel_at_the_clocks(cases):
    """Of 97 admissions through the ED, 88 had results by admission and 95 by eight hours (clinical_data.md B)."""
    item = next(i for i in load_catalogue().items if i.item_id == "basic_metabolic_panel")
    arrived = [c.case for c in cases.values() if c.case.anchors.get("ed_arrival", 0) < 0]
    catalogue = load_catalogue()
    states = {
        clock: sum(open_chart(c, clock, catalogue).request(item).state is AnswerState.RECORDED for c in arrived)
        for clock in (0, 480)
    }
    assert len(arrived) == 107
    assert 80 <= states[0] < states[480] <= 107
