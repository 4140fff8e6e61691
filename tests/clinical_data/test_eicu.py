"""The eICU importer on small hand-written tables."""

import dataclasses
import json

import pytest
from records_eicu import PAST, TABLES, changed, write_folder

from clinical_data.case import FindingKind
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.errors import BadInputError
from clinical_data.sources import ImportLog
from clinical_data.sources.eicu import EicuSource


def read(folder):
    quarantined = []
    log = ImportLog(quarantined.append)
    return list(EicuSource().read(folder, log)), quarantined, log


@pytest.fixture
def imported(tmp_path):
    return read(write_folder(tmp_path / "eicu"))


@pytest.fixture
def case(imported):
    return next(c.case for c in imported[0] if c.case.source_id == "1001")


def said(case, table):
    return [
        (f.code.display, f.value, f.unit, f.charted, f.available)
        for f in sorted(case.findings, key=lambda f: f.note)
        if f.code.system == f"wardstar:eicu/{table}"
    ]


def test_cases_come_in_the_order_of_case_id(imported):
    cases, quarantined, _ = imported
    assert [c.case.case_id for c in cases] == ["eicu-1001", "eicu-1002", "eicu-201"]
    assert quarantined == []


def test_a_case_holds_patient_stay_and_context(imported):
    first, second, third = (c.case for c in imported[0])
    assert (first.age, first.patient.sex, first.patient.patient_id) == (90, "male", "eicu-002-1")
    assert (second.age, second.patient.sex, second.patient.patient_id) == (None, "unknown", "eicu-002-1")
    assert (third.age, third.patient.sex) == (54, "female")
    assert first.context == {"admission_source": "Emergency Department", "unit_type": "MICU"}
    assert second.context == {"unit_type": "SICU"}
    assert first.attributes == {
        "hospital_id": "5",
        "unit_visit_number": "2",
        "hospital_beds": "100 - 249",
        "hospital_teaching": "yes",
        "hospital_region": "Midwest",
    }
    assert second.attributes == {"hospital_id": "6", "unit_visit_number": "1"}
    assert first.anchors == {"admission": 0, "end_of_stay": 3000}
    assert [(e.kind, e.start, e.end) for e in first.encounters] == [("icu", 0, 3000)]


