"""The MEDS importer on a small hand-written data set, and what its codes mean."""

import json
from datetime import datetime, timedelta

import pytest
from records_meds import (
    BEFORE,
    CANARY,
    COLUMNS,
    DIED,
    MAIN,
    OPEN,
    PLANTED,
    event,
    shards,
    write,
    write_data,
    write_parquet,
)

from clinical_data.case import FindingKind
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.clocks import CULTURE_LAG, LAB_LAG
from clinical_data.codes import ICD9_CM, ICD10_CM, LOINC
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Strength
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.meds import MedsSource
from clinical_data.sources.meds_codes import DIAGNOSIS, FINDING, UNUSED, meaning_of
from clinical_data.sources.mimic_findings import BEDSIDE_LAG, ITEMS, LABS

HOUR, DAY = 60, 24 * 60


def read(folder, **job):
    quarantined = []
    log = ImportLog(quarantined.append)
    cases = {c.case.source_id: c for c in MedsSource().read(folder, log, ImportJob(**job))}
    return cases, quarantined, log


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return read(write(tmp_path_factory.mktemp("meds") / "record"))


@pytest.fixture
def main(imported):
    return imported[0][str(MAIN)]


def of_code(case, start):
    return [f for f in case.case.findings if f.note.startswith(start)]


def stay(subject, begin, end, *, how="HOME"):
    """An admission without hadm_id."""
    return [
        event(subject, begin, "HOSPITAL_ADMISSION//URGENT//UNK"),
        event(subject, end, f"HOSPITAL_DISCHARGE//{how}"),
    ]


@pytest.mark.parametrize(
    ("code", "kind", "system", "item", "unit", "lag"),
    [
        ("LAB//50971//mEq/L", FindingKind.LABORATORY, LABS, "50971", "mEq/L", LAB_LAG),
        ("LAB//RESULT//50971//UNK", FindingKind.LABORATORY, LABS, "50971", "", 0),
        ("LAB//SPECIMEN_COLLECTED//50971", FindingKind.LABORATORY, LABS, "50971", "", CULTURE_LAG),
        ("LAB//220045//bpm", FindingKind.VITAL, ITEMS, "220045", "/min", BEDSIDE_LAG),
        ("LAB//sodium//mEq/L", FindingKind.LABORATORY, "wardstar:meds/code", "sodium", "mEq/L", LAB_LAG),
        ("LOINC/2160-0", FindingKind.LABORATORY, LOINC, "2160-0", "", LAB_LAG),
        ("LOINC/8867-4", FindingKind.VITAL, LOINC, "8867-4", "", BEDSIDE_LAG),
        ("Blood Pressure", FindingKind.VITAL, "wardstar:mimic-iv/omr", "Blood Pressure", "", 0),
        ("SUBJECT_FLUID_OUTPUT//226559//ml", FindingKind.VITAL, ITEMS, "226559", "mL", BEDSIDE_LAG),
    ],
)
def test_what_a_code_means(code, kind, system, item, unit, lag):
    told = meaning_of(code)
    assert (told.use, told.kind, told.system, told.code, told.unit, told.lag) == (
        FINDING,
        kind,
        system,
        item,
        unit,
        lag,
    )


@pytest.mark.parametrize(
    ("code", "system", "item"),
    [
        ("DIAGNOSIS//ICD//10//I50.9", ICD10_CM, "I50.9"),
        ("DIAGNOSIS//ICD//9//4280", ICD9_CM, "4280"),
        ("ICD10CM/I50.9", ICD10_CM, "I50.9"),
    ],
)
def test_a_diagnosis_is_no_finding_of_its_own_stay(code, system, item):
    told = meaning_of(code)
    assert (told.use, told.system, told.code) == (DIAGNOSIS, system, item)
    assert meaning_of("dx_17", "x", ["ICD10CM/I50.9"]).use == DIAGNOSIS


@pytest.mark.parametrize(
    "code",
    ["DRG//HCFA//871//SEPSIS", "HCPCS//x", "PROCEDURE//ICD//10//5A1945Z", "PROCEDURE//END//225792", "MEDS_DEATH",
     "ICU_DISCHARGE//MICU", "INFUSION_END//221906", "MEDICATION//STOP//Aspirin", "MEDICATION//Aspirin//Not Given",
     "LAB//226543//UNK", "TRANSFER_TO//discharge//UNKNOWN", "RACE//WHITE", "DIAGNOSIS//SNOMED//1", "unheard of"],
)  # fmt: skip
def test_codes_that_are_never_shown(code):
    told = meaning_of(code)
    assert told.use == UNUSED
    assert told.reason


