"""The MIMIC-III importer on a small hand-written record."""

import pytest
from records_mimic_iii import (
    BEFORE,
    BROKEN,
    CANARY,
    DIED,
    MAIN,
    NEWBORN,
    PLANTED,
    radiology,
    tables,
    write,
    write_tables,
)

from clinical_data.case import FindingKind
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.clocks import clock_minute
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Strength
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.mimic_findings import BEDSIDE_LAG
from clinical_data.sources.mimic_iii import ADMISSION_DIAGNOSIS, MimicIiiSource
from clinical_data.sources.mimic_iii_reports import findings_of

DAY = 24 * 60


def read(folder, **job):
    quarantined = []
    log = ImportLog(quarantined.append)
    cases = {c.case.source_id: c for c in MimicIiiSource().read(folder, log, ImportJob(**job))}
    return cases, quarantined, log


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return read(write(tmp_path_factory.mktemp("mimic-iii") / "record"))


@pytest.fixture
def main(imported):
    return imported[0][MAIN]


def of_table(case, table):
    return [f for f in case.case.findings if f.note.split()[0].rstrip(",") == table]


def test_every_admission_that_can_be_is_a_case(imported):
    cases, quarantined, log = imported
    assert list(cases) == [BEFORE, MAIN, NEWBORN, DIED]
    assert [q.resource for q in quarantined if "order" in q.reason] == [f"ADMISSIONS {BROKEN}"]
    assert log.read["chartevents"] == 7  # of eight rows, the one outside the list is not even kept


@pytest.mark.parametrize(("hadm", "age", "sex"), [(MAIN, 64, "female"), (NEWBORN, 0, "male"), (DIED, 90, "male")])
def test_age_and_sex(imported, hadm, age, sex):
    case = imported[0][hadm].case
    assert (case.age, case.patient.sex) == (age, sex)


def test_anchors_and_encounters(imported):
    case = imported[0][MAIN].case
    assert case.anchors == {"admission": 0, "ed_arrival": -180, "ed_departure": 60, "end_of_stay": 5970}
    assert [(e.kind, e.start, e.end) for e in case.encounters] == [
        ("inpatient", 0, 5970), ("emergency", -180, 60), ("icu", 1620, None),
    ]  # fmt: skip
    assert case.context == {"admission_source": "EMERGENCY ROOM ADMIT"}
    # Where admission was recorded before ED arrival, ED departure counts as admission.
    assert imported[0][DIED].case.anchors["admission"] == 210


def test_a_laboratory_result_is_known_four_hours_after_it_was_drawn(main):
    creatinine = of_table(main, "LABEVENTS")[0]
    assert (creatinine.charted, creatinine.pending_from, creatinine.available) == (-150, -150, 90)
    assert (creatinine.code.code, creatinine.value, creatinine.unit, creatinine.flag) == ("50912", 2.1, "mg/dL", "A")
    assert creatinine.note.endswith("LOINC 2160-0")


def test_a_laboratory_result_without_admission_id_belongs_to_the_stay_in_whose_time_it_lies(imported):
    """Trap 6: linked by patient and time, from ED arrival to discharge."""
    cases, _, log = imported
    found = of_table(cases[MAIN], "LABEVENTS")
    assert [f.value for f in found] == [2.1, "NEG", "<0.2"]
    assert [f.available for f in found][-1] == 121  # 10:00:30 counts as 10:01 for what was known
    assert log.unused["labevents: belongs to no case"] == 1


@pytest.mark.parametrize(
    ("time", "owner"), [("2150-03-09 08:59:00", None), ("2150-03-09 09:00:00", MAIN), ("2150-03-10 08:59:00", MAIN)]
)
def test_a_laboratory_result_of_the_day_before_arrival_belongs_to_the_stay(tmp_path, time, owner):
    content = tables()
    row = {"SUBJECT_ID": "1", "ITEMID": "50912", "CHARTTIME": time, "VALUE": "77", "VALUENUM": "77"}
    content["LABEVENTS"] = [*content["LABEVENTS"], row]
    cases = read(write_tables(tmp_path / "record", content))[0]
    assert [k for k, c in cases.items() if 77.0 in [f.value for f in c.case.findings]] == ([owner] if owner else [])


def test_a_cancelled_culture_has_no_result(tmp_path):
    content = tables()
    content["MICROBIOLOGYEVENTS"] = [{**content["MICROBIOLOGYEVENTS"][0], "ORG_NAME": "CANCELLED"}]
    (found,) = of_table(read(write_tables(tmp_path / "record", content))[0][MAIN], "MICROBIOLOGYEVENTS")
    assert (found.value, found.result_in_source) == (None, False)


def test_a_culture_is_pending_for_nine_days(main):
    blood, urine = of_table(main, "MICROBIOLOGYEVENTS")
    assert (blood.pending_from, blood.available) == (-120, -120 + 9 * DAY)
    assert blood.value == "escherichia coli (ceftriaxone R, meropenem S)"
    assert (urine.charted, urine.value) == (36 * 60, "no organism recorded")  # only a day: its end


