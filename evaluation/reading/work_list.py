"""Who reads what, in which order, and what of it is open now.

A reader reads a case from its earliest clock to its latest: the chart of a later step tells what followed an earlier
one, so it opens when the own answers to the earlier one are committed. The record of a case, and what was done after
the clock, is shown when that holds for all steps of the case that the reader has, because it tells on each of them.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Engine

from clinical_data.errors import UsageError
from evaluation.reading.form import Key, Review, Verdict
from evaluation.reading.read_steps import answer_of
from evaluation.reading.readers import Reader
from evaluation.reading.state import Part
from evaluation.reading.store import VIEW_RECORD, Known, Marks
from evaluation.record import RunRecord
from evaluation.review.set_compare import vocabularies
from evaluation.step_rules import StepRule, order_key, step_rules
from evaluation.store.run_store import Run, RunStore
from search.trajectory import Status

READABLE = (Status.VERIFIED, Status.UNVERIFIED, Status.ABSTAIN)
_ALL = ("", "all")
NOBODY: Known = {}


class State(StrEnum):
    """What a reader can do with a case-step now."""

    OPEN = "open"  # own diagnosis, or own diagnosis again
    LOCKED = "locked"  # an earlier step of the case comes first
    WAITING = "waiting"  # the later steps of the case come first
    RECORD = "record"  # the record is open, and the rest of the form
    DONE = "done"
    CLOSED = "closed"  # the reader has seen what the record says of this case before reading this step


@dataclass(frozen=True, slots=True)
class CaseStep:
    """One case-step that can be read.

    Attributes:
        id: the key as it stands in addresses.
        position: place of the step in its pathway.
        answer: codes that the model answers; empty where it abstains. Not to be shown before the own answer.
    """

    key: Key
    id: str
    source_id: str
    clock: int
    clock_text: str
    question: str
    position: int
    answer: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A case-step on the list of a reader; `later_steps`: others of the case come after it."""

    step: CaseStep
    state: State
    begun: bool
    later_steps: bool = False


