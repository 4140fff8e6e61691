"""Runs the cases of a run on this machine: in this process, or in several.

What a case-step gives depends on nothing but the case, the step and the run's configuration, so order and number of
workers change no record.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from clinical_data.errors import ModelError
from evaluation.store import open_database
from evaluation.store.run_store import Run, RunStore
from search.shared_batches import run_together
from workflow.case_worker import CaseReport, CaseWorker
from workflow.config import at_once_of


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker must know to join a run.

    Attributes:
        url: database URL, password included.
        run_name: name of the run.
        retry_failed: take steps again that failed.
        cache: answer from stored generations, and store new ones.
    """

    url: str
    run_name: str
    retry_failed: bool
    cache: bool = True


def run_in_process(
    engine: Engine, run: Run, job: Job, case_ids: Sequence[str], on_rollout: Callable[[int, int], None]
) -> Iterator[CaseReport]:
    """Yields a report per case: in order, or as they end where the run lets its cases share batches.

    Raises:
        UsageError, ModelError, StorageError: as `CaseWorker`.
    """
    at_once = at_once_of(run.config)
    with CaseWorker(engine, run, retry_failed=job.retry_failed, on_rollout=on_rollout, cache=job.cache) as worker:
        if not at_once:
            for case_id in case_ids:
                yield worker.run(case_id)
            return
        together = run_together(worker.models, (partial(worker.run, case_id) for case_id in case_ids), at_once)
        with closing(together):  # type: ignore[type-var]
            yield from together


def run_in_processes(job: Job, case_ids: Sequence[str], workers: int) -> Iterator[CaseReport]:
    """Yields a report per case as the workers finish them. A worker killed from outside ends the run, not the record.

    Raises:
        UsageError, ModelError, StorageError: as `CaseWorker`; ModelError as well when a worker process died.
    """
    threads = max((os.cpu_count() or 1) // workers, 1)
    pool = ProcessPoolExecutor(
        min(workers, len(case_ids)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(job, threads),
    )
    try:
        for future in as_completed([pool.submit(_run, case_id) for case_id in case_ids]):
            yield future.result()
    except BrokenProcessPool as error:
        hint = "`wardstar resume` goes on; fewer --workers need less memory"
        raise ModelError("a worker process died", hint=hint) from error
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_job: list[Job] = []
_worker: list[CaseWorker] = []


def _begin(job: Job, threads: int) -> None:
    """Prepares a worker process: Ctrl-C is the parent's business, and without a parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _job.append(job)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(case_id: str) -> CaseReport:
    if not _worker:  # here and not in `_begin`, so that an error reaches the parent as itself
        job = _job[0]
        engine = open_database(job.url, create=False)
        run = RunStore(engine).get(job.run_name)
        _worker.append(CaseWorker(engine, run, retry_failed=job.retry_failed, cache=job.cache))
    return _worker[0].run(case_id)
