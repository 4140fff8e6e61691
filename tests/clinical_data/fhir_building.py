"""FHIR resources to build tests from, and a reader of them."""

import json

from clinical_data.sources import ImportLog
from clinical_data.sources.fhir import FhirSource

ICD = "http://hl7.org/fhir/sid/icd-10-cm"
P, E = {"reference": "Patient/p"}, {"reference": "Encounter/e"}


def concept(code, system="http://loinc.org", **more):
    return {"coding": [{"system": system, "code": code, "display": f"name of {code}"}], **more}


def patient(**more):
    return {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1950-06-01", **more}


def encounter(key="e", start="2024-01-10T10:00:00+01:00", end="2024-01-14T10:00:00+01:00", **more):
    return {
        "resourceType": "Encounter",
        "id": key,
        "status": "finished",
        "class": {"code": "IMP"},
        "subject": P,
        "period": {"start": start, "end": end},
        **more,
    }


def observation(key="o", category="laboratory", **more):
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": concept("2823-3"),
        "subject": P,
        "encounter": E,
        "category": [concept(category)],
        "effectiveDateTime": "2024-01-10T11:00:00+01:00",
        "valueQuantity": {"value": 4, "unit": "mmol/L"},
        **more,
    }


def condition(key="c", code="J18.9", system=ICD, **more):
    return {"resourceType": "Condition", "id": key, "subject": P, "code": concept(code, system), **more}


def diagnosis(use, key, rank=None):
    found = {
        "condition": {"reference": f"Condition/{key}"},
        "use": concept(use, "http://terminology.hl7.org/CodeSystem/diagnosis-role"),
    }
    return found if rank is None else {**found, "rank": rank}


def without(resource, *names):
    return {k: v for k, v in resource.items() if k not in names}


PROBLEM = {"category": [concept("problem-list-item")]}
CODED = {"category": [concept("encounter-diagnosis")]}
CANARY = "CANARY0731"


def loader(tmp_path):
    """Returns a function that writes resources as ndjson (or the given files) and reads (cases, quarantined, log)."""

    def do(*resources, **files):
        folder = tmp_path / f"in{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        if resources:
            files["all.ndjson"] = "\n".join(json.dumps(r) for r in resources).encode()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return read(folder)

    return do


def read(path):
    broken = []
    log = ImportLog(broken.append)
    return list(FhirSource().read(path, log)), broken, log


def only(loaded):
    cases, broken, _ = loaded
    assert broken == []
    assert len(cases) == 1
    return cases[0]


def finding(loaded):
    found = only(loaded).case.findings
    assert len(found) == 1
    return found[0]
