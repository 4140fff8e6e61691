"""Scores the stored records of a run against the recorded labels in the database; runs no model."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from sqlalchemy import Engine

from clinical_data.chart import AnswerState
from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.splits import PATIENT_SCHEME, TRAIN
from clinical_data.store.truth_store import TruthStore
from clinical_data.vocabulary import Vocabulary, load_vocabulary
from evaluation import baselines, matching
from evaluation.formatting import metric_text
from evaluation.metrics import Metric, ScoredStep, brier_score, difference, summarise
from evaluation.record import RunRecord
from evaluation.store.run_store import Run, RunStore, StoredRecord
from search.trajectory import Status
from search.value import GROUND_TRUTH

logger = logging.getLogger(__name__)

_NOTHING: dict[str, Any] = {"value": None, "low": None, "high": None, "n": 0}
_TABLE = (
    "accuracy_",
    "top_",
    "mrr",
    "half_credit",
    "truth_outside_vocabulary",
    "verified",
    "abstain",
    "failed",
    "unparseable",
    "peer_agreement",
    "unanswerable_requests",
    "request_cost_usd",
)


@dataclass(frozen=True, slots=True)
class StepRule:
    """How a pathway scores one step.

    Attributes:
        truth: name under which its labels are stored.
        vocabularies: source -> name of a bundled vocabulary, or a YAML file.
    """

    truth: str
    vocabularies: dict[str, str] = field(default_factory=dict)


def score_run(engine: Engine, run_name: str, *, baseline_run: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Scores a run again: labels and marks that have changed since are stored; records stay as they are.

    Args:
        engine: the database of cases and runs.
        run_name: the run.
        baseline_run: run of strategy `full-information` to compare with; None takes `RUN-full-information` if stored.
        seed: of the bootstrap intervals.

    Returns:
        `{"run": NAME, "steps": {STEP: {"n": labelled case-steps, "metrics": {NAME: M}, "baselines": {NAME: M}}}}`
        where M is `{"value", "low", "high", "n"}`, with `"reason"` where value or interval is None. Metrics: see
        `evaluation.metrics.summarise`, and `gain_over_BASELINE`, the paired difference at the level of the answer key.
        Baselines, at that same level: `majority_class` (with `"n_train"`) and `full_information`; each with `"levels"`,
        its figure for every `accuracy_LEVEL`.

    Raises:
        UsageError: no such run, a baseline run that is none, a vocabulary that no longer exists, or records that were
            valued by recorded labels outside of the train split.
        StorageError: the database failed, or holds a record that cannot be read.
    """
    store = RunStore(engine)
    run = store.get(run_name)
    judge = _Judge(engine, run)
    by_step = _by_step(_rescored(store, run, judge))
    companion, reason = baselines.find_companion(store, run, baseline_run)
    theirs: dict[str, list[ScoredStep]] = {}
    if companion is not None:
        theirs = _by_step(judge.scored(stored) for stored in store.records(companion.run_id))
    order = [*(s for s in run.config.get("steps", ()) if s in by_step), *by_step]
    steps = {}
    for step in dict.fromkeys(order):
        full = None if companion is None else theirs.get(step, [])
        steps[step] = _step_score(engine, judge, step, by_step[step], full, reason, seed)
    return {"run": run.name, "steps": steps}


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

    Intervals are 95 %; `n` counts the case-steps behind the figure of the run. Figures that no method has are left out.
    """
    rows = []
    for step, of_step in score["steps"].items():
        for name, metric in of_step["metrics"].items():
            if not name.startswith(_TABLE):
                continue
            cells = {"run": metric}
            for method, baseline in of_step["baselines"].items():
                cells[method] = baseline["levels"].get(name, _NOTHING)
            if any(cell["value"] is not None for cell in cells.values()):
                texts = {method: metric_text(cell) for method, cell in cells.items()}
                rows.append({"step": step, "figure": name.replace("_", " "), **texts, "n": str(metric["n"])})
    return rows


def _row(step: str, method: str, name: str, metric: Mapping[str, Any]) -> dict[str, Any]:
    figures = {key: metric[key] for key in ("value", "low", "high", "n")}
    return {"step": step, "method": method, "metric": name, **figures}


class _Judge:
    """Looks up labels and vocabularies of one run and scores its records."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self._truths = TruthStore(engine)
        self._rules = step_rules(run.config)
        self._of_step: dict[str, dict[str, GroundTruth]] = {}
        self._vocabularies: dict[str, Vocabulary] = {}
        self._warned: set[str] = set()
        self.used: dict[str, dict[str, Vocabulary]] = defaultdict(dict)
        self.split_scheme: str = run.config.get("split_scheme", PATIENT_SCHEME)
        self._run = run

    def truths(self, step: str) -> dict[str, GroundTruth]:
        """Returns case id -> labels of a step, over all cases of the database."""
        rule = self._rules.get(step)
        selector = rule.truth if rule else step
        if selector not in self._of_step:
            self._of_step[selector] = self._truths.truth_of_step(selector)
        return self._of_step[selector]

    def marks(self, stored: StoredRecord) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Returns labels as rows and marks of a stored case-step as they are today."""
        record, truth, vocabulary = self._of(stored.record)
        rows: list[dict[str, Any]] = [dict(row) for row in matching.truth_rows(truth)]
        if vocabulary is None:  # failed before its vocabulary was known: a miss at every level it was marked at
            return rows, dict.fromkeys(stored.match, 0)
        return rows, matching.match(record, truth, vocabulary)

    def scored(self, stored: StoredRecord) -> ScoredStep:
        """Returns what metrics need to know of a stored case-step."""
        self._refuse_steered(stored.record)
        record, truth, vocabulary = self._of(stored.record)
        _, marks = self.marks(stored)
        opened = record.requests
        common: dict[str, Any] = {
            "case_id": record.case_id,
            "step": record.step,
            "occurrence": record.occurrence,
            "source": record.source,
            "patient_id": record.patient_id,
            "status": record.status,
            "match": marks,
            "labelled": bool(marks),
            "parseable": bool(record.ranked),
            "peer_agreement": record.peer_agreement,
            "requests": len(opened),
            "unanswered": sum(r.state != AnswerState.RECORDED for r in opened),
            "cost": sum(r.cost for r in opened),
            "tokens": record.tokens,
            "seconds": record.seconds,
        }
        if not marks or vocabulary is None:
            return ScoredStep(**common, brier=1.0 if marks else None, credit=0.0 if marks else None)
        label = matching.principal_label(truth, vocabulary)
        return ScoredStep(
            **common,
            classes=matching.label_classes(label, vocabulary) if label else {},
            rank=matching.rank_of_truth(record, truth, vocabulary),
            credit=matching.credit(record, truth, vocabulary) if vocabulary.half_credit else None,
            brier=brier_score(_probabilities(record, vocabulary), matching.truth_class(truth, vocabulary)),
            outside=not matching.in_vocabulary(truth, vocabulary),
        )

    def _refuse_steered(self, record: RunRecord) -> None:
        """Raises UsageError for a search that recorded labels steered outside of the train split; warns within it."""
        if record.settings.get("value") != GROUND_TRUTH:
            return
        run = self._run
        if run.config.get("split") != TRAIN:
            raise UsageError(
                f"run {run.name} was steered by recorded labels of cases outside of the train split: it has no metrics",
                hint="replay it with another --value",
            )
        if GROUND_TRUTH not in self._warned:
            self._warned.add(GROUND_TRUTH)
            logger.warning("run %s was steered by recorded labels: its figures say nothing of other cases", run.name)

    def _of(self, record: RunRecord) -> tuple[RunRecord, GroundTruth | None, Vocabulary | None]:
        return record, self.truths(record.step).get(record.case_id), self._vocabulary(record)

    def _vocabulary(self, record: RunRecord) -> Vocabulary | None:
        if not record.vocabulary:
            return None
        rule = self._rules.get(record.step)
        name = (rule.vocabularies if rule else {}).get(record.source, record.vocabulary)
        if name not in self._vocabularies:
            self._vocabularies[name] = load_vocabulary(name)
        found = self._vocabularies[name]
        if record.hashes.get("vocabulary", found.sha256) != found.sha256 and name not in self._warned:
            self._warned.add(name)
            logger.warning("vocabulary %s has changed since the run; records are scored by the present one", name)
        self.used[record.step][record.source] = found
        return found


def step_rules(config: Mapping[str, Any]) -> dict[str, StepRule]:
    """Returns step name -> rule from the text of the pathway that a run's configuration holds; empty without one."""
    pathway = config.get("pathway")
    text = pathway.get("text") if isinstance(pathway, Mapping) else None
    if not text:
        return {}
    rules = {}
    for step in yaml.safe_load(text).get("steps", ()):
        vocabularies = (step.get("answer") or {}).get("vocabulary") or {}
        rules[step["name"]] = StepRule(step.get("truth", step["name"]), dict(vocabularies))
    return rules


