"""Accuracy against cost: what a search would have answered from paths of at most k requests, and what those cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.metrics.information_value import Ended, Judge, ends_of, leading_answer
from evaluation.metrics.intervals import Metric, mean_metric


@dataclass(frozen=True, slots=True)
class CutCase:
    """The search of one labelled case-step.

    Attributes:
        patient_id: whose intervals it is resampled with.
        tree: `search.tree.Tree.to_json`; None (no search was grown) is a miss at every cut.
        prices: item -> US dollars.
        judge: key of an answer -> 1 if it is the recorded one, else 0.
    """

    patient_id: str
    tree: Mapping[str, Any] | None
    prices: Mapping[str, float]
    judge: Judge


@dataclass(frozen=True, slots=True)
class CutPoint:
    """The searches cut after k requests.

    Attributes:
        accuracy: share of all case-steps whose answer is the recorded one; no answer by then is a miss.
        answered: share of the case-steps with an answer by then.
        cost: mean price, in US dollars, of the distinct items that paths of at most k requests opened.
    """

    requests: int
    accuracy: Metric
    answered: float
    cost: float


def cut_curve(cases: Sequence[CutCase], seed: int) -> list[CutPoint]:
    """Returns the curve from no request to the longest path, one point for each number of requests.

    At k every case-step answers by its own rollouts that asked for at most k items on their path: the answer of most
    rollouts x value, which is the vote of the search without the second model's word. A cut search has fewer rollouts
    besides fewer requests, so the curve is no experiment with a budget: it shows where the answers of this run came
    from. Requests that a world model answered are free and do not count.

    Args:
        cases: labelled case-steps of one step.
        seed: of the intervals.
    """
    paths = [_paths(case) for case in cases]
    longest = max((len(items) for own in paths for _, items in own), default=-1)
    points = []
    for k in range(longest + 1):
        kept = [[(end, items) for end, items in own if len(items) <= k] for own in paths]
        leading = [leading_answer([end for end, _ in own]) for own in kept]
        right = [0.0 if a is None else case.judge(a) for a, case in zip(leading, cases, strict=True)]
        spent = [
            sum(case.prices.get(item, 0.0) for item in set().union(*(items for _, items in own)))
            for own, case in zip(kept, cases, strict=True)
        ]
        accuracy = mean_metric(right, [case.patient_id for case in cases], seed, share=True)
        answered = sum(a is not None for a in leading) / len(cases)
        points.append(CutPoint(k, accuracy, answered, sum(spent) / len(cases)))
    return points


def _paths(case: CutCase) -> list[tuple[Ended, frozenset[str]]]:
    """Returns where the rollouts ended, each with the items that the chart answered on its path."""
    if case.tree is None:
        return []
    asked = {
        int(n["id"]): str(n["item"]) for n in case.tree["nodes"] if n["kind"] == "request" and not n.get("imagined")
    }
    return [(end, frozenset(asked[i] for i in end.path if i in asked)) for end in ends_of(case.tree)]
