"""Turns rows of eICU tables into findings: what was seen, its value, and from when it could be known.

A builder gets one row and returns its findings; an empty list means that the row says nothing for the chart. Times are
minutes from unit admission. Where a table has an entry time, a finding is available from the later of observation and
entry; where it has none, from the observation plus the lag stated here.
"""

from __future__ import annotations

from collections.abc import Callable

from clinical_data.case import Coding, Finding, FindingKind, make_finding_id
from clinical_data.sources import eicu_names as names
from clinical_data.sources.eicu_tables import Row

SOURCE = "eicu"

# Lags in minutes for rows without an entry time.
# Source: clinical.md, "Clock": 95th percentile of each kind; that of physicalExam was measured on the eICU demo, where
# all 2,330 examinations do have a note with an entry time (median 12, 95th percentile 317).
LAB_LAG = 4 * 60
CULTURE_LAG = 9 * 24 * 60
EXAM_LAG = 317


def _later(observed: int, entered: int | None, lag: int = 0) -> int:
    """Returns the minute from which a row could be known."""
    return max(observed, entered if entered is not None else observed + lag)


def _finding(
    table: str,
    key: object,
    kind: FindingKind,
    code: str,
    display: str,
    value: float | str | None,
    charted: int,
    available: int,
    *,
    unit: str = "",
    pending_from: int | None = None,
    suffix: str = "",
) -> Finding:
    return Finding(
        finding_id=make_finding_id(SOURCE, table + suffix, str(key)),
        kind=kind,
        code=Coding(f"wardstar:eicu/{table}{suffix}", code, display),
        value=value,
        charted=charted,
        available=available,
        unit=unit,
        pending_from=pending_from,
        result_in_source=value is not None,
        note=f"{table} {key}",
    )


def past_history(row: Row) -> list[Finding]:
    """Returns the past disease of a pastHistory row."""
    path = row["pasthistorypath"]
    said = names.past_history(path, row["pasthistoryvalue"] or "")
    if said is None:
        return []
    charted = row["pasthistoryoffset"]
    available = _later(charted, row["pasthistoryenteredoffset"])
    kind = FindingKind.HISTORY
    return [_finding("pastHistory", row["pasthistoryid"], kind, path, said[0], said[1], charted, available)]


def physical_exam(row: Row) -> list[Finding]:
    """Returns the examination finding or vital sign of a physicalExam row; it is known when its note was entered."""
    path = row["physicalexampath"]
    said = names.exam(path, row["physicalexamvalue"] or "", names.clean(row["physicalexamtext"]))
    if said is None:
        return []
    display, value, unit = said
    measured = ("Vital Sign and Physiological Data/", "Weight and I&O/", "Hemodynamic Data/")
    kind = FindingKind.VITAL if any(f"/Constitutional/{m}" in path for m in measured) else FindingKind.EXAMINATION
    charted = row["physicalexamoffset"]
    available = _later(charted, row["enteredoffset"], EXAM_LAG)
    return [
        _finding("physicalExam", row["physicalexamid"], kind, path, display, value, charted, available, unit=unit)
    ]  # fmt: skip


def note(row: Row) -> list[Finding]:
    """Returns social history, family history or review of systems of a note row; every other path stays out."""
    path = row["notepath"]
    said = names.note_entry(path, row["notevalue"] or "")
    if said is None:
        return []
    kind = FindingKind.HISTORY
    if said[0] == "family history":
        kind = FindingKind.FAMILY
    elif not said[0].startswith("review of systems"):
        kind = FindingKind.SOCIAL
    available = _later(row["noteoffset"], row["noteenteredoffset"])
    return [_finding("note", row["noteid"], kind, path, said[0], said[1], row["noteoffset"], available)]


def lab(row: Row) -> list[Finding]:
    """Returns the laboratory result of a row: the number, or the text where that says more (`<0.04`)."""
    text = names.clean(row["labresulttext"])
    value: float | str = names.number_or_text(text)
    if isinstance(value, str) and row["labresult"] is not None and not text.startswith(("<", ">")):
        value = float(row["labresult"])
    if value == "":
        return []
    drawn, name = row["labresultoffset"], names.clean(row["labname"])
    return [
        _finding(
            "lab", row["labid"], FindingKind.LABORATORY, name, names.lab(name), value, drawn,
            _later(drawn, row["labresultrevisedoffset"], LAB_LAG),
            unit=names.clean(row["labmeasurenamesystem"]), pending_from=drawn,
        )
    ]  # fmt: skip


def home_drug(row: Row) -> list[Finding]:
    """Returns the home drug of an admissiondrug row, with its dose where one was entered."""
    name = names.clean(row["drugname"])
    if not name:
        return []
    dose = f"{row['drugdosage']:g} {names.clean(row['drugunit'])}" if row["drugdosage"] else ""
    value = names.clean(f"{dose} {row['drugadmitfrequency'] or ''}") or "taken at home"
    charted = row["drugoffset"]
    available = _later(charted, row["drugenteredoffset"])
    kind = FindingKind.MEDICATION_HOME
    return [_finding("admissiondrug", row["admissiondrugid"], kind, name, name.lower(), value, charted, available)]


def allergy(row: Row) -> list[Finding]:
    """Returns the allergy of a row."""
    name = names.clean(row["allergyname"])
    if not name:
        return []
    value = "drug allergy" if row["allergytype"] == "Drug" else "allergy"
    charted = row["allergyoffset"]
    available = _later(charted, row["allergyenteredoffset"])
    return [
        _finding("allergy", row["allergyid"], FindingKind.ALLERGY, name, name.lower(), value, charted, available)
    ]  # fmt: skip


