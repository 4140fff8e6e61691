"""What an event of a MEDS data set is, told by its code alone.

MEDS fixes the columns, not the codes. Known here are those of the MIMIC-IV ETL (MEDS 0.3 and 0.4), whose parts stand
between `//`, and codes of a terminology (`LOINC/2160-0`), as the code itself or as its parent in `codes.parquet`. Any
other code is not used.

Never used: DRG, HCPCS, ICD procedures (coded after the stay), the type of admission, death, and every end of what is
shown by its beginning (`MEDICATION//STOP`, `INFUSION_END`, `PROCEDURE//END`, `ICU_DISCHARGE`).

Source: github.com/Medical-Event-Data-Standard/MIMIC_IV_MEDS, event_configs.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clinical_data.case import PRESENT, FindingKind
from clinical_data.clocks import CULTURE_LAG, LAB_LAG
from clinical_data.codes import ICD9_CM, ICD10_CM, LOINC, RXNORM
from clinical_data.sources import mimic_iv_items as items
from clinical_data.sources.mimic_findings import BEDSIDE_LAG, DRUG_NAME, ITEMS, LABS, PROCEDURE_LAG, clean

OWN = "wardstar:meds/code"  # codes of a data set that belong to no known system
OMR = "wardstar:mimic-iv/omr"
FIRST_ICU_ITEM = 200_000  # MIMIC numbers laboratory items from 50801 and MetaVision items from 220001

# What an event is for, besides a finding.
ADMISSION, DISCHARGE, ED_IN, ED_OUT, ICU = "admission", "discharge", "ed_in", "ed_out", "icu"
BIRTH, SEX, DIAGNOSIS, FINDING, UNUSED = "birth", "sex", "diagnosis", "finding", "unused"

_STRUCTURE = {"ED_REGISTRATION": ED_IN, "ED_OUT": ED_OUT, "ICU_ADMISSION": ICU, "MEDS_BIRTH": BIRTH}
_NEVER = {
    "DRG": "coded after the stay", "HCPCS": "coded after the stay", "CPT": "coded after the stay",
    "CPT4": "coded after the stay", "MEDS_DEATH": "never shown: death", "DEATH": "never shown: death",
    "ICU_DISCHARGE": "never shown: the end of something", "INFUSION_END": "never shown: the end of something",
    "INSURANCE": "not needed", "LANGUAGE": "not needed", "MARITAL_STATUS": "not needed", "RACE": "not needed",
    "ETHNICITY": "not needed",
}  # fmt: skip
_GIVEN = (
    "administered", "delayed administered", "partial administered", "administered bolus from iv drip",
    "administered in other location", "started", "started in other location", "restarted", "applied",
)  # fmt: skip
_OMR = re.compile(r"(?:Blood Pressure|Weight|Height|BMI)\b.*|eGFR", re.IGNORECASE)
_TERMINOLOGY = re.compile(r"(LOINC|RxNorm|ICD10CM|ICD9CM)/+([^/]+)")
_LOINC_VITALS = frozenset(
    ("8867-4", "8480-6", "8462-4", "8478-0", "9279-1", "8310-5", "8331-1", "2708-6", "59408-5", "29463-7", "8302-2",
     "39156-5", "3141-9", "85354-9")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code says of its events.

    Attributes:
        use: one of the constants above.
        kind: kind of finding; of what is no finding, empty.
        system, code, display: coding of the finding; of an admission or discharge the display is the place.
        unit: unit of a number.
        lag: minutes from the event until it could be known.
        day: whether only the day of the event is known: `always`, `midnight` (when it reads midnight), or empty.
        value: value of an event that has none of its own; `-` says that the result is not in the source.
        pending: whether it was known to be under way from the time of the event.
        reason: why the code is not used.
    """

    use: str
    kind: str = ""
    system: str = ""
    code: str = ""
    display: str = ""
    unit: str = ""
    lag: int = 0
    day: str = ""
    value: str = ""
    pending: bool = False
    reason: str = ""


