"""The loop that spreads cases over workers, with workers that die on demand."""

from __future__ import annotations

from collections import Counter, deque

import pytest

from clinical_data.errors import ModelError, StorageError
from workflow.case_worker import CaseReport
from workflow.executors.crew import Event, Lost, Signal, Task, spread


class ScriptedCrew:
    """Workers that are numbers. `deaths`: how often a case costs one; `starts`: which of them never get ready."""

    def __init__(self, deaths: dict[str, int] | None = None, starts: tuple[int, ...] = ()) -> None:
        self.deaths, self.starts = Counter(deaths or {}), starts
        self.hired = 0
        self.given: list[Task] = []
        self.busy: Counter[int] = Counter()
        self._told: deque[tuple[int, Event]] = deque()

    def hire(self) -> int:
        self.hired += 1
        ready = self.hired not in self.starts
        self._told.append((self.hired, Signal.READY if ready else Lost("killed by SIGKILL")))
        return self.hired

    def give(self, worker: int, task: Task) -> None:
        self.given.append(task)
        self.busy[worker] += 1
        assert self.busy[worker] == 1, "a worker has one case at a time"
        event: Event = CaseReport(task.case_id, {"first": "failed" if task.doomed else "verified"})
        if self.deaths[task.case_id] > 0:
            self.deaths[task.case_id] -= 1
            event = Lost("killed by SIGKILL")
        self._told.append((worker, event))

    def hear(self) -> list[tuple[int, Event]]:
        worker, event = self._told.popleft()
        self.busy[worker] = 0
        return [(worker, event)]


def outcome(crew: ScriptedCrew, cases: str, workers: int) -> tuple[dict[str, str], list[Task]]:
    given_up: list[Task] = []

    def give_up(task: Task) -> CaseReport:
        given_up.append(task)
        return CaseReport(task.case_id, {"first": "failed"})

    reports = list(spread(crew, list(cases), workers, give_up))
    assert sorted(r.case_id for r in reports) == sorted(cases), "every case is reported once"
    return {r.case_id: r.statuses["first"] for r in reports}, given_up


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_case_is_taken_once(workers: int) -> None:
    crew = ScriptedCrew()
    assert set(outcome(crew, "abcdefgh", workers)[0].values()) == {"verified"}
    assert len(crew.given) == 8
    assert crew.hired == workers


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("deaths", [1, 2, 3, 4, 9])
def test_a_case_costs_four_workers_at_most(workers: int, deaths: int) -> None:
    crew = ScriptedCrew({"c": deaths})
    found, given_up = outcome(crew, "abcdef", workers)
    assert found["c"] == ("verified" if deaths < 3 else "failed")
    assert {status for case, status in found.items() if case != "c"} == {"verified"}
    assert [t.losses for t in crew.given if t.case_id == "c"] == list(range(min(deaths, 3) + 1))
    reasons = [t.doomed for t in given_up]
    assert reasons == (["4 workers died at it, the last one killed by SIGKILL"] if deaths > 3 else [])


def test_all_cases_may_be_bad() -> None:
    crew = ScriptedCrew(dict.fromkeys("abc", 99))
    assert set(outcome(crew, "abc", 2)[0].values()) == {"failed"}


def test_workers_that_never_start_end_the_run() -> None:
    with pytest.raises(ModelError, match="3 workers in a row died while they were loading"):
        outcome(ScriptedCrew(starts=(1, 2, 3)), "abc", 1)
    assert outcome(ScriptedCrew(starts=(1, 2, 4, 5)), "abc", 2)[0] == dict.fromkeys("abc", "verified")


def test_an_error_of_a_worker_ends_the_run() -> None:
    crew = ScriptedCrew()
    crew.hear = lambda: (_ for _ in ()).throw(StorageError("disk full"))  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        outcome(crew, "abc", 2)
