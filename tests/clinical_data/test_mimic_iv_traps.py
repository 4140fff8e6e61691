"""The leakage traps of clinical.md as far as the tables of MIMIC-IV have them, each by its number.

Not here: 5 (FHIR), 8 and 17 (the chart's), 9 (few-shot pools are the search's), 10 (cohorts), 12 (eICU), 13 (Synthea).
"""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_mimic_iv import BEFORE, COLUMNS, LATER, MAIN, tables, write, write_tables

from clinical_data.case import FindingKind
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.clocks import clock_minute
from clinical_data.sources import ImportLog
from clinical_data.sources.mimic_iv import MimicIvSource
from clinical_data.sources.mimic_iv_tables import TABLES

CATALOGUE = load_catalogue()
NEVER_READ = ("procedures_icd", "drgcodes", "hcpcsevents", "poe_detail", "discharge", "datetimeevents")
_OWNER = {"subject_id": "10000001", "hadm_id": MAIN}


def read(folder):
    return {c.case.source_id: c for c in MimicIvSource().read(folder, ImportLog(lambda row: None))}


def altered(**rows):
    """Imports the record with some tables replaced."""
    with tempfile.TemporaryDirectory() as folder:
        return read(write_tables(Path(folder), {**tables(), **rows}))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return read(write(tmp_path_factory.mktemp("mimic")))


@pytest.fixture(scope="module")
def main(imported):
    return imported[MAIN].case


def test_trap_01_codes_of_the_same_stay_are_no_findings(imported, main):
    own = {label.coding.code for label in imported[MAIN].truth["discharge_diagnosis"].labels}
    assert own == {"A41.9", "J18.9"}
    assert not own & {f.code.code for f in main.findings}
    read_tables = {table.name for table in TABLES}
    assert not read_tables & set(NEVER_READ)
    left_out = {n: r for n, r in tables().items() if n not in NEVER_READ}
    with tempfile.TemporaryDirectory() as folder:
        assert read(write_tables(Path(folder), left_out)) == imported


def test_trap_02_no_discharge_note_is_read(main):
    assert not [f for f in main.findings if "Discharge Diagnosis" in str(f.value)]
    assert {f.note.split()[1] for f in main.findings if f.kind is FindingKind.IMAGING and f.value} == {
        "10000001-RR-1", "10000001-RR-2",
    }  # fmt: skip


def test_trap_03_procedures_with_a_date_only(main):
    assert not [f for f in main.findings if f.note.startswith("procedures_icd")]
    (urine,) = [f for f in main.findings if f.code.code == "90039"]  # a culture with dates only: the ends of its days
    assert (urine.charted, urine.available) == (2160, 3600)
    (egfr,) = [f for f in main.findings if f.code.code == "eGFR"]
    assert egfr.available == 720  # midnight after the morning of admission


def test_trap_04_charted_time_used_as_result_time(main):
    drawn, stored = -150, -78  # creatinine
    for clock, state in (
        (drawn, AnswerState.PENDING),
        (stored - 1, AnswerState.PENDING),
        (stored, AnswerState.RECORDED),
    ):
        assert open_chart(main, clock, CATALOGUE).request("basic_metabolic_panel").state is state
    (troponin,) = [f for f in main.findings if f.code.code == "51003"]  # no storetime
    assert troponin.available - troponin.charted == 240


def test_trap_06_labs_without_an_admission_id(imported):
    lactate = [(f.note, f.charted) for f in imported[MAIN].case.findings if f.code.code == "50813"]
    assert ("labevents 3", -10) in lactate  # between arrival in the emergency department and discharge
    everywhere = {f.note for labelled in imported.values() for f in labelled.case.findings}
    assert not everywhere & {"labevents 7", "labevents 8"}  # more than a day before arrival, after discharge
    assert "radiology 10000001-RR-1" in {f.note for f in imported[MAIN].case.findings}


def test_trap_06_a_row_without_admission_id_belongs_to_one_of_two_stays_that_overlap():
    stays = tables()["admissions"]
    stays[0] = {**stays[0], "admittime": "2150-03-08 08:00:00", "dischtime": "2150-03-12 10:00:00"}
    found = altered(admissions=stays)
    owners = [i for i, c in found.items() for f in c.case.findings if f.note == "labevents 3"]
    assert owners == [MAIN]


