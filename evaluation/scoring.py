"""Scores the stored records of a run against the recorded labels in the database; runs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine

from evaluation import baselines, matching
from evaluation.baselines import CLINICIANS, FULL_INFORMATION, MAJORITY, REGRESSION
from evaluation.formatting import metric_text
from evaluation.metrics import Metric, ScoredStep, against_labels, difference, means_against_labels, summarise
from evaluation.metrics.sets import of_level
from evaluation.record import RunRecord
from evaluation.record_scoring import RecordScorer, by_step, rescored
from evaluation.step_runs import StepRun, fitted_regression, step_run, texts_of_steps
from evaluation.store.run_store import Run, RunStore
from evaluation.taught_patients import TaughtPatients
from evaluation.visible_text import Passage, VisibleText
from evaluation.watching import Watch, unwatched
from search.trajectory import Status

_NOTHING: dict[str, Any] = {"value": None, "low": None, "high": None, "n": 0}
# What the table shows, in this order. Per level: those that may be headlined first, ICD block, category and code after.
_LEVELS = (
    matching.CCSR,
    matching.CHAPTER,
    matching.GROUP,
    matching.TERM,
    matching.BLOCK,
    matching.CATEGORY,
    matching.CODE,
)
_FIGURES = (
    "top_3",
    "top_5",
    "recall_at_5",
    "mrr",
    "half_credit",
    "log_score_change",
    "expected_calibration_error",
    "area_under_risk_coverage",
    "accuracy_at_coverage_50",
    "accuracy_at_coverage_80",
    "coverage",
    "accuracy_when_answered",
    "accuracy_of_abstained",
    "quadratic_weighted_kappa",
    "under_triage",
    "over_triage",
    "confident_misses",
    "must_not_miss_recall",
    "must_not_miss_recall_top_5",
    "truth_outside_vocabulary",
    "verified",
    "abstain",
    "failed",
    "unparseable",
    "unparseable_draws",
    "peer_agreement",
    "unanswerable_requests",
    "request_cost_usd",
)
# What tells of a search, not of its answers: a baseline does not search.
_OF_SEARCH = (
    "verified_misses",
    "required_item_recall",
    "coverage",
    "accuracy_when_answered",
    "accuracy_of_abstained",
)
# What frequencies, the same for every case, can be asked for beside accuracy.
_OF_FREQUENCIES = (
    "top_3",
    "top_5",
    "mrr",
    "half_credit",
    "brier",
    "log_score",
    "must_not_miss_recall",
    "must_not_miss_recall_top_5",
)


def score_run(
    engine: Engine,
    run_name: str,
    *,
    baseline_run: str | None = None,
    seed: int = 0,
    regression: bool = True,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Scores a run again: labels and marks that have changed since are stored; records stay as they are.

    Args:
        engine: the database of cases and runs.
        run_name: the run.
        baseline_run: run of strategy `full-information` to compare with; None takes `RUN-full-information` if stored.
        seed: of the bootstrap intervals.
        regression: fit the regression baseline, which reads every labelled case of the train split.
        watch: told how far it is: what, done, of how many.

    Returns:
        `{"run": NAME, "steps": {STEP: {"n": labelled case-steps, "metrics": {NAME: M}, "baselines": {NAME: M},
        "taught": {"train": N, "tuning": N}}}}`, with `"notes": [TEXT]` if a reader must know something first. Taught:
        case-steps of patients that a model of the run was tuned on, or stopped early by (None: cannot be told).
        M is `{"value", "low", "high", "n"}`, with `"seed"` of the interval (or `"interval": "exact"` of a share
        of 0 or 1) and `"reason"` where value or interval is None. Metrics: see `evaluation.metrics.summarise`, and
        `gain_over_BASELINE`, the paired difference of the first answer at the level of the answer key (of sets, of the
        F1 there), and `gain_over_BASELINE_LEVEL` at other levels that may be headlined; with `"level"`, `"discordant"`,
        patients that differ, and a `"reason"` that begins "few discordant" where they are fewer than ten. Baselines
        (`evaluation.baselines`), by that same figure; each with `"levels"`, all its figures by name, and those that
        learn with `"n_train"`.

    Raises:
        UsageError: no such run, a baseline run that is none, a vocabulary that no longer exists, or records that were
            valued by recorded labels outside of the train split.
        StorageError: the database failed, or holds a record that cannot be read.
    """
    store = RunStore(engine)
    run = store.get(run_name)
    scorer = RecordScorer(engine, run)
    pairs: dict[str, list[tuple[RunRecord, ScoredStep]]] = {}
    total = len(store.done(run.run_id))
    for number, (record, scored) in enumerate(rescored(store, run, scorer), 1):
        pairs.setdefault(record.step, []).append((record, scored))
        watch("scoring records", number, total)
    companion, reason = baselines.find_companion(store, run, baseline_run)
    theirs: dict[str, list[ScoredStep]] = {}
    if companion is not None:
        theirs = by_step(scorer.scored(stored) for stored in store.records(companion.run_id))
    order = [*(s for s in run.config.get("steps", ()) if s in pairs), *pairs]
    runs = {step: step_run(engine, scorer, step, pairs[step]) for step in dict.fromkeys(order)}
    texts = texts_of_steps(engine, scorer, runs, regression)
    steps, taught = {}, TaughtPatients(run.name)
    for number, (step, own) in enumerate(runs.items()):
        watch("figures of steps, with intervals", number, len(runs))
        full = reason if companion is None else theirs.get(step, [])
        steps[step] = _step_score(scorer, own, full, texts.get(step, {}), seed, regression)
        applicable = [r for r in own.records if r.status != Status.NOT_APPLICABLE]
        steps[step]["taught"] = taught.count(applicable)
    notes = [*_oracle(run), *taught.notes(of_step["taught"] for of_step in steps.values())]
    return {"run": run.name, "steps": steps, **({"notes": notes} if notes else {})}


