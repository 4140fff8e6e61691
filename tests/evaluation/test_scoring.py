"""Scoring stored runs against the labels in the database, with both baselines."""

import json
import math
from pathlib import Path

import pytest
from run_records import STEP, WARD, case_of, record_of, request_of, truth_of

from clinical_data.errors import UsageError
from clinical_data.splits import split_of
from clinical_data.store.case_store import CaseStore
from evaluation.baselines import TrainLabel, majority_marks, train_labels
from evaluation.matching import match, truth_rows
from evaluation.metrics import ScoredStep
from evaluation.metrics.calibration import LEAST_PROBABILITY
from evaluation.scoring import result_remarks, result_rows, result_table, score_run
from evaluation.store import open_database
from evaluation.store.run_store import RunStore

TRAIN_PATIENTS = [p for p in (f"p{i}" for i in range(60)) if split_of("fhir", p) == "train"]
TEST_PATIENTS = [p for p in (f"p{i}" for i in range(60)) if split_of("fhir", p) == "held-out"]
STEP_TEXT = "steps: [{{name: {step}, truth: {step}, answer: {{vocabulary: {{fhir: {file}}}}}}}]"

# number, patient, label, answer of the run, answer of the full-information run (None: not in it)
CASES = [
    (1, TRAIN_PATIENTS[0], "J18.9", "J18", "J18"),
    (2, TRAIN_PATIENTS[1], "J13", "J18", "J18"),
    (3, TRAIN_PATIENTS[2], "J18.1", "I50", "J18"),
    (4, TRAIN_PATIENTS[3], "I50.9", "I50", "A41"),
    (5, TEST_PATIENTS[0], "I50.1", "I50", "I50"),
    (6, TEST_PATIENTS[0], "J18.0", "J18", None),
    (7, TEST_PATIENTS[1], "K85.9", "A41", None),  # outside the vocabulary
    (8, TEST_PATIENTS[2], None, "A41", None),  # no label
]


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'w.db'}", create=True)
    entries = [{"code": e.code, "display": e.display} for e in WARD.entries]
    (tmp_path / "ward.yaml").write_text(
        json.dumps({"name": WARD.name, "version": 1, "system": WARD.system, "entries": entries})
    )
    CaseStore(engine).put_many(case_of(n, p, *([label] if label else [])) for n, p, label, *_ in CASES)
    yield engine
    engine.dispose()


def config_of(engine, strategy="rstar", sha256="0", **more):
    text = STEP_TEXT.format(step=STEP, file=Path(engine.url.database).parent / "ward.yaml")
    pathway = {"name": "inpatient", "sha256": sha256, "text": text}
    return {"strategy": strategy, "pathway": pathway, "steps": [STEP], **more}


def store_run(engine, name, column, **config):
    store = RunStore(engine)
    run = store.begin(name, "inpatient", config_of(engine, **config), {})
    for case in CASES:
        number, patient, label, answer = *case[:3], case[column]
        if answer is None:
            continue
        truth = truth_of(*([label] if label else []), case_id=f"fhir-{number}")
        record = record_of(
            answer, *("J18", "A41")[: answer == "I50"], case_id=f"fhir-{number}", patient=f"fhir-{patient}",
            requests=(request_of("a", cost=8), request_of("b", "pending", 4)), peer_agreement=0.5,
            tokens={"prefilled": 10, "sampled": 5, "reused": 20}, strategy=run.config["strategy"],
        )  # fmt: skip
        store.put(run.run_id, record, truth_rows(truth), match(record, truth, WARD), [])
    return run


@pytest.fixture
def run(engine):
    return store_run(engine, "r", 3)


