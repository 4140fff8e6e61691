"""From a stored record to what metrics know of it, by hand."""

import math

import pytest
from run_records import STEP, WARD, case_of, record_of, request_of

from clinical_data.catalogue import ITEM_SYSTEM
from clinical_data.errors import UsageError
from clinical_data.sources.step_truth import ACUITY_SYSTEM
from clinical_data.splits import split_of
from clinical_data.store.case_store import CaseStore
from evaluation.record import CandidateRecord
from evaluation.record_scoring import RecordScorer, rescored
from evaluation.store import open_database
from evaluation.store.run_store import RunStore, StoredRecord

TRAIN = [p for p in (f"p{i}" for i in range(60)) if split_of("fhir", p) == "train"]
HELD_OUT = [p for p in (f"p{i}" for i in range(60)) if split_of("fhir", p) == "held-out"]
PATHWAY = """
catalogue: v1
steps:
  - {{name: admission_diagnosis, truth: admission_diagnosis, opening: [ecg],
      answer: {{form: closed, vocabulary: {{fhir: general-ward-icd10}}}}}}
  - {{name: differential, truth: differential,
      answer: {{form: set, most: 3, vocabulary: {{fhir: general-ward-icd10}}}}}}
  - {{name: triage, truth: triage, answer: {{form: closed, vocabulary: {{fhir: triage-acuity}}}}}}
  - {{name: workup, truth: workup, answer: {{form: set, most: 5, vocabulary: {{fhir: {items}}}}}}}
"""
ITEMS = """
name: items
version: 1
system: wardstar:catalogue
entries: [{code: lactate, display: lactate}, {code: cultures, display: cultures}, {code: lipase, display: lipase}]
"""


@pytest.fixture
def scorer_of(tmp_path):
    """Returns a function that stores labelled cases and gives the scorer of a run over them."""
    (tmp_path / "items.yaml").write_text(ITEMS)
    engine = open_database(f"sqlite:///{tmp_path / 'w.db'}", create=True)

    def make(*cases, **config):
        CaseStore(engine).put_many(cases)
        text = PATHWAY.format(items=tmp_path / "items.yaml")
        run = RunStore(engine).begin("r", "inpatient", {"pathway": {"text": text}, **config}, {})
        return RecordScorer(engine, run)

    yield make
    engine.dispose()


def score(scorer, record):
    return scorer.scored(StoredRecord(record, [], {}))


def test_probabilities_of_one_answer(scorer_of):
    scorer = scorer_of(case_of(1, TRAIN[0], "I50.9"))
    found = score(scorer, record_of("J18", "I50", "A41", patient=f"fhir-{TRAIN[0]}"))  # 0.5, 0.25, 0.25
    assert (found.confidence, found.right, found.rank) == (0.5, 0, 2)
    assert found.log_score == pytest.approx(math.log(0.25))
    assert found.brier == pytest.approx(0.25 + 0.0625 + 0.5625)
    failed = score(scorer, record_of("I50", status="failed"))
    assert (failed.confidence, failed.right, failed.log_score) == (None, 0, pytest.approx(math.log(1e-6)))


def test_must_not_miss_by_the_first_and_the_first_five(scorer_of):
    scorer = scorer_of(case_of(1, TRAIN[0], "A41.9"), case_of(2, TRAIN[1], "I50.9"))
    assert score(scorer, record_of("A41")).must_not_miss == (1.0, 1.0)
    assert score(scorer, record_of("J18", "A41", status="abstain")).must_not_miss == (0.0, 1.0)
    late = record_of("J18", "I50", "N17", "K85", "K81", "A41")
    assert score(scorer, late).must_not_miss == (0.0, 0.0)
    assert score(scorer, record_of(status="failed")).must_not_miss == (0.0, 0.0)
    assert score(scorer, record_of("A41", case_id="fhir-2")).must_not_miss is None  # heart failure is not on the list


def test_required_items_of_the_recorded_diagnosis(scorer_of):
    scorer = scorer_of(case_of(1, TRAIN[0], "I21.4"), case_of(2, TRAIN[1], "A41.9"), case_of(3, TRAIN[2], "L03.1"))
    # Infarction requires ecg and troponin; the opening answers the ecg.
    assert score(scorer, record_of("J18", requests=(request_of("troponin_ck", "pending"),))).required == (1, 1)
    assert score(scorer, record_of("J18", requests=(request_of("lipase"),))).required == (0, 1)
    sepsis = record_of("A41", case_id="fhir-2", requests=(request_of("lactate"), request_of("blood_count")))
    assert score(scorer, sepsis).required == (2, 4)
    assert score(scorer, record_of("L03", case_id="fhir-3")).required is None


