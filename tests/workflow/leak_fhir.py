"""The raw record of FHIR for the leak tests: one patient with an earlier, a later and the observed stay.

The observed stay begins at 10:00; its ED part four hours before. Resources stand before, across and after every clock.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from fhir.resources.R4B import get_fhir_model_class
from leak_records import LOUD, NUMBER, Change, Part
from pydantic import ValidationError

Json = dict[str, Any]
Resources = list[Json]

DAY = 24 * 60
START = datetime.fromisoformat("2024-01-10T10:00:00+00:00")
END = 4 * DAY
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
LAGS = {"laboratory": 240, "microbiology": 9 * DAY, "imaging": DAY}  # minutes to a result without a time of its own
TESTS = ("2951-2", "2160-0", "2524-7", "6690-2", "2823-3", "3094-0")
AROUND = ((-30, -5), (-10, 10), (5, 15))
_TIMES = ("effectiveDateTime", "issued", "authoredOn", "recordedDate", "dateAsserted", "performedDateTime",
          "whenHandedOver", "date")  # fmt: skip
_DEAD = {"deceasedDateTime": "2024-02-01", "maritalStatus": {"text": LOUD}}
_OVER = {"status": "stopped", "statusReason": {"text": LOUD}}
# What may be shown of a resource, or links and dates it. Any other field is hidden.
_LINKS = {"id", "resourceType", "status", "subject", "patient", "encounter", "context", "category", "meta", "contained",
          "implicitRules", "language", "fhir_comments"}  # fmt: skip
VISIBLE = {
    "Patient": {"gender", "birthDate"},
    "Encounter": {"class", "class_fhir", "period", "partOf", "hospitalization", "diagnosis"},  # see `hidden`
    "Observation": {"code", "interpretation", "referenceRange", "component", "issued", "dataAbsentReason", "specimen",
                    "derivedFrom", "hasMember"},
    "DiagnosticReport": {"code", "conclusion", "issued"},
    "Condition": {"code", "recordedDate", "verificationStatus", "clinicalStatus"},
    "AllergyIntolerance": {"code", "recordedDate", "verificationStatus", "clinicalStatus"},
    "MedicationStatement": {"medicationCodeableConcept", "dateAsserted"},
    "MedicationRequest": {"medicationCodeableConcept", "authoredOn", "intent", "dosageInstruction", "dispenseRequest",
                          "doNotPerform"},
    "ServiceRequest": {"code", "authoredOn", "intent", "doNotPerform"},
    "MedicationAdministration": {"medicationCodeableConcept", "dosage"},
    "Procedure": {"code"},
    "FamilyMemberHistory": {"relationship", "condition", "date"},
}  # fmt: skip
_CHOICES = ("value", "effective", "onset", "abatement", "performed", "medication", "reported", "born", "age",
            "deceased", "occurrence", "asNeeded", "multipleBirth", "quantity")  # fmt: skip


def at(minute: int) -> str:
    """A minute of the observed stay as FHIR writes it."""
    return (START + timedelta(minutes=minute)).isoformat()


def _concept(code: str, text: str, system: str = "http://loinc.org") -> Json:
    return {"coding": [{"system": system, "code": code, "display": text}], "text": text}


def _use(use: str, condition: str, rank: int = 1) -> Json:
    role = "http://terminology.hl7.org/CodeSystem/diagnosis-role"
    return {"condition": {"reference": f"Condition/{condition}"}, "use": _concept(use, use, role), "rank": rank}


def _of(kind: str, key: str, stay: str = "own", **more: Any) -> Json:
    owner = "patient" if kind in ("AllergyIntolerance", "FamilyMemberHistory") else "subject"
    found: Json = {"resourceType": kind, "id": key, owner: {"reference": "Patient/p"}, **more}
    if stay:
        name = "context" if kind in ("MedicationAdministration", "MedicationStatement") else "encounter"
        found[name] = {"reference": f"Encounter/{stay}"}
    return found


def _stay(key: str, begin: int, end: int, kind: str, word: str, **more: Any) -> Json:
    return {
        "resourceType": "Encounter", "id": key, "status": "finished", "class": {"code": kind},
        "subject": {"reference": "Patient/p"}, "period": {"start": at(begin), "end": at(end)},
        "hospitalization": {"admitSource": {"text": "emergency department"},
                            "dischargeDisposition": _concept("home", word, "http://example.org/where")},
        "priority": _concept("UR", word, "http://example.org/priority"), **more,
    }  # fmt: skip


def _condition(key: str, code: str, text: str, stay: str, category: str, recorded: int | None) -> Json:
    more = {} if recorded is None else {"recordedDate": at(recorded)}
    categories = [_concept(category, category, "http://terminology.hl7.org/CodeSystem/condition-category")]
    return _of("Condition", key, stay, code=_concept(code, text, ICD), category=categories, **more)


def resources(word: str = "plain") -> Resources:
    """The record; `word` stands wherever an answer is recorded."""
    year = 365 * DAY
    own = {"diagnosis": [_use("AD", "own-ad"), _use("DD", "own-dd"), _use("CM", "own-cm", 2)]}
    found: Resources = [
        {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1950-06-01"},
        _stay("before", -year, -year + 3 * DAY, "IMP", word, diagnosis=[_use("DD", "before-dd")]),
        _stay("own", 0, END, "IMP", word, **own),
        _stay("ed", -240, 0, "EMER", word, partOf={"reference": "Encounter/own"}),
        _stay("later", END + year, END + year + DAY, "IMP", word, diagnosis=[_use("DD", "later-dd")]),
        _condition("before-dd", "I50.9", "heart failure", "before", "encounter-diagnosis", -year + DAY),
        _condition("own-ad", "R06.0", word, "own", "encounter-diagnosis", 30),
        _condition("own-dd", "J18.9", word, "own", "encounter-diagnosis", END),
        _condition("own-cm", "E87.1", word, "own", "encounter-diagnosis", None),
        _condition("own-differential", "I26.9", word, "own", "encounter-diagnosis", 100),
        _condition("later-dd", "C34.9", word, "later", "encounter-diagnosis", END + year),
        _condition("known", "E11.9", "type 2 diabetes mellitus", "", "problem-list-item", -3 * year),
        _condition("entered", "K21.9", word, "", "problem-list-item", 200),
        _of("AllergyIntolerance", "allergy", "", code=_concept("7980", "penicillin"), recordedDate=at(-3 * year)),
        _of("MedicationStatement", "home", "", status="active", dateAsserted=at(-200),
            medicationCodeableConcept=_concept("17767", "amlodipine", "http://www.nlm.nih.gov/research/umls/rxnorm")),
        _of("FamilyMemberHistory", "mother", "", status="completed", date=at(-3 * year),
            relationship={"text": "mother"}, condition=[{"code": {"text": "asthma"}}]),
        _measured("complaint", "survey", "8661-1", -235, -233, valueString="breathless for a day"),
        _measured("triage-pulse", "vital-signs", "8867-4", -235, -230, valueQuantity={"value": 101, "unit": "/min"}),
    ]  # fmt: skip
    found[9]["verificationStatus"] = _concept("differential", "d", "http://example.org/status")
    for number, clock in enumerate((-230, 360, 480, 1440, END)):
        for place, (taken, known) in enumerate(AROUND):
            found += _around(f"{number}-{place}", 3 * number + place, clock + taken, clock + known)
        for place, taken in enumerate((-245, -235, -10, 5)):  # no time of the result: four hours
            found.append(_measured(f"unissued-{number}-{place}", "laboratory", TESTS[(number + place) % 6],
                                   clock + taken, None, valueQuantity={"value": 5, "unit": "mmol/L"}))  # fmt: skip
    return found


def _measured(key: str, category: str, code: str, taken: int, known: int | None, **value: Any) -> Json:
    system = "http://terminology.hl7.org/CodeSystem/observation-category"
    more = {} if known is None else {"issued": at(known)}
    return _of("Observation", key, status="final", category=[_concept(category, category, system)],
               code=_concept(code, f"test {code}"), effectiveDateTime=at(taken), **more, **value)  # fmt: skip


def _around(key: str, n: int, taken: int, known: int) -> Resources:
    number = {"value": 3.5 + n, "unit": "mmol/L"}
    normal = [{"low": {"value": 1}, "high": {"value": 2}}]
    radiology = [_concept("RAD", "Radiology", "http://terminology.hl7.org/CodeSystem/v2-0074")]
    drug = _concept("2193", "ceftriaxone", "http://www.nlm.nih.gov/research/umls/rxnorm")
    return [
        _measured(f"lab-{key}", "laboratory", TESTS[n % 6], taken, known, valueQuantity=number, referenceRange=normal,
                  interpretation=[_concept("H", "high", "http://example.org/flag")]),
        _measured(f"vital-{key}", "vital-signs", "8310-5", taken, known, valueQuantity={"value": 37, "unit": "Cel"}),
        _measured(f"exam-{key}", "exam", "10210-3", taken, known, valueString="looks ill"),
        _measured(f"culture-{key}", "microbiology", "600-7", taken, known, valueString="no growth"),
        _of("DiagnosticReport", f"film-{key}", status="final", category=radiology, effectiveDateTime=at(taken),
            issued=at(known), code=_concept("36643-5", "XR Chest 2 Views"), conclusion="Opacity on the right."),
        _of("MedicationRequest", f"order-{key}", status="completed", intent="order", authoredOn=at(known),
            medicationCodeableConcept=drug, dispenseRequest={"validityPeriod": {"start": at(taken)}}),
        _of("ServiceRequest", f"asked-{key}", status="completed", intent="order", authoredOn=at(known),
            code=_concept("24321-2", "Basic metabolic panel")),
        _of("MedicationAdministration", f"given-{key}", status="completed", effectiveDateTime=at(known),
            medicationCodeableConcept=drug),
        _of("Procedure", f"done-{key}", status="completed", performedDateTime=at(known),
            code=_concept("182840001", "Drug treatment", "http://snomed.info/sct")),
    ]  # fmt: skip


class FhirRecord:
    """The record as ndjson; see `leak_records.RawRecord`."""

    source = "fhir"
    source_id = "own"
    clocks: ClassVar = {
        "triage": -230,
        "admission_diagnosis": 360,
        "differential": 480,
        "workup": 480,
        "result_update": 720,
        "treatment": DAY,
        "disposition": DAY,
        "discharge_diagnosis": END,
    }

    def content(self) -> Resources:
        """A fresh copy of all resources."""
        return copy.deepcopy(resources())

    def write(self, content: Resources, folder: Path) -> Path:
        """Writes the resources as ndjson; returns the folder."""
        lines = [json.dumps(one) for one in content]
        (folder / "all.ndjson").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    def later(self, minute: int) -> list[Part]:
        """The resources and results that become known after a minute."""
        parts = []
        for resource in resources():
            first, last = known(resource)
            if last is None or first is None or last <= minute:
                continue
            key = resource["id"]
            name = f"{resource['resourceType']}/{key}"
            if first > minute:
                parts.append(Part(name, _whole(key)))
            else:
                deeds = {"alter": _results(key, _spoil), "delete": _results(key, lambda value: value.clear())}
                if "issued" in resource:
                    deeds["shift"] = _shift(key)
                parts.append(Part(f"{name}, its result", deeds))
        if minute < END:
            parts.append(Part("Encounter/own period.end", {"shift": _shift("own")}))
        later = {"alter": _edit("later", _spoil), "shift": _shift("later"), "delete": _drop("later")}
        parts.append(Part("Encounter/later", later))
        return parts

    def hidden(self) -> list[Part]:
        """What no step sees: Conditions of the stay, what its Encounters tell of it, death, and other resources."""
        parts = []
        for resource in resources():
            kind, key = resource["resourceType"], resource["id"]
            if kind == "Condition" and not key.startswith(("before", "known")):
                parts.append(Part(f"Condition/{key}", {**_whole(key), "shift": _edit(key, _other_code)}))
            elif kind == "Encounter":
                parts.append(Part(f"Encounter/{key} outcome", {"alter": _edit(key, _outcome),
                                                               "delete": _edit(key, _no_outcome)}))  # fmt: skip
            if kind == "Encounter" and key in ("own", "later"):
                parts.append(Part(f"Encounter/{key}.diagnosis", {
                    "alter": _edit(key, lambda r: r["diagnosis"].reverse()),
                    "shift": _edit(key, lambda r: r["diagnosis"].pop()),
                    # Not an old problem: a Condition that a stay names is never shown, whatever its date.
                    "add": _edit(key, lambda r: r["diagnosis"].append(_use("DD", "entered", 3))),
                    "delete": _edit(key, lambda r: r.pop("diagnosis")),
                }))  # fmt: skip
            elif kind == "Patient":
                parts.append(Part("Patient death", {"alter": _edit(key, lambda r: r.update(_DEAD))}))
            elif kind == "MedicationRequest":
                parts.append(Part(f"{key} end", {"alter": _edit(key, lambda r: r.update(_OVER))}))

        def other_types(found: Resources) -> None:
            found += others(LOUD)

        parts.append(Part("resources of no use", {"add": other_types}))
        return parts

    def early(self, content: Resources) -> None:
        """Puts LOUD into the chief complaint."""
        _edit("complaint", _spoil)(content)

    def broken(self, content: Resources, word: str) -> None:
        """Adds an Observation and an Encounter that are no FHIR."""
        content.append({**_measured("broken", "exam", word, 0, 0, valueQuantity={"value": word}), "note": word})
        content.append({**_stay("broken-stay", 0, 10, "IMP", word), "status": 7, "type": [{"text": word}]})

    def plant(self, content: Resources, word: Callable[[str, str], str]) -> Resources:
        """Returns the resources with a word of its own in every field that is hidden and can hold a text."""
        planted = [_filled(resource, word) for resource in content]
        return planted + others(word("other", "resource"))


def known(resource: Json) -> tuple[int | None, int | None]:
    """When something of a resource is known, and when all of it is, by its own fields; None for what is not a fact."""
    if resource["resourceType"] in ("Patient", "Encounter", "Condition"):
        return None, None
    moments = {name: _minute(resource[name]) for name in _TIMES if name in resource}
    seen, issued = moments.get("effectiveDateTime"), moments.get("issued")
    category = str(resource.get("category"))
    kind = next((k for k in LAGS if k in category or (k == "imaging" and "'RAD'" in category)), "")
    if seen is not None and kind:
        return seen, max(seen, seen + LAGS[kind] if issued is None else issued)
    start = ((resource.get("dispenseRequest") or {}).get("validityPeriod") or {}).get("start")
    last = max([*moments.values(), *([_minute(start)] if start else [])])
    return last, last


def _minute(text: str) -> int:
    return math.ceil((datetime.fromisoformat(text) - START) / timedelta(minutes=1))


def others(word: str) -> Resources:
    """Resources of types that no case is made of, with a word as their text."""
    text = {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{word}</div>'}
    own, patient = {"reference": "Encounter/own"}, {"reference": "Patient/p"}
    made = {"CarePlan": {"status": "active", "intent": "plan", "description": word, "encounter": own},
            "ClinicalImpression": {"status": "completed", "summary": word, "encounter": own},
            "RiskAssessment": {"status": "final", "mitigation": word, "encounter": own},
            "Goal": {"lifecycleStatus": "active", "description": {"text": word}}}  # fmt: skip
    return [{"resourceType": kind, "id": f"no-{kind}", "subject": patient, "text": text, **more}
            for kind, more in made.items()]  # fmt: skip


def _edit(key: str, deed: Callable[[Json], object]) -> Change:
    """A deed on the resource of that id, where it is still there."""

    def change(found: Resources) -> None:
        for resource in found:
            if resource["id"] == key:
                deed(resource)

    return change


def _drop(key: str) -> Change:
    def change(found: Resources) -> None:
        found[:] = [resource for resource in found if resource["id"] != key]

    return change


def _whole(key: str) -> dict[str, Change]:
    def add(found: Resources) -> None:
        for extra in [copy.deepcopy(resource) for resource in found if resource["id"] == key]:
            extra["id"] = f"extra-{key}"
            _spoil(extra)
            found.append(extra)

    return {"alter": _edit(key, _spoil), "shift": _shift(key), "delete": _drop(key), "add": add}


def _shift(key: str) -> Change:
    def later(text: str) -> str:
        return (datetime.fromisoformat(text) + timedelta(hours=5)).isoformat()

    def shift(resource: Json) -> None:
        if resource["resourceType"] == "Encounter":
            resource["period"]["end"] = later(resource["period"]["end"])
            return
        names = ("issued",) if "issued" in resource else _TIMES
        resource.update({n: later(resource[n]) for n in names if n in resource})

    return _edit(key, shift)


def _results(key: str, deed: Callable[[Json], object]) -> Change:
    """A deed on the fields of a result; one that is emptied goes away, and what was done has no result."""

    def change(resource: Json) -> None:
        for name in ("valueQuantity", "valueString", "interpretation", "referenceRange", "conclusion"):
            if name in resource:
                held = {name: resource.pop(name)}
                deed(held)
                resource.update(held)

    return _edit(key, change)


def _spoil(resource: Json) -> None:
    """Replaces every word and number that a person could read; codes, times and references stay."""
    for name, value in list(resource.items()):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                _spoil(part)
        if name in ("text", "display", "valueString", "conclusion", "description"):
            resource[name] = f"{LOUD} {LOUD}"
        elif name == "value" and isinstance(value, int | float):
            resource[name] = int(NUMBER)


def _other_code(resource: Json) -> None:
    resource["code"]["coding"][0]["code"] = "Z99.9"


def _outcome(resource: Json) -> None:
    resource["hospitalization"]["dischargeDisposition"] = {"text": LOUD}
    resource["priority"] = {"text": LOUD}
    resource["reasonCode"] = [{"text": LOUD}]
    resource["type"] = [{"text": LOUD}]
    resource["length"] = {"value": int(NUMBER), "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"}
    if resource["class"]["code"] == "IMP":
        resource["class"]["code"] = "ACUTE"


def _no_outcome(resource: Json) -> None:
    resource["hospitalization"].pop("dischargeDisposition", None)
    resource.pop("priority", None)


def _filled(resource: Json, word: Callable[[str, str], str]) -> Json:
    """Returns a resource with every hidden field of a type that holds text filled, where that leaves it valid."""
    kind = resource["resourceType"]
    model = get_fhir_model_class(kind)
    filled = copy.deepcopy(resource)
    for name, value in _texts(model, kind, word):
        tried = {**filled, name: value}
        try:
            model(**copy.deepcopy(tried))
        except ValidationError:
            continue
        filled = tried
    if kind == "Encounter":
        for name in ("dischargeDisposition", "destination", "specialCourtesy"):
            text = {"text": word(kind, f"hospitalization {name}")}
            filled["hospitalization"][name] = [text] if name == "specialCourtesy" else text
        filled["hospitalization"]["destination"] = {"display": word(kind, "hospitalization destination")}
    if kind == "Condition" and not resource["id"].startswith(("before", "known")):
        filled["code"]["text"] = filled["code"]["coding"][0]["display"] = word(kind, "code")
    return filled


def _texts(model: Any, kind: str, word: Callable[[str, str], str]) -> Iterator[tuple[str, Any]]:
    """Yields field and value for every field of a resource type that is hidden and can hold a word."""
    for name, field in model.model_fields.items():
        if name in _LINKS | VISIBLE[kind] or name.startswith(_CHOICES) or name.endswith("__ext"):
            continue
        said, text = repr(field.annotation), word(kind, name)
        made = {
            "CodeableConceptType": {"text": text}, "AnnotationType": {"text": text},
            "NarrativeType": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>'},
            "ReferenceType": {"display": text}, "IdentifierType": {"value": text}, "HumanNameType": {"text": text},
            "ExtensionType": {"url": "http://example.org/x", "valueString": text}, "AddressType": {"text": text},
            "ContactPointType": {"value": text}, "String()": text, "Markdown()": text,
        }  # fmt: skip
        found = next((value for type_name, value in made.items() if type_name in said), None)
        if found is not None:
            yield field.alias or name, [found] if "List" in said else found
