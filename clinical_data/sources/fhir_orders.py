"""Cuts drugs, orders and procedures down to facts: what was taken, ordered, given or done, and from when."""

from __future__ import annotations

from collections.abc import Iterator

from clinical_data.case import PRESENT, Coding, FindingKind
from clinical_data.sources.fhir_codes import MIMIC_DRUG_NAME, MIMIC_FORMULARY, MIMIC_ITEMS, is_billing
from clinical_data.sources.fhir_reduce import (
    Json,
    StagedFact,
    Unused,
    codes,
    fact_of,
    of_mimic,
    pick,
    reference_key,
    target,
    words,
)
from clinical_data.sources.mimic_iv_items import NOT_SHOWN, done_kind

# Orders that were given; proposals and plans (a discharge prescription among them) are none.
_GIVEN = ("order", "original-order", "reflex-order", "filler-order", "instance-order", "directive")
# SNOMED CT categories of service requests that ask for no test: counselling, education, surgery.
_NO_TEST = frozenset({"409063005", "409073007", "387713003"})

ORDERED = "ordered"  # the value of an order that says neither route nor frequency
_PHARMACY_ORDER = "/medication-request-phid"  # end of the identifier system of MIMIC's prescriptions
_NOT_GIVEN = ("not ", "hold", "stopped")  # beginnings of MIMIC's events that gave nothing
_NO_CARE = frozenset({"Communication", "Significant Events"})  # categories of ICU items


