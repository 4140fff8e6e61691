"""Code systems: their URIs under every name a record uses, and how a code of each is written.

A code is never repaired by guessing: padding, case, and a missing dot (whose place the classification fixes) are put
right; anything else is left as it was and named by `fault`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from clinical_data.case import Coding

ICD10_CM = "http://hl7.org/fhir/sid/icd-10-cm"
ICD9_CM = "http://hl7.org/fhir/sid/icd-9-cm"  # diagnoses (volumes 1 and 2)
ICD9_CM_PROCEDURE = "urn:oid:2.16.840.1.113883.6.104"  # volume 3, which has no URI of its own
ICD10 = "http://hl7.org/fhir/sid/icd-10"  # WHO
ICD10_GM = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
ICD10_PCS = "http://www.cms.gov/Medicare/Coding/ICD10"
LOINC = "http://loinc.org"
ATC = "http://www.whocc.no/atc"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
EICU_ADMISSION = "wardstar:eicu/admissiondx"  # operative|organ system|term
EICU_DIAGNOSIS = "wardstar:eicu/diagnosis"  # a|b|c, coarsest first

_MIMIC = "http://mimic.mit.edu/fhir/mimic/CodeSystem/"
# Other names under which records give the same systems, in lower case.
# Source: HL7 Terminology (terminology.hl7.org), "External code systems"; MIMIC-IV on FHIR, code systems.
_ALIASES = {
    f"{_MIMIC}mimic-diagnosis-icd10": ICD10_CM,
    "urn:oid:2.16.840.1.113883.6.90": ICD10_CM,
    "icd10cm": ICD10_CM,
    "icd-10-cm": ICD10_CM,
    f"{_MIMIC}mimic-diagnosis-icd9": ICD9_CM,
    "urn:oid:2.16.840.1.113883.6.103": ICD9_CM,
    "icd9cm": ICD9_CM,
    "icd-9-cm": ICD9_CM,
    f"{_MIMIC}mimic-procedure-icd9": ICD9_CM_PROCEDURE,
    "icd9proc": ICD9_CM_PROCEDURE,
    f"{_MIMIC}mimic-procedure-icd10": ICD10_PCS,
    "http://www.icd10data.com/icd10pcs": ICD10_PCS,
    "http://hl7.org/fhir/sid/icd-10-pcs": ICD10_PCS,
    "urn:oid:2.16.840.1.113883.6.4": ICD10_PCS,
    "icd10pcs": ICD10_PCS,
    "icd-10-pcs": ICD10_PCS,
    "urn:oid:2.16.840.1.113883.6.3": ICD10,
    "icd10": ICD10,
    "icd-10": ICD10,
    "http://hl7.org/fhir/sid/icd-10-gm": ICD10_GM,
    "http://fhir.de/codesystem/dimdi/icd-10-gm": ICD10_GM,
    "icd10gm": ICD10_GM,
    "icd-10-gm": ICD10_GM,
    "urn:oid:2.16.840.1.113883.6.1": LOINC,
    "loinc": LOINC,
    "urn:oid:2.16.840.1.113883.6.73": ATC,
    "http://fhir.de/codesystem/bfarm/atc": ATC,
    "atc": ATC,
    "urn:oid:2.16.840.1.113883.6.88": RXNORM,
    "rxnorm": RXNORM,
}
_CANONICAL = {uri.lower(): uri for uri in (*_ALIASES.values(), EICU_ADMISSION, EICU_DIAGNOSIS)} | {
    name.lower(): uri for name, uri in _ALIASES.items()
}


def standard_system(system: str) -> str:
    """Returns the URI of a code system, whichever of its names is given; an unknown one unchanged."""
    flat = system.strip()
    if re.fullmatch(r"\d+(\.\d+)+", flat):
        flat = f"urn:oid:{flat}"
    return _CANONICAL.get(flat.rstrip("/").lower(), system)


def standard(coding: Coding) -> Coding:
    """Returns a coding under its system's URI and in its written form: ` e8503 ` of ICD-9-CM becomes `E850.3`.

    A code that is not well formed, or of a system without a rule, stays verbatim; display and version always do.
    """
    system = standard_system(coding.system)
    return replace(coding, system=system, code=_written(system, coding.code) or coding.code)


def fault(coding: Coding) -> str:
    """Returns why a code is not well formed in its system; empty when it is, or when its system has no rule here.

    Well formed is not the same as known: only the ICD tables are at hand (see `clinical_data.codes_icd`).
    """
    system = standard_system(coding.system)
    if system not in _RULES or _written(system, coding.code) is not None:
        return ""
    if system == LOINC and _LOINC.fullmatch(coding.code.strip()):
        return "the check digit of the LOINC code is wrong"
    return f"not written as {_RULES[system][1]}"


def is_icd10(system: str) -> bool:
    """Says whether a code system is ICD-10 of diagnoses: WHO's or a national modification."""
    return standard_system(system) in (ICD10_CM, ICD10, ICD10_GM)


