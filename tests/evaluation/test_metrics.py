"""Metrics against values worked by hand, scipy and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from evaluation.metrics import ScoredStep, brier_score, clustered_ratio, difference, mean_metric, summarise


def step(number, patient, category, **more):
    more.setdefault("labelled", category is not None)
    match = {} if category is None else {"category": category}
    status = more.pop("status", "verified")
    return ScoredStep(f"fhir-{number}", "s", 1, "fhir", patient, status, match, **more)


def test_a_mean_of_nothing_is_none_with_a_reason():
    found = mean_metric([], [], 0)
    assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)
    assert found.reason
    assert set(found.to_json()) == {"value", "low", "high", "n", "reason"}


def test_one_patient_gives_no_interval():
    found = mean_metric([1.0, 0.0], ["p", "p"], 0)
    assert (found.value, found.low, found.high, found.n) == (0.5, None, None, 2)
    assert found.reason


def test_nothing_to_divide_by():
    assert clustered_ratio([0.0, 0.0], [0.0, 0.0], ["a", "b"], 0).value is None


def test_two_patients_by_hand():
    # Resamples are aa (mean 1), ab, ba (mean 3/4: two items of a, two of b), bb (mean 1/2).
    found = mean_metric([1.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b"], 0)
    assert (found.value, found.low, found.high, found.n) == (0.75, 0.5, 1.0, 4)


def test_clusters_of_unequal_size_bring_all_their_items():
    # a has three hits, b one miss: aa -> 1, ab -> 3/4, bb -> 0.
    found = mean_metric([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], 0)
    assert (found.value, found.low, found.high) == (0.75, 0.0, 1.0)


def test_many_resamples_without_denominator_leave_no_interval():
    # a: 5 over 1, b: 7 over 0. bb, a quarter of the resamples, divides by nothing.
    found = clustered_ratio([5.0, 7.0], [1.0, 0.0], ["a", "b"], 0)
    assert (found.value, found.low, found.high, found.n, found.seed) == (12.0, None, None, 2, None)
    share = float(found.reason.removeprefix("no interval: ").partition("%")[0])
    assert share == pytest.approx(25, abs=3)


def test_a_few_resamples_without_denominator_are_left_out():
    # Three patients ask, one never: one resample in 4^4 = 256 holds that one alone and divides by nothing.
    found = clustered_ratio([1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], ["a", "b", "c", "d"], 0)
    assert (found.value, found.low, found.high) == (pytest.approx(2 / 3), 0.0, 1.0)


def test_the_seed_decides_the_interval():
    rng = np.random.default_rng(1)
    values, clusters = rng.random(60).tolist(), [str(i % 23) for i in range(60)]
    assert mean_metric(values, clusters, 4) == mean_metric(values, clusters, 4)
    assert mean_metric(values, clusters, 4) != mean_metric(values, clusters, 5)


def test_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(7)
    clusters = rng.integers(40, size=150)
    values = (rng.random(150) < 0.3 + 0.4 * (clusters % 2)).astype(float)
    ours = mean_metric(values.tolist(), [str(c) for c in clusters], 3)
    tops = np.array([values[clusters == c].sum() for c in np.unique(clusters)])
    sizes = np.array([(clusters == c).sum() for c in np.unique(clusters)])
    theirs = stats.bootstrap(
        (tops, sizes), lambda t, s, axis: t.sum(axis=axis) / s.sum(axis=axis), paired=True, vectorized=True,
        n_resamples=20_000, method="percentile", rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert ours.low == pytest.approx(theirs.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.high, abs=0.015)


def test_many_clusters_are_drawn_in_chunks():
    n = 5_000  # 2,000 x 5,000 indices do not fit one chunk
    found = mean_metric([float(i % 2) for i in range(n)], [str(i) for i in range(n)], 0)
    # Normal approximation: 0.5 +- 1.96 * sqrt(0.25 / n).
    assert found.low == pytest.approx(0.5 - 1.96 * math.sqrt(0.25 / n), abs=0.002)
    assert found.high == pytest.approx(0.5 + 1.96 * math.sqrt(0.25 / n), abs=0.002)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30), st.integers(0, 9))
def test_the_interval_holds_the_value_and_is_never_nan(pairs, seed):
    found = mean_metric([float(v) for v, _ in pairs], [str(c) for _, c in pairs], seed)
    assert found.n == len(pairs)
    assert 0 <= found.value <= 1
    if found.low is None:
        assert found.reason
    else:
        assert 0 <= found.low <= found.high <= 1


def test_paired_difference_by_hand():
    found = difference([1.0, 1.0, 0.0], [0.0, 1.0, 1.0], ["a", "b", "c"], 0)
    assert found.value == pytest.approx(0.0)
    assert (found.low, found.high) == (-1.0, 1.0)
    assert difference([1.0, 0.0], [1.0, 0.0], ["a", "b"], 0).high == 0.0


def test_a_share_of_0_or_1_has_the_exact_bound_over_patients():
    # 60 case-steps of 30 patients: Clopper-Pearson of 0 of 30.
    clusters = [str(i // 2) for i in range(60)]
    theirs = binomtest(0, 30).proportion_ci(0.95, "exact")
    none, every = (mean_metric([v] * 60, clusters, 0, share=True) for v in (0.0, 1.0))
    assert (none.value, none.low, none.high, none.n) == (0.0, 0.0, pytest.approx(theirs.high), 60)
    assert (every.value, every.low, every.high) == (1.0, pytest.approx(1 - theirs.high), 1.0)
    assert none.to_json()["interval"] == "exact"
    assert "seed" not in none.to_json()
    assert "interval" not in mean_metric([0.0] * 59 + [1.0], clusters, 0, share=True).to_json()
    assert mean_metric([0.0] * 60, clusters, 0).high == 0.0  # dollars, say: no share
    assert mean_metric([0.0] * 2, ["p", "p"], 0, share=True).high is None


def test_every_mean_of_what_lies_between_0_and_1_has_the_exact_bound():
    on_lists = {"must_not_miss": (0.0, 0.0), "required": (0, 2)}
    steps = [step(i, f"p{i}", 0, brier=0.0, confidence=0.1, right=0, requests=1, **on_lists) for i in range(6)]
    exact = {name for name, m in summarise(steps, "category", 0).items() if m.detail.get("interval") == "exact"}
    assert exact == {
        "accuracy_category", "top_3", "top_5", "mrr", "truth_outside_vocabulary", "confident_misses", "verified_misses",
        "coverage", "accuracy_when_answered", "verified", "unverified", "abstain", "failed", "unparseable",
        "not_applicable", "must_not_miss_recall", "must_not_miss_recall_top_5", "must_not_miss_confident_misses",
        "required_item_recall",
    }  # fmt: skip


def test_few_discordant_patients_are_said():
    # Five of 100 patients differ, all one way: the exact p is 0.06, and yet the interval excludes 0.
    ours, clusters = [1.0] * 5 + [0.0] * 95, [str(i) for i in range(100)]
    found = difference(ours, [0.0] * 100, clusters, 0)
    assert found.low > 0
    assert binomtest(0, 5).pvalue > 0.05
    assert (found.reason, found.detail["discordant"]) == ("few discordant: 5 patients differ", 5)
    # Patients count, not case-steps: 20 that differ, of 9 patients.
    assert difference([1.0] * 20, [0.0] * 20, [str(i % 9) for i in range(20)], 0).detail["discordant"] == 9
    assert difference([1.0] * 10, [0.0] * 10, clusters[:10], 0).reason == ""


def test_brier_by_hand():
    assert brier_score({"a": 1.0}, "a") == 0.0
    assert brier_score({"a": 1.0}, "b") == 2.0
    assert brier_score({"a": 0.7, "b": 0.2, "c": 0.1}, "b") == pytest.approx(0.7**2 + 0.8**2 + 0.1**2)
    assert brier_score({}, "a") == 1.0  # no answer
    assert brier_score({"a": 0.5, "b": 0.5}, None) == pytest.approx(1.5)  # label outside the vocabulary


def test_brier_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    shares = rng.dirichlet(np.ones(4), size=50)
    truth = [names[i] for i in rng.integers(4, size=50)]
    ours = [brier_score(dict(zip(names, row, strict=True)), t) for row, t in zip(shares.tolist(), truth, strict=True)]
    theirs = metrics.brier_score_loss(truth, shares, labels=names, scale_by_half=False)
    assert np.mean(ours) == pytest.approx(theirs)


def test_summary_by_hand():
    tokens = {"prefilled": 100, "sampled": 20, "reused": 300}
    steps = [
        step(1, "a", 1, rank=1, brier=0.2, peer_agreement=1.0, requests=4, unanswered=1, cost=10.0, tokens=tokens),
        step(2, "a", 0, rank=4, brier=1.0, status="abstain", peer_agreement=0.5, requests=2, unanswered=2, cost=4.0),
        step(3, "b", 0, brier=1.0, status="failed", parseable=False),
        step(4, "c", 0, brier=1.0, status="unverified", parseable=False, outside=True, tokens=tokens),
        step(5, "d", None, status="unverified", requests=4, unanswered=0, cost=6.0),  # no label
        step(6, "e", None, status="not_applicable", parseable=False),
    ]
    found = {name: (m.value, m.n) for name, m in summarise(steps, "category", 0).items()}
    assert next(iter(found)) == "accuracy_category"
    assert found["accuracy_category"] == (0.25, 4)
    assert found["top_3"] == (0.25, 4)
    assert found["top_5"] == (0.5, 4)
    assert found["mrr"] == (pytest.approx((1 + 1 / 4) / 4), 4)
    assert found["brier"] == (pytest.approx(0.8), 4)
    assert found["truth_outside_vocabulary"] == (0.25, 4)
    assert [found[s] for s in ("verified", "unverified", "abstain", "failed")] == [
        (0.2, 5), (0.4, 5), (0.2, 5), (0.2, 5)
    ]  # fmt: skip
    assert found["not_applicable"] == (pytest.approx(1 / 6), 6)
    assert found["unparseable"] == (0.2, 5)  # the failed one is counted as failed
    assert found["peer_agreement"] == (0.75, 2)
    assert found["unanswerable_requests"] == (0.3, 5)  # 3 of 10 requests
    assert found["request_cost_usd"] == (4.0, 5)
    assert found["tokens_prefilled"] == (40.0, 5)
    assert found["tokens_per_verified"] == (240.0, 5)  # both trees over the one verified conclusion
    assert found["half_credit"] == (None, 0)


def test_summary_of_nothing():
    assert all(m.value is None and m.reason for m in summarise([], "category", 0).values())
