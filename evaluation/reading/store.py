"""Readings of one run: what each reader viewed, typed and committed, written to and read from the log."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from clinical_data.errors import UsageError
from clinical_data.store.engine import reading, writing
from evaluation.reading.audit import Entry, Event, append, entries
from evaluation.reading.form import Key, Own, Reason, Review, Say, Verdict
from evaluation.reading.readers import Reader, Readers
from evaluation.reading.state import DRAFT, PARTS, Part, Reading, fold
from evaluation.reading.tables import reading_log
from evaluation.store.run_store import Run, RunStore

RUN_DELETED = "run-deleted"
PLAN = "plan"
VIEW_RECORD = "view-record"

Marks = dict[str, dict[Key, set[str]]]
"""Reader -> case-step -> kinds of entries there."""

Known = Mapping[str, Collection[str]]
"""Reader -> cases whose record the reader has seen elsewhere."""


class NotNowError(UsageError):
    """A part of the form that is not open: committed already, or the one before it is not."""


class ReadingStore:
    """The readings of one run. Every method raises StorageError when the database fails."""

    def __init__(self, engine: Engine, run: Run) -> None:
        self.engine, self.run = engine, run
        self._turn = threading.Lock()  # threads of one process queue here, where waiting is fair and costs nothing

    def reading(self, reviewer: str, key: Key) -> Reading:
        """Returns how far a reader is with a case-step."""
        with reading(self.engine) as connection:
            return self._fold(connection, reviewer, key)

    def view(self, reviewer: str, key: Key, page: str, page_hash: str) -> None:
        """Logs that a page was shown: `first`, `after`, `record` or `done`, and the sha256 of what it showed."""
        self._append(Event(f"view-{page}", reviewer, self.run.name, key, {"page_sha256": page_hash}))

    def view_list(self, reviewer: str) -> None:
        """Logs that the work list was shown."""
        self._append(Event("view-list", reviewer, self.run.name))

    def draft(self, reviewer: str, key: Key, part: Part, fields: Mapping[str, list[str]]) -> bool:
        """Keeps what was typed so far; returns whether it differed from what was kept.

        Raises:
            NotNowError: another part is open.
        """
        with self._turn, writing(self.engine) as connection:
            state = self._open(connection, reviewer, key, part)
            if state.drafts.get(part) == dict(fields):
                return False
            append(connection, Event(DRAFT, reviewer, self.run.name, key, {"part": part, "fields": dict(fields)}))
            return True

    def commit(self, reviewer: str, key: Key, part: Part, payload: Mapping[str, Any]) -> None:
        """Commits a part of the form, for good.

        Raises:
            NotNowError: another part is open; nothing is stored.
        """
        with self._turn, writing(self.engine) as connection:
            self._open(connection, reviewer, key, part)
            append(connection, Event(part, reviewer, self.run.name, key, payload))

    def marks(self) -> Marks:
        """Returns which kinds of entries there are, drafts left out."""
        c = reading_log.c
        query = select(c.reviewer, c.case_id, c.step, c.occurrence, c.kind).distinct()
        found: Marks = defaultdict(lambda: defaultdict(set))
        with reading(self.engine) as connection:
            begun = _begun(connection, self.run.name)
            query = query.where(c.run == self.run.name, c.seq > begun, c.case_id != "", c.kind != DRAFT)
            for row in connection.execute(query):
                found[row.reviewer][row.case_id, row.step, row.occurrence].add(row.kind)
        return found

    def known_elsewhere(self) -> Known:
        """Returns whose record a reader has seen in another run, or in an earlier one of this name."""
        c, found = reading_log.c, defaultdict[str, set[str]](set)
        query = select(c.reviewer, c.case_id).where(c.kind.in_((VIEW_RECORD, Part.FINISHED))).distinct()
        with reading(self.engine) as connection:
            begun = _begun(connection, self.run.name)
            for row in connection.execute(query.where((c.run != self.run.name) | (c.seq <= begun))):
                found[row.reviewer].add(row.case_id)
        return found

    def plan(self) -> str:
        """Returns how much of the run two readers read, as it was last told; empty: all readers read all."""
        c = reading_log.c
        with reading(self.engine) as connection:
            begun = _begun(connection, self.run.name)
            query = select(reading_log).where(c.run == self.run.name, c.kind == PLAN, c.seq > begun)
            plans = [str(entry.payload["overlap"]) for entry in entries(connection, query)]
        return plans[-1] if plans else ""

    def set_plan(self, overlap: str) -> None:
        """Keeps how much of the run two readers read."""
        if overlap != self.plan():
            self._append(Event(PLAN, "", self.run.name, payload={"overlap": overlap}))

    def _append(self, event: Event) -> None:
        with self._turn, writing(self.engine) as connection:
            append(connection, event)

    def _open(self, connection: Connection, reviewer: str, key: Key, part: Part) -> Reading:
        state = self._fold(connection, reviewer, key)
        if state.open_part is not part:
            done = part in state.committed
            raise NotNowError("this part is committed already" if done else "an earlier part comes first")
        return state

    def _fold(self, connection: Connection, reviewer: str, key: Key) -> Reading:
        c, (case_id, step, occurrence) = reading_log.c, key
        own = (c.reviewer == reviewer, c.case_id == case_id, c.step == step, c.occurrence == occurrence)
        query = select(reading_log).where(c.run == self.run.name, c.seq > _begun(connection, self.run.name), *own)
        return fold(entries(connection, query))


def reviews_of(engine: Engine, run_id: int) -> list[Review]:
    """Returns the finished readings of a run in the order in which they were finished.

    Raises:
        UsageError: no such run.
        StorageError: the database failed.
    """
    run = next((r for r in RunStore(engine).runs() if r.run_id == run_id), None)
    if run is None:
        raise UsageError(f"no run with number {run_id}")
    readers = {r.name: r for r in Readers(engine).all()}
    c, found = reading_log.c, defaultdict[tuple[str, Key], list[Entry]](list)
    with reading(engine) as connection:
        query = select(reading_log).where(c.run == run.name, c.case_id != "", c.seq > _begun(connection, run.name))
        for entry in entries(connection, query):
            found[entry.reviewer, entry.key].append(entry)
    states = [(name, key, fold(own)) for (name, key), own in found.items()]
    done = [_review(readers[name], run.name, key, s) for name, key, s in states if Part.FINISHED in s.committed]
    return sorted(done, key=lambda r: (r.finished, r.reviewer, r.key))


def finished_readings(connection: Connection, run_name: str) -> int:
    """Returns how many readings of a run are finished."""
    c = reading_log.c
    query = select(func.count()).where(c.run == run_name, c.kind == Part.FINISHED, c.seq > _begun(connection, run_name))
    return int(connection.execute(query).scalar_one())


def part_with(connection: Connection, run_name: str, *, readings_too: bool) -> None:
    """Lets go of the readings of a run that is about to be deleted in the same transaction.

    They stay in the log, whose chain they are part of, and no longer count: a later run of that name has none.

    Raises:
        UsageError: readings are finished, and `readings_too` is not set.
    """
    number = finished_readings(connection, run_name)
    if number and not readings_too:
        raise UsageError(
            f"run {run_name} has {number} finished readings by clinicians",
            hint="`wardstar review export` writes them to a file; then `runs delete --with-readings`",
        )
    c = reading_log.c
    if connection.execute(select(c.seq).where(c.run == run_name).limit(1)).first() is not None:
        append(connection, Event(RUN_DELETED, "", run_name, payload={"finished": number}))


def _begun(connection: Connection, run_name: str) -> int:
    """Returns the number of the entry after which the entries of a run of this name belong to the present one."""
    c = reading_log.c
    query = select(func.max(c.seq)).where(c.run == run_name, c.kind == RUN_DELETED)
    return connection.execute(query).scalar() or 0


def own_of(payload: Mapping[str, Any], minutes: float) -> Own:
    """Returns an own answer as it was committed."""
    return Own(tuple(payload["codes"]), int(payload["confidence"]), str(payload["words"]), minutes)


def _review(reader: Reader, run_name: str, key: Key, state: Reading) -> Review:
    first, after, rest = (state.committed[p] for p in PARTS)
    at_first, at_after, in_all = (state.minutes[p] for p in PARTS)
    return Review(
        reviewer=reader.name,
        role=reader.role,
        specialty=reader.specialty,
        years=reader.years,
        run=run_name,
        key=key,
        run_hash=rest["run_hash"],
        case_hash=rest["case_hash"],
        report_hash=rest["report_hash"],
        first=own_of(first, at_first),
        after=own_of(after, round(at_after - at_first, 2)),
        ratings={int(turn): int(rating) for turn, rating in rest["ratings"].items()},
        verdict=Verdict(rest["verdict"]),
        reason=Reason(rest["reason"]) if rest["reason"] else None,
        remark=rest["remark"],
        corrected=tuple(rest["corrected"]),
        equivalent=Say(rest["equivalent"]),
        knowable=Say(rest["knowable"]),
        would_ask=tuple(rest["would_ask"]),
        offending=tuple(rest["offending"]),
        unsafe=rest["unsafe"],
        harm_severity=rest["harm_severity"],
        harm_likelihood=rest["harm_likelihood"],
        record_wrong=Say(rest["record_wrong"]),
        minutes=in_all,
        may_train=bool(rest["may_train"]),
        adjudicates=bool(rest["adjudicates"]),
        finished=state.finished,
        record_hash=rest.get("record_hash", ""),
    )