def test_every_admission_is_a_case(imported):
    cases, _, log = imported
    assert list(cases) == [str(BEFORE), str(MAIN), str(DIED), str(OPEN)]
    total = sum(len(events) for events in shards().values())
    assert log.read["events"] == total - 3  # three events are broken


def test_who_when_and_where(main, imported):
    case = main.case
    assert (case.age, case.patient.sex, case.patient.source_id) == (65, "female", "1")
    assert case.anchors == {"admission": 0, "ed_arrival": -180, "ed_departure": 60, "end_of_stay": 5970}
    assert [(e.encounter_id, e.kind, e.start, e.end) for e in case.encounters] == [
        ("22", "inpatient", 0, 5970), ("22-ed", "emergency", -180, 60), ("32", "icu", 1620, None),
    ]  # fmt: skip
    assert case.context == {"admission_source": "EMERGENCY ROOM"}
    assert case.attributes == {"dataset": "MIMIC-IV 2.2", "meds_split": "train"}
    assert imported[0][str(DIED)].case.age == 90
    assert imported[0][str(DIED)].case.anchors["admission"] == 210  # admitted before ED arrival: ED departure
    assert imported[0][str(OPEN)].case.anchors == {"admission": 0}


def test_one_time_per_event_follows_the_lag_of_its_kind(main):
    """Trap 4: a collection time is no result time."""
    (result,) = of_code(main, "LAB//RESULT//50912")
    assert (result.value, result.unit, result.charted, result.available) == (2.1, "mg/dL", -79, -78)
    (plain,) = of_code(main, "LAB//50813")
    assert (plain.value, plain.pending_from, plain.available) == (4.2, -70, -70 + 4 * HOUR)
    (pulse,) = of_code(main, "LAB//220045")  # written twice, one fact
    assert pulse.available == 1630 + BEDSIDE_LAG
    (culture,) = of_code(main, "MICROBIOLOGY")
    assert culture.available == culture.charted + 9 * DAY
    (below,) = of_code(main, "LAB//RESULT//51003")
    assert (below.value, below.unit) == ("<0.01", "ng/mL")


def test_a_specimen_is_pending_until_its_result_is_there(main):
    catalogue = load_catalogue()
    item = "basic metabolic panel"
    assert open_chart(main.case, -160, catalogue).request(item).state is AnswerState.NOT_DONE_BY_NOW
    assert open_chart(main.case, -100, catalogue).request(item).state is AnswerState.PENDING
    assert [f.value for f in open_chart(main.case, 0, catalogue).request(item).findings] == [2.1]


def test_events_without_admission_id_belong_to_the_stay_in_whose_time_they_lie(main):
    """Trap 6; the creatinine of 08:59, a minute before ED arrival, belongs to none."""
    assert [f.value for f in main.case.findings if f.code.code == "50912"] == [2.1, None]
    assert of_code(main, "SUBJECT_WEIGHT")[0].value == 81.5


def test_what_has_only_a_day_counts_from_its_end(main):
    """Trap 3."""
    (weight,) = of_code(main, "Weight (Lbs)")
    assert (weight.value, weight.charted, weight.available) == ("180", 720, 720)
    orders = {f.code.code: f for f in of_code(main, "MEDICATION//START")}
    assert (orders["CefTRIAXone"].available, orders["CefTRIAXone"].value) == (120, "IV Q24H")
    assert orders["Vancomycin"].available == 36 * HOUR  # midnight: the pharmacy gave a day


def test_treatments_and_tests_that_were_done(main):
    kinds = {f.code.code: f.kind for f in main.case.findings}
    for code in ("Furosemide", "221906", "225792", "Medicine", "CefTRIAXone"):
        assert kinds[code] is FindingKind.TREATMENT
    assert kinds["225402"] is FindingKind.IMAGING
    assert "Heparin" not in kinds


def test_earlier_admissions_are_known_from_their_end(imported, main):
    """Trap 7."""
    history = [f for f in main.case.findings if f.kind is FindingKind.HISTORY]
    assert {(f.code.code, f.value, f.available) for f in history} == {
        ("prior_admission", "stayed 4 days", -401880), ("I50.22", "recorded", -401880),
    }  # fmt: skip
    assert not imported[0][str(BEFORE)].case.findings


def test_truth_of_the_steps(imported, main):
    (label,) = main.truth["discharge_diagnosis"].labels  # one code only: it is the principal one
    assert (label.coding.system, label.coding.code, label.strength) == (ICD10_CM, "A41.9", Strength.RECORDED_LATER)
    assert [x.coding.code for x in main.truth["disposition"].labels] == ["facility"]
    treated = {x.coding.code for x in main.truth["treatment"].labels}
    assert {"vasopressors_inotropes", "mechanical_ventilation", "intensive_care"} == treated
    for step in ("triage", "admission_diagnosis", "differential", "result_update"):
        assert main.truth[step].absent_reason
    died, still = imported[0][str(DIED)].truth, imported[0][str(OPEN)].truth
    assert died["disposition"].absent_reason == "died in hospital"
    assert "no order" in died["discharge_diagnosis"].absent_reason
    assert still["disposition"].absent_reason == "the record has no end of the stay"