def reduce_statement(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields a drug that the patient was said to take."""
    if resource["status"] in ("entered-in-error", "not-taken", "intended"):
        raise Unused(resource["status"])
    category = codes(resource.get("category"))
    if "discharge" in category:
        raise Unused("for the time after discharge")
    kind = FindingKind.TREATMENT if "inpatient" in category else FindingKind.MEDICATION_HOME
    begun = resource.get("effectiveDateTime") or (resource.get("effectivePeriod") or {}).get("start") or ""
    known = resource.get("dateAsserted") or ""
    yield _drug(resource, key, kind, charted=begun, known=known, value=PRESENT)


def reduce_request(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields an order of a drug, from its start, or of a service."""
    if resource["status"] in ("entered-in-error", "cancelled", "draft", "revoked") or resource.get("doNotPerform"):
        raise Unused("not an order that was given")
    category = codes(resource.get("category"))
    if "discharge" in category:
        raise Unused("for the time after discharge")
    if resource["intent"] not in _GIVEN:
        raise Unused(f"intent {resource['intent']}")
    known = resource.get("authoredOn") or ""
    if resource["resourceType"] == "MedicationRequest":
        route, often = _way(resource)
        found = _drug(
            resource,
            key,
            FindingKind.TREATMENT,
            charted=_start(resource),
            known=known,
            value=" ".join(filter(None, (route, often))) or ORDERED,
        )
        elsewhere = "" if often or not of_mimic(resource) else frequency_key(key)
        yield found._replace(frequency=elsewhere, rule="not begun" if _never_began(resource) else "")
    elif code := pick(resource.get("code")):
        rule = "" if category & _NO_TEST else "test"
        yield fact_of(resource, key, FindingKind.TREATMENT, code, value="ordered", known=known, rule=rule)
    else:
        raise Unused("no code")


def _start(resource: Json) -> str:
    """Returns when an ordered drug was to begin; the end of the order is never read."""
    valid = (resource.get("dispenseRequest") or {}).get("validityPeriod") or {}
    for dosage in resource.get("dosageInstruction") or ():
        timing = dosage.get("timing") or {}
        bounds = (timing.get("repeat") or {}).get("boundsPeriod") or {}
        if found := next(iter(timing.get("event") or ()), "") or bounds.get("start"):
            return str(found)
    return valid.get("start") or ""


def _never_began(resource: Json) -> bool:
    """Says whether an order of MIMIC was cancelled before its start; read for the label alone.

    MIMIC-IV on FHIR leaves the validity period out where the prescription ends before it starts. A status of `unknown`
    means that the end is not recorded. Orders that never came to the pharmacy have no period at all.
    """
    listed = resource.get("identifier") or ()
    if not of_mimic(resource) or not any((i.get("system") or "").endswith(_PHARMACY_ORDER) for i in listed):
        return False
    valid = (resource.get("dispenseRequest") or {}).get("validityPeriod") or {}
    if not valid:
        return bool(resource["status"] != "unknown")
    return bool(valid.get("start") and valid.get("end") and valid["end"][:19] <= valid["start"][:19])


def frequency_key(request: str) -> str:
    """Returns the key under which the frequency of a MedicationRequest is staged."""
    return f"{request}|frequency"


def dispensed_frequencies(resource: Json, key: str) -> Iterator[tuple[str, str]]:
    """Yields, for each order that a dispense of MIMIC belongs to, the key for its frequency, and the frequency.

    MIMIC's dispenses without a time are the pharmacy's rows of the orders themselves: what they say was said with the
    order. In other records a dispense may come long after it, and does not count.
    """
    if not of_mimic(resource) or resource.get("whenHandedOver") or resource["status"] == "entered-in-error":
        return
    _, often = _way(resource)
    for order in resource.get("authorizingPrescription") or () if often else ():
        if reference := order.get("reference"):
            yield frequency_key(reference_key(reference, key)), often


def _way(resource: Json) -> tuple[str, str]:
    """Returns route and frequency of an order, with PRN where it is to be given as needed; doses are not read."""
    for dosage in resource.get("dosageInstruction") or ():
        timing = dosage.get("timing") or {}
        often = (words(timing.get("code")) or _repeat(timing.get("repeat") or {})).replace(":PRN", " PRN")
        needed = dosage.get("asNeededBoolean") or dosage.get("asNeededCodeableConcept")
        prn = "PRN" if needed and "prn" not in often.lower() else ""
        route, often = words(dosage.get("route")), " ".join(filter(None, (often, prn)))
        if route or often:
            return route, often
    return "", ""


def _repeat(repeat: Json) -> str:
    if not (repeat.get("frequency") and repeat.get("period") and repeat.get("periodUnit")):
        return ""
    return f"{repeat['frequency']} per {repeat['period']} {repeat['periodUnit']}"


def reduce_administration(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields a drug that was given."""
    if resource["status"] in ("entered-in-error", "not-done"):
        raise Unused(resource["status"])
    given = resource.get("effectiveDateTime") or (resource.get("effectivePeriod") or {}).get("start") or ""
    dosage = resource.get("dosage") or {}
    method = words(dosage.get("method"))
    if method.lower().startswith(_NOT_GIVEN):
        raise Unused("not given")
    way = " ".join(filter(None, (words(dosage.get("route")), method)))
    yield _drug(resource, key, FindingKind.TREATMENT, known=given, value=way or "given")


def reduce_dispense(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields a drug that was handed out on the ward; one without that time may tell the frequency of its order."""
    if resource["status"] in ("entered-in-error", "cancelled", "declined", "stopped", "preparation"):
        raise Unused(resource["status"])
    if codes(resource.get("category")) & {"discharge", "community", "outpatient"}:
        raise Unused("for the time after discharge")
    handed = resource.get("whenHandedOver") or ""
    if not handed and any(dispensed_frequencies(resource, key)):
        return
    yield _drug(resource, key, FindingKind.TREATMENT, known=handed, value="given")


def reduce_procedure(resource: Json, key: str) -> Iterator[StagedFact]:
    """Yields a procedure, known from its begin; one of a visible stay is treatment unless it is diagnostic."""
    if resource["status"] in ("entered-in-error", "not-done", "preparation"):
        raise Unused(resource["status"])
    code = pick(resource.get("code"))
    if code is None:
        raise Unused("no code")
    category = codes(resource.get("category"))
    begun = resource.get("performedDateTime") or (resource.get("performedPeriod") or {}).get("start") or ""
    systems = {c.get("system") or "" for c in resource["code"].get("coding", ())}
    if systems and all(map(is_billing, systems)):
        yield fact_of(resource, key, FindingKind.TREATMENT, code, value="done", charted=begun, rule="billed")
        return
    kind = FindingKind.PROCEDURE if "103693007" in category else FindingKind.TREATMENT
    bare = None
    if code.system == MIMIC_ITEMS and code.code.isdecimal():
        if int(code.code) in NOT_SHOWN or category & _NO_CARE:
            raise Unused("an ICU item that is no finding")
        bare = done_kind(int(code.code))
    yield fact_of(
        resource,
        key,
        bare or kind,
        code,
        value=None if bare else "done",
        has_result=bare is None,
        charted=begun,
        known=begun if bare else "",  # no result will follow, so nothing is pending
        rule="procedure",
    )


def _drug(resource: Json, key: str, kind: FindingKind, *, known: str, value: str, charted: str = "") -> StagedFact:
    code = pick(resource.get("medicationCodeableConcept"))
    medication = target(resource, "medicationReference", key)
    if code is None and not medication:
        raise Unused("no drug named")
    if code is not None and not code.display:
        if code.system == MIMIC_FORMULARY:  # a code without a name; Medication says it
            medication = f"{MIMIC_FORMULARY}|{code.code}"
        else:
            code = Coding(code.system, code.code, code.code, code.version)
    return fact_of(
        resource, key, kind, code or Coding("", ""), value=value, charted=charted, known=known, medication=medication
    )


def medication_names(resource: Json) -> tuple[Coding | None, list[str], list[str]]:
    """Returns the code of a Medication with its name, the keys of its ingredients, and its MIMIC formulary codes."""
    listed = resource.get("identifier") or ()
    named = {i["system"]: i["value"] for i in listed if i.get("system") and i.get("value")}
    code = pick(resource.get("code"))
    name = named.get(MIMIC_DRUG_NAME, "")
    if code is None and name:
        code = Coding(MIMIC_DRUG_NAME, name, name)
    elif code is not None and not code.display:
        code = Coding(code.system, code.code, name or code.code, code.version)
    parts = [target(i, "itemReference", "") for i in resource.get("ingredient") or ()]
    return code, [p for p in parts if p], [named[MIMIC_FORMULARY]] if MIMIC_FORMULARY in named else []
