"""Writes a batch of cases within the caller's transaction: a query per table for what is stored, then bulk rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from clinical_data.case import Patient
from clinical_data.splits import HOSPITAL_SCHEME, PATIENT_SCHEME, hospital_split_of, split_of
from clinical_data.store import tables
from clinical_data.store.bulk import insert_rows
from clinical_data.store.case_rows import CaseRows

ADDED, CHANGED, UNCHANGED = "added", "changed", "unchanged"
HOSPITAL = "hospital_id"  # attribute of a case


def write_cases(connection: Connection, batch: Sequence[CaseRows], import_id: int | None = None) -> list[str]:
    """Stores cases of different ids; returns for each whether it was added, changed or unchanged.

    Args:
        connection: in a writing transaction.
        batch: the cases.
        import_id: the import that they belong to; None: cases that change belong to none.
    """
    hashes, truths = _stored_hashes(connection, [rows.case_id for rows in batch])
    outcomes, cases, labelled = [], [], []
    for rows in batch:
        same_case = hashes.get(rows.case_id) == rows.content_hash
        same_truth = truths.get(rows.case_id, {}) == rows.truth_hashes
        if not same_case:
            cases.append(rows)
        if not same_truth:
            labelled.append(rows)
        known = CHANGED if rows.case_id in hashes else ADDED
        outcomes.append(UNCHANGED if same_case and same_truth else known)
    _write_patients(connection, [rows.patient for rows in cases])
    former = _write_cases(connection, cases, set(hashes))
    _write_truth(connection, labelled)
    _write_hospital_splits(connection, former | {rows.patient.patient_id for rows in cases})
    own = tables.cases.c.case_id
    if import_id is None:
        written = [r.case_id for r, outcome in zip(batch, outcomes, strict=True) if outcome != UNCHANGED]
        connection.execute(update(tables.cases).where(own.in_(written)).values(import_id=None))
    else:
        ids = [rows.case_id for rows in batch]
        connection.execute(update(tables.cases).where(own.in_(ids)).values(import_id=import_id))
    return outcomes


def hospital_of(attributes_json: str) -> str:
    """Returns the hospital among a case's stored attributes; empty when there is none."""
    return str(json.loads(attributes_json).get(HOSPITAL, ""))


def _stored_hashes(connection: Connection, ids: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    own, truth = tables.cases.c, tables.ground_truth.c
    cases = connection.execute(select(own.case_id, own.content_hash).where(own.case_id.in_(ids)))
    hashes: dict[str, str] = {row.case_id: row.content_hash for row in cases}
    steps: dict[str, dict[str, str]] = {}
    query = select(truth.case_id, truth.step, truth.content_hash).where(truth.case_id.in_(list(hashes)))
    for case_id, step, content_hash in connection.execute(query):
        steps.setdefault(case_id, {})[step] = content_hash
    return hashes, steps


def _write_patients(connection: Connection, patients: Iterable[Patient]) -> None:
    """Writes the patients that are new or changed, with their split."""
    table, splits = tables.patients, tables.patient_splits
    wanted = {p.patient_id: p for p in patients}
    query = select(table).where(table.c.patient_id.in_(list(wanted)))
    stored = {r.patient_id: Patient(r.patient_id, r.source, r.source_id, r.sex) for r in connection.execute(query)}
    new = [p for key, p in wanted.items() if key not in stored]
    if new:
        connection.execute(insert(table), [asdict(p) for p in new])
        drawn = [(p.patient_id, split_of(p.source, p.source_id)) for p in new]
        rows = [{"scheme": PATIENT_SCHEME, "patient_id": key, "split": split} for key, split in drawn]
        connection.execute(insert(splits), rows)
    for patient in wanted.values():
        if patient.patient_id in stored and stored[patient.patient_id] != patient:
            key = table.c.patient_id == patient.patient_id
            connection.execute(update(table).where(key).values(asdict(patient)))
            split = split_of(patient.source, patient.source_id)
            own = (splits.c.scheme == PATIENT_SCHEME) & (splits.c.patient_id == patient.patient_id)
            connection.execute(update(splits).where(own).values(split=split))


def _write_cases(connection: Connection, cases: Sequence[CaseRows], known: Collection[str]) -> set[str]:
    """Writes cases with their findings in place of what was stored; returns the patients that they belonged to."""
    former: set[str] = set()
    own, found = tables.cases, tables.findings
    if changed := [rows for rows in cases if rows.case_id in known]:
        ids = [rows.case_id for rows in changed]
        former = set(connection.scalars(select(own.c.patient_id).where(own.c.case_id.in_(ids))))
        connection.execute(delete(found).where(found.c.case_id.in_(ids)))
        statement = update(own).where(own.c.case_id == bindparam("own_id"))
        connection.execute(statement, [{**rows.case, "own_id": rows.case_id} for rows in changed])
    if new := [rows.case for rows in cases if rows.case_id not in known]:
        connection.execute(insert(own), new)
    insert_rows(connection, found, [row for rows in cases for row in rows.findings])
    return former


def _write_truth(connection: Connection, cases: Sequence[CaseRows]) -> None:
    table = tables.ground_truth
    connection.execute(delete(table).where(table.c.case_id.in_([rows.case_id for rows in cases])))
    insert_rows(connection, table, [row for rows in cases for row in rows.truths])
    insert_rows(connection, tables.ground_truth_labels, [row for rows in cases for row in rows.labels])


def _write_hospital_splits(connection: Connection, patients: set[str]) -> None:
    """Puts patients into the split of the hospital of their first case (by id) that names one."""
    if not patients:
        return
    own, splits = tables.cases.c, tables.patient_splits
    query = select(own.patient_id, own.case_id, own.source, own.attributes_json)
    first: dict[str, tuple[str, str, str]] = {}
    query = query.where(own.patient_id.in_(sorted(patients)))
    for patient_id, case_id, source, attributes in connection.execute(query):
        hospital = hospital_of(attributes)
        if hospital and (patient_id not in first or case_id < first[patient_id][0]):
            first[patient_id] = (case_id, source, hospital)
    gone = (splits.c.scheme == HOSPITAL_SCHEME) & splits.c.patient_id.in_(sorted(patients))
    connection.execute(delete(splits).where(gone))
    rows: list[dict[str, Any]] = [
        {"scheme": HOSPITAL_SCHEME, "patient_id": patient_id, "split": hospital_split_of(source, hospital)}
        for patient_id, (_, source, hospital) in sorted(first.items())
    ]
    if rows:
        connection.execute(insert(splits), rows)
