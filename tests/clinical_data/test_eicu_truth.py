"""The recorded answers of an eICU stay, step by step, on small hand-written tables."""

import pytest
from records_eicu import TABLES, changed, write_folder

from clinical_data.clocks import STEPS
from clinical_data.ground_truth import Strength
from clinical_data.sources import ImportLog
from clinical_data.sources.eicu import EicuSource
from clinical_data.sources.step_truth import AFTER_END


def truths(folder):
    return {c.case.source_id: c.truth for c in EicuSource().read(folder, ImportLog(lambda q: None))}


@pytest.fixture
def imported(tmp_path):
    return truths(write_folder(tmp_path / "eicu"))


def told(truth):
    return [(x.coding.code, x.strength, x.rank, x.entered, x.source_row) for x in truth.labels]


def test_every_step_is_answered_or_says_why_not(imported):
    for truth in imported.values():
        assert tuple(truth) == STEPS
    assert imported["1001"]["triage"].absent_reason == "eICU records no triage"
    assert imported["1001"]["result_update"].absent_reason.startswith("needs no label of its own")


def test_admission_diagnosis_is_the_apache_term(imported):
    truth = imported["1001"]["admission_diagnosis"]
    code = "Non-operative|Cardiovascular|Sepsis, pulmonary"
    assert told(truth) == [(code, Strength.RECORDED_AT_TIME, 1, 12, "admissionDx 2")]
    assert (truth.labels[0].coding.system, truth.labels[0].coding.display) == (
        "wardstar:eicu/admissiondx",
        "Sepsis, pulmonary",
    )
    late = imported["201"]["admission_diagnosis"]
    code = "Operative|Trauma|Head only trauma"
    assert told(late) == [(code, Strength.RECORDED_LATER, 1, 372, "admissionDx 3")]
    assert imported["1002"]["admission_diagnosis"].absent_reason == "no admission diagnosis recorded"


def test_differential_lists_distinct_problems_of_the_first_day_in_order_of_entry(imported):
    assert told(imported["1001"]["differential"]) == [
        ("CANARY|other", Strength.PROXY, 1, 10, "diagnosis 2"),
        ("CANARY|cardiovascular|heart failure", Strength.PROXY, 2, 20, "diagnosis 5"),
        ("CANARY|pulmonary|pneumonia", Strength.PROXY, 3, 500, "diagnosis 1"),
    ]
    assert [x[0] for x in told(imported["201"]["differential"])] == ["CANARY|a", "CANARY|b"]
    reason = "no Primary or Major diagnosis entered in the first 24 hours"
    assert imported["1002"]["differential"].absent_reason == reason


def test_workup_is_what_was_first_done_in_the_day_after_the_clock(imported):
    # laboratory, cultures and CT were done before minute 360; an echocardiogram at 700
    found = told(imported["1001"]["workup"])
    assert found == [("echocardiogram", Strength.RECORDED_LATER, 1, 700, "treatment 4")]
    assert imported["1002"]["workup"].absent_reason == "no test was first done in the day after the clock"


def test_treatment_is_what_was_newly_started_on_the_second_day(imported):
    # the second antibacterial is no new class; an order as needed is none at all
    found = told(imported["1001"]["treatment"])
    assert found == [("diuretics", Strength.RECORDED_LATER, 1, 1520, "medication 4")]
    assert imported["201"]["treatment"].absent_reason == AFTER_END


def treated(folder, *orders, **tables):
    """Codes of the treatment label of a stay of two days whose orders are these; no other record of a treatment."""
    header = "medicationid,patientunitstayid,drugorderoffset,drugstartoffset,drugordercancelled,drugname,"
    header += "drughiclseqno,routeadmin,frequency,prn,drugstopoffset"
    content = {"patient": TABLES["patient"], "medication": [header, *orders], **tables}
    return [x.coding.code for x in truths(write_folder(folder, content))["1001"]["treatment"].labels]


def test_an_order_without_a_name_counts_under_the_commonest_name_of_its_ingredients(tmp_path):
    new = "1,1001,1500,1510,No,VANCOMYCIN,1,IV,Daily,No,"
    nameless = "2,1001,100,100,No, ,12383,IV,Daily,No,"
    others = ["3,201,10,10,No,LEVOFLOXACIN 500 MG,12383,IV,Daily,No,", "4,201,10,10,No,LEVAQUIN,12383,IV,Daily,No,",
              "5,1002,10,10,No,LEVOFLOXACIN 500 MG,12383,IV,Daily,No,"]  # fmt: skip
    assert treated(tmp_path / "a", new) == ["antibacterials"]
    assert treated(tmp_path / "b", new, nameless) == ["antibacterials"]  # nothing tells what it was
    assert treated(tmp_path / "c", new, nameless, *others) == []
    late = "2,1001,1600,1600,No,,12383,IV,Daily,No,"
    assert treated(tmp_path / "d", late, *others) == ["antibacterials"]
    assert treated(tmp_path / "e", late.replace("Daily,No", "Daily,Yes"), *others) == []  # as needed
    rare = "6,201,10,10,No,HEPARIN FLUSH,12383,IV,Daily,No,"
    assert treated(tmp_path / "f", late, *others, rare) == ["antibacterials"]


