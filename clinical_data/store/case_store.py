"""Writes cases with their truth, imports and quarantine; reads them again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from clinical_data.case import Case, Finding, Patient
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import GroundTruth, LabelledCase
from clinical_data.sources import Quarantined
from clinical_data.splits import split_of
from clinical_data.store import tables
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.engine import reading, writing
from clinical_data.store.truth_store import TruthStore, replace_truth, stored_hashes, truth_hash

ADDED, CHANGED, UNCHANGED = "added", "changed", "unchanged"

# A batch is one transaction. The second bound keeps memory flat when single cases are large.
BATCH_CASES = 200
BATCH_FINDINGS = 50_000
_QUARANTINE_BATCH = 500


class CaseStore(CaseReader):
    """Cases, truth, imports and quarantine of one database.

    Putting is idempotent: a case whose content is stored already is left alone. A case is visible whole or not at
    all, because it is written in one transaction.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._truth = TruthStore(engine)
        self._waiting: list[dict[str, Any]] = []

    def put(self, labelled: LabelledCase) -> str:
        """Stores one case with its truth; returns `added`, `changed` or `unchanged`.

        Raises:
            BadInputError: a finding id occurs twice, or a number is not finite.
            StorageError: the database failed; nothing of the case is stored.
        """
        with writing(self.engine) as connection:
            return _put(connection, labelled)

    def put_many(self, labelled: Iterable[LabelledCase]) -> Counter[str]:
        """Stores cases in batches of one transaction each; returns how many were added, changed, unchanged.

        Raises:
            BadInputError, StorageError: as `put`; earlier batches stay, the failing one leaves nothing.
        """
        done: Counter[str] = Counter()
        batch: list[LabelledCase] = []
        size = 0
        for one in labelled:
            batch.append(one)
            size += len(one.case.findings)
            if len(batch) >= BATCH_CASES or size >= BATCH_FINDINGS:
                done += self._write_batch(batch)
                batch, size = [], 0
        return done + self._write_batch(batch)

    def truth(self, case_id: str) -> dict[str, GroundTruth]:
        """Returns the truth of a case per step name."""
        return self._truth.truth(case_id)

    def truth_of_step(self, step: str) -> dict[str, GroundTruth]:
        """Returns the truth of one step per case id."""
        return self._truth.truth_of_step(step)

    def begin_import(self, source: str, path_name: str) -> int:
        """Notes that an import has begun; returns its id."""
        row = {"source": source, "path_name": path_name, "started": _now()}
        with writing(self.engine) as connection:
            key = connection.execute(insert(tables.imports).values(row)).inserted_primary_key
        if key is None:  # never with an INTEGER primary key
            raise AssertionError("import row without a key")
        return int(key[0])

    def finish_import(self, import_id: int, counts: dict[str, int] | None = None) -> None:
        """Notes that an import has ended, with what it counted."""
        self._flush_quarantine()
        values = {"finished": _now(), "counts_json": json.dumps(counts or {}, sort_keys=True)}
        with writing(self.engine) as connection:
            connection.execute(update(tables.imports).where(tables.imports.c.import_id == import_id).values(values))

    def quarantine(self, import_id: int, row: Quarantined) -> None:
        """Notes a row that could not be used. Written in batches, at latest by `finish_import`."""
        self._waiting.append({"import_id": import_id, **asdict(row)})
        if len(self._waiting) >= _QUARANTINE_BATCH:
            self._flush_quarantine()

    def quarantined(self, import_id: int) -> list[Quarantined]:
        """Returns the rows that an import could not use, in the order in which they were met."""
        self._flush_quarantine()
        held = tables.quarantine
        query = select(held).where(held.c.import_id == import_id).order_by(held.c.quarantine_id)
        with reading(self.engine) as connection:
            return [Quarantined(r.file, r.line, r.reason, r.resource) for r in connection.execute(query)]

    def _write_batch(self, batch: list[LabelledCase]) -> Counter[str]:
        self._flush_quarantine()
        if not batch:
            return Counter()
        with writing(self.engine) as connection:
            return Counter(_put(connection, one) for one in batch)

    def _flush_quarantine(self) -> None:
        if self._waiting:
            with writing(self.engine) as connection:
                connection.execute(insert(tables.quarantine), self._waiting)
            self._waiting = []


