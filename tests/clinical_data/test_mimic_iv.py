"""The MIMIC-IV importer on a small made-up record: what becomes a finding, and when; modules, versions, broken rows."""

import re

import pytest
from records_mimic_iv import BEFORE, DIED, EARLY, ED_STAY, LATER, MAIN, tables, write, write_tables

from clinical_data.case import FindingKind
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.clocks import STEPS, clock_minute
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Strength
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.mimic_iv import MimicIvSource

CEFTRIAXONE, VANCOMYCIN = "CEFX1F", "VANC1F"


def read(folder, job=ImportJob()):  # noqa: B008
    quarantined = []
    log = ImportLog(quarantined.append)
    found = {c.case.source_id: c for c in MimicIvSource().read(folder, log, job)}
    return found, quarantined, log


def changed(folder, **rows):
    """Imports the record with some tables replaced."""
    return read(write_tables(folder, {**tables(), **rows}))[0]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return read(write(tmp_path_factory.mktemp("mimic")))


@pytest.fixture(scope="module")
def main(imported):
    return imported[0][MAIN]


def rows(labelled, table, code=None):
    """Findings of a table of one case, oldest first."""
    found = [f for f in labelled.case.findings if f.note.split()[0] == table and code in (None, f.code.code)]
    return sorted(found, key=lambda f: (f.charted, f.code.code))


def told(finding):
    return finding.value, finding.unit, finding.charted, finding.available, finding.pending_from


def test_person_times_and_parts(imported, main):
    case = main.case
    assert (case.case_id, case.patient.sex, case.age) == (f"mimic-iv-{MAIN}", "female", 67)
    assert case.anchors == {"admission": 0, "ed_arrival": -180, "ed_departure": 60, "end_of_stay": 5970, "triage": -180}
    assert case.context == {"admission_source": "EMERGENCY ROOM", "arrival_transport": "AMBULANCE"}
    assert [(e.encounter_id, e.kind, e.start, e.end) for e in case.encounters] == [
        (MAIN, "inpatient", 0, 5970), (ED_STAY, "emergency", -180, 60), ("31000002", "icu", 1620, None),
    ]  # fmt: skip
    assert imported[0][DIED].case.age == 90  # given as 93


def test_admission_counts_from_ed_departure_where_it_was_recorded_before_arrival(imported):
    case = imported[0][EARLY].case
    assert case.anchors == {"admission": 210, "ed_arrival": 60, "ed_departure": 210, "end_of_stay": 4680, "triage": 60}
    assert clock_minute(case, "admission_diagnosis") == 210


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("1", (2.1, "mg/dL", -150, -78, -150)),  # stored at 10:41:20: known by 10:42
        ("2", (1.6, "mg/dL", 1080, 1150, 1080)),  # the text is masked, the number is not
        ("4", ("<0.01", "ng/mL", -150, 90, -150)),  # in the comments; no storetime: four hours
        ("5", ("NEG", "", -120, -90, -120)),
        ("10", (None, "", 2520, 2540, 2520)),  # masked as a whole
    ],
)
def test_a_laboratory_result(main, key, expected):
    (finding,) = [f for f in rows(main, "labevents") if f.note == f"labevents {key}"]
    assert told(finding) == expected
    assert finding.result_in_source == (expected[0] is not None)


def test_a_laboratory_result_keeps_range_flag_and_fluid(main):
    first = rows(main, "labevents", "50912")[0]
    assert (first.low, first.high, first.flag, first.code.display) == (0.4, 1.1, "A", "Creatinine")
    assert rows(main, "labevents", "51484")[0].code.display == "Ketone, urine"
    assert not rows(main, "labevents", "50887")  # blood kept without a test


def test_a_culture_tells_organisms_and_susceptibility_when_each_was_reported(main):
    early, final = rows(main, "microbiologyevents", "90201")
    assert told(early) == ("escherichia coli (meropenem S)", "", -120, 2700, -120)
    assert told(final) == ("escherichia coli (ceftriaxone R)", "", -120, 4140, -120)
    assert final.code.display == "Blood Culture, Routine, blood culture"


