"""Which information decided, and accuracy against requests, on trees worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.metrics.information_value import (
    FEW_PATIENTS,
    UNANSWERED,
    Searched,
    ends_of,
    information_value,
    leading_answer,
    spots_of,
)
from evaluation.metrics.request_cut import CutCase, cut_curve


def tree(*nodes: tuple[Any, ...]) -> dict[str, Any]:
    """(parent, kind, item, state, visits, terminal visits, value, answer) for nodes 1, 2, ...; node 0 is the root."""
    made: list[dict[str, Any]] = [{"id": 0, "parent": None, "kind": "root", "item": "", "state": "", "visits": 9}]
    for number, (parent, kind, item, state, visits, ended, value, answer) in enumerate(nodes, 1):
        made.append(
            {"id": number, "parent": parent, "kind": kind, "item": item, "state": state, "visits": visits,
             "terminal_visits": ended, "terminal_value": value, "answer_key": answer}
        )  # fmt: skip
    return {"nodes": made, "rollouts": []}


def ask(parent: int, item: str, visits: int, state: str = "recorded") -> tuple[Any, ...]:
    return (parent, "request", item, state, visits, 0, None, None)


def end(parent: int, answer: str | None, rollouts: int, value: float) -> tuple[Any, ...]:
    return (parent, "finish", "", "", rollouts, rollouts, value, answer)


# Root -> lactate (1) -> ECG (2) -> sepsis 3 x 0.8 (3); lactate -> infarction 1 x 0.4 (4);
# root -> infarction 2 x 0.5 (5); root -> ECG (6) -> infarction 2 x 0.6 (7). A troponin was never taken (8).
TREE = tree(
    ask(0, "lactate", 4), ask(1, "ecg", 3), end(2, "sepsis", 3, 0.8), end(1, "mi", 1, 0.4), end(0, "mi", 2, 0.5),
    ask(0, "ecg", 2), end(6, "mi", 2, 0.6), ask(0, "troponin", 0),
)  # fmt: skip


def judge(answer: str) -> float:
    return float(answer == "sepsis")


def test_a_spot_compares_what_went_through_the_request_with_what_passed_it_by():
    found = {(s.item, i): s for i, s in enumerate(spots_of(Searched("p", TREE, judge)))}
    lactate, inner, outer = found["lactate", 0], found["ecg", 1], found["ecg", 2]
    # With lactate: (3 x 0.8 + 0.4) / 4 = 0.7, leading sepsis; without, at the root: (2 x 0.5 + 2 x 0.6) / 4 = 0.55.
    assert (lactate.value, lactate.changed, lactate.recorded) == (pytest.approx(0.15), 1.0, 0.75)
    # ECG after lactate: 0.8 against the one rollout that stopped there, 0.4.
    assert (inner.value, inner.changed, inner.recorded) == (pytest.approx(0.4), 1.0, 1.0)
    # ECG at the root: 0.6; without it, and never on the path: lactate's 0.4 (1) and 0.5 (2), mean 1.4 / 3. The three
    # rollouts that asked for an ECG later hold it and do not count.
    assert (outer.value, outer.changed, outer.recorded) == (pytest.approx(0.6 - 1.4 / 3), 0.0, 0.0)
    assert len(found) == 3


def test_a_case_step_is_the_mean_of_its_spots_and_an_item_that_of_its_case_steps():
    searches = [Searched(f"p{i}", TREE, judge if i else None) for i in range(12)]
    found = {v.item: v for v in information_value(searches, seed=3)}
    assert set(found) == {"lactate", "ecg"}
    ecg = found["ecg"]
    assert (ecg.asked, ecg.answered, ecg.patients, ecg.changed.n) == (12, 12, 12, 12)
    assert ecg.value.value == pytest.approx((0.4 + 0.6 - 1.4 / 3) / 2)
    assert (ecg.changed.value, ecg.changed.low, ecg.changed.high) == (0.5, 0.5, 0.5)
    assert (ecg.recorded.value, ecg.recorded.n) == (0.5, 11)  # one case-step has no recorded label
    assert [v.item for v in information_value(searches, seed=3)] == ["lactate", "ecg"]
    # All of 12 patients: the exact lower bound, 0.025^(1/12).
    assert found["lactate"].changed.low == pytest.approx(0.025 ** (1 / 12))


def test_the_interval_resamples_patients_not_case_steps():
    calm = tree(ask(0, "lactate", 1), end(1, "mi", 1, 0.5), end(0, "mi", 1, 0.5))
    two = information_value([*[Searched("a", TREE)] * 3, Searched("b", calm)], seed=0)
    lactate = next(v for v in two if v.item == "lactate")
    # aa: 1, ab: 3/4, bb: 0 of the case-steps change.
    assert (lactate.changed.value, lactate.changed.low, lactate.changed.high) == (0.75, 0.0, 1.0)
    assert lactate.patients == 2
    assert lactate.few


def test_unanswered_requests_are_pooled_and_imagined_ones_left_out():
    silent = tree(ask(0, "lactate", 1, "pending"), end(1, "sepsis", 1, 0.9), end(0, "mi", 1, 0.5))
    found = information_value([Searched("a", silent), Searched("b", TREE)], seed=0)
    assert found[-1].item == UNANSWERED
    assert (found[-1].asked, found[-1].answered, found[-1].changed.value) == (1, 0, 1.0)
    assert found[-1].value.value == pytest.approx(0.4)
    lactate = next(v for v in found if v.item == "lactate")
    assert (lactate.asked, lactate.answered, lactate.changed.n) == (2, 1, 1)
    imagined = tree(ask(0, "lactate", 1), end(1, "sepsis", 1, 0.9), end(0, "mi", 1, 0.5))
    imagined["nodes"][1]["imagined"] = True
    assert information_value([Searched("a", imagined)], seed=0) == []


def test_without_a_rollout_beside_it_an_item_is_counted_and_not_compared():
    alone = tree(ask(0, "lactate", 2), end(1, "mi", 2, 0.5))
    (found,) = information_value([Searched("a", alone)], seed=0)
    assert (found.asked, found.patients, found.changed.value, found.value.value) == (1, 0, None, None)


def test_items_with_enough_patients_come_first():
    calm = tree(ask(0, "xray", 1), end(1, "mi", 1, 0.5), end(0, "mi", 1, 0.5))
    many = [Searched(f"p{i}", calm) for i in range(FEW_PATIENTS)]
    found = information_value([Searched("q", TREE), *many], seed=0)
    assert [v.item for v in found] == ["xray", "lactate", "ecg"]
    assert [v.few for v in found] == [False, True, True]


def test_the_leading_answer_weighs_rollouts_by_value():
    ends = ends_of(tree(end(0, "a", 1, 0.9), end(0, "b", 2, 0.5), end(0, "c", 1, 1.0), end(0, None, 9, 1.0)))
    assert leading_answer(ends) == "b"  # 2 x 0.5 and 1 x 1.0 weigh alike; more rollouts win
    assert leading_answer(ends[:1] + ends[2:]) == "c"
    assert leading_answer(ends[3:]) is None


def test_accuracy_when_cut_after_k_requests():
    prices = {"lactate": 12.0, "ecg": 20.0}
    hollow = tree(ask(0, "lactate", 1), end(1, "sepsis", 1, 0.5))
    cases = [CutCase("a", TREE, prices, judge), CutCase("b", hollow, prices, judge), CutCase("c", None, {}, judge)]
    found = cut_curve(cases, seed=0)
    assert [p.requests for p in found] == [0, 1, 2]
    # a: mi; mi (1.0 + 0.4 + 1.2); mi 2.6 against sepsis 2.4. b: silent, then sepsis. c never answers.
    assert [p.accuracy.value for p in found] == pytest.approx([0.0, 1 / 3, 1 / 3])
    assert [p.accuracy.n for p in found] == [3, 3, 3]
    assert [p.answered for p in found] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    # a: nothing; lactate and ECG, on different paths; the same again. b: nothing, then lactate.
    assert [p.cost for p in found] == pytest.approx([0.0, (32 + 12) / 3, (32 + 12) / 3])
    assert cut_curve([], seed=0) == []
    assert cut_curve(cases[2:], seed=0) == []
