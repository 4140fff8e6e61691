"""Turns the nested keys of an OSCE scenario into findings.

No two scenarios have the same keys, so none is expected: every text below the three parts is a finding whose code is
its key path. What section a key path belongs to, and what kind of fact it is, follows from its words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from clinical_data.case import Coding, Finding, FindingKind, make_finding_id, sort_findings
from clinical_data.sources import ImportLog

SOURCE = "osce"
PARTS = ("Patient_Actor", "Physical_Examination_Findings", "Test_Results")
DEEPEST = 20  # keys below a part; the data set has 5
TOO_DEEP = f"keys are nested deeper than {DEEPEST} levels"

# First key below Patient_Actor -> section and kind. Other keys are not read: an allow-list.
_ACTOR = {
    "Demographics": ("demographics", FindingKind.HISTORY),
    "History": ("history", FindingKind.HISTORY),
    "Symptoms": ("symptoms", FindingKind.COMPLAINT),
    "Past_Medical_History": ("past_medical_history", FindingKind.HISTORY),
    "Social_History": ("social_history", FindingKind.SOCIAL),
    "Review_of_Systems": ("review_of_systems", FindingKind.HISTORY),
    "Family_History": ("history", FindingKind.FAMILY),
    "Allergies": ("history", FindingKind.ALLERGY),
    "Current_Medications": ("history", FindingKind.MEDICATION_HOME),
    "Medications": ("history", FindingKind.MEDICATION_HOME),
    "Drug_History": ("history", FindingKind.MEDICATION_HOME),
}
_TEST_KINDS = (
    (re.compile(r"cultures?\b|gram stain|\bpcr\b", re.I), FindingKind.MICROBIOLOGY),
    (
        re.compile(
            r"x-? ?ray|radiograph|\bmri\b|\bct\b|imaging|ultraso|doppler|echocardio|mammogra|barium|angiogra|"
            r"scintigra|\bpet\b|venogra|urogra",
            re.I,
        ),
        FindingKind.IMAGING,
    ),
    (
        re.compile(
            r"electro(?:cardio|encephalo|myo|neuro|retino)|\be[ecm]g\b|nerve conduction|audio(?:metr|log)|hearing|"
            r"spirometr|pulmonary function|(?<!micro)scopy\b|polysomno|sleep|autonomic|vestibular|dix-hallpike|"
            r"psychological|screening tests|assessment tools|ophthalmologic consult|urodynamic|manometr",
            re.I,
        ),
        FindingKind.PROCEDURE,
    ),
)
# Keys of the answer and of the task; kept out wherever they stand.
_NEVER = frozenset({"correct_diagnosis", "objective_for_doctor"})

# The scenario says that it does not say; a finding would answer "recorded".
_SILENT = frozenset(
    {"", "n/a", "na", "not applicable", "not assessed", "not available", "not done", "not mentioned", "not performed",
     "not provided", "not reported", "not specified", "not indicated in the scenario provided"}
)  # fmt: skip
_PENDING = "pending"

# One number and one unit, nothing else: `125/80 mmHg`, `37 °C (98.6 °F)`, `4+` and `0-2/hpf` stay text.
_NUMBER = re.compile(r"(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*(\D.*)")
_UNITS = frozenset(
    """
    % °C °F mmHg mm_Hg cmH2O cm_H2O bpm beats/min breaths/min /min min minutes s sec seconds mm/h mm/hr
    g/dL gm/dL g/L mg/dL mg/L μg/dL μg/L μg/mL ng/dL ng/mL pg/mL pg mmol/L μmol/L nmol/L pmol/L mEq/L mOsm/kg mOsm/L
    U/L IU/L U/mL IU/mL mIU/L mIU/mL μIU/mL /μL cells/μL /mm3 /mm^3 /mm³ cells/mm3 cells/mm³ /hpf /HPF fL um^3 μm3 μm^3
    mL L kg g cm mm m kg/m2 kg/m^2 kg/m²
    """.replace("_", " ").split()
) | {"mm Hg", "cm H2O"}

_AGE = re.compile(r"\b(\d{1,3})[- ](year|yr|month|week|day|hour)s?[- ]old\b", re.I)
_NEWBORN = re.compile(r"\b(?:newborn|neonate)\b", re.I)
_SEXES = {
    "female": re.compile(r"\b(?:female|woman|girl|lady)\b", re.I),
    "male": re.compile(r"\b(?:male|man|boy|gentleman)\b", re.I),
}
_OLDEST = 90  # ages above 89 read 90


class TooDeep(Exception):
    """A scenario nested deeper than any is."""


def clean(text: str) -> str:
    """Returns a text on one line, without characters that no database keeps."""
    return " ".join(text.replace("\x00", " ").split())


def findings_of(source_id: str, scenario: dict[str, Any], log: ImportLog) -> tuple[Finding, ...]:
    """Returns the findings of a scenario, all of them known at minute 0.

    Raises:
        TooDeep: keys are nested deeper than 20 levels.
    """
    found = []
    for part in PARTS:
        for path, number, raw in _walk((), scenario.get(part)):
            kept = _section(part, path)
            if kept is None or any(key.lower() in _NEVER for key in path):
                log.unused["key that is not read"] += 1
                continue
            value, unit = _value(raw)
            if isinstance(value, str) and value.lower().rstrip(".") in _SILENT:
                log.unused["the scenario says nothing of it"] += 1
                continue
            pending = isinstance(value, str) and value.lower().rstrip(".") == _PENDING
            section, kind = kept
            found.append(
                Finding(
                    finding_id=make_finding_id(SOURCE, source_id, part, json.dumps([*path, number])),
                    kind=kind,
                    code=Coding(f"wardstar:osce/{section}", clean("/".join(path)) or part, _display(path or (part,))),
                    value=None if pending else value,
                    charted=0,
                    available=0,
                    unit=unit,
                    result_in_source=not pending,
                    note=clean("/".join((part, *path))),
                )
            )
    return sort_findings(found)


def _walk(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], int, Any]]:
    """Yields every leaf as (key path, place in its list from 0, value)."""
    if len(path) > DEEPEST:
        raise TooDeep(TOO_DEEP)
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _walk((*path, key), below)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            if isinstance(one, dict | list):
                yield from _walk((*path, str(number + 1)), one)
            elif one is not None:
                yield path, number, one
    elif value is not None:
        yield path, 0, value


def _section(part: str, path: Sequence[str]) -> tuple[str, FindingKind] | None:
    """Returns section and kind of a key path; None when it is not read."""
    if part == "Patient_Actor":
        return _ACTOR.get(path[0]) if path else None
    if path and path[0].lower().startswith("vital_sign"):
        return "vital_signs", FindingKind.VITAL
    if part == "Physical_Examination_Findings":
        return "examination", FindingKind.EXAMINATION
    words = " ".join(path).replace("_", " ")
    return "tests", next((kind for pattern, kind in _TEST_KINDS if pattern.search(words)), FindingKind.LABORATORY)


def _display(path: Sequence[str]) -> str:
    """Returns a key path in words; a first key that only names the section is left out."""
    scaffold = path[0] == "Symptoms" or path[0].lower().startswith("vital_sign")
    shown = path[1:] if scaffold and len(path) > 1 else path
    return ", ".join(clean(key.replace("_", " ")) for key in shown)


def _value(raw: Any) -> tuple[float | str, str]:
    """Returns value and unit: a number where the text is one number with one unit, else the text as it is."""
    if isinstance(raw, bool):
        return "yes" if raw else "no", ""
    if isinstance(raw, int | float):
        return float(raw), ""  # the JSON reader refuses what is not finite
    text = clean(raw)
    match = _NUMBER.fullmatch(text)
    unit = match[2].replace("µ", "μ") if match else ""  # the micro sign is the Greek letter
    if match and unit in _UNITS:
        return float(match[1].replace(",", "")), unit
    return text, ""


def person_of(demographics: Any) -> tuple[int | None, str]:
    """Returns age in completed years and sex (`female`, `male`, `unknown`) from the words for them.

    Age is None, and sex `unknown`, where the words leave it open or name two.
    """
    text = demographics if isinstance(demographics, str) else ""
    named = [sex for sex, pattern in _SEXES.items() if pattern.search(text)]
    return _age(text), named[0] if len(named) == 1 else "unknown"


def _age(text: str) -> int | None:
    match = _AGE.search(text)
    if match is None:
        return 0 if _NEWBORN.search(text) else None
    number, unit = int(match[1]), match[2].lower()
    years = {"year": number, "yr": number, "month": number // 12, "week": number // 52}.get(unit, number // 365)
    return min(years, _OLDEST)


def says(findings: Sequence[Finding], answer: str) -> bool:
    """Says whether a finding holds the answer as a whole phrase, case ignored.

    Of `Benign paroxysmal positional vertigo (BPPV)`, the whole, the words before the brackets and those in them count.
    """
    if not answer:
        return False
    plain = _quotes(answer)
    forms = {plain, re.sub(r"\s*\([^)]*\)\s*$", "", plain), *re.findall(r"\(([^)]{2,})\)\s*$", plain)}
    phrase = "|".join(re.escape(form) for form in sorted(forms - {""}))
    pattern = re.compile(rf"(?<!\w)(?:{phrase})(?!\w)", re.I)
    return any(pattern.search(_quotes(f"{f.code.display}: {f.value}")) for f in findings)


def _quotes(text: str) -> str:
    return text.replace("’", "'")
