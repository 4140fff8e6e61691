"""Imports and what they could not use; an unfinished import is found again and goes on where it was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from clinical_data.clocks import STEPS
from clinical_data.sources import Quarantined
from clinical_data.store import tables
from clinical_data.store.case_writer import hospital_of
from clinical_data.store.engine import reading, writing
from clinical_data.store.texts import file_name, from_stored


@dataclass(frozen=True, slots=True)
class ImportState:
    """An import that is open for writing.

    Attributes:
        import_id: its key.
        resumed: whether an earlier try began it.
        stored: cases added, changed and unchanged so far.
        read, unused: what the source reported of those cases.
        confirmed: ids of those cases.
    """

    import_id: int
    resumed: bool = False
    stored: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    confirmed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ImportTally:
    """What the database holds of an import.

    Attributes:
        cases, patients: how many it wrote or found unchanged.
        labels: step -> cases with a recorded label, in the order of the workflow.
        absent: step -> reason why there is none -> cases.
        hospital_conflicts: patients with stays at several hospitals.
        quarantined: rows that could not be used.
    """

    cases: int
    patients: int
    labels: Counter[str]
    absent: dict[str, Counter[str]]
    hospital_conflicts: int
    quarantined: int


class ImportStore:
    """Imports of one database. Every method raises StorageError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def begin(self, source: str, path_name: str, fingerprint: str | None = None) -> ImportState:
        """Begins an import, or goes on with the unfinished one of the same fingerprint.

        Of an unfinished one, the quarantined rows that the source will report again are deleted.
        """
        table, held, own = tables.imports, tables.quarantine, tables.cases.c
        unfinished = (table.c.fingerprint == fingerprint) & table.c.finished.is_(None)
        with writing(self.engine) as connection:
            query = select(table).where(unfinished).order_by(table.c.import_id.desc()).limit(1)
            row = None if fingerprint is None else connection.execute(query).one_or_none()
            if row is not None:
                connection.execute(delete(held).where(held.c.import_id == row.import_id, held.c.case_id.is_(None)))
                ids = frozenset(connection.scalars(select(own.case_id).where(own.import_id == row.import_id)))
                counts = json.loads(row.progress_json or "{}")
                parts = {name: Counter(counts.get(name, {})) for name in ("stored", "read", "unused")}
                return ImportState(row.import_id, True, **parts, confirmed=ids)
            values = {
                "source": source,
                "path_name": file_name(path_name),
                "started": _now(),
                "fingerprint": fingerprint,
            }
            key = connection.execute(insert(table).values(values)).inserted_primary_key
        if key is None:  # never with an INTEGER primary key
            raise AssertionError("import row without a key")
        return ImportState(int(key[0]))

    def finish(self, import_id: int, counts: dict[str, int] | None = None) -> None:
        """Notes that an import has ended, with what it counted."""
        values = {"finished": _now(), "counts_json": json.dumps(counts or {}, sort_keys=True)}
        with writing(self.engine) as connection:
            connection.execute(update(tables.imports).where(tables.imports.c.import_id == import_id).values(values))

    def quarantine(self, import_id: int, rows: Iterable[Quarantined]) -> None:
        """Notes rows that could not be used, and that belong to no stored case."""
        with writing(self.engine) as connection:
            write_quarantine(connection, import_id, [(row, None) for row in rows])

    def quarantined(self, import_id: int, limit: int | None = None) -> list[Quarantined]:
        """Returns the rows that an import could not use: first those of no stored case, then the others by case."""
        held = tables.quarantine
        order = (held.c.case_id.is_not(None), held.c.quarantine_id)
        query = select(held).where(held.c.import_id == import_id).order_by(*order).limit(limit)
        with reading(self.engine) as connection:
            rows = connection.execute(query).all()
        return [Quarantined(from_stored(r.file), r.line, from_stored(r.reason), from_stored(r.resource)) for r in rows]

    def tally(self, import_id: int) -> ImportTally:
        """Returns what the database holds of an import."""
        own, truth, held = tables.cases.c, tables.ground_truth.c, tables.quarantine.c
        mine = own.import_id == import_id
        steps = (
            select(truth.step, truth.absent_reason, func.count())
            .select_from(tables.ground_truth.join(tables.cases))
            .where(mine)
            .group_by(truth.step, truth.absent_reason)
        )
        rows = select(func.count()).select_from(tables.quarantine).where(held.import_id == import_id)
        labels: Counter[str] = Counter()
        absent: dict[str, Counter[str]] = {}
        with reading(self.engine) as connection:
            cases = connection.scalar(select(func.count()).select_from(tables.cases).where(mine)) or 0
            patients = connection.scalar(select(func.count(func.distinct(own.patient_id))).where(mine)) or 0
            for step, reason, number in sorted(connection.execute(steps), key=_by_step):
                labels[step] += 0 if reason else number
                if reason:
                    absent.setdefault(step, Counter())[from_stored(reason)] += number
            conflicts = _hospital_conflicts(connection, import_id)
            quarantined = connection.scalar(rows) or 0
        return ImportTally(cases, patients, labels, absent, conflicts, quarantined)


def write_progress(
    connection: Connection, import_id: int, stored: Counter[str], read: Counter[str], unused: Counter[str]
) -> None:
    """Notes what an unfinished import counted so far, in the transaction that stores the cases counted."""
    text = json.dumps({"stored": stored, "read": read, "unused": unused}, sort_keys=True)
    table = tables.imports
    connection.execute(update(table).where(table.c.import_id == import_id).values(progress_json=text))


def write_quarantine(connection: Connection, import_id: int, rows: list[tuple[Quarantined, str | None]]) -> None:
    """Writes quarantined rows, each with the stored case that it belongs to, or None."""
    if rows:
        connection.execute(insert(tables.quarantine), [_quarantine_row(import_id, row, key) for row, key in rows])


def _quarantine_row(import_id: int, row: Quarantined, case_id: str | None) -> dict[str, Any]:
    texts = {"file": file_name(row.file), "reason": file_name(row.reason), "resource": file_name(row.resource)}
    return {"import_id": import_id, "line": row.line, **texts, "case_id": case_id}


def _by_step(row: Row[str, str | None, int]) -> tuple[int, str, str]:
    step, reason, _ = row
    return STEPS.index(step) if step in STEPS else len(STEPS), step, reason or ""


def _hospital_conflicts(connection: Connection, import_id: int) -> int:
    own = tables.cases.c
    query = select(own.patient_id, own.attributes_json).where(own.import_id == import_id)
    first: dict[str, str] = {}
    several = set()
    for patient_id, attributes in connection.execution_options(yield_per=10_000).execute(query):
        hospital = hospital_of(attributes)
        if hospital and first.setdefault(patient_id, hospital) != hospital:
            several.add(patient_id)
    return len(several)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
