"""The eICU importer on small hand-written tables."""

import dataclasses
import gzip
import json

import pytest

from clinical_data.case import FindingKind
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Strength
from clinical_data.sources import ImportLog
from clinical_data.sources.eicu import EicuSource

EXAM = "notes/Progress Notes/Physical Exam/Physical Exam/"
PAST = "notes/Progress Notes/Past History/"
NOTE = "notes/Progress Notes/"
SOCIAL = f"{NOTE}Social History / Family History/"
BREATH = f"{NOTE}Review Of Systems/Systems/Pulmonary/Shortness of Breath/shortness of breath"
DX = "admission diagnosis|All Diagnosis|Non-operative|Diagnosis|Cardiovascular|Sepsis, pulmonary"

PATIENT = (
    "patientunitstayid,patienthealthsystemstayid,gender,age,ethnicity,hospitalid,apacheadmissiondx,hospitaldischargelocation,"
    "hospitaldischargestatus,unittype,unitadmitsource,unitvisitnumber,dischargeweight,unitdischargeoffset,"
    "unitdischargelocation,unitdischargestatus,uniquepid"
)
TABLES = {
    "patient": [
        PATIENT,
        "1001,1,Male,> 89,CANARYETH,5,CANARYDX,CANARYLOC,Expired,MICU,Emergency Department,2,55,3000,Death,,002-1",
        "201,2,Female,54,,5,CANARYDX,Home,Alive,MICU,Floor,1,,400,Home,Alive,002-2",
        "1002,3,,,,6,,,,SICU,,1,,9000,,,002-1",
    ],
    "pastHistory": [
        "pasthistoryid,patientunitstayid,pasthistoryoffset,pasthistoryenteredoffset,pasthistorynotetype,pasthistorypath,"
        "pasthistoryvalue,pasthistoryvaluetext",
        f"1,1001,10,20,x,{PAST}Past History Obtain Options/Performed,Performed,Performed",
        f"2,1001,10,20,x,{PAST}Organ Systems/Cardiovascular (R)/Congestive Heart Failure/CHF,CHF,CHF",
        f"3,1001,10,20,x,{PAST}Organ Systems/Hematology/Oncology (R)/Cancer/Cancer-Primary Site/lung,lung,lung",
        f"4,201,10,20,x,{PAST}Past History Obtain Options/No Health Problems,No Health Problems,NoHealthProblems",
    ],
    "physicalExam": [
        "physicalexamid,patientunitstayid,physicalexamoffset,physicalexampath,physicalexamvalue,physicalexamtext",
        f"1,1001,30,{EXAM}Constitutional/Vital Sign and Physiological Data/HR/HR Current,HR Current,112",
        f"2,1001,30,{EXAM}Neurologic/GCS/Eyes Score/4,4,4",
        f"3,1001,30,{EXAM}Cardiovascular/Pulses/Dorsalis pedis/L/reduced,reduced,reduced",
        f'4,1001,30,"{EXAM}Skin/Print ""within normal limits""/within normal limits",within normal limits,',
        f"5,1001,30,{NOTE}Physical Exam/Physical Exam Obtain Options/Performed - Structured,Performed - Structured,",
        f"6,201,30,{EXAM}Neurologic/GCS/15,15,15",
    ],
    "note": [
        "noteid,patientunitstayid,noteoffset,noteenteredoffset,notetype,notepath,notevalue,notetext",
        f"1,1001,30,75,x,{SOCIAL}Social History/Social History/Smoking Status/denies smoking,denies smoking,x",
        f"2,1001,30,75,x,{BREATH},shortness of breath,x",
        f"3,1001,30,75,x,{SOCIAL}Family History/Family History/CAD/CAD,CAD,CAD",
        f"4,1001,30,75,x,{NOTE}Interventions/CANARYINT/a,CANARYINT,CANARYINT",
        f"5,1001,30,75,x,{NOTE}Assessment and Plan/CANARYAP,CANARYAP,CANARYAP",
        "6,1001,30,75,x,notes/Procedure Notes/Intubation/Indication/CANARYIND,CANARYIND,CANARYIND",
    ],
    "lab": [
        "labid,patientunitstayid,labresultoffset,labtypeid,labname,labresult,labresulttext,labmeasurenamesystem,"
        "labmeasurenameinterface,labresultrevisedoffset",
        "1,1001,100,1,sodium,131,131,mmol/L,x,140",
        "2,1001,200,1,troponin - I,0.04,<0.04,ng/mL,x,",
        "3,1001,350,1,creatinine,2.5,2.5,mg/dL,x,500",
    ],
    "admissiondrug": [
        "admissiondrugid,patientunitstayid,drugoffset,drugenteredoffset,drugname,drugdosage,drugunit,drugadmitfrequency",
        "1,1001,5,40,METOPROLOL   ,25.0000,mg,twice a day",
        "2,1001,5,40,COLACE,0.0000, , ",
    ],
    "allergy": [
        "allergyid,patientunitstayid,allergyoffset,allergyenteredoffset,allergytype,allergyname",
        "1,1001,5,41,Drug,PENICILLINS",
    ],
    "vitalAperiodic": [
        "vitalaperiodicid,patientunitstayid,observationoffset,noninvasivesystolic,noninvasivediastolic,noninvasivemean",
        "1,1001,7,124,71,85",
        "2,1001,9,,,",
    ],
    "respiratoryCharting": [
        "respchartid,patientunitstayid,respchartoffset,respchartentryoffset,respcharttypecat,respchartvaluelabel,respchartvalue",
        "1,1001,7,12,x,FiO2,40",
        "2,1001,7,12,x,ETT Peptic Ulcer Prophylaxis,CANARYVAP",
    ],
    "nurseAssessment": [
        "nurseassessid,patientunitstayid,nurseassessoffset,nurseassessentryoffset,cellattributepath,cellattributevalue",
        "1,1001,7,13,flowsheet|Flowsheet Cell Labels|Nursing Assessment|Neurologic|Neurologic|LOC,lethargic",
        "2,1001,7,13,flowsheet|Flowsheet Cell Labels|Nursing Assessment|Scores|Intervention|Interventions,CANARYNURSE",
    ],
    "microLab": [
        "microlabid,patientunitstayid,culturetakenoffset,culturesite,organism,antibiotic,sensitivitylevel",
        '1,1001,60,"Blood, Venipuncture",Escherichia coli,ciprofloxacin,Resistant',
    ],
    "treatment": [
        "treatmentid,patientunitstayid,treatmentoffset,treatmentstring,activeupondischarge",
        "1,1001,90,burns/trauma|trauma|CT scan|head,CANARYACTIVE",
        "2,1001,95,cardiovascular|consultations|Cardiology consultation,CANARYACTIVE",
        "3,1001,96,pulmonary|medications|antibacterials|cefepime,CANARYACTIVE",
    ],
    "infusiondrug": [
        "infusiondrugid,patientunitstayid,infusionoffset,drugname,drugrate",
        "1,1001,97,Norepinephrine (mcg/min),5.5",
    ],
    "medication": [
        "medicationid,patientunitstayid,drugorderoffset,drugstartoffset,drugordercancelled,drugname,routeadmin,frequency,drugstopoffset",
        "1,1001,98,50,CANARYCANCEL,ASPIRIN 81 MG,PO,Daily,987654",
    ],
    "admissionDx": [
        "admissiondxid,patientunitstayid,admitdxenteredoffset,admitdxpath,admitdxname,admitdxtext",
        '1,1001,12,admission diagnosis|Elective|Yes,"Yes",Yes',
        f'2,1001,12,"{DX}",CANARYNAME,CANARYNAME',
        "3,201,372,admission diagnosis|All Diagnosis|Operative|Diagnosis|Trauma|Head only trauma,a,b",
    ],
    "diagnosis": [
        "diagnosisid,patientunitstayid,activeupondischarge,diagnosisoffset,diagnosisstring,icd9code,diagnosispriority",
        '1,1001,True,500,CANARY|pulmonary|pneumonia,"486, J18.9",Primary',
        "2,1001,False,10,CANARY|other,1,Primary",
        "3,201,True,10,CANARY|a,1,Primary",
        "4,201,True,20,CANARY|b,1,Primary",
    ],
    "carePlanGoal": ["cplgoalid,patientunitstayid,cplgoalvalue", "1,1001,CANARYGOAL"],
    "carePlanInfectiousDisease": ["cplinfectid,patientunitstayid,infectdiseasesite", "1,1001,CANARYINFECT"],
    "apachePredVar": ["apachepredvarid,patientunitstayid,admitdiagnosis", "1,1001,CANARYPRED"],
}


