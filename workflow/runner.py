"""Replays a run over the cases of a database, and resumes it.

A run's row is committed before anything heavy loads; each case-step is committed whole; the run store alone decides
what is done. So a run can be killed at any moment and goes on where it was.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import Engine

from clinical_data.errors import StorageError, UsageError
from clinical_data.store.case_reader import CaseReader
from evaluation.store import existing_database
from evaluation.store.run_store import Key, Run, RunStore
from search.trajectory import Status
from workflow.case_failure import bare_case, fail_open_steps
from workflow.case_worker import CaseReport, done_steps
from workflow.config import PreparedRun, ReplayOptions, make_config, prepare, versions
from workflow.executors.crew import Job, Task
from workflow.executors.local import run_in_process, run_in_processes
from workflow.executors.ray import RayCluster, run_on_ray
from workflow.guard import quiet_libraries
from workflow.reviewing import reviews_of, status_in, take_answers, waiting
from workflow.route import open_place
from workflow.same_models import check_folders

logger = logging.getLogger(__name__)


class Listener:
    """Hears how a run goes; this one does nothing."""

    def started(self, cases: int, done: int, steps: int) -> None:
        """The run has `cases` cases, of which `done` are done, with `steps` steps each."""

    def rollout(self, rollouts: int, computed: int) -> None:
        """The steps at work have done `rollouts`; the models computed `computed` token positions in all."""

    def finished(self, report: CaseReport) -> None:
        """A case is done."""


@dataclass(frozen=True, slots=True)
class Team:
    """How many workers take the cases, and where."""

    workers: int
    cluster: RayCluster | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a session of a run did.

    Attributes:
        run: name of the run.
        cases: cases of the run; `skipped` of them were done before.
        statuses: case-steps done now, by status.
        seconds: wall time of this session, loading included.
        work: token positions that the models worked on now.
        waiting: case-steps that wait for a clinician.
    """

    run: str
    cases: int
    skipped: int
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    work: dict[str, int] = field(default_factory=dict)
    waiting: int = 0

    @property
    def all_failed(self) -> bool:
        """Says whether every step that was taken failed; one that does not apply is not taken."""
        taken = self.statuses.total() - self.statuses[Status.NOT_APPLICABLE.value]
        return 0 < taken == self.statuses[Status.FAILED.value]


def replay(
    url: str,
    name: str,
    options: ReplayOptions,
    *,
    workers: int = 1,
    cluster: RayCluster | None = None,
    listener: Listener | None = None,
    cache: bool = True,
) -> Summary:
    """Replays cases along a pathway. An existing run of identical configuration is resumed.

    Args:
        url: database with imported cases.
        name: name of the run.
        options: everything that decides results.
        workers: processes to spread the cases over.
        cluster: Ray cluster whose nodes hold the workers; None: this machine, without Ray.
        listener: hears how it goes.
        cache: answer from stored generations, and store new ones; changes no record.

    Raises:
        UsageError: bad options, no case to replay, or the name belongs to a run of another configuration.
        BadInputError: a pathway file that is not valid.
        ModelError: a model does not load.
        StorageError: the database failed.
    """
    quiet_libraries()
    config = make_config(options)
    prepared = prepare(config)
    _check_workers(workers, cluster, prepared)
    with existing_database(url) as engine:
        store = RunStore(engine)
        begun = next((r for r in store.runs() if r.name == name), None)
        case_ids = cases_of(engine, prepared, begun, options.cases)
        kept = None if prepared.limit is None else case_ids
        run = store.begin(name, prepared.pathway.name, config, versions(), kept)
        case_ids = list(run.cases or case_ids)  # another session may have begun it just now
        job = Job(url, name, retry_failed=False, cache=cache)
        try:
            return _go(engine, run, prepared, job, case_ids, Team(workers, cluster), listener or Listener())
        except UsageError:
            if begun is None and not store.done(run.run_id):  # a mistyped model must not occupy the name
                store.delete(name)
            raise


def resume(
    url: str,
    name: str,
    *,
    retry_failed: bool = False,
    workers: int = 1,
    cluster: RayCluster | None = None,
    listener: Listener | None = None,
    cache: bool = True,
    answers: Path | None = None,
) -> Summary:
    """Goes on with a run as it was configured; steps that are done are not done again.

    Args:
        url, name, workers, cluster, listener, cache: as `replay`.
        retry_failed: take steps again that failed.
        answers: file of what clinicians answered (`workflow.reviewing`); stored first, so that a kill loses none.

    Raises:
        UsageError: no such run, or what it depends on has changed since.
        BadInputError: an answer that is not valid; then none is taken.
        ModelError, StorageError: as `replay`.
    """
    quiet_libraries()
    with existing_database(url) as engine:
        run = RunStore(engine).get(name)
        prepared = prepare(run.config)
        _check_workers(workers, cluster, prepared)
        if answers is not None:
            logger.info("%d answers of clinicians", take_answers(RunStore(engine), run, prepared, answers))
        case_ids = cases_of(engine, prepared, run)
        job = Job(url, name, retry_failed, cache)
        return _go(engine, run, prepared, job, case_ids, Team(workers, cluster), listener or Listener())


def _check_workers(workers: int, cluster: RayCluster | None, prepared: PreparedRun) -> None:
    if workers < 1:
        raise UsageError("--workers must be at least 1")
    if (workers > 1 or cluster is not None) and prepared.batch_across_cases:
        raise UsageError("--batch-across-cases is for one process", hint="leave out --workers and --executor")


