"""Cuts a validated FHIR resource down to the few fields that a case needs.

Fields that tell the future of a visible row (clinicalStatus, abatement, period.end, disposition, ...) are not read at
all, so that nothing downstream can show them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from clinical_data.case import PRESENT, Coding, FindingKind
from clinical_data.sources.fhir_codes import ICD10CM, LOINC, SNOMED, destination, standard_code
from clinical_data.sources.fhir_times import parse_moment

TEXT_SYSTEM = "wardstar:fhir/text"  # for a concept that has a text and no code
# http://terminology.hl7.org/CodeSystem/admit-source, for records that give the bare code
ADMIT_SOURCES = {
    "hosp-trans": "other hospital",
    "emd": "emergency department",
    "outp": "outpatient department",
    "born": "born in hospital",
    "gp": "general practitioner",
    "mp": "medical practitioner",
    "nursing": "nursing home",
    "psych": "psychiatric hospital",
    "rehab": "rehabilitation facility",
    "other": "other",
}

# Values of StagedFact.rule. A fact of a truth rule is read for the recorded labels alone and never becomes a finding.
CONDITION_RULES = ("problem", "untyped", "diagnosis")
TRUTH_RULES = ("acuity", "differential")
CASE_CLASSES = frozenset({"IMP", "ACUTE", "NONAC", "OBSENC", "SS", "EMER"})

Json = dict[str, Any]


class StagedFact(NamedTuple):
    """A fact with its recorded times still as FHIR text.

    Attributes:
        key: `TYPE/ID`, with `#N` for the Nth component.
        patient, encounter: reference keys, empty when the resource has none.
        code: system, code, display, version.
        charted, until: when it was observed, and the end of that when it took time.
        known: issued, recordedDate, authoredOn or dateAsserted; empty when missing.
        medication: reference key of the Medication that names it, or empty.
        rule: which rule of belonging applies: empty, `problem`, `untyped`, `diagnosis` (Condition), `procedure`,
            `billed` (a procedure by billing code, known at discharge), `test` (an order of a test), `not begun` (an
            order that was cancelled before its start: the label of treatment leaves it out), or a truth rule.
        within: reference key of the observation that this one is part of (an organism of a culture).
        specimen: reference key of the specimen.
        frequency: key under which an order's frequency is staged, where the order itself has none.
        amended: whether the value was changed later and the record does not say when.
    """

    key: str
    patient: str
    encounter: str
    kind: str
    code: tuple[str, str, str, str | None]
    value: float | str | None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    flag: str = ""
    charted: str = ""
    until: str = ""
    known: str = ""
    has_result: bool = True
    note: str = ""
    medication: str = ""
    rule: str = ""
    within: str = ""
    specimen: str = ""
    amended: bool = False
    frequency: str = ""


@dataclass(frozen=True, slots=True)
class StagedEncounter:
    """An Encounter. `diagnoses` as (use, rank, reference key), `destination` and `priority` are for the truth alone.

    `wall_clock`: its dates were shifted, so that the zone of its times says nothing (see `of_mimic`).
    """

    key: str
    patient: str
    parent: str
    is_case: bool
    kind: str
    has_service: bool
    start: str
    end: str
    admit_source: str
    diagnoses: list[tuple[str, int | None, str]] = field(default_factory=list)
    destination: str = ""
    priority: tuple[str, str, str, str | None] | None = None
    wall_clock: bool = False


class Unused(Exception):
    """The resource is fine, but of no use; the message says why."""


class Unusable(Exception):
    """The resource lacks what wardstar needs; the message says what, without a value."""


def reference_key(reference: str, owner: str) -> str:
    """Returns the key of what a literal reference names: `TYPE/ID`, `urn:uuid:...`, or `OWNER#ID` if contained."""
    if reference.startswith("urn:"):
        return reference
    if reference.startswith("#"):
        return owner + reference
    parts = reference.split("/_history/")[0].rstrip("/").split("/")
    return "/".join(parts[-2:])


def target(resource: Json, name: str, owner: str) -> str:
    """Returns the reference key in a field, or an empty string."""
    return reference_key((resource.get(name) or {}).get("reference") or "", owner)


def pick(concept: Json | None, preferred: tuple[str, ...] = (LOINC, SNOMED, ICD10CM)) -> Coding | None:
    """Returns the coding of a CodeableConcept in the most preferred system, else its first code, else its text."""
    if not concept:
        return None
    coded = [c for c in concept.get("coding", ()) if c.get("code")]
    text = concept.get("text") or next((c["display"] for c in concept.get("coding", ()) if c.get("display")), "")
    if not coded:
        return Coding(TEXT_SYSTEM, text, text) if text else None
    best = coded[0]
    if len(coded) > 1:
        order = {system: n for n, system in enumerate(preferred)}
        best = min(coded, key=lambda c: order.get(c.get("system", ""), len(order)))
    display = concept.get("text") or best.get("display") or text
    system, code, revision = standard_code(best.get("system") or "", best["code"])
    return Coding(system, code, display, best.get("version") or revision)


def as_tuple(coding: Coding) -> tuple[str, str, str, str | None]:
    """Returns a coding as it is staged."""
    return coding.system, coding.code, coding.display, coding.version


def of_mimic(resource: Json) -> bool:
    """Says whether a resource is of the profiles of MIMIC-IV on FHIR.

    MIMIC shifts every date by its own number of days for each patient. The zone that FHIR demands was added afterwards,
    so a change to or from summer time in it never took place: only the wall clock counts.
    """
    return any("mimic.mit.edu" in profile for profile in (resource.get("meta") or {}).get("profile") or ())


def words(concept: Json | None) -> str:
    """Returns the text of a CodeableConcept: its text, a display, or a code."""
    found = pick(concept)
    return "" if found is None else found.display or found.code


def codes(concepts: Any) -> set[str]:
    """Returns all codes in one CodeableConcept or a list of them."""
    listed = [concepts] if isinstance(concepts, dict) else concepts or []
    return {c["code"] for concept in listed for c in concept.get("coding", ()) if c.get("code")}


def number(value: Any) -> float | None:
    """Returns a FHIR decimal as a float.

    Raises:
        ValueError: no number, or too large for one (the message holds no value).
    """
    if value is None:
        return None
    found = float(value)
    if not math.isfinite(found):
        raise ValueError("not a finite number")
    return found


def reduce_encounter(resource: Json, key: str) -> StagedEncounter:
    """Returns what is needed of an Encounter.

    Raises:
        Unused: it did not take place.
        Unusable: no patient, no start, or an end before the start.
    """
    if resource["status"] in ("entered-in-error", "cancelled", "planned"):
        raise Unused(resource["status"])
    parent = target(resource, "partOf", key)
    code = resource["class"].get("code", "")
    hospital = resource.get("hospitalization") or {}
    admit_source = hospital.get("admitSource")
    is_case = not parent and (code in CASE_CLASSES or bool(admit_source))
    period = resource.get("period") or {}
    patient = target(resource, "subject", key)
    if is_case or parent:
        if not patient:
            raise Unusable("subject: missing")
        if not period.get("start"):
            raise Unusable("period.start: missing")
        if period.get("end"):
            first, last = parse_moment(period["start"]).earliest, parse_moment(period["end"]).latest
            if of_mimic(resource) or (first.tzinfo is None) != (last.tzinfo is None):
                first, last = first.replace(tzinfo=None), last.replace(tzinfo=None)
            if last < first:
                raise Unusable("period.end: before period.start")
        parse_moment(period["start"])
    diagnoses = [
        (use, entry.get("rank"), target(entry, "condition", key))
        for entry in resource.get("diagnosis") or ()
        for use in sorted(codes(entry.get("use")) & {"AD", "DD", "CM"}) or [""]
    ]
    return StagedEncounter(
        key=key,
        patient=patient,
        parent=parent,
        is_case=is_case,
        kind=_encounter_kind(resource, code, parent),
        has_service=bool(resource.get("serviceType")),
        start=period.get("start") or "",
        end=period.get("end") or "",
        admit_source=ADMIT_SOURCES.get(words(admit_source), words(admit_source)),
        diagnoses=diagnoses,
        destination=destination(_said(hospital.get("dischargeDisposition"))),
        priority=_priority(resource),
        wall_clock=of_mimic(resource),
    )


def _priority(resource: Json) -> tuple[str, str, str, str | None] | None:
    """Returns Encounter.priority. MIMIC's is the type of the whole admission in another dress, and no urgency."""
    if of_mimic(resource):
        return None
    found = pick(resource.get("priority"))
    return as_tuple(found) if found else None


