"""FHIR R4 resources of one synthetic case, collected into a Bundle of type `collection`."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

Resource = dict[str, Any]

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
UCUM = "http://unitsofmeasure.org"
HL7 = "http://terminology.hl7.org/CodeSystem/"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:wardstar:demo")
TEST_DATA = {"system": HL7 + "v3-ActReason", "code": "HTEST", "display": "test health data"}
POSITIVE = ("10828004", "Positive")
NEGATIVE = ("260385009", "Negative")


def coding(system: str, code: str, display: str) -> dict[str, str]:
    """Returns a Coding."""
    return {"system": system, "code": code, "display": display}


def concept(system: str, code: str | None, display: str) -> Resource:
    """Returns a CodeableConcept; without a code it is text only."""
    return {"text": display} if code is None else {"coding": [coding(system, code, display)], "text": display}


def category(system: str, code: str) -> list[Resource]:
    """Returns a category of one HL7 code."""
    return [{"coding": [{"system": HL7 + system, "code": code}]}]


class BundleWriter:
    """Collects the resources of one case; times go in as minutes from arrival.

    Args:
        seed: seed of the generator; enters every fullUrl.
        case_id: id of the inpatient Encounter; other ids begin with it.
        patient_id: id of the Patient.
        arrival: date and time of minute 0.
    """

    def __init__(self, seed: int, case_id: str, patient_id: str, arrival: datetime) -> None:
        self.case_id = case_id
        self.patient_id = patient_id
        self.ed_id = f"{case_id}-ed"
        self._seed = seed
        self._arrival = arrival
        self._entries: list[Resource] = []
        self._counts: dict[str, int] = {}
        self.ed_until: int | None = None

    def time(self, minute: float) -> str:
        """Returns minute `minute` as a FHIR instant in UTC."""
        return (self._arrival + timedelta(minutes=round(minute))).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")

    def date(self, days: float) -> str:
        """Returns the date `days` days from arrival."""
        return (self._arrival + timedelta(days=days)).strftime("%Y-%m-%d")

    def reference(self, resource_id: str) -> Resource:
        """Returns a Reference by the fullUrl of a resource of this bundle."""
        return {"reference": self._url(resource_id)}

    def next_id(self, kind: str) -> str:
        """Returns the next free id of a kind, such as `ward-0001-obs-004`."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{self.case_id}-{kind}-{self._counts[kind]:03d}"

    def add(self, resource_type: str, resource_id: str, **fields: Any) -> str:
        """Adds a resource and returns its id; a field whose value is None is left out, `class_` is written `class`."""
        body = {key.rstrip("_"): value for key, value in fields.items() if value is not None}
        resource = {"resourceType": resource_type, "id": resource_id, "meta": {"security": [TEST_DATA]}, **body}
        self._entries.append({"fullUrl": self._url(resource_id), "resource": resource})
        return resource_id

    def add_fact(self, resource_type: str, kind: str, minute: float, **fields: Any) -> str:
        """Adds a resource about the patient within the encounter that is open at that minute."""
        encounter = self.ed_id if self.ed_until is not None and minute < self.ed_until else self.case_id
        return self.add(
            resource_type,
            self.next_id(kind),
            subject=self.reference(self.patient_id),
            encounter=self.reference(encounter),
            **fields,
        )

    def observe(self, kind: str, code: Resource, drawn: float, issued: float, **value: Any) -> None:
        """Adds a final Observation of a category (`exam`, `laboratory`, ...)."""
        self.add_fact(
            "Observation",
            "obs",
            drawn,
            status="final",
            category=category("observation-category", kind),
            code=code,
            effectiveDateTime=self.time(drawn),
            issued=self.time(issued),
            **value,
        )

    def result(self, facts: Resource, sex: str, value: float | bool, drawn: float, issued: float) -> None:
        """Adds a laboratory result with unit, reference range and interpretation."""
        if facts.get("presence"):
            code, display = POSITIVE if value else NEGATIVE
            found: Resource = {
                "valueCodeableConcept": concept(SNOMED, code, display),
                "interpretation": _interpretation("A" if value else "N"),
            }
        else:
            low, high = facts["ref_female" if sex == "female" and "ref_female" in facts else "ref"]
            found = {"valueQuantity": quantity(float(value), facts["unit"], facts["digits"])}
            limits = {"low": low, "high": high}
            shown = {k: quantity(v, facts["unit"], None) for k, v in limits.items() if v is not None}
            if shown:
                found["referenceRange"] = [shown]
                found["interpretation"] = _interpretation(flag(float(value), low, high, facts.get("critical")))
        self.observe("laboratory", concept(LOINC, facts["loinc"], facts["name"]), drawn, issued, **found)

    def order(self, code: str, name: str, minute: float) -> None:
        """Adds a ServiceRequest."""
        self.add_fact(
            "ServiceRequest",
            "order",
            minute,
            status="completed",
            intent="order",
            code=concept(LOINC, code, name),
            authoredOn=self.time(minute),
        )

    def bundle(self) -> Resource:
        """Returns the Bundle."""
        return {
            "resourceType": "Bundle",
            "id": f"{self.case_id}-bundle",
            "meta": {"security": [TEST_DATA]},
            "type": "collection",
            "entry": self._entries,
        }

    def _url(self, resource_id: str) -> str:
        return f"urn:uuid:{uuid.uuid5(NAMESPACE, f'{self._seed}/{resource_id}')}"


def quantity(value: float, unit: str, digits: int | None) -> Resource:
    """Returns a Quantity in a UCUM unit; `digits` 0 writes a whole number."""
    number = int(value) if digits == 0 or (digits is None and value == int(value)) else value
    return {"value": number, "unit": unit, "system": UCUM, "code": unit}


def flag(value: float, low: float | None, high: float | None, critical: list[float] | None = None) -> str:
    """Returns the HL7 interpretation code of a value against its reference range: LL, L, N, H or HH."""
    if low is not None and value < low:
        return "LL" if critical and value < critical[0] else "L"
    if high is not None and value > high:
        return "HH" if critical and value > critical[1] else "H"
    return "N"


def _interpretation(code: str) -> list[Resource]:
    return [{"coding": [{"system": HL7 + "v3-ObservationInterpretation", "code": code}]}]
