"""How rows of MIMIC-III, MIMIC-IV, and MEDS made from it, become findings: code systems, lags, texts, and the form.

Source: MIMIC-III 1.4, Johnson et al., Sci Data 2016, doi:10.1038/sdata.2016.35; MIMIC-IV 2.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from clinical_data.case import PRESENT, Coding, Finding, FindingKind, make_finding_id
from clinical_data.clocks import DAY
from clinical_data.codes import ICD9_CM, ICD10_CM, standard
from clinical_data.sources.tables import Row

_FHIR = "http://mimic.mit.edu/fhir/mimic/CodeSystem"
LABS = f"{_FHIR}/mimic-d-labitems"
ITEMS = f"{_FHIR}/mimic-d-items"
TESTS = f"{_FHIR}/mimic-microbiology-test"
FORMULARY = f"{_FHIR}/mimic-medication-formulary-drug-cd"
DRUG_NAME = f"{_FHIR}/mimic-medication-name"
GSN = f"{_FHIR}/mimic-medication-gsn"

# Lags in minutes for rows without the time at which they were entered: the 95th percentile of bedside charting,
# measured on outputevents of the MIMIC-IV demo (7,040 rows); a procedure gets the longest that is not microbiology's.
BEDSIDE_LAG = 146
PROCEDURE_LAG = 4 * 60

_CANCELLED = re.compile(r"(?:test )?cancell?ed\b", re.IGNORECASE)


@lru_cache(maxsize=1 << 15)  # units, names and short results repeat
def clean(text: str | None) -> str:
    """Returns a text without superfluous white space; empty for NULL and for one that is masked (`___`) as a whole."""
    words = " ".join(text.replace("\0", " ").split()) if text else ""  # PostgreSQL stores no NUL
    return "" if words.strip("_. ") == "" else words


def icd(code: str, version: int | None, title: str | None) -> Coding | None:
    """Returns an ICD code of MIMIC (no dot) in its written form; None for another version than 9 and 10."""
    system = {9: ICD9_CM, 10: ICD10_CM}.get(version or 0)
    return standard(Coding(system, clean(code), clean(title), str(version))) if system and clean(code) else None


def cancelled(text: str) -> bool:
    """Says whether a comment, or what stands in place of an organism, tells that a culture was not carried out."""
    return _CANCELLED.match(text) is not None


def known(row: Row, lag: int) -> int:
    """Returns the minute from which a row could be known: when it was entered, else a lag after it was taken."""
    if row.get("stored") is not None:
        return int(row["stored"])
    taken = row.get("taken", row["charted"])
    return 0 if taken is None else int(taken) + lag


def number_of(value: float | None) -> float | None:
    """Returns a number; None for one that is none (NaN, infinite)."""
    return value if value is not None and math.isfinite(value) else None


def number_or_text(text: str) -> float | str:
    """Returns a text as the number that it says, if it says one."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def make(
    source: str,
    table: str,
    key: Sequence[object],
    kind: FindingKind,
    code: Coding,
    value: float | str | None,
    charted: int | None,
    available: int,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    flag: str = "",
    pending_from: int | None = None,
    note: str = "",
    place: str = "",
) -> list[Finding]:
    """Returns the finding of a row, or none where the row has no usable time.

    Args:
        source: name of the source.
        table: table, or sort of event, that it was read from.
        key: the row's own key.
        kind, code, value, unit, low, high, flag: what was found; value None: it was done, the result is not in the
            source.
        charted: minute of observation; None where the row has no usable time.
        available: minute from which it could be known.
        pending_from: minute from which it was known to be under way.
        note: what else a reviewer may want to know of the row.
        place: how the note names the row; the key, where it is left out.
    """
    if charted is None:
        return []
    available = max(charted, available)
    found = Finding(
        finding_id=make_finding_id(source, table, *map(str, key)),
        kind=kind,
        code=code,
        value=value,
        charted=charted,
        available=available,
        unit=unit,
        low=low,
        high=high,
        flag=flag,
        pending_from=None if pending_from is None else min(pending_from, available),
        result_in_source=value is not None,
        note=f"{table} {place or ' '.join(map(str, key))}".replace("\0", " ") + (f", {note}" if note else ""),
    )
    return [found]


def earlier_admission(source: str, table: str, row: Row) -> list[Finding]:
    """Returns an earlier admission, known from its end; why it was is in its diagnoses.

    Args:
        row: case_key, row_key, `minutes` that it lasted, and the minutes at which it began (`charted`) and `ended`.
    """
    days = max(1, math.ceil((row["minutes"] or 0) / DAY))
    coding = Coding(f"wardstar:{source}/admissions", "prior_admission", "earlier hospital admission")
    value = f"stayed {days} day{'' if days == 1 else 's'}"
    key = (row["case_key"], row["row_key"])
    return make(source, table, key, FindingKind.HISTORY, coding, value, row["charted"], row["ended"])


def earlier_diagnosis(source: str, table: str, code: Sequence[str], coding: Coding | None, row: Row) -> list[Finding]:
    """Returns a diagnosis of earlier admissions, known from the end of the first that has it; none without a code.

    Args:
        code: names the diagnosis in the key of the finding.
        row: case_key, and the minute at which that admission `ended`.
    """
    if coding is None:
        return []
    key = (row["case_key"], *code)
    return make(source, table, key, FindingKind.HISTORY, coding, PRESENT, row["ended"], row["ended"])
