"""OSCE scenarios: every key path a finding, the diagnosis apart, ids that outlive the file, damage quarantined."""

import copy
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from source_records import import_all, osce_scenario

from clinical_data.case import Coding, FindingKind
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Strength
from clinical_data.sources.osce_findings import person_of

AGENTCLINIC = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "agentclinic"


def imported(folder: Path, *lines, name: str = "a.jsonl"):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / name).write_text(text + "\n", encoding="utf-8")
    return import_all("osce", folder / name)


def one(folder: Path, **changes):
    ((labelled,), quarantined, _) = imported(folder, osce_scenario(**changes))
    assert not quarantined
    return labelled


def facts(labelled) -> dict:
    return {f.code.code: (f.value, f.unit) for f in labelled.case.findings}


def test_every_key_path_becomes_a_finding_of_its_section(tmp_path):
    found = {(f.code.system.rpartition("/")[2], f.code.code): f for f in one(tmp_path).case.findings}
    assert {key: f.kind for key, f in found.items()} == {
        ("demographics", "Demographics"): FindingKind.HISTORY,
        ("history", "History"): FindingKind.HISTORY,
        ("symptoms", "Symptoms/Primary_Symptom"): FindingKind.COMPLAINT,
        ("symptoms", "Symptoms/Secondary_Symptoms"): FindingKind.COMPLAINT,
        ("past_medical_history", "Past_Medical_History"): FindingKind.HISTORY,
        ("social_history", "Social_History"): FindingKind.SOCIAL,
        ("review_of_systems", "Review_of_Systems/General"): FindingKind.HISTORY,
        ("history", "Current_Medications"): FindingKind.MEDICATION_HOME,
        ("vital_signs", "Vital_Signs/Temperature"): FindingKind.VITAL,
        ("vital_signs", "Vital_Signs/Heart_Rate"): FindingKind.VITAL,
        ("examination", "Abdominal_Examination/Palpation"): FindingKind.EXAMINATION,
        ("tests", "Urinalysis/Nitrites"): FindingKind.LABORATORY,
        ("tests", "Urinalysis/WBC"): FindingKind.LABORATORY,
        ("tests", "Blood_Tests/White_Cells"): FindingKind.LABORATORY,
        ("tests", "Imaging/CT_Abdomen/Findings"): FindingKind.IMAGING,
    }
    imaging = found["tests", "Imaging/CT_Abdomen/Findings"]
    assert imaging.code == Coding("wardstar:osce/tests", "Imaging/CT_Abdomen/Findings", "Imaging, CT Abdomen, Findings")
    assert (imaging.value, imaging.note) == ("Perinephric stranding.", "Test_Results/Imaging/CT_Abdomen/Findings")
    assert found["vital_signs", "Vital_Signs/Heart_Rate"].code.display == "Heart Rate"


def test_a_list_is_one_finding_per_entry(tmp_path):
    found = [f.value for f in one(tmp_path).case.findings if f.code.code == "Symptoms/Secondary_Symptoms"]
    assert sorted(found) == ["Chills", "Fever"]


def test_everything_is_known_at_minute_zero(tmp_path):
    case = one(tmp_path).case
    assert case.anchors == {"admission": 0, "end_of_stay": 0}
    assert {(f.charted, f.available) for f in case.findings} == {(0, 0)}


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("13,400/mm3", 13400.0, "/mm3"),
        ("274,000 /μL", 274000.0, "/μL"),
        ("274,000 /µL", 274000.0, "/μL"),  # micro sign
        ("13.2 g/dL", 13.2, "g/dL"),
        ("72 bpm", 72.0, "bpm"),
        ("60%", 60.0, "%"),
        ("37.2°C", 37.2, "°C"),
        ("125/80 mmHg", "125/80 mmHg", ""),
        ("36.6°C (97.9°F)", "36.6°C (97.9°F)", ""),
        ("15,000 /μL (elevated)", "15,000 /μL (elevated)", ""),
        ("98% on room air", "98% on room air", ""),
        ("0-2 /HPF", "0-2 /HPF", ""),
        ("> 100,000 copies/mL", "> 100,000 copies/mL", ""),
        ("4+", "4+", ""),
        ("1.010", "1.010", ""),
        ("2 stools", "2 stools", ""),
        ("1,23 g/dL", "1,23 g/dL", ""),
    ],
)
def test_a_number_is_read_only_where_it_stands_alone_with_a_unit(tmp_path, text, value, unit):
    assert facts(one(tmp_path, Test_Results={"X": text}))["X"] == (value, unit)