def alone(key, time, table="labevents"):
    """A row of patient 1 without admission id."""
    row = {"subject_id": "10000001", "charttime": time, "storetime": time}
    if table == "labevents":
        return {**row, "labevent_id": key, "itemid": "50813", "value": "5", "valuenum": "5"}
    return {**row, "microevent_id": key, "micro_specimen_id": key, "test_itemid": "90201", "test_seq": "1",
            "comments": "NO GROWTH."}  # fmt: skip


def owners_of(rows, table="labevents", **more):
    """(key, admission) of each of the rows in the imported cases."""
    keys = {f"{table} {row['labevent_id' if table == 'labevents' else 'microevent_id']}" for row in rows}
    found = altered(**{table: [*tables()[table], *rows]}, **more)
    return sorted((f.note.split()[1], i) for i, c in found.items() for f in c.case.findings if f.note in keys)


@pytest.mark.parametrize("table", ["labevents", "microbiologyevents"])
def test_trap_06_a_row_of_the_day_before_a_stay_belongs_to_it(table):
    # The main stay begins with the arrival in the emergency department, 2150-03-10 09:00.
    times = {"101": "2150-03-09 08:59:00", "102": "2150-03-09 09:00:00", "103": "2150-03-10 08:59:00"}
    rows = [alone(key, time, table) for key, time in times.items()]
    assert owners_of(rows, table) == [("102", MAIN), ("103", MAIN)]


def test_trap_06_a_row_in_one_stay_belongs_to_no_other_that_begins_within_a_day():
    stays = tables()["admissions"]
    stays[0] = {**stays[0], "admittime": "2150-03-08 08:00:00", "dischtime": "2150-03-10 02:00:00"}
    times = {"101": "2150-03-10 01:00:00", "102": "2150-03-10 02:00:00", "103": "2150-03-10 02:01:00",
             "104": "2150-03-07 09:00:00"}  # fmt: skip
    rows = [alone(key, time) for key, time in times.items()]
    found = owners_of(rows, admissions=stays)
    assert found == [("101", BEFORE), ("102", BEFORE), ("103", MAIN), ("104", BEFORE)]


def test_trap_06_a_report_of_the_day_before_is_no_part_of_a_stay():
    early = {**tables()["radiology"][0], "note_id": "10000001-RR-0", "charttime": "2150-03-10 08:00:00"}
    found = altered(radiology=[*tables()["radiology"], early])
    assert "radiology 10000001-RR-0" not in {f.note for c in found.values() for f in c.case.findings}


def test_trap_07_facts_of_later_admissions(imported):
    kept = [r for r in tables()["admissions"] if r["hadm_id"] != LATER]
    rest = {n: [r for r in tables()[n] if r.get("hadm_id") != LATER] for n in ("labevents", "diagnoses_icd")}
    found = altered(admissions=kept, **rest)
    assert {i: c for i, c in imported.items() if i != LATER} == found
    earlier = [f for f in imported[LATER].case.findings if f.kind is FindingKind.HISTORY]
    assert {f.code.code for f in earlier} == {"I50.22", "A41.9", "J18.9", "prior_admission"}
    assert all(f.available < 0 for f in earlier)
    assert not [f for f in imported[BEFORE].case.findings if f.kind is FindingKind.HISTORY]
    # An earlier stay that is still open gives its codes only when it ends.
    stays = tables()["admissions"]
    stays[0] = {**stays[0], "dischtime": "2150-03-10 18:00:00"}
    history = [f for f in altered(admissions=stays)[MAIN].case.findings if f.code.code in ("I50.22", "prior_admission")]
    assert [f.available for f in history] == [360, 360]


def test_trap_11_a_diagnosis_of_the_stay_is_neither_complaint_nor_history(main):
    assert [f.code.code for f in main.findings if f.kind is FindingKind.COMPLAINT] == ["8661-1"]
    assert {f.code.code for f in main.findings if f.kind is FindingKind.HISTORY} == {
        "I50.22", "prior_admission", "225059",
    }  # fmt: skip


