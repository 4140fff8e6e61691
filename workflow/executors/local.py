"""Runs the cases of a run on this machine: in this process, or in several.

What a case-step gives depends on nothing but the case, the step and the run's configuration, so order and number of
workers change no record, nor does the death of one.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine

from evaluation.store.run_store import Run
from search.shared_batches import run_together
from workflow.case_worker import CaseReport, CaseWorker
from workflow.config import at_once_of
from workflow.executors.crew import Event, Job, Lost, Signal, Task, open_worker, spread

CLOSING_SECONDS = 10


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


def run_in_processes(
    job: Job, case_ids: Sequence[str], workers: int, give_up: Callable[[Task], CaseReport]
) -> Iterator[CaseReport]:
    """Yields a report per case as the workers finish them.

    Args:
        job, case_ids: the run, and its cases that are to be taken.
        workers: number of processes.
        give_up: records what is open of a case as failed.

    Raises:
        UsageError, ModelError, StorageError: as `CaseWorker`; ModelError as well when no worker comes to work.
    """
    with LocalCrew(job, max((os.cpu_count() or 1) // workers, 1)) as crew:
        yield from spread(crew, case_ids, workers, give_up)


@dataclass(eq=False, slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection[Any, Any]


class LocalCrew:
    """Worker processes of this machine, each at the other end of a pipe.

    Args:
        job: the run.
        threads: threads that each may compute with.
    """

    def __init__(self, job: Job, threads: int) -> None:
        self._job, self._threads = job, threads
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if kind is None:  # nobody is at work; each closes its files and leaves
                with suppress(OSError):
                    worker.connection.send(None)
            else:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(CLOSING_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    def hire(self) -> _Worker:
        """Starts a process."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(self._job, self._threads, theirs), daemon=True)
        process.start()
        theirs.close()  # so that its death is the end of the pipe
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def give(self, worker: _Worker, task: Task) -> None:
        """Sends a case; that a worker is gone is heard, not said."""
        with suppress(OSError):
            worker.connection.send(task)

    def hear(self) -> Iterator[tuple[_Worker, Event]]:
        """Yields what the workers tell, once one of them tells anything.

        Raises:
            WardstarError: what a worker raised.
        """
        sources: dict[Any, _Worker] = {w.connection: w for w in self._workers}
        sources |= {w.process.sentinel: w for w in self._workers}
        for worker in dict.fromkeys(sources[source] for source in wait(list(sources))):
            try:
                told = worker.connection.recv() if worker.connection.poll() else None
            except (EOFError, OSError):
                told = None
            if told is None:
                worker.process.join()
                worker.connection.close()
                self._workers.remove(worker)
                yield worker, Lost(_how(worker.process.exitcode))
            elif isinstance(told, BaseException):
                raise told
            else:
                yield worker, told


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"with exit code {exit_code}"


def _work(job: Job, threads: int, connection: Connection[Any, Any]) -> None:
    """Works in a process of its own: Ctrl-C is the parent's business, and without a parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with open_worker(job) as worker:
            connection.send(Signal.READY)
            while (task := connection.recv()) is not None:
                connection.send(worker.run(task.case_id, doomed=task.doomed))
    except (EOFError, BrokenPipeError):
        return
    except MemoryError:  # nothing can be relied upon any more; the parent hears that this worker is gone
        os._exit(os.EX_OSERR)
    except BaseException as error:
        connection.send(_as_sent(error))


def _as_sent(error: BaseException) -> BaseException:
    """Returns an error as it can cross a pipe."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(type(error).__name__)
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
