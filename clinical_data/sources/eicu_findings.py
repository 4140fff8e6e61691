"""Turns rows of eICU tables into findings: what was seen, its value, and from when it could be known.

A builder gets one row and returns its findings; an empty list means that the row says nothing for the chart. Times are
minutes from unit admission. Where a table has an entry time, a finding is available from the later of observation and
entry; where it has none, from the observation plus the lag stated here.
"""

from __future__ import annotations

from collections.abc import Callable

from clinical_data.case import Finding, FindingKind
from clinical_data.clocks import CULTURE_LAG, LAB_LAG
from clinical_data.sources import eicu_names as names
from clinical_data.sources.eicu_bedside import BEDSIDE
from clinical_data.sources.eicu_make import later, make
from clinical_data.sources.tables import Row

# Lag in minutes of an examination without an entry time: measured on the eICU demo, where all 2,330 examinations do
# have a note with an entry time (median 12, 95th percentile 317).
EXAM_LAG = 317


def past_history(row: Row) -> list[Finding]:
    """Returns the past disease of a pastHistory row."""
    path = row["pasthistorypath"]
    said = names.past_history(path, row["pasthistoryvalue"] or "")
    if said is None:
        return []
    charted = row["pasthistoryoffset"]
    available = later(charted, row["pasthistoryenteredoffset"])
    kind = FindingKind.HISTORY
    return [make("pastHistory", row["row_key"], kind, path, said[0], said[1], charted, available)]


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
    available = later(charted, row["enteredoffset"], EXAM_LAG)
    return [
        make("physicalExam", row["row_key"], kind, path, display, value, charted, available, unit=unit)
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
    available = later(row["noteoffset"], row["noteenteredoffset"])
    return [make("note", row["row_key"], kind, path, said[0], said[1], row["noteoffset"], available)]


def lab(row: Row) -> list[Finding]:
    """Returns the laboratory result of a row: the number, or the text where that says more (`<0.04`).

    One that never came is a fact without a result: that the sample was taken was known all the same.
    """
    value = _result(row["labresulttext"], row["labresult"])
    drawn, name = row["labresultoffset"], names.clean(row["labname"])
    return [
        make(
            "lab", row["row_key"], FindingKind.LABORATORY, name, names.lab(name), value, drawn,
            later(drawn, row["labresultrevisedoffset"], LAB_LAG),
            unit="" if value is None else names.clean(row["labmeasurenamesystem"]), pending_from=drawn,
        )
    ]  # fmt: skip


def custom_lab(row: Row) -> list[Finding]:
    """Returns the result of a customLab row: a test under the hospital's own name. It has no entry time."""
    value = _result(row["labothervaluetext"], row["labotherresult"])
    drawn, name = row["labotheroffset"], names.clean(row["labothername"])
    known, kind = later(drawn, None, LAB_LAG), FindingKind.LABORATORY
    return [make("customLab", row["row_key"], kind, name, name, value, drawn, known, pending_from=drawn)]


def _result(words: str | None, number: float | None) -> float | str | None:
    """Returns a result from its text and its number; None where neither was filled in."""
    text = names.clean(words)
    value = names.number_or_text(text)
    if isinstance(value, str) and number is not None and not text.startswith(("<", ">")):
        return float(number)
    return None if value == "" else value


def home_drug(row: Row) -> list[Finding]:
    """Returns the home drug of an admissiondrug row, with its dose where one was entered."""
    name = names.clean(row["drugname"])
    if not name:
        return []
    dose = f"{row['drugdosage']:g} {names.clean(row['drugunit'])}" if row["drugdosage"] else ""
    value = names.clean(f"{dose} {row['drugadmitfrequency'] or ''}") or "taken at home"
    charted = row["drugoffset"]
    available = later(charted, row["drugenteredoffset"])
    kind = FindingKind.MEDICATION_HOME
    return [make("admissiondrug", row["row_key"], kind, name, name.lower(), value, charted, available)]


def allergy(row: Row) -> list[Finding]:
    """Returns the allergy of a row."""
    name = names.clean(row["allergyname"])
    if not name:
        return []
    value = "drug allergy" if row["allergytype"] == "Drug" else "allergy"
    charted = row["allergyoffset"]
    available = later(charted, row["allergyenteredoffset"])
    return [
        make("allergy", row["row_key"], FindingKind.ALLERGY, name, name.lower(), value, charted, available)
    ]  # fmt: skip


def culture(row: Row) -> list[Finding]:
    """Returns the culture of a microLab row: pending from the time it was taken, known nine days later."""
    site = names.clean(row["culturesite"])
    value = names.clean(row["organism"])
    if value and row["antibiotic"] and row["sensitivitylevel"]:
        value += f", {names.clean(row['antibiotic'])} {names.clean(row['sensitivitylevel']).lower()}"
    taken = row["culturetakenoffset"]
    key, kind = row["row_key"], FindingKind.MICROBIOLOGY
    return [
        make("microLab", key, kind, site, f"culture, {site.lower()}", value or None, taken, taken + CULTURE_LAG,
             pending_from=taken)
    ]  # fmt: skip


def treatment(row: Row) -> list[Finding]:
    """Returns the treatment of a row, hidden until the treatment step, and what it says was done.

    What was done (imaging, a culture, a consultation) is a fact of its own without result. It does not carry the
    treatment's path, which names the organ system that it was filed under.
    """
    path, at, key = row["treatmentstring"], row["treatmentoffset"], row["row_key"]
    display = names.treatment(path)
    found = [make("treatment", key, FindingKind.TREATMENT, path, display, "given", at, at)]
    if code := names.done(path):
        kind = {"culture": FindingKind.MICROBIOLOGY, "consultation": FindingKind.PROCEDURE}.get(
            code, FindingKind.IMAGING
        )
        found.append(make("treatment", key, kind, code, code, None, at, at, suffix="-done"))
    return found


def infusion(row: Row) -> list[Finding]:
    """Returns the rate of an infusiondrug row, hidden until the treatment step."""
    name = names.clean(row["drugname"])
    if not name:
        return []
    drug, _, unit = name.rstrip(")").partition(" (")
    rate = names.number_or_text(names.clean(row["drugrate"])) or "rate not recorded"
    at, key = row["infusionoffset"], row["row_key"]
    display = f"{drug.lower()} infusion"
    numeric = isinstance(rate, float)
    kind = FindingKind.TREATMENT
    return [
        make("infusiondrug", key, kind, name, display, rate, at, at, unit=unit if numeric else "")
    ]  # fmt: skip


def order(row: Row) -> list[Finding]:
    """Returns the drug order of a medication row, hidden until the treatment step; its stop is not read."""
    name = names.clean(row["drugname"])
    if not name:
        return []
    ordered, start = row["drugorderoffset"], row["drugstartoffset"]
    start = ordered if start is None else start
    value = names.clean(f"{row['routeadmin'] or ''} {row['frequency'] or ''}")
    if row["prn"] == "Yes" and "PRN" not in value.upper():
        value += " PRN"
    value = value.strip() or "ordered"
    key, kind = row["row_key"], FindingKind.TREATMENT
    return [make("medication", key, kind, name, name.lower(), value, start, max(ordered, start))]


def earlier_stays(row: Row) -> list[Finding]:
    """Returns how many unit stays came before in the same hospital stay, known at admission (a patient row)."""
    number = row["unitvisitnumber"]
    if number is None:
        return []
    display = "earlier unit stays in this hospital stay"
    key, kind = row["patientunitstayid"], FindingKind.HISTORY
    return [make("patient", key, kind, "unitvisitnumber", display, float(number - 1), 0, 0)]


BUILDERS: dict[str, Callable[[Row], list[Finding]]] = {
    "pastHistory": past_history,
    "physicalExam": physical_exam,
    "note": note,
    "lab": lab,
    "customLab": custom_lab,
    "admissiondrug": home_drug,
    "allergy": allergy,
    "microLab": culture,
    "treatment": treatment,
    "infusiondrug": infusion,
    "medication": order,
    **BEDSIDE,
}
