"""Compares two runs case-step by case-step: paired differences, clustered by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from clinical_data.errors import UsageError
from evaluation.formatting import metric_text
from evaluation.metrics import FEW_WORDS, ScoredStep, Value, better, comparable, difference, few_discordant, label_means
from evaluation.record import RunRecord
from evaluation.record_scoring import RecordScorer, without_search
from evaluation.store.run_store import Run, RunStore, differing_keys
from evaluation.taught_patients import TaughtPatients
from search.trajectory import Status

_HINDSIGHT = "hindsight"
_OWN_VALUE = "self_consistency"


@dataclass(frozen=True, slots=True)
class _Scored:
    record: RunRecord
    scored: ScoredStep


def compare_runs(engine: Engine, one: str, other: str, *, seed: int = 0) -> dict[str, Any]:
    """Compares two runs over the case-steps that both have; stores nothing.

    Args:
        engine: the database of both.
        one, other: names of the runs.
        seed: of the bootstrap intervals.

    Returns:
        `{"a": NAME, "b": NAME, "differs": {OPTION: [of a, of b]}, "notes": [TEXT], "steps": {STEP: {"n": shared
        case-steps, "labelled": those with a label, "metrics": {NAME: M}, "taught": {"a": T, "b": T}}}}`, T as in
        `score_run`, where M is `{"a", "b", "difference",
        "low", "high", "n", "seed", "discordant", "better"}`: the means of both runs over the n case-steps that have a
        value in both, a - b with its interval, and the patients that differ; `"reason"` "few discordant ..." where
        they are fewer than ten, so that the interval is not to be trusted. Of figures that are 0 or 1 per case-step
        also `"only_a"` and `"only_b"`, in how many case-steps one of the two alone has 1, and `"mcnemar_p"` (see
        `mcnemar_p`).

    Raises:
        UsageError: no such run, the same run twice, nothing shared, records valued by recorded labels outside of the
            train split, or one run with a hindsight and one with a prospective chart.
        StorageError: the database failed, or holds a record that cannot be read.

    Source: search.md, "Chart access": reports never mix hindsight and prospective.
    """
    if one == other:
        raise UsageError("a run is not compared with itself", hint="name two runs: `wardstar runs list` shows them")
    store = RunStore(engine)
    runs = store.get(one), store.get(other)
    scorers = tuple(RecordScorer(engine, run) for run in runs)
    first, second = (_scored(store, run, scorer) for run, scorer in zip(runs, scorers, strict=True))
    shared = [key for key in first if key in second]
    pairs = [(first[key], second[key]) for key in shared if _applies(first[key]) and _applies(second[key])]
    if not pairs:
        raise UsageError(
            f"runs {one} and {other} share no case-step that applies to the case",
            hint="compare runs over the same cases and steps",
        )
    _refuse_mixed(pairs, one, other)
    steps: dict[str, Any] = {}
    taught = TaughtPatients(one), TaughtPatients(other)
    for step in dict.fromkeys(a.record.step for a, _ in pairs):
        here = [pair for pair in pairs if pair[0].record.step == step]
        steps[step] = _step([(a.scored, b.scored) for a, b in here], scorers[0].key_of(step), seed)
        steps[step]["taught"] = {
            side: of_run.count(pair[i].record for pair in here)
            for i, (side, of_run) in enumerate(zip(("a", "b"), taught, strict=True))
        }
    told = [
        note
        for side, of_run in zip(("a", "b"), taught, strict=True)
        for note in of_run.notes(step["taught"][side] for step in steps.values())
    ]
    alone = [len(runs_own) - len(shared) for runs_own in (first, second)]
    return {
        "a": one,
        "b": other,
        "differs": _differing(*runs),
        "notes": _notes(pairs, one, other, alone) + told,
        "steps": steps,
    }


def mcnemar_p(only_one: int, only_other: int) -> float:
    """Returns the two-sided exact p of McNemar's test: of n discordant pairs, each side had an even chance.

    It is what to read where few patients are discordant: the bootstrap interval of the difference is too narrow there.
    It takes case-steps as independent, which those of one patient are not: with several steps of a patient that differ
    it is too small, and where many patients are discordant the interval, which is clustered, is what to read. 1 where
    no pair is discordant.

    Source: McNemar 1947, Psychometrika 12:153-157; exact binomial form: scipy.stats.binomtest.
    """
    if only_one + only_other == 0:
        return 1.0
    from scipy.stats import binomtest  # here, since nothing else on the command line needs it

    return float(binomtest(only_one, only_one + only_other).pvalue)


def comparison_table(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns a comparison in words: one row per step and figure that both runs have; `better`: which direction.

    `alone` has the case-steps in which the first, and the second, run alone has 1.
    """
    rows = []
    for step, of_step in result["steps"].items():
        for name, metric in of_step["metrics"].items():
            row = {"step": step.replace("_", " "), "figure": name.replace("_", " "), "better": better(name)}
            row |= {run: _number(metric[side]) for run, side in ((result["a"], "a"), (result["b"], "b"))}
            row["difference"] = metric_text({**metric, "value": metric["difference"]}, _digits(metric))
            row["n"] = str(metric["n"])
            if "mcnemar_p" in metric:
                row["alone"] = f"{metric['only_a']} / {metric['only_b']}"
                row["McNemar p"] = f"{metric['mcnemar_p']:.3f}"
            row["remark"] = FEW_WORDS if few_discordant(metric) else ""
            rows.append(row)
    return rows