def _put(connection: Connection, labelled: LabelledCase) -> str:
    case = labelled.case
    hash_now = case.content_hash
    hash_then = connection.scalar(select(tables.cases.c.content_hash).where(tables.cases.c.case_id == case.case_id))
    truths_now = {step: truth_hash(t) for step, t in labelled.truth.items()}
    same_truth = hash_then is not None and stored_hashes(connection, case.case_id) == truths_now
    if hash_then == hash_now and same_truth:
        return UNCHANGED
    if hash_then != hash_now:
        _put_patient(connection, case.patient)
        _put_case(connection, case, hash_now, known=hash_then is not None)
    if not same_truth:
        replace_truth(connection, case.case_id, labelled.truth.values())
    return ADDED if hash_then is None else CHANGED


def _put_patient(connection: Connection, patient: Patient) -> None:
    table = tables.patients
    row = {**asdict(patient), "split": split_of(patient.source, patient.source_id)}
    key = table.c.patient_id == patient.patient_id
    if connection.scalar(select(table.c.patient_id).where(key)) is None:
        connection.execute(insert(table).values(row))
    else:
        connection.execute(update(table).where(key).values(row))


def _put_case(connection: Connection, case: Case, content_hash: str, *, known: bool) -> None:
    rows = [_finding_row(case.case_id, position, f) for position, f in enumerate(case.findings)]
    if len({f.finding_id for f in case.findings}) != len(rows):
        raise BadInputError(f"case {case.case_id}: a finding id occurs twice")
    own = {
        "case_id": case.case_id,
        "source": case.source,
        "source_id": case.source_id,
        "patient_id": case.patient.patient_id,
        "age": case.age,
        "encounters_json": _json([asdict(e) for e in case.encounters]),
        "anchors_json": _json(case.anchors),
        "context_json": _json(case.context),
        "attributes_json": _json(case.attributes),
        "content_hash": content_hash,
    }
    if known:
        connection.execute(delete(tables.findings).where(tables.findings.c.case_id == case.case_id))
        connection.execute(update(tables.cases).where(tables.cases.c.case_id == case.case_id).values(own))
    else:
        connection.execute(insert(tables.cases).values(own))
    if rows:
        connection.execute(insert(tables.findings), rows)


def _finding_row(case_id: str, position: int, finding: Finding) -> dict[str, Any]:
    numbers = [v for v in (finding.value, finding.low, finding.high) if isinstance(v, int | float)]
    if not all(math.isfinite(v) for v in numbers):
        raise BadInputError(f"case {case_id}: finding {finding.finding_id} holds a number that is not finite")
    number, text = _value_columns(finding.value)
    return {
        "case_id": case_id,
        "position": position,
        "finding_id": finding.finding_id,
        "kind": finding.kind.value,
        "system": finding.code.system,
        "code": finding.code.code,
        "display": finding.code.display,
        "version": finding.code.version,
        "value_number": number,
        "value_text": text,
        "unit": finding.unit,
        "low": finding.low,
        "high": finding.high,
        "flag": finding.flag,
        "charted": finding.charted,
        "available": finding.available,
        "pending_from": finding.pending_from,
        "result_in_source": int(finding.result_in_source),
        "note": finding.note,
    }


def _value_columns(value: float | str | None) -> tuple[float | None, str | None]:
    if value is None or isinstance(value, str):
        return None, value
    altered = not isinstance(value, float) or (value == 0 and math.copysign(1, value) < 0)
    return float(value), json.dumps(value) if altered else None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