def meaning_of(code: str, description: str = "", parents: Sequence[str] = ()) -> Meaning:
    """Returns what a code means.

    Args:
        code: as in the events.
        description, parents: what `codes.parquet` says of it.
    """
    head, *rest = (part.strip() for part in code.split("//"))
    head = head.upper()
    if head in _NEVER:
        return _unused(_NEVER[head])
    if head in _STRUCTURE:
        return Meaning(_STRUCTURE[head], display=_known(rest, 0))
    if head in ("HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE"):
        place = _known(rest, 1) if head == "HOSPITAL_ADMISSION" else _known(rest, 0)
        return Meaning(ADMISSION if head == "HOSPITAL_ADMISSION" else DISCHARGE, display=place)
    if head in ("GENDER", "SEX"):
        return Meaning(SEX, display=_known(rest, 0)[:1].upper())
    if head in _BY_HEAD:
        return _BY_HEAD[head](code, rest, " ".join(description.split("\n")[0].split()))
    if _OMR.fullmatch(code):
        kind = FindingKind.LABORATORY if head == "EGFR" else FindingKind.VITAL
        return Meaning(FINDING, kind, OMR, code, f"{code}, outpatient record", day="always")
    return _of_terminology(code, description, parents)


def _unused(reason: str) -> Meaning:
    return Meaning(UNUSED, reason=reason)


def _known(parts: Sequence[str], place: int) -> str:
    """Returns a part of a code; empty where it is missing or reads UNK, the ETL's word for NULL."""
    text = clean(parts[place]) if len(parts) > place else ""
    return "" if text.upper() == "UNK" else text


def _laboratory(code: str, rest: Sequence[str], description: str) -> Meaning:
    """LAB//ITEM//UNIT (taken; also bedside), LAB//RESULT//ITEM//UNIT (stored), LAB//SPECIMEN_COLLECTED//ITEM."""
    stage = rest[0] if rest and rest[0] in ("RESULT", "SPECIMEN_COLLECTED") else ""
    item, unit = _known(rest[1:] if stage else rest, 0), _known(rest[1:] if stage else rest, 1)
    if not item:
        return _unused("a laboratory code without a test")
    if item.isdecimal() and int(item) >= FIRST_ICU_ITEM and not stage:
        return _bedside(int(item), description)
    system = LABS if item.isdecimal() else OWN
    named = Meaning(FINDING, FindingKind.LABORATORY, system, item, description or item, unit)
    if stage == "RESULT":
        return named  # the time is that of the result
    if stage:
        # The collection is a fact of its own. Nothing links it to its result: it stays pending as long as the slowest.
        return Meaning(
            FINDING, FindingKind.LABORATORY, system, item, description or item, "", CULTURE_LAG, "", "-", True
        )
    return Meaning(
        FINDING, FindingKind.LABORATORY, system, item, description or item, unit, LAB_LAG, "", "", pending=True
    )


def _bedside(item: int, description: str) -> Meaning:
    if item not in items.CHARTED:
        return _unused("a bedside item that is not on the list")
    unit = items.VITALS.get(item, "")
    return Meaning(FINDING, items.charted_kind(item), ITEMS, str(item), description or str(item), unit, BEDSIDE_LAG)


def _culture(code: str, rest: Sequence[str], description: str) -> Meaning:
    name = "//".join(rest) or code
    display = description or name.replace("//", " ").lower()
    return Meaning(FINDING, FindingKind.MICROBIOLOGY, OWN, code, display, "", CULTURE_LAG, "", "", pending=True)


def _diagnosis(code: str, rest: Sequence[str], description: str) -> Meaning:
    """DIAGNOSIS//ICD//VERSION//CODE."""
    system = {"9": ICD9_CM, "10": ICD10_CM}.get(_known(rest, 1)) if _known(rest, 0).upper() == "ICD" else None
    if system is None or not _known(rest, 2):
        return _unused("a diagnosis code of an unknown system")
    return Meaning(DIAGNOSIS, FindingKind.HISTORY, system, _known(rest, 2), description, value=PRESENT)


def _procedure(code: str, rest: Sequence[str], description: str) -> Meaning:
    """PROCEDURE//START//ITEM; PROCEDURE//ICD//VERSION//CODE is coded after the stay."""
    item = _known(rest, 1)
    if _known(rest, 0) != "START" or not item.isdecimal():
        return _unused("coded after the stay" if _known(rest, 0) == "ICD" else "never shown: the end of something")
    if int(item) in items.NOT_SHOWN:
        return _unused("a bedside item that is not on the list")
    kind = items.done_kind(int(item))
    return Meaning(
        FINDING, kind or FindingKind.TREATMENT, ITEMS, item, description or item, "", PROCEDURE_LAG, "",
        "-" if kind else "done",
    )  # fmt: skip


