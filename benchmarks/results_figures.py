"""The tables of docs/results.md, made of kept runs (`benchmarks.kept_runs`) by `benchmarks.results_table`.

Each is a list of rows of text, the first of them its head; `markdown` writes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

from benchmarks.kept_runs import KeptRun
from evaluation.baselines import MAJORITY, REGRESSION
from evaluation.compare import paired_difference
from evaluation.formatting import metric_text
from evaluation.metrics import (
    FEW_WORDS,
    ScoredStep,
    Value,
    against_labels,
    clustered_ratio,
    comparable,
    few_discordant,
    mean_metric,
    mean_of,
)
from search.trajectory import Status

ARM, TOP_1, LOGS = "arm", "top-1", "log score"
FIGURES = {
    "top_5": "top-5",
    "half_credit": "with half points",
    "brier": "Brier",
    "log_score": LOGS,
    "expected_calibration_error": "calibration error",
}
"""What stands beside top-1 of answers; all of it exploratory."""
CONFIDENCE, FIRST = "mean probability of the first answer", "commonest first answer"
OF_SEARCH = ("requests", "in vain", "items seen", "second model agrees", "right where it agrees", "tokens computed")
PAIRED, ALONE = "paired", "right in one alone"
BASELINES = {MAJORITY: "majority class (class frequencies)", REGRESSION: "logistic regression (all visible facts)"}
FEW_STAYS = 5  # of a hospital, in the train split
SEED = 0  # of intervals
DIGITS = 3  # of differences of log scores
Table = list[list[str]]
Section = Mapping[str, Any]
Arms = Mapping[str, KeptRun]
"""Label -> run or baseline, in the order of the table."""


def level_of(section: Section) -> str:
    """Returns the level of top-1 of a section."""
    return str(section["key"].removeprefix("accuracy_"))


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    head, *rest = (f"| {' | '.join(row)} |" for row in table)
    return [head, f"|{'---|' * len(table[0])}", *rest]


def answers_table(section: Section, arms: Arms) -> Table:
    """Returns top-1, at the level of the section, and the other figures of the answers of each arm."""
    table = [[ARM, TOP_1, *FIGURES.values(), CONFIDENCE, FIRST]]
    for label, kept in arms.items():
        metrics = against_labels(kept.steps, level_of(section), SEED)
        figures = (metric_text(metrics[name].to_json()) for name in (section["key"], *FIGURES))
        table.append([label, *figures, _mean(kept, lambda s: s.confidence), _first(kept)])
    return table


def _first(kept: KeptRun) -> str:
    """Returns which answer comes first most often, how often, and how often it is right."""
    firsts = [ranked[0][0] if ranked else "none" for ranked in kept.ranked]
    answer, times = max(Counter(firsts).items(), key=lambda item: (item[1], item[0]))
    right = sum(bool(s.right) for s, first in zip(kept.steps, firsts, strict=True) if first == answer)
    return f"{answer.replace('-', ' ')}: {times}, {right} right"


def searches_table(arms: Arms) -> Table:
    """Returns what the runs of a section asked for, what their second models said, and what was computed."""
    table = [[ARM, *OF_SEARCH]]
    for label, kept in arms.items():
        if kept.head["name"] in BASELINES:
            continue
        asked = any(s.peer_agreement is not None for s in kept.steps)
        agreed = [s for s in kept.steps if s.status == Status.VERIFIED]
        checked = [
            _mean(kept, lambda s: float(s.status == Status.VERIFIED), share=True),
            f"{sum(bool(s.right) for s in agreed)} of {len(agreed)}",
        ]
        requests = _mean(kept, lambda s: s.requests, 1)
        seen = _mean(kept, lambda s: s.requests - s.unanswered, 1)
        computed = sum(s.tokens.get("prefilled", 0) + s.tokens.get("sampled", 0) for s in kept.steps)
        mean = f"{computed / len(kept.steps):,.0f}"
        table.append([label, requests, _in_vain(kept), seen, *(checked if asked else ["-", "-"]), mean])
    return table


def _mean(kept: KeptRun, value: Callable[[ScoredStep], float | None], digits: int = 2, *, share: bool = False) -> str:
    return metric_text(mean_of(kept.steps, value, SEED, share=share).to_json(), digits)


def _in_vain(kept: KeptRun) -> str:
    """Returns the share of all requests that the record does not answer."""
    unanswered, requests = [s.unanswered for s in kept.steps], [s.requests for s in kept.steps]
    return metric_text(clustered_ratio(unanswered, requests, [s.patient_id for s in kept.steps], SEED).to_json())


def pairs_table(section: Section, arms: Arms) -> Table:
    """Returns paired differences: those of the plan, then, unless it says otherwise, each arm less each baseline."""
    named = {arm["run"]: arm["label"] for arm in section["arms"]}
    pairs = [(named.get(one, one), named.get(other, other)) for one, other in section["pairs"]]
    if section.get("baseline_pairs", True):
        pairs += [(arm["label"], baseline) for arm in section["arms"] for baseline in BASELINES.values()]
        pairs.append((BASELINES[REGRESSION], BASELINES[MAJORITY]))
    table = [[PAIRED, TOP_1, ALONE, "McNemar p", LOGS]]
    for one, other in (pair for pair in pairs if set(pair) <= set(arms)):
        steps = list(zip(arms[one].steps, arms[other].steps, strict=True))
        values = comparable([step for pair in steps for step in pair], level_of(section))
        right = paired_difference(steps, values[section["key"]], SEED)
        logs = paired_difference(steps, values["log_score"], SEED)
        if right is not None:
            alone = (right["only_a"], right["only_b"])
            words = [_right(right), "{} / {}".format(*alone), _p(right["mcnemar_p"]) if any(alone) else "-"]
            table.append([f"{one} less {other}", *words, _gain(logs, DIGITS) if logs else "-"])
    return table


def _right(metric: Mapping[str, Any]) -> str:
    """Returns a difference of top-1; without an interval where both are right in the same stays."""
    if not metric["only_a"] + metric["only_b"]:
        return "0, right in the same stays"
    return _gain(metric) + (f", {FEW_WORDS}" if few_discordant(metric) else "")


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _gain(metric: Mapping[str, Any], digits: int = 2) -> str:
    return metric_text({**metric, "value": metric["difference"]}, digits)


def groups_table(section: Section, arms: Arms) -> Table:
    """Returns, of the arms that the plan names, how often each class is their first answer and among their first five.

    A last row has the stays with a label that must not be missed.
    """
    shown = [label for label in section["by_group"] if label in arms]
    level = level_of(section)
    labels = next(iter(arms.values())).steps  # the same in each arm, in the same order
    groups = Counter(step.classes[level] for step in labels)
    table = [["recorded", "stays", *(f"{label}: first, in five" for label in shown)]]

    def row(name: str, chosen: Sequence[bool]) -> list[str]:
        of_each = [list(compress(arms[label].steps, chosen)) for label in shown]
        first_five = ((sum(bool(s.right) for s in steps), sum((s.rank or 6) <= 5 for s in steps)) for steps in of_each)
        return [name, str(sum(chosen)), *(f"{first}, {five}" for first, five in first_five)]

    for group in sorted(groups, key=lambda name: (-groups[name], name)):
        table.append(row(group.replace("-", " "), [s.classes[level] == group for s in labels]))
    table.append(row("*must not be missed*", [s.must_not_miss is not None for s in labels]))
    return table


def hospital_table(section: Section, arms: Arms) -> Table:
    """Returns top-1, and the log score less the regression's, by how many stays of a hospital the train split has.

    Splits are drawn by patient, so that a hospital has stays in several of them. Intervals are by bootstrap over
    hospitals.
    """
    reference = arms[BASELINES[REGRESSION]]
    few = [stays < FEW_STAYS for stays in reference.train_stays]
    groups = {
        f"under {FEW_STAYS} (n {sum(few)})": few,
        f"{FEW_STAYS} or more (n {len(few) - sum(few)})": [not one for one in few],
    }
    than = f"{LOGS} less the regression's"
    table = [["stays of the hospital in the train split", *(f"{f}, {g}" for f in (TOP_1, than) for g in groups)]]
    for label, kept in arms.items():
        values = comparable(kept.steps, level_of(section))
        right = [_value(values[section["key"]], s) for s in kept.steps]
        logs = [_value(values["log_score"], s) for s in kept.steps]
        gaps = [own - _value(values["log_score"], other) for own, other in zip(logs, reference.steps, strict=True)]
        cells = [_by_hospital(kept, right, group) for group in groups.values()]
        worse = [_by_hospital(kept, gaps, group) for group in groups.values()]
        table.append([label, *cells, *(["-"] * len(worse) if kept is reference else worse)])
    return table


def _value(value: Value, step: ScoredStep) -> float:
    found = value(step)
    if found is None:
        raise ValueError(f"case-step {step.case_id} has no such figure")
    return found


def _by_hospital(kept: KeptRun, values: Sequence[float], chosen: Sequence[bool]) -> str:
    metric = mean_metric(list(compress(values, chosen)), list(compress(kept.hospitals, chosen)), SEED)
    return metric_text(metric.to_json())
