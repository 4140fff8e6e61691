"""Recorded labels of MIMIC-IV admissions; what is read here never becomes part of a case.

    triage               ed/triage.acuity of the first ED stay
    admission_diagnosis  rank 1 of ed/diagnosis of the last ED stay: billed after the visit, a proxy
    differential         that and the principal discharge diagnosis, a proxy
    workup, treatment    from the record itself (step_truth), without the drug orders that ended by the minute at which
                         they were to begin (prescriptions.stoptime): they were taken back and never given
    disposition          admissions.discharge_location of those who left alive
    discharge_diagnosis  diagnoses_icd, in the order of seq_num

Source: clinical.md, "Recorded label per step".
"""

from __future__ import annotations

from clinical_data.case import Case
from clinical_data.catalogue import Catalogue
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.sources.mimic_common import DIED, destination
from clinical_data.sources.mimic_findings import clean, icd
from clinical_data.sources.mimic_iv_findings import order_id
from clinical_data.sources.step_truth import acuity_label, every_step, treatment_labels, workup_labels
from clinical_data.sources.tables import Row


def truth(case: Case, rows: dict[str, list[Row]], loaded: set[str], catalogue: Catalogue) -> dict[str, GroundTruth]:
    """Returns the labels of all eight steps of a case, or why they are absent.

    Args:
        case: the case, complete.
        rows: its rows per feed.
        loaded: names of the tables that could be read.
        catalogue: the items of the work-up step.
    """
    final = _diagnoses(case, rows["truth_diagnoses"])
    first = _ed_diagnosis(rows["truth_ed_diagnoses"]) or _no_ed(rows, loaded, "diagnosis")
    return every_step(
        case,
        {
            "triage": _acuity(case, rows["truth_acuity"]) or _no_ed(rows, loaded, "triage"),
            "admission_diagnosis": first,
            "differential": first if isinstance(first, str) else _differential(first, final),
            "workup": workup_labels(case, catalogue),
            "treatment": treatment_labels(case, without={order_id(r["row_key"]) for r in rows["truth_cancelled"]}),
            "disposition": _disposition(case, rows["truth_outcome"]),
            "discharge_diagnosis": final
            or ("no diagnosis recorded" if "diagnoses_icd" in loaded else "table diagnoses_icd is missing or broken"),
        },
    )


def _no_ed(rows: dict[str, list[Row]], loaded: set[str], table: str) -> str:
    if table not in loaded or "edstays" not in loaded:
        return f"the ED module (ed/{table}) is not there"
    if not rows["edstays"]:
        return "no ED stay belongs to the admission"
    return f"the ED stay has no usable row in ed/{table}"


def _acuity(case: Case, rows: list[Row]) -> tuple[Label, ...]:
    for row in rows:
        if row["acuity"] in (1, 2, 3, 4, 5):
            return acuity_label(int(row["acuity"]), f"triage {row['stay_id']}", case.anchors.get("triage"))
    return ()


def _ed_diagnosis(rows: list[Row]) -> tuple[Label, ...]:
    """Returns rank 1 of the last ED stay that has one: the one before the admission."""
    for row in reversed(rows):
        if coding := icd(row["icd_code"], row["icd_version"], row["long_title"]):
            return (Label(coding, Strength.PROXY, 1, None, f"ed/diagnosis {row['stay_id']} 1"),)
    return ()


def _diagnoses(case: Case, rows: list[Row]) -> tuple[Label, ...]:
    found = []
    for row in rows:
        if coding := icd(row["icd_code"], row["icd_version"], row["long_title"]):
            found.append((coding, f"diagnoses_icd {case.source_id} {row['row_key']}"))
    return tuple(
        Label(coding, Strength.RECORDED_LATER, rank, None, row) for rank, (coding, row) in enumerate(found, start=1)
    )


def _differential(first: tuple[Label, ...], final: tuple[Label, ...]) -> tuple[Label, ...]:
    """Returns the ED's rank 1, and the principal diagnosis where it is another."""
    if not final or final[0].coding.code == first[0].coding.code:
        return first
    return (*first, Label(final[0].coding, Strength.PROXY, 2, None, final[0].source_row))


def _disposition(case: Case, rows: list[Row]) -> tuple[Label, ...] | str:
    row = rows[0]
    if clean(row["hospital_expire_flag"]) == "1":
        return DIED
    where = clean(row["discharge_location"])
    return destination(where, f"admissions {case.source_id}", case.anchors.get("end_of_stay"))
