"""The log of readings: entries can only be added, and each holds the hash of the one before it.

Whoever alters, removes or inserts an entry in the middle breaks the chain there. Entries cut off at the end leave a
chain that is whole, so its head (the last hash) is to be noted elsewhere: `verify` tells whether a noted head is still
part of the chain. Triggers refuse changes; the chain shows those of somebody who can get round triggers.

Source: Schneier and Kelsey 1999, "Secure Audit Logs to Support Computer Forensics", doi 10.1145/317087.317089 (the hash
chain; no secret key here, as the noted head takes its place).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Select, insert, select

from clinical_data.store.engine import reading
from evaluation.reading.form import Key
from evaluation.reading.tables import reading_log
from evaluation.store.run_store import canonical_json

BEGINNING = "0" * 64
"""Stands in the first entry for the hash of the one before it."""

NO_KEY: Key = ("", "", 0)
_HASHED = ("seq", "time", "reviewer", "run", "case_id", "step", "occurrence", "kind", "payload_json", "previous")


@dataclass(frozen=True, slots=True)
class Event:
    """What is to be added to the log.

    Attributes:
        kind: what was done, as in `evaluation.reading.state`.
        reviewer, run: names; empty where it concerns none.
        key: the case-step; `NO_KEY` where it concerns none.
        payload: what was entered; plain JSON.
    """

    kind: str
    reviewer: str = ""
    run: str = ""
    key: Key = NO_KEY
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log; `time` is ISO 8601, UTC."""

    seq: int
    time: str
    reviewer: str
    run: str
    key: Key
    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """What a walk through the chain found.

    Attributes:
        entries: number of entries that are in order, from the first.
        head: hash of the last of them; `BEGINNING` where there is none.
        broken: number of the first entry that is not in order; None where all are.
        why: what is wrong with it.
        has_head: whether the noted head is part of the chain; None where none was given.
    """

    entries: int
    head: str
    broken: int | None = None
    why: str = ""
    has_head: bool | None = None


def append(connection: Connection, event: Event, *, now: datetime | None = None) -> Entry:
    """Adds an entry.

    Args:
        connection: in a writing transaction (`clinical_data.store.engine.writing`), so that one writes at a time.
        event: what was done.
        now: the time; that of the clock when left out.
    """
    c = reading_log.c
    last = connection.execute(select(c.seq, c.hash).order_by(c.seq.desc()).limit(1)).one_or_none()
    case_id, step, occurrence = event.key
    row: dict[str, Any] = {
        "seq": 1 if last is None else last.seq + 1,
        "time": (now or datetime.now(UTC)).isoformat(timespec="milliseconds"),
        "reviewer": event.reviewer,
        "run": event.run,
        "case_id": case_id,
        "step": step,
        "occurrence": occurrence,
        "kind": event.kind,
        "payload_json": canonical_json(dict(event.payload)),
        "previous": BEGINNING if last is None else last.hash,
    }
    connection.execute(insert(reading_log).values(**row, hash=digest(row)))
    return entry_of(row)


def entries(connection: Connection, query: Select[Any]) -> Iterator[Entry]:
    """Yields the entries that a query over all columns of the log finds, in their order."""
    for row in connection.execute(query.order_by(reading_log.c.seq)):
        yield entry_of(row._asdict())


def entry_of(row: Mapping[str, Any]) -> Entry:
    """Returns a row of the table as an entry."""
    key = (row["case_id"], row["step"], row["occurrence"])
    return Entry(
        row["seq"], row["time"], row["reviewer"], row["run"], key, row["kind"], json.loads(row["payload_json"])
    )


def digest(row: Mapping[str, Any]) -> str:
    """Returns the hash of an entry: sha256 over the canonical JSON of all its fields and the hash before it."""
    return hashlib.sha256(canonical_json({name: row[name] for name in _HASHED}).encode()).hexdigest()


def verify(engine: Engine, head: str = "") -> Check:
    """Walks through the chain up to the first entry that is not in order.

    Args:
        engine: the database.
        head: a head that was noted earlier; empty: none.

    Raises:
        StorageError: the database failed.
    """
    number, last, found = 0, BEGINNING, head == BEGINNING
    broken: tuple[int, str] | None = None
    with reading(engine) as connection:
        rows = connection.execution_options(yield_per=1000).execute(select(reading_log).order_by(reading_log.c.seq))
        for row in (r._asdict() for r in rows):
            if why := _fault(row, number + 1, last):
                broken = (row["seq"], why)
                break
            number, last = number + 1, row["hash"]
            found = found or last == head
    at, why = broken or (None, "")
    return Check(number, last, at, why, None if not head else found)


def _fault(row: Mapping[str, Any], expected: int, previous: str) -> str:
    if row["seq"] != expected:
        return f"entry {expected} is missing"
    if row["previous"] != previous:
        return "it does not follow from the entry before it"
    try:
        same = digest(row) == row["hash"]
    except (TypeError, ValueError):  # SQLite stores any kind of value in any column
        same = False
    return "" if same else "its content does not fit its hash"
