"""Baselines that answer through the scorer: the regression, frequencies for sets, and recorded clinicians."""

from dataclasses import replace

import pytest
from run_records import ICD, WARD, case_of, record_of

from clinical_data.case import Coding, Finding, FindingKind
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.splits import split_of
from clinical_data.store.case_store import CaseStore
from evaluation.baselines import clinician_steps, majority_set_steps, train_labels
from evaluation.matching import match, truth_rows
from evaluation.record_scoring import RecordScorer
from evaluation.scoring import score_run
from evaluation.store import open_database
from evaluation.store.run_store import RunStore, StoredRecord

PATIENTS = {s: [p for p in (f"p{i}" for i in range(400)) if split_of("fhir", p) == s] for s in ("train", "tuning")}
PATHWAY = """
catalogue: v1
steps:
  - name: {step}
    truth: {step}
    clock: {{fhir: {{anchor: admission, plus_minutes: 360, text: 6 hours after admission}}}}
    opening: [chief_complaint]
    answer: {{form: {form}, most: 2, vocabulary: {{fhir: general-ward-icd10}}}}
"""
# code, what the complaint says
KINDS = (("J18.9", "cough and sputum"), ("I50.9", "swollen ankles"), ("A41.9", "rigors and confusion"))


def told(number, patient, codes, complaint, *, step="admission_diagnosis", at=0):
    """A labelled case whose chief complaint becomes known at a minute."""
    labelled = case_of(number, patient, *codes, step=step)
    finding = Finding(
        f"cc-{number}", FindingKind.COMPLAINT, Coding("http://loinc.org", "8661-1", "complaint"), complaint, at, at
    )  # fmt: skip
    return replace(labelled, case=replace(labelled.case, findings=(finding,)))


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'w.db'}", create=True)
    yield engine
    engine.dispose()


def begin(engine, step="admission_diagnosis", form="closed"):
    text = PATHWAY.format(step=step, form=form)
    return RunStore(engine).begin("r", "inpatient", {"pathway": {"text": text}, "steps": [step]}, {})


def answer(engine, run, number, patient, code, *answers, **more):
    store, case_id = RunStore(engine), f"fhir-{number}"
    record = record_of(*answers, case_id=case_id, patient=f"fhir-{patient}", **more)
    truth = CaseStore(engine).truth(case_id).get(record.step)
    store.put(run.run_id, record, truth_rows(truth), match(record, truth, WARD), [])


def test_the_regression_is_scored_like_a_run(engine):
    train = [told(i, p, [KINDS[i % 3][0]], KINDS[i % 3][1]) for i, p in enumerate(PATIENTS["train"][:30])]
    tuning = [
        told(100 + i, p, [code], text)
        for i, (p, (code, text)) in enumerate(
            zip(PATIENTS["tuning"][:4], [*KINDS, ("K85.9", "swollen ankles")], strict=True)
        )
    ]
    CaseStore(engine).put_many([*train, *tuning])
    run = begin(engine)
    for i, patient in enumerate(PATIENTS["tuning"][:4]):
        answer(engine, run, 100 + i, patient, "", "I50", "J18")
    step = score_run(engine, "r")["steps"]["admission_diagnosis"]
    base = step["baselines"]["logistic_regression"]
    assert (base["value"], base["n"], base["n_train"]) == (0.75, 4, 30)  # pancreatitis is in no train case
    assert base["low"] < base["value"] <= base["high"]
    levels = base["levels"]
    assert levels["accuracy_category"]["value"] == 0.75
    assert levels["accuracy_chapter"]["value"] == 0.75
    assert levels["top_3"]["value"] == 0.75
    assert 0 < levels["brier"]["value"] < 2
    assert levels["expected_calibration_error"]["bins"]
    assert not {"coverage", "verified_misses", "required_item_recall"} & set(levels)
    gain = step["metrics"]["gain_over_logistic_regression"]
    assert (gain["value"], gain["n"]) == (pytest.approx(0.25 - 0.75), 4)
    assert step["metrics"]["information_ceiling"]["value"] == 0.0  # the complaint is given, nothing else is recorded
    assert score_run(engine, "r")["steps"]["admission_diagnosis"] == step
    quick = score_run(engine, "r", regression=False)["steps"]["admission_diagnosis"]
    assert quick["baselines"]["logistic_regression"]["reason"] == "it was not asked for"
    assert quick["metrics"] == {
        n: m for n, m in step["metrics"].items() if not n.startswith("gain_over_logistic_regression")
    }


def test_the_regression_knows_nothing_later_than_the_clock(engine):
    late = [told(i, p, [KINDS[i % 3][0]], KINDS[i % 3][1], at=361) for i, p in enumerate(PATIENTS["train"][:30])]
    CaseStore(engine).put_many([*late, told(100, PATIENTS["tuning"][0], ["J18.9"], "cough and sputum", at=361)])
    answer(engine, begin(engine), 100, PATIENTS["tuning"][0], "", "J18")
    base = score_run(engine, "r")["steps"]["admission_diagnosis"]["baselines"]["logistic_regression"]
    known = base["levels"]["brier"]["value"]
    assert known == pytest.approx(2 / 3, abs=0.05)  # three classes, no word to tell them by


