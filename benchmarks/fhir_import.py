"""Speed of the FHIR import, against bare validation of the same resources by fhir.resources in the same run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from fhir.resources.R4B import get_fhir_model_class

from clinical_data.sources import ImportLog
from clinical_data.sources.fhir import FhirSource
from clinical_data.sources.fhir_pool import MOST_WORKERS, usable_processors
from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database

OBSERVATIONS = 60  # per case
LOINC = "http://loinc.org"


def resources(cases: int) -> Iterator[dict[str, Any]]:
    """Yields a made-up resource set: per case a patient, an encounter, a labelled condition and results."""
    for n in range(cases):
        subject = {"subject": {"reference": f"Patient/p{n}"}, "encounter": {"reference": f"Encounter/e{n}"}}
        yield {"resourceType": "Patient", "id": f"p{n}", "gender": "female", "birthDate": "1950-02-03"}
        yield {
            "resourceType": "Encounter",
            "id": f"e{n}",
            "status": "finished",
            "class": {"code": "IMP"},
            "subject": subject["subject"],
            "period": {"start": "2024-01-01T10:00:00+01:00", "end": "2024-01-05T10:00:00+01:00"},
            "diagnosis": [
                {"condition": {"reference": f"Condition/c{n}"}, "use": {"coding": [{"code": "DD"}]}, "rank": 1}
            ],
        }
        code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "J18.9", "display": "Pneumonia"}]}
        yield {"resourceType": "Condition", "id": f"c{n}", "code": code, **subject}
        for m in range(OBSERVATIONS):
            yield {
                "resourceType": "Observation",
                "id": f"o{n}-{m}",
                "status": "final",
                **subject,
                "category": [{"coding": [{"code": "laboratory"}]}],
                "code": {"coding": [{"system": LOINC, "code": "2823-3", "display": "Potassium"}]},
                "effectiveDateTime": f"2024-01-02T{m % 24:02}:00:00+01:00",
                "issued": f"2024-01-02T{m % 24:02}:30:00+01:00",
                "valueQuantity": {
                    "value": 4.2,
                    "unit": "mmol/L",
                    "system": "http://unitsofmeasure.org",
                    "code": "mmol/L",
                },
                "referenceRange": [{"low": {"value": 3.5, "unit": "mmol/L"}, "high": {"value": 5.1, "unit": "mmol/L"}}],
            }


def measure(cases: int = 500) -> dict[str, float]:
    """Returns resources per second of import into a fresh database, of bare parsing and validation, and their ratios.

    Bare validation is one process; the import takes as many as it would for a user, which the figures state.
    """
    lines = [orjson.dumps(r) for r in resources(cases)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.ndjson"
        path.write_bytes(b"\n".join(lines))
        validate(lines[: OBSERVATIONS + 3])  # build the models outside the timing
        begun = time.perf_counter()
        validate(lines)
        bare = time.perf_counter() - begun
        engine = open_database(f"sqlite:///{folder}/a.db", create=True)
        broken: list[object] = []
        log = ImportLog(broken.append)
        begun = time.perf_counter()
        counts = CaseStore(engine).put_many(FhirSource().read(path, log))
        full = time.perf_counter() - begun
        engine.dispose()
    if broken or counts["added"] != cases:
        raise RuntimeError("the benchmark's own resources did not import")
    return {
        "fhir_resources_per_second": round(len(lines) / full, 1),
        "bare_validation_resources_per_second": round(len(lines) / bare, 1),
        "fhir_import_over_bare_validation": round(bare / full, 3),
        "fhir_import_time_over_bare_validation": round(full / bare, 3),
        "fhir_import_worker_processes": min(usable_processors(), MOST_WORKERS),
    }


def validate(lines: Iterable[bytes]) -> int:
    """Parses and validates resources, and nothing else; returns how many."""
    number = 0
    for line in lines:
        data = orjson.loads(line)
        get_fhir_model_class(data["resourceType"])(**data)
        number += 1
    return number


if __name__ == "__main__":
    print(orjson.dumps(measure()).decode())
