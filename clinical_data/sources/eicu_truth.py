"""The recorded answers of an eICU stay, step by step; nothing of it ever reaches a case.

Source: clinical.md, "Recorded label per step", column eICU.
"""

from __future__ import annotations

from clinical_data.case import Case, Coding, make_finding_id
from clinical_data.catalogue import Catalogue
from clinical_data.clocks import DAY, clock_minute
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.sources.eicu_findings import order
from clinical_data.sources.eicu_make import SOURCE
from clinical_data.sources.eicu_names import clean
from clinical_data.sources.eicu_tables import DISCHARGE, ORDERS
from clinical_data.sources.step_truth import (
    AFTER_END,
    disposition_label,
    every_step,
    treatment_labels,
    workup_labels,
)
from clinical_data.sources.tables import Row

Answer = tuple[Label, ...] | str

_DIAGNOSIS = "wardstar:eicu/diagnosis"

# patient.unitdischargelocation -> destination. A telemetry bed is a monitored one, as in a step-down unit.
_DESTINATIONS = {
    "Floor": "ward",
    "Acute Care/Floor": "ward",
    "Telemetry": "step_down",
    "Step-Down Unit (SDU)": "step_down",
    "ICU": "other_icu",
    "Other ICU": "other_icu",
    "Home": "home",
    "Skilled Nursing Facility": "facility",
    "Nursing Home": "facility",
    "Rehabilitation": "facility",
    "Other Hospital": "other_hospital",
    "Other Internal": "other",
    "Other External": "other",
    "Other": "other",
}
# Tables from which the answer of a step can come; with none of them there is none.
_NEEDS = {
    "admission_diagnosis": ("admissionDx",),
    "differential": ("diagnosis",),
    "workup": ("lab", "customLab", "microLab", "treatment"),
    "treatment": ("medication", "infusiondrug", "treatment"),
    "discharge_diagnosis": ("diagnosis",),
}


def recorded_truth(
    case: Case, rows: dict[str, list[Row]], loaded: set[str], catalogue: Catalogue
) -> dict[str, GroundTruth]:
    """Returns the recorded labels of a stay for all eight steps, or the reasons why there are none.

    Args:
        case: the stay.
        rows: rows of admissionDx, diagnosis, orders that only the label counts, and the end of the stay, by feed.
        loaded: names of the tables that could be read.
        catalogue: what can be requested, for the work-up.
    """
    diagnoses = sorted(rows.get("diagnosis", []), key=lambda r: (r["diagnosisoffset"], r["row_key"]))
    given: dict[str, Answer] = {
        "triage": "eICU records no triage",
        "admission_diagnosis": _admission(case, rows.get("admissionDx", [])),
        "differential": _differential(diagnoses),
        "workup": workup_labels(case, catalogue),
        "treatment": _treatment(case, rows.get(ORDERS, [])),
        "disposition": _disposition(rows[DISCHARGE]),
        "discharge_diagnosis": _discharge(diagnoses),
    }
    for step, tables in _NEEDS.items():
        if not loaded.intersection(tables) and given[step] != AFTER_END:
            named = f"table {tables[0]} is" if len(tables) == 1 else f"the tables {', '.join(tables)} are"
            given[step] = f"{named} missing or could not be read"
    return every_step(case, given)


def _treatment(case: Case, orders: list[Row]) -> Answer:
    """Returns the newly started classes: with orders whose name only other orders tell, and without cancelled ones.

    Of the demo's orders 40 percent have no name; left out, they make a class that ran since the first day seem new.
    """
    more = [found for row in orders if not row["cancelled"] for found in order(row)]
    without = {make_finding_id(SOURCE, "medication", str(row["row_key"])) for row in orders if row["cancelled"]}
    return treatment_labels(case, more=more, without=without)


def _admission(case: Case, rows: list[Row]) -> Answer:
    """Returns the APACHE admission diagnosis: the term below `All Diagnosis`, keyed by operative|organ system|term.

    One entered by the clock of its step counts as recorded at that time.
    """
    clock = clock_minute(case, "admission_diagnosis") or 0
    labels: list[Label] = []
    for row in sorted(rows, key=lambda r: (r["admitdxenteredoffset"], r["row_key"])):
        # admission diagnosis|All Diagnosis|Non-operative|Diagnosis|Cardiovascular|Sepsis, pulmonary
        parts = [clean(part) for part in row["admitdxpath"].split("|", 5)]
        if len(parts) == 6 and parts[1] == "All Diagnosis" and parts[3] == "Diagnosis":
            entered = row["admitdxenteredoffset"]
            labels.append(
                Label(
                    coding=Coding("wardstar:eicu/admissiondx", "|".join((parts[2], parts[4], parts[5])), parts[5]),
                    strength=Strength.RECORDED_AT_TIME if entered <= clock else Strength.RECORDED_LATER,
                    rank=len(labels) + 1,
                    entered=entered,
                    source_row=f"admissionDx {row['row_key']}",
                )
            )
    return tuple(labels) or "no admission diagnosis recorded"


def _differential(rows: list[Row]) -> Answer:
    """Returns the distinct Primary and Major diagnoses of the first day, in order of entry.

    They are a problem list, no list of rival explanations: a proxy.
    """
    first: dict[str, Row] = {}
    for row in rows:
        if row["diagnosispriority"] in ("Primary", "Major") and row["diagnosisoffset"] <= DAY:
            first.setdefault(row["diagnosisstring"], row)
    labels = tuple(_diagnosis(row, Strength.PROXY, rank) for rank, row in enumerate(first.values(), start=1))
    return labels or "no Primary or Major diagnosis entered in the first 24 hours"


def _discharge(rows: list[Row]) -> Answer:
    """Returns the one Primary diagnosis that was active at unit discharge."""
    rows = [r for r in rows if r["diagnosispriority"] == "Primary" and r["activeupondischarge"] == "True"]
    if not rows:
        return "no Primary diagnosis active at unit discharge"
    if len({r["diagnosisstring"] for r in rows}) > 1:
        return "several Primary diagnoses active at unit discharge"
    return (_diagnosis(rows[0], Strength.RECORDED_AT_TIME, 1),)


def _diagnosis(row: Row, strength: Strength, rank: int) -> Label:
    text = row["diagnosisstring"]
    return Label(
        coding=Coding(_DIAGNOSIS, text, clean(text.rpartition("|")[2])),
        strength=strength,
        rank=rank,
        entered=row["diagnosisoffset"],
        source_row=f"diagnosis {row['row_key']}",
    )


def _disposition(rows: list[Row]) -> Answer:
    """Returns where a survivor went who stayed longer than a day."""
    row = rows[0]
    end, place = row["unitdischargeoffset"], clean(row["unitdischargelocation"])
    if end is None:
        return "the record has no end of the stay"
    if end <= DAY:
        return AFTER_END
    if clean(row["unitdischargestatus"]) == "Expired" or place == "Death":
        return "the patient died in the unit"
    if place not in _DESTINATIONS:
        return "no known destination recorded"
    return disposition_label(_DESTINATIONS[place], f"patient {row['row_key']}", end)
