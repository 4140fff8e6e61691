"""Takes cases of a run through the graph and hands each outcome to the record.

The recorded labels are read only here, and only after a step's conclusion is final.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine

from clinical_data.case import Case
from clinical_data.clocks import labels_hold
from clinical_data.errors import UsageError
from clinical_data.splits import TRAIN
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation import recording
from evaluation.judging import judge_of
from evaluation.matching import match, truth_rows
from evaluation.record import ReviewRecord, RunRecord
from evaluation.store.generations import GenerationStore
from evaluation.store.run_store import Run, RunStore
from search.answers import set_key
from search.generation_cache import CachedModel, GenerationCache
from search.models.language_model import LanguageModel
from search.models.registry import load_model, load_value_model
from search.problem import Models
from search.value import GROUND_TRUTH, Judge
from workflow.config import PreparedRun, prepare
from workflow.graph import CaseContext, Reviewed, compile_pathway, open_checkpoints, run_case
from workflow.oracle import Oracle
from workflow.reviewing import ANSWERED, AWAITED, SKIPPED, conclusion_of
from workflow.route import passed_by, was_passed_by
from workflow.same_models import check_loaded
from workflow.state import WAITING, CaseState, StepConclusion, no_answer
from workflow.step import StepOutcome, clock_of

WITHOUT_COST = ("random:", "scripted:")  # model SPECs that no cache could make cheaper
SERVED = "openai:"


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What one case came to in this session, as the progress bar and the summary need it.

    Attributes:
        statuses: step (with its number, where it came again) -> status, for what was taken now.
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
        on_rollout: told (rollouts done in the steps at work, token positions computed so far).
        cache: answer from stored generations, and store new ones.

    Attributes:
        models: the models of the run, without a cache.

    Raises:
        UsageError, ModelError: a model that is unknown, does not load, or is not the one of the stored records.
        StorageError: the checkpoint file cannot be opened.
    """

    def __init__(
        self,
        engine: Engine,
        run: Run,
        *,
        retry_failed: bool = False,
        on_rollout: Callable[[int, int], None] | None = None,
        cache: bool = True,
    ) -> None:
        self._run = run
        self._prepared: PreparedRun = prepare(run.config)
        self._cases = CaseReader(engine)
        self._truth = TruthStore(engine)
        self._store = RunStore(engine)
        self._done = done_steps(self._store, run, retry_failed)
        self._replace = retry_failed
        self._cache = GenerationStore(engine) if cache else None
        self._on_rollout = on_rollout
        self._rollouts: dict[str, int] = {}  # of the steps at work, by case
        self.models = load_models(self._prepared)
        check_loaded(self._store, run, self.models)
        self._oracle = Oracle(self._prepared.pathway) if self._prepared.predecessors == "recorded" else None
        self._stack = ExitStack()
        saver = self._stack.enter_context(open_checkpoints(engine.url))
        self._graph = compile_pathway(self._prepared.pathway, saver)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, case_id: str, models: Models | None = None) -> CaseReport:
        """Takes one case through the pathway.

        Args:
            case_id: the case.
            models: the run's models as this case is to ask them, when several cases share their batches.

        Raises:
            StorageError: database or checkpoint file failed; the step at work leaves nothing behind.
        """
        models = with_cache(models or self.models, self._prepared, self._cache)
        before = work_of(models)
        case = self._cases.get(case_id)
        outcomes: list[StepOutcome] = []

        def keep(outcome: StepOutcome) -> None:
            self._keep(case, models, outcome)
            outcomes.append(outcome)

        prepared = self._prepared
        context = CaseContext(
            case=case,
            plans=prepared.plans,
            models=models,
            strategy=prepared.strategy,
            seed=prepared.seed,
            predecessors=prepared.predecessors,
            recall=partial(self._recall, case_id),
            keep=keep,
            on_rollout=partial(self._tell, case_id) if self._on_rollout else None,
            judges=self._judges(case),
            review=partial(self._review, case_id),
            recorded=self._oracle.words(case.source, self._truth.truth(case_id)) if self._oracle else {},
        )
        state = run_case(self._graph, context, self._run.run_id)
        for outcome in self._passed_by(case_id, state):
            keep(outcome)
        self._rollouts.pop(case_id, None)
        now = work_of(models)
        return CaseReport(
            case_id,
            {_name_of(o): o.conclusion["status"] for o in outcomes},
            sum(o.result.rollouts for o in outcomes if o.result is not None),
            {name: now[name] - before[name] for name in now},
        )

    def _passed_by(self, case_id: str, state: CaseState) -> list[StepOutcome]:
        """Returns the steps that the pathway did not lead a case to that has ended; they are recorded as such."""
        if state["ended"] == WAITING:
            return []
        reason = passed_by(self._prepared.pathway, state["ended"], state["visits"])
        return [
            StepOutcome(plan, None, None, reason)
            for name, plan in self._prepared.plans.items()
            if name not in state["visits"] and (case_id, name, 1) not in self._done
        ]

    def _review(self, case_id: str, step: str, occurrence: int) -> Reviewed | None:
        """Returns what became of the question to a clinician, as it is stored; None while it waits."""
        review = self._store.record(self._run.run_id, case_id, step, occurrence).record.review
        if review is not None and review.state == AWAITED:
            return None
        return {"answer": conclusion_of(review) if review is not None and review.state == ANSWERED else None}

    def _judges(self, case: Case) -> dict[str, Judge]:
        """Returns step -> judge where steps are valued by recorded labels; none for a step without a label.

        Raises:
            UsageError: the run is not one of train cases alone.
        """
        plans = [p for p in self._prepared.plans.values() if p.settings.value == GROUND_TRUTH]
        if not plans:
            return {}
        if self._prepared.split != TRAIN:
            raise UsageError(f"value {GROUND_TRUTH} is for cases of split {TRAIN} alone")
        truth = self._truth.truth(case.case_id)
        found = {}
        for plan in plans:
            vocabulary = plan.vocabularies.get(case.source)
            judge = None if vocabulary is None else judge_of(truth.get(plan.step.truth), vocabulary)
            if judge is not None:
                found[plan.step.name] = judge
        return found

    def _keep(self, case: Case, models: Models, outcome: StepOutcome) -> None:
        """Records, scores and stores an outcome whose conclusion is final, in one transaction."""
        record = self._record(case, models, outcome)
        if outcome.plan.step.review and outcome.result is not None:
            review = ReviewRecord(state=AWAITED if self._prepared.waits else SKIPPED)
            record = record.model_copy(update={"review": review})
        if self._oracle is not None:
            record = record.model_copy(update={"settings": {**record.settings, "predecessors": "recorded"}})
        if self._prepared.batch_across_cases:
            record = record.model_copy(update={"repeatable": False})
        step = outcome.plan.step
        holds = labels_hold(step.truth, outcome.occurrence)
        truth = self._truth.truth(case.case_id).get(step.truth) if holds else None
        vocabulary = outcome.plan.vocabularies.get(case.source)
        marks = {} if vocabulary is None else match(record, truth, vocabulary)
        result = outcome.result
        changes = [m.take() for m in models.distinct if isinstance(m, CachedModel)]
        self._store.put(
            self._run.run_id,
            record,
            truth_rows(truth),
            marks,
            calls=result.calls if result is not None else [],
            changes=changes if result is not None else [],  # a failed step leaves no generations
            replace=self._replace,
        )

    def _record(self, case: Case, models: Models, outcome: StepOutcome) -> RunRecord:
        plan, prepared = outcome.plan, self._prepared
        vocabulary = plan.vocabularies.get(case.source)
        how: dict[str, Any] = {
            "case": case,
            "strategy": prepared.strategy,
            "settings": plan.settings,
            "seed": prepared.seed,
            "models": models,
            "hashes": {
                "configuration": self._run.config_hash,
                "pathway": prepared.pathway_sha256,
                "catalogue": plan.catalogue.sha256,
            },
        }
        if outcome.problem is not None and outcome.result is not None:
            repeatable = all(getattr(m, "repeatable", True) for m in models.distinct)
            return recording.make_record(
                **how, problem=outcome.problem, result=outcome.result, seconds=outcome.seconds, repeatable=repeatable
            )
        where: dict[str, Any] = {
            "step": plan.step.name,
            "occurrence": outcome.occurrence,
            "reason": outcome.reason,
            "clock": clock_of(case, plan.step, outcome.occurrence),
            "clock_text": plan.step.clock_text(case.source, outcome.occurrence),
            "question": plan.step.question,
            "vocabulary": vocabulary.name if vocabulary else "",
        }
        if outcome.failed:
            return recording.failed(**how, **where, problem=outcome.problem, seconds=outcome.seconds)
        return recording.not_applicable(**how, **where)

    def _tell(self, case_id: str, rollouts: int) -> None:
        self._rollouts[case_id] = rollouts
        if self._on_rollout is not None:
            self._on_rollout(sum(self._rollouts.values()), work_of(self.models)["computed"])

    def _recall(self, case_id: str, step: str, occurrence: int) -> StepConclusion | None:
        """Returns the conclusion of a step that is done, as it is stored; None when the step is to be taken."""
        status = self._done.get((case_id, step, occurrence))
        if status is None:
            return None
        record = self._store.record(self._run.run_id, case_id, step, occurrence).record
        if self._replace and was_passed_by(record.reason):
            return None  # a step before it was taken again, and now the pathway leads here
        answer = record.ranked[: len(record.chosen) or 1]
        if not answer:
            return no_answer(status)
        return {
            "status": status,
            "answer_key": set_key(a.code for a in answer),
            "display": "; ".join(a.display for a in answer),
            "probability": sum(a.probability for a in answer) / len(answer),
        }