def cuff_pressure(row: Row) -> list[Finding]:
    """Returns the cuff pressure of a vitalAperiodic row as `124/71 (mean 85)`; the monitor files it at once."""
    high, low, mean = row["noninvasivesystolic"], row["noninvasivediastolic"], row["noninvasivemean"]
    if high is None or low is None:
        return []
    value = f"{high:g}/{low:g}" + (f" (mean {mean:g})" if mean is not None else "")
    at = row["observationoffset"]
    key, kind = row["vitalaperiodicid"], FindingKind.VITAL
    return [
        _finding("vitalAperiodic", key, kind, "noninvasive blood pressure", "cuff blood pressure", value, at, at,
                 unit="mmHg")
    ]  # fmt: skip


def respiratory(row: Row) -> list[Finding]:
    """Returns the oxygen or ventilator setting of a respiratoryCharting row."""
    label = names.clean(row["respchartvaluelabel"])
    value = names.clean(row["respchartvalue"])
    if label not in names.RESPIRATORY or not value:
        return []
    display, unit = names.RESPIRATORY[label]
    charted = row["respchartoffset"]
    available = _later(charted, row["respchartentryoffset"])
    found = names.number_or_text(value)
    kind = FindingKind.VITAL
    key = row["respchartid"]
    return [
        _finding("respiratoryCharting", key, kind, label, display, found, charted, available,
                 unit=unit if isinstance(found, float) else "")
    ]  # fmt: skip


def nurse(row: Row) -> list[Finding]:
    """Returns the observation of a nurseAssessment row."""
    path, value = row["cellattributepath"], names.clean(row["cellattributevalue"])
    display = names.nurse_entry(path)
    if display is None or value in ("", "N/A"):
        return []
    charted = row["nurseassessoffset"]
    available = _later(charted, row["nurseassessentryoffset"])
    kind = FindingKind.EXAMINATION
    return [_finding("nurseAssessment", row["nurseassessid"], kind, path, display, value, charted, available)]


def culture(row: Row) -> list[Finding]:
    """Returns the culture of a microLab row: pending from the time it was taken, known nine days later."""
    site = names.clean(row["culturesite"])
    value = names.clean(row["organism"])
    if not value:
        return []
    if row["antibiotic"] and row["sensitivitylevel"]:
        value += f", {names.clean(row['antibiotic'])} {names.clean(row['sensitivitylevel']).lower()}"
    taken = row["culturetakenoffset"]
    key, kind = row["microlabid"], FindingKind.MICROBIOLOGY
    return [
        _finding("microLab", key, kind, site, f"culture, {site.lower()}", value, taken, taken + CULTURE_LAG,
                 pending_from=taken)
    ]  # fmt: skip


def treatment(row: Row) -> list[Finding]:
    """Returns the treatment of a row, hidden until the treatment step, and what it says was done.

    What was done (imaging, a culture, a consultation) is a fact of its own without result. It does not carry the
    treatment's path, which names the organ system that it was filed under.
    """
    path, at, key = row["treatmentstring"], row["treatmentoffset"], row["treatmentid"]
    display = names.treatment(path)
    found = [_finding("treatment", key, FindingKind.TREATMENT, path, display, "given", at, at)]
    if code := names.done(path):
        kind = {"culture": FindingKind.MICROBIOLOGY, "consultation": FindingKind.PROCEDURE}.get(
            code, FindingKind.IMAGING
        )
        found.append(_finding("treatment", key, kind, code, code, None, at, at, suffix="-done"))
    return found


def infusion(row: Row) -> list[Finding]:
    """Returns the rate of an infusiondrug row, hidden until the treatment step."""
    name = names.clean(row["drugname"])
    if not name:
        return []
    drug, _, unit = name.rstrip(")").partition(" (")
    rate = names.number_or_text(names.clean(row["drugrate"])) or "rate not recorded"
    at, key = row["infusionoffset"], row["infusiondrugid"]
    display = f"{drug.lower()} infusion"
    numeric = isinstance(rate, float)
    kind = FindingKind.TREATMENT
    return [
        _finding("infusiondrug", key, kind, name, display, rate, at, at, unit=unit if numeric else "")
    ]  # fmt: skip


def order(row: Row) -> list[Finding]:
    """Returns the drug order of a medication row, hidden until the treatment step; its stop is not read."""
    name = names.clean(row["drugname"])
    if not name:
        return []
    ordered, start = row["drugorderoffset"], row["drugstartoffset"]
    start = ordered if start is None else start
    value = names.clean(f"{row['routeadmin'] or ''} {row['frequency'] or ''}") or "ordered"
    key, kind = row["medicationid"], FindingKind.TREATMENT
    return [_finding("medication", key, kind, name, name.lower(), value, start, max(ordered, start))]


def earlier_stays(row: Row) -> list[Finding]:
    """Returns how many unit stays came before in the same hospital stay, known at admission (a patient row)."""
    number = row["unitvisitnumber"]
    if number is None:
        return []
    display = "earlier unit stays in this hospital stay"
    key, kind = row["patientunitstayid"], FindingKind.HISTORY
    return [_finding("patient", key, kind, "unitvisitnumber", display, float(number - 1), 0, 0)]


BUILDERS: dict[str, Callable[[Row], list[Finding]]] = {
    "pastHistory": past_history,
    "physicalExam": physical_exam,
    "note": note,
    "lab": lab,
    "admissiondrug": home_drug,
    "allergy": allergy,
    "vitalAperiodic": cuff_pressure,
    "respiratoryCharting": respiratory,
    "nurseAssessment": nurse,
    "microLab": culture,
    "treatment": treatment,
    "infusiondrug": infusion,
    "medication": order,
}