def test_scores_by_hand(engine, run):
    score = score_run(engine, "r")
    assert set(score) == {"run", "steps"}
    assert score["run"] == "r"
    assert list(score["steps"]) == [STEP]
    step = score["steps"][STEP]
    assert set(step) == {"n", "metrics", "baselines", "taught"}
    assert step["taught"] == {"train": 0, "tuning": 0}
    assert step["n"] == 7  # labelled case-steps
    values = {name: (m["value"], m["n"]) for name, m in step["metrics"].items()}
    assert next(iter(values)) == "accuracy_category"
    assert values["accuracy_category"] == (pytest.approx(4 / 7), 7)  # 1, 4, 5, 6
    assert values["accuracy_block"] == (pytest.approx(5 / 7), 7)  # and 2: J13 is in the block of J18
    assert values["accuracy_chapter"] == (pytest.approx(5 / 7), 7)
    assert values["accuracy_code"] == (0.0, 7)
    assert values["top_3"] == (pytest.approx(5 / 7), 7)  # case 3 has J18 second
    assert values["mrr"] == (pytest.approx(4.5 / 7), 7)
    assert values["truth_outside_vocabulary"] == (pytest.approx(2 / 7), 7)  # K85 and J13
    assert values["unanswerable_requests"] == (0.5, 8)
    assert values["request_cost_usd"] == (12.0, 8)
    assert values["tokens_prefilled"] == (10.0, 8)
    assert all({"value", "low", "high", "n"} <= set(m) for m in step["metrics"].values())
    json.dumps(score, allow_nan=False)


def test_majority_class_leaves_the_patient_out(engine, run):
    base = score_run(engine, "r")["steps"][STEP]["baselines"]["majority_class"]
    # Train labels in the vocabulary: J18 (case 1), J18 (case 3), I50 (case 4). J13 has no answer in it.
    assert base["n_train"] == 3
    # 1: left J18, I50 -> tie, I50 by name: wrong. 2: J18: wrong. 3: I50: wrong. 4: J18: wrong. 5: J18: wrong.
    # 6: J18: right. 7: J18: wrong.
    assert (base["value"], base["n"]) == (pytest.approx(1 / 7), 7)
    assert base["levels"]["accuracy_category"]["value"] == base["value"]
    # By chapter, 10 (respiratory) twice and 9 once: 1 and 3 tie, and "10" comes before "9": 1, 2, 3 and 6 right.
    assert base["levels"]["accuracy_chapter"]["value"] == pytest.approx(4 / 7)
    gain = score_run(engine, "r")["steps"][STEP]["metrics"]["gain_over_majority_class"]
    assert gain["value"] == pytest.approx(3 / 7)


def test_class_frequencies_by_hand(engine, run):
    levels = score_run(engine, "r", regression=False)["steps"][STEP]["baselines"]["majority_class"]["levels"]
    # Others' labels and 1, of J18, I50, A41, N17. Cases 1 and 3: 2, 2, 1, 1. 4: 3, 1, 1, 1. 2, 5 to 7: 3, 2, 1, 1.
    given = [2 / 6, LEAST_PROBABILITY, 2 / 6, 1 / 6, 2 / 7, 3 / 7, LEAST_PROBABILITY]  # to the labels of 1 to 7
    assert levels["log_score"]["value"] == pytest.approx(sum(map(math.log, given)) / 7)
    squares = [22 / 36, 15 / 49 + 1, 22 / 36, 36 / 36, 36 / 49, 22 / 49, 15 / 49 + 1]
    assert levels["brier"]["value"] == pytest.approx(sum(squares) / 7)
    assert levels["top_3"]["value"] == pytest.approx(5 / 7)  # whatever the vocabulary has
    assert levels["mrr"]["value"] == pytest.approx((1 / 2 + 0 + 1 / 2 + 1 / 3 + 1 / 2 + 1 + 0) / 7)  # ties by name
    assert "expected_calibration_error" not in levels


def test_majority_is_counted_per_source():
    train = [TrainLabel("a", f"p{i}", {"group": "x"}) for i in range(3)] + [TrainLabel("b", "q", {"group": "y"})]
    scored = [
        ScoredStep("b-1", "s", 1, "b", "other", "verified", {"group": 0}, {"group": "y"}),
        ScoredStep("b-2", "s", 1, "b", "q", "verified", {"group": 0}, {"group": "y"}),  # nobody else to count
        ScoredStep("a-1", "s", 1, "a", "p0", "verified", {"group": 0}, {"group": "y"}),
        ScoredStep("a-2", "s", 1, "a", "p9", "verified"),  # no label
    ]
    assert majority_marks(train, scored, "group") == {0: 1, 2: 0}