FUTURE = {
    "admissions": ("deathtime", "admission_type", "discharge_location", "hospital_expire_flag"),
    "patients": ("dod",),
    "prescriptions": ("stoptime",),
    "pharmacy": ("stoptime", "status"),
    "poe": ("order_status",),
    "transfers": ("outtime",),
    "icustays": ("last_careunit", "outtime", "los"),
    "inputevents": ("endtime", "amount", "statusdescription"),
    "procedureevents": ("endtime", "value", "statusdescription"),
    "edstays": ("disposition",),
    "triage": ("acuity",),
}


@pytest.mark.parametrize("table", FUTURE)
def test_trap_14_future_columns(imported, table):
    # A stop that is no time, and one before anything began.
    for told in ("1", "2150-01-01 00:00:00") if table == "prescriptions" else ("1",):
        found = altered(**{table: [{**row, **dict.fromkeys(FUTURE[table], told)} for row in tables()[table]]})
        assert {i: c.case for i, c in found.items()} == {i: c.case for i, c in imported.items()}


@pytest.mark.parametrize(
    ("stopped", "counts"),
    [("2150-03-11 17:59:00", False), ("2150-03-11 18:00:00", False), ("2150-03-11 18:01:00", True), ("", True)],
)
def test_trap_14_an_order_taken_back_before_it_began_is_left_out_of_the_label_alone(imported, stopped, counts):
    order = {**_OWNER, "pharmacy_id": "49", "starttime": "2150-03-11 18:00:00", "stoptime": stopped,
             "drug_type": "MAIN", "drug": "Bumetanide", "route": "IV"}  # fmt: skip
    found = altered(prescriptions=[*tables()["prescriptions"], order])[MAIN]
    assert "diuretics" not in {x.coding.code for x in imported[MAIN].truth["treatment"].labels}
    assert ("diuretics" in {x.coding.code for x in found.truth["treatment"].labels}) is counts
    assert "Bumetanide" in {f.code.display for f in found.case.findings}


def test_trap_14_an_order_of_several_rows_is_taken_back_only_as_a_whole():
    order = {**_OWNER, "pharmacy_id": "49", "starttime": "2150-03-11 18:00:00", "stoptime": "2150-03-11 17:00:00",
             "drug_type": "MAIN", "drug": "Bumetanide", "route": "IV"}  # fmt: skip
    again = {**order, "starttime": "2150-03-11 19:00:00", "stoptime": "2150-03-12 17:00:00"}
    found = altered(prescriptions=[*tables()["prescriptions"], order, again])[MAIN]
    assert "diuretics" in {x.coding.code for x in found.truth["treatment"].labels}


@pytest.mark.parametrize(
    "said",
    [{"comments": "TEST CANCELLED, PATIENT CREDITED."}, {"comments": "CANCELLED"}, {"org_name": "CANCELLED"},
     {"comments": "Test cancelled by laboratory.  PATIENT CREDITED.  This is a low yield procedure."}],
)  # fmt: skip
def test_a_cancelled_culture_has_no_result(said):
    row = {**alone("101", "2150-03-10 10:00:00", "microbiologyevents"), "comments": "", **said}
    case = altered(microbiologyevents=[row])[MAIN].case
    (found,) = [f for f in case.findings if f.note == "microbiologyevents 101"]
    assert (found.value, found.result_in_source) == (None, False)
    state = open_chart(case, 5000, CATALOGUE).request("cultures").state
    assert state is AnswerState.DONE_RESULT_NOT_IN_SOURCE


def test_trap_14_every_future_column_exists_in_the_record():
    for table, columns in FUTURE.items():
        assert set(columns) <= set(COLUMNS[table][1].split(","))


def test_trap_15_orders_units_and_services_are_treatments(main):
    hidden = ("prescriptions", "inputevents", "transfers", "services", "pyxis")
    found = [f for f in main.findings if f.note.split()[0] in hidden]
    assert {f.note.split()[0] for f in found} == set(hidden)
    assert {f.kind for f in found} == {FindingKind.TREATMENT}
    chart = open_chart(main, main.anchors["end_of_stay"], CATALOGUE)
    answered = {f.finding_id for item in CATALOGUE.offered("all", ()) for f in chart.request(item).findings}
    assert not answered & {f.finding_id for f in found}


