"""Turns what is filed at the bedside (nurses, monitors, respiratory therapy, care plan) into findings.

What is taken and why:
- monitors and nurses' charts: signs, scores and oxygen, thinned as eicu_tables says; what is set up or targeted
  (alarms, goals, locations of a probe) is no finding;
- nurseCare: the airway, and treatments of the airway (hidden until the treatment step); the rest is routine care
  (hygiene, bed position, side rails) or a precaution that names a suspicion and no observation;
- carePlanGeneral: airway, ventilation and care limitation; every other group plans treatment or names problems;
- carePlanCareProvider: the specialty in charge names the organ at fault: hidden until the treatment step;
- respiratoryCare: the airway and that ventilation had begun, both known when the row was filed. `ventstartoffset` is no
  time to rely on: of 157 first rows of the demo that have one, it lies exactly 4, 5, 6 or 7 hours (American time zones)
  before the row in 45, and no other lag occurs more than three times. Ends of ventilation lie in the future of a row.
- intakeOutput: urine volumes; intake is treatment.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from clinical_data.case import Finding, FindingKind
from clinical_data.sources import eicu_names as names
from clinical_data.sources.eicu_make import later, make
from clinical_data.sources.eicu_tables import MONITORED
from clinical_data.sources.tables import Row

_VITAL, _SCORE = FindingKind.VITAL, FindingKind.EXAMINATION

# label and name of nurseCharting -> kind, display, unit.
# Source: the entries that MIT-LCP/eicu-code reads (concepts/pivoted: vital, gcs, o2).
CHARTED: dict[tuple[str, str], tuple[FindingKind, str, str]] = {
    ("Heart Rate", "Heart Rate"): (_VITAL, "heart rate", "/min"),
    ("Respiratory Rate", "Respiratory Rate"): (_VITAL, "respiratory rate", "/min"),
    ("O2 Saturation", "O2 Saturation"): (_VITAL, "oxygen saturation", "%"),
    ("Temperature", "Temperature (C)"): (_VITAL, "temperature", "Cel"),
    ("Non-Invasive BP", "Non-Invasive BP Systolic"): (_VITAL, "systolic blood pressure", "mmHg"),
    ("Non-Invasive BP", "Non-Invasive BP Diastolic"): (_VITAL, "diastolic blood pressure", "mmHg"),
    ("Non-Invasive BP", "Non-Invasive BP Mean"): (_VITAL, "mean blood pressure", "mmHg"),
    ("Invasive BP", "Invasive BP Systolic"): (_VITAL, "systolic blood pressure (arterial line)", "mmHg"),
    ("Invasive BP", "Invasive BP Diastolic"): (_VITAL, "diastolic blood pressure (arterial line)", "mmHg"),
    ("Invasive BP", "Invasive BP Mean"): (_VITAL, "mean blood pressure (arterial line)", "mmHg"),
    ("MAP (mmHg)", "Value"): (_VITAL, "mean blood pressure", "mmHg"),
    ("Arterial Line MAP (mmHg)", "Value"): (_VITAL, "mean blood pressure (arterial line)", "mmHg"),
    ("End Tidal CO2", "End Tidal CO2"): (_VITAL, "end-tidal carbon dioxide", "mmHg"),
    ("O2 L/%", "O2 L/%"): (_VITAL, "oxygen given (L/min or %)", ""),
    ("O2 Admin Device", "O2 Admin Device"): (_VITAL, "oxygen device", ""),
    ("Pain Score/Goal", "Pain Score"): (_VITAL, "pain score", ""),
    ("Glasgow coma score", "GCS Total"): (_SCORE, "Glasgow Coma Scale", ""),
    ("Score (Glasgow Coma Scale)", "Value"): (_SCORE, "Glasgow Coma Scale", ""),
    ("Glasgow coma score", "Eyes"): (_SCORE, "Glasgow Coma Scale, eyes", ""),
    ("Glasgow coma score", "Motor"): (_SCORE, "Glasgow Coma Scale, motor", ""),
    ("Glasgow coma score", "Verbal"): (_SCORE, "Glasgow Coma Scale, verbal", ""),
    ("Bedside Glucose", "Bedside Glucose"): (FindingKind.LABORATORY, "bedside glucose", "mg/dL"),
}

# column of vitalPeriodic -> display, unit
MONITOR = {
    "temperature": ("temperature", "Cel"),
    "sao2": ("oxygen saturation", "%"),
    "heartrate": ("heart rate", "/min"),
    "respiration": ("respiratory rate", "/min"),
    "cvp": ("central venous pressure", "mmHg"),
    "systemicsystolic": ("systolic blood pressure (arterial line)", "mmHg"),
    "systemicdiastolic": ("diastolic blood pressure (arterial line)", "mmHg"),
    "systemicmean": ("mean blood pressure (arterial line)", "mmHg"),
    "icp": ("intracranial pressure", "mmHg"),
}

# group of carePlanGeneral -> kind and display. A limit of care is the patient's wish, as social history is.
CARE_PLAN = {
    "Airway": (_VITAL, "airway"),
    "Ventilation": (_VITAL, "ventilation"),
    "Care Limitation": (FindingKind.SOCIAL, "limits of care"),
}

_CARE = "flowsheet|Flowsheet Cell Labels|Nursing Care|Respiratory|"


def nurse_charted(row: Row) -> list[Finding]:
    """Returns the sign or score of a nurseCharting row."""
    entry = row["nursingchartcelltypevallabel"], row["nursingchartcelltypevalname"]
    kind, display, unit = CHARTED[entry]
    value = names.number_or_text(names.clean(row["nursingchartvalue"]))
    if value == "":
        return []
    at, key = row["nursingchartoffset"], row["row_key"]
    available = later(at, row["nursingchartentryoffset"])
    unit = unit if isinstance(value, float) else ""
    return [make("nurseCharting", key, kind, "|".join(entry), display, value, at, available, unit=unit)]


def monitored(row: Row) -> list[Finding]:
    """Returns the first value of each sign that the monitor filed in one block of a stay; it is known at once."""
    found = []
    for column in MONITORED:
        if (value := row[column]) is not None:
            display, unit = MONITOR[column]
            at, key = row[f"{column}_at"], f"{row['case_key']} {row['row_key']} {column}"
            found.append(make("vitalPeriodic", key, _VITAL, column, display, value, at, at, unit=unit))
    return found


def cuff_pressure(row: Row) -> list[Finding]:
    """Returns the cuff pressure of a vitalAperiodic row as `124/71 (mean 85)`; the monitor files it at once."""
    high, low, mean = row["noninvasivesystolic"], row["noninvasivediastolic"], row["noninvasivemean"]
    if high is None or low is None:
        return []
    value = f"{high:g}/{low:g}" + (f" (mean {mean:g})" if mean is not None else "")
    at, code = row["observationoffset"], "noninvasive blood pressure"
    return [make("vitalAperiodic", row["row_key"], _VITAL, code, "cuff blood pressure", value, at, at, unit="mmHg")]


def urine(row: Row) -> list[Finding]:
    """Returns the urine volume of an intakeOutput row."""
    volume, at = row["cellvaluenumeric"], row["intakeoutputoffset"]
    if volume is None:
        return []
    available = later(at, row["intakeoutputentryoffset"])
    path, key = names.clean(row["cellpath"]), row["row_key"]
    return [make("intakeOutput", key, _VITAL, path, "urine output", volume, at, available, unit="mL")]


def respiratory(row: Row) -> list[Finding]:
    """Returns the oxygen or ventilator setting of a respiratoryCharting row."""
    label, text = names.clean(row["respchartvaluelabel"]), names.clean(row["respchartvalue"])
    if label not in names.RESPIRATORY or not text:
        return []
    display, unit = names.RESPIRATORY[label]
    at, value = row["respchartoffset"], names.number_or_text(text)
    available = later(at, row["respchartentryoffset"])
    unit = unit if isinstance(value, float) else ""
    return [make("respiratoryCharting", row["row_key"], _VITAL, label, display, value, at, available, unit=unit)]


def respiratory_care(row: Row) -> list[Finding]:
    """Returns the airway and the start of ventilation that a respiratoryCare row tells anew, known as it was filed."""
    at, key, found = row["respcarestatusoffset"], row["respcareid"], []
    if airway := names.clean(row["airway"]):
        found.append(make("respiratoryCare", f"{key}", _VITAL, "airwaytype", "airway", airway, at, at))
    if row["started"] is not None:
        known = max(at, row["started"])
        display, value = "mechanical ventilation", "started by now"
        found.append(make("respiratoryCare", f"{key} start", _VITAL, "ventstart", display, value, known, known))
    return found


def nurse(row: Row) -> list[Finding]:
    """Returns the observation of a nurseAssessment row."""
    path, value = row["cellattributepath"], names.clean(row["cellattributevalue"])
    display = names.nurse_entry(path)
    if display is None or value in ("", "N/A"):
        return []
    at = row["nurseassessoffset"]
    available = later(at, row["nurseassessentryoffset"])
    return [make("nurseAssessment", row["row_key"], _SCORE, path, display, value, at, available)]


@lru_cache(maxsize=64)
def _care(path: str) -> tuple[FindingKind, str] | None:
    if path.startswith(_CARE + "Airway Type|"):
        return _VITAL, "airway"
    if path.startswith(_CARE + "Treatments|"):
        return FindingKind.TREATMENT, "respiratory treatment"
    return None


def nurse_care(row: Row) -> list[Finding]:
    """Returns the airway or the respiratory treatment of a nurseCare row."""
    path, value = row["cellattributepath"], names.clean(row["cellattributevalue"])
    said = _care(path)
    if said is None or value in ("", "N/A", "Other"):
        return []
    at = row["nursecareoffset"]
    available = later(at, row["nursecareentryoffset"])
    text = value.rpartition(" = ")[2]  # S = Suctioning
    return [make("nurseCare", row["row_key"], said[0], path, said[1], text, at, available)]


def care_plan(row: Row) -> list[Finding]:
    """Returns airway, ventilation or limits of care of a carePlanGeneral row; its offset is that of the entry."""
    value, group, at = names.clean(row["cplitemvalue"]), row["cplgroup"], row["cplitemoffset"]
    if not value:
        return []
    kind, display = CARE_PLAN[group]
    return [make("carePlanGeneral", row["row_key"], kind, group, display, names.plain(value), at, at)]


def care_provider(row: Row) -> list[Finding]:
    """Returns the specialty in charge of a carePlanCareProvider row, hidden until the treatment step."""
    specialty, at = names.clean(row["specialty"]), row["careprovidersaveoffset"]
    if not specialty:
        return []
    kind = FindingKind.TREATMENT
    return [make("carePlanCareProvider", row["row_key"], kind, specialty, "specialty in charge", specialty, at, at)]


BEDSIDE: dict[str, Callable[[Row], list[Finding]]] = {
    "vitalAperiodic": cuff_pressure,
    "vitalPeriodic": monitored,
    "nurseCharting": nurse_charted,
    "nurseAssessment": nurse,
    "nurseCare": nurse_care,
    "intakeOutput": urine,
    "respiratoryCharting": respiratory,
    "respiratoryCare": respiratory_care,
    "carePlanGeneral": care_plan,
    "carePlanCareProvider": care_provider,
}