def test_a_prescription_counts_from_the_end_of_its_first_day(main):
    """Trap 3: a date only."""
    (drug,) = of_table(main, "PRESCRIPTIONS")
    assert (drug.charted, drug.available, drug.value) == (36 * 60, 36 * 60, "IV")
    assert (drug.kind, drug.code.display) == (FindingKind.TREATMENT, "CeftriaXONE")


def test_bedside_charting_of_both_systems(imported):
    cases = imported[0]
    pulse = [f for f in of_table(cases[MAIN], "CHARTEVENTS") if f.code.code == "220045"]
    assert [(f.value, f.unit, f.charted, f.available) for f in pulse] == [
        (110.0, "/min", 60, 73),  # stored at 13:12:30
        (104.0, "/min", 120, 120 + BEDSIDE_LAG),  # no store time: the measured lag
    ]
    eyes = next(f for f in of_table(cases[MAIN], "CHARTEVENTS") if f.code.code == "220739")
    assert (eyes.kind, eyes.value) == (FindingKind.EXAMINATION, "Spontaneously")
    carevue = of_table(cases[NEWBORN], "CHARTEVENTS")
    assert [(f.code.code, f.value) for f in carevue] == [("211", 150.0), ("80", "Present")]


def test_only_the_first_row_of_a_linked_infusion_is_a_start(main):
    (drip,) = of_table(main, "INPUTEVENTS_MV")
    assert (drip.charted, drip.available, drip.value) == (32 * 60, 32 * 60 + 5, "Continuous Med")


def test_what_was_done_without_a_result(main):
    done = {f.code.code: f for f in of_table(main, "PROCEDUREEVENTS_MV")}
    assert set(done) == {"225402", "225792"}
    assert (done["225402"].kind, done["225402"].result_in_source) == (FindingKind.IMAGING, False)
    assert done["225792"].kind is FindingKind.TREATMENT


def test_units_and_services_wait_for_the_treatment_step(main):
    """Trap 15: they tell the specialty."""
    for table in ("TRANSFERS", "SERVICES"):
        assert [f.kind for f in of_table(main, table)] == [FindingKind.TREATMENT]


def test_reports_tell_what_was_seen_and_not_what_was_asked(main):
    """Trap 2, and the line of a radiology report that repeats the recorded admission diagnosis."""
    told = {f.code.system.rpartition("/")[2] + " " + f.code.code: f for f in of_table(main, "NOTEEVENTS")}
    assert set(told) == {"radiology CHEST (PORTABLE AP)", "radiology CT HEAD W/O CONTRAST", "ecg REPORT", "echo REPORT"}
    chest = told["radiology CHEST (PORTABLE AP)"]
    assert chest.value == (
        "FINDINGS: Patchy opacity in the right lower lobe, compared with ___.\n"
        "IMPRESSION: Right lower lobe consolidation."
    )
    assert (chest.charted, chest.pending_from, chest.available) == (-140, -140, -140 + DAY)
    assert told["radiology CT HEAD W/O CONTRAST"].value is None
    assert told["radiology CT HEAD W/O CONTRAST"].available == 240  # its store time
    assert (told["ecg REPORT"].available, told["ecg REPORT"].value) == (720, "Sinus tachycardia. No ST changes.")
    assert told["echo REPORT"].value == "Normal LV size."


@pytest.mark.parametrize(
    "heading",
    ["INDICATION", "CLINICAL HISTORY", "HISTORY", "CLINICAL INDICATION", "Reason for exam", "ADMITTING DIAGNOSIS",
     "REASON FOR EXAMINATION", "HISTORY AND INDICATION", "INDICATIONS", "CLINICAL INFORMATION"],
)  # fmt: skip
def test_sections_of_what_was_asked_are_cut(heading):
    text = f"FINAL REPORT\n {heading}:  {CANARY},\n  {CANARY} again\n FINDINGS:  Clear.\n"
    assert findings_of("Radiology", text) == "FINDINGS: Clear."
    alone = f"FINAL REPORT\n {heading}: {CANARY}.\n\n The lungs are clear.\n"
    assert findings_of("Radiology", alone) == "The lungs are clear."


def test_a_report_without_a_mark_of_its_body_follows_the_last_rule_or_says_nothing():
    unmarked = radiology().replace("FINAL REPORT", "").replace("INDICATION:  Suspected zugzwang.", "")
    assert findings_of("Radiology", unmarked).startswith("FINDINGS: Patchy")
    assert findings_of("Radiology", f"Admitting Diagnosis: {CANARY}") == ""


def test_earlier_admissions_are_known_from_their_end(imported):
    """Trap 7: what belongs to a later admission is not there."""
    cases = imported[0]
    history = [f for f in cases[MAIN].case.findings if f.kind is FindingKind.HISTORY]
    assert [(f.code.code, f.value) for f in history] == [("prior_admission", "stayed 4 days"), ("428.0", "recorded")]
    assert {f.available for f in history} == {-401880}
    assert not cases[BEFORE].case.findings