def test_train_labels_come_from_the_train_split_alone(engine):
    truths = CaseStore(engine).truth_of_step(STEP)
    found = train_labels(engine, truths, {"fhir": WARD})
    assert [(t.patient_id, t.classes["category"]) for t in found] == [
        (f"fhir-{TRAIN_PATIENTS[0]}", "J18"),
        (f"fhir-{TRAIN_PATIENTS[2]}", "J18"),
        (f"fhir-{TRAIN_PATIENTS[3]}", "I50"),
    ]
    assert train_labels(engine, truths, {}) == []


def test_without_a_full_information_run_there_is_a_reason(engine, run):
    step = score_run(engine, "r")["steps"][STEP]
    base = step["baselines"]["full_information"]
    assert (base["value"], base["n"]) == (None, 0)
    assert "r-full-information" in base["reason"]
    assert "gain_over_full_information" not in step["metrics"]


def test_full_information_is_compared_where_both_have_a_case_step(engine, run):
    store_run(engine, "r-full-information", 4, strategy="full-information", settings={"x": 1})
    step = score_run(engine, "r")["steps"][STEP]
    base = step["baselines"]["full_information"]
    assert (base["value"], base["n"]) == (pytest.approx(3 / 5), 5)  # 1, 3, 5 of cases 1 to 5
    gain = step["metrics"]["gain_over_full_information"]
    assert (gain["value"], gain["n"]) == (pytest.approx(0.0), 5)  # 1, 4, 5 here: three too
    own = score_run(engine, "r-full-information")["steps"][STEP]["baselines"]["full_information"]
    assert (own["value"], "itself" in own["reason"]) == (None, True)


def test_a_named_baseline_must_be_one(engine, run):
    store_run(engine, "greedy", 4, strategy="greedy")
    store_run(engine, "elsewhere", 4, strategy="full-information", sha256="1")
    store_run(engine, "good", 4, strategy="full-information")
    for name, message in (("greedy", "strategy"), ("elsewhere", "pathway"), ("missing", "no run named")):
        with pytest.raises(UsageError, match=message):
            score_run(engine, "r", baseline_run=name)
    step = score_run(engine, "r", baseline_run="good")["steps"][STEP]
    assert step["baselines"]["full_information"]["n"] == 5


def test_changed_labels_are_scored_again_and_stored(engine, run):
    before = score_run(engine, "r")
    assert before == score_run(engine, "r")
    CaseStore(engine).put(case_of(3, TRAIN_PATIENTS[2], "I50.9"))
    CaseStore(engine).put(case_of(8, TEST_PATIENTS[2], "A41.9"))
    after = score_run(engine, "r")["steps"][STEP]
    assert after["n"] == 8
    assert after["metrics"]["accuracy_category"]["value"] == pytest.approx(6 / 8)
    store = RunStore(engine)
    stored = store.record(run.run_id, "fhir-8", STEP)
    assert (stored.match["category"], stored.truth[0]["code"]) == (1, "A41.9")
    assert store.record(run.run_id, "fhir-3", STEP).match["category"] == 1


def test_seed_decides_the_intervals_and_nothing_else(engine, run):
    one, other = (score_run(engine, "r", seed=s)["steps"][STEP]["metrics"] for s in (0, 1))
    assert score_run(engine, "r", seed=0)["steps"][STEP]["metrics"] == one
    assert {n: m["value"] for n, m in one.items()} == {n: m["value"] for n, m in other.items()}
    assert one != other


