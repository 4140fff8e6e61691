"""Reads cases, without ground truth: what serves an open case needs no more than this module."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from sqlalchemy import Engine, FromClause, Row, Select, and_, func, or_, select

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient
from clinical_data.errors import UsageError
from clinical_data.splits import PATIENT_SCHEME, check_scheme
from clinical_data.store.engine import reading
from clinical_data.store.tables import cases, findings, patient_splits, patients
from clinical_data.store.texts import from_stored

_AT_ONCE = 500  # cases of one query


class CaseSummary(TypedDict):
    """One row of `wardstar cases`; `split` is empty where the scheme has none for the patient."""

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

    def case_ids(
        self,
        source: str | None = None,
        split: str | None = None,
        limit: int | None = None,
        *,
        scheme: str = PATIENT_SCHEME,
    ) -> list[str]:
        """Returns the ids of the cases of a source and split (None: all), in order of id; at most `limit`.

        Raises:
            UsageError: no such scheme of splits.
        """
        query = select(cases.c.case_id).select_from(_with_splits(scheme))
        if source is not None:
            query = query.where(cases.c.source == source)
        if split is not None:
            query = query.where(patient_splits.c.split == split)
        with reading(self.engine) as connection:
            ids = sorted(connection.scalars(query))  # sorted here: databases differ in collation
        return ids[:limit]

    def get(self, case_id: str, until: Callable[[Case], int | None] | None = None) -> Case:
        """Returns a case, equal to the one that was put.

        Args:
            case_id: the case.
            until: returns the latest minute that is of interest, from the case without its findings. What was neither
                available nor begun by then is not read, which a chart cut at that minute or earlier cannot tell; None
                reads no finding.

        Raises:
            UsageError: no such case.
        """
        own = _with_patients().where(cases.c.case_id == case_id)
        facts = select(findings).where(findings.c.case_id == case_id).order_by(findings.c.position)
        with reading(self.engine) as connection:
            row = connection.execute(own).one_or_none()
            if row is None:
                raise UsageError(f"no case {case_id}", hint="`wardstar cases` lists them")
            bare = _bare(row)
            if until is not None:
                minute = until(bare)
                if minute is None:
                    return bare
                facts = facts.where(or_(findings.c.available <= minute, findings.c.pending_from <= minute))
            rows = connection.execute(facts).all()
        return replace(bare, findings=tuple(_finding(r) for r in rows))

    def without_findings(self, ids: Sequence[str], damaged: Callable[[str, Exception], None]) -> Iterator[Case]:
        """Yields the cases of these ids, in their order, without their findings: fast, for counting.

        Args:
            ids: the cases.
            damaged: called with id and error of a case that cannot be read; the others follow.

        Raises:
            UsageError: no such case.
        """
        own = _with_patients()
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            with reading(self.engine) as connection:
                rows = {r.case_id: r for r in connection.execute(own.where(cases.c.case_id.in_(some)))}
            for case_id in some:
                if case_id not in rows:
                    raise UsageError(f"no case {case_id}", hint="`wardstar cases` lists them")
                try:
                    case = _bare(rows[case_id])
                except Exception as error:  # what a damaged row raises is anyone's guess
                    damaged(case_id, error)
                    continue
                yield case

    def ids_of(self, case_id: str) -> tuple[str, str, str]:
        """Returns source, source id and patient id of a case whatever else its row holds; empty where there is none."""
        query = select(cases.c.source, cases.c.source_id, cases.c.patient_id).where(cases.c.case_id == case_id)
        with reading(self.engine) as connection:
            row = connection.execute(query).one_or_none()
        return ("", "", "") if row is None else (row.source, row.source_id, row.patient_id)

    def cases(self, ids: list[str]) -> Iterator[Case]:
        """Yields the cases of these ids, one at a time."""
        for case_id in ids:
            yield self.get(case_id)

    def split(self, case_id: str, *, scheme: str = PATIENT_SCHEME) -> str:
        """Returns the split of the case's patient.

        Raises:
            UsageError: no such scheme or case, or the scheme has no split for the patient (no hospital is recorded).
        """
        query = select(cases.c.case_id, patient_splits.c.split).select_from(_with_splits(scheme))
        with reading(self.engine) as connection:
            found = connection.execute(query.where(cases.c.case_id == case_id)).one_or_none()
        if found is None:
            raise UsageError(f"no case {case_id}", hint="`wardstar cases` lists them")
        if found.split is None:
            raise UsageError(f"case {case_id} has no split in the scheme {scheme}")
        return str(found.split)

    def split_counts(self, scheme: str = PATIENT_SCHEME) -> dict[str, int]:
        """Returns the number of patients per split, in order of name.

        Raises:
            UsageError: no such scheme.
        """
        query = select(patient_splits.c.split, func.count()).where(patient_splits.c.scheme == check_scheme(scheme))
        with reading(self.engine) as connection:
            return dict(sorted((split, number) for split, number in connection.execute(query.group_by("split"))))

    def count(self) -> int:
        """Returns the number of cases."""
        with reading(self.engine) as connection:
            return connection.scalar(select(func.count()).select_from(cases)) or 0

    def sources(self) -> list[str]:
        """Returns the names of the sources that have cases, in order."""
        with reading(self.engine) as connection:
            return sorted(connection.scalars(select(cases.c.source).distinct()))

    def summaries(self, *, scheme: str = PATIENT_SCHEME) -> list[CaseSummary]:
        """Returns one row per case, in order of id.

        Raises:
            UsageError: no such scheme of splits.
        """
        number = (
            select(findings.c.case_id, func.count().label("number")).group_by(findings.c.case_id).subquery("numbers")
        )
        query = select(
            cases.c.case_id,
            cases.c.source,
            cases.c.source_id,
            cases.c.patient_id,
            func.coalesce(patient_splits.c.split, "").label("split"),
            cases.c.age,
            patients.c.sex,
            func.coalesce(number.c.number, 0).label("number"),
        ).select_from(
            _with_splits(scheme)
            .join(patients, patients.c.patient_id == cases.c.patient_id)
            .outerjoin(number, number.c.case_id == cases.c.case_id)
        )
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


def _with_patients() -> Select[Any]:
    """Returns the query of cases with the columns of their patients, as `_bare` reads them."""
    own = select(cases, patients.c.source.label("p_source"), patients.c.source_id.label("p_source_id"))
    return own.add_columns(patients.c.sex).join(patients)


def _bare(row: Row[tuple[object, ...]]) -> Case:
    """Returns the case of a row without its findings."""
    return Case(
        case_id=row.case_id,
        source=row.source,
        source_id=row.source_id,
        patient=Patient(row.patient_id, row.p_source, row.p_source_id, row.sex),
        age=row.age,
        encounters=tuple(Encounter(**e) for e in json.loads(row.encounters_json)),
        anchors=json.loads(row.anchors_json),
        context=json.loads(row.context_json),
        findings=(),
        attributes=json.loads(row.attributes_json),
    )


def _with_splits(scheme: str) -> FromClause:
    """Returns cases joined to their patients' splits of a scheme, those without a split included."""
    own = and_(patient_splits.c.patient_id == cases.c.patient_id, patient_splits.c.scheme == check_scheme(scheme))
    return cases.outerjoin(patient_splits, own)


def _value(number: float | None, text: str | None) -> float | str | None:
    if text is None:
        return number
    return from_stored(text) if number is None else json.loads(text)


def _finding(row: Row[tuple[object, ...]]) -> Finding:
    return Finding(
        finding_id=row.finding_id,
        kind=FindingKind(row.kind),
        code=Coding(
            from_stored(row.system),
            from_stored(row.code),
            from_stored(row.display),
            None if row.version is None else from_stored(row.version),
        ),
        value=_value(row.value_number, row.value_text),
        charted=row.charted,
        available=row.available,
        unit=from_stored(row.unit),
        low=row.low,
        high=row.high,
        flag=from_stored(row.flag),
        pending_from=row.pending_from,
        result_in_source=bool(row.result_in_source),
        note=from_stored(row.note),
    )
