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
from clinical_data.sources.fhir_times import parse_moment

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
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

CONDITION_RULES = ("problem", "untyped", "diagnosis")  # values of StagedFact.rule
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
        rule: which rule of belonging applies: empty, `problem`, `untyped`, `diagnosis` (Condition), `procedure`, or
            `billed` (a procedure by billing code, known at discharge).
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


@dataclass(frozen=True, slots=True)
class StagedEncounter:
    """An Encounter, with `diagnoses` as (use, rank, reference key) for the truth alone."""

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
    return Coding(best.get("system", ""), best["code"], display, best.get("version"))


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
    admit_source = (resource.get("hospitalization") or {}).get("admitSource")
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
            if (first.tzinfo is None) != (last.tzinfo is None):
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
    )


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
    if codes(resource.get("verificationStatus")) & {"entered-in-error", "refuted"}:
        raise Unused("entered in error or refuted")
    category = codes(resource.get("category"))
    rule = "problem" if "problem-list-item" in category else "untyped"
    onset = resource.get("onsetDateTime") or (resource.get("onsetPeriod") or {}).get("start") or ""
    yield fact_of(
        resource,
        key,
        FindingKind.HISTORY,
        code,
        charted="" if resource.get("recordedDate") else onset[:10],
        known=resource.get("recordedDate") or "",
        rule="diagnosis" if "encounter-diagnosis" in category else rule,
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


def reduce_statement(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields a drug that the patient was said to take."""
    if resource["status"] in ("entered-in-error", "not-taken", "intended"):
        raise Unused(resource["status"])
    during = {"inpatient", "discharge"} & codes(resource.get("category"))
    kind = FindingKind.TREATMENT if during else FindingKind.MEDICATION_HOME
    begun = resource.get("effectiveDateTime") or (resource.get("effectivePeriod") or {}).get("start") or ""
    known = resource.get("dateAsserted") or ""
    yield _drug(resource, key, kind, charted=begun, known=known, value=PRESENT)


def reduce_request(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields an order of a drug or a service."""
    if resource["status"] in ("entered-in-error", "cancelled", "draft", "revoked") or resource.get("doNotPerform"):
        raise Unused("not an order that was given")
    known = resource.get("authoredOn") or ""
    if resource["resourceType"] == "MedicationRequest":
        yield _drug(resource, key, FindingKind.TREATMENT, known=known, value="ordered")
    elif code := pick(resource.get("code")):
        yield fact_of(resource, key, FindingKind.TREATMENT, code, value="ordered", known=known)
    else:
        raise Unused("no code")


def reduce_administration(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields a drug that was given."""
    if resource["status"] in ("entered-in-error", "not-done"):
        raise Unused(resource["status"])
    given = resource.get("effectiveDateTime") or (resource.get("effectivePeriod") or {}).get("start") or ""
    yield _drug(resource, key, FindingKind.TREATMENT, known=given, value="given")


# Code systems of billing: assigned after discharge, whatever date the row carries (clinical.md, leakage trap 1).
_BILLING = ("icd-10-pcs", "icd-9-cm", "procedure-icd", "ama-assn.org/go/cpt", "hcpcs")


def reduce_procedure(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields a procedure; one of a visible stay counts as treatment unless its category is diagnostic."""
    if resource["status"] in ("entered-in-error", "not-done", "preparation"):
        raise Unused(resource["status"])
    code = pick(resource.get("code"))
    if code is None:
        raise Unused("no code")
    period = resource.get("performedPeriod") or {}
    done = resource.get("performedDateTime") or period.get("start") or ""
    systems = {(c.get("system") or "").lower() for c in resource["code"].get("coding", ())}
    billed = all(any(b in s for b in _BILLING) for s in systems) if systems else False
    diagnostic = "103693007" in codes(resource.get("category"))
    yield fact_of(
        resource,
        key,
        FindingKind.PROCEDURE if diagnostic else FindingKind.TREATMENT,
        code,
        value="done",
        charted=done,
        until=period.get("end") or "",
        rule="billed" if billed else "procedure",
    )


def _drug(resource: Json, key: str, kind: FindingKind, *, known: str, value: str, charted: str = "") -> StagedFact:
    code = pick(resource.get("medicationCodeableConcept"))
    medication = target(resource, "medicationReference", key)
    if code is None and not medication:
        raise Unused("no drug named")
    return fact_of(
        resource, key, kind, code or Coding("", ""), value=value, charted=charted, known=known, medication=medication
    )


def fact_of(
    resource: Json, key: str, kind: FindingKind, code: Coding, *, value: float | str | None = PRESENT, **more: Any
) -> StagedFact:
    """Returns a fact with the resource's patient and encounter; `more` are fields of StagedFact."""
    return StagedFact(
        key=key,
        patient=target(resource, "patient" if "patient" in resource else "subject", key),
        encounter=target(resource, "context" if "context" in resource else "encounter", key),
        kind=kind.value,
        code=(code.system, code.code, code.display, code.version),
        value=value,
        note=key,
        **more,
    )