def case_ids_of(
    engine: Engine,
    split: str | None,
    scheme: str,
    cases: Sequence[str] | None,
    limit: int | None,
    listed: str | None = None,
) -> list[str]:
    """Returns the ids of the cases of a run, in order.

    Args:
        engine: the database.
        split, scheme: the split, and what it was drawn by; None: all cases.
        cases: ids to which the run is confined; None: all.
        limit: at most so many.
        listed: file that named the cases, for the error of one that is not there.

    Raises:
        UsageError: there is none, or a listed one is not among them.
    """
    reader = CaseReader(engine)
    ids = reader.case_ids(split=split, scheme=scheme)
    if cases is not None:
        wanted = set(cases)
        if missing := sorted(wanted - set(ids)):
            where = "" if split is None else f" in split {split}"
            place = f"{listed}: " if listed else ""
            raise UsageError(f"{place}no case {missing[0]}{where} ({len(missing)} of {len(wanted)} listed are missing)")
        ids = [i for i in ids if i in wanted]
    ids = ids[:limit]
    if not ids and reader.count():
        raise UsageError(f"no case in split {split} by {scheme}")
    if not ids:
        raise UsageError("the database holds no cases", hint="`wardstar import fhir PATH` puts some in")
    return ids


def cases_of(engine: Engine, prepared: PreparedRun, run: Run | None, listed: str | None = None) -> list[str]:
    """Returns the ids of the cases of a run, in order; of a limited one those that it began with, whatever came since.

    Raises:
        UsageError: as `case_ids_of`.
    """
    if run is not None and run.cases is not None:
        return list(run.cases)
    return case_ids_of(engine, prepared.split, prepared.split_scheme, prepared.cases, prepared.limit, listed)


def _go(
    engine: Engine,
    run: Run,
    prepared: PreparedRun,
    job: Job,
    case_ids: Sequence[str],
    team: Team,
    listener: Listener,
) -> Summary:
    started = time.perf_counter()
    store = RunStore(engine)
    done = done_steps(store, run, job.retry_failed)
    todo = _unfinished(engine, run, prepared, case_ids, done, job.retry_failed)
    if not todo:  # no model is loaded, and so none is compared with the stored records
        check_folders(store, run, prepared)
    summary = Summary(run.name, len(case_ids), len(case_ids) - len(todo))
    listener.started(len(case_ids), summary.skipped, len(prepared.plans))
    work: Counter[str] = Counter(run.work or {})
    store.set_running(run.run_id)
    try:
        for report in _reports(engine, run, prepared, job, todo, team, listener):
            summary.statuses.update(report.statuses.values())
            work.update(report.work)
            summary.work.update({k: summary.work.get(k, 0) + v for k, v in report.work.items()})
            listener.finished(report)
    except BaseException as error:
        with suppress(StorageError):  # the first error is the one to show
            store.finish(run.run_id, "failed" if isinstance(error, Exception) else "interrupted", dict(work))
        raise
    left = len(waiting(reviews_of(store, run, prepared)))
    store.finish(run.run_id, "waiting" if left else "finished", dict(work))
    return replace(summary, seconds=time.perf_counter() - started, waiting=left)


def _unfinished(
    engine: Engine,
    run: Run,
    prepared: PreparedRun,
    case_ids: Sequence[str],
    done: Mapping[Key, str],
    retry_failed: bool,
) -> list[str]:
    """Returns the cases in which something is left to do that waits for nobody.

    A step that the pathway did not lead to is recorded when its case ends, so that a case without loops is done when
    all its steps are; with loops the case is walked through, by what is stored of it.
    """
    reviews = reviews_of(RunStore(engine), run, prepared)
    stuck = {case_id for case_id, _, _ in waiting(reviews)} if not retry_failed else set()
    pathway = prepared.pathway

    outdated = {case_id for (case_id, _, _), review in reviews.items() if review.outdated}

    def is_left(case_id: str) -> bool:
        if case_id in outdated or any((case_id, step, 1) not in done for step in prepared.plans):
            return True
        if not pathway.loops:
            return False
        case = bare_case(engine, case_id)
        if case is None:  # what was open of it is recorded as failed
            return False

        def status_of(step: str, occurrence: int) -> str | None:
            return status_in((case_id, step, occurrence), done, reviews)

        return open_place(pathway, case, status_of, prepared.plans) is not None

    return [c for c in case_ids if c not in stuck and is_left(c)]


def _reports(
    engine: Engine,
    run: Run,
    prepared: PreparedRun,
    job: Job,
    todo: Sequence[str],
    team: Team,
    listener: Listener,
) -> Iterator[CaseReport]:
    def give_up(task: Task) -> CaseReport:
        done = done_steps(RunStore(engine), run, job.retry_failed, task.case_id)
        what = (engine, run, prepared, task.case_id, task.doomed)
        return CaseReport(task.case_id, fail_open_steps(*what, done=done, replace=job.retry_failed))

    if not todo:
        return
    if team.cluster is not None:
        reports = run_on_ray(job, todo, team.workers, team.cluster, give_up)
    elif team.workers == 1:
        reports = run_in_process(engine, run, job, todo, listener.rollout)
    else:
        reports = run_in_processes(job, todo, team.workers, give_up)
    with closing(reports):  # type: ignore[type-var]
        yield from reports
