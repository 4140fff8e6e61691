"""Takes cases of a run through the graph and hands each outcome to the record.

The recorded labels are read only here, and only after a step's conclusion is final.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from sqlalchemy import Engine

from clinical_data.case import Case
from clinical_data.clocks import labels_hold
from clinical_data.errors import BadInputError, StorageError, UsageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.splits import TRAIN
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation.judging import judge_of
from evaluation.matching import match, truth_rows
from evaluation.record import ReviewRecord
from evaluation.store.generations import GenerationStore
from evaluation.store.run_store import Key, Run, RunStore
from search.answers import set_key
from search.generation_cache import CachedModel, GenerationCache
from search.models.language_model import LanguageModel
from search.models.registry import load_model, load_value_model
from search.problem import Models
from search.trajectory import Status
from search.value import GROUND_TRUTH, Judge
from workflow.case_failure import fail_open_steps
from workflow.config import PreparedRun, prepare
from workflow.graph import CaseContext, Reviewed, compile_pathway, open_checkpoints, run_case
from workflow.oracle import Oracle
from workflow.pathway_model import Step
from workflow.reviewing import ANSWERED, AWAITED, conclusion_of, reviews_of
from workflow.route import passed_by, was_passed_by
from workflow.run_records import numbered, record_of
from workflow.same_models import check_loaded
from workflow.state import WAITING, CaseState, StepConclusion, no_answer
from workflow.step import StepOutcome, reason_of, why_not

WITHOUT_COST = ("random:", "scripted:")  # model SPECs that no cache could make cheaper
SERVED = "openai:"
FAILED, NOT_APPLICABLE = Status.FAILED.value, Status.NOT_APPLICABLE.value


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


@dataclass(slots=True)
class _Visit:
    """One case on its way.

    Attributes:
        stored: status of each of its case-steps when it came in.
        done: those that are not to be taken again, or were recorded since.
        doomed: why the next step is to be recorded as failed instead of being taken; empty when it is to be taken.
        statuses: of the steps recorded since.
        seen: those that it came to.
        rollouts: done in them.
        truth: its recorded labels by name; None until the first conclusion is final.
    """

    stored: dict[Key, str]
    done: dict[Key, str]
    doomed: str
    statuses: dict[str, str] = field(default_factory=dict)
    seen: set[Key] = field(default_factory=set)
    rollouts: int = 0
    truth: Mapping[str, GroundTruth] | None = None


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
        self._engine = engine
        self._run = run
        self._prepared: PreparedRun = prepare(run.config)
        self._cases = CaseReader(engine)
        self._truth = TruthStore(engine)
        self._store = RunStore(engine)
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

    def run(self, case_id: str, models: Models | None = None, *, doomed: str = "") -> CaseReport:
        """Takes one case through the pathway. What breaks in it is recorded as failed, with the reason.

        Args:
            case_id: the case.
            models: the run's models as this case is to ask them, when several cases share their batches.
            doomed: why its next step is to be recorded as failed instead of being taken (see `executors.crew`).

        Raises:
            UsageError: the run is valued by recorded labels, and not one of train cases alone.
            StorageError: database or checkpoint file failed; the step at work leaves nothing behind.
        """
        models = with_cache(models or self.models, self._prepared, self._cache)
        before = work_of(models)
        stored = self._store.done(self._run.run_id, case_id)
        visit = _Visit(stored, without_failed(stored) if self._replace else dict(stored), doomed)
        try:
            self._walk(self._case(case_id), models, visit)
        except (StorageError, UsageError):
            raise
        except Exception as error:
            self._fail(case_id, models, visit, error)
        self._rollouts.pop(case_id, None)
        now = work_of(models)
        return CaseReport(case_id, visit.statuses, visit.rollouts, {name: now[name] - before[name] for name in now})

    def _case(self, case_id: str) -> Case:
        try:
            return self._cases.get(case_id)
        except UsageError as error:  # deleted since the run began: this case's trouble, not the run's
            raise BadInputError(error.message) from error

    def _walk(self, case: Case, models: Models, visit: _Visit) -> None:
        def keep(outcome: StepOutcome) -> None:
            if visit.truth is None:  # read only now, when a conclusion is final, and once for all steps
                visit.truth = self._truth.truth(case.case_id)
            self._keep(case, models, outcome, visit.truth)
            step, occurrence, status = outcome.plan.step.name, outcome.occurrence, outcome.conclusion["status"]
            visit.statuses[numbered(step, occurrence)] = status
            visit.done[case.case_id, step, occurrence] = status
            visit.seen.add((case.case_id, step, occurrence))
            visit.rollouts += outcome.result.rollouts if outcome.result is not None else 0

        def recall(step: str, occurrence: int) -> StepConclusion | None:
            visit.seen.add((case.case_id, step, occurrence))
            known = self._recall(visit, (case.case_id, step, occurrence))
            plan = self._prepared.plans[step]
            if known is None and visit.stored.get((case.case_id, step, occurrence)) == FAILED:
                self._drop_later(visit)
            if known is not None or not visit.doomed or why_not(case, plan, occurrence):
                return known
            outcome = StepOutcome(plan, None, None, visit.doomed, failed=True, occurrence=occurrence)
            visit.doomed = ""
            keep(outcome)
            return outcome.conclusion

        prepared = self._prepared
        context = CaseContext(
            case=case,
            plans=prepared.plans,
            models=models,
            strategy=prepared.strategy,
            seed=prepared.seed,
            predecessors=prepared.predecessors,
            recall=recall,
            keep=keep,
            on_rollout=partial(self._tell, case.case_id) if self._on_rollout else None,
            judges=self._judges(case),
            review=partial(self._review, case.case_id),
            recorded=self._oracle.words(case.source, self._truth.truth(case.case_id)) if self._oracle else {},
        )
        state = run_case(self._graph, context, self._run.run_id)
        if state["ended"] != WAITING:
            for outcome in self._passed_by(case.case_id, state, visit):
                keep(outcome)
        self._drop_stale(visit, whole=state["ended"] != WAITING)

    def _passed_by(self, case_id: str, state: CaseState, visit: _Visit) -> list[StepOutcome]:
        """Returns the steps that the pathway did not lead a case to that has ended; they are recorded as such.

        Where failed steps were taken again, also one that was searched when the pathway led to it.
        """
        reason = passed_by(self._prepared.pathway, state["ended"], state["visits"])
        found = []
        for name, plan in self._prepared.plans.items():
            if name in state["visits"]:
                continue
            status = visit.done.get((case_id, name, 1))
            if status is None or (self._replace and status != NOT_APPLICABLE):
                found.append(StepOutcome(plan, None, None, reason))
            else:
                visit.seen.add((case_id, name, 1))
        return found

    def _fail(self, case_id: str, models: Models, visit: _Visit, error: Exception) -> None:
        """Records as failed what is open of a case that broke outside its searches, which no step could record."""
        what = (self._engine, self._run, self._prepared, case_id, reason_of(error))
        failed = fail_open_steps(*what, done=visit.done, models=models, replace=self._replace)
        visit.statuses.update(failed)

    def _drop_later(self, visit: _Visit) -> None:
        """Removes what follows a failed step that is taken again, where it would have been told what that concludes.

        Before the search, so that a kill leaves nothing that read the failure. What a clinician answered stays; the
        search beside it is marked, to be taken again when the case comes to it.
        """
        if not self._replace or self._prepared.predecessors != "predicted":
            return
        (case_id,) = {case_id for case_id, _, _ in visit.seen}
        reviews = reviews_of(self._store, self._run, self._prepared, case_id)
        answered = {
            key: review for key, review in reviews.items() if review.state == ANSWERED and key not in visit.seen
        }
        self._store.answer(self._run.run_id, {k: r.model_copy(update={"outdated": True}) for k, r in answered.items()})
        later = [key for key in visit.stored if key not in visit.seen and key not in answered]
        self._store.drop(self._run.run_id, later)
        for key in later:
            del visit.stored[key]
            visit.done.pop(key, None)

    def _drop_stale(self, visit: _Visit, *, whole: bool) -> None:
        """Removes what a case did not come to this time, where failed steps were taken again.

        It failed as a whole before, or came again to a step that is settled now. Of a case that waits for a clinician
        only what failed is removed: the rest of its way is not known yet.
        """
        stale = [k for k, status in visit.stored.items() if k not in visit.seen and (whole or status == FAILED)]
        if self._replace and stale:
            self._store.drop(self._run.run_id, stale)

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

    def _keep(self, case: Case, models: Models, outcome: StepOutcome, labels: Mapping[str, GroundTruth]) -> None:
        """Records, scores and stores an outcome whose conclusion is final, in one transaction."""
        record = record_of(self._run, self._prepared, case, models, outcome)
        step = outcome.plan.step
        truth = labels.get(step.truth) if labels_hold(step.truth, outcome.occurrence) else None
        vocabulary = outcome.plan.vocabularies.get(case.source)
        marks = {} if vocabulary is None else match(record, truth, vocabulary)
        result = outcome.result
        answered = self._answered(case.case_id, step, outcome.occurrence)
        if answered is not None:
            record = record.model_copy(update={"review": answered})
        changes = [m.take() for m in models.distinct if isinstance(m, CachedModel)]
        self._store.put(
            self._run.run_id,
            record,
            truth_rows(truth),
            marks,
            calls=result.calls if result is not None else [],
            changes=changes if result is not None else [],  # a failed step leaves no generations
            replace=self._replace or answered is not None,
        )

    def _answered(self, case_id: str, step: Step, occurrence: int) -> ReviewRecord | None:
        """Returns what a clinician answered at a stored step, to be kept beside a search that is taken again."""
        if not step.review:
            return None
        review = self._store.reviewed(self._run.run_id, [step.name], case_id).get((case_id, step.name, occurrence))
        answered = review is not None and review.state == ANSWERED
        return review.model_copy(update={"outdated": False}) if review is not None and answered else None

    def _tell(self, case_id: str, rollouts: int) -> None:
        self._rollouts[case_id] = rollouts
        if self._on_rollout is not None:
            self._on_rollout(sum(self._rollouts.values()), work_of(self.models)["computed"])

    def _recall(self, visit: _Visit, key: Key) -> StepConclusion | None:
        """Returns the conclusion of a step that is done, as it is stored; None when the step is to be taken."""
        status = visit.done.get(key)
        if status is None:
            return None
        record = self._store.record(self._run.run_id, *key).record
        if self._replace and was_passed_by(record.reason):
            return None  # a step before it was taken again, and now the pathway leads here
        if record.review is not None and record.review.outdated:
            return None
        answer = record.ranked[: len(record.chosen) or 1]
        if not answer:
            return no_answer(status)
        return {
            "status": status,
            "answer_key": set_key(a.code for a in answer),
            "display": "; ".join(a.display for a in answer),
            "probability": sum(a.probability for a in answer) / len(answer),
        }


def done_steps(store: RunStore, run: Run, retry_failed: bool, case_id: str | None = None) -> dict[Key, str]:
    """Returns case-step -> status of what need not be done again, of a case or of all."""
    done = store.done(run.run_id, case_id)
    return without_failed(done) if retry_failed else done


def without_failed(done: dict[Key, str]) -> dict[Key, str]:
    """Returns the case-steps that did not fail."""
    return {key: status for key, status in done.items() if status != FAILED}


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