def test_every_status_is_counted(engine):
    store = RunStore(engine)
    run = store.begin("states", "inpatient", config_of(engine), {})
    kinds = [("failed", ()), ("not_applicable", ()), ("abstain", ("I50",)), ("unverified", ())]
    for (number, patient, label, *_), (status, answers) in zip(CASES[:4], kinds, strict=True):
        record = record_of(*answers, status=status, case_id=f"fhir-{number}", patient=f"fhir-{patient}")
        truth = truth_of(label, case_id=f"fhir-{number}")
        store.put(run.run_id, record, truth_rows(truth), match(record, truth, WARD), [])
    step = score_run(engine, "states")["steps"][STEP]
    values = {name: (m["value"], m["n"]) for name, m in step["metrics"].items()}
    assert step["n"] == 3
    assert values["accuracy_category"] == (0.0, 3)
    assert values["brier"] == (pytest.approx((1 + 2 + 1) / 3), 3)
    assert values["not_applicable"] == (0.25, 4)
    assert [values[s] for s in ("failed", "abstain", "unverified", "verified")] == [(pytest.approx(1 / 3), 3)] * 3 + [
        (0.0, 3)
    ]


def test_a_run_without_case_steps(engine):
    RunStore(engine).begin("empty", "inpatient", config_of(engine), {})
    assert score_run(engine, "empty") == {"run": "empty", "steps": {}}
    assert result_table(score_run(engine, "empty")) == []


def test_rows_for_tables(engine, run):
    score = score_run(engine, "r")
    rows = result_rows(score)
    keys = {"step", "method", "metric", "value", "low", "high", "n"}
    assert all(set(row) == keys for row in rows)
    assert {row["method"] for row in rows} == {"run", "majority_class", "logistic_regression", "full_information"}
    own = {row["metric"]: row["value"] for row in rows if row["method"] == "run"}
    assert own == {name: m["value"] for name, m in score["steps"][STEP]["metrics"].items()}
    table = {row["figure"]: row for row in result_table(score)}
    assert table["accuracy category"]["run"].startswith("0.57 (")
    assert table["accuracy category"]["majority_class"].startswith("0.14 (")
    assert table["accuracy category"]["full_information"] == "-"
    assert "tokens reused" not in table


def test_the_table_headlines_no_category(engine, run):
    figures = [row["figure"] for row in result_table(score_run(engine, "r", regression=False))]
    assert figures[:5] == [
        "accuracy ccsr", "gain over majority class (ccsr)",
        "accuracy chapter", "gain over majority class (chapter)", "accuracy block",
    ]  # fmt: skip
    assert figures[5:8] == ["accuracy category", "gain over majority class (category)", "accuracy code"]
    assert figures.index("accuracy when answered") == figures.index("coverage") + 1


def test_gains_at_the_headline_levels_by_hand(engine, run):
    metrics = score_run(engine, "r", regression=False)["steps"][STEP]["metrics"]
    # By chapter the run is right in 1, 2, 4, 5, 6, the majority class in 1, 2, 3, 6.
    gain = metrics["gain_over_majority_class_chapter"]
    assert (gain["value"], gain["level"], gain["n"]) == (pytest.approx(1 / 7), "chapter", 7)
    assert (gain["discordant"], gain["reason"]) == (3, "few discordant: 3 patients differ")
    assert metrics["gain_over_majority_class"]["level"] == "category"


def test_a_cell_says_its_own_n_and_an_empty_one_why(engine, run):
    store_run(engine, "r-full-information", 4, strategy="full-information")
    score = score_run(engine, "r", regression=False)
    row = next(r for r in result_table(score) if r["figure"] == "accuracy category")
    assert row["n"] == "7"
    assert row["full_information"].endswith("), n 5")
    assert ", n" not in row["run"] + row["majority_class"]
    remarks = result_remarks(score)
    assert row["logistic_regression"] == "-"
    words = STEP.replace("_", " ")
    assert f"{words}: logistic regression: it was not asked for" in remarks
    assert any(r.startswith(f"{words}: majority class has no expected calibration error, ") for r in remarks)
    assert any("gain over majority class (chapter)" in r and "few discordant: 3" in r for r in remarks)