def test_a_set_beside_its_labels(scorer_of):
    scorer = scorer_of(case_of(1, TRAIN[0], "A41.9", "J18.9", "Z99.9", step="differential"))
    record = record_of("J18", "I50", "A41", step="differential", chosen=("J18", "I50"))
    found = score(scorer, record)
    sets = found.answer_set
    assert sets.chosen["category"] == {"J18", "I50"}
    assert sets.recorded["category"] == {"A41", "J18", "http://hl7.org/fhir/sid/icd-10-cm|Z99.9"}
    assert sets.chosen["chapter"] == {"10", "9"}
    assert sets.found_5 == pytest.approx(2 / 3)
    assert (found.brier, found.confidence, found.log_score) == (None, None, None)
    assert found.must_not_miss == (0.5, 1.0)  # sepsis is among the answers and was not chosen, pneumonia was
    empty = score(scorer, record_of(step="differential", status="failed"))
    assert (dict(empty.answer_set.chosen), empty.answer_set.found_5) == ({}, 0.0)


def test_urgency(scorer_of):
    scorer = scorer_of(case_of(1, TRAIN[0], "2", step="triage", system=ACUITY_SYSTEM))
    assert score(scorer, record_of("3", step="triage", vocabulary="triage-acuity", system=ACUITY_SYSTEM)).urgency == (
        3,
        2,
    )
    assert score(scorer, record_of(step="triage", vocabulary="triage-acuity")).urgency == (None, 2)


def test_workup_costs_and_what_the_admission_diagnosis_requires(scorer_of):
    case = case_of(1, TRAIN[0], "lactate", "cultures", step="workup", system=ITEM_SYSTEM)
    case.truth.update(case_of(1, TRAIN[0], "A41.9").truth)
    scorer = scorer_of(case)
    items = ("lactate", "lipase")
    found = score(scorer, record_of(*items, step="workup", system=ITEM_SYSTEM, chosen=items, vocabulary="items"))
    assert found.answer_set.cost == pytest.approx(12 + 7)
    assert found.required == (1, 4)  # of sepsis
    assert found.must_not_miss is None


def test_what_needs_no_label(scorer_of):
    scorer = scorer_of(case_of(1, TRAIN[0]))
    asked = (request_of("a"), request_of("b", "pending"), request_of("c", "not_in_source"), request_of("d", "pending"))

    def concluded(key, multiplicity):
        return CandidateRecord(node=1, turns=(), answer_key=key, multiplicity=multiplicity, value=0.5, agreement=None)

    candidates = (concluded("J18", 2), concluded("I50", 3), concluded("J18", 2), concluded(None, 1))
    found = score(scorer, record_of("J18", requests=asked, candidates=candidates, draws=8, unparseable=2))
    assert (found.labelled, found.unanswered) == (False, 3)
    assert found.states == {"recorded": 1, "pending": 2, "not_in_source": 1}
    assert found.majority == pytest.approx(4 / 8)
    assert (found.draws, found.unparseable_draws) == (8, 2)
    assert score(scorer, record_of("J18", candidates=candidates[3:])).majority is None


@pytest.mark.parametrize("split", ["train", "held-out", None])
def test_labels_may_steer_cases_of_the_train_split_alone(scorer_of, split):
    scorer = scorer_of(case_of(1, TRAIN[0], "A41.9"), case_of(2, HELD_OUT[0], "A41.9"), split=split)
    steered = {"settings": {"value": "ground_truth"}}
    if split == "train":
        assert score(scorer, record_of("A41", **steered)).right == 1
    else:
        with pytest.raises(UsageError, match="no metrics"):
            score(scorer, record_of("A41", **steered))
    with pytest.raises(UsageError, match="outside of the train split"):  # whatever split the run was asked for
        score(scorer, record_of("A41", case_id="fhir-2", **steered))


def test_the_step_name_is_the_default_truth(scorer_of):
    assert scorer_of(case_of(1, TRAIN[0], "A41.9")).truths(STEP)["fhir-1"].labels
    assert WARD.system


def test_records_to_score_are_held_without_their_search(scorer_of):
    """A tree weighs more than all figures of its case-step; what it says is counted before it goes."""
    scorer = scorer_of(case_of(1, TRAIN[0], "I50.9"))
    said = [CandidateRecord(node=i, turns=(), answer_key=k, multiplicity=m, value=0.5, agreement=None)
            for i, (k, m) in enumerate((("I50", 3), ("J18", 1)))]  # fmt: skip
    record = record_of("I50", patient=f"fhir-{TRAIN[0]}", candidates=said, tree={"nodes": []})
    engine = scorer._engine
    store = RunStore(engine)
    run = store.get("r")
    store.put(run.run_id, record, [], {}, [])
    ((kept, scored),) = rescored(store, run, scorer)
    assert (kept.tree, kept.candidates, kept.opening) == (None, (), ())
    assert scored.majority == 0.75
    assert kept.ranked == record.ranked
