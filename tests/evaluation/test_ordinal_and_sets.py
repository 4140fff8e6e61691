"""Urgency and sets against scikit-learn and values worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score
from sklearn.preprocessing import MultiLabelBinarizer

from evaluation.metrics import ScoredStep, SetAnswer, summarise
from evaluation.metrics.ordinal import over_triage, quadratic_weighted_kappa, under_triage


def triaged(number, answered, recorded, patient=None):
    return ScoredStep(
        f"c{number}", "triage", 1, "fhir", patient or f"p{number}", "verified", {"term": int(answered == recorded)},
        labelled=True, urgency=(answered, recorded),
    )  # fmt: skip


def test_kappa_agrees_with_scikit_learn():
    rng = np.random.default_rng(5)
    recorded = rng.integers(1, 6, 80)
    answered = np.clip(recorded + rng.integers(-1, 2, 80), 1, 5)
    steps = [triaged(i, int(a), int(r)) for i, (a, r) in enumerate(zip(answered, recorded, strict=True))]
    found = quadratic_weighted_kappa(steps, 0)
    assert found.value == pytest.approx(cohen_kappa_score(answered, recorded, weights="quadratic"))
    assert found.low < found.value < found.high
    assert found.n == 80


def test_kappa_by_hand():
    # (1,1) (2,2) (1,2): observed squares 0, 0, 1, mean 1/3; expected mean a^2 2 + mean r^2 3 - 2 * 4/3 * 5/3 = 5/9.
    found = quadratic_weighted_kappa([triaged(1, 1, 1), triaged(2, 2, 2), triaged(3, 1, 2)], 0)
    assert found.value == pytest.approx(1 - (1 / 3) / (5 / 9))
    one_level = quadratic_weighted_kappa([triaged(1, 2, 2), triaged(2, 2, 2)], 0)
    assert (one_level.value, bool(one_level.reason)) == (None, True)


def test_kappa_has_no_interval_where_many_resamples_have_no_kappa():
    # A resample of (2, 2) alone has no kappa: (19/20)^20 = 36 % and (5/6)^6 = 33 % of them.
    for others, last, value, share in ((19, (3, 4), 0.79, 36), (5, (3, 3), 1.0, 33)):
        steps = [*(triaged(i, 2, 2) for i in range(others)), triaged(others, *last)]
        found = quadratic_weighted_kappa(steps, 0)
        assert found.value == pytest.approx(value, abs=0.005)
        assert (found.low, found.high, found.seed) == (None, None, None)
        assert float(found.reason.removeprefix("no interval: ").partition("%")[0]) == pytest.approx(share, abs=4)


def test_under_and_over_triage():
    assert [under_triage(triaged(1, a, 2)) for a in (1, 2, 3, None)] == [0.0, 0.0, 1.0, 1.0]
    assert [over_triage(triaged(1, a, 2)) for a in (1, 2, 3, None)] == [1.0, 0.0, 0.0, 0.0]
    steps = [triaged(1, 3, 2), triaged(2, 1, 2), triaged(3, 2, 2), triaged(4, None, 1)]
    found = {name: (m.value, m.n) for name, m in summarise(steps, "term", 0).items()}
    assert (found["under_triage"], found["over_triage"]) == ((0.5, 4), (0.25, 4))
    assert found["quadratic_weighted_kappa"][1] == 3
    plain = ScoredStep("c", "s", 1, "fhir", "p", "verified", {"term": 1}, labelled=True)
    assert under_triage(plain) is over_triage(plain) is None
    assert "under_triage" not in summarise([plain], "term", 0)


def answered(number, chosen, recorded, *, source="fhir", likely=(), found_5=0.0, cost=None):
    sets = SetAnswer(
        {"term": frozenset(chosen)}, {"term": frozenset(recorded)}, found_5, frozenset(likely), cost
    )  # fmt: skip
    return ScoredStep(
        f"c{number}", "workup", 1, source, f"p{number}", "verified", {"term": 0}, labelled=True, answer_set=sets
    )  # fmt: skip


def test_sets_agree_with_scikit_learn():
    rng = np.random.default_rng(6)
    names = list("abcdefg")
    chosen = [{n for n in names if rng.random() < 0.4} for _ in range(40)]
    recorded = [{n for n in names if rng.random() < 0.4} | {"a"} for _ in range(40)]
    steps = [answered(i, c, r) for i, (c, r) in enumerate(zip(chosen, recorded, strict=True))]
    found = summarise(steps, "term", 0)
    binary = MultiLabelBinarizer(classes=names)
    truth, given = binary.fit_transform(recorded), binary.transform(chosen)
    for name, function in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert found[f"set_{name}_term"].value == pytest.approx(
            function(truth, given, average="samples", zero_division=0)
        )


def test_sets_by_hand():
    steps = [answered(1, "ab", "bcd", found_5=2 / 3, cost=12.0), answered(2, "", "a", found_5=1.0, cost=0.0)]
    found = {name: m.value for name, m in summarise(steps, "term", 0).items()}
    assert found["set_precision_term"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["set_recall_term"] == pytest.approx((1 / 3 + 0) / 2)
    assert found["set_f1_term"] == pytest.approx((2 / 5 + 0) / 2)
    assert found["recall_at_5"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["chosen_cost_usd"] == 6.0
    assert "ddr" not in found


def test_sets_that_all_miss_have_an_interval_with_width():
    """Nothing of what was recorded, for three patients: no resample shows more, and yet more cannot be excluded."""
    steps = [answered(i, ["a"], ["b"]) for i in range(3)]
    found = summarise(steps, "term", 0)["set_f1_term"]
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 3))


def test_ddxplus_by_hand():
    steps = [
        answered(1, "a", "abcd", source="ddxplus", likely="abx"),  # DDR 2/4, DDP 2/3, F1 4/7
        answered(2, "a", "a", source="ddxplus", likely="a"),
        answered(3, "a", "b", source="ddxplus"),  # no answer above the floor
    ]
    found = {name: (m.value, m.n) for name, m in summarise(steps, "term", 0).items()}
    assert found["ddr"] == (pytest.approx((1 / 2 + 1 + 0) / 3), 3)
    assert found["ddp"] == (pytest.approx((2 / 3 + 1 + 0) / 3), 3)
    assert found["ddf1"] == (pytest.approx((4 / 7 + 1 + 0) / 3), 3)