def test_trap_16_no_clock_comes_from_a_truth_row(imported):
    emptied = {"diagnoses_icd": [], "diagnosis": [], "triage": [{**r, "acuity": ""} for r in tables()["triage"]]}
    found = altered(**emptied)
    for key, labelled in imported.items():
        now = found[key]
        for step in labelled.truth:
            assert clock_minute(now.case, step) == clock_minute(labelled.case, step)
        assert now.case.anchors == labelled.case.anchors
    assert found[MAIN].truth["triage"].absent_reason == "the ED stay has no usable row in ed/triage"
    assert found[MAIN].truth["discharge_diagnosis"].absent_reason == "no diagnosis recorded"


def _later_rows(clock):
    """Rows of the main admission that become known after 12:00 plus `clock` minutes, whenever they were begun."""
    late = st.integers(clock + 1, 5000).map(_time)
    early = st.integers(-170, clock).map(_time)
    lab = st.fixed_dictionaries(
        {"charttime": early, "storetime": late, "itemid": st.sampled_from(["50912", "50813", "51003"]),
         "value": st.just("9.9"), "valuenum": st.just("9.9"), "hadm_id": st.sampled_from([MAIN, ""])}
    )  # fmt: skip
    culture = st.fixed_dictionaries(
        {"charttime": early, "storetime": late, "micro_specimen_id": st.sampled_from(["71", "79"]),
         "test_itemid": st.just("90201"), "test_seq": st.just("1"), "org_name": st.just("STAPH AUREUS COAG +")}
    )  # fmt: skip
    order = st.fixed_dictionaries(
        {"starttime": late, "drug": st.sampled_from(["CefTRIAXone", "Heparin"]), "drug_type": st.just("MAIN"),
         "pharmacy_id": st.sampled_from(["41", "49"]), "formulary_drug_cd": st.just("CEFX1F"), "route": st.just("SC")}
    )  # fmt: skip
    seen_late = st.fixed_dictionaries(
        {"charttime": early, "storetime": late, "itemid": st.sampled_from(["220045", "226104"]), "value": st.just("77"),
         "valuenum": st.just("77"), "stay_id": st.just("31000002")}
    )  # fmt: skip
    infusion = st.fixed_dictionaries(
        {"starttime": early, "storetime": late, "itemid": st.just("221906"), "orderid": st.sampled_from(["81", "89"]),
         "stay_id": st.just("31000002"), "ordercategorydescription": st.just("Drug Push")}
    )  # fmt: skip
    return st.fixed_dictionaries(
        {"labevents": st.lists(lab, max_size=4), "microbiologyevents": st.lists(culture, max_size=3),
         "prescriptions": st.lists(order, max_size=3), "chartevents": st.lists(seen_late, max_size=3),
         "inputevents": st.lists(infusion, max_size=2)}
    )  # fmt: skip


def _time(minute):
    hours, rest = divmod(12 * 60 + minute, 60)
    return f"2150-03-{10 + hours // 24:02d} {hours % 24:02d}:{rest:02d}:00"


@settings(max_examples=6, deadline=None)
@given(data=st.data(), clock=st.sampled_from([480, 1440, 2200]))
def test_no_row_that_becomes_known_later_changes_what_a_step_sees(imported, data, clock):
    added = data.draw(_later_rows(clock))
    drop = data.draw(st.booleans())
    rows = {}
    for table, extra in added.items():
        own = [r for r in tables()[table] if not (drop and r.get("storetime", r.get("starttime", "")) > _time(clock))]
        keys = [{"labevent_id": str(100 + n), "microevent_id": str(100 + n)} for n in range(len(extra))]
        rows[table] = [*own, *({**_OWNER, **key, **row} for key, row in zip(keys, extra, strict=True))]
    known = [
        json.dumps([asdict(f) for f in open_chart(case, clock, CATALOGUE).known()])
        for case in (imported[MAIN].case, altered(**rows)[MAIN].case)
    ]
    assert known[0] == known[1]
