"""A labelled case as rows of the tables, checked before any transaction begins."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from clinical_data.case import Case, Finding, Patient, content_digest
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import GroundTruth, LabelledCase
from clinical_data.store.texts import NUL, to_stored

_MOST_MINUTES = 2**31 - 1  # 4,000 years; what an INTEGER column of PostgreSQL holds

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class CaseRows:
    """What is written of one case.

    Attributes:
        patient: the person.
        case: row of `cases` without the import, by column.
        content_hash: of the case.
        truth_hashes: step -> hash of its recorded labels.
        findings, truths, labels: rows of the tables `findings`, `ground_truth`, `ground_truth_labels`.
    """

    patient: Patient
    case: dict[str, Any]
    content_hash: str
    truth_hashes: dict[str, str]
    findings: list[Row]
    truths: list[Row]
    labels: list[Row]

    @property
    def case_id(self) -> str:
        """Id of the case."""
        return str(self.case["case_id"])

    @property
    def size(self) -> int:
        """Number of rows, about."""
        return 1 + len(self.findings)


def rows_of(labelled: LabelledCase) -> CaseRows:
    """Returns the rows of a case.

    Raises:
        BadInputError: a finding id occurs twice, a number or time is one that no database holds, or a text is no
            Unicode. The message names the case, and no value.
    """
    case = labelled.case
    if len({f.finding_id for f in case.findings}) != len(case.findings):
        raise BadInputError(f"case {case.case_id}: a finding id occurs twice")
    content_hash = case.content_hash
    hashes = {step: content_digest(truth) for step, truth in labelled.truth.items()}
    try:
        return CaseRows(
            patient=case.patient,
            case=_case_row(case, content_hash),
            content_hash=content_hash,
            truth_hashes=hashes,
            findings=[_finding_row(case.case_id, position, f) for position, f in enumerate(case.findings)],
            truths=[_truth_row(t, hashes[step]) for step, t in labelled.truth.items()],
            labels=list(_label_rows(labelled.truth.values())),
        )
    except UnicodeEncodeError:  # no `from`: the message of the cause holds the text
        raise BadInputError(f"case {case.case_id}: holds a text that is no Unicode") from None


def _case_row(case: Case, content_hash: str) -> dict[str, Any]:
    minutes = [*case.anchors.values(), *(e.start for e in case.encounters), *(e.end or 0 for e in case.encounters)]
    if any(abs(m) > _MOST_MINUTES for m in (*minutes, case.age or 0)):
        raise BadInputError(f"case {case.case_id}: a time or age is out of range")
    row = {
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
    _check_unicode(*(v for v in row.values() if isinstance(v, str)))
    person = case.patient
    ids = (case.case_id, case.source, case.source_id, person.patient_id, person.source, person.source_id, person.sex)
    if any(NUL in text for text in (*ids, *(f.finding_id for f in case.findings))):
        raise BadInputError(f"case {case.case_id!r}: an id holds a NUL character")
    return row


def _finding_row(case_id: str, position: int, finding: Finding) -> Row:
    code, pending = finding.code, finding.pending_from
    number, text = _value_columns(case_id, finding)
    for bound in (finding.low, finding.high):
        if bound is not None and not math.isfinite(bound):
            raise BadInputError(f"case {case_id}: finding {finding.finding_id} holds a number that is not finite")
    if max(abs(finding.charted), abs(finding.available), abs(pending or 0)) > _MOST_MINUTES:
        raise BadInputError(f"case {case_id}: finding {finding.finding_id} holds a time that is out of range")
    texts = (finding.kind.value, *map(to_stored, (code.system, code.code, code.display)))
    unit, flag, note = map(to_stored, (finding.unit, finding.flag, finding.note))
    version = None if code.version is None else to_stored(code.version)
    _check_unicode(finding.finding_id, *texts, version or "", text or "", unit, flag, note)
    return (
        case_id,
        position,
        finding.finding_id,
        *texts,
        version,
        number,
        text,
        unit,
        finding.low,
        finding.high,
        flag,
        finding.charted,
        finding.available,
        pending,
        int(finding.result_in_source),
        note,
    )


def _value_columns(case_id: str, finding: Finding) -> tuple[float | None, str | None]:
    value = finding.value
    if value is None:
        return None, None
    if isinstance(value, str):
        return None, to_stored(value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadInputError(f"case {case_id}: finding {finding.finding_id} holds a number that is not finite")
    altered = not isinstance(value, float) or (value == 0 and math.copysign(1, value) < 0)
    return number, json.dumps(value) if altered else None


def _truth_row(truth: GroundTruth, content_hash: str) -> Row:
    reason = to_stored(truth.absent_reason) or None
    _check_unicode(truth.step, reason or "")
    return truth.case_id, truth.step, reason, content_hash


def _label_rows(truths: Iterable[GroundTruth]) -> Iterable[Row]:
    for truth in truths:
        for position, label in enumerate(truth.labels):
            code = label.coding
            if max(abs(label.rank), abs(label.entered or 0)) > _MOST_MINUTES:
                raise BadInputError(f"case {truth.case_id}: a label of {truth.step} holds a number out of range")
            texts = tuple(map(to_stored, (code.system, code.code, code.display)))
            version = None if code.version is None else to_stored(code.version)
            row = to_stored(label.source_row)
            _check_unicode(*texts, version or "", row)
            yield (
                truth.case_id,
                truth.step,
                position,
                *texts,
                version,
                label.strength.value,
                label.rank,
                label.entered,
                row,
            )


def _check_unicode(*texts: str) -> None:
    "".join(texts).encode()  # a lone surrogate fails here, and not in the middle of a transaction


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
