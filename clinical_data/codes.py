"""Codes of diagnoses, tests and drugs: one written form, one hierarchy, whatever system a record uses.

    codes_systems.py   URIs under every name, written forms, check digits
    codes_icd.py       ICD classes, ICD-9-CM to ICD-10-CM, CCSR, versions of the tables
    codes.py           all of it, and what stands above a code

Importing this reads no table.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from clinical_data.case import Coding
from clinical_data.codes_icd import IcdClasses, code_versions, equivalents, icd10_ancestors, icd_classes
from clinical_data.codes_systems import (
    ATC,
    EICU_ADMISSION,
    EICU_DIAGNOSIS,
    ICD9_CM,
    ICD9_CM_PROCEDURE,
    ICD10,
    ICD10_CM,
    ICD10_GM,
    ICD10_PCS,
    LOINC,
    RXNORM,
    fault,
    is_icd10,
    loinc_check_digit,
    standard,
    standard_system,
)

__all__ = [
    "ATC",
    "EICU_ADMISSION",
    "EICU_DIAGNOSIS",
    "ICD9_CM",
    "ICD9_CM_PROCEDURE",
    "ICD10",
    "ICD10_CM",
    "ICD10_GM",
    "ICD10_PCS",
    "LOINC",
    "RXNORM",
    "IcdClasses",
    "ancestors",
    "code_versions",
    "equivalents",
    "fault",
    "icd_classes",
    "is_icd10",
    "loinc_check_digit",
    "parent",
    "standard",
    "standard_system",
]


def ancestors(coding: Coding) -> tuple[Coding, ...]:
    """Returns what stands above a code in its own system, nearest first.

    ICD-10-CM: subcategories, category, block, chapter. ICD-9-CM, ICD-10 of other countries: up to the category. ATC:
    its five levels. eICU: the shorter paths. Empty for a system without a hierarchy here, and for a code that is not
    well formed or unknown.
    """
    own = standard(coding)
    above = _ABOVE.get(own.system)
    return above(own) if above and not fault(own) else ()


def parent(coding: Coding) -> Coding | None:
    """Returns what stands next above a code, or None; see `ancestors`."""
    return next(iter(ancestors(coding)), None)


def _icd10_cm(own: Coding) -> tuple[Coding, ...]:
    return icd10_ancestors(own.code)


def _shorter(own: Coding) -> tuple[Coding, ...]:
    """Returns 414.0 and 414 for 414.01."""
    category, _, rest = own.code.partition(".")
    longer = [f"{category}.{rest[:n]}" for n in range(len(rest) - 1, 0, -1)]
    return tuple(Coding(own.system, code) for code in (*longer, *([category] if rest else [])))


def _atc(own: Coding) -> tuple[Coding, ...]:
    return tuple(Coding(own.system, own.code[:n]) for n in (5, 4, 3, 1) if n < len(own.code))


def _paths(levels: int = 0) -> Callable[[Coding], tuple[Coding, ...]]:
    """Returns the hierarchy of paths `a|b|c`; what follows the last of `levels` (0: any number) is one term."""

    def above(own: Coding) -> tuple[Coding, ...]:
        parts = re.split(r"\|", own.code, maxsplit=max(levels - 1, 0))
        return tuple(Coding(own.system, "|".join(parts[:n]), parts[n - 1]) for n in range(len(parts) - 1, 0, -1))

    return above


_ABOVE: dict[str, Callable[[Coding], tuple[Coding, ...]]] = {
    ICD10_CM: _icd10_cm,
    ICD9_CM: _shorter,
    ICD9_CM_PROCEDURE: _shorter,
    ICD10: _shorter,
    ICD10_GM: _shorter,
    ATC: _atc,
    EICU_ADMISSION: _paths(3),
    EICU_DIAGNOSIS: _paths(),
}