def loinc_check_digit(number: str) -> int:
    """Returns the check digit of the number part of a LOINC code.

    Source: LOINC Users' Guide, appendix "Calculating Mod 10 check digits": from the right every other digit counts
    double, the digits of all results are summed, and the check digit completes the sum to a multiple of ten.
    """
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value // 10 + value % 10
    return -total % 10


_LOINC = re.compile(r"(\d{1,7})-(\d)")


def _dotted(*patterns: str) -> Callable[[str], str | None]:
    """Returns the rule of a code whose dot may be missing: each pattern has the part before and the part after it."""
    forms = [re.compile(p) for p in patterns]

    def written(code: str) -> str | None:
        found = next((m for m in (f.fullmatch(code.strip().upper()) for f in forms) if m), None)
        return None if found is None else f"{found[1]}.{found[2]}" if found[2] else str(found[1])

    return written


def _plain(pattern: str) -> Callable[[str], str | None]:
    form = re.compile(pattern)
    return lambda code: code.strip().upper() if form.fullmatch(code.strip().upper()) else None


def _loinc(code: str) -> str | None:
    found = _LOINC.fullmatch(code.strip())
    return found[0] if found and loinc_check_digit(found[1]) == int(found[2]) else None


def _path(levels: int | None) -> Callable[[str], str | None]:
    """Returns the rule of a path `a|b|c`; with `levels`, what follows the last of them belongs to the term."""

    def written(code: str) -> str | None:
        parts = code.split("|") if levels is None else code.split("|", levels - 1)
        return code if all(part.strip() for part in parts) else None

    return written


# `18.-`, `18.9+`: WHO and GM mark what is left open and which of two codes is the manifestation.
_WHO = r"([A-Z]\d{2})\.?(\d{0,2})[-+*!†]?"
_RULES: dict[str, tuple[Callable[[str], str | None], str]] = {
    ICD10_CM: (_dotted(r"([A-Z]\d[0-9A-Z])\.?([0-9A-Z]{0,4})"), "an ICD-10-CM code"),
    ICD9_CM: (_dotted(r"(\d{3}|V\d{2})\.?(\d{0,2})", r"(E\d{3})\.?(\d?)"), "an ICD-9-CM diagnosis code"),
    ICD9_CM_PROCEDURE: (_dotted(r"(\d{2})\.?(\d{0,2})"), "an ICD-9-CM procedure code"),
    ICD10: (_dotted(_WHO), "an ICD-10 code"),
    ICD10_GM: (_dotted(_WHO), "an ICD-10-GM code"),
    ICD10_PCS: (_plain(r"[0-9A-HJ-NP-Z]{7}"), "an ICD-10-PCS code"),
    LOINC: (_loinc, "a LOINC code"),
    ATC: (_plain(r"[A-DGHJLMNPRSV](\d{2}([A-Z]([A-Z](\d{2})?)?)?)?"), "an ATC code"),
    RXNORM: (_plain(r"[1-9]\d{0,7}"), "an RxNorm identifier"),
    EICU_ADMISSION: (_path(3), "operative|organ system|term"),
    EICU_DIAGNOSIS: (_path(None), "a path of eICU diagnoses"),
}


def _written(system: str, code: str) -> str | None:
    rule = _RULES.get(system)
    return rule[0](code) if rule else None
