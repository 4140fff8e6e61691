"""The desk of a run: what each reader has to do on it, and how far all are."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from evaluation.reading.form import Key, Review
from evaluation.reading.readers import Reader, Readers
from evaluation.reading.state import Part
from evaluation.reading.store import Marks, ReadingStore, reviews_of
from evaluation.reading.work_list import (
    CaseStep,
    Shelf,
    State,
    Task,
    assigned,
    by_case,
    disputed_keys,
    overlap_of,
    settling,
    tasks_of,
)
from evaluation.store.run_store import Run


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reader is: case-steps on the list, begun, own diagnosis committed, finished; minutes spent."""

    reader: Reader
    case_steps: int
    begun: int
    committed: int
    finished: int
    minutes: float


class Desk:
    """Puts together what is to be read, by whom, and what is done. Raises StorageError when the database fails."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self.engine, self.run = engine, run
        self.shelf, self.store, self.readers = Shelf(engine, run), ReadingStore(engine, run), Readers(engine)

    def tasks(self, reader: Reader) -> list[list[Task]]:
        """Returns the case-steps of a reader, case by case in the order of reading."""
        marks = self.store.marks()
        return self._tasks(reader, self.readers.all(), by_case(self.shelf.steps().values()), marks)

    def task(self, reader: Reader, address: str) -> Task | None:
        """Returns a case-step that a reader has, by its address; None of any other."""
        return next((t for case in self.tasks(reader) for t in case if t.step.id == address), None)

    def readings_of(self, key: Key) -> list[Review]:
        """Returns the finished readings of a case-step that are to be settled."""
        return [r for r in reviews_of(self.engine, self.run.run_id) if r.key == key and not r.adjudicates]

    def progress(self) -> tuple[list[Progress], int]:
        """Returns how far each reader is, and how many case-steps wait to be settled or are being settled."""
        readers, marks = self.readers.all(), self.store.marks()
        steps = self.shelf.steps()
        reviews, cases = reviews_of(self.engine, self.run.run_id), by_case(steps.values())
        rows = []
        for reader in readers:
            tasks = [t for case in self._tasks(reader, readers, cases, marks) for t in case]
            own = [marks.get(reader.name, {}).get(t.step.key, set()) for t in tasks]
            rows.append(
                Progress(
                    reader,
                    case_steps=len(tasks),
                    begun=sum(t.begun for t in tasks),
                    committed=sum(Part.FIRST in kinds for kinds in own),
                    finished=sum(Part.FINISHED in kinds for kinds in own),
                    minutes=round(sum(r.minutes for r in reviews if r.reviewer == reader.name), 1),
                )
            )
        return rows, len(disputed_keys(reviews, {key: s.answer for key, s in steps.items()}))

    def _tasks(
        self, reader: Reader, readers: list[Reader], cases: dict[str, list[CaseStep]], marks: Marks
    ) -> list[list[Task]]:
        own = marks.get(reader.name, {})
        steps_in_all = sum(len(steps) for steps in cases.values())
        known = self.store.known_elsewhere()
        knows = known.get(reader.name, ())
        lists = assigned(cases, readers, marks, overlap_of(self.store.plan(), steps_in_all), known)
        if not reader.adjudicator:
            return [tasks_of(cases[case_id], own, known=case_id in knows) for case_id in lists[reader.name]]
        answers = {s.key: s.answer for steps in cases.values() for s in steps}
        disputed = disputed_keys(reviews_of(self.engine, self.run.run_id), answers)
        unfinished = {
            case_id
            for name, case_ids in lists.items()
            for case_id in case_ids
            if _goes_on(tasks_of(cases[case_id], marks.get(name, {}), known=case_id in known.get(name, ())))
        }
        found = settling(cases, readers, marks, disputed, unfinished, known)[reader.name]
        return [tasks_of(found[case_id], own, known=case_id in knows) for case_id in sorted(found)]


def _goes_on(tasks: list[Task]) -> bool:
    """Says whether a reader has begun a case and not finished it."""
    begun = any(t.begun for t in tasks)
    return begun and any(t.state not in (State.DONE, State.CLOSED) for t in tasks)