def _probabilities(record: RunRecord, vocabulary: Vocabulary) -> dict[str, float]:
    """Returns class -> probability at the level of the answer key; empty when the step gave no answer."""
    found: dict[str, float] = defaultdict(float)
    if record.status != Status.FAILED:
        for answer in record.ranked:
            found[matching.answer_class(answer.code, vocabulary) or answer.code] += answer.probability
    return dict(found)


def _rescored(store: RunStore, run: Run, judge: _Judge) -> Iterator[ScoredStep]:
    """Yields the case-steps of a run as scored today, and stores labels and marks that changed."""
    for stored in store.records(run.run_id):
        truth, marks = judge.marks(stored)
        if (truth, marks) != (stored.truth, stored.match):
            record = stored.record
            store.rescore(run.run_id, (record.case_id, record.step, record.occurrence), truth, marks)
        yield judge.scored(stored)


def _by_step(scored: Iterator[ScoredStep]) -> dict[str, list[ScoredStep]]:
    found: dict[str, list[ScoredStep]] = defaultdict(list)
    for one in scored:
        found[one.step].append(one)
    return dict(found)


def _step_score(
    engine: Engine,
    judge: _Judge,
    step: str,
    scored: Sequence[ScoredStep],
    full: Sequence[ScoredStep] | None,
    reason: str,
    seed: int,
) -> dict[str, Any]:
    """Returns metrics and baselines of one step; `full` is the baseline run's, None (with the reason) without one."""
    vocabularies = judge.used.get(step, {})
    levels_seen = [level for v in vocabularies.values() for level in (matching.key_level(v), *matching.levels_of(v))]
    levels = list(dict.fromkeys(levels_seen)) or [matching.CODE]
    key_level = levels[0]
    labelled = [s for s in scored if s.labelled]
    metrics = summarise(scored, key_level, seed)
    train = baselines.train_labels(engine, judge.truths(step), vocabularies, judge.split_scheme)
    majority = {level: baselines.majority_metric(train, labelled, level, seed) for level in levels}
    marks = baselines.majority_marks(train, labelled, key_level)
    metrics["gain_over_majority_class"] = difference(
        [float(labelled[i].match[key_level]) for i in marks],
        [float(m) for m in marks.values()],
        [labelled[i].patient_id for i in marks],
        seed,
    )
    found = {baselines.MAJORITY: {**_baseline(majority, key_level), "n_train": len(train)}}
    mine, theirs = baselines.in_common(labelled, full or ())
    if full is None:
        complete = {level: Metric(None, None, None, 0, reason) for level in levels}
    else:
        complete = {level: baselines.full_information_metric(theirs, level, seed) for level in levels}
        both = [(a, b) for a, b in zip(mine, theirs, strict=True) if key_level in a.match and key_level in b.match]
        metrics["gain_over_full_information"] = difference(
            [float(a.match[key_level]) for a, _ in both],
            [float(b.match[key_level]) for _, b in both],
            [a.patient_id for a, _ in both],
            seed,
        )
    found[baselines.FULL_INFORMATION] = _baseline(complete, key_level)
    return {
        "n": len(labelled),
        "metrics": {name: metric.to_json() for name, metric in metrics.items()},
        "baselines": found,
    }


def _baseline(by_level: Mapping[str, Metric], key_level: str) -> dict[str, Any]:
    levels = {f"accuracy_{level}": metric.to_json() for level, metric in by_level.items()}
    return {**by_level[key_level].to_json(), "levels": levels}
