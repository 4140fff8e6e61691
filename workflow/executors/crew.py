"""Spreads the cases of a run over workers that may die at any moment: the seam of all executors.

A case is one worker's at a time. When that worker is lost, another takes the case over and goes on behind the last
step that is stored. A case that has cost `MOST_LOSSES` workers is taken once more, and its next step recorded as failed
instead of being taken; if even that costs a worker, all that is open of the case is recorded as failed. So one bad case
can neither stop a run nor go round in it for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeVar

from clinical_data.errors import ModelError
from evaluation.store import existing_database
from evaluation.store.run_store import RunStore
from workflow.case_worker import CaseReport, CaseWorker

MOST_LOSSES = 3
MOST_FAILED_STARTS = 3  # workers in a row that died before they were ready
W = TypeVar("W")


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


@dataclass(frozen=True, slots=True)
class Task:
    """A case to be taken.

    Attributes:
        losses: workers that died at it.
        reason: how the last of them was lost.
    """

    case_id: str
    losses: int = 0
    reason: str = ""

    @property
    def doomed(self) -> str:
        """Why the next step of the case is recorded as failed instead of being taken; empty while it may be tried."""
        return f"{self.losses} workers died at it, the last one {self.reason}" if self.losses >= MOST_LOSSES else ""


class Signal(Enum):
    """What a worker may tell besides reports."""

    READY = auto()  # its models are loaded


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone; `reason` says how, in words that hold no value of a record."""

    reason: str


Event = CaseReport | Signal | Lost


class Crew(Protocol[W]):
    """Workers somewhere."""

    def hire(self) -> W:
        """Starts one more worker, which says READY when its models are loaded."""

    def give(self, worker: W, task: Task) -> None:
        """Gives a worker that is idle a case."""

    def hear(self) -> Iterable[tuple[W, Event]]:
        """Waits until a worker tells something.

        Raises:
            WardstarError: what a worker raised: no case is at fault.
        """


@contextmanager
def open_worker(job: Job) -> Iterator[CaseWorker]:
    """Opens the database in a worker's own process, loads the models, and closes all of it afterwards.

    Raises:
        UsageError, ModelError, StorageError: as `CaseWorker`.
    """
    with existing_database(job.url) as engine:
        run = RunStore(engine).get(job.run_name)
        with CaseWorker(engine, run, retry_failed=job.retry_failed, cache=job.cache) as worker:
            yield worker


def spread(
    crew: Crew[W], case_ids: Sequence[str], workers: int, give_up: Callable[[Task], CaseReport]
) -> Iterator[CaseReport]:
    """Yields a report per case, as they are finished.

    Args:
        crew: where workers come from.
        case_ids: the cases.
        workers: most workers at a time.
        give_up: records what is open of a case as failed.

    Raises:
        ModelError: worker after worker died before it was ready.
        WardstarError: a worker met an error that is no case's fault.
    """
    waiting = deque(Task(case_id) for case_id in case_ids)
    starting: list[W] = []
    idle: list[W] = []
    at_work: dict[W, Task] = {}
    failed_starts = 0
    while waiting or at_work:
        while idle and waiting:
            worker, task = idle.pop(), waiting.popleft()
            at_work[worker] = task
            crew.give(worker, task)
        wanted = min(workers, len(waiting) + len(at_work))
        starting.extend(crew.hire() for _ in range(wanted - len(starting) - len(idle) - len(at_work)))
        for worker, event in crew.hear():
            if worker in starting:
                starting.remove(worker)
                failed_starts = failed_starts + 1 if isinstance(event, Lost) else 0
                if isinstance(event, Lost):
                    _check_starts(failed_starts, event)
                else:
                    idle.append(worker)
            elif isinstance(event, CaseReport):
                del at_work[worker]
                idle.append(worker)
                yield event
            elif worker in idle:
                idle.remove(worker)
            elif isinstance(event, Lost):
                task = at_work.pop(worker)
                lost = Task(task.case_id, task.losses + 1, event.reason)
                if task.doomed:
                    yield give_up(lost)
                else:  # last, so that what kills workers does not hold up the rest
                    waiting.append(lost)


def _check_starts(failed: int, event: Lost) -> None:
    if failed >= MOST_FAILED_STARTS:
        raise ModelError(
            f"{failed} workers in a row died while they were loading, the last one {event.reason}",
            hint="`wardstar resume` goes on; fewer --workers need less memory",
        )
