"""Takes cases of a run through the graph, one after another, and hands each outcome to the record.

The recorded labels are read only here, and only after a step's conclusion is final.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine

from clinical_data.case import Case
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation import recording
from evaluation.matching import match, truth_rows
from evaluation.record import RunRecord
from evaluation.store.run_store import Run, RunStore
from search.models.registry import load_model
from search.problem import Models
from workflow.config import PreparedRun, prepare
from workflow.graph import CaseContext, compile_pathway, open_checkpoints, run_case
from workflow.state import StepConclusion, no_answer
from workflow.step import StepOutcome, clock_of


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What one case came to in this session, as the progress bar and the summary need it.

    Attributes:
        statuses: step -> status, for the steps taken now (not those that were done before).
        rollouts: rollouts done now.
        work: token positions that the models really worked on now, by name of the counter.
    """

    case_id: str
    statuses: dict[str, str] = field(default_factory=dict)
    rollouts: int = 0
    work: dict[str, int] = field(default_factory=dict)


class CaseWorker:
    """Holds models, graph and stores of a run while cases go through.

    Args:
        engine: the database.
        run: the run, begun already.
        retry_failed: take steps again that failed.
        on_rollout: told (rollouts done in the step at work, token positions computed so far).

    Raises:
        UsageError, ModelError: a model that is unknown or does not load.
        StorageError: the checkpoint file cannot be opened.
    """

    def __init__(
        self,
        engine: Engine,
        run: Run,
        *,
        retry_failed: bool = False,
        on_rollout: Callable[[int, int], None] | None = None,
    ) -> None:
        self._run = run
        self._prepared: PreparedRun = prepare(run.config)
        self._cases = CaseReader(engine)
        self._truth = TruthStore(engine)
        self._store = RunStore(engine)
        self._done = done_steps(self._store, run, retry_failed)
        self._replace = retry_failed
        self._models = load_models(self._prepared)
        self._on_rollout = on_rollout
        self._stack = ExitStack()
        saver = self._stack.enter_context(open_checkpoints(engine.url))
        self._graph = compile_pathway(self._prepared.pathway, saver)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, case_id: str) -> CaseReport:
        """Takes one case through the pathway.

        Raises:
            StorageError: database or checkpoint file failed; the step at work leaves nothing behind.
        """
        before = self._work()
        case = self._cases.get(case_id)
        outcomes: list[StepOutcome] = []

        def keep(outcome: StepOutcome) -> None:
            self._keep(case, outcome)
            outcomes.append(outcome)

        prepared = self._prepared
        context = CaseContext(
            case=case,
            plans=prepared.plans,
            models=self._models,
            strategy=prepared.strategy,
            seed=prepared.seed,
            predecessors=prepared.predecessors,
            recall=partial(self._recall, case_id),
            keep=keep,
            on_rollout=self._tell if self._on_rollout else None,
        )
        run_case(self._graph, context, self._run.run_id)
        now = self._work()
        return CaseReport(
            case_id,
            {o.plan.step.name: o.conclusion["status"] for o in outcomes},
            sum(o.result.rollouts for o in outcomes if o.result is not None),
            {name: now[name] - before[name] for name in now},
        )

    def _keep(self, case: Case, outcome: StepOutcome) -> None:
        """Records, scores and stores an outcome whose conclusion is final, in one transaction."""
        record = self._record(case, outcome)
        step = outcome.plan.step
        truth = self._truth.truth(case.case_id).get(step.truth)
        vocabulary = outcome.plan.vocabularies.get(case.source)
        marks = {} if vocabulary is None else match(record, truth, vocabulary)
        calls = [] if outcome.result is None else outcome.result.calls
        self._store.put(self._run.run_id, record, truth_rows(truth), marks, calls, replace=self._replace)

    def _record(self, case: Case, outcome: StepOutcome) -> RunRecord:
        plan, prepared = outcome.plan, self._prepared
        rule = plan.step.clock.get(case.source)
        vocabulary = plan.vocabularies.get(case.source)
        how: dict[str, Any] = {
            "case": case,
            "strategy": prepared.strategy,
            "settings": plan.settings,
            "seed": prepared.seed,
            "models": self._models,
            "hashes": {"pathway": prepared.pathway_sha256, "catalogue": plan.catalogue.sha256},
            "chart_access": prepared.chart_access,
        }
        if outcome.problem is not None and outcome.result is not None:
            return recording.make_record(
                **how, problem=outcome.problem, result=outcome.result, seconds=outcome.seconds, repeatable=True
            )
        where: dict[str, Any] = {
            "step": plan.step.name,
            "occurrence": outcome.occurrence,
            "reason": outcome.reason,
            "clock": clock_of(case, plan.step),
            "clock_text": rule.text if rule else "",
            "question": plan.step.question,
            "vocabulary": vocabulary.name if vocabulary else "",
        }
        if outcome.failed:
            return recording.failed(**how, **where, problem=outcome.problem, seconds=outcome.seconds)
        return recording.not_applicable(**how, **where)

    def _work(self) -> dict[str, int]:
        models = {id(m): m for m in (self._models.generator, self._models.peer)}
        total: dict[str, int] = {}
        for model in models.values():
            for name, value in asdict(model.work).items():
                total[name] = total.get(name, 0) + value
        return total

    def _tell(self, rollouts: int) -> None:
        if self._on_rollout is not None:
            self._on_rollout(rollouts, self._work()["computed"])

    def _recall(self, case_id: str, step: str, occurrence: int) -> StepConclusion | None:
        """Returns the conclusion of a step that is done, as it is stored; None when the step is to be taken."""
        status = self._done.get((case_id, step, occurrence))
        if status is None:
            return None
        ranked = self._store.record(self._run.run_id, case_id, step, occurrence).record.ranked
        if not ranked:
            return no_answer(status)
        first = ranked[0]
        return {
            "status": status,
            "answer_key": first.code,
            "display": first.display,
            "probability": first.probability,
        }


def done_steps(store: RunStore, run: Run, retry_failed: bool) -> dict[tuple[str, str, int], str]:
    """Returns (case, step, occurrence) -> status of what need not be done again. The run store alone decides."""
    done = store.done(run.run_id)
    return {key: status for key, status in done.items() if not (retry_failed and status == "failed")}


def load_models(prepared: PreparedRun) -> Models:
    """Loads the models of a run; a peer that is not named is the generator itself.

    Raises:
        UsageError: the SPEC names no kind of model.
        ModelError: the model cannot be loaded.
    """
    generator = load_model(prepared.generator)
    same = prepared.peer is None or prepared.peer == prepared.generator
    return Models(generator, generator if same else load_model(str(prepared.peer)))