def test_a_culture_with_dates_only_counts_from_the_end_of_each_day(main):
    (urine,) = rows(main, "microbiologyevents", "90039")  # no admission id either: linked by patient and time
    assert told(urine) == ("NO GROWTH.", "", 2160, 3600, 2160)


def test_a_culture_without_result_time_is_known_after_nine_days(main):
    (stool,) = rows(main, "microbiologyevents", "90221")
    assert told(stool) == (None, "", 1320, 1320 + 9 * 1440, 1320)


def test_orders_are_known_from_start_or_entry_whichever_is_later(main):
    orders = {f.code.display: f for f in rows(main, "prescriptions")}
    assert told(orders["CefTRIAXone"]) == ("IV Q24H", "", 120, 141, None)  # entered after its start
    assert told(orders["Furosemide"]) == ("IV Q6H PRN", "", 1800, 1800, None)  # entered before
    assert told(orders["Vancomycin"]) == ("IV", "", 2640, 2655, None)  # no pharmacy row: by its order
    assert {o.code.code for o in orders.values()} == {CEFTRIAXONE, VANCOMYCIN, "Furosemide"}
    assert {o.kind for o in orders.values()} == {FindingKind.TREATMENT}


def test_a_container_is_no_drug(tmp_path):
    bag = {"hadm_id": MAIN, "subject_id": "10000001", "pharmacy_id": "41", "drug_type": "BASE", "drug": "Bag",
           "starttime": "2150-03-10 14:00:00", "route": "IV"}  # fmt: skip
    assert not rows(changed(tmp_path, prescriptions=[bag])[MAIN], "prescriptions")


def test_bedside_tables(main):
    done = {f.code.display: (f.kind.value, told(f)) for f in rows(main, "procedureevents")}
    assert done == {
        "Chest X-Ray": ("imaging", (None, "", 1650, 1665, None)),
        "Blood Cultured": ("microbiology", (None, "", 1660, 1670, None)),
        "Invasive Ventilation": ("treatment", ("done", "", 1680, 4200, None)),
    }
    assert [told(f) for f in rows(main, "inputevents")] == [("Continuous Med", "", 1690, 1692, None)]
    assert [told(f) for f in rows(main, "outputevents")] == [(60.0, "mL", 1740, 1740, None)]
    charted = {f.code.display: (f.kind.value, f.value, f.unit, f.available) for f in rows(main, "chartevents")}
    assert charted == {
        "Heart Rate": ("vital", 112.0, "/min", 1705),
        "GCS - Eye Opening": ("examination", "To Speech", "", 1705),
        "Past medical history": ("history", "CHF", "", 1705),
    }


def test_care_unit_and_service_are_hidden_until_the_treatment_step(main):
    found = [*rows(main, "transfers"), *rows(main, "services")]
    assert [(f.code.code, f.available) for f in found] == [
        ("Medicine", 60), ("Medical Intensive Care Unit (MICU)", 1620), ("MED", 1),
    ]  # fmt: skip
    assert {f.kind for f in found} == {FindingKind.TREATMENT}


def test_the_emergency_department(main):
    triage = {f.code.code: (f.value, f.unit, f.available) for f in rows(main, "triage")}
    assert triage == {
        "8310-5": (101.3, "[degF]", -180), "8867-4": (118.0, "/min", -180), "9279-1": (26.0, "/min", -180),
        "2708-6": (88.0, "%", -180), "8480-6": (92.0, "mm[Hg]", -180), "8462-4": (51.0, "mm[Hg]", -180),
        "98137-3": (0.0, "", -180), "8661-1": ("Dyspnea, Fever", "", -180),
    }  # fmt: skip
    later = {f.code.code: f.value for f in rows(main, "vitalsign")}
    assert (later["98137-3"], later["8884-9"], later["8867-4"]) == ("unable", "Sinus Tachycardia", 110.0)
    (home,) = rows(main, "medrecon")  # two rows, one for each class that it belongs to
    assert (home.kind, home.code.display, home.available) == (FindingKind.MEDICATION_HOME, "lisinopril", -140)
    assert [(f.kind.value, f.code.display, f.available) for f in rows(main, "pyxis")] == [
        ("treatment", "Acetaminophen", -90)
    ]


