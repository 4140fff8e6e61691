"""The plots of the first page, per step: calibration, accuracy against cost, confusion, subgroups, further runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evaluation.metrics.intervals import Metric, mean_metric
from evaluation.metrics.request_cut import CutPoint
from evaluation.metrics.sets import of_level
from evaluation.review import plots, words
from evaluation.review.cohort import SEED, Cohort, Judged, Person
from evaluation.review.language import look_up, say
from evaluation.review.metric_words import (
    NameOf,
    baseline_text,
    interval_text,
    metric_text,
    metric_value,
)
from evaluation.review.results import OWN, headline_names

CLASSES_SHOWN = 9
"""Most classes of a confusion plot, all rarer ones together not counted."""
HOSPITALS_SHOWN = 8
FEW = 10
"""Patients below which a subgroup's figure is said to be too few."""
_AGES = ((0, 44), (45, 64), (65, 79), (80, None))
_MAJORITY = "majority_class"


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its numbers as a table, and what a reader must know (`notes`)."""

    title: str
    svg: Markup
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepPlots:
    """The plots of one step."""

    step: str
    plots: tuple[Plot, ...]


def step_plots(score: Mapping[str, Any], cohort: Cohort, name_of: NameOf) -> tuple[StepPlots, ...]:
    """Returns the plots of every step that has any, in the order of the pathway."""
    found = []
    for number, (step, of_step) in enumerate(score["steps"].items(), 1):
        judged = [j for key, j in cohort.judged.items() if key[1] == step]
        curves = _curves(step, cohort)
        made = (
            _calibration(f"calibration-{number}", of_step),
            _cost(f"cost-{number}", step, of_step, curves, judged),
            _confusion(f"confusion-{number}", judged),
            _subgroups(f"groups-{number}", step, judged, cohort.people),
            _rounds(f"rounds-{number}", step, of_step, cohort),
        )
        if any(made):
            found.append(StepPlots(name_of(step), tuple(plot for plot in made if plot)))
    return tuple(found)


def _curves(step: str, cohort: Cohort) -> list[tuple[str, Sequence[CutPoint]]]:
    """Returns the curves of this run and the last three beside it: more lines cannot be told apart."""
    own = [(say("index.this_run"), cohort.curves[step])] if step in cohort.curves else []
    others = [(f.label, f.curves[step]) for f in cohort.further if f.curves is not cohort.curves and step in f.curves]
    return [*own, *others[-3:]] if own else []


def _calibration(key: str, of_step: Mapping[str, Any]) -> Plot | None:
    metrics = of_step["metrics"]
    error = metrics.get("expected_calibration_error") or {}
    bins = error.get("bins") or []
    if not bins:
        return None
    title = say("index.plot.calibration")
    points_of = [(plots.Point(b["probability"], b["accuracy"], b["low"], b["high"]), b["n"]) for b in bins]
    rows = tuple(
        (
            f"{words.percent(b['above'])}–{words.percent(b['up_to'])}",
            str(b["n"]),
            words.percent(b["probability"]),
            words.percent(b["accuracy"]),
            interval_text("accuracy", b),
        )
        for b in bins
    )
    told = [say("index.plot.calibration_note")]
    told += [
        f"{metric_text(name)}{say('words.colon')}{_shown(name, metrics[name])}"
        for name in ("expected_calibration_error", "brier")
        if metrics.get(name) and metrics[name].get("value") is not None
    ]
    svg = plots.reliability_plot(
        key, title, points_of, say("index.plot.share_axis"), describe=_described(rows, 0, 3, 1)
    )
    head = tuple(say(f"index.head.{name}") for name in ("share", "n", "mean_share", "right", "interval"))
    return Plot(title, svg, head, rows, tuple(told))


def _cost(
    key: str,
    step: str,
    of_step: Mapping[str, Any],
    curves: Sequence[tuple[str, Sequence[CutPoint]]],
    judged: Sequence[Judged],
) -> Plot | None:
    """Accuracy when the searches are cut after k requests, of this run or of all runs that are shown."""
    if not curves or not judged:
        return None
    level = judged[0].level
    title = say("index.plot.cost")
    series = [
        plots.Series(
            label,
            tuple(plots.Point(p.requests, p.accuracy.value or 0.0, p.accuracy.low, p.accuracy.high) for p in curve),
        )
        for label, curve in curves
    ]
    most = max(p.requests for _, curve in curves for p in curve)
    longest = max((curve for _, curve in curves), key=len)
    ticks = [(float(p.requests), str(p.requests)) for p in longest if most <= 8 or p.requests % 2 == 0]
    majority = of_step["baselines"].get(_MAJORITY, {}).get("levels", {}).get(f"accuracy_{level}", {}).get("value")
    rows = tuple(
        (
            label,
            str(p.requests),
            words.money(round(p.cost, 2)),
            words.percent(p.answered),
            words.percent(p.accuracy.value),
            interval_text("accuracy", p.accuracy.to_json()),
        )
        for label, curve in curves
        for p in curve
    )
    svg = plots.line_plot(
        key,
        title,
        series,
        ticks,
        say("index.plot.requests_axis"),
        references=[] if majority is None else [(baseline_text(_MAJORITY), majority)],
        describe=_described(rows, 1, 4, 2),
    )
    head = tuple(say(f"index.head.{n}") for n in ("run", "requests", "cost", "answered", "right", "interval"))
    note = say("index.plot.cost_note", level=metric_text(f"accuracy_{level}", step), n=curves[0][1][0].accuracy.n)
    return Plot(title, svg, head, rows, (note,))


def _confusion(key: str, judged: Sequence[Judged]) -> Plot | None:
    """What was answered where what was recorded, of the most frequent recorded classes."""
    pairs = [(j.recorded, j.answered) for j in judged if j.scored.answer_set is None]
    totals = Counter(recorded for recorded, _ in pairs if recorded)
    if not totals:
        return None
    names = sorted(totals, key=lambda n: (-totals[n], n))[:CLASSES_SHOWN]
    other, none = say("index.plot.other_class"), say("index.plot.no_answer")
    found: dict[str, Counter[str]] = {name: Counter() for name in names}
    for recorded, answered in pairs:
        if recorded in found:
            found[recorded][answered if answered in found else other if answered else none] += 1
    columns = [*names, other, none]
    counts = [[found[name][column] for column in columns] for name in names]
    heads = [*(str(i + 1) for i in range(len(names))), "+", "–"]
    title = say("index.plot.confusion")
    right = sum(counts[i][i] for i in range(len(names)))
    shown = sum(totals[name] for name in names)
    describe = say("index.plot.confusion_desc", classes=len(names), n=shown, right=right)
    rows = tuple((name, *(str(c) for c in row)) for name, row in zip(names, counts, strict=True))
    notes = [say("index.plot.confusion_note", shown=shown, all=len(pairs))]
    numbered = tuple(f"{i} {words.short(name, 60)}" for i, name in enumerate(names, 1))
    head = (say("index.head.recorded"), *numbered, other, none)
    return Plot(title, plots.heat_map(key, title, names, counts, heads, describe=describe), head, rows, tuple(notes))


def _subgroups(key: str, step: str, judged: Sequence[Judged], people: Mapping[str, Person]) -> Plot | None:
    """The headline per age band, sex, source and hospital, with the number of case-steps behind each."""
    known = [(j, people[j.scored.case_id]) for j in judged if j.scored.case_id in people]
    values = [(value, j.scored.patient_id, person) for j, person in known if (value := _value(j)) is not None]
    if not values:
        return None
    rows: list[tuple[str, Metric, int]] = [_group(say("index.group.all"), values)]
    for split in (_age, _sex, _source, _hospital(values)):
        names = Counter(name for _, _, person in values if (name := split(person)))
        if split is not _sex and split is not _age and len(names) < 2:
            continue
        rows += [_group(name, [v for v in values if split(v[2]) == name]) for name in sorted(names)]
    small = [name for name, _, patients in rows if patients < FEW]
    title = say("index.plot.groups")
    spreads = [plots.Spread(name, m.value, m.low, m.high, f"{words.percent(m.value)} ({m.n})") for name, m, _ in rows]
    told = tuple(
        (
            name,
            str(m.n),
            words.percent(m.value),
            interval_text("accuracy", m.to_json()) or say("index.no_interval"),
            say("index.too_few") if patients < FEW else "",
        )
        for name, m, patients in rows
    )
    notes = [say("index.plot.groups_note", what=_figure_name(step, known[0][0]))]
    if small:
        notes.append(say("index.plot.groups_small", least=FEW, groups=say("words.list_gap").join(small)))
    svg = plots.interval_plot(key, title, spreads, describe=_described(told, 0, 2, 1))
    head = tuple(say(f"index.head.{name}") for name in ("group", "n", "figure", "interval", "remark"))
    return Plot(title, svg, head, told, tuple(notes))


def _rounds(key: str, step: str, of_step: Mapping[str, Any], cohort: Cohort) -> Plot | None:
    """The headline of this step in every run that is shown beside this one."""
    names = headline_names(step, of_step["metrics"], any(k.startswith("set_f1") for k in of_step["metrics"]))
    if not names or len(cohort.further) < 2:
        return None
    name = names[0]
    found = [(f.label, f.name, f.steps.get(step, {}).get("metrics", {}).get(name)) for f in cohort.further]
    there = [(label, run, metric) for label, run, metric in found if metric and metric.get("value") is not None]
    title = say("index.plot.rounds")
    rows = tuple(
        (label, run, str(m["n"]), metric_value(name, m["value"]), interval_text(name, m)) for label, run, m in there
    )
    if len(there) < 2 or not metric_value(name, there[0][2]["value"]).endswith("%"):
        return None
    line = [plots.Point(float(i), m["value"], m["low"], m["high"]) for i, (_, _, m) in enumerate(there)]
    majority = of_step["baselines"].get(_MAJORITY, {}).get("levels", {}).get(name, {}).get("value")
    svg = plots.line_plot(
        key,
        title,
        [plots.Series(metric_text(name, step), tuple(line))],
        [(float(i), words.short(label, 12)) for i, (label, _, _) in enumerate(there)],
        say("index.plot.rounds_axis"),
        references=[] if majority is None else [(baseline_text(_MAJORITY), majority)],
        describe=_described(rows, 0, 3, 2),
    )
    head = tuple(say(f"index.head.{n}") for n in ("round", "run", "n", "figure", "interval"))
    return Plot(title, svg, head, rows, (say("index.plot.rounds_note"),))


def _value(judged: Judged) -> float | None:
    """Returns what a case-step adds to the headline: right or wrong, of a set its F1 or its recall."""
    if judged.scored.answer_set is not None:
        return judged.scored.answer_set.found_5 if _by_recall(judged) else of_level("f1", judged.level)(judged.scored)
    return judged.scored.match.get(judged.level)


def _figure_name(step: str, judged: Judged) -> str:
    if judged.scored.answer_set is not None and _by_recall(judged):
        return metric_text("recall_at_5")
    stem = "accuracy" if judged.scored.answer_set is None else "set_f1"
    return metric_text(f"{stem}_{judged.level}", step)


def _by_recall(judged: Judged) -> bool:
    return OWN.get(judged.scored.step) == "recall_at_5"


def _group(name: str, values: Sequence[tuple[float, str, Person]]) -> tuple[str, Metric, int]:
    patients = [patient for _, patient, _ in values]
    numbers = [value for value, _, _ in values]
    return name, mean_metric(numbers, patients, SEED, share=True), len(set(patients))


def _age(person: Person) -> str:
    if person.age is None:
        return say("index.group.no_age")
    low, high = next((low, high) for low, high in _AGES if high is None or person.age <= high)
    return say("index.group.over", low=low) if high is None else say("index.group.age", low=low, high=high)


def _sex(person: Person) -> str:
    return look_up("index.group", person.sex or "unknown", person.sex)


def _source(person: Person) -> str:
    return say("index.group.source", source=person.source)


def _hospital(values: Sequence[tuple[float, str, Person]]) -> Callable[[Person], str]:
    """Returns a function from a person to the hospital: large ones by name, those with too few patients together."""
    patients: dict[str, set[str]] = {}
    for _, patient, person in values:
        if person.hospital:
            patients.setdefault(person.hospital, set()).add(patient)
    enough = sorted((h for h in patients if len(patients[h]) >= FEW), key=lambda h: (-len(patients[h]), h))
    large = set(enough[:HOSPITALS_SHOWN])

    def name_of(person: Person) -> str:
        if not person.hospital:
            return ""
        named = person.hospital in large
        return say("index.group.hospital", name=person.hospital) if named else say("index.group.other_hospitals")

    return name_of


def _shown(name: str, metric: Mapping[str, Any]) -> str:
    between = interval_text(name, metric)
    value = metric_value(name, metric["value"])
    return say("index.value_interval", value=value, interval=between) if between else value


def _described(rows: Sequence[Sequence[str]], label: int, value: int, more: int) -> str:
    """Returns rows of a table as one line: label, value and what stands in column `more`."""
    lines = [say("index.plot.point", label=r[label], value=r[value], more=r[more]) for r in rows]
    return say("words.list_gap").join(lines)