@pytest.mark.parametrize("column", ["seq_num", "priority"])
def test_an_order_of_diagnoses_makes_the_principal_one_known(tmp_path, column):
    end = "2150-01-02 00:00:00"
    events = [
        *stay(1, "2150-01-01 00:00:00", end),
        event(1, end, "DIAGNOSIS//ICD//10//J189", **{column: "2"}),
        event(1, end, "DIAGNOSIS//ICD//10//A419", **{column: "1"}),
        event(1, "2150-01-01 10:00:00", "LAB//RESULT//50912//mg/dL", 1.0, **{column: "STAT"}),
    ]
    cases, quarantined, _ = read(write_data(tmp_path / "x", {"0": events}, {**COLUMNS, column: "VARCHAR"}))
    labels = cases["1-1"].truth["discharge_diagnosis"].labels
    assert [(x.coding.code, x.rank) for x in labels] == [("A41.9", 1), ("J18.9", 2)]
    assert not quarantined


def test_without_admission_ids_a_stay_ends_with_the_next_discharge(tmp_path):
    """The names count from the first admission, so that later ones change none."""
    columns = {k: v for k, v in COLUMNS.items() if k not in ("hadm_id", "icustay_id")}
    events = [
        *stay(7, "2150-01-01 10:00:00", "2150-01-03 10:00:00"),
        event(7, "2150-01-02 10:00:00", "LAB//RESULT//50912//mg/dL", 1.0),
        *stay(7, "2150-02-01 10:00:00", "2150-02-03 10:00:00", how="REHAB"),
        event(7, "2150-02-01 11:00:00", "LAB//RESULT//50912//mg/dL", 2.0),
    ]
    cases, _, _ = read(write_data(tmp_path / "two", {"0": events}, columns))
    assert {k: c.case.anchors["end_of_stay"] for k, c in cases.items()} == {"7-1": 2880, "7-2": 2880}
    assert [f.value for f in cases["7-2"].case.findings if f.kind is FindingKind.LABORATORY] == [2.0]
    assert [x.coding.code for x in cases["7-2"].truth["disposition"].labels] == ["facility"]
    first, _, _ = read(write_data(tmp_path / "one", {"0": events[:3]}, columns))
    assert first == {"7-1": cases["7-1"]}


def test_admissions_that_cannot_be_are_quarantined(tmp_path):
    events = [
        event(1, "2150-01-05 10:00:00", "HOSPITAL_ADMISSION//URGENT//UNK", hadm_id=5),
        event(1, "2150-01-03 10:00:00", "HOSPITAL_DISCHARGE//HOME", hadm_id=5),
        event(1, "2151-01-05 10:00:00", "HOSPITAL_ADMISSION//URGENT//UNK", hadm_id=6),
        event(2, "2151-01-05 10:00:00", "HOSPITAL_ADMISSION//URGENT//UNK", hadm_id=6),
    ]
    cases, quarantined, _ = read(write_data(tmp_path / "x", {"0": events}))
    assert [(c.case.source_id, c.case.patient.source_id) for c in cases.values()] == [("6", "1")]
    assert [(q.reason, q.resource) for q in quarantined] == [
        ("discharge before admission", "admission 5 of subject 1"),
        ("the admission id belongs to two patients", "admission 6 of subject 2"),
    ]


def test_broken_events_are_quarantined_with_file_and_number(imported):
    _, quarantined, _ = imported
    assert [(q.file, q.line, q.reason) for q in quarantined] == [
        ("data/held_out/0.parquet", 10, "subject_id is empty"),
        ("data/held_out/0.parquet", 11, "time is no time that can be"),
        ("data/held_out/0.parquet", 12, "code is empty"),
    ]