def test_radiology_reports_and_outpatient_measurements(main):
    first, second = rows(main, "radiology")
    assert (first.code.code, first.charted, first.available, first.pending_from) == (
        "CHEST (PORTABLE AP)", -135, -45, -135,
    )  # fmt: skip
    assert second.code == first.code  # without detail, the heading tells
    assert "Right lower lobe opacity." in first.value
    outpatient = [(f.code.code, f.value, f.available) for f in rows(main, "omr")]
    assert ("Weight (Lbs)", 180.0, -69840) in outpatient  # at the end of its day; that of three years ago is left out
    assert ("eGFR", 55.0, 720) in outpatient
    assert len(outpatient) == 3


def test_a_radiology_report_without_a_store_time_counts_as_known_after_a_day(tmp_path):
    ((report, _), text) = tables()["radiology"], "FINDINGS: No acute process."
    case = changed(tmp_path, radiology=[{**report, "storetime": "", "text": text}])[MAIN]
    (found,) = rows(case, "radiology")
    assert (found.pending_from, found.available) == (-135, -135 + 24 * 60)


def test_truth_of_all_eight_steps(imported, main, tmp_path):
    labels = {s: [(x.coding.code, x.strength.value) for x in t.labels] for s, t in main.truth.items()}
    assert tuple(labels) == STEPS
    assert labels["triage"] == [("2", "recorded-at-time")]
    assert labels["admission_diagnosis"] == [("J18.9", "proxy")]
    assert labels["differential"] == [("J18.9", "proxy"), ("A41.9", "proxy")]
    assert labels["disposition"] == [("facility", "recorded-later")]
    assert labels["discharge_diagnosis"] == [("A41.9", "recorded-later"), ("J18.9", "recorded-later")]
    assert ("vasopressors_inotropes", "recorded-later") in labels["treatment"]
    assert main.truth["workup"].absent_reason == "no test was first done in the day after the clock"
    (film,) = changed(tmp_path, radiology=[])[MAIN].truth["workup"].labels  # the film of the ED is not there
    assert (film.coding.code, film.entered, film.source_row) == (
        "imaging_chest_xray",
        1650,
        "procedureevents 91 225459",
    )
    assert main.truth["discharge_diagnosis"].labels[0].coding.display == "Sepsis, unspecified organism"
    cases = imported[0]
    assert cases[EARLY].truth["discharge_diagnosis"].labels[0].coding.system.endswith("icd-9-cm")
    assert cases[EARLY].truth["disposition"].labels[0].coding.code == "home"  # against advice
    assert cases[DIED].truth["disposition"].absent_reason == "died in hospital"
    assert cases[DIED].truth["triage"].absent_reason == "no ED stay belongs to the admission"


def test_modules_may_be_missing_and_say_so(tmp_path):
    hospital = {n: r for n, r in tables().items() if n in ("admissions", "patients", "labevents", "diagnoses_icd")}
    found, _, log = read(write_tables(tmp_path, hospital))
    case = found[MAIN]
    assert case.case.anchors["ed_arrival"] == -180  # from admissions.edregtime
    assert case.case.encounters[1].encounter_id == f"{MAIN}-ed"
    assert case.truth["triage"].absent_reason == "the ED module (ed/triage) is not there"
    assert case.truth["admission_diagnosis"].absent_reason == "the ED module (ed/diagnosis) is not there"
    assert case.truth["differential"].absent_reason == "the ED module (ed/diagnosis) is not there"
    assert case.truth["discharge_diagnosis"].labels
    assert rows(case, "labevents", "50912")[0].code.display == "50912"  # d_labitems is missing
    assert log.unused["table chartevents is missing"] == 1