def test_json_numbers_and_truth_values(tmp_path):
    found = facts(one(tmp_path, Test_Results={"a": 4, "b": 4.5, "c": True, "d": None, "e": {}, "f": []}))
    assert {k: v for k, v in found.items() if len(k) == 1} == {"a": (4.0, ""), "b": (4.5, ""), "c": ("yes", "")}


def test_pending_has_no_result_and_what_the_scenario_does_not_say_is_no_finding(tmp_path):
    (labelled,), _, log = imported(tmp_path, osce_scenario())
    (pending,) = [f for f in labelled.case.findings if not f.result_in_source]
    assert (pending.code.code, pending.value) == ("Urinalysis/WBC", None)
    assert "Urinalysis/RBC" not in facts(labelled)
    assert log.unused == {"the scenario says nothing of it": 1}


@pytest.mark.parametrize(
    ("text", "age", "sex"),
    [
        ("35-year-old female", 35, "female"),
        ("70-year-old man accompanied by his wife", 70, "male"),
        ("32-year-old woman, gravida 2, para 1, at 38 weeks' gestation", 32, "female"),
        ("22-year-old female at 30 weeks gestation", 22, "female"),
        ("18-month-old boy", 1, "male"),
        ("8-month-old boy", 0, "male"),
        ("2-week-old female newborn", 0, "female"),
        ("4-day-old newborn", 0, "unknown"),
        ("Newborn, 3050-g (6-lb 12-oz) male, six hours post delivery", 0, "male"),
        ("1100-g (2-lb 7-oz) newborn, 31 weeks' gestation", 0, "unknown"),
        ("3-year-old child", 3, "unknown"),
        ("52 years old lady", 52, "female"),
        ("94-year-old woman", 90, "female"),
        ("30-year-old woman with a newborn boy", 30, "unknown"),
        ("An adult", None, "unknown"),
        ("", None, "unknown"),
        (["35"], None, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_age_and_sex(text, age, sex):
    assert person_of(text) == (age, sex)


def test_the_diagnosis_is_the_only_label(tmp_path):
    truth = one(tmp_path).truth
    (label,) = truth["discharge_diagnosis"].labels
    assert label.coding == Coding("wardstar:osce/diagnosis", "Pyelonephritis", "Pyelonephritis")
    assert (label.strength, label.rank, label.entered) == (Strength.TEXT_EXTRACTED, 1, None)
    assert [step for step, answer in truth.items() if answer.labels] == ["discharge_diagnosis"]
    assert "one consultation" in truth["triage"].absent_reason


def test_a_scenario_without_a_diagnosis_is_a_case_without_a_label(tmp_path):
    labelled = one(tmp_path, Correct_Diagnosis=["a", "b"])
    assert labelled.truth["discharge_diagnosis"].absent_reason == "Correct_Diagnosis is missing or no text"
    assert labelled.case.attributes == {}


def test_neither_answer_nor_task_becomes_a_finding_wherever_they_stand(tmp_path):
    part = {"Correct_Diagnosis": "zugzwang", "Note": {"objective_for_doctor": "zugzwang", "Seen": "kept"}}
    labelled = one(tmp_path, Objective_for_Doctor="zugzwang", Correct_Diagnosis="zugzwang", Test_Results=part)
    assert "zugzwang" not in repr(labelled.case)
    assert facts(labelled)["Note/Seen"] == ("kept", "")


@pytest.mark.parametrize(
    ("answer", "said", "marked"),
    [
        ("Phyllodes tumor", "Shows a PHYLLODES TUMOR.", "yes"),
        ("Phyllodes tumor", "No phyllodes tumors.", "no"),
        ("Hirschsprung’s disease", "consistent with Hirschsprung's disease", "yes"),
        ("Benign vertigo (BPPV)", "suggests benign vertigo", "yes"),
        ("Benign vertigo (BPPV)", "typical of BPPV", "yes"),
        ("C. difficile colitis", "Cx difficile colitis", "no"),
    ],
)
def test_a_record_that_names_its_answer_keeps_its_facts_and_is_marked(tmp_path, answer, said, marked):
    (labelled,), _, log = imported(tmp_path, osce_scenario(Correct_Diagnosis=answer, Test_Results={"Biopsy": said}))
    assert facts(labelled)["Biopsy"] == (said, "")
    assert labelled.case.attributes == {"answer_in_record": marked}
    assert log.read["scenario that names its diagnosis"] == (marked == "yes")


def test_ids_outlive_another_order_more_scenarios_and_another_key_order(tmp_path):
    first, second, third = (osce_scenario(Test_Results={"ESR": f"{n} mm/hr"}) for n in (1, 2, 3))
    before, _, _ = imported(tmp_path, first, second)
    turned = {"OSCE_Examination": dict(reversed(first["OSCE_Examination"].items()))}
    after, _, _ = imported(tmp_path, third, second, turned)
    assert [c.case for c in after[1:]] == [c.case for c in reversed(before)]
    assert all(len(c.case.source_id) == 12 for c in after)


def test_the_same_scenario_twice_is_used_once(tmp_path):
    same = osce_scenario(Correct_Diagnosis="Another")
    cases, (row,), _ = imported(tmp_path, osce_scenario(), same)
    assert len(cases) == 1
    assert (row.file, row.line, row.reason) == ("a.jsonl", 2, "the same scenario as a.jsonl:1, which is used")


def nested(depth: int) -> str:
    """A scenario with keys that deep, written by hand: the json module refuses them."""
    start = json.dumps(osce_scenario()).removesuffix("}}")
    deep = '{"x": ' * depth + '"deep"' + "}" * depth
    return f'{start}, "Test_Results": {deep}}}}}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "OSCE_Examination is missing"),
        ('{"OSCE_Examination": 4}', "OSCE_Examination is missing"),
        ('{"OSCE_Examination": {"Test_Results": {}}}', "OSCE_Examination.Patient_Actor is missing"),
        (nested(30), "keys are nested deeper than 20 levels"),
        (nested(1010), "keys are nested deeper than 20 levels"),
        ("[" * 100_000, "not valid JSON"),
        ('{"OSCE_Examination": {"Patient_Actor": {"History": NaN}}}', "not valid JSON"),
    ],
)
def test_a_broken_line_is_quarantined_and_the_others_are_read(tmp_path, line, reason):
    cases, (row,), _ = imported(tmp_path, line, osce_scenario())
    assert len(cases) == 1
    assert (row.line, row.reason) == (1, reason)


def test_bytes_that_are_no_text_and_lines_without_end_are_quarantined(tmp_path):
    sound = json.dumps(osce_scenario()).encode()
    path = tmp_path / "a.jsonl.gz"
    bomb = b'{"OSCE_Examination": "' + b"x" * (40 << 20) + b'"}'
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + b"\xff\xfe{\r\n" + bomb + b"\r\n\r\n" + sound + b"\r\n"))
    cases, rows, _ = import_all("osce", path)
    assert len(cases) == 1
    assert [(r.line, r.reason) for r in rows] == [(1, "the line is not UTF-8"), (2, "the line is too long")]


