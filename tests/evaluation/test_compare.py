"""Two runs compared case-step by case-step."""

import json

import pytest
from run_records import STEP, WARD, case_of, record_of, truth_of
from scipy.stats import binomtest

from clinical_data.errors import UsageError
from clinical_data.splits import split_of
from clinical_data.store.case_store import CaseStore
from evaluation.compare import compare_runs, comparison_table, mcnemar_p
from evaluation.matching import match, truth_rows
from evaluation.store import open_database
from evaluation.store.run_store import RunStore

HELD_OUT = [p for p in (f"p{i}" for i in range(60)) if split_of("fhir", p) == "held-out"]
LABELS = ["J18.9", "J18.9", "I50.9", "I50.9", "A41.9", None]
ONE = ["J18", "J18", "I50", "I50", "J18", "J18"]
OTHER = ["J18", "A41", "A41", "I50", "A41", "A41"]


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'w.db'}", create=True)
    CaseStore(engine).put_many(
        case_of(i, patient(i), *([code] if code else [])) for i, code in enumerate(LABELS)
    )  # fmt: skip
    yield engine
    engine.dispose()


def patient(number):
    return HELD_OUT[number // 2]  # two cases each


def store(engine, name, answers, *, first=0, statuses=(), settings=None, **config):
    runs = RunStore(engine)
    run = runs.begin(name, "inpatient", {"split": "held-out", **config}, {})
    for number, code in enumerate(answers, start=first):
        case_id = f"fhir-{number}"
        more = {"status": statuses[number]} if statuses else {}
        more |= {"settings": settings or {}, "seconds": 1.0}
        record = record_of(code, "N17", case_id=case_id, patient=f"fhir-{patient(number)}", **more)
        truth = truth_of(*([LABELS[number]] if LABELS[number] else []), case_id=case_id)
        runs.put(run.run_id, record, truth_rows(truth), match(record, truth, WARD), [])


def test_paired_by_hand(engine):
    store(engine, "one", ONE, strategy="rstar")
    store(engine, "other", OTHER, strategy="greedy")
    result = compare_runs(engine, "one", "other", seed=4)
    assert (result["a"], result["b"], result["differs"]) == ("one", "other", {"strategy": ["rstar", "greedy"]})
    step = result["steps"][STEP]
    assert (step["n"], step["labelled"]) == (6, 5)
    found = step["metrics"]["accuracy_category"]  # right: 0 1 2 3 against 0 3 4
    assert (found["a"], found["b"], found["n"], found["seed"]) == (pytest.approx(4 / 5), pytest.approx(3 / 5), 5, 4)
    assert found["difference"] == pytest.approx(1 / 5)
    assert (found["only_a"], found["only_b"]) == (2, 1)
    assert found["mcnemar_p"] == pytest.approx(1.0)
    # Per patient: +1 of 2, +1 of 2, -1 of 1; resamples run from -1 (the last alone) to 1/2.
    assert (found["low"], found["high"]) == (-1.0, 0.5)
    assert (found["discordant"], found["reason"]) == (3, "few discordant: 3 patients differ")
    assert (step["metrics"]["seconds"]["difference"], step["metrics"]["seconds"]["n"]) == (0.0, 6)
    assert "only_a" not in step["metrics"]["brier"]
    json.dumps(result, allow_nan=False)


def test_it_turns_round(engine):
    store(engine, "one", ONE)
    store(engine, "other", OTHER)
    there, back = compare_runs(engine, "one", "other"), compare_runs(engine, "other", "one")
    for name, metric in there["steps"][STEP]["metrics"].items():
        other = back["steps"][STEP]["metrics"][name]
        assert other["difference"] == pytest.approx(-metric["difference"])
        assert (other["low"], other["high"]) == (pytest.approx(-metric["high"]), pytest.approx(-metric["low"]))
        if "only_a" in metric:
            assert (other["only_a"], other["mcnemar_p"]) == (metric["only_b"], metric["mcnemar_p"])


def test_only_what_both_have_is_compared(engine):
    store(engine, "one", ONE[:4])
    store(engine, "other", OTHER[2:], first=2, statuses=["verified"] * 3 + ["not_applicable", "verified", "verified"])
    result = compare_runs(engine, "one", "other")
    assert result["steps"][STEP]["n"] == 1
    assert "2 case-steps of one are not in the other run" in result["notes"]
    assert "2 case-steps of other are not in the other run" in result["notes"]


def test_mcnemar():
    assert mcnemar_p(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)  # by hand: P(X <= 1) of Binomial(6, 1/2), twice
    assert mcnemar_p(3, 9) == pytest.approx(binomtest(3, 12).pvalue)
    assert mcnemar_p(0, 0) == 1.0


def test_what_does_not_compare_is_refused(engine):
    store(engine, "one", ONE[:2])
    store(engine, "apart", OTHER[2:], first=2)
    store(engine, "ahead", OTHER[:2], settings={"chart_access": "prospective"})
    with pytest.raises(UsageError, match="share no case-step"):
        compare_runs(engine, "one", "apart")
    with pytest.raises(UsageError, match="hindsight, of run ahead prospective"):
        compare_runs(engine, "one", "ahead")
    with pytest.raises(UsageError, match="itself"):
        compare_runs(engine, "one", "one")
    with pytest.raises(UsageError, match="no run named missing"):
        compare_runs(engine, "one", "missing")


@pytest.mark.parametrize("order", [("one", "steered"), ("steered", "one")])
def test_a_run_that_labels_steered_beyond_the_train_split_is_refused_on_either_side(engine, order):
    store(engine, "one", ONE[:2])
    store(engine, "steered", OTHER[:2], settings={"value": "ground_truth"})
    with pytest.raises(UsageError, match="no metrics"):
        compare_runs(engine, *order)


def test_other_value_sources_are_said(engine):
    store(engine, "one", ONE)
    store(engine, "other", OTHER, settings={"value": "rap"})
    assert "value sources differ: one self_consistency, other rap" in compare_runs(engine, "one", "other")["notes"]


def test_the_table(engine):
    store(engine, "one", ONE)
    store(engine, "other", OTHER)
    rows = {row["figure"]: row for row in comparison_table(compare_runs(engine, "one", "other"))}
    row = rows["accuracy category"]
    assert (row["one"], row["other"], row["n"]) == ("0.80", "0.60", "5")
    assert row["difference"] == "0.20 (-1.00 to 0.50)"
    assert (row["alone"], row["McNemar p"]) == ("2 / 1", "1.000")
    assert rows["seconds"]["difference"] == "0.00 (0.00 to 0.00)"
    assert row["remark"] == "few discordant"
    assert {r["step"] for r in rows.values()} == {STEP.replace("_", " ")}
    words = {name: rows[name]["better"] for name in ("accuracy category", "brier", "log score", "abstain")}
    assert words == {"accuracy category": "high", "brier": "low", "log score": "high", "abstain": ""}
    assert "McNemar p" not in rows["brier"]
