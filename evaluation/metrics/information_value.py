"""Which information decided: what paths of a search tree that hold an item conclude, against those beside them without.

Everything here compares within one tree. The node at which an item was asked for is a *spot*: of the rollouts that came
to its parent, those that took the request hold the item, and those that went another way and never asked for it on
their path lack it; up to the parent both are the same. Per spot:

    value     mean value of the rollouts with the item, less that of those without
    changed   1 where the leading answer differs (most rollouts x value; ties: more rollouts, then the key), else 0
    recorded  share of the rollouts that conclude with the recorded answer, with the item less without

A case-step's figure is the mean over its spots, an item's the mean over case-steps, with intervals that resample
patients. Only requests that the record answered count; those it did not answer are pooled, to show how much another
turn alone moves a search (`UNANSWERED`). Requests that a world model answered are no information and are left out.

It is no effect of the information itself: a search goes on where it liked what it found, a rollout is one draw, and a
value is the model's share of votes (less the cost term, where there is one), not its being right.

Source: within-tree contrast of rollouts as in all-moves-as-first statistics: Gelly and Silver 2011, Monte-Carlo tree
search and rapid action value estimation in computer Go, Artificial Intelligence 175:1856-1875 (there over all rollouts
of a node; here over those of a spot).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from clinical_data.chart import AnswerState
from evaluation.metrics.intervals import Metric, mean_metric

UNANSWERED = ""
"""Item under which all requests that the record did not answer are pooled."""
FEW_PATIENTS = 10
"""Patients below which an item's figures are too few to show; as for differences (`intervals.FEW_DISCORDANT`)."""

Judge = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Ended:
    """Where rollouts ended: the ids from the root to there, the answer given, its value in [0, 1], and how many."""

    path: tuple[int, ...]
    answer: str | None
    value: float
    rollouts: int


@dataclass(frozen=True, slots=True)
class Spot:
    """One place of a tree where an item was asked for, beside rollouts that went on without it; see the module."""

    item: str
    answered: bool
    value: float
    changed: float
    recorded: float | None


@dataclass(frozen=True, slots=True)
class Searched:
    """The search of one case-step.

    Attributes:
        patient_id: whose intervals it is resampled with.
        tree: `search.tree.Tree.to_json`.
        judge: key of an answer -> 1 if it is the recorded one, else 0; None without a recorded label.
    """

    patient_id: str
    tree: Mapping[str, Any]
    judge: Judge | None = None


@dataclass(frozen=True, slots=True)
class ItemValue:
    """What one item brought.

    Attributes:
        asked, answered: case-steps whose rollouts asked for it, and those of them where the record answered.
        patients: those with a spot to compare at.
        value, changed, recorded: see the module; n counts case-steps. `recorded` has no value without labels.
    """

    item: str
    asked: int
    answered: int
    patients: int
    value: Metric
    changed: Metric
    recorded: Metric

    @property
    def few(self) -> bool:
        """There are too few patients for the figures to be shown."""
        return self.patients < FEW_PATIENTS


def ends_of(tree: Mapping[str, Any]) -> list[Ended]:
    """Returns where the rollouts of a tree ended, in order of node id."""
    parents = {int(n["id"]): n["parent"] for n in tree["nodes"]}
    found = []
    for node in tree["nodes"]:
        if rollouts := int(node.get("terminal_visits") or 0):
            path: list[int] = []
            at: int | None = int(node["id"])
            while at is not None:
                path.append(at)
                at = parents[at]
            answer, value = node.get("answer_key"), float(node.get("terminal_value") or 0.0)
            found.append(Ended(tuple(reversed(path)), answer, value, rollouts))
    return found


def leading_answer(ends: Sequence[Ended]) -> str | None:
    """Returns the answer with most rollouts x value; ties: more rollouts, then the key. None where none was named."""
    mass: dict[str, tuple[float, int]] = {}
    for end in ends:
        if end.answer is not None:
            weight, rollouts = mass.get(end.answer, (0.0, 0))
            mass[end.answer] = weight + end.rollouts * end.value, rollouts + end.rollouts
    return min(mass, key=lambda key: (-round(mass[key][0], 9), -mass[key][1], key), default=None)


