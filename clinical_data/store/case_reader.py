"""Reads cases, without ground truth: what serves an open case needs no more than this module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypedDict

from sqlalchemy import Engine, Row, func, select

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient
from clinical_data.errors import UsageError
from clinical_data.store.engine import reading
from clinical_data.store.tables import cases, findings, patients


class CaseSummary(TypedDict):
    """One row of `wardstar cases`."""

    case_id: str
    source: str
    source_id: str
    patient_id: str
    split: str
    age: int | None
    sex: str
    findings: int


class CaseReader:
    """Read access to the cases of a store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def case_ids(self, source: str | None = None, split: str | None = None, limit: int | None = None) -> list[str]:
        """Returns the ids of the cases of a source and split (None: all), in order of id; at most `limit`."""
        query = select(cases.c.case_id).join(patients)
        if source is not None:
            query = query.where(cases.c.source == source)
        if split is not None:
            query = query.where(patients.c.split == split)
        with reading(self.engine) as connection:
            ids = sorted(connection.scalars(query))  # sorted here: databases differ in collation
        return ids[:limit]

    def get(self, case_id: str) -> Case:
        """Returns a case, equal to the one that was put.

        Raises:
            UsageError: no such case.
        """
        own = select(cases, patients.c.source.label("p_source"), patients.c.source_id.label("p_source_id"))
        own = own.add_columns(patients.c.sex).join(patients).where(cases.c.case_id == case_id)
        facts = select(findings).where(findings.c.case_id == case_id).order_by(findings.c.position)
        with reading(self.engine) as connection:
            row = connection.execute(own).one_or_none()
            if row is None:
                raise UsageError(f"no case {case_id}", hint="`wardstar cases` lists them")
            rows = connection.execute(facts).all()
        return Case(
            case_id=row.case_id,
            source=row.source,
            source_id=row.source_id,
            patient=Patient(row.patient_id, row.p_source, row.p_source_id, row.sex),
            age=row.age,
            encounters=tuple(Encounter(**e) for e in json.loads(row.encounters_json)),
            anchors=json.loads(row.anchors_json),
            context=json.loads(row.context_json),
            findings=tuple(_finding(r) for r in rows),
            attributes=json.loads(row.attributes_json),
        )

    def cases(self, ids: list[str]) -> Iterator[Case]:
        """Yields the cases of these ids, one at a time."""
        for case_id in ids:
            yield self.get(case_id)

    def split(self, case_id: str) -> str:
        """Returns the split of the case's patient.

        Raises:
            UsageError: no such case.
        """
        query = select(patients.c.split).join(cases).where(cases.c.case_id == case_id)
        with reading(self.engine) as connection:
            found = connection.scalar(query)
        if found is None:
            raise UsageError(f"no case {case_id}", hint="`wardstar cases` lists them")
        return str(found)

    def count(self) -> int:
        """Returns the number of cases."""
        with reading(self.engine) as connection:
            return connection.scalar(select(func.count()).select_from(cases)) or 0

    def sources(self) -> list[str]:
        """Returns the names of the sources that have cases, in order."""
        with reading(self.engine) as connection:
            return sorted(connection.scalars(select(cases.c.source).distinct()))

    def summaries(self) -> list[CaseSummary]:
        """Returns one row per case, in order of id."""
        number = (
            select(findings.c.case_id, func.count().label("number")).group_by(findings.c.case_id).subquery("numbers")
        )
        query = select(
            cases.c.case_id,
            cases.c.source,
            cases.c.source_id,
            cases.c.patient_id,
            patients.c.split,
            cases.c.age,
            patients.c.sex,
            func.coalesce(number.c.number, 0).label("number"),
        ).select_from(cases.join(patients).outerjoin(number, number.c.case_id == cases.c.case_id))
        with reading(self.engine) as connection:
            rows = connection.execute(query).all()
        return sorted(
            (
                CaseSummary(
                    case_id=r.case_id,
                    source=r.source,
                    source_id=r.source_id,
                    patient_id=r.patient_id,
                    split=r.split,
                    age=r.age,
                    sex=r.sex,
                    findings=r.number,
                )
                for r in rows
            ),
            key=lambda s: s["case_id"],
        )


def _value(number: float | None, text: str | None) -> float | str | None:
    if text is None:
        return number
    return text if number is None else json.loads(text)


def _finding(row: Row[tuple[object, ...]]) -> Finding:
    return Finding(
        finding_id=row.finding_id,
        kind=FindingKind(row.kind),
        code=Coding(row.system, row.code, row.display, row.version),
        value=_value(row.value_number, row.value_text),
        charted=row.charted,
        available=row.available,
        unit=row.unit,
        low=row.low,
        high=row.high,
        flag=row.flag,
        pending_from=row.pending_from,
        result_in_source=bool(row.result_in_source),
        note=row.note,
    )