def _name_of(outcome: StepOutcome) -> str:
    name = outcome.plan.step.name
    return name if outcome.occurrence == 1 else f"{name} {outcome.occurrence}"


def done_steps(store: RunStore, run: Run, retry_failed: bool) -> dict[tuple[str, str, int], str]:
    """Returns (case, step, occurrence) -> status of what need not be done again. The run store alone decides."""
    done = store.done(run.run_id)
    return {key: status for key, status in done.items() if not (retry_failed and status == "failed")}


def load_models(prepared: PreparedRun) -> Models:
    """Loads the models of a run; a peer that is not named is the generator itself.

    Raises:
        UsageError: a SPEC names no kind of model.
        ModelError: a model cannot be loaded.
    """

    def load(spec: str) -> LanguageModel:
        return load_model(spec, allowed_hosts=prepared.allowed_hosts, **prepared.models)

    generator = load(prepared.generator)
    same = prepared.peer is None or prepared.peer == prepared.generator
    value = prepared.value_model
    return Models(
        generator,
        generator if same else load(str(prepared.peer)),
        load_value_model(value, **prepared.models) if value else None,
    )


def with_cache(models: Models, prepared: PreparedRun, cache: GenerationCache | None) -> Models:
    """Puts stored generations before those models whose answers cost something.

    Not before local weights in batches across cases: what was asked before in the case-step does not decide the
    circumstances of a request there (see `search.generation_cache`).
    """

    def wrap(model: LanguageModel, spec: str) -> LanguageModel:
        local = not spec.startswith(SERVED)
        if cache is None or spec.startswith(WITHOUT_COST) or (local and prepared.batch_across_cases):
            return model
        return CachedModel(model, cache, in_context=local)

    generator = wrap(models.generator, prepared.generator)
    return Models(
        generator,
        generator if models.peer_is_generator else wrap(models.peer, str(prepared.peer)),
        None if models.value is None else wrap(models.value, prepared.value_model),
    )


def work_of(models: Models) -> dict[str, int]:
    """Returns the counters of models, summed, with those of their caches."""
    total: Counter[str] = Counter()
    for model in models.distinct:
        total.update(asdict(model.work))
        if isinstance(model, CachedModel):
            total.update(cache_hits=model.hits, cache_misses=model.misses)
    return dict(total)
