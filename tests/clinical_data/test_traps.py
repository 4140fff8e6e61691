"""The leakage traps of clinical.md, one test each, over every source that a trap concerns.

Importers have tests of their own for what is special to them; here the raw records of the leak tests are changed where
a trap lies, and the chart must stay as it is.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from clinical_data.case import Case, FindingKind
from clinical_data.chart import AnswerState, open_chart
from clinical_data.clocks import CLOCKS, STEPS, clock_minute
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.fhir import FhirSource
from clinical_data.splits import SPLITS, split_of
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine
from clinical_data.store.metadata import metadata
from workflow.step import clock_of, problem_of

sys.path.append(str(Path(__file__).resolve().parents[1] / "workflow"))
leak = import_module("leak_records")
leak_fhir = import_module("leak_fhir")
mimic, eicu, meds = import_module("leak_mimic"), import_module("leak_eicu"), import_module("leak_meds")
consultations = import_module("leak_consultations")

RECORDS = {
    r.source: r
    for r in (leak_fhir.FhirRecord(), mimic.MIMIC_IV, mimic.MIMIC_III, eicu.EICU, meds.MedsRecord(),
              consultations.OsceRecord(), consultations.DdxplusRecord())
}  # fmt: skip
TIMED = ("fhir", "mimic-iv", "mimic-iii", "eicu", "meds")


@pytest.fixture(autouse=True)
def _one_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    leak.keep_catalogue(monkeypatch)


@cache
def untouched(source: str) -> LabelledCase:
    return changed(source, ())


def changed(source: str, chosen: Any) -> LabelledCase:
    """The case of a record after some deeds, given as pairs of a part and the name of a deed."""
    with TemporaryDirectory(prefix="wardstar-traps-") as folder:
        labelled: LabelledCase = leak.labelled_of(
            RECORDS[source], leak.carry_out(RECORDS[source], list(chosen), Path(folder) / "record")
        )
    return labelled


def chart(case: Case, step: str) -> str:
    minute = clock_minute(case, step)
    assert minute is not None
    text: str = leak.chart_text(open_chart(case, minute, leak.load_once()))
    return text


def check_unseen(source: str, names: str, *, step: str = "discharge_diagnosis", deed: str = "alter") -> None:
    """What a step sees does not change with the parts of a record whose names fit a pattern."""
    record = RECORDS[source]
    parts = [p for p in (*record.hidden(), *record.later(record.clocks[step])) if re.search(names, p.name)]
    assert parts, names
    now = changed(source, [(part, deed if deed in part.deeds else "alter") for part in parts])
    assert chart(now.case, step) == chart(untouched(source).case, step)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("mimic-iv", "diagnoses_icd|drgcodes|hcpcsevents|procedures_icd"),
        ("mimic-iii", "DIAGNOSES_ICD|DRGCODES|CPTEVENTS|PROCEDURES_ICD"),
        ("meds", "DIAGNOSIS|DRG|HCPCS|PROCEDURE//ICD"),
        ("fhir", "Condition/own|diagnosis"),
        ("eicu", "diagnosis"),
    ],
)
def test_trap_01_icd_drg_and_cpt_codes_come_after_discharge(source: str, names: str) -> None:
    check_unseen(source, names)


@pytest.mark.parametrize(
    ("source", "names"), [("mimic-iv", "^discharge|rows of discharge"), ("mimic-iii", "NOTEEVENTS"), ("fhir", "no use")]
)
def test_trap_02_discharge_notes_and_what_they_tell(source: str, names: str) -> None:
    check_unseen(source, names, deed="add")


def test_trap_02_discharge_prescriptions_are_no_findings(tmp_path: Path) -> None:
    order = leak_fhir._of("MedicationRequest", "home", status="active", intent="order", authoredOn=leak_fhir.at(600),
                          category=[{"coding": [{"code": "discharge"}]}],
                          medicationCodeableConcept={"text": leak.LOUD})  # fmt: skip
    assert leak.LOUD not in repr(fhir_case(tmp_path, order))


def fhir_case(folder: Path, *more: dict[str, Any], **job: Any) -> LabelledCase:
    """The observed stay of the FHIR record, with some more resources."""
    record = RECORDS["fhir"]
    path = record.write([*record.content(), *more], folder)
    cases = FhirSource().read(path, ImportLog(lambda row: None), ImportJob(**job))
    return next(c for c in cases if c.case.source_id == record.source_id)


@pytest.mark.parametrize(
    ("source", "names"), [("mimic-iv", "procedures_icd|hcpcsevents|poe_detail"), ("mimic-iii", "PROCEDURES_ICD")]
)
def test_trap_03_procedures_with_a_date_only_are_never_shown(source: str, names: str) -> None:
    check_unseen(source, names)


def test_trap_03_a_fact_with_a_date_only_is_known_at_the_end_of_its_day(tmp_path: Path) -> None:
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "182840001"}], "text": "bronchoscopy"}
    done = leak_fhir._of("Procedure", "dated", status="completed", performedDateTime="2024-01-10", code=code)
    (found,) = [f for f in fhir_case(tmp_path, done).case.findings if "bronchoscopy" in f.code.display]
    assert found.available >= 14 * 60  # the stay begins at 10:00


@pytest.mark.parametrize("source", TIMED)
def test_trap_04_charted_time_is_not_the_time_of_the_result(source: str) -> None:
    """Taken before the clock, resulted after it: whatever comes out, the step sees no more than that it is pending."""
    check_unseen(source, "its result", step="treatment")


def test_trap_05_ranks_of_mimic_conditions_come_from_the_tables(tmp_path: Path) -> None:
    """Conditions of MIMIC on FHIR have neither date nor rank: no finding, and no label without the file of ranks."""
    category = [{"coding": [{"code": "encounter-diagnosis"}]}]
    code = {"coding": [{"system": leak_fhir.ICD, "code": "A41.9", "display": leak.LOUD}]}
    coded = leak_fhir._of("Condition", "coded", code=code, category=category)
    record = RECORDS["fhir"]
    content = [r for r in record.content() if not r["id"].startswith("own-")]
    next(r for r in content if r["id"] == "own").pop("diagnosis")
    path = record.write([*content, coded], tmp_path)
    ranks = tmp_path / "ranks.csv"
    ranks.write_text("module,condition_id,seq_num\nhosp,coded,1\n", encoding="utf-8")
    for given, told in ((None, False), (ranks, True)):
        cases = FhirSource().read(path, ImportLog(lambda row: None), ImportJob(condition_rank=given))
        one = next(c for c in cases if c.case.source_id == record.source_id)
        assert leak.LOUD not in repr(one.case)
        assert bool(one.truth["discharge_diagnosis"].labels) is told
        assert told or "rank" in one.truth["discharge_diagnosis"].absent_reason


@pytest.mark.parametrize(
    ("source", "table", "owner", "time"),
    [("mimic-iv", "labevents", "hadm_id", "charttime"), ("mimic-iii", "LABEVENTS", "HADM_ID", "CHARTTIME"),
     ("meds", "train/0", "hadm_id", "time")],
)  # fmt: skip
def test_trap_06_labs_without_an_admission_id_are_linked_by_patient_and_time(
    source: str, table: str, owner: str, time: str
) -> None:
    """A result without an id belongs to the stay in whose time it lies, to no other, and is known no earlier."""
    record = RECORDS[source]
    content = record.content()
    labs = [row for row in content[table] if "code" not in row or row["code"].startswith("LAB//RESULT")]
    for row in labs:
        row[owner] = None if source == "meds" else ""
    with TemporaryDirectory() as folder:
        case = leak.labelled_of(record, record.write(content, Path(folder))).case
    end = case.anchors["end_of_stay"]
    found = {f.finding_id: f for f in case.findings if f.kind is FindingKind.LABORATORY}
    with_id = {f.finding_id: f for f in untouched(source).case.findings if f.kind is FindingKind.LABORATORY}
    inside = {i: f for i, f in with_id.items() if case.anchors["ed_arrival"] < f.charted < end}
    assert inside
    assert inside.items() <= found.items()
    assert all(case.anchors["ed_arrival"] <= f.charted <= end for f in found.values() if f.finding_id not in with_id)


@pytest.mark.parametrize(
    ("source", "names"), [("fhir", "Encounter/later"), ("mimic-iv", "admissions row 2"), ("meds", "HOSPITAL")]
)
def test_trap_07_facts_of_later_admissions(source: str, names: str) -> None:
    check_unseen(source, names, deed="delete")


def test_trap_07_a_patient_is_in_one_split(tmp_path: Path) -> None:
    record = RECORDS["fhir"]
    cases, _, _ = leak.source_records.import_all("fhir", record.write(record.content(), tmp_path))
    assert len(cases) > 2
    assert len({split_of("fhir", c.case.patient.source_id) for c in cases}) == 1


def test_trap_08_the_menu_is_the_same_for_every_patient_of_every_source() -> None:
    offered = set()
    for source in RECORDS:
        case = untouched(source).case
        for plan in leak.plans().plans.values():
            if case.source in plan.vocabularies:
                minute = clock_of(case, plan.step)
                assert minute is not None
                problem = problem_of(case, plan, minute)
                offered.add((plan.step.name, tuple(i.item_id for i in problem.items)))
        assert open_chart(case, 0, leak.load_once()).catalogue.items == leak.load_once().items
    assert len(offered) == len(leak.plans().plans)


def test_trap_09_prompts_hold_no_text_of_another_patient(tmp_path: Path) -> None:
    """There is no pool of examples: what a model is sent of one case is of this case alone."""
    record, words = RECORDS["fhir"], ("apples", "pears")
    cases = []
    for word in words:
        content = record.content()
        next(r for r in content if r["id"] == "complaint")["valueString"] = word
        (tmp_path / word).mkdir()
        cases.append(leak.labelled_of(record, record.write(content, tmp_path / word)).case)
    sent = [leak.prompts_of(case, ["admission_diagnosis"], ("rstar", "greedy", "full-information")) for case in cases]
    for own, other, text in ((*words, sent[0]), (*words[::-1], sent[1])):
        assert own in text
        assert other not in text


def test_trap_10_which_cases_are_taken_does_not_depend_on_their_outcome(tmp_path: Path) -> None:
    listed = []
    for word in ("plain", "other"):
        scenarios = consultations.osce_file(word)
        if word == "other":
            for scenario in scenarios:
                del scenario["OSCE_Examination"]["Correct_Diagnosis"]
        (tmp_path / word).mkdir()
        path = RECORDS["osce"].write(scenarios, tmp_path / word)
        engine = open_engine(f"sqlite:///{tmp_path / word / 'a.db'}", create=True)
        metadata.create_all(engine)
        cases, _, _ = leak.source_records.import_all("osce", path)
        CaseStore(engine).put_many(iter(cases if word == "plain" else cases[::-1]))
        reader = CaseReader(engine)
        splits = [reader.case_ids(split=name) for name in SPLITS]
        listed.append([reader.case_ids(), reader.case_ids(limit=1), splits])
        engine.dispose()
    assert listed[0] == listed[1]
    assert listed[0][0] == sorted(listed[0][0])
    assert len(listed[0][0]) == 2


@pytest.mark.parametrize("source", ["fhir", "mimic-iv", "eicu"])
def test_trap_11_complications_are_no_admission_diagnoses(source: str) -> None:
    """What arose or was coded later labels the discharge alone, and is neither complaint nor history."""
    labelled = untouched(source)
    admission = {label.coding.code for label in labelled.truth["admission_diagnosis"].labels}
    final = [label.coding.code for label in labelled.truth["discharge_diagnosis"].labels]
    assert admission
    assert final
    assert not admission & set(final[1:]) or source == "mimic-iv"  # the ED's code may be coded again at discharge
    assert len(admission) == 1
    told = (FindingKind.COMPLAINT, FindingKind.HISTORY)
    shown = {f.code.code for f in labelled.case.findings if f.kind in told}
    assert not shown & (admission | set(final))


def test_trap_12_eicu_tables_and_columns_that_name_the_answer() -> None:
    check_unseen(
        "eicu", "apache|admissionDx|diagnosis|carePlanInfectiousDisease|carePlanGoal|carePlanEOL|note.notevalue"
    )
    text = repr(untouched("eicu").case)
    assert "Interventions" not in text
    assert "Assessment and Plan" not in text
    assert "Indication" not in text


def test_trap_13_synthea_history_of(tmp_path: Path) -> None:
    """Synthea files `History of ...` as a Condition of the very stay: it is no history of that stay."""

    def condition(key: str, stay: str, recorded: int) -> Any:
        text = f"History of {key} (situation)"
        return leak_fhir._condition(key, "410429000", text, stay, "encounter-diagnosis", recorded)

    year = 365 * leak_fhir.DAY
    text = repr(fhir_case(tmp_path, condition("arrest", "own", 10), condition("seizure", "before", -year)).case)
    assert "History of arrest" not in text
    assert "History of seizure" in text


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("fhir", "period.end|outcome|death| end$"),
        ("mimic-iv", r"dischtime|outtime|stoptime|endtime|dod|deathtime|location|last_careunit|\.los|status"),
        ("mimic-iii", r"DISCHTIME|OUTTIME|ENDDATE|ENDTIME|DOD|DEATHTIME|LAST_CAREUNIT|LOS|STATUS"),
        ("eicu", "activeupondischarge|drugstopoffset|drugordercancelled|ventendoffset|discharge"),
        ("meds", "STOP|_END|ICU_DISCHARGE|DEATH|HOSPITAL"),
    ],
)
def test_trap_14_future_columns_of_visible_rows(source: str, names: str) -> None:
    check_unseen(source, names, step="treatment", deed="shift")


@pytest.mark.parametrize("source", TIMED)
def test_trap_15_treatment_is_hidden_until_the_treatment_step(source: str) -> None:
    """Orders, infusions and the specialty in charge are known to the chart, and no item on offer answers with them."""
    case = untouched(source).case
    minute = clock_minute(case, "differential")
    assert minute is not None
    opened = open_chart(case, minute, leak.load_once())
    given = {f.finding_id for f in opened.known() if f.kind is FindingKind.TREATMENT}
    assert given
    early = STEPS[: STEPS.index("treatment")]
    for name, plan in leak.plans().plans.items():
        shown = {f.finding_id for item in (*plan.opening, *plan.items) for f in opened.request(item).findings}
        assert bool(given & shown) == (name not in early), name
    prompts = leak.prompts_of(case, early).lower()
    assert not [w for w in ("ceftriaxone", "norepinephrine", "drug1", "cardiology") if w in prompts]


@pytest.mark.parametrize("source", RECORDS)
def test_trap_16_no_clock_and_no_step_derives_from_a_truth_row(source: str) -> None:
    hidden = RECORDS[source].hidden()
    now = changed(source, [(part, "delete" if "delete" in part.deeds else "alter") for part in hidden]).case
    before = untouched(source).case
    assert {s: clock_minute(now, s) for s in CLOCKS[source]} == {s: clock_minute(before, s) for s in CLOCKS[source]}
    assert now.anchors == before.anchors


@pytest.mark.parametrize("source", TIMED)
def test_trap_17_answer_states_do_not_tell_what_was_done_later(source: str) -> None:
    """With all that comes later taken away, and with every result that never came, each item answers as before."""
    record = RECORDS[source]
    minute = min(record.clocks.values())
    now = changed(source, [(part, "delete") for part in record.later(minute)]).case

    def states(case: Case) -> dict[str, AnswerState]:
        opened = open_chart(case, minute, leak.load_once())
        return {item.item_id: opened.request(item).state for item in leak.load_once().items}

    before = states(untouched(source).case)
    assert states(now) == before
    assert {AnswerState.RECORDED, AnswerState.PENDING, AnswerState.NOT_DONE_BY_NOW} <= set(before.values())