def spots_of(searched: Searched) -> Iterator[Spot]:
    """Yields the spots of a tree, in order of node id."""
    nodes = {int(n["id"]): n for n in searched.tree["nodes"]}
    ends = ends_of(searched.tree)
    held = [{str(nodes[i]["item"]) for i in end.path if _asked(nodes[i])} for end in ends]
    for node_id, node in nodes.items():
        if not _asked(node):
            continue
        item, parent = str(node["item"]), int(node["parent"])
        having = [e for e in ends if node_id in e.path]
        lacking = [e for e, items in zip(ends, held, strict=True) if parent in e.path and item not in items]
        if having and lacking:
            yield _spot(item, node["state"] == AnswerState.RECORDED, having, lacking, searched.judge)


def information_value(searches: Sequence[Searched], seed: int) -> list[ItemValue]:
    """Returns what each item brought over the case-steps of one step, the most telling first.

    Items with enough patients come first, in falling order of the lower limit of `changed`, then of its value; the pool
    of unanswered requests (`UNANSWERED`) comes last.

    Args:
        searches: case-steps of one step.
        seed: of the intervals.
    """
    states: dict[str, list[bool]] = defaultdict(list)
    spots: dict[str, list[tuple[str, list[Spot]]]] = defaultdict(list)
    for searched in searches:
        opened = {str(n["item"]): n["state"] == AnswerState.RECORDED for n in searched.tree["nodes"] if _asked(n)}
        for item, answered in opened.items():
            states[item].append(answered)
        if unanswered := [answered for answered in opened.values() if not answered]:
            states[UNANSWERED].append(not unanswered)
        here: dict[str, list[Spot]] = defaultdict(list)
        for spot in spots_of(searched):
            here[spot.item if spot.answered else UNANSWERED].append(spot)
        for item, own in here.items():
            spots[item].append((searched.patient_id, own))
    found = [_item(item, answers, spots[item], seed) for item, answers in states.items()]
    return sorted(found, key=_order)


def _asked(node: Mapping[str, Any]) -> bool:
    """Says whether a rollout took this node, and it is a request that the chart answered."""
    return node["kind"] == "request" and bool(node["visits"]) and not node.get("imagined")


def _spot(item: str, answered: bool, having: Sequence[Ended], lacking: Sequence[Ended], judge: Judge | None) -> Spot:
    recorded = None if judge is None else _share(having, judge) - _share(lacking, judge)
    changed = float(leading_answer(having) != leading_answer(lacking))
    return Spot(item, answered, _mean(having) - _mean(lacking), changed, recorded)


def _mean(ends: Sequence[Ended]) -> float:
    return sum(e.value * e.rollouts for e in ends) / sum(e.rollouts for e in ends)


def _share(ends: Sequence[Ended], judge: Judge) -> float:
    named = sum(e.rollouts * judge(e.answer) for e in ends if e.answer is not None)
    return named / sum(e.rollouts for e in ends)


def _item(item: str, answers: Sequence[bool], steps: Sequence[tuple[str, Sequence[Spot]]], seed: int) -> ItemValue:
    patients = [patient for patient, _ in steps]
    judged = [(p, [s.recorded for s in own if s.recorded is not None]) for p, own in steps]
    judged = [(p, changes) for p, changes in judged if changes]
    return ItemValue(
        item,
        len(answers),
        sum(answers),
        len(set(patients)),
        mean_metric([fmean(s.value for s in own) for _, own in steps], patients, seed),
        mean_metric([fmean(s.changed for s in own) for _, own in steps], patients, seed, share=True),
        mean_metric([fmean(changes) for _, changes in judged], [p for p, _ in judged], seed),
    )


def _order(one: ItemValue) -> tuple[bool, bool, float, float, str]:
    low, value = one.changed.low, one.changed.value
    return one.item == UNANSWERED, one.few, -(low or 0.0), -(value or 0.0), one.item