def test_broken_shards_are_quarantined_and_the_rest_is_imported(imported, tmp_path):
    folder = write(tmp_path / "record")
    data = folder / "data" / "train"
    whole = (data / "0.parquet").read_bytes()
    (data / "1.parquet").write_bytes(whole[: len(whole) // 2])
    (data / "2.parquet").write_bytes(b"")
    (data / "3.parquet").write_text(PLANTED)
    write_parquet(data / "4.parquet", [], {k: v for k, v in COLUMNS.items() if k != "code"})
    write_parquet(data / "5.parquet", [], {**COLUMNS, "subject_id": "VARCHAR"})
    write_parquet(data / "6.parquet", [], {**COLUMNS, "time": "VARCHAR"})
    write_parquet(data / "7.parquet", [], {**COLUMNS, "numeric_value": "VARCHAR"})
    cases, quarantined, _ = read(folder)
    assert cases == imported[0]
    told = {q.file.rpartition("/")[2]: q.reason for q in quarantined if q.line is None}
    assert set(told) == {f"{n}.parquet" for n in range(1, 8)}
    assert told["4.parquet"] == "column code is missing"
    assert told["5.parquet"] == "column subject_id is not of its type"
    assert told["6.parquet"] == "column time is not of its type"
    assert told["7.parquet"] == "column numeric_value is not of its type"
    assert PLANTED not in repr(quarantined)


def test_broken_metadata_does_not_stop_the_import(tmp_path):
    folder = write(tmp_path / "record")
    (folder / "metadata" / "codes.parquet").write_bytes(b"PAR1")
    (folder / "metadata" / "dataset.json").write_text("[")
    (folder / "metadata" / "subject_splits.parquet").unlink()
    cases, quarantined, _ = read(folder)
    assert cases[str(MAIN)].case.attributes == {}
    assert {"metadata/codes.parquet", "metadata/dataset.json"} <= {q.file for q in quarantined}


def test_a_folder_without_a_readable_shard_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(BadInputError, match="no shard"):
        read(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.parquet").write_bytes(b"")
    with pytest.raises(BadInputError, match="no shard can be read"):
        read(tmp_path)


def test_other_number_types_give_the_same_cases(imported, tmp_path):
    """64-bit numbers, ids as floating point, times in nanoseconds, no text column's absence."""
    folder = write(tmp_path / "record")
    other = {**COLUMNS, "numeric_value": "DOUBLE", "hadm_id": "DOUBLE", "time": "TIMESTAMP_NS", "subject_id": "INTEGER"}
    content = shards()
    content["held_out/0"] = [e for e in content["held_out/0"] if e["time"] != "0001-01-01 12:00:00"]
    assert read(write_data(folder, content, other))[0] == imported[0]


def test_answers_and_broken_values_are_no_part_of_any_case(imported):
    cases, quarantined, log = imported
    told = repr([c.case for c in cases.values()]) + repr(quarantined) + repr(log.unused)
    assert CANARY not in told
    assert PLANTED not in told
    assert CANARY in repr([c.truth for c in cases.values()])


def test_an_interrupted_import_goes_on_and_skips_what_is_stored(imported, tmp_path):
    folder = write(tmp_path / "record")
    workspace = tmp_path / "work"
    workspace.mkdir()
    first = MedsSource().read(folder, ImportLog(lambda q: None), ImportJob(workspace))
    assert next(first).case.source_id == str(BEFORE)
    first.close()
    (folder / "data" / "train" / "0.parquet").write_bytes(b"")  # staged already
    rest, quarantined, log = read(folder, workspace=workspace, stored=lambda case_id: case_id == f"meds-{BEFORE}")
    assert rest == {k: v for k, v in imported[0].items() if k != str(BEFORE)}
    assert quarantined == imported[1]
    assert log.read == imported[2].read
    assert {k: n for k, n in log.unused.items() if n} == {k: n for k, n in imported[2].unused.items() if n}


@pytest.mark.parametrize("clock", [-100, 0, 1700, 2100])
def test_no_later_event_changes_what_was_known_before(imported, tmp_path, clock):
    """Traps 1, 4, 14, 17: what happens after a clock is taken away or altered; the chart at that clock is the same.

    Admission, its ED times and discharge stay: they make the case.
    """
    until = datetime(2150, 3, 10, 12) + timedelta(minutes=clock)
    keep = ("HOSPITAL_", "ED_", "GENDER", "MEDS_BIRTH")
    events = shards()["train/0"]
    fewer = [
        e for e in events
        if e["time"] is None or e["code"].startswith(keep) or datetime.fromisoformat(e["time"]) <= until
    ]  # fmt: skip
    folder = write(tmp_path / "record")
    after = read(write_data(folder, {"train/0": fewer}))[0][str(MAIN)].case
    before, catalogue = imported[0][str(MAIN)].case, load_catalogue()
    assert open_chart(after, clock, catalogue) == open_chart(before, clock, catalogue)
    assert len(after.findings) < len(before.findings)


def test_dataset_json_may_be_packed_or_odd(tmp_path):
    folder = write(tmp_path / "record")
    (folder / "metadata" / "dataset.json").write_text(json.dumps({"dataset_name": None}))
    assert "dataset" not in read(folder)[0][str(MAIN)].case.attributes