def _scored(store: RunStore, run: Run, scorer: RecordScorer) -> dict[tuple[str, str, int], _Scored]:
    found = {}
    for stored in store.records(run.run_id):
        scored = scorer.scored(stored)
        found[scored.key] = _Scored(without_search(stored.record), scored)
    return found


def _applies(one: _Scored) -> bool:
    return one.scored.status != Status.NOT_APPLICABLE


def _refuse_mixed(pairs: Sequence[tuple[_Scored, _Scored]], one: str, other: str) -> None:
    """Raises UsageError where one run opened the chart in hindsight and the other prospectively."""
    accesses = [{str(pair[i].record.settings.get("chart_access", _HINDSIGHT)) for pair in pairs} for i in (0, 1)]
    if len(accesses[0] | accesses[1]) > 1:
        words = [" and ".join(sorted(access)) for access in accesses]
        raise UsageError(
            f"chart access of run {one} was {words[0]}, of run {other} {words[1]}: their figures do not compare",
            hint="replay one of them with the other's --chart-access",
        )


def _notes(pairs: Sequence[tuple[_Scored, _Scored]], one: str, other: str, alone: Sequence[int]) -> list[str]:
    """Returns what a reader must know before the figures."""
    notes = []
    values = [{str(pair[i].record.settings.get("value", _OWN_VALUE)) for pair in pairs} for i in (0, 1)]
    if values[0] != values[1]:
        words = [" and ".join(sorted(value)) for value in values]
        notes.append(f"value sources differ: {one} {words[0]}, {other} {words[1]}")
    if "ground_truth" in values[0] | values[1]:
        notes.append("recorded labels steered the search of train cases: the figures say nothing of other cases")
    for name in ("vocabulary", "prompts", "catalogue"):
        if any(a.record.hashes.get(name) != b.record.hashes.get(name) for a, b in pairs):
            notes.append(f"the {name} differs between the runs")
    for run, number in zip((one, other), alone, strict=True):
        if number:
            notes.append(f"{number} case-steps of {run} are not in the other run")
    return notes


def _differing(one: Run, other: Run) -> dict[str, list[Any]]:
    """Returns the options that differ, with both values; of a pathway and of hashes the name alone is worth showing."""
    found: dict[str, list[Any]] = {}
    for key in differing_keys(one.config, other.config):
        if key.startswith("hashes") or key in ("pathway.text", "pathway.sha256"):
            continue
        found[key] = [_at(one.config, key), _at(other.config, key)]
    return found


def _at(config: Mapping[str, Any], dotted: str) -> Any:
    value: Any = config
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _step(pairs: Sequence[tuple[ScoredStep, ScoredStep]], key_level: str, seed: int) -> dict[str, Any]:
    labelled = [(a, b) for a, b in pairs if a.labelled and b.labelled]
    both = [step for pair in labelled for step in pair]
    against_labels = label_means(both, key_level)
    metrics = {}
    for name, value in comparable(both, key_level).items():
        row = paired_difference(labelled if name in against_labels else pairs, value, seed)
        if row is not None:
            metrics[name] = row | {"better": better(name)}
    return {"n": len(pairs), "labelled": len(labelled), "metrics": metrics}


def paired_difference(pairs: Sequence[tuple[ScoredStep, ScoredStep]], value: Value, seed: int) -> dict[str, Any] | None:
    """Returns the comparison by one figure, M of `compare_runs`; None where no pair has a value on both sides."""
    found = [(x, y, a.patient_id) for a, b in pairs if (x := value(a)) is not None and (y := value(b)) is not None]
    if not found:
        return None
    ours, theirs = [x for x, _, _ in found], [y for _, y, _ in found]
    gain = difference(ours, theirs, [patient for _, _, patient in found], seed).to_json()
    row = {"a": sum(ours) / len(ours), "b": sum(theirs) / len(theirs), "difference": gain.pop("value"), **gain}
    if {*ours, *theirs} <= {0.0, 1.0}:
        only_a = sum(x > y for x, y in zip(ours, theirs, strict=True))
        only_b = sum(x < y for x, y in zip(ours, theirs, strict=True))
        row |= {"only_a": only_a, "only_b": only_b, "mcnemar_p": mcnemar_p(only_a, only_b)}
    return row


def _digits(metric: Mapping[str, Any]) -> int:
    return 2 if max(abs(metric["a"]), abs(metric["b"])) < 100 else 0


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
