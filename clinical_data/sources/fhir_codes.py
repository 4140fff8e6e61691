"""Code lists that decide what a FHIR resource means here: what is hidden, what urgency and destination it tells."""

from __future__ import annotations

import re
from functools import lru_cache

from clinical_data.case import Coding
from clinical_data.codes_systems import standard

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
MIMIC = "http://mimic.mit.edu/fhir/mimic/CodeSystem/"
MIMIC_ITEMS = MIMIC + "mimic-d-items"
MIMIC_DRUG_NAME = MIMIC + "mimic-medication-name"
MIMIC_FORMULARY = MIMIC + "mimic-medication-formulary-drug-cd"
NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"

# The recorded triage acuity: a label, never a finding.
ACUITY_CODES = frozenset({"56839-4", "11283-9"})

# Documents, and observations whose value is a diagnosis: written at or after the end, or the answer itself.
# Source: loinc.org; clinical.md, leakage traps 1 and 2.
HIDDEN_CODES = frozenset(
    (
        "11535-2", "78375-3", "8651-2", "29308-4", "42347-5", "46241-6", "8646-2", "44833-2", "52797-8", "10219-4",
        "10218-6", "59769-0", "59768-2", "55109-3", "22637-3", "69453-9", "11301-7", "11450-4", "57852-6",
        "18842-5", "8648-8", "10183-2", "75311-1", "8653-8", "10184-0", "11493-4",
        "11506-3", "11488-4", "11504-8", "28570-0", "34117-2", "34109-9", "34133-9", "51848-0", "51847-2", "18776-5",
        "54094-8", "75910-0",
    )
)  # fmt: skip
_HIDDEN_NAME = re.compile(
    r"\bdiagnos[ei]s\b|\bdx\b|\bicd(-| )?(9|10|11)?(-| )?codes?\b|hospital course|\bcause of death\b"
    r"|discharge (summary|diagnos|medic|instruct)|\bacuity\b|\bproblem list\b",
    re.IGNORECASE,
)
_DIAGNOSIS_SYSTEM = re.compile(r"/icd-?(9|10|11)|mimic-diagnosis", re.IGNORECASE)

# Code systems of billing: assigned after discharge, whatever date the row carries (clinical.md, leakage trap 1).
_BILLING = ("icd-10-pcs", "coding/icd10", "icd-9-cm", "procedure-icd", "6.104", "ama-assn.org/go/cpt", "hcpcs")

DIED, UNCLEAR = "died", "unclear"
NO_DESTINATION = {
    DIED: "died in the stay",
    UNCLEAR: "the recorded destination names no kind of place",
}

# Codes of http://terminology.hl7.org/CodeSystem/discharge-disposition, of http://www.nubc.org/patient-discharge, and
# the texts of MIMIC, all in lower case.
_DESTINATIONS = {
    # Who leaves against advice goes home: the question is where to, not on whose decision.
    **dict.fromkeys(
        ("home", "alt-home", "home health care", "01", "1", "06", "6", "aadvice", "against advice",
         "left against medical advice", "left without being seen", "eloped", "07", "7"),
        "home",
    ),
    **dict.fromkeys(
        ("other-hcf", "long", "rehab", "snf", "skilled nursing facility", "chronic/long term acute care",
         "assisted living", "healthcare facility", "other facility", "psy", "psych facility", "03", "3", "04", "4",
         "61", "62", "63", "64", "65"),
        "facility",
    ),
    **dict.fromkeys(("hosp", "hospice", "50", "51"), "hospice"),
    **dict.fromkeys(
        ("acute hospital", "transfer", "02", "2", "05", "5", "43", "66"),
        "other_hospital",
    ),
    **dict.fromkeys(("exp", "died", "expired", "20", "40", "41", "42"), DIED),
}  # fmt: skip


def destination(codes: list[str]) -> str:
    """Returns what a discharge disposition says: a key of `step_truth.DISPOSITIONS`, or one of NO_DESTINATION.

    Args:
        codes: codes and texts of the disposition, most telling first; empty gives an empty string.
    """
    known = [_DESTINATIONS[code.strip().lower()] for code in codes if code.strip().lower() in _DESTINATIONS]
    return known[0] if known else (UNCLEAR if codes else "")


def is_billing(system: str) -> bool:
    """Says whether a code system of procedures is one of billing."""
    return any(part in system.lower() for part in _BILLING)


def tells_diagnosis(loinc: set[str], names: tuple[str, ...], value_systems: set[str]) -> bool:
    """Says whether an observation is a document or names a diagnosis.

    Args:
        loinc: its LOINC codes.
        names: its texts and displays.
        value_systems: code systems of its value.
    """
    return (
        bool(loinc & HIDDEN_CODES)
        or any(map(_hidden_name, names))
        or any(_DIAGNOSIS_SYSTEM.search(system) for system in value_systems)
    )


@lru_cache(maxsize=1 << 14)
def standard_code(system: str, code: str) -> tuple[str, str, str | None]:
    """Returns standard system and written form of a code, and the ICD revision where the system's name was MIMIC's."""
    if system == MIMIC + "mimic-medication-icu":  # the same items under another name
        system = MIMIC_ITEMS
    found = standard(Coding(system, code))
    mimic = re.search(r"-icd(9|10)$", system) if system.startswith(MIMIC) else None
    return found.system, found.code, mimic[1] if mimic else None


@lru_cache(maxsize=1 << 13)  # the same names come again and again
def _hidden_name(name: str) -> bool:
    return _HIDDEN_NAME.search(name) is not None


def acuity_level(text: str) -> int | None:
    """Returns the acuity, 1 (most urgent) to 5, that a recorded value names, or None."""
    found = re.search(r"(?<![\d.])([1-5])(?![\d.])", text)
    return int(found[1]) if found else None