def write_folder(folder, tables=TABLES, *, bom=False, newline="\n", packed=()):
    folder.mkdir(exist_ok=True)
    for name, lines in tables.items():
        data = (newline.join(lines) + newline).encode("utf-8-sig" if bom else "utf-8")
        if name in packed:
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(data))
        else:
            (folder / f"{name}.csv").write_bytes(data)
    return folder


def read(folder):
    quarantined = []
    log = ImportLog(quarantined.append)
    return list(EicuSource().read(folder, log)), quarantined, log


def changed(**tables):
    return {**TABLES, **tables}


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
    assert first.attributes == {"hospital_id": "5", "unit_visit_number": "2"}
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
        ("treatment-done", [("ct head", None, "", 90, 90), ("consultation", None, "", 95, 95)]),
        ("infusiondrug", [("norepinephrine infusion", 5.5, "mcg/min", 97, 97)]),
        ("medication", [("aspirin 81 mg", "PO Daily", "", 50, 98)]),
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
    assert [f.value for f in chart.request("basic metabolic panel").findings] == [131.0]


def test_treatment_answers_no_request(case):
    catalogue = load_catalogue()
    treatments = [f for f in case.findings if f.kind is FindingKind.TREATMENT]
    assert len(treatments) == 5
    assert not any(item.accepts("eicu", f) for item in catalogue.items for f in treatments)