def _said(concept: Json | None) -> list[str]:
    """Returns the codes of a concept, then its texts."""
    coded = (concept or {}).get("coding") or []
    texts = [(concept or {}).get("text"), *(c.get("display") for c in coded)]
    return [t for t in (*(c.get("code") for c in coded), *texts) if t]


def _encounter_kind(resource: Json, code: str, parent: str) -> str:
    if code in ("EMER", "OBSENC"):
        return {"EMER": "emergency", "OBSENC": "observation"}[code]
    described = " ".join([words(resource.get("serviceType")), *map(words, resource.get("type") or ())]).lower()
    intensive = "intensive care" in described or "icu" in described.split() or bool(parent and code == "ACUTE")
    return "icu" if parent and intensive else "inpatient"


def reduce_condition(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields the Condition as a fact of the past; whether a case may see it is decided when the case is built."""
    code = pick(resource.get("code"))
    if code is None:
        raise Unused("no code")
    verified = codes(resource.get("verificationStatus"))
    if "entered-in-error" in verified:
        raise Unused("entered in error")
    category = codes(resource.get("category"))
    rule = "problem" if "problem-list-item" in category else "untyped"
    if "encounter-diagnosis" in category:
        rule = "diagnosis"
    considered = next((v for v in ("differential", "refuted") if v in verified), "")
    onset = resource.get("onsetDateTime") or (resource.get("onsetPeriod") or {}).get("start") or ""
    yield fact_of(
        resource,
        key,
        FindingKind.HISTORY,
        code,
        charted="" if resource.get("recordedDate") else onset[:10],
        known=resource.get("recordedDate") or "",
        value=considered or PRESENT,
        rule="differential" if considered else rule,
    )


def reduce_allergy(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields the allergy."""
    if codes(resource.get("verificationStatus")) & {"entered-in-error", "refuted"}:
        raise Unused("entered in error or refuted")
    code = pick(resource.get("code"))
    if code is None:
        raise Unused("no code")
    known = resource.get("recordedDate") or (resource.get("onsetDateTime") or "")[:10]
    yield fact_of(resource, key, FindingKind.ALLERGY, code, known=known)


def reduce_family(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields one fact per disease of the relative; its value is the relationship."""
    if resource["status"] == "entered-in-error":
        raise Unused("entered in error")
    for index, condition in enumerate(resource.get("condition") or ()):
        if code := pick(condition.get("code")):
            relative = words(resource.get("relationship")) or PRESENT
            place = f"{key}#{index}"
            yield fact_of(resource, place, FindingKind.FAMILY, code, value=relative, known=resource.get("date") or "")


def fact_of(
    resource: Json, key: str, kind: FindingKind, code: Coding, *, value: float | str | None = PRESENT, **more: Any
) -> StagedFact:
    """Returns a fact with the resource's patient and encounter; `more` are fields of StagedFact."""
    return StagedFact(
        key=key,
        patient=target(resource, "patient" if "patient" in resource else "subject", key),
        encounter=target(resource, "context" if "context" in resource else "encounter", key),
        kind=kind.value,
        code=as_tuple(code),
        value=value,
        note=more.pop("note", key),
        **more,
    )