def test_a_truncated_gzip_gives_what_came_before_the_damage(tmp_path):
    whole = gzip.compress("\n".join(json.dumps(osce_scenario(Test_Results={"n": n})) for n in range(999)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    cases, rows, _ = import_all("osce", tmp_path)
    assert 0 < len(cases) < 999
    assert rows[-1].reason == "the archive is damaged or cut short; what follows is lost"


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ({"question": "zugzwang", "image_url": "x", "answers": [], "type": "t"}, "OSCE_Examination is missing"),
        ({"OSCE_Examination": {"Correct_Diagnosis": "zugzwang"}}, "OSCE_Examination.Patient_Actor is missing"),
    ],
)
def test_another_variant_is_refused_by_the_name_of_what_is_missing(tmp_path, line, missing):
    (tmp_path / "agentclinic_nejm.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=missing) as caught:
        import_all("osce", tmp_path / "agentclinic_nejm.jsonl")
    assert caught.value.line == 1
    assert "NEJM" in caught.value.hint
    assert "zugzwang" not in str(caught.value)


def test_an_empty_file_and_another_kind_of_file_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "a.txt").write_text("x")
    for path in (tmp_path, tmp_path / "a.jsonl", tmp_path / "a.txt"):
        with pytest.raises(BadInputError):
            import_all("osce", path)


