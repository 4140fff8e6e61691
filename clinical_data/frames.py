"""Cases, findings and recorded labels as pandas DataFrames.

Example:

    from clinical_data.frames import cases_frame, findings_frame, labels_frame, open_store

    with open_store("sqlite:///wardstar.db") as store:
        case = store.get(store.case_ids(limit=1)[0])  # frozen objects: Case, Finding, Coding
        cases = cases_frame(store)  # one row per case
        train = store.case_ids(split="train")
        known = findings_frame(store, ids=train, as_of=6 * 60)  # what was known 6 h after the start
        labels = labels_frame(store, steps=["discharge_diagnosis"], icd=True)

    principal = labels[labels["rank"] == 1].merge(cases, on="case_id")
    print(principal.groupby("chapter").size().sort_values(ascending=False).head())
    print(known[known["kind"] == "laboratory"].groupby("display")["value_number"].describe())

All times are whole minutes from the start of the case (negative: before it). Missing is `pandas.NA`, never NaN. A frame
is built case by case, so that memory holds the frame, a batch of rows and one case.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from clinical_data.case import Case, Finding
from clinical_data.clocks import STEPS
from clinical_data.codes import icd_classes
from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase
from clinical_data.splits import split_of

if TYPE_CHECKING:
    from clinical_data.store.case_store import CaseStore

BATCH_ROWS = 50_000

ANCHORS = ("triage", "ed_arrival", "ed_departure", "admission", "end_of_stay")

CASE_COLUMNS = {
    "case_id": "string",
    "source": "string",
    "source_id": "string",
    "patient_id": "string",
    "split": "string",  # train, tuning or held-out, by patient
    "sex": "string",
    "age": "Int64",  # years; above 89 reads 90
    **dict.fromkeys(ANCHORS, "Int64"),  # minutes
    "admission_source": "string",
    "unit_type": "string",
    "hospital_id": "string",
    "unit_visit_number": "Int64",
    "findings": "Int64",  # number
}
FINDING_COLUMNS = {
    "case_id": "string",
    "finding_id": "string",
    "kind": "string",
    "system": "string",
    "code": "string",
    "display": "string",
    "version": "string",
    "value_number": "Float64",  # in `unit`
    "value_text": "string",
    "unit": "string",  # UCUM or the source's own
    "low": "Float64",  # reference range, in `unit`
    "high": "Float64",
    "flag": "string",
    "charted": "Int64",  # minutes
    "available": "Int64",  # minutes; the value could be known from then on
    "pending_from": "Int64",  # minutes; order or collection
    "result_in_source": "boolean",
    "note": "string",
}
LABEL_COLUMNS = {
    "case_id": "string",
    "step": "string",
    "rank": "Int64",  # 1 is the principal label
    "system": "string",
    "code": "string",
    "display": "string",
    "version": "string",
    "strength": "string",
    "entered": "Int64",  # minutes
    "source_row": "string",
    "absent_reason": "string",  # of a step without a label
}
ICD_COLUMNS = dict.fromkeys(("category", "ccsr", "block", "chapter", "mapped_to"), "string")


class CaseSource(Protocol):
    """What a store offers: ids in order, and cases by id."""

    def case_ids(self) -> list[str]:
        """Returns the ids of all cases, in order."""

    def cases(self, ids: list[str]) -> Iterator[Case]:
        """Yields the cases of these ids."""


class TruthSource(Protocol):
    """What a store offers of recorded labels."""

    def case_ids(self) -> list[str]:
        """Returns the ids of all cases, in order."""

    def truth(self, case_id: str) -> dict[str, GroundTruth]:
        """Returns the recorded labels of a case by step."""


@contextmanager
def open_store(url: str) -> Iterator[CaseStore]:
    """Opens a database of imported cases and closes it at the end of the `with` block.

    Args:
        url: `sqlite:///FILE` or `postgresql+psycopg://USER@HOST/NAME`, as `wardstar import --db` takes it.

    Raises:
        StorageError: missing or not readable. A database of an older version is brought up to date by any
            `wardstar` command.
    """
    from clinical_data.store.case_store import CaseStore
    from clinical_data.store.engine import open_engine

    engine = open_engine(url, create=False)
    try:
        yield CaseStore(engine)
    finally:
        engine.dispose()


def cases_frame(
    source: CaseSource | Iterable[Case | LabelledCase], *, ids: Collection[str] | None = None
) -> pd.DataFrame:
    """Returns one row per case, with the columns of `CASE_COLUMNS`.

    Args:
        source: a store, or cases in memory.
        ids: only these cases; None: all.
    """
    return _frame((_case_row(case) for case in _cases(source, ids)), CASE_COLUMNS)


def findings_frame(
    source: CaseSource | Iterable[Case | LabelledCase],
    *,
    ids: Collection[str] | None = None,
    as_of: int | None = None,
    kinds: Collection[str] | None = None,
) -> pd.DataFrame:
    """Returns one row per finding, with the columns of `FINDING_COLUMNS`, in order of case and availability.

    Args:
        source: a store, or cases in memory.
        ids: only these cases; None: all.
        as_of: only what could be known by this minute from the start of its case. None: everything, also what no
            step could have known. What a step hides besides (treatment before the treatment step) is not hidden here.
        kinds: only these kinds (`laboratory`, `vital`, ...); None: all.
    """
    rows = (
        _finding_row(case.case_id, finding)
        for case in _cases(source, ids)
        for finding in case.findings
        if (as_of is None or finding.available <= as_of) and (kinds is None or finding.kind in kinds)
    )
    return _frame(rows, FINDING_COLUMNS)


def labels_frame(
    source: TruthSource | Iterable[LabelledCase],
    *,
    ids: Collection[str] | None = None,
    steps: Sequence[str] | None = None,
    absent: bool = False,
    icd: bool = False,
) -> pd.DataFrame:
    """Returns one row per recorded label, with the columns of `LABEL_COLUMNS`, in order of case, step and rank.

    Labels are what the record showed later: never give them to what answers a step.

    Args:
        source: a store, or cases in memory.
        ids: only these cases; None: all.
        steps: only these steps; None: all.
        absent: also one row for each step without a label, with the reason and no rank.
        icd: also the columns of `ICD_COLUMNS`: the classes of an ICD label, `mapped_to` where ICD-9-CM was mapped.

    Raises:
        UsageError: no such step.
    """
    if unknown := sorted(set(steps or ()) - set(STEPS)):
        raise UsageError(f"no step named {unknown[0]}", hint=f"known: {', '.join(STEPS)}")
    wanted = STEPS if steps is None else steps
    rows = (
        row
        for case_id, truth in _truths(source, ids)
        for step in wanted
        if step in truth
        for row in _label_rows(case_id, truth[step], absent, icd)
    )
    return _frame(rows, LABEL_COLUMNS | (ICD_COLUMNS if icd else {}))


def _cases(source: CaseSource | Iterable[Case | LabelledCase], ids: Collection[str] | None) -> Iterator[Case]:
    if isinstance(source, Iterable):
        chosen = None if ids is None else set(ids)
        for one in source:
            case = one.case if isinstance(one, LabelledCase) else one
            if chosen is None or case.case_id in chosen:
                yield case
    else:
        yield from source.cases(source.case_ids() if ids is None else list(ids))


def _truths(
    source: TruthSource | Iterable[LabelledCase], ids: Collection[str] | None
) -> Iterator[tuple[str, dict[str, GroundTruth]]]:
    if isinstance(source, Iterable):
        chosen = None if ids is None else set(ids)
        for one in source:
            if chosen is None or one.case.case_id in chosen:
                yield one.case.case_id, one.truth
    else:
        for case_id in source.case_ids() if ids is None else ids:
            yield case_id, source.truth(case_id)


def _case_row(case: Case) -> tuple[Any, ...]:
    number = case.attributes.get("unit_visit_number", "")
    return (
        case.case_id,
        case.source,
        case.source_id,
        case.patient.patient_id,
        split_of(case.patient.source, case.patient.source_id),
        case.patient.sex,
        case.age,
        *(case.anchors.get(name) for name in ANCHORS),
        case.context.get("admission_source"),
        case.context.get("unit_type"),
        case.attributes.get("hospital_id"),
        int(number) if number.isdecimal() else None,
        len(case.findings),
    )


def _finding_row(case_id: str, finding: Finding) -> tuple[Any, ...]:
    text = isinstance(finding.value, str)
    return (
        case_id,
        finding.finding_id,
        finding.kind.value,
        finding.code.system,
        finding.code.code,
        finding.code.display,
        finding.code.version,
        None if text else finding.value,
        finding.value if text else None,
        finding.unit,
        finding.low,
        finding.high,
        finding.flag,
        finding.charted,
        finding.available,
        finding.pending_from,
        finding.result_in_source,
        finding.note,
    )


def _label_rows(case_id: str, truth: GroundTruth, absent: bool, icd: bool) -> Iterator[tuple[Any, ...]]:
    for label in truth.labels:
        own = (
            case_id,
            truth.step,
            label.rank,
            label.coding.system,
            label.coding.code,
            label.coding.display,
            label.coding.version,
            label.strength.value,
            label.entered,
            label.source_row,
            None,
        )
        yield own + (_icd_cells(label) if icd else ())
    if absent and not truth.labels:
        between = (None,) * (len(LABEL_COLUMNS) - 3)  # all but case, step and reason
        yield (case_id, truth.step, *between, truth.absent_reason) + ((None,) * len(ICD_COLUMNS) if icd else ())


def _icd_cells(label: Label) -> tuple[str | None, ...]:
    found = icd_classes(label.coding)
    return (None,) * len(ICD_COLUMNS) if found is None else tuple(getattr(found, name) for name in ICD_COLUMNS)


def _frame(rows: Iterable[tuple[Any, ...]], columns: dict[str, str]) -> pd.DataFrame:
    """Returns rows as a frame of these columns and dtypes, converted in batches; equal texts are held once."""
    batches, batch = [], []
    for row in rows:
        batch.append(tuple(sys.intern(cell) if type(cell) is str else cell for cell in row))
        if len(batch) == BATCH_ROWS:
            batches.append(_batch_frame(batch, columns))
            batch = []
    batches.append(_batch_frame(batch, columns))
    return batches[0] if len(batches) == 1 else pd.concat(batches, ignore_index=True)


def _batch_frame(rows: list[tuple[Any, ...]], columns: dict[str, str]) -> pd.DataFrame:
    cells = zip(*rows, strict=True) if rows else ((),) * len(columns)
    named = zip(columns.items(), cells, strict=True)
    return pd.DataFrame({name: pd.array(list(column), dtype=dtype) for (name, dtype), column in named})