def _oracle(run: Run) -> list[str]:
    """Says so of a run whose later steps were shown the recorded answers of earlier ones."""
    shown = run.config.get("predecessors") == "recorded"
    told = "is an oracle: its later steps were shown the recorded labels of earlier ones"
    return [f"run {run.name} {told}"] if shown else []


def result_rows(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a score as flat rows `{step, method, metric, value, low, high, n}`; method `run` or a baseline's name."""
    rows = []
    for step, of_step in score["steps"].items():
        for name, metric in of_step["metrics"].items():
            rows.append(_row(step, "run", name, metric))
        for method, baseline in of_step["baselines"].items():
            for name, metric in baseline["levels"].items():
                rows.append(_row(step, method, name, metric))
    return rows


def result_table(score: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the main figures of a score in words: one row per step and figure, one column per method.

    Intervals are 95 %; `n` counts the case-steps behind the figure of the run, and a cell that rests on other ones says
    its own. Figures that no method has are left out. `result_remarks` says why a cell is empty.
    """
    rows = []
    for step, of_step in score["steps"].items():
        for name, cells in _shown(of_step).items():
            n = cells["run"]["n"]
            texts = {method: _cell(cell, n) for method, cell in cells.items()}
            figure = _figure_text(name, cells["run"])
            rows.append({"step": step.replace("_", " "), "figure": figure, **texts, "n": str(n)})
    return rows


def result_remarks(score: Mapping[str, Any]) -> list[str]:
    """Returns why figures of `result_table` are empty, without interval or not to be trusted: one line per reason."""
    lines = []
    for step, of_step in score["steps"].items():
        words, shown = step.replace("_", " "), _shown(of_step)
        for method, baseline in of_step["baselines"].items():
            if baseline["value"] is None:
                lines.append(f"{words}: {method.replace('_', ' ')}: {baseline.get('reason', 'not computed')}")
                continue
            absent = [_figure_text(n, c["run"]) for n, c in shown.items() if c.get(method) is _NOTHING]
            if absent:
                lines.append(f"{words}: {method.replace('_', ' ')} has no {', '.join(absent)}")
        reasons: dict[str, list[str]] = {}
        for name, cells in shown.items():
            if reason := cells["run"].get("reason"):
                reasons.setdefault(reason, []).append(_figure_text(name, cells["run"]))
        lines += [f"{words}: {', '.join(figures)}: {reason}" for reason, figures in reasons.items()]
    return lines


def _shown(of_step: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Returns figure -> method -> metric, of the figures of the table that some method has; of a gain the run alone."""
    metrics, found = of_step["metrics"], {}
    for name in _listed(metrics):
        cells = {"run": metrics[name]}
        if not name.startswith("gain_over_"):
            cells |= {m: b["levels"].get(name, _NOTHING) for m, b in of_step["baselines"].items()}
        if any(cell["value"] is not None for cell in cells.values()):
            found[name] = cells
    return found


def _listed(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    gains = [name for name in metrics if name.startswith("gain_over_")]
    names: list[str] = []
    for level in _LEVELS:
        names += [f"accuracy_{level}", f"set_f1_{level}", *(n for n in gains if metrics[n].get("level") == level)]
    return [name for name in (*names, *_FIGURES) if name in metrics]


def _figure_text(name: str, metric: Mapping[str, Any]) -> str:
    level = metric.get("level")
    return name.removesuffix(f"_{level}").replace("_", " ") + (f" ({level})" if level else "")


def _cell(metric: Mapping[str, Any], n: int) -> str:
    own = "" if metric["n"] == n or metric["value"] is None else f", n {metric['n']}"
    return metric_text(metric) + own


def _row(step: str, method: str, name: str, metric: Mapping[str, Any]) -> dict[str, Any]:
    figures = {key: metric[key] for key in ("value", "low", "high", "n")}
    return {"step": step, "method": method, "metric": name, **figures}


def _step_score(
    scorer: RecordScorer,
    own: StepRun,
    full: Sequence[ScoredStep] | str,
    texts: Mapping[Passage, VisibleText],
    seed: int,
    regression: bool,
) -> dict[str, Any]:
    """Returns metrics and baselines of one step; `full` is the baseline run's, or why there is none."""
    vocabularies = scorer.used.get(own.step, {})
    levels_seen = [level for v in vocabularies.values() for level in (matching.key_level(v), *matching.levels_of(v))]
    levels = list(dict.fromkeys(levels_seen)) or [matching.CODE]
    key_level = levels[0]
    headlines = [level for v in vocabularies.values() for level in matching.headline_levels(v)]
    gain_levels = list(dict.fromkeys([key_level, *headlines]))
    scored = [_with_ceiling(s, texts) for s in own.scored]
    metrics = summarise(scored, key_level, seed)
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, steps: Sequence[ScoredStep] | str, **more: Any) -> None:
        reason = steps if isinstance(steps, str) else ""
        answered = [] if isinstance(steps, str) else list(steps)
        mine, other = baselines.in_common(own.labelled, answered)
        found[name] = {**_baseline(other, levels, seed, reason), **more}
        if other:
            gains = {level: _gain(mine, other, level, seed) for level in gain_levels}
            metrics.update(_named_gains(name, gains, key_level))

    n_train = {"n_train": len(own.train)}
    if any(s.answer_set for s in own.labelled):
        add(MAJORITY, baselines.majority_set_steps(scorer, own.labelled_records, own.train), **n_train)
    else:
        found[MAJORITY] = {**_majority(scorer, own, levels, seed), **n_train}
        gains = {level: _gain_over_majority(own, level, seed) for level in gain_levels}
        metrics.update(_named_gains(MAJORITY, gains, key_level))
    fitted = fitted_regression(scorer, own, texts) if regression else "it was not asked for"
    answers = fitted if isinstance(fitted, str) else [scorer.of_baseline(record) for record in fitted]
    add(REGRESSION, answers, n_train=sum((t.case_id, 1) in texts for t in own.train))
    add(FULL_INFORMATION, full or "the full-information run shares no case-step with a recorded label")
    clinicians = baselines.clinician_steps(scorer, own.labelled)
    if clinicians is not None:
        add(CLINICIANS, clinicians)
        known = {f"accuracy_{level}" for level in levels}  # one diagnosis each: no ranking and no probability
        found[CLINICIANS]["levels"] = {n: m for n, m in found[CLINICIANS]["levels"].items() if n in known}
    return {
        "n": len(own.labelled),
        "metrics": {name: metric.to_json() for name, metric in metrics.items()},
        "baselines": found,
    }


def _majority(scorer: RecordScorer, own: StepRun, levels: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns the baseline of one answer: its class is the commonest at each level by itself, its probabilities are
    class frequencies at that of the answer key."""
    found = {f"accuracy_{level}": baselines.majority_metric(own.train, own.labelled, level, seed) for level in levels}
    if answered := baselines.frequency_records(scorer, own.labelled_records, own.train):
        steps = [scorer.of_baseline(record) for record in answered]
        figures = means_against_labels(steps, levels[0], seed, _OF_FREQUENCIES)
        found |= {name: metric for name, metric in figures.items() if metric.value is not None}
    as_json = {name: metric.to_json() for name, metric in found.items()}
    return {**as_json[f"accuracy_{levels[0]}"], "levels": as_json}


def _named_gains(baseline: str, gains: Mapping[str, Metric], key_level: str) -> dict[str, Metric]:
    """Returns the gains by name: at the answer key without a suffix, at other levels with theirs."""
    return {
        f"gain_over_{baseline}" + ("" if level == key_level else f"_{level}"): gain.with_detail(level=level)
        for level, gain in gains.items()
    }


def _gain_over_majority(own: StepRun, level: str, seed: int) -> Metric:
    labelled = own.labelled
    marks = baselines.majority_marks(own.train, labelled, level)
    return difference(
        [float(labelled[i].match[level]) for i in marks],
        [float(m) for m in marks.values()],
        [labelled[i].patient_id for i in marks],
        seed,
    )


def _baseline(steps: Sequence[ScoredStep], levels: Sequence[str], seed: int, reason: str) -> dict[str, Any]:
    """Returns the figures of a baseline over its case-steps: the main one, and all under `levels`."""
    if not steps:
        nothing = Metric(None, None, None, 0, reason or "no case-step in common with a recorded label").to_json()
        return {**nothing, "levels": {f"accuracy_{level}": nothing for level in levels}}
    key_level = levels[0]
    figures = {name: m for name, m in against_labels(steps, key_level, seed).items() if name not in _OF_SEARCH}
    as_json = {name: metric.to_json() for name, metric in figures.items() if metric.value is not None}
    main = figures[f"set_f1_{key_level}" if any(s.answer_set for s in steps) else f"accuracy_{key_level}"]
    return {**main.to_json(), "levels": as_json}


def _gain(mine: Sequence[ScoredStep], other: Sequence[ScoredStep], level: str, seed: int) -> Metric:
    """Returns the paired difference of the main figure; see `_main`."""
    both = [
        (a, b, s.patient_id)
        for s, o in zip(mine, other, strict=True)
        if (a := _main(s, level)) is not None and (b := _main(o, level)) is not None
    ]
    return difference([a for a, _, _ in both], [b for _, b, _ in both], [p for _, _, p in both], seed)


def _main(step: ScoredStep, level: str) -> float | None:
    """Returns whether the first answer is right at a level; of a set its F1 there."""
    value = of_level("f1", level)(step)
    return step.match.get(level) if value is None and step.answer_set is None else value


def _with_ceiling(step: ScoredStep, texts: Mapping[Passage, VisibleText]) -> ScoredStep:
    text = texts.get((step.case_id, step.occurrence))
    if text is None or not text.offered or step.status == Status.NOT_APPLICABLE:
        return step
    return replace(step, ceiling=text.recorded / text.offered)
