"""The results of a run as a chief physician asks for them: per step one figure against its baselines, then all others.

Which figure is the first follows clinical.md, "Metrics" and "Answer vocabularies": CCSR group and chapter where answers
are ICD codes (category and code are never headlined), else the group or term; of a differential the recall among the
first five, of other sets F1, of a step that reads new results the change of the log score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evaluation import matching
from evaluation.metrics import few_discordant
from evaluation.review import plots, words
from evaluation.review.language import count, look_up, say
from evaluation.review.metric_words import NameOf, baseline_text, interval_text, metric_text, metric_value, points

LEVELS = (matching.CCSR, matching.CHAPTER, matching.GROUP, matching.TERM)
"""Levels whose figures may be headlined, in that order."""
_LATER = (matching.BLOCK, matching.CATEGORY, matching.CODE)
OWN = {"differential": "recall_at_5", "result_update": "log_score_change"}
"""Step -> its headline, where that is neither accuracy nor F1."""
_WITH = {
    "triage": ("under_triage", "quadratic_weighted_kappa"),
    "workup": ("required_item_recall", "chosen_cost_usd"),
}
"""Step -> figures that clinical.md asks for beside the headline."""
_BASELINES = ("majority_class", "logistic_regression", "recorded_clinicians", "full_information")
_ONE_ANSWER = ("accuracy_", "top_", "mrr", "half_credit", "brier", "log_score", "truth_outside", "gain_over_")
"""Beginnings of the names of figures that compare one first answer; they say nothing of a set."""
_AGAINST_LABELS = (*_ONE_ANSWER, "set_", "recall_at_")
_RIGHT_OF = (
    "accuracy_",
    "top_",
    "confident_misses",
    "verified_misses",
    "must_not_miss_",
    "under_triage",
    "over_triage",
)
"""Beginnings of the names of figures that count questions, so that `12 of 23` says the same as the percentage."""
_COUNTED = ("verified", "unverified", "abstain", "failed", "not_applicable")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure with its 95 % interval, outside of tables also of how many; empty when it was not computed."""

    value: str = ""
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Headline:
    """The first figure of a step.

    Attributes:
        what: what the figure says, in words; `sentence`: n and interval.
        verdicts: how it compares with each baseline.
        beside: further figures that belong to it, by name.
        plot: this run and its baselines as intervals; `rows` has the same numbers.
    """

    step: str
    anchor: str
    value: str
    what: str
    sentence: str
    verdicts: tuple[str, ...]
    beside: tuple[tuple[str, Figure], ...]
    plot: Markup
    rows: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """All results of one step: a row per figure, a column per method; `missing`: why some are empty or not shown."""

    step: str
    several: bool
    labelled: int
    methods: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]
    missing: tuple[str, ...]
    further: tuple[tuple[str, Figure], ...]


def headline_names(step: str, metrics: Mapping[str, Any], several: bool) -> list[str]:
    """Returns the figures of a step that may be headlined and were computed, the first of all first."""
    stem = "set_f1_" if several else "accuracy_"
    names = [OWN.get(step, ""), *(f"{stem}{level}" for level in LEVELS), "recall_at_5" if several else "top_5"]
    return [n for n in dict.fromkeys(names) if metrics.get(n) and metrics[n].get("value") is not None]


def headlines(score: Mapping[str, Any], sets: Set[str], name_of: NameOf) -> tuple[Headline, ...]:
    """Returns the first figure of every step with a recorded label, in the order of the pathway."""
    found = [
        _headline(number, step, of, step in sets, name_of(step))
        for number, (step, of) in enumerate(score["steps"].items(), 1)
    ]
    return tuple(one for one in found if one is not None)


def results(score: Mapping[str, Any], sets: Set[str], name_of: NameOf) -> tuple[StepResult, ...]:
    """Returns all figures of every step."""
    return tuple(_result(step, of_step, step in sets, name_of(step)) for step, of_step in score["steps"].items())


def _headline(number: int, step: str, of_step: Mapping[str, Any], several: bool, title: str) -> Headline | None:
    metrics, baselines = of_step["metrics"], of_step["baselines"]
    names = headline_names(step, metrics, several)
    if not names:
        return None
    name, metric = names[0], metrics[names[0]]
    rows = [(say("index.this_run"), say("index.this_run"), metric)]
    for baseline in _ordered(baselines):
        own = baselines[baseline].get("levels", {}).get(name)
        if own and own.get("value") is not None:
            full = baseline_text(baseline)
            rows.append((full, look_up("index.short", baseline, full), own))
    shares = metric_value(name, metric["value"]).endswith("%")
    whole = f"{title}{say('words.colon')}{metric_text(name, step)}"
    spreads = [
        plots.Spread(short, m["value"], m["low"], m["high"], metric_value(name, m["value"])) for _, short, m in rows
    ]
    told = [
        (full, metric_value(name, m["value"]), interval_text(name, m), str(m.get("n", of_step["n"])))
        for full, _, m in rows
    ]
    describe = say("words.list_gap").join(f"{text} {value}" for text, value, _, _ in told)
    return Headline(
        step=title,
        anchor=f"step-{number}",
        value=metric_value(name, metric["value"]),
        what=_what(step, name),
        sentence=_sentence(name, metric),
        verdicts=tuple(_verdicts(name, metrics, baselines)),
        beside=tuple(
            (metric_text(n, step), Figure(metric_value(n, metrics[n]["value"]), _of_and_interval(n, metrics[n])))
            for n in (*names[1:2], *_WITH.get(step, ()))
            if metrics.get(n) and metrics[n].get("value") is not None
        ),
        plot=plots.interval_plot(f"headline-{number}", whole, spreads, describe=describe) if shares else Markup(""),
        rows=tuple(told),
    )