def test_a_train_case_is_not_answered_by_its_own_label(engine):
    # Each word stands in the two cases of one patient alone, and its label is what the other patients never have.
    cases = [told(i, p, ["J18.9" if i % 2 else "I50.9"], "cough") for i, p in enumerate(PATIENTS["train"][:30])]
    own = PATIENTS["train"][40]
    cases += [told(50 + i, own, ["A41.9"], "zzz zzz") for i in range(2)]
    CaseStore(engine).put_many(cases)
    run = begin(engine)
    for i in range(2):
        answer(engine, run, 50 + i, own, "", "A41")
    base = score_run(engine, "r")["steps"]["admission_diagnosis"]["baselines"]["logistic_regression"]
    assert (base["value"], base["n"]) == (0.0, 2)


def test_why_there_is_no_regression(engine):
    CaseStore(engine).put_many([told(100, PATIENTS["tuning"][0], ["J18.9"], "cough")])
    answer(engine, begin(engine), 100, PATIENTS["tuning"][0], "", "J18")
    step = score_run(engine, "r")["steps"]["admission_diagnosis"]
    base = step["baselines"]["logistic_regression"]
    assert (base["value"], base["n"]) == (None, 0)
    assert "only 0 labelled cases" in base["reason"]
    assert "gain_over_logistic_regression" not in step["metrics"]


def test_sets_have_the_same_baselines(engine):
    kinds = [(["J18.9", "A41.9"], "cough and rigors"), (["J18.9"], "cough"), (["I50.9"], "swollen ankles")]
    train = [told(i, p, *kinds[i % 3], step="differential") for i, p in enumerate(PATIENTS["train"][:30])]
    patient = PATIENTS["tuning"][0]
    CaseStore(engine).put_many([*train, told(100, patient, *kinds[0], step="differential")])
    run = begin(engine, "differential", "set")
    answer(engine, run, 100, patient, "", "J18", "I50", chosen=("J18", "I50"), step="differential")
    step = score_run(engine, "r")["steps"]["differential"]
    assert step["metrics"]["set_f1_category"]["value"] == pytest.approx(2 / 4)
    majority, regression = (step["baselines"][name] for name in ("majority_class", "logistic_regression"))
    assert majority["value"] == pytest.approx(2 / 3)  # J18 alone stands in half of the train sets
    assert majority["levels"]["set_precision_category"]["value"] == 1.0
    assert regression["value"] == pytest.approx(1.0)
    assert step["metrics"]["gain_over_logistic_regression"]["value"] == pytest.approx(-0.5)
    assert step["metrics"]["gain_over_majority_class"]["value"] == pytest.approx(1 / 2 - 2 / 3)


def test_frequencies_leave_the_patient_out(engine):
    patients = PATIENTS["train"][:3]
    codes = (["J18.9"], ["J18.9"], ["I50.9"])
    CaseStore(engine).put_many(
        [case_of(i, p, *c, step="differential") for i, (p, c) in enumerate(zip(patients, codes, strict=True))]
    )
    run = begin(engine, "differential", "set")
    scorer = RecordScorer(engine, run)
    record = record_of("A41", chosen=("A41",), case_id="fhir-2", patient=f"fhir-{patients[2]}", step="differential")
    scorer.scored(StoredRecord(record, [], {}))
    train = train_labels(engine, scorer.truths("differential"), {"fhir": WARD})
    assert [sorted(t.every) for t in train] == [["J18"], ["J18"], ["I50"]]
    (found,) = majority_set_steps(scorer, [record], train)
    assert found.answer_set.chosen["category"] == {"J18"}


def discharged(number, patient, principal, emergency, strength=Strength.PROXY):
    labelled = case_of(number, patient, principal, step="discharge_diagnosis")
    label = Label(Coding(ICD, emergency, "x"), strength)
    labelled.truth["admission_diagnosis"] = GroundTruth(labelled.case.case_id, "admission_diagnosis", (label,))
    return labelled


def test_recorded_clinicians_by_hand(engine):
    patients = PATIENTS["tuning"][:5]
    CaseStore(engine).put_many(
        [
            discharged(1, patients[0], "J18.9", "J18.9"),  # the same code
            discharged(2, patients[1], "J18.9", "J18.1"),  # the same category
            discharged(3, patients[2], "J18.9", "J44.9"),  # the same chapter
            discharged(4, patients[3], "I50.9", "J18.9"),
            discharged(5, patients[4], "I50.9", "I50.9", Strength.RECORDED_AT_TIME),  # no ED code: not MIMIC
        ]
    )
    run = begin(engine, "discharge_diagnosis")
    for number, patient in enumerate(patients, start=1):
        answer(engine, run, number, patient, "", "I50", step="discharge_diagnosis")
    step = score_run(engine, "r")["steps"]["discharge_diagnosis"]
    base = step["baselines"]["recorded_clinicians"]
    assert (base["value"], base["n"]) == (0.5, 4)
    values = {name: m["value"] for name, m in base["levels"].items()}
    assert (values["accuracy_code"], values["accuracy_category"], values["accuracy_chapter"]) == (0.25, 0.5, 0.75)
    assert "brier" not in values
    assert step["metrics"]["gain_over_recorded_clinicians"]["value"] == pytest.approx(1 / 4 - 2 / 4)


def test_clinicians_answer_the_discharge_diagnosis_alone(engine):
    CaseStore(engine).put_many([case_of(1, PATIENTS["tuning"][0], "J18.9")])
    answer(engine, begin(engine), 1, PATIENTS["tuning"][0], "", "J18")
    assert "recorded_clinicians" not in score_run(engine, "r")["steps"]["admission_diagnosis"]["baselines"]
    assert clinician_steps(RecordScorer(engine, RunStore(engine).get("r")), []) is None
