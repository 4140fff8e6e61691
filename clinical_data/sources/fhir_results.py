"""Cuts Observation and DiagnosticReport down to facts: what was measured, its value, and when it was known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from clinical_data.case import FindingKind
from clinical_data.sources.fhir_codes import ACUITY_CODES, LOINC, NULL_FLAVOR, acuity_level, tells_diagnosis
from clinical_data.sources.fhir_reduce import (
    Json,
    StagedFact,
    Unused,
    codes,
    fact_of,
    number,
    of_mimic,
    pick,
    reference_key,
    target,
    words,
)

_KIND_OF_CATEGORY = {
    "laboratory": FindingKind.LABORATORY,
    "vital-signs": FindingKind.VITAL,
    "vital-sign": FindingKind.VITAL,
    "exam": FindingKind.EXAMINATION,
    "social-history": FindingKind.SOCIAL,
    "survey": FindingKind.HISTORY,
    "imaging": FindingKind.IMAGING,
    "procedure": FindingKind.PROCEDURE,
    "microbiology": FindingKind.MICROBIOLOGY,
    "MB": FindingKind.MICROBIOLOGY,
    "Output": FindingKind.VITAL,  # of a MIMIC ICU
}
_COMPLAINT_CODES = frozenset({"8661-1", "10154-3", "46239-0", "29299-5"})  # LOINC: chief complaint, reason for visit
_HISTORY_CODES = frozenset({"10164-2"})  # LOINC: history of present illness

# Sections of http://terminology.hl7.org/CodeSystem/v2-0074 and the LOINC parts that US Core uses in their place.
# A report outside them may be a note (admission, discharge), which no case shows.
_KIND_OF_REPORT = {
    **dict.fromkeys(("RAD", "IMG", "CT", "NMR", "NMS", "RUS", "VUS", "CUS", "OUS", "XRC", "CTH", "imaging", "radiology",
                     "LP29684-5", "EC", "EEG", "CARD", "LP29708-2"), FindingKind.IMAGING),
    **dict.fromkeys(("MB", "VR", "MYC", "PAR", "LP7819-8"), FindingKind.MICROBIOLOGY),
    **dict.fromkeys(("LAB", "CH", "HM", "BLB", "TX", "IMM", "SR", "laboratory", "LP29693-6"), FindingKind.LABORATORY),
}  # fmt: skip

_VALUES = ("valueQuantity", "valueCodeableConcept", "valueString", "valueInteger", "valueBoolean", "valueRange",
           "valueRatio")  # fmt: skip
_USELESS_VALUES = ("valueDateTime", "valuePeriod", "valueTime", "valueSampledData")  # a case holds no calendar date
_CANCELLED = re.compile(r"\s*(?:the\s+)?(?:test\s+)?cancell?ed\b", re.IGNORECASE)
_MIDNIGHT = "T00:00:00"


def is_cancelled(text: str) -> bool:
    """Says whether what stands in the place of a result tells that the test was cancelled."""
    return _CANCELLED.match(text) is not None


def reduce_observation(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields one fact for the observation's own value, and one per component."""
    if resource["status"] in ("entered-in-error", "cancelled"):
        raise Unused(resource["status"])
    code = pick(resource["code"])
    if code is None:
        raise Unused("no code")
    if _loinc(resource) & ACUITY_CODES:
        yield _acuity(resource, key)
        return
    if _hidden(resource):
        raise Unused("a document, or names a diagnosis")
    period = resource.get("effectivePeriod") or {}
    kind = _kind(resource)
    culture = kind is FindingKind.MICROBIOLOGY
    if kind is FindingKind.LABORATORY and of_mimic(resource) and _is_held(resource):
        raise Unused("a specimen kept without a test")
    base = fact_of(
        resource,
        key,
        kind,
        code,
        value=None,
        within=_source_of(resource, key) if culture else "",
        specimen=target(resource, "specimen", key) if culture or kind is FindingKind.LABORATORY else "",
        **_amended(resource, key),
        charted=_taken(resource, kind) or period.get("start") or "",
        until=period.get("end") or "",
        known=resource.get("issued") or "",
    )
    components = resource.get("component") or []
    if any(name in resource for name in _USELESS_VALUES):
        raise Unused("value is a time or a curve")
    grouping = bool(components or resource.get("hasMember")) and not culture
    if any(name in resource for name in _VALUES) or not grouping:
        yield _with_value(base, resource)
    elif not components:
        raise Unused("only groups other observations")
    for index, component in enumerate(components):
        part = pick(component["code"])
        if _hidden(component):
            continue
        if part is not None and not any(name in component for name in _USELESS_VALUES):
            named = (part.system, part.code, part.display, part.version)
            yield _with_value(base._replace(key=f"{key}#{index}", code=named), component)


