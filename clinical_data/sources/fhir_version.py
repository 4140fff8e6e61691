"""Tells whether a resource that is no valid R4 was written for another version of FHIR."""

from __future__ import annotations

import re
from typing import Any

_PROFILE = re.compile(r"hl7\.org/fhir/(?:(STU3|R5)|([345])\.\d)[./]", re.IGNORECASE)
_NAMES = {"3": "STU3", "5": "R5", "stu3": "STU3", "r5": "R5"}

# Fields that one version alone knows, by resource type.
# Source: "R3 diff" and "R4 diff" on the pages of each resource, hl7.org/fhir.
_FIELDS = {
    "R5": {
        "Encounter": ("actualPeriod", "plannedStartDate", "admission", "subjectStatus", "careTeam"),
        "Condition": ("participant",),
        "Observation": ("triggeredBy", "instantiatesCanonical", "instantiatesReference", "bodyStructure"),
        "Procedure": ("occurrenceDateTime", "occurrencePeriod", "recorded", "reportedBoolean", "focus"),
        "MedicationRequest": ("medication", "renderedDosageInstruction", "effectiveDosePeriod", "device"),
        "MedicationStatement": ("medication", "adherence", "encounter", "renderedDosageInstruction"),
        "MedicationAdministration": ("medication", "occurenceDateTime", "occurencePeriod", "isSubPotent", "encounter"),
        "MedicationDispense": ("medication", "notPerformedReason", "statusChanged", "encounter"),
        "Medication": ("definition", "totalVolume", "marketingAuthorizationHolder"),
        "DiagnosticReport": ("note", "supportingInfo", "composition"),
        "FamilyMemberHistory": ("participant",),
        "Specimen": ("combined", "role", "feature"),
    },
    "STU3": {
        "Encounter": ("reason", "incomingReferral"),
        "Condition": ("context", "assertedDate"),
        "Observation": ("context", "comment", "related"),
        "Procedure": ("context", "notDone", "notDoneReason", "definition"),
        "MedicationRequest": ("context", "definition"),
        "MedicationStatement": ("taken", "reasonNotTaken"),
        "MedicationAdministration": ("notGiven", "reasonNotGiven", "prescription", "definition"),
        "MedicationDispense": ("notDone", "notDoneReasonCodeableConcept"),
        "Medication": ("isBrand", "isOverTheCounter", "package"),
        "DiagnosticReport": ("context", "codedDiagnosis", "image"),
        "AllergyIntolerance": ("assertedDate",),
        "FamilyMemberHistory": ("notDone", "notDoneReason", "definition"),
        "Patient": ("animal",),
        "ProcedureRequest": ("subject",),
        "ReferralRequest": ("subject",),
    },
}

# Fields that both versions have, in another form.
_LISTS = {("R5", "Encounter"): ("class",), ("R5", "Procedure"): ("category",)}
_OBJECTS = {("R5", "ServiceRequest"): ("concept", "code"), ("R5", "AllergyIntolerance"): ("coding", "type")}
_TEXTS = {
    ("STU3", "Condition"): ("clinicalStatus", "verificationStatus"),
    ("STU3", "AllergyIntolerance"): ("clinicalStatus", "verificationStatus"),
}


def other_version(resource_type: str, data: dict[str, Any], *, valid: bool) -> str:
    """Returns why a resource is of another version (`FHIR R5, not R4: Encounter.actualPeriod`), or an empty string.

    Args:
        resource_type: its type.
        data: the resource.
        valid: whether it is valid R4; then only what it says of itself counts.
    """
    said = data.get("fhirVersion")
    if isinstance(said, str) and re.match(r"[0-9]+\.", said) and not said.startswith("4."):
        return f"FHIR {_NAMES.get(said[0], 'of another version')}, not R4: {resource_type}.fhirVersion"
    meta = data.get("meta")
    profiles = meta.get("profile") if isinstance(meta, dict) else None
    for profile in profiles if isinstance(profiles, list) else ():
        found = _PROFILE.search(profile) if isinstance(profile, str) else None
        if found:
            name = _NAMES.get((found[1] or found[2]).lower())
            return f"FHIR {name}, not R4: {resource_type}.meta.profile" if name else ""
    return "" if valid else _by_fields(resource_type, data)


def _by_fields(resource_type: str, data: dict[str, Any]) -> str:
    for version, types in _FIELDS.items():
        named = next((f for f in types.get(resource_type, ()) if f in data), "")
        place = (version, resource_type)
        named = named or next((f for f in _LISTS.get(place, ()) if isinstance(data.get(f), list)), "")
        named = named or next((f for f in _TEXTS.get(place, ()) if isinstance(data.get(f), str)), "")
        inner, field = _OBJECTS.get(place, ("", ""))
        if not named and isinstance(data.get(field), dict) and inner in data[field]:
            named = field
        if named:
            return f"FHIR {version}, not R4: {resource_type}.{named}"
    return ""