@pytest.mark.parametrize(
    ("table", "findings"),
    [
        ("patient", [("earlier unit stays in this hospital stay", 1.0, "", 0, 0)]),
        (
            "pastHistory",
            [
                ("past heart and vessel disease", "congestive heart failure, CHF", "", 10, 20),
                ("past cancer or blood disease", "cancer, cancer-primary site, lung", "", 10, 20),
            ],
        ),
        (
            "physicalExam",
            [
                ("heart rate", 112.0, "/min", 30, 75),
                ("Glasgow Coma Scale, eyes", 4.0, "", 30, 75),
                ("heart and vessels: pulses, dorsalis pedis, left", "reduced", "", 30, 75),
                ("skin", "within normal limits", "", 30, 75),
            ],
        ),
        (
            "note",
            [
                ("smoking", "denies smoking", "", 30, 75),
                ("review of systems, pulmonary", "shortness of breath", "", 30, 75),
                ("family history", "CAD", "", 30, 75),
            ],
        ),
        (
            "lab",
            [
                ("sodium", 131.0, "mmol/L", 100, 140),
                ("troponin I", "<0.04", "ng/mL", 200, 440),
                ("creatinine", 2.5, "mg/dL", 350, 500),
            ],
        ),
        ("admissiondrug", [("metoprolol", "25 mg twice a day", "", 5, 40), ("colace", "taken at home", "", 5, 40)]),
        ("allergy", [("penicillins", "drug allergy", "", 5, 41)]),
        ("vitalAperiodic", [("cuff blood pressure", "124/71 (mean 85)", "mmHg", 7, 7)]),
        ("respiratoryCharting", [("inspired oxygen", 40.0, "%", 7, 12)]),
        ("nurseAssessment", [("nurse: neurologic, LOC", "lethargic", "", 7, 13)]),
        ("microLab", [("culture, blood, venipuncture", "Escherichia coli, ciprofloxacin resistant", "", 60, 13020)]),
        (
            "treatment-done",
            [
                ("ct head", None, "", 90, 90),
                ("consultation", None, "", 95, 95),
                ("echocardiogram", None, "", 700, 700),
            ],
        ),
        ("infusiondrug", [("norepinephrine infusion", 5.5, "mcg/min", 97, 97)]),
        (
            "medication",
            [
                ("aspirin 81 mg", "PO Daily", "", 50, 98),
                ("morphine", "IV Q4H PRN", "", 99, 99),
                ("ceftriaxone 1 g", "IV Daily", "", 1510, 1510),
                ("furosemide 40 mg", "IV Daily", "", 1520, 1520),
            ],
        ),
        (
            "customLab",
            [("Pro BNP", 127.0, "", 110, 350), ("GFR", ">60", "", 110, 350), ("Influenza A", None, "", 110, 350)],
        ),
        ("nurseCare", [("airway", "Oral ETT", "", 20, 25), ("respiratory treatment", "Suctioning", "", 20, 25)]),
        (
            "respiratoryCare",
            [
                ("airway", "Oral ETT", "", 40, 40),
                ("mechanical ventilation", "started by now", "", 40, 40),
                ("airway", "Tracheostomy", "", 70, 70),
            ],
        ),
        (
            "carePlanGeneral",
            [
                ("ventilation", "spontaneous - tenuous", "", 49, 49),
                ("airway", "not intubated/normal airway", "", 49, 49),
                ("limits of care", "do not resuscitate", "", 49, 49),
            ],
        ),
        ("carePlanCareProvider", [("specialty in charge", "cardiology", "", 26, 26)]),
        (
            "vitalPeriodic",  # the first value of each sign in each hour, after the first day in each six hours
            [
                ("heart rate", 88.0, "/min", 2, 2),
                ("respiratory rate", 20.0, "/min", 2, 2),
                ("oxygen saturation", 97.0, "%", 2, 2),
                ("temperature", 37.2, "Cel", 7, 7),
                ("heart rate", 77.0, "/min", 1501, 1501),
                ("oxygen saturation", 94.0, "%", 1501, 1501),
                ("heart rate", 101.0, "/min", 62, 62),
                ("respiratory rate", 22.0, "/min", 62, 62),
                ("oxygen saturation", 95.0, "%", 62, 62),
            ],
        ),
        (
            "nurseCharting",  # the entry known first in an hour, not the one observed first
            [
                ("heart rate", 111.0, "/min", 20, 30),
                ("Glasgow Coma Scale", 14.0, "", 20, 30),
                ("pain score", 3.0, "", 20, 30),
                ("oxygen device", "nasal cannula", "", 20, 30),
                ("heart rate", 112.0, "/min", 70, 70),
            ],
        ),
        ("intakeOutput", [("urine output", 150.0, "mL", 60, 65)]),
    ],
)
def test_a_table_reads_as(case, table, findings):
    assert said(case, table) == findings


def test_no_health_problems_answers_every_history_item(imported):
    case = next(c.case for c in imported[0] if c.case.source_id == "201")
    assert said(case, "pastHistory") == [("past history", "no health problems", "", 10, 20)]
    catalogue = load_catalogue()
    chart = open_chart(case, 360, catalogue)
    history = [i for i in catalogue.items if i.item_id.startswith("history_")]
    assert len(history) == 8
    assert {chart.request(i).state for i in history} == {AnswerState.RECORDED}


def test_an_examination_without_a_note_is_late_by_the_measured_lag(imported):
    case = next(c.case for c in imported[0] if c.case.source_id == "201")
    assert said(case, "physicalExam") == [("Glasgow Coma Scale", 15.0, "", 30, 30 + 317)]


def test_what_was_done_is_told_without_result_specialty_or_system(case):
    chart = open_chart(case, 360, load_catalogue())
    assert chart.request("CT of the head").state is AnswerState.DONE_RESULT_NOT_IN_SOURCE
    assert chart.request("specialist consultation").state is AnswerState.DONE_RESULT_NOT_IN_SOURCE
    assert chart.request("chest x-ray").state is AnswerState.NOT_DONE_BY_NOW
    assert chart.request("chief complaint").state is AnswerState.NOT_IN_SOURCE
    visible = [f for f in case.findings if f.kind is not FindingKind.TREATMENT]
    text = json.dumps([dataclasses.asdict(f) for f in visible])
    assert "trauma" not in text
    assert "ardiology" not in text


def test_a_culture_and_a_sample_in_the_laboratory_are_pending(case):
    catalogue = load_catalogue()
    chart = open_chart(case, 360, catalogue)
    assert chart.request("cultures").state is AnswerState.PENDING
    assert chart.request("troponin").state is AnswerState.PENDING
    assert next(f.value for f in chart.request("basic metabolic panel").findings) == 131.0


def test_treatment_answers_the_item_of_its_own_alone(case):
    catalogue = load_catalogue()
    treatments = [f for f in case.findings if f.kind is FindingKind.TREATMENT]
    assert len(treatments) == 11
    answered = {tuple(i.item_id for i in catalogue.items_of("eicu", f)) for f in treatments}
    assert answered == {("treatment_so_far",)}
    assert "treatment_so_far" not in {item.item_id for item in catalogue.offered("all", ())}