def test_truth_of_the_steps(imported):
    truth = imported[0][MAIN].truth
    (admission,) = truth["admission_diagnosis"].labels
    assert (admission.coding.system, admission.coding.code) == (ADMISSION_DIAGNOSIS, "ZUGZWANG;zugzwang PART TWO")
    assert (admission.strength, admission.entered) == (Strength.RECORDED_AT_TIME, 0)
    assert [(x.coding.code, x.rank) for x in truth["discharge_diagnosis"].labels] == [("995.91", 1), ("E878.8", 2)]
    assert [x.coding.code for x in truth["disposition"].labels] == ["facility"]
    treated = {x.coding.code for x in truth["treatment"].labels}
    assert {"antibacterials", "mechanical_ventilation", "vasopressors_inotropes"} <= treated
    for step in ("triage", "differential", "result_update"):
        assert truth[step].absent_reason


def test_reasons_for_absent_truth(imported):
    cases = imported[0]
    assert cases[DIED].truth["disposition"].absent_reason == "died in hospital"
    assert cases[DIED].truth["admission_diagnosis"].absent_reason == "no admission diagnosis recorded"
    assert cases[DIED].truth["discharge_diagnosis"].absent_reason == "no principal diagnosis recorded (seq_num 1)"
    assert cases[NEWBORN].truth["discharge_diagnosis"].absent_reason == "no diagnosis recorded"
    assert cases[NEWBORN].truth["disposition"].absent_reason == "a destination outside the list"


def test_the_admission_diagnosis_is_no_part_of_any_case(imported):
    cases, quarantined, log = imported
    told = repr([c.case for c in cases.values()]) + repr(quarantined) + repr(log.unused)
    assert CANARY not in told.lower()
    assert PLANTED not in told
    assert CANARY in repr([c.truth for c in cases.values()])


def test_the_chart_at_the_admission_step(main):
    clock = clock_minute(main.case, "admission_diagnosis")
    chart = open_chart(main.case, clock, load_catalogue())
    assert chart.request("basic metabolic panel").state is AnswerState.PENDING
    later = open_chart(main.case, clock + 8 * 60, load_catalogue())
    assert [f.value for f in later.request("basic metabolic panel").findings] == [2.1, "<0.2"]


@pytest.mark.parametrize("lower", [False, True])
def test_names_in_either_case_and_packed_files_give_the_same_cases(imported, tmp_path, lower):
    again, _, _ = read(write_tables(tmp_path / "again", tables(), lower=lower, packed=True))
    assert again == imported[0]


def test_only_admissions_are_needed(tmp_path):
    content = {"ADMISSIONS": tables()["ADMISSIONS"]}
    cases, _, log = read(write_tables(tmp_path / "one", content))
    assert list(cases) == [BEFORE, MAIN, NEWBORN, DIED]
    assert cases[MAIN].truth["discharge_diagnosis"].absent_reason == (
        "table diagnoses_icd is missing or could not be read"
    )
    assert (cases[MAIN].case.age, cases[MAIN].case.patient.sex) == (None, "unknown")
    assert log.unused["table chartevents is missing"] == 1


def test_a_folder_without_admissions_is_refused(tmp_path):
    content = {"PATIENTS": tables()["PATIENTS"]}
    with pytest.raises(BadInputError, match="no admissions table"):
        read(write_tables(tmp_path / "none", content))


def test_an_interrupted_import_goes_on_and_skips_what_is_stored(imported, tmp_path):
    folder = write(tmp_path / "record")
    workspace = tmp_path / "work"
    workspace.mkdir()
    first = MimicIiiSource().read(folder, ImportLog(lambda q: None), ImportJob(workspace))
    assert next(first).case.source_id == BEFORE
    first.close()
    (folder / "LABEVENTS.csv").unlink()  # staged already
    (folder / "LABEVENTS.csv").touch()
    rest, quarantined, log = read(folder, workspace=workspace, stored=lambda case_id: case_id.endswith(BEFORE))
    assert rest == {k: v for k, v in imported[0].items() if k != BEFORE}
    assert log.read == imported[2].read
    assert quarantined == imported[1]


def test_no_later_row_changes_what_was_known_before(imported, tmp_path):
    """Traps 4, 14, 17: rows known only after a clock are taken away; the chart at that clock stays the same."""
    clock = 30 * 60
    content = tables()
    gone = {
        "PROCEDUREEVENTS_MV": [1, 2], "INPUTEVENTS_MV": [0, 1],
        "PRESCRIPTIONS": [0], "TRANSFERS": [2], "DIAGNOSES_ICD": [1, 2], "DRGCODES": [0], "CPTEVENTS": [0],
    }  # fmt: skip
    for name, numbers in gone.items():
        numbered = [{"ROW_ID": str(i + 1), **row} for i, row in enumerate(content[name])]
        content[name] = [row for i, row in enumerate(numbered) if i not in numbers]
    before = imported[0][MAIN].case
    after = read(write_tables(tmp_path / "less", content))[0][MAIN].case
    catalogue = load_catalogue()
    seen, again = open_chart(before, clock, catalogue), open_chart(after, clock, catalogue)
    assert seen.known()
    assert again == seen
    assert len(after.findings) < len(before.findings)
