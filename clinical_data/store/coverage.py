"""How far the recorded labels of a store reach: per source and step, by counting in the database."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from clinical_data.clocks import STEPS
from clinical_data.store.engine import reading
from clinical_data.store.tables import cases, ground_truth, ground_truth_labels


@dataclass(frozen=True, slots=True)
class Coverage:
    """Recorded labels of one step over the cases of one source.

    Attributes:
        cases: cases of the source.
        labelled: of these, with at least one label.
        patients: patients with a labelled case.
        strengths: strength of the principal label -> cases.
        absent: reason -> cases without a label.
    """

    source: str
    step: str
    cases: int
    labelled: int
    patients: int
    strengths: Counter[str]
    absent: Counter[str]


def coverage(engine: Engine) -> list[Coverage]:
    """Returns the coverage of every source and step, in order of source and of the workflow.

    Raises:
        StorageError: the database failed.
    """
    first = (
        select(ground_truth_labels.c.case_id, ground_truth_labels.c.step, ground_truth_labels.c.strength)
        .where(ground_truth_labels.c.position == 0)
        .subquery("principal")
    )
    same = (first.c.case_id == ground_truth.c.case_id) & (first.c.step == ground_truth.c.step)
    grouped = (cases.c.source, ground_truth.c.step)
    joined = ground_truth.join(cases, cases.c.case_id == ground_truth.c.case_id)
    by_reason = (
        select(*grouped, first.c.strength, ground_truth.c.absent_reason, func.count().label("number"))
        .select_from(joined.outerjoin(first, same))
        .group_by(*grouped, first.c.strength, ground_truth.c.absent_reason)
    )
    by_patient = (
        select(*grouped, func.count(cases.c.patient_id.distinct()).label("number"))
        .select_from(joined)
        .where(ground_truth.c.absent_reason.is_(None))
        .group_by(*grouped)
    )
    with reading(engine) as connection:
        counted = connection.execute(select(cases.c.source, func.count().label("number")).group_by(cases.c.source))
        total = {row.source: int(row.number) for row in counted}
        rows = connection.execute(by_reason).all()
        patients = {(r.source, r.step): r.number for r in connection.execute(by_patient)}
    strengths: dict[tuple[str, str], Counter[str]] = {}
    absent: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        key = (row.source, row.step)
        if row.strength is not None:
            strengths.setdefault(key, Counter())[row.strength] += row.number
        else:
            absent.setdefault(key, Counter())[row.absent_reason or "no label"] += row.number
    known = {step: n for n, step in enumerate(STEPS)}
    keys = sorted(strengths.keys() | absent.keys(), key=lambda k: (k[0], known.get(k[1], len(known)), k[1]))
    return [
        Coverage(
            source=source,
            step=step,
            cases=total[source],
            labelled=strengths.get((source, step), Counter()).total(),
            patients=patients.get((source, step), 0),
            strengths=strengths.get((source, step), Counter()),
            absent=absent.get((source, step), Counter()),
        )
        for source, step in keys
    ]
