"""Words for eICU's own names: what a clinician, and a small language model, can read.

Pure functions from a name or path of the source to a display and a value; nothing here knows rows or times.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
NO_HEALTH_PROBLEMS = "No Health Problems"
_EXAM_ROOT = "notes/Progress Notes/Physical Exam/Physical Exam/"
_SYSTEMS = {
    "Cardiovascular": "heart and vessels",
    "Pulmonary": "lungs",
    "Gastrointestinal": "abdomen",
    "Genitourinary": "genitourinary",
    "Neurologic": "neurologic",
    "Extremities": "limbs",
    "Skin": "skin",
    "Head and Neck": "head and neck",
    "Chest and Back": "chest and back",
    "Constitutional": "general",
}
_VITALS = {
    "BP (systolic)": ("systolic blood pressure", "mmHg"),
    "BP (diastolic)": ("diastolic blood pressure", "mmHg"),
    "HR": ("heart rate", "/min"),
    "Resp Rate": ("respiratory rate", "/min"),
    "O2 Sat%": ("oxygen saturation", "%"),
    "FiO2%": ("inspired oxygen", "%"),
    "PEEP": ("PEEP", "cmH2O"),
    "Vent Rate": ("ventilator rate", "/min"),
    "HR Rhythm": ("heart rhythm", ""),
    "Resp Mode": ("breathing", ""),
    "Resp Description": ("breathing", ""),
}
_GCS = {
    "Eyes Score": "Glasgow Coma Scale, eyes",
    "Motor Score": "Glasgow Coma Scale, motor",
    "Verbal Score": "Glasgow Coma Scale, verbal",
}
_HISTORY = {
    "Cardiovascular (R)": "past heart and vessel disease",
    "Pulmonary": "past lung disease",
    "Neurologic": "past neurologic disease",
    "Renal  (R)": "past kidney disease",
    "Endocrine (R)": "past endocrine disease",
    "Gastrointestinal (R)": "past gastrointestinal disease",
    "Hematology": "past cancer or blood disease",
    "Infectious Disease (R)": "past infection or immune disease",
    "Rheumatic": "past rheumatic disease",
}
_LABS = {
    "BUN": "blood urea nitrogen",
    "Hgb": "haemoglobin",
    "Hct": "haematocrit",
    "WBC x 1000": "white blood cells",
    "platelets x 1000": "platelets",
    "RBC": "red blood cells",
    "-polys": "neutrophils",
    "-bands": "band neutrophils",
    "-lymphs": "lymphocytes",
    "-monos": "monocytes",
    "-eos": "eosinophils",
    "-basos": "basophils",
    "AST (SGOT)": "AST",
    "ALT (SGPT)": "ALT",
    "alkaline phos.": "alkaline phosphatase",
    "PT": "prothrombin time",
    "PT - INR": "INR",
    "PTT": "partial thromboplastin time",
    "CPK": "creatine kinase",
    "CPK-MB": "creatine kinase MB",
    "CPK-MB INDEX": "creatine kinase MB index",
    "troponin - I": "troponin I",
    "troponin - T": "troponin T",
    "paO2": "arterial oxygen pressure (PaO2)",
    "paCO2": "arterial carbon dioxide pressure (PaCO2)",
    "HCO3": "bicarbonate (blood gas)",
    "O2 Sat (%)": "oxygen saturation (blood gas)",
    "FiO2": "inspired oxygen",
    "LPM O2": "oxygen flow",
    "TV": "tidal volume",
    "Fe": "iron",
}
# label of respiratoryCharting -> display and unit. Only what says how the patient is supported; alarms, tube care and
# prophylaxis check lists are left out.
RESPIRATORY = {
    "FiO2": ("inspired oxygen", "%"),
    "FIO2 (%)": ("inspired oxygen", "%"),
    "O2 Percentage": ("inspired oxygen", "%"),
    "LPM O2": ("oxygen flow", "L/min"),
    "Oxygen Flow Rate": ("oxygen flow", "L/min"),
    "O2 Device": ("oxygen device", ""),
    "Oxygen Delivery Method": ("oxygen device", ""),
    "Oxygen Delivery Status": ("oxygen device", ""),
    "Respiratory Device": ("oxygen device", ""),
    "SaO2": ("oxygen saturation", "%"),
    "RR (patient)": ("respiratory rate", "/min"),
    "Total RR": ("total respiratory rate", "/min"),
    "Vent Rate": ("ventilator rate", "/min"),
    "Ventilator Support Mode": ("ventilator mode", ""),
    "Non-invasive Ventilation Mode": ("non-invasive ventilation mode", ""),
    "RT Vent On/Off": ("ventilator", ""),
    "PEEP": ("PEEP", "cmH2O"),
    "PEEP/CPAP": ("PEEP or CPAP", "cmH2O"),
    "CPAP": ("CPAP", "cmH2O"),
    "IPAP": ("IPAP", "cmH2O"),
    "EPAP": ("EPAP", "cmH2O"),
    "NIV Setting EPAP": ("EPAP", "cmH2O"),
    "Pressure Support": ("pressure support", "cmH2O"),
    "Pressure Control": ("pressure control", "cmH2O"),
    "Tidal Volume (set)": ("set tidal volume", "mL"),
    "Exhaled TV (patient)": ("exhaled tidal volume", "mL"),
    "Exhaled TV (machine)": ("exhaled tidal volume", "mL"),
    "Exhaled MV": ("minute volume", "L/min"),
    "Peak Insp. Pressure": ("peak inspiratory pressure", "cmH2O"),
    "Plateau Pressure": ("plateau pressure", "cmH2O"),
    "Mean Airway Pressure": ("mean airway pressure", "cmH2O"),
}
# A treatment string -> what was done, without the specialty or organ system it was filed under.
_DONE = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (r"\bconsultation\b", "consultation"),
        (r"\|cultures\b", "culture"),
        (r"chest x-ray", "chest x-ray"),
        (r"head CT scan|\|CT scan\|head", "ct head"),
        (r"MRI - head", "mri head"),
        (r"\|CT scan\|spine|MRI - spine", "ct or mri spine"),
        (r"vascular disorders\|CT scan|pulmonary angiogram", "ct pulmonary angiogram"),
        (r"^pulmonary\|.*\|CT scan|\|CT scan\|chest", "ct chest"),
        (r"^gastrointestinal\|.*\|CT scan|\|CT scan\|(abdomen|pelvis)", "ct abdomen"),
        (r"ultrasonography|renal ultrasound", "ultrasound abdomen"),
        (r"ultrasound of heart", "echocardiogram"),
        (r"non-invasive testing for DVT", "ultrasound leg veins"),
    )
)


@lru_cache(maxsize=65536)
def clean(text: str | None) -> str:
    """Returns a text with entities resolved and single spaces; empty for None."""
    return " ".join(html.unescape(text).split()) if text else ""


def number_or_text(text: str) -> float | str:
    """Returns a finite number where the text is one (also `+5`), else the text."""
    return float(text) if _NUMBER.fullmatch(text) else text


@lru_cache(maxsize=65536)
def plain(text: str) -> str:
    """Returns words in lower case where only their first letter was a capital; abbreviations stay."""
    text = clean(text)
    if text in ("L", "R"):
        return "left" if text == "L" else "right"
    return re.sub(r"\b[A-Z][a-z]+\b", lambda word: word.group().lower(), text)


@lru_cache(maxsize=8192)
def exam(path: str, value: str, text: str) -> tuple[str, float | str, str] | None:
    """Returns display, value and unit of a physicalExam row, or None for a row that only keeps the form.

    Args:
        path: physicalexampath.
        value: physicalexamvalue, the last part of the path.
        text: physicalexamtext: what was typed, else the same as value.
    """
    if not path.startswith(_EXAM_ROOT):
        return None
    stem = path.removeprefix(_EXAM_ROOT).removesuffix("/" + value)
    system, _, rest = stem.partition("/")
    typed = text if text and text != value and not text.startswith("Print ") else ""
    if rest.startswith("Vital Sign and Physiological Data/"):
        return _vital_sign(rest.partition("/")[2], value, typed)
    if rest.startswith("GCS"):
        return _gcs(rest, value)
    if rest.startswith("Weight and I&O/"):
        group = rest.partition("/")[2]
        return _fluid_or_weight(group, value, typed)
    if rest.startswith("Hemodynamic Data/"):
        return (clean(value), number_or_text(typed), "") if typed else None
    parts = [p for p in (rest.split("/") if rest else []) if not p.startswith("Print ") and p != value]
    display = _SYSTEMS.get(system, plain(system))
    if parts:
        display += ": " + ", ".join(plain(p) for p in parts)
    return display, (number_or_text(typed) if typed else plain(value)), ""


def _vital_sign(rest: str, value: str, typed: str) -> tuple[str, float | str, str] | None:
    group, _, detail = rest.partition("/")
    display, unit = _VITALS.get(group, (plain(group), ""))
    if not unit:
        return display, ", ".join(filter(None, (plain(detail.replace("/", ", ")), plain(value)))), ""
    if not typed:
        return None
    which = value.rpartition(" ")[2]
    if which in ("Lowest", "Highest"):
        display += f", {which.lower()}"
    return display, number_or_text(typed), unit


def _gcs(rest: str, value: str) -> tuple[str, float | str, str] | None:
    part = rest.rpartition("/")[2]
    if part == "Score":  # how it was scored
        return None if value == "scored" else ("Glasgow Coma Scale", value.replace("meds", "medication"), "")
    if part in _GCS or part == "GCS":
        return _GCS.get(part, "Glasgow Coma Scale"), number_or_text(value), ""
    last = rest.removeprefix("GCS/").removeprefix("Mental Status/").partition("/")[0]
    return plain(last), plain(value), ""


def _fluid_or_weight(group: str, value: str, typed: str) -> tuple[str, float | str, str] | None:
    if not typed:
        return None
    if group.startswith("Weight"):
        name = {"Admission": "admission weight", "Current": "current weight", "Delta": "weight change"}.get(value)
        return (name, number_or_text(typed), "kg") if name else None
    names = {"Urine": "urine output", "Intake Total": "fluid intake", "Output Total": "fluid output",
             "Total Net": "fluid balance"}  # fmt: skip
    return (names[value], number_or_text(typed), "mL") if value in names else None  # blood products are treatment


@lru_cache(maxsize=4096)
def past_history(path: str, value: str) -> tuple[str, str] | None:
    """Returns display and value of a pastHistory row, or None for a row that only keeps the form."""
    if path.endswith("/Past History Obtain Options/" + NO_HEALTH_PROBLEMS):
        return "past history", NO_HEALTH_PROBLEMS.lower()
    _, found, rest = path.partition("/Organ Systems/")
    if not found:
        return None
    system, _, rest = rest.partition("/")
    rest = rest.removeprefix("Oncology (R)/").removesuffix("/" + value)
    parts = [plain(p) for p in rest.split("/") if p and p.lower() != value.lower()]
    said = plain(value)
    if len(parts) == 1 and set(_words(parts[0])) & set(_words(said)):
        parts = []
    return _HISTORY.get(system, f"past {plain(system)} disease"), ", ".join((*parts, said))


def _words(text: str) -> list[str]:
    return [w for w in re.findall(r"\w+", text.lower()) if len(w) > 3]


@lru_cache(maxsize=4096)
def note_entry(path: str, value: str) -> tuple[str, str] | None:
    """Returns display and value of a note row on social or family history or review of systems, else None."""
    said = plain(value)
    social = "notes/Progress Notes/Social History / Family History/Social History/Social History/"
    family = "notes/Progress Notes/Social History / Family History/Family History/"
    review = "notes/Progress Notes/Review Of Systems/Systems/"
    if path.startswith(social):
        about = path.removeprefix(social).partition("/")[0]
        return {"Smoking Status": "smoking", "Ethanol Use": "alcohol use"}.get(about, plain(about)), said
    if path.startswith(family):
        if "/Family History Obtain Options/" in path:
            return ("family history", said) if value == "Not Significant" else None
        return "family history", said
    if path.startswith(review):
        system = path.removeprefix(review).partition("/")[0]
        return f"review of systems, {plain(system)}", said
    return None


def lab(name: str) -> str:
    """Returns the display of a laboratory name."""
    return _LABS.get(name, name)


@lru_cache(maxsize=512)
def nurse_entry(path: str) -> str | None:
    """Returns the display of a nurse's assessment, or None for scores, interventions and what is no finding."""
    parts = path.split("|")[3:]
    if len(parts) < 2 or parts[0] == "Scores" or "Train of Four" in parts:
        return None
    kept = list(dict.fromkeys(parts[1:] if len(set(parts)) > 1 else parts))
    return "nurse: " + ", ".join(plain(p) for p in kept)


@lru_cache(maxsize=4096)
def done(treatment: str) -> str | None:
    """Returns what a treatment string says was done (an imaging modality, a culture, a consultation), or None."""
    return next((code for pattern, code in _DONE if pattern.search(treatment)), None)


@lru_cache(maxsize=4096)
def treatment(path: str) -> str:
    """Returns the display of a treatment string: its last two parts."""
    return ", ".join(plain(p) for p in path.split("|")[-2:])