def test_nothing_planted_in_a_hidden_place_reaches_a_case(imported):
    for labelled in imported[0]:
        text = json.dumps(dataclasses.asdict(labelled.case), ensure_ascii=False)
        assert "CANARY" not in text
        assert "987654" not in text
        assert "Sepsis" not in text
        assert "Expired" not in text
        assert "Death" not in text


def test_recorded_labels(imported):
    first, second, third = imported[0]
    admission = first.truth["admission_diagnosis"].labels[0]
    assert admission.coding.code == "Non-operative|Cardiovascular|Sepsis, pulmonary"
    assert (admission.coding.system, admission.coding.display) == ("wardstar:eicu/admissiondx", "Sepsis, pulmonary")
    assert (admission.strength, admission.entered, admission.rank) == (Strength.RECORDED_AT_TIME, 12, 1)
    discharge = first.truth["discharge_diagnosis"].labels[0]
    assert (discharge.coding.code, discharge.entered) == ("CANARY|pulmonary|pneumonia", 500)
    assert second.truth["admission_diagnosis"].absent_reason == "no admission diagnosis recorded"
    assert second.truth["discharge_diagnosis"].absent_reason == "no Primary diagnosis active at unit discharge"
    late = third.truth["admission_diagnosis"].labels[0]
    assert (late.coding.code, late.strength) == ("Operative|Trauma|Head only trauma", Strength.RECORDED_LATER)
    assert third.truth["discharge_diagnosis"].absent_reason == "several Primary diagnoses active at unit discharge"


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
    assert log.unused["lab: no such stay"] == 1


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