class Shelf:
    """The readable case-steps of a run, looked up again when the run has grown."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self.store, self.run = RunStore(engine), run
        self.rules: dict[str, StepRule] = step_rules(run.config)
        self.vocabulary_of = vocabularies(run.config)
        self._steps: dict[Key, CaseStep] = {}
        self._seen: dict[Key, str] = {}
        self._lock = threading.Lock()

    def steps(self) -> dict[Key, CaseStep]:
        """Returns all of them: key -> case-step."""
        done = self.store.done(self.run.run_id)
        with self._lock:
            for key in [k for k, status in done.items() if self._seen.get(k) != status]:
                self._steps.pop(key, None)
                record = self.store.record(self.run.run_id, *key).record
                if record.status in READABLE and record.clock is not None:
                    self._steps[key] = self._step(record, record.clock)
            for gone in self._seen.keys() - done.keys():
                self._steps.pop(gone, None)
            self._seen = done
            return dict(self._steps)

    def _step(self, record: RunRecord, clock: int) -> CaseStep:
        key = (record.case_id, record.step, record.occurrence)
        order = list(self.rules)
        position = order.index(record.step) if record.step in order else len(order)
        return CaseStep(
            key, address(key), record.source_id, clock, record.clock_text, record.question, position, answer_of(record)
        )


def address(key: Key) -> str:
    """Returns a case-step as it stands in addresses: 16 hex digits."""
    return _digest("address", *map(str, key))[:16]


def overlap_of(text: str, case_steps: int) -> int | None:
    """Returns how many case-steps two readers read: of `20%` or `30`; None (`all`): all readers read all of them.

    Raises:
        UsageError: another form.
    """
    if text in _ALL:
        return None
    found = re.fullmatch(r"(\d{1,6})(%?)", text.strip())
    if found is None or (found[2] and int(found[1]) > 100):
        raise UsageError(f"--overlap {text}: not an overlap", hint="a share (20%), a number of case-steps (30), or all")
    return math.ceil(int(found[1]) * case_steps / 100) if found[2] else int(found[1])


def by_case(steps: Iterable[CaseStep]) -> dict[str, list[CaseStep]]:
    """Returns case -> its case-steps, sorted as in the report (`evaluation.step_rules.order_key`)."""
    found: dict[str, list[CaseStep]] = {}
    for step in sorted(steps, key=lambda s: order_key(s.key[0], s.clock, s.key[2], s.position)):
        found.setdefault(step.key[0], []).append(step)
    return found


def assigned(
    cases: Mapping[str, Sequence[CaseStep]],
    readers: Sequence[Reader],
    marks: Marks,
    overlap: int | None,
    known: Known = NOBODY,
) -> dict[str, list[str]]:
    """Returns reader -> cases, in the order of reading. A case goes as a whole, with all its steps.

    Every case has one reader, and cases of `overlap` case-steps together have two; without an overlap all have all. By
    the hash of case and reader (rendezvous hashing: another reader takes over some cases and moves no other), but
    what a reader has begun stays with that reader. Nobody is given a case to read whose record they know (`known`).
    """
    reading = [r for r in readers if not r.adjudicator]
    active = [r.name for r in reading if not r.disabled]
    double = _doubled(cases, overlap)
    found: dict[str, list[str]] = {r.name: [] for r in readers}
    for case_id, steps in cases.items():
        begun = {r.name for r in reading if any(s.key in marks.get(r.name, {}) for s in steps)}
        able = {name for name in active if case_id not in known.get(name, ())}
        if overlap is None:
            holders = begun | able
        else:
            whole = {r.name for r in reading if r.disabled and _finished(steps, marks.get(r.name, {}))}
            wanted = 2 if case_id in double else 1
            free = sorted(able - begun, key=lambda name: _digest("reader", case_id, name))
            holders = begun | set(free[: max(0, wanted - len(begun & set(active)) - len(whole))])
        for name in holders:
            found[name].append(case_id)
    return {name: sorted(ids, key=lambda c: _digest("order", name, c)) for name, ids in found.items()}


def settling(
    cases: Mapping[str, Sequence[CaseStep]],
    readers: Sequence[Reader],
    marks: Marks,
    disputed: Collection[Key],
    unfinished: Collection[str],
    known: Known = NOBODY,
) -> dict[str, dict[str, list[CaseStep]]]:
    """Returns adjudicator -> case -> case-steps whose readings differ, each case with one adjudicator.

    Args:
        cases, readers, marks, known: as for `assigned`.
        disputed: case-steps whose readings differ.
        unfinished: cases that a reader has begun and not finished: they wait, so that a case comes as a whole.
    """
    judges = [r for r in readers if r.adjudicator]
    found: dict[str, dict[str, list[CaseStep]]] = {r.name: {} for r in judges}
    for case_id, steps in cases.items():
        own = {r.name: [s for s in steps if s.key in marks.get(r.name, {})] for r in judges}
        open_steps = [s for s in steps if s.key in disputed]
        for name, begun in own.items():
            if begun:
                found[name][case_id] = [s for s in steps if s in begun or s in open_steps]
        if open_steps and case_id not in unfinished and not any(own.values()):
            active = [r.name for r in judges if not r.disabled and case_id not in known.get(r.name, ())]
            if active:
                found[min(active, key=lambda name: _digest("judge", case_id, name))][case_id] = open_steps
    return found


def disputed_keys(reviews: Sequence[Review], answers: Mapping[Key, tuple[str, ...]]) -> set[Key]:
    """Returns the case-steps whose readings end in different answers and that nobody has settled."""
    finals: dict[Key, set[frozenset[str]]] = {}
    for review in reviews:
        if review.key in answers and not review.adjudicates:
            finals.setdefault(review.key, set()).add(final_answer(review, answers[review.key]))
    settled = {r.key for r in reviews if r.adjudicates}
    return {key for key, said in finals.items() if len(said) > 1 and key not in settled}


def final_answer(review: Review, model: tuple[str, ...]) -> frozenset[str]:
    """Returns the codes that a reader leaves standing: the model's where accepted, else the corrected ones."""
    return frozenset(model if review.verdict is Verdict.ACCEPTED else review.corrected)


def tasks_of(steps: Sequence[CaseStep], marks: Mapping[Key, set[str]], *, known: bool = False) -> list[Task]:
    """Returns the case-steps of one case with their state for a reader.

    Args:
        steps: those the reader has, by clock.
        marks: case-step -> kinds of entries of that reader.
        known: the reader has seen the record of the case elsewhere.
    """
    kinds = {s.key: marks.get(s.key, set()) for s in steps}
    seen = known or any(VIEW_RECORD in own or Part.FINISHED in own for own in marks_of_case(steps, marks))
    ready = seen or all(Part.AFTER in own for own in kinds.values())
    found, before = [], True
    for step in steps:
        own = kinds[step.key]
        if Part.FINISHED in own:
            state = State.DONE
        elif Part.AFTER in own:
            state = State.RECORD if ready else State.WAITING
        elif seen:
            state = State.CLOSED
        else:
            state = State.OPEN if before else State.LOCKED
            before = False
        found.append(Task(step, state, bool(own), step is not steps[-1]))
    return found


def marks_of_case(steps: Sequence[CaseStep], marks: Mapping[Key, set[str]]) -> list[set[str]]:
    """Returns the kinds of a reader's entries on each step of the case, those no longer on the list included."""
    cases = {s.key[0] for s in steps}
    return [kinds for key, kinds in marks.items() if key[0] in cases]


def _doubled(cases: Mapping[str, Sequence[CaseStep]], overlap: int | None) -> set[str]:
    found: set[str] = set()
    number = 0
    for case_id in sorted(cases, key=lambda c: _digest("overlap", c)):
        if number >= (overlap or 0):
            break
        found.add(case_id)
        number += len(cases[case_id])
    return found


def _finished(steps: Sequence[CaseStep], marks: Mapping[Key, set[str]]) -> bool:
    return all(Part.FINISHED in marks.get(s.key, set()) for s in steps)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()