def test_a_later_fact_and_a_truth_row_do_not_change_the_chart(tmp_path):
    before = read(write_folder(tmp_path / "a"))[0][0].case
    tables = changed(
        lab=[*TABLES["lab"][:-1], "3,1001,361,1,creatinine,9.9,9.9,mg/dL,x,361"],
        vitalAperiodic=[*TABLES["vitalAperiodic"], "3,1001,361,60,30,40"],
        admissionDx=TABLES["admissionDx"][:1],
        diagnosis=TABLES["diagnosis"][:1],
        pastHistory=[*TABLES["pastHistory"], f"9,1001,10,361,x,{PAST}Organ Systems/Pulmonary/Asthma/asthma,asthma,a"],
    )
    after = read(write_folder(tmp_path / "b", tables))[0][0].case
    catalogue = load_catalogue()
    old, new = (open_chart(c, 360, catalogue) for c in (before, after))
    assert old.known() == new.known()
    answers = [(i.item_id, old.request(i)) for i in catalogue.items]
    # the creatinine was drawn at minute 350 in one and at 361 in the other; sodium answers the item in both
    assert answers == [(i.item_id, new.request(i)) for i in catalogue.items]


def test_two_imports_agree_whatever_the_packing(tmp_path):
    plain = [c.case.content_hash for c in read(write_folder(tmp_path / "a"))[0]]
    other = read(write_folder(tmp_path / "b", bom=True, newline="\r\n", packed=set(TABLES)))
    assert other[1] == []
    assert [c.case.content_hash for c in other[0]] == plain


def test_table_names_and_columns_in_any_case(tmp_path):
    tables = {name.upper(): [lines[0].upper(), *lines[1:]] for name, lines in TABLES.items()}
    assert [c.case.content_hash for c in read(write_folder(tmp_path / "b", tables))[0]] == [
        c.case.content_hash for c in read(write_folder(tmp_path / "a"))[0]
    ]


def test_broken_rows_are_set_aside_with_their_line_and_no_value(tmp_path):
    lab = [
        *TABLES["lab"],
        "abc,1001,1,1,sodium,1,1,a,b,1",  # 5
        "5,1001,1",  # 6
        "6,,1,1,sodium,1,1,a,b,1",  # 7
        "7,1001,1,1,sodium,SECRET,1,a,b,1",  # 8
        "8,1001,1,1,sodium,1,1,a,b,1,extra",  # 9
        "1,1001,1,1,sodium,1,1,a,b,1",  # 10: key of line 2
        "9,777,1,1,sodium,1,1,a,b,1",  # 11: no such stay
        "10,1001,110,1,potassium,4,4,mmol/L,b,120",  # 12
    ]
    cases, quarantined, log = read(write_folder(tmp_path / "a", changed(lab=lab)))
    assert len(cases) == 3
    assert ("potassium", 4.0, "mmol/L", 110, 120) in said(cases[0].case, "lab")
    assert len(said(cases[0].case, "lab")) == 4
    assert sorted((q.file, q.line or 0, q.reason) for q in quarantined) == [
        ("lab.csv", 0, "labid occurs 2 times; the first row is used"),
        ("lab.csv", 5, "a value is not of the declared type (labid)"),
        ("lab.csv", 6, "the row has too few fields"),
        ("lab.csv", 7, "patientunitstayid is empty"),
        ("lab.csv", 8, "a value is not of the declared type (labresult)"),
        ("lab.csv", 9, "the row has too many fields"),
    ]
    assert "SECRET" not in repr(quarantined)
    assert log.unused["lab: belongs to no case"] == 1


def test_a_row_that_is_not_utf8_or_lacks_a_quotation_mark(tmp_path):
    folder = write_folder(tmp_path / "a")
    with (folder / "allergy.csv").open("ab") as file:
        file.write(b'2,1001,5,41,Drug,\xff\xfe\n3,1001,5,41,Drug,LATEX\n4,1001,5,41,Drug,"open\n')
    cases, quarantined, _ = read(folder)
    assert [f[0] for f in said(cases[0].case, "allergy")] == ["penicillins", "latex"]
    assert [(q.file, q.line) for q in quarantined] == [("allergy.csv", 3), ("allergy.csv", 5)]


