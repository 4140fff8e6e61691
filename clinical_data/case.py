"""What a recorded hospital case is: patient, encounter, findings, and the time each fact became known.

Times are whole minutes relative to the start of the case (negative: before it), because published
records shift dates (MIMIC) or give offsets only (eICU). A time never carries a calendar date.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import StrEnum

import orjson


@dataclass(frozen=True, slots=True)
class Coding:
    """A code of a code system, as FHIR's Coding.

    Attributes:
        system: URI of the code system (`http://loinc.org`), or `wardstar:eicu/TABLE` for a source's own names.
        code: the code, verbatim.
        display: human text of the code; may be empty.
        version: version of the code system, where the record gives one.
    """

    system: str
    code: str
    display: str = ""
    version: str | None = None


PRESENT = "recorded"
"""Value of a finding that says only that something is there (a condition, a drug at home)."""


class FindingKind(StrEnum):
    """What sort of fact a finding is; decides lag rules, and which steps may see it."""

    COMPLAINT = "complaint"
    HISTORY = "history"
    EXAMINATION = "examination"
    VITAL = "vital"
    LABORATORY = "laboratory"
    MICROBIOLOGY = "microbiology"
    IMAGING = "imaging"
    MEDICATION_HOME = "medication_home"
    ALLERGY = "allergy"
    SOCIAL = "social"
    FAMILY = "family"
    PROCEDURE = "procedure"
    TREATMENT = "treatment"  # in-hospital treatment and orders: hidden until the treatment step


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact of the record, with the time from which a clinician could know it.

    Attributes:
        finding_id: stable id, derived from the source row's key alone (two imports agree).
        kind: sort of fact.
        code: what was observed.
        value: number, text, or None when the record holds no result (see `result_in_source`).
        unit: UCUM or source unit; empty when the value has none.
        low, high: reference range, in `unit`.
        flag: the source's own abnormality flag (`H`, `L`, `A`), or empty.
        charted: minute of observation or collection.
        available: minute from which the value could be known (result, entry); never before `charted`.
        pending_from: minute from which the order or collection was known; None when that is not recorded.
            Between `pending_from` and `available` a request answers `pending`.
        result_in_source: False when the record says that it was done but holds no result.
        note: where it comes from in the source's own words (table, path); shown to reviewers, never prompted.
    """

    finding_id: str
    kind: FindingKind
    code: Coding
    value: float | str | None
    charted: int
    available: int
    unit: str = ""
    low: float | None = None
    high: float | None = None
    flag: str = ""
    pending_from: int | None = None
    result_in_source: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        if self.available < self.charted:
            raise ValueError(f"{self.finding_id}: available before it was charted")


@dataclass(frozen=True, slots=True)
class Patient:
    """The person a case belongs to.

    Attributes:
        patient_id: `SOURCE-ID`, unique over all sources.
        source: name of the source (`fhir`, `eicu`, ...).
        source_id: the source's own key of the person.
        sex: `female`, `male`, `other` or `unknown` (FHIR administrative gender).
    """

    patient_id: str
    source: str
    source_id: str
    sex: str = "unknown"


@dataclass(frozen=True, slots=True)
class Encounter:
    """A contact within a case: the case's own stay, or a part of it (ED, ICU).

    Attributes:
        encounter_id: the source's own key.
        kind: `inpatient`, `emergency`, `icu`, `observation` or `consultation` (a scenario without a stay).
        start, end: minutes relative to the start of the case; end None while unknown.
    """

    encounter_id: str
    kind: str
    start: int
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One recorded hospital case, without any ground truth.

    Attributes:
        case_id: `SOURCE-SOURCE_ID`; derives from these two alone.
        source, source_id: source name, and its own key (hadm_id, patientunitstayid, Encounter.id).
        patient: the person.
        age: years at the start of the case, None when unknown; ages above 89 read 90 (HIPAA Safe Harbor).
        encounters: own stay first, then parts in order of start.
        anchors: named minutes that clocks refer to (`triage`, `ed_arrival`, `ed_departure`, `admission`,
            `end_of_stay`); the start of the case is minute 0.
        context: facts of the admission itself that are known at once (`admission_source`, `unit_type`).
        findings: sorted by (available, finding_id).
        attributes: facts for cohort selection and splits that no prompt sees (`hospital_id`, `unit_visit_number`).
    """

    case_id: str
    source: str
    source_id: str
    patient: Patient
    age: int | None
    encounters: tuple[Encounter, ...]
    anchors: dict[str, int]
    context: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """sha256 over the whole case; equal content gives equal hash in any process."""
        return content_digest(self)


def content_digest(value: object) -> str:
    """Returns the sha256 over the JSON form of dataclasses, lists, dicts, texts and numbers."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer beyond 64 bits, or a lone surrogate: rare, and still to be told apart
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        text = json.dumps(plain, sort_keys=True).encode("ascii")
    return hashlib.sha256(text).hexdigest()


def make_id(source: str, source_id: str) -> str:
    """Returns the id of a case or patient: `SOURCE-SOURCE_ID`."""
    return f"{source}-{source_id}"


def make_finding_id(source: str, *key: str) -> str:
    """Returns a stable finding id: `f` and 16 hex digits of sha256 over source and the row's own key."""
    return "f" + hashlib.sha256("\x1f".join((source, *key)).encode()).hexdigest()[:16]


def sort_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """Returns findings in canonical order: by availability, then id."""
    return tuple(sorted(findings, key=lambda f: (f.available, f.finding_id)))
