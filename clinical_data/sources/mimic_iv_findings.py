"""Turns rows of MIMIC-IV into findings: what was seen, its value, and from when it could be known.

A builder gets one row (of microbiologyevents: the rows of one report) with minutes from admission: `charted` (observed,
collected, begun; rounded down), `taken` (the same, rounded up) and `stored` (entered, resulted; rounded up). An empty
list means that the row says nothing for the chart. No builder sees how long something lasted or when it ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from clinical_data.case import PRESENT, Coding, Finding, FindingKind, make_finding_id
from clinical_data.clocks import CULTURE_LAG, LAB_LAG, REPORT_LAG
from clinical_data.codes import LOINC
from clinical_data.sources import mimic_iv_items as items
from clinical_data.sources.mimic_findings import (
    BEDSIDE_LAG,
    DRUG_NAME,
    FORMULARY,
    GSN,
    ITEMS,
    LABS,
    PROCEDURE_LAG,
    TESTS,
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
from clinical_data.sources.tables import Row

SOURCE = "mimic-iv"

OWN = "wardstar:mimic-iv"

# column of the ED tables -> LOINC code, words, unit, as in MIMIC-IV on FHIR
_ED_VITALS = {
    "temperature": ("8310-5", "Body temperature", "[degF]"),
    "heartrate": ("8867-4", "Heart rate", "/min"),
    "resprate": ("9279-1", "Respiratory rate", "/min"),
    "o2sat": ("2708-6", "Oxygen saturation in Arterial blood", "%"),
    "sbp": ("8480-6", "Systolic blood pressure", "mm[Hg]"),
    "dbp": ("8462-4", "Diastolic blood pressure", "mm[Hg]"),
    "pain": ("98137-3", "Pain assessment report", ""),
    "rhythm": ("8884-9", "Heart rate rhythm", ""),
}
_END = re.compile(r"\s*\*?\s*\.?$")
_EXAM = re.compile(
    r"^\s*(?:EXAMINATION|EXAM|STUDY|TYPE OF EXAMINATION)\s*:\s*(.{3,80}?)\s*$", re.MULTILINE | re.IGNORECASE
)
# What a drug comes in, ordered as the base of a mixture: no drug.
_CONTAINER = re.compile(
    r"(?:bag|vial|soln\.?|syringe(?: \(chemo\))?|\w+ cadd cassette|click change .*)$", re.IGNORECASE
)


def lab(row: Row) -> list[Finding]:
    """Returns the laboratory result of a labevents row; one kept in the refrigerator without a test gives none."""
    text, number = clean(row["value"]), number_of(row["valuenum"])
    value: float | str | None = number_or_text(text) if text else number
    if isinstance(value, float) and number is not None:
        value = number
    if value is None:
        value = _END.sub("", clean(row["comments"])) or None
    if isinstance(value, str) and value.upper().startswith("HOLD"):
        return []
    counted = isinstance(value, float) or str(value).startswith(("<", ">"))
    flag = clean(row["flag"])
    return make(
        SOURCE, "labevents", (row["row_key"],), FindingKind.LABORATORY,
        _lab_item(row["itemid"], row["label"], row["fluid"]), value, row["charted"], known(row, LAB_LAG),
        unit=clean(row["valueuom"]) if counted else "",
        low=number_of(row["ref_range_lower"]), high=number_of(row["ref_range_upper"]),
        flag="A" if flag == "abnormal" else flag, pending_from=row["taken"],
    )  # fmt: skip


@lru_cache(maxsize=1 << 12)
def _lab_item(item: int, label: str | None, fluid: str | None) -> Coding:
    name, where = clean(label) or str(item), clean(fluid).lower()
    return Coding(LABS, str(item), name if where in ("", "blood") else f"{name}, {where}")


def culture(rows: Sequence[Row]) -> list[Finding]:
    """Returns what was reported of one test of one specimen at one time: organisms with what they are susceptible to,
    and the laboratory's comments. An earlier report of the same test is a finding of its own; a cancelled test gives no
    result.
    """
    first = rows[0]
    grown: dict[str, dict[str, str]] = {}
    comments: dict[str, None] = {}
    for row in rows:
        if (organism := clean(row["org_name"])) and not cancelled(organism):
            tested = grown.setdefault(organism, {})
            if drug := clean(row["ab_name"]):
                tested[drug] = clean(row["interpretation"]) or "tested"
        if (said := clean(row["comments"])) and not cancelled(said):
            comments[said] = None
    parts = [_organism(name, tested) for name, tested in grown.items()]
    name, specimen = clean(first["test_name"]), clean(first["spec_type_desc"])
    test = first["test_itemid"]
    display = f"{name}, {specimen.lower()}" if specimen and specimen.lower() != name.lower() else name
    return make(
        SOURCE, "microbiologyevents", (first["microevent_id"],), FindingKind.MICROBIOLOGY,
        Coding(TESTS, str(test) if test is not None else name, display), "; ".join([*parts, *comments]) or None,
        first["charted"], known(first, CULTURE_LAG), pending_from=first["taken"],
    )  # fmt: skip


def _organism(name: str, tested: dict[str, str]) -> str:
    answers = ", ".join(f"{drug.lower()} {answer}" for drug, answer in sorted(tested.items()))
    return f"{name.lower()} ({answers})" if answers else name.lower()


def order(row: Row) -> list[Finding]:
    """Returns the drug order of a prescriptions row, known from its start or its entry, whichever came later."""
    drug, formulary = clean(row["drug"]), clean(row["formulary_drug_cd"])
    if _CONTAINER.match(drug):
        return []
    coding = Coding(FORMULARY, formulary, drug) if formulary else Coding(DRUG_NAME, drug, drug)
    how = clean(f"{row['route'] or ''} {(row['frequency'] or '').replace(':', ' ')}") or "ordered"
    key = _order_key(row["row_key"])
    return make(SOURCE, "prescriptions", key, FindingKind.TREATMENT, coding, how, row["charted"], known(row, 0))


def order_id(row_key: str) -> str:
    """Returns the id of the finding that `order` makes of a prescriptions row."""
    return make_finding_id(SOURCE, "prescriptions", *_order_key(row_key))


def _order_key(row_key: str) -> list[str]:
    return row_key.split("|")


def procedure(row: Row) -> list[Finding]:
    """Returns the procedure of a procedureevents row: a test that was done (its result is not here), or a treatment."""
    item = row["itemid"]
    if item in items.NOT_SHOWN:
        return []
    kind = items.done_kind(item)
    coding = Coding(ITEMS, str(item), clean(row["label"]) or str(item))
    return make(
        SOURCE, "procedureevents", str(row["row_key"]).split("|"), kind or FindingKind.TREATMENT, coding,
        None if kind else "done", row["charted"], known(row, PROCEDURE_LAG),
    )  # fmt: skip


def infusion(row: Row) -> list[Finding]:
    """Returns what an inputevents order began to give: a drug, a fluid, a feed."""
    item = row["itemid"]
    coding = Coding(ITEMS, str(item), clean(row["label"]) or str(item))
    key = str(row["row_key"]).split("|")
    given = clean(row["given"]) or "given"
    return make(
        SOURCE, "inputevents", key, FindingKind.TREATMENT, coding, given, row["charted"], known(row, BEDSIDE_LAG)
    )


def output(row: Row) -> list[Finding]:
    """Returns the volume of an outputevents row: urine, drains, stool."""
    item, value = row["itemid"], number_of(row["value"])
    if value is None or item in items.IRRIGANT:
        return []
    key = (row["stay_id"], item, row["charted"], row["stored"], value)
    coding = Coding(ITEMS, str(item), f"Output: {clean(row['label']) or item}")
    unit = {"ml": "mL"}.get(clean(row["valueuom"]), clean(row["valueuom"]))
    return make(
        SOURCE, "outputevents", key, FindingKind.VITAL, coding, value, row["charted"], known(row, BEDSIDE_LAG),
        unit=unit,
    )  # fmt: skip


def charted(row: Row) -> list[Finding]:
    """Returns the vital sign, examination or nursing history of a chartevents row."""
    item, number, text = row["itemid"], number_of(row["valuenum"]), clean(row["value"])
    kind, unit = items.charted_kind(item), items.VITALS.get(item, "")
    value: float | str | None = number if kind is FindingKind.VITAL and unit else text or number
    if value is None or value == "":
        return []
    key = (row["stay_id"], item, row["charted"], row["stored"], row["value"])
    coding = Coding(ITEMS, str(item), clean(row["label"]) or str(item))
    return make(
        SOURCE, "chartevents", key, kind, coding, value, row["charted"], known(row, BEDSIDE_LAG),
        unit=unit if isinstance(value, float) else "",
    )  # fmt: skip


def outpatient(row: Row) -> list[Finding]:
    """Returns the height, weight, blood pressure or eGFR of an omr row, known at the end of its day."""
    name, text = clean(row["result_name"]), clean(row["result_value"])
    if not name or not text or row["charted"] is None:
        return []
    kind = FindingKind.LABORATORY if name.lower().startswith("egfr") else FindingKind.VITAL
    coding = Coding(f"{OWN}/omr", name, f"{name}, outpatient record")
    key = (row["case_key"], row["charted"], name, row["seq_num"])
    return make(SOURCE, "omr", key, kind, coding, number_or_text(text), row["charted"], row["charted"])


def unit_stay(row: Row) -> list[Finding]:
    """Returns the care unit that a transfers row moves to: a level of care, hidden until the treatment step."""
    unit = clean(row["careunit"])
    coding = Coding(f"{OWN}/transfers", unit, f"moved to {unit}")
    if not unit or unit in ("Unknown", "Discharge Lounge"):
        return []
    return make(
        SOURCE, "transfers", (row["row_key"],), FindingKind.TREATMENT, coding, PRESENT, row["charted"], known(row, 0)
    )


def service(row: Row) -> list[Finding]:
    """Returns the service of a services row; it names a specialty, and is hidden until the treatment step."""
    name = clean(row["curr_service"])
    coding = Coding(f"{OWN}/services", name, f"under the care of service {name}")
    key = (row["case_key"], name, row["charted"])
    return make(SOURCE, "services", key, FindingKind.TREATMENT, coding, PRESENT, row["charted"], known(row, 0))


def _earlier_admission(row: Row) -> list[Finding]:
    return earlier_admission(SOURCE, "admissions", row)


def _earlier_diagnosis(row: Row) -> list[Finding]:
    coding = icd(row["icd_code"], row["icd_version"], row["long_title"])
    return earlier_diagnosis(SOURCE, "diagnoses_icd", str(row["row_key"]).split("|"), coding, row)


def triage(row: Row) -> list[Finding]:
    """Returns chief complaint and first vital signs; the table has no time, so they count from arrival."""
    found = _ed_vitals("triage", row)
    if complaint := clean(row["chiefcomplaint"]):
        coding = Coding(LOINC, "8661-1", "Chief complaint - Reported")
        key = (row["stay_id"], "chiefcomplaint")
        found += make(SOURCE, "triage", key, FindingKind.COMPLAINT, coding, complaint, row["charted"], known(row, 0))
    return found


def vital_signs(row: Row) -> list[Finding]:
    """Returns the vital signs of a vitalsign row."""
    return _ed_vitals("vitalsign", row)


def _ed_vitals(table: str, row: Row) -> list[Finding]:
    found = []
    for column, (code, words, unit) in _ED_VITALS.items():
        said = row.get(column)
        value = number_of(said) if isinstance(said, float) else number_or_text(clean(said))
        if value is None or value == "":
            continue
        key = (row["stay_id"], row["charted"], column, value)
        found += make(
            SOURCE, table, key, FindingKind.VITAL, Coding(LOINC, code, words), value, row["charted"], known(row, 0),
            unit=unit if isinstance(value, float) else "",
        )  # fmt: skip
    return found


def home_drug(row: Row) -> list[Finding]:
    """Returns the home drug of a medrecon row."""
    return _ed_drug("medrecon", row, FindingKind.MEDICATION_HOME, PRESENT)


def dispensed(row: Row) -> list[Finding]:
    """Returns the drug that a pyxis row dispensed in the emergency department."""
    return _ed_drug("pyxis", row, FindingKind.TREATMENT, "dispensed")


def _ed_drug(table: str, row: Row, kind: FindingKind, value: str) -> list[Finding]:
    name, number = clean(row["name"]), clean(row["gsn"])
    if not name:
        return []
    coding = Coding(GSN, number, name) if number.strip("0") else Coding(DRUG_NAME, name, name)
    key = (row["stay_id"], row["name"], row["charted"])
    return make(SOURCE, table, key, kind, coding, value, row["charted"], known(row, 0))


def radiology(row: Row) -> list[Finding]:
    """Returns a radiology report, known when it was stored (else a day later) and pending from the examination."""
    text = (row["text"] or "").replace("\0", " ").strip()
    named = clean(row["exam"])
    if not named and (heading := _EXAM.search(text)):
        named = clean(heading[1])
    coding = Coding(f"{OWN}/radiology", named.upper() or "REPORT", named or "radiology report")
    return make(
        SOURCE, "radiology", (row["row_key"],), FindingKind.IMAGING, coding, text or None, row["charted"],
        known(row, REPORT_LAG), pending_from=row["taken"],
    )  # fmt: skip


BUILDERS: dict[str, Callable[[Row], list[Finding]]] = {
    "labevents": lab,
    "prescriptions": order,
    "procedureevents": procedure,
    "inputevents": infusion,
    "outputevents": output,
    "chartevents": charted,
    "omr": outpatient,
    "transfers": unit_stay,
    "services": service,
    "earlier": _earlier_admission,
    "earlier_diagnoses": _earlier_diagnosis,
    "triage": triage,
    "vitalsign": vital_signs,
    "medrecon": home_drug,
    "pyxis": dispensed,
    "radiology": radiology,
}