def test_a_truncated_table_is_set_aside_as_a_whole(tmp_path):
    lab = [*TABLES["lab"], *(f"{i},1001,{i},1,sodium,{i},{i},mmol/L,x,{i}" for i in range(10, 9000))]
    folder = write_folder(tmp_path / "a", changed(lab=lab), packed={"lab"})
    whole = (folder / "lab.csv.gz").read_bytes()
    (folder / "lab.csv.gz").write_bytes(whole[: len(whole) // 2])
    cases, quarantined, _ = read(folder)
    assert len(cases) == 3
    assert said(cases[0].case, "lab") == []
    assert said(cases[0].case, "allergy") != []
    assert [(q.file, q.line) for q in quarantined] == [("lab.csv.gz", None)]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bnot really gzip", b"labid,patientunitstayid\n1,1001\n"])
def test_an_unusable_table_is_set_aside(tmp_path, content):
    folder = write_folder(tmp_path / "a")
    (folder / "lab.csv").unlink()
    (folder / ("lab.csv.gz" if content[:1] == b"\x1f" else "lab.csv")).write_bytes(content)
    cases, quarantined, _ = read(folder)
    assert len(cases) == 3
    assert [q.line for q in quarantined] == [None]


def test_missing_tables_are_noted_and_truth_says_why_it_is_absent(tmp_path):
    cases, quarantined, log = read(write_folder(tmp_path / "a", {"patient": TABLES["patient"]}))
    assert len(cases) == 3
    assert quarantined == []
    assert log.unused["table lab is missing"] == 1
    assert cases[0].truth["admission_diagnosis"].absent_reason == "table admissionDx is missing or could not be read"


def test_a_folder_without_note_still_reads_examinations(tmp_path):
    tables = {name: lines for name, lines in TABLES.items() if name != "note"}
    case = read(write_folder(tmp_path / "a", tables))[0][0].case
    assert said(case, "physicalExam")[0] == ("heart rate", 112.0, "/min", 30, 347)


def test_a_missing_folder_or_patient_table_is_one_clear_error(tmp_path):
    with pytest.raises(BadInputError, match="no such folder"):
        read(tmp_path / "nosuch")
    tables = {name: lines for name, lines in TABLES.items() if name != "patient"}
    with pytest.raises(BadInputError, match="no patient table"):
        read(write_folder(tmp_path / "a", tables))


def test_a_patient_table_without_a_column_is_one_clear_error(tmp_path):
    broken = [line.rpartition(",")[0] for line in TABLES["patient"]]
    with pytest.raises(BadInputError, match="column uniquepid is missing"):
        read(write_folder(tmp_path / "a", changed(patient=broken)))


def test_a_repeated_stay_is_imported_once(tmp_path):
    cases, quarantined, _ = read(
        write_folder(tmp_path / "a", changed(patient=[*TABLES["patient"], TABLES["patient"][1]]))
    )
    assert len(cases) == 3
    assert [(q.resource, q.reason) for q in quarantined] == [
        ("patient 1001", "patientunitstayid occurs 2 times; the first row is used")
    ]


def test_stopping_early_leaves_nothing_behind(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    cases = EicuSource().read(write_folder(tmp_path / "a"), ImportLog(lambda q: None))
    next(cases)
    assert list(scratch.iterdir()) != []
    cases.close()
    assert list(scratch.iterdir()) == []


def test_progress_ends_at_the_whole(tmp_path):
    seen = []
    log = ImportLog(lambda q: None, progress=lambda done, total: seen.append((done, total)))
    list(EicuSource().read(write_folder(tmp_path / "a"), log))
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize(("degrees", "unit"), [("36.6", "°C"), ("45", "°C"), ("98.0", ""), ("101.1", "")])
def test_a_number_that_is_no_temperature_in_celsius_keeps_its_value_and_loses_the_unit(tmp_path, degrees, unit):
    lab = [TABLES["lab"][0], f"1,1001,100,7,Temperature,{degrees},{degrees},&#176;C,x,140"]
    nurse = [TABLES["nurseCharting"][0], f"1,1001,10,20,Vital Signs,Temperature,Temperature (C),{degrees}"]
    monitor = [TABLES["vitalPeriodic"][0], f"1,1001,2,{degrees},,,,,,,,,,,,,,,"]
    tables = {"patient": TABLES["patient"], "lab": lab, "nurseCharting": nurse, "vitalPeriodic": monitor}
    source = EicuSource().read(write_folder(tmp_path / "a", tables), ImportLog(lambda q: None))
    case = next(c.case for c in source if c.case.source_id == "1001")
    found = {f.note.split()[0]: (f.value, f.unit) for f in case.findings if "emperature" in f.code.display}
    shown = "Cel" if unit else ""
    assert found == {
        "lab": (float(degrees), unit),
        "nurseCharting": (float(degrees), shown),
        "vitalPeriodic": (float(degrees), shown),
    }