def test_names_in_capitals_and_a_flat_folder(imported, tmp_path):
    write(tmp_path / "a")
    (tmp_path / "flat").mkdir()
    for path in [p for p in (tmp_path / "a").rglob("*") if p.is_file()]:
        path.rename(tmp_path / "flat" / path.name.upper())
    found, _, _ = read(tmp_path / "flat")
    assert found == imported[0]


def test_columns_that_a_version_lacks_read_empty(imported, tmp_path):
    folder = write(tmp_path)
    path = folder / "icu" / "inputevents.csv"
    path.write_text(re.sub(r",ordercategorydescription,(\w+)", r",unheard_of,\1", path.read_text()))
    found, quarantined, _ = read(folder)
    assert len(quarantined) == 1  # the broken row, as ever
    assert [f.value for f in rows(found[MAIN], "inputevents")] == ["given"]


def test_a_stay_that_ends_before_it_begins_is_quarantined_and_the_rest_imported(imported, tmp_path):
    admissions = tables()["admissions"]
    admissions[1] = {**admissions[1], "dischtime": "2150-03-09 15:30:00"}
    admissions[3] = {**admissions[3], "admittime": "9999-01-01 00:00:00", "dischtime": "9999-01-02 00:00:00"}
    found, quarantined, _ = read(write_tables(tmp_path, {**tables(), "admissions": admissions}))
    assert sorted(found) == [BEFORE, LATER, EARLY]
    assert [q.resource for q in quarantined if q.file == "admissions"] == [f"admissions {MAIN}", f"admissions {DIED}"]


@pytest.mark.parametrize("time", ["9999-12-31 23:59:59", "0001-01-01 00:00:00", "infinity", "290000-01-01 00:00:00"])
def test_a_time_that_cannot_be_gives_no_finding(imported, tmp_path, time):
    changes = {}
    for name in ("labevents", "microbiologyevents", "prescriptions", "omr", "chartevents", "radiology", "edstays"):
        column = {"prescriptions": "starttime", "omr": "chartdate", "edstays": "outtime"}.get(name, "charttime")
        changes[name] = [{**row, column: time} for row in tables()[name]]
    found = changed(tmp_path, **changes)
    assert sorted(found) == sorted(imported[0])
    assert not rows(found[MAIN], "labevents")
    assert found[MAIN].case.anchors["ed_arrival"] == -180


def test_no_calendar_date_enters_a_case(imported):
    for labelled in imported[0].values():
        assert not re.search(r"\b(19|20|21)\d\d-\d\d", repr(labelled))


def test_a_second_try_goes_on_from_what_was_staged(imported, tmp_path):
    folder = write(tmp_path / "record")
    (tmp_path / "work").mkdir()
    job = ImportJob(workspace=tmp_path / "work")
    stream = MimicIvSource().read(folder, ImportLog(lambda row: None), job)
    next(stream)
    stream.close()
    (folder / "hosp" / "labevents.csv.gz").write_bytes(b"")  # is not read again
    found, quarantined, log = read(folder, job)
    assert found == imported[0]
    assert quarantined == imported[1]
    assert log.read == imported[2].read


def test_a_folder_without_admissions_is_refused(tmp_path):
    write_tables(tmp_path, {"patients": tables()["patients"]})
    with pytest.raises(BadInputError, match="no admissions table"):
        read(tmp_path)


def test_a_request_is_answered_from_the_tables(main):
    catalogue = load_catalogue()
    chart = open_chart(main.case, 0, catalogue)
    assert chart.request("lactate").state is AnswerState.PENDING  # drawn ten minutes before, stored five after
    assert chart.request("chief complaint").findings[0].value == "Dyspnea, Fever"
    assert chart.request("home_drugs").findings[0].code.display == "lisinopril"
    assert open_chart(main.case, 5, catalogue).request("lactate").findings[0].value == 4.2
    assert main.truth["triage"].labels[0].strength is Strength.RECORDED_AT_TIME