def _what(step: str, name: str) -> str:
    level = name.rpartition("_")[2]
    own = look_up("index.headline_of", step, "") if level in ("group", "term") and name.startswith("accuracy_") else ""
    return own or say(f"index.headline.{name}")


def _sentence(name: str, metric: Mapping[str, Any]) -> str:
    """Returns how many that were, and the interval."""
    parts = [_of(name, metric)]
    if between := interval_text(name, metric):
        parts.append(say("index.interval_95", interval=between))
    else:
        parts.append(say("index.no_interval"))
    return say("words.list_gap").join(parts)


def _of(name: str, metric: Mapping[str, Any]) -> str:
    """Returns of how many questions a figure tells: `12 of 23` where it counts them, else `23 questions`."""
    n = int(metric["n"])
    if name.startswith(_RIGHT_OF):
        return say("index.of_n", right=round(float(metric["value"]) * n), n=n)
    return count(n, "question")


def _verdicts(name: str, metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[str]:
    found = []
    level = name.rpartition("_")[2]
    for baseline in _ordered(baselines):
        gain = metrics.get(f"gain_over_{baseline}_{level}") or metrics.get(f"gain_over_{baseline}")
        if not gain or gain.get("value") is None or gain.get("level", level) != level:
            continue
        other = baselines[baseline].get("levels", {}).get(name, {}).get("value")
        against = {"baseline": baseline_text(baseline), "value": metric_value(name, other) or "–"}
        low, high = gain.get("low"), gain.get("high")
        if low is None or high is None or few_discordant(gain):
            found.append(say("index.verdict.few", **against))
            continue
        if low <= 0 <= high:
            limits = {"gap": points(gain["value"]), "low": points(low, unit=False), "high": points(high, unit=False)}
            found.append(say("index.verdict.open", **against, **limits))
            continue
        near, far = sorted((abs(low), abs(high)))
        gap = {"gap": points(abs(gain["value"]), sign=False), "low": points(near, sign=False, unit=False)}
        kind = "better" if low > 0 else "worse"
        found.append(say(f"index.verdict.{kind}", **against, **gap, high=points(far, sign=False, unit=False)))
    return found


def _ordered(baselines: Mapping[str, Any]) -> list[str]:
    return [*(b for b in _BASELINES if b in baselines), *(b for b in baselines if b not in _BASELINES)]


def _of_and_interval(name: str, metric: Mapping[str, Any]) -> str:
    return say("words.list_gap").join(filter(None, (_of(name, metric), interval_text(name, metric))))


def _result(step: str, of_step: Mapping[str, Any], several: bool, title: str) -> StepResult:
    """One step of `evaluation.scoring.score_run`: figures against labels in the table, the others further down."""
    metrics, baselines, n = of_step["metrics"], of_step["baselines"], int(of_step["n"])
    names = _ordered(baselines)
    columns = [metrics, *(baselines[b].get("levels", {}) for b in names)]
    shown = [m for m in metrics if m.startswith(_AGAINST_LABELS) and not (several and m.startswith(_ONE_ANSWER))]
    first = headline_names(step, metrics, several)
    later = [m for m in shown if m.endswith(tuple(f"_{level}" for level in _LATER))]
    order = [*(m for m in first if m in shown), *(m for m in shown if m not in (*first, *later)), *later]
    rows = [(metric_text(m, step), tuple(_figure(m, column.get(m), n) for column in columns)) for m in order]
    missing = [
        f"{baseline_text(b)}{say('words.colon')}{words.short(str(baselines[b].get('reason') or '–'), 200)}"
        for b in names
        if baselines[b].get("value") is None and not several
    ]
    if several:
        missing.append(say("index.set_figures"))
    further = [
        (metric_text(name, step), Figure(metric_value(name, metric["value"]), _of_and_interval(name, metric)))
        for name, metric in metrics.items()
        if not name.startswith(_AGAINST_LABELS) and name not in _COUNTED and metric.get("value") is not None
    ]
    methods = (say("index.this_run"), *map(baseline_text, names))
    kept = tuple(row for row in rows if any(figure.value for figure in row[1]))
    return StepResult(title, several, n, methods, kept, tuple(missing), tuple(further))


def _figure(name: str, metric: Mapping[str, Any] | None, labelled: int) -> Figure:
    if not metric or metric.get("value") is None:
        return Figure()
    n = metric.get("n", labelled)
    note = f"n = {n}" if n != labelled and name.startswith(_AGAINST_LABELS) else ""
    between: Sequence[str] = (interval_text(name, metric), note)
    return Figure(metric_value(name, metric["value"]), ", ".join(filter(None, between)))