@pytest.mark.shared_data
@pytest.mark.skipif(not AGENTCLINIC.is_dir(), reason="the AgentClinic scenarios are not beside the project")
class TestAgentClinic:
    """Counts against an independent walk over the raw file."""

    def test_every_text_of_the_file_is_a_finding_or_accounted_for(self):
        def texts(value):
            if isinstance(value, dict | list):
                return sum(map(texts, value.values() if isinstance(value, dict) else value))
            return 1

        lines = (AGENTCLINIC / "agentclinic_medqa.jsonl").read_text(encoding="utf-8").splitlines()
        raw = [json.loads(line)["OSCE_Examination"] for line in lines if line.strip()]
        cases, quarantined, log = import_all("osce", AGENTCLINIC)
        assert (len(raw), len(cases), quarantined) == (107, 107, [])
        told = sum(texts(s) for s in raw) - 2 * len(raw)  # Objective_for_Doctor, Correct_Diagnosis
        assert sum(len(c.case.findings) for c in cases) + sum(log.unused.values()) == told
        assert set(log.unused) == {"the scenario says nothing of it"}

    def test_diagnoses_ages_and_sexes(self):
        cases, _, log = import_all("osce", AGENTCLINIC)
        assert all(len(c.truth["discharge_diagnosis"].labels) == 1 for c in cases)
        assert all(c.case.age is not None for c in cases)
        assert Counter(c.case.patient.sex for c in cases) == {"male": 56, "female": 44, "unknown": 7}
        marked = Counter(c.case.attributes["answer_in_record"] for c in cases)
        assert marked["yes"] == log.read["scenario that names its diagnosis"] == 17

    def test_the_diagnosis_may_change_without_a_byte_of_the_case(self, tmp_path):
        lines = (AGENTCLINIC / "agentclinic_medqa.jsonl").read_text(encoding="utf-8").splitlines()
        raw = [json.loads(line) for line in lines if line.strip()]
        changed = copy.deepcopy(raw)
        for scenario in changed:
            scenario["OSCE_Examination"]["Correct_Diagnosis"] = "zugzwang"
            scenario["OSCE_Examination"]["Objective_for_Doctor"] = "zugzwang"
        before, _, _ = imported(tmp_path, *raw)
        after, _, _ = imported(tmp_path, *changed)
        assert [c.case.findings for c in after] == [c.case.findings for c in before]
        assert [c.case.case_id for c in after] == [c.case.case_id for c in before]
        assert "zugzwang" not in repr([c.case for c in after])
