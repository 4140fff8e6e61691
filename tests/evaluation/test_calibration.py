"""Calibration and coverage against values worked by hand, numpy and scikit-learn."""

import math
import tracemalloc

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from evaluation.metrics import ScoredStep, log_score, summarise, weighted_metric
from evaluation.metrics.calibration import (
    abstentions,
    confident_miss,
    expected_calibration_error,
    risk_coverage,
    verified_miss,
)


def step(number, confidence, right, patient=None, status="unverified", **more):
    more.setdefault("parseable", confidence is not None)
    return ScoredStep(
        f"fhir-{number}", "s", 1, "fhir", patient or f"p{number}", status, {"category": right}, labelled=True,
        confidence=confidence, right=right, **more,
    )  # fmt: skip


def steps_of(pairs):
    return [step(i, c, r) for i, (c, r) in enumerate(pairs)]


def test_calibration_error_by_hand():
    # Bin (0.8, 0.9]: 0.9, 0.85, one right: |0.5 - 0.875|, two of five. Bin (0.1, 0.2]: three of 0.2, one right.
    found = expected_calibration_error(steps_of([(0.9, 1), (0.85, 0), (0.2, 0), (0.2, 1), (0.2, 0)]), 0)
    assert found.value == pytest.approx(0.4 * 0.375 + 0.6 * abs(1 / 3 - 0.2))
    assert (found.n, found.seed) == (5, 0)
    assert found.low <= found.value <= found.high
    low, high = found.detail["bins"]
    assert low == {
        "above": 0.1,
        "up_to": 0.2,
        "n": 3,
        "probability": pytest.approx(0.2),
        "accuracy": pytest.approx(1 / 3),
        "low": 0.0,
        "high": 1.0,
    }
    assert (high["above"], high["up_to"], high["n"], high["accuracy"]) == (0.8, 0.9, 2, 0.5)
    assert found.to_json()["bins"] == found.detail["bins"]


def test_bins_agree_with_scikit_learn():
    rng = np.random.default_rng(2)
    confidence, right = rng.random(400), rng.integers(0, 2, 400)
    found = expected_calibration_error(steps_of(zip(confidence.tolist(), right.tolist(), strict=True)), 0)
    accuracy, probability = calibration_curve(right, confidence, n_bins=10, strategy="uniform")
    bins = found.detail["bins"]
    assert [b["accuracy"] for b in bins] == pytest.approx(accuracy.tolist())
    assert [b["probability"] for b in bins] == pytest.approx(probability.tolist())
    shares = np.array([b["n"] for b in bins]) / 400
    assert found.value == pytest.approx(float(shares @ np.abs(accuracy - probability)))


def test_bins_take_their_upper_limit_and_certainty():
    bins = expected_calibration_error(steps_of([(0.1, 1), (0.3, 1), (1.0, 1), (0.0, 0)]), 0).detail["bins"]
    assert [(b["above"], b["n"]) for b in bins] == [(0.0, 2), (0.2, 1), (0.9, 1)]


def test_a_step_without_an_answer_has_no_probability_to_calibrate():
    assert expected_calibration_error([step(1, None, 0), step(2, 0.5, 1)], 0).n == 1
    nothing = expected_calibration_error([], 0)
    assert (nothing.value, nothing.n, nothing.detail["bins"]) == (None, 0, [])


def test_risk_coverage_by_hand():
    # In order of confidence right, wrong, right, wrong: risks 0, 1/2, 1/3, 2/4.
    found = risk_coverage(steps_of([(0.9, 1), (0.7, 0), (0.6, 1), (0.1, 0)]), 0)
    area = found["area_under_risk_coverage"]
    assert area.value == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found["accuracy_at_coverage_50"].value == pytest.approx(0.5)
    assert found["accuracy_at_coverage_80"].value == pytest.approx(0.5)  # ceil(3.2) = 4
    curve = {round(p["coverage"], 2): p["risk"] for p in area.detail["curve"]}
    assert len(curve) == 20
    assert (curve[0.25], curve[0.5], curve[0.75], curve[1.0]) == pytest.approx((0, 1 / 2, 1 / 3, 1 / 2))