def _medication(code: str, rest: Sequence[str], description: str) -> Meaning:
    """MEDICATION//START//DRUG (ordered from), MEDICATION//DRUG//Administered; both may end in a drug number."""
    first, second = _known(rest, 0), _known(rest, 1)
    if first == "STOP":
        return _unused("never shown: the end of something")
    if first == "START":
        drug, value, day = second, "started", "midnight"
    else:
        drug, value, day = first, second.lower(), ""
        if second and value not in _GIVEN:
            return _unused("a drug that was not given")
    if not drug:
        return _unused("a drug without a name")
    return Meaning(FINDING, FindingKind.TREATMENT, DRUG_NAME, drug, drug, "", 0, day, value or "given")


def _infusion(code: str, rest: Sequence[str], description: str) -> Meaning:
    item = _known(rest, 0)
    if not item:
        return _unused("an infusion without an item")
    system = ITEMS if item.isdecimal() else OWN
    return Meaning(FINDING, FindingKind.TREATMENT, system, item, description or item, "", BEDSIDE_LAG, "", "started")


def _transfer(code: str, rest: Sequence[str], description: str) -> Meaning:
    """TRANSFER_TO//EVENT//UNIT: a level of care, hidden until the treatment step."""
    event, unit = _known(rest, 0), _known(rest, 1)
    if event not in ("admit", "transfer") or unit in ("", "Unknown", "UNKNOWN", "Discharge Lounge"):
        return _unused("a transfer that is no move to a unit")
    return Meaning(FINDING, FindingKind.TREATMENT, "wardstar:meds/transfers", unit, f"moved to {unit}", value=PRESENT)


def _output(code: str, rest: Sequence[str], description: str) -> Meaning:
    item = _known(rest, 0)
    if not item.isdecimal() or int(item) in items.IRRIGANT:
        return _unused("a bedside item that is not on the list")
    display = f"Output: {description or item}"
    unit = {"ml": "mL"}.get(_known(rest, 1), _known(rest, 1))
    return Meaning(FINDING, FindingKind.VITAL, ITEMS, item, display, unit, BEDSIDE_LAG)


def _weight(code: str, rest: Sequence[str], description: str) -> Meaning:
    unit = _known(rest, 0).lower() or "kg"
    return Meaning(FINDING, FindingKind.VITAL, OWN, "SUBJECT_WEIGHT_AT_INFUSION", "body weight", unit, BEDSIDE_LAG)


_BY_HEAD = {
    "LAB": _laboratory,
    "MICROBIOLOGY": _culture,
    "DIAGNOSIS": _diagnosis,
    "PROCEDURE": _procedure,
    "MEDICATION": _medication,
    "INFUSION_START": _infusion,
    "TRANSFER_TO": _transfer,
    "SUBJECT_FLUID_OUTPUT": _output,
    "SUBJECT_WEIGHT_AT_INFUSION": _weight,
}


def _of_terminology(code: str, description: str, parents: Sequence[str]) -> Meaning:
    """Returns the meaning of a code that is, or has as its parent, a code of a known terminology."""
    for text in (code, *parents):
        if not (found := _TERMINOLOGY.match(text)):
            continue
        name, number = found[1], found[2]
        display = " ".join(description.split()) or code
        own = text == code
        if name in ("ICD10CM", "ICD9CM"):
            system = ICD10_CM if name == "ICD10CM" else ICD9_CM
            return Meaning(DIAGNOSIS, FindingKind.HISTORY, system, number, description, value=PRESENT)
        if name == "RxNorm":
            system, shown = (RXNORM, number) if own else (OWN, code)
            return Meaning(FINDING, FindingKind.TREATMENT, system, shown, display, value="given")
        vital = number in _LOINC_VITALS
        return Meaning(
            FINDING, FindingKind.VITAL if vital else FindingKind.LABORATORY, LOINC, number, display, "",
            BEDSIDE_LAG if vital else LAB_LAG, "", "", pending=not vital,
        )  # fmt: skip
    return _unused("a code that this importer does not know")
