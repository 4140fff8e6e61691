"""The case-steps of one step of a run, as scored, and what baselines answer to the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from evaluation import baselines
from evaluation.baselines import MAJORITY, REGRESSION, TrainLabel
from evaluation.metrics import ScoredStep
from evaluation.record import RunRecord
from evaluation.record_scoring import RecordScorer, without_search
from evaluation.store.run_store import RunStore
from evaluation.visible_text import Passage, VisibleText, visible_texts
from search.trajectory import Status


@dataclass(frozen=True, slots=True)
class StepRun:
    """The case-steps of one step of a run, as scored, with the labels of the train split."""

    step: str
    records: tuple[RunRecord, ...]
    scored: tuple[ScoredStep, ...]
    train: tuple[TrainLabel, ...]

    @property
    def labelled(self) -> list[ScoredStep]:
        """Case-steps with a recorded label."""
        return [s for s in self.scored if s.labelled]

    @property
    def labelled_records(self) -> list[RunRecord]:
        """Records of the same."""
        return [r for r, s in zip(self.records, self.scored, strict=True) if s.labelled]


def step_run(engine: Engine, scorer: RecordScorer, step: str, pairs: Sequence[tuple[RunRecord, ScoredStep]]) -> StepRun:
    """Returns the case-steps of a step, which the scorer has scored, with the labels of the train split."""
    vocabularies = scorer.used.get(step, {})
    train = baselines.train_labels(engine, scorer.truths(step), vocabularies, scorer.split_scheme)
    return StepRun(step, tuple(r for r, _ in pairs), tuple(s for _, s in pairs), tuple(train))


def texts_of_steps(
    engine: Engine, scorer: RecordScorer, runs: Mapping[str, StepRun], regression: bool
) -> dict[str, dict[Passage, VisibleText]]:
    """Returns step -> (case id, occurrence) -> visible text, of the applicable case-steps and of the train cases of
    their sources, at every occurrence that is scored."""
    wanted = {}
    for step, own in runs.items():
        applicable = [s for s in own.scored if s.status != Status.NOT_APPLICABLE]
        sources = {s.source for s in applicable if s.labelled}
        if step in scorer.rules:
            learned = [t.case_id for t in own.train if regression and t.source in sources]
            passed = {s.occurrence for s in applicable if s.labelled}
            wanted[step] = {(s.case_id, s.occurrence) for s in applicable}
            wanted[step] |= {(case_id, occurrence) for case_id in learned for occurrence in passed}
    return visible_texts(engine, scorer.rules, wanted)


def fitted_regression(
    scorer: RecordScorer, own: StepRun, texts: Mapping[Passage, VisibleText]
) -> Sequence[RunRecord] | str:
    """Returns what the regression on visible facts answers to the labelled case-steps, or why it does not."""
    if not own.labelled:
        return "no case-step with a recorded label"
    if own.step not in scorer.rules:
        return "the run does not hold the pathway that says what was visible"
    return baselines.regression_records(scorer, own.labelled_records, own.train, texts)


def stored_step_run(engine: Engine, run_name: str, step: str) -> tuple[RecordScorer, StepRun]:
    """Returns the case-steps of a step of a stored run, and what scored them.

    Raises:
        UsageError: no such run, or records that were valued by recorded labels outside of the train split.
        StorageError: the database failed, or holds a record that cannot be read.
    """
    store = RunStore(engine)
    run = store.get(run_name)
    scorer = RecordScorer(engine, run)
    stored = [one for one in store.records(run.run_id) if one.record.step == step]
    pairs = [(without_search(one.record), scorer.scored(one)) for one in stored]
    return scorer, step_run(engine, scorer, step, pairs)


def baseline_steps(
    engine: Engine, scorer: RecordScorer, own: StepRun, level: str
) -> dict[str, list[tuple[RunRecord, ScoredStep]]]:
    """Returns what baselines answer to the labelled case-steps of a step that asks for one answer.

    Args:
        engine: the database of cases and runs.
        scorer: of the run.
        own: its case-steps.
        level: at which the majority class is taken.

    Returns:
        `majority_class` (right or not at `level` alone; probabilities are class frequencies) and `logistic_regression`,
        where it could be fitted -> case-steps, each as answered and as scored.
    """
    marks = baselines.majority_marks(own.train, own.labelled, level)
    marked = {own.labelled[i].key: mark for i, mark in marks.items()}
    frequencies = [
        (r, scorer.of_baseline(r)) for r in baselines.frequency_records(scorer, own.labelled_records, own.train)
    ]
    found = {MAJORITY: [(r, replace(s, match={level: marked[s.key]})) for r, s in frequencies if s.key in marked]}
    texts = texts_of_steps(engine, scorer, {own.step: own}, regression=True)
    fitted = fitted_regression(scorer, own, texts.get(own.step, {}))
    return found if isinstance(fitted, str) else {**found, REGRESSION: [(r, scorer.of_baseline(r)) for r in fitted]}
