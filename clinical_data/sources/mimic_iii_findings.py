"""Turns rows of MIMIC-III into findings: what was seen, its value, and from when it could be known.

A builder gets one row (of microbiologyevents: the rows of one specimen) with minutes from admission: `charted`
(observed, collected, begun; rounded down), `taken` (the same, rounded up) and `stored` (entered; rounded up). An empty
list means that the row says nothing for the chart. No builder sees how long something lasted or when it ended.

MIMIC-III has no time of the result of a laboratory test or culture: these count as known after the lag of their kind.
Of a prescription only the day is known: it counts from the end of its first day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clinical_data.case import PRESENT, Coding, Finding, FindingKind
from clinical_data.clocks import CULTURE_LAG, LAB_LAG, REPORT_LAG
from clinical_data.sources import mimic_iii_items, mimic_iv_items
from clinical_data.sources.mimic_findings import (
    BEDSIDE_LAG,
    DRUG_NAME,
    FORMULARY,
    ITEMS,
    LABS,
    PROCEDURE_LAG,
    cancelled,
    clean,
    earlier_admission,
    earlier_diagnosis,
    icd,
    known,
    make,
    number_of,
    number_or_text,
)
from clinical_data.sources.mimic_iii_reports import findings_of
from clinical_data.sources.tables import Row

SOURCE = "mimic-iii"
OWN = "wardstar:mimic-iii"


def lab(row: Row) -> list[Finding]:
    """Returns the laboratory result of a labevents row: the number, or the text where that says more (`<0.01`).

    One that never came is a fact without a result: that the sample was taken was known all the same.
    """
    text, number = clean(row["value"]), number_of(row["valuenum"])
    value: float | str | None = number_or_text(text) if text else number
    if isinstance(value, float) and number is not None:
        value = number
    if str(value).upper().startswith("HOLD"):
        return []
    name, fluid = clean(row["label"]) or str(row["itemid"]), clean(row["fluid"]).lower()
    flag, loinc = clean(row["flag"]), clean(row["loinc_code"])
    counted = isinstance(value, float) or str(value).startswith(("<", ">"))
    return make(
        SOURCE, "LABEVENTS", (row["row_key"],), FindingKind.LABORATORY,
        Coding(LABS, str(row["itemid"]), name if fluid in ("", "blood") else f"{name}, {fluid}"), value,
        row["charted"], known(row, LAB_LAG), unit=clean(row["valueuom"]) if counted else "",
        flag={"abnormal": "A", "delta": ""}.get(flag, flag), pending_from=row["taken"],
        note=f"LOINC {loinc}" if loinc else "",
    )  # fmt: skip


def culture(rows: Sequence[Row]) -> list[Finding]:
    """Returns the culture of one specimen: what grew, and what it is susceptible to; pending from its collection.

    One that was cancelled gives no result.
    """
    first = rows[0]
    grown: dict[str, dict[str, str]] = {}
    done = [row for row in rows if not cancelled(clean(row["org_name"]))]
    for row in done:
        if organism := clean(row["org_name"]).lower():
            tested = grown.setdefault(organism, {})
            if drug := clean(row["ab_name"]).lower():
                tested[drug] = clean(row["interpretation"]) or "tested"
    said = [
        name + (f" ({', '.join(f'{drug} {answer}' for drug, answer in sorted(tested.items()))})" if tested else "")
        for name, tested in sorted(grown.items())
    ]
    specimen = clean(first["spec_type_desc"]) or str(first["spec_itemid"] or "specimen")
    return make(
        SOURCE, "MICROBIOLOGYEVENTS", (first["case_key"], specimen, first["charted"]), FindingKind.MICROBIOLOGY,
        Coding(f"{OWN}/microbiologyevents", specimen, f"culture, {specimen.lower()}"),
        ("; ".join(said) or "no organism recorded") if done else None, first["charted"], known(first, CULTURE_LAG),
        pending_from=first["taken"],
    )  # fmt: skip


def order(row: Row) -> list[Finding]:
    """Returns the drug order of a prescriptions row, known from the end of its first day."""
    drug, formulary = clean(row["drug"]), clean(row["formulary_drug_cd"])
    if not drug:
        return []
    coding = Coding(FORMULARY, formulary, drug) if formulary else Coding(DRUG_NAME, drug, drug)
    how = clean(row["route"]) or "ordered"
    return make(
        SOURCE, "PRESCRIPTIONS", (row["row_key"],), FindingKind.TREATMENT, coding, how, row["charted"], known(row, 0)
    )


def procedure(row: Row) -> list[Finding]:
    """Returns what a procedureevents_mv row says was done: a test without its result, or a treatment."""
    item = row["itemid"]
    if item in mimic_iv_items.NOT_SHOWN:
        return []
    kind = mimic_iv_items.done_kind(item)
    coding = Coding(ITEMS, str(item), clean(row["label"]) or str(item))
    return make(
        SOURCE, "PROCEDUREEVENTS_MV", (row["row_key"],), kind or FindingKind.TREATMENT, coding,
        None if kind else "done", row["charted"], known(row, PROCEDURE_LAG),
    )  # fmt: skip


def metavision_input(row: Row) -> list[Finding]:
    """Returns what an order of inputevents_mv began to give: a drug, a fluid, a feed."""
    return _input("INPUTEVENTS_MV", row)


def carevue_input(row: Row) -> list[Finding]:
    """Returns what an order of inputevents_cv began to give."""
    return _input("INPUTEVENTS_CV", row)


def _input(table: str, row: Row) -> list[Finding]:
    coding = Coding(ITEMS, str(row["itemid"]), clean(row["label"]) or str(row["itemid"]))
    given = clean(row["given"]) or "given"
    return make(
        SOURCE, table, (row["row_key"],), FindingKind.TREATMENT, coding, given, row["charted"],
        known(row, BEDSIDE_LAG),
    )  # fmt: skip


def charted(row: Row) -> list[Finding]:
    """Returns the vital sign or examination of a chartevents row; one marked as an error gives none."""
    item, label = row["itemid"], clean(row["label"])
    kind = mimic_iii_items.charted_kind(item, label)
    if kind is None or row["error"]:
        return []
    number, text, unit = number_of(row["valuenum"]), clean(row["value"]), mimic_iii_items.unit_of(item)
    value: float | str | None = number if kind is FindingKind.VITAL and unit else text or number
    if value is None:
        return []
    return make(
        SOURCE, "CHARTEVENTS", (row["row_key"],), kind, Coding(ITEMS, str(item), label or str(item)), value,
        row["charted"], known(row, BEDSIDE_LAG), unit=unit if isinstance(value, float) else "",
    )  # fmt: skip


def report(row: Row) -> list[Finding]:
    """Returns what a report of radiology, ECG or echocardiography says was seen; pending from the examination.

    One that gives no time but a day is known at the end of that day.
    """
    if clean(row["iserror"]) == "1":
        return []
    category, named = row["category"], clean(row["description"])
    table = "radiology" if category == "Radiology" else category.lower()
    display = (
        named
        if category == "Radiology" and named
        else {"ECG": "electrocardiogram", "Echo": "echocardiogram"}.get(category, "radiology report")
    )
    value = findings_of(category, row["text"] or "") or None
    return make(
        SOURCE, "NOTEEVENTS", (row["row_key"],), FindingKind.IMAGING,
        Coding(f"{OWN}/{table}", named.upper() or "REPORT", display), value, row["charted"],
        known(row, 0 if row["dated"] else REPORT_LAG), pending_from=None if row["dated"] else row["taken"],
    )  # fmt: skip


def service(row: Row) -> list[Finding]:
    """Returns the service of a services row; it names a specialty, and is hidden until the treatment step."""
    name = clean(row["curr_service"])
    coding = Coding(f"{OWN}/services", name, f"under the care of service {name}")
    return _moved("SERVICES", row, coding) if name else []


def unit_stay(row: Row) -> list[Finding]:
    """Returns the intensive care unit that a transfers row moves to; hidden until the treatment step."""
    unit = clean(row["curr_careunit"])
    return _moved("TRANSFERS", row, Coding(f"{OWN}/transfers", unit, f"moved to {unit}")) if unit else []


def _moved(table: str, row: Row, coding: Coding) -> list[Finding]:
    key = (row["row_key"],)
    return make(SOURCE, table, key, FindingKind.TREATMENT, coding, PRESENT, row["charted"], known(row, 0))


def _earlier_admission(row: Row) -> list[Finding]:
    return earlier_admission(SOURCE, "ADMISSIONS", row)


def _earlier_diagnosis(row: Row) -> list[Finding]:
    coding = icd(row["row_key"], 9, row["long_title"])
    return earlier_diagnosis(SOURCE, "DIAGNOSES_ICD", (row["row_key"],), coding, row)


BUILDERS: dict[str, Callable[[Row], list[Finding]]] = {
    "labevents": lab,
    "prescriptions": order,
    "procedureevents_mv": procedure,
    "inputevents_mv": metavision_input,
    "inputevents_cv": carevue_input,
    "chartevents": charted,
    "noteevents": report,
    "services": service,
    "transfers": unit_stay,
    "earlier": _earlier_admission,
    "earlier_diagnoses": _earlier_diagnosis,
}