def test_a_cancelled_order_neither_starts_a_treatment_nor_hides_its_start(tmp_path):
    new = "1,1001,1500,1510,No,VANCOMYCIN,1,IV,Daily,No,"
    assert treated(tmp_path / "a", new.replace("No,VANC", "Yes,VANC")) == []
    earlier = "2,1001,100,100,Yes,CEFEPIME,2,IV,Daily,No,"
    assert treated(tmp_path / "b", new, earlier) == ["antibacterials"]
    assert treated(tmp_path / "c", new, earlier.replace("Yes", "No")) == []
    nameless = "3,1001,1600,1600,Yes,,1,IV,Daily,No,"
    assert treated(tmp_path / "d", new.replace("1001", "201"), nameless) == []


def test_a_folder_without_these_columns_has_labels_all_the_same(tmp_path):
    medication = ["medicationid,patientunitstayid,drugorderoffset,drugstartoffset,drugname,routeadmin,frequency,prn",
                  "1,1001,1500,1510,VANCOMYCIN,IV,Daily,No"]  # fmt: skip
    assert treated(tmp_path / "a", medication=medication) == ["antibacterials"]


def test_ventilation_counts_from_the_care_plan_that_first_tells_it(tmp_path):
    charted = {"respiratoryCare": [TABLES["respiratoryCare"][0], "1,1001,1468,Oral ETT,1400,0,0"]}
    plan = [TABLES["carePlanGeneral"][0], "1,1001,x,718,Airway,Intubated/oral ETT"]
    assert treated(tmp_path / "a", **charted) == ["mechanical_ventilation"]
    assert treated(tmp_path / "b", carePlanGeneral=plan, **charted) == []
    later = [line.replace(",718,", ",1450,") for line in plan]
    assert treated(tmp_path / "c", carePlanGeneral=later, **charted) == ["mechanical_ventilation"]


@pytest.mark.parametrize(
    ("place", "status", "end", "answer"),
    [
        ("Floor", "Alive", 1441, "ward"),
        ("Telemetry", "Alive", 1441, "step_down"),
        ("Other ICU", "Alive", 1441, "other_icu"),
        ("Skilled Nursing Facility", "Alive", 1441, "facility"),
        ("Other External", "Alive", 1441, "other"),
        ("Floor", "Alive", 1440, AFTER_END),
        ("Floor", "Alive", "", "the record has no end of the stay"),
        ("Death", "Expired", 1441, "the patient died in the unit"),
        ("Death", "", 1441, "the patient died in the unit"),
        ("", "Alive", 1441, "no known destination recorded"),
        ("Elsewhere", "Alive", 1441, "no known destination recorded"),
    ],
)
def test_disposition(tmp_path, place, status, end, answer):
    patient = [TABLES["patient"][0], f"7,1,Male,50,,5,,,,MICU,Floor,1,,{end},{place},{status},002-1"]
    truth = truths(write_folder(tmp_path / "a", {"patient": patient}))["7"]["disposition"]
    if truth.labels:
        assert told(truth) == [(answer, Strength.RECORDED_LATER, 1, end, "patient 7")]
        assert truth.labels[0].coding.system == "wardstar:disposition"
    else:
        assert truth.absent_reason == answer


def test_discharge_diagnosis_is_the_one_primary_active_at_discharge(imported):
    found = told(imported["1001"]["discharge_diagnosis"])
    assert found == [("CANARY|pulmonary|pneumonia", Strength.RECORDED_AT_TIME, 1, 500, "diagnosis 1")]
    reason = "no Primary diagnosis active at unit discharge"
    assert imported["1002"]["discharge_diagnosis"].absent_reason == reason
    reason = "several Primary diagnoses active at unit discharge"
    assert imported["201"]["discharge_diagnosis"].absent_reason == reason


def test_without_its_table_a_step_says_so(tmp_path):
    truth = truths(write_folder(tmp_path / "a", {"patient": TABLES["patient"]}))["1001"]
    missing = "missing or could not be read"
    assert truth["differential"].absent_reason == f"table diagnosis is {missing}"
    assert truth["workup"].absent_reason == f"the tables lab, customLab, microLab, treatment are {missing}"
    assert truth["treatment"].absent_reason == f"the tables medication, infusiondrug, treatment are {missing}"
    short = changed(patient=[TABLES["patient"][0], "7,1,Male,50,,5,,,,MICU,Floor,1,,100,Floor,Alive,002-1"])
    assert truths(write_folder(tmp_path / "b", {"patient": short["patient"]}))["7"]["workup"].absent_reason == AFTER_END