def _taken(resource: Json, kind: FindingKind) -> str:
    """Returns the time of an observation. MIMIC on FHIR writes a culture of which only the day is known as midnight."""
    at = resource.get("effectiveDateTime") or resource.get("effectiveInstant") or ""
    if kind is FindingKind.MICROBIOLOGY and of_mimic(resource) and at[10:19] == _MIDNIGHT:
        return str(at[:10])
    return str(at)


def _is_held(resource: Json) -> bool:
    """Says whether the laboratory only kept the specimen: its "result" is for how long."""
    return (resource.get("valueString") or "").strip().upper().startswith("HOLD")


def reduce_report(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields the conclusion of an imaging, ECG or laboratory report."""
    if resource["status"] in ("entered-in-error", "cancelled"):
        raise Unused(resource["status"])
    conclusion = _unmasked(resource.get("conclusion") or "")  # never conclusionCode: it names the diagnosis
    code = pick(resource["code"])
    if not conclusion or code is None:
        raise Unused("no conclusion")
    if _hidden(resource):
        raise Unused("a document, or names a diagnosis")
    kinds = {_KIND_OF_REPORT[c] for c in codes(resource.get("category")) if c in _KIND_OF_REPORT}
    if not kinds:
        raise Unused("category is no kind of result")
    period = resource.get("effectivePeriod") or {}
    yield fact_of(
        resource,
        key,
        min(kinds, key=lambda k: k.value),
        code,
        value=conclusion,
        **_amended(resource, key),
        charted=resource.get("effectiveDateTime") or period.get("start") or "",
        until=period.get("end") or "",
        known=resource.get("issued") or "",
    )


def _acuity(resource: Json, key: str) -> StagedFact:
    """Returns the recorded triage acuity as a fact for the label alone.

    Raises:
        Unused: no level from 1 to 5.
    """
    value, _ = _value(resource)
    level = acuity_level(f"{value:g}" if isinstance(value, float) else value or "")
    code = pick(resource["code"])
    if level is None or code is None:
        raise Unused("no triage acuity given")
    at = resource.get("effectiveDateTime") or resource.get("issued") or ""
    kind = FindingKind.EXAMINATION
    return fact_of(resource, key, kind, code, value=float(level), charted=at, known=at, rule="acuity")


def _hidden(part: Json) -> bool:
    """Says whether an observation, a component or a report is a document or names a diagnosis."""
    code = part["code"]
    names = [code.get("text"), *(c.get("display") for c in code.get("coding", ()))]
    value = part.get("valueCodeableConcept") or {}
    systems = {c.get("system") or "" for c in value.get("coding", ())}
    return tells_diagnosis(_loinc(part), tuple(n for n in names if n), systems)


def _loinc(part: Json) -> set[str]:
    return {c["code"] for c in part["code"].get("coding", ()) if c.get("system") == LOINC and c.get("code")}


def _source_of(resource: Json, key: str) -> str:
    """Returns the key of the observation that this one is derived from: the culture of an organism."""
    derived = resource.get("derivedFrom") or [{}]
    return reference_key(derived[0].get("reference") or "", key)


def _amended(resource: Json, key: str) -> dict[str, Any]:
    """Returns the fields of a value that was changed at a time that the record does not say."""
    if resource["status"] not in ("amended", "corrected", "appended") or resource.get("issued"):
        return {}
    return {"amended": True, "note": f"{key} ({resource['status']}, without the time of it)"}


def _kind(resource: Json) -> FindingKind:
    loinc = _loinc(resource)
    if loinc & _COMPLAINT_CODES:
        return FindingKind.COMPLAINT
    if loinc & _HISTORY_CODES:
        return FindingKind.HISTORY
    found = {_KIND_OF_CATEGORY[c] for c in codes(resource.get("category")) if c in _KIND_OF_CATEGORY}
    if FindingKind.LABORATORY in found or FindingKind.MICROBIOLOGY in found:
        return FindingKind.MICROBIOLOGY if _is_microbiology(resource) else FindingKind.LABORATORY
    if found:
        return min(found, key=lambda k: k.value)
    # No category that says: a specimen makes it a laboratory value, whose result comes late.
    return FindingKind.LABORATORY if resource.get("specimen") else FindingKind.EXAMINATION


def _is_microbiology(resource: Json) -> bool:
    profiles = " ".join((resource.get("meta") or {}).get("profile") or ()).lower()
    name = words(resource["code"]).lower()
    return (
        bool(codes(resource.get("category")) & {"MB", "microbiology"})
        or "-micro" in profiles
        or "culture" in name
        or "suscept" in name
    )


def _with_value(fact: StagedFact, resource: Json) -> StagedFact:
    value, unit = _value(resource)
    if fact.kind in (FindingKind.LABORATORY, FindingKind.MICROBIOLOGY) and isinstance(value, str):
        value = None if is_cancelled(value) else value
    if isinstance(value, str) and value.startswith(("<", ">")):
        unit = unit or _unit_of_range(resource)
    low, high = _range(resource)
    flag = next(iter(c.get("code", "") for i in resource.get("interpretation") or () for c in i.get("coding", ())), "")
    return fact._replace(
        value=value,
        unit=unit,
        low=low,
        high=high,
        flag="" if flag == "N" else flag,
        has_result=value is not None,
    )


def _value(resource: Json) -> tuple[float | str | None, str]:
    """Returns value and unit; (None, "") when the record holds no result (dataAbsentReason)."""
    if quantity := resource.get("valueQuantity"):
        return _quantity(quantity)
    if concept := resource.get("valueCodeableConcept"):
        if any(c.get("system") == NULL_FLAVOR for c in concept.get("coding", ())):
            return None, ""
        return _unmasked(words(concept)) or None, ""
    if (text := resource.get("valueString")) is not None:
        return _unmasked(text) or None, ""
    if (whole := resource.get("valueInteger")) is not None:
        return number(whole), ""
    if (truth := resource.get("valueBoolean")) is not None:
        return "yes" if truth else "no", ""
    if found := resource.get("valueRange"):
        return f"{_shown(found.get('low'))} to {_shown(found.get('high'))}", _unit(found.get("low") or {})
    if ratio := resource.get("valueRatio"):
        return f"{_shown(ratio.get('numerator'))}:{_shown(ratio.get('denominator'))}", ""
    return None, ""


def _unmasked(text: str) -> str:
    """Returns a text without white space around it; empty for one that is masked (`___`) as a whole."""
    return text.strip() if text.strip("_. \t\r\n") else ""


def _quantity(quantity: Json) -> tuple[float | str | None, str]:
    value = number(quantity.get("value"))
    if value is None:
        return None, ""
    comparator = quantity.get("comparator")
    return (f"{comparator}{quantity['value']}" if comparator else value), _unit(quantity)


def _unit(quantity: Json) -> str:
    return quantity.get("unit") or quantity.get("code") or ""


def _unit_of_range(resource: Json) -> str:
    """Returns the unit of the reference range: that of a value which is a text, as `<0.01`."""
    limits = [found.get(side) or {} for found in resource.get("referenceRange") or () for side in ("low", "high")]
    return next(filter(None, map(_unit, limits)), "")


def _shown(quantity: Any) -> str:
    return "" if not quantity or quantity.get("value") is None else str(quantity["value"])


def _range(resource: Json) -> tuple[float | None, float | None]:
    """Returns low and high of the first reference range."""
    for found in resource.get("referenceRange") or ():
        return number((found.get("low") or {}).get("value")), number((found.get("high") or {}).get("value"))
    return None, None