def test_equal_probabilities_enter_together_in_any_order():
    # After one right answer three of 0.5, one of them wrong: expected mistakes 0, 1/3, 2/3, 1 of 1, 2, 3, 4.
    pairs = [(0.9, 1), (0.5, 0), (0.5, 1), (0.5, 1)]
    for order in (pairs, pairs[::-1]):
        found = risk_coverage(steps_of(order), 0)
        assert found["area_under_risk_coverage"].value == pytest.approx((0 + 1 / 6 + 2 / 9 + 1 / 4) / 4)
        assert found["accuracy_at_coverage_50"].value == pytest.approx(1 - 1 / 6)


def test_memory_of_the_curve_grows_with_the_case_steps_not_with_their_square():
    # 2,000 different probabilities: a table of case-steps by probabilities would take 32 MB, twice, and its products.
    rng = np.random.default_rng(0)
    steps = [step(i, float(c), int(c > 0.5), f"p{i}") for i, c in enumerate(rng.random(2_000))]
    tracemalloc.start()
    try:
        risk_coverage(steps, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6


def test_area_agrees_with_a_plain_loop_in_every_resample():
    rng = np.random.default_rng(4)
    pairs = [(float(c), int(r)) for c, r in zip(rng.random(30), rng.integers(0, 2, 30), strict=True)]
    patients = [f"p{i % 11}" for i in range(30)]
    steps = [step(i, c, r, p) for i, ((c, r), p) in enumerate(zip(pairs, patients, strict=True))]

    def plain(weights):
        found = []
        for row in weights:
            drawn = [p for p, times in zip(pairs, row, strict=True) for _ in range(int(times))]
            drawn.sort(key=lambda p: -p[0])  # equal ones are the same case-step, so their order does not matter
            wrong = np.cumsum([1 - r for _, r in drawn])
            found.append(np.mean(wrong / np.arange(1, len(drawn) + 1)))
        return np.array(found)

    ours, theirs = risk_coverage(steps, 3)["area_under_risk_coverage"], weighted_metric(plain, patients, 3)
    assert ours.value == pytest.approx(theirs.value)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_a_missing_answer_is_the_least_confident_mistake():
    found = risk_coverage([step(1, None, 0), step(2, 0.01, 1)], 0)
    assert found["area_under_risk_coverage"].value == pytest.approx((0 + 1 / 2) / 2)


def test_misses_count_whether_or_not_the_system_abstained():
    assert confident_miss(step(1, 0.5, 0, status="abstain")) == 1.0
    assert confident_miss(step(1, 0.49, 0)) == 0.0
    assert confident_miss(step(1, 0.99, 1)) == 0.0
    assert confident_miss(step(1, None, 0, status="failed")) == 0.0
    found = [verified_miss(step(1, 0.2, r, status=s)) for r, s in ((0, "verified"), (1, "verified"), (0, "abstain"))]
    assert found == [1.0, 0.0, 0.0]
    assert confident_miss(ScoredStep("c", "s", 1, "fhir", "p", "verified")) is None


def test_abstentions_by_hand():
    steps = [
        step(1, 0.9, 1), step(2, 0.8, 0), step(3, 0.7, 1, status="verified"),
        step(4, 0.1, 1, status="abstain"), step(5, 0.1, 0, status="abstain"), step(6, None, 0, status="failed"),
    ]  # fmt: skip
    found = {name: (m.value, m.n) for name, m in abstentions(steps, 0).items()}
    assert found == {
        "coverage": (0.5, 6), "accuracy_when_answered": (pytest.approx(2 / 3), 3), "accuracy_of_abstained": (0.5, 2)
    }  # fmt: skip
    assert summarise(steps, "category", 0)["coverage"].value == 0.5


def test_log_score_by_hand():
    assert log_score({"a": 0.25, "b": 0.75}, "a") == pytest.approx(math.log(0.25))
    assert log_score({"a": 1.0}, "b") == log_score({}, None) == pytest.approx(math.log(1e-6))


def test_change_of_the_log_score_between_occurrences():
    def at(case, occurrence, score):
        return ScoredStep(
            case, "s", occurrence, "fhir", case, "verified", {"category": 0}, labelled=True, log_score=score
        )

    steps = [at("a", 2, -1.0), at("a", 1, -3.0), at("a", 3, -1.5), at("b", 1, -2.0)]
    found = summarise(steps, "category", 0)["log_score_change"]
    assert (found.value, found.n) == (pytest.approx((2.0 - 0.5) / 2), 2)
    assert "log_score_change" not in summarise(steps[3:], "category", 0)
