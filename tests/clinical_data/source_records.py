"""A small record of every source, for the suites that hold for all of them.

A new source adds one line to `_SOURCES` and one file, `records_SOURCE.py` (`-` written `_`), with one function:

    def write(folder: Path, canary: str = CANARY) -> Path: ...

It writes a record of one to three cases below `folder` and returns the path to import. The record must hold

- `canary`, as a word, in every place that tells a recorded answer (codes, texts, outcome columns), so that at least
  one label of at least one case shows it, and in no place that a step may see;
- one broken row that is quarantined, with the word `PLANTED` where a patient's value would stand.
"""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from clinical_data.demo import bundle_folder
from clinical_data.sources import ImportLog, Quarantined, Source

CANARY = "zugzwang"  # a word of no record and no catalogue; planted where only a recorded answer stands
PLANTED = "xylopyrography"  # stands for a patient's value in a broken row

_SOURCES = {
    "fhir": "FhirSource",
    "mimic-iv": "MimicIvSource",
    "mimic-iii": "MimicIiiSource",
    "eicu": "EicuSource",
    "meds": "MedsSource",
    "osce": "OsceSource",
    "ddxplus": "DdxplusSource",
}
NAMES = tuple(_SOURCES)


def source_of(name: str) -> Source:
    """The importer of that name; skips the test while its module is missing."""
    module = f"clinical_data.sources.{name.replace('-', '_')}"
    if find_spec(module) is None:
        pytest.skip(f"no importer {module} yet")
    source: Source = getattr(import_module(module), _SOURCES[name])()
    return source


def import_all(name: str, path: Path, **job: Any) -> tuple[list[Any], list[Quarantined], ImportLog]:
    """Reads a record to its end; returns the cases, what was quarantined, and the log."""
    quarantined: list[Quarantined] = []
    log = ImportLog(quarantined.append)
    return list(source_of(name).read(path, log, **job)), quarantined, log


def _write_fhir(folder: Path, canary: str = CANARY) -> Path:
    """A bundled admission with every diagnosis of the stay renamed, and one Observation that is no FHIR."""
    (path,) = bundle_folder().glob("ward-0015.json.gz")
    bundle = json.loads(gzip.decompress(path.read_bytes()))
    for entry in bundle["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] == "Condition" and "encounter" in resource:
            resource["code"]["text"] = canary
            for coding in resource["code"]["coding"]:
                coding["display"] = canary
        if resource["resourceType"] == "Encounter" and "partOf" not in resource:
            resource["hospitalization"]["dischargeDisposition"] = {"text": canary}
    broken = next(e for e in bundle["entry"] if "valueQuantity" in e["resource"])
    broken = copy.deepcopy(broken)
    broken["fullUrl"] = "urn:uuid:00000000-0000-4000-8000-000000000001"
    broken["resource"].update(id="broken", valueQuantity={"value": PLANTED, "unit": PLANTED})
    bundle["entry"].append(broken)
    (folder / "bundle.json").write_text(json.dumps(bundle), encoding="utf-8")
    return folder / "bundle.json"


def osce_scenario(**changes: Any) -> dict[str, Any]:
    """One scenario of the published form; `changes` replace parts of it."""
    return {
        "OSCE_Examination": {
            "Objective_for_Doctor": "Assess and diagnose the patient presenting with flank pain.",
            "Patient_Actor": {
                "Demographics": "35-year-old female",
                "History": "Two days of flank pain and fever.",
                "Symptoms": {"Primary_Symptom": "Flank pain", "Secondary_Symptoms": ["Fever", "Chills"]},
                "Past_Medical_History": "Kidney stones.",
                "Social_History": "Does not smoke.",
                "Review_of_Systems": {"General": "Denies weight loss."},
                "Current_Medications": ["Metformin"],
            },
            "Physical_Examination_Findings": {
                "Vital_Signs": {"Temperature": "38.9°C (102°F)", "Heart_Rate": "104 bpm"},
                "Abdominal_Examination": {"Palpation": "Right flank tender."},
            },
            "Test_Results": {
                "Urinalysis": {"Nitrites": "Positive", "WBC": "Pending", "RBC": "Not provided"},
                "Blood_Tests": {"White_Cells": "13,400/mm3"},
                "Imaging": {"CT_Abdomen": {"Findings": "Perinephric stranding."}},
            },
            "Correct_Diagnosis": "Pyelonephritis",
            **changes,
        }
    }


def _write_osce(folder: Path, canary: str = CANARY) -> Path:
    task, answer = f"Assess the patient for {canary}.", f"{canary} disease"
    lines = [
        json.dumps(osce_scenario(Objective_for_Doctor=task, Correct_Diagnosis=answer)),
        '{"OSCE_Examination": {"Patient_Actor": {"History": "' + PLANTED,
        json.dumps(osce_scenario(Correct_Diagnosis=answer, Test_Results={"ESR": "38 mm/hr"})),
    ]
    (folder / "agentclinic_medqa.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "agentclinic_medqa.jsonl"


def _meaning(english: str) -> dict[str, str]:
    return {"fr": english, "en": english}


def _evidence(name: str, question: str, kind: str, *, antecedent: bool = False, **more: Any) -> dict[str, Any]:
    plain = {"code_question": name, "default_value": 0, "value_meaning": {}, "possible-values": []}
    asked = {"name": name, "question_fr": question, "question_en": question, "is_antecedent": antecedent}
    return {**plain, **asked, "data_type": kind, **more}


EVIDENCES = {
    "E_53": _evidence("E_53", "Do you have pain somewhere, related to your reason for consulting?", "B"),
    "E_55": _evidence(
        "E_55", "Do you feel pain somewhere?", "M", code_question="E_53", default_value="V_123",
        value_meaning={"V_123": _meaning("nowhere"), "V_29": _meaning("lower chest"), "V_89": _meaning("forehead")},
        **{"possible-values": ["V_123", "V_29", "V_89"]},
    ),
    "E_56": _evidence("E_56", "How intense is the pain?", "C", **{"possible-values": list(range(11))}),
    "E_91": _evidence("E_91", "Do you have a fever (either felt or measured with a thermometer)?", "B"),
    "E_130": _evidence(
        "E_130", "What color is the rash?", "C", code_question="E_129", default_value="V_11",
        value_meaning={"V_11": _meaning("NA"), "V_86": _meaning("dark")}, **{"possible-values": ["V_11", "V_86"]},
    ),
    "E_79": _evidence("E_79", "Do you smoke cigarettes?", "B", antecedent=True),
    "E_204": _evidence(
        "E_204", "Have you traveled out of the country in the last 4 weeks?", "C", antecedent=True,
        default_value="V_10", value_meaning={"V_10": _meaning("N"), "V_0": _meaning("North Africa")},
        **{"possible-values": ["V_10", "V_0"]},
    ),
}  # fmt: skip


def condition(name: str, icd: str) -> dict[str, Any]:
    """One entry of release_conditions.json."""
    names = {"condition_name": name, "cond-name-fr": name, "cond-name-eng": name}
    return {**names, "icd10-id": icd, "symptoms": {"E_53": {}}, "antecedents": {}, "severity": 3}


DDXPLUS_COLUMNS = ("AGE", "DIFFERENTIAL_DIAGNOSIS", "SEX", "PATHOLOGY", "EVIDENCES", "INITIAL_EVIDENCE")


def patients_csv(*rows: tuple[Any, ...]) -> str:
    """The text of a patients file as the release writes it: lists as Python literals."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([DDXPLUS_COLUMNS, *rows])
    return text.getvalue()


def write_release(folder: Path, conditions: dict[str, Any], **splits: str) -> Path:
    """Writes a release; each split is a zip with one file that has no suffix, as published."""
    (folder / "release_evidences.json").write_text(json.dumps(EVIDENCES), encoding="utf-8")
    (folder / "release_conditions.json").write_text(json.dumps(conditions), encoding="utf-8")
    for split, text in splits.items():
        with zipfile.ZipFile(folder / f"release_{split}_patients.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"release_{split}_patients", text)
    return folder


def _write_ddxplus(folder: Path, canary: str = CANARY) -> Path:
    names = [f"{canary} one", f"{canary} two"]
    conditions = {names[0]: condition(names[0], "j20"), names[1]: condition(names[1], "j17, j18")}
    given = repr([[names[1], 0.2], [names[0], 0.8]])
    told = repr(["E_53", "E_55_@_V_29", "E_55_@_V_89", "E_56_@_4", "E_79", "E_204_@_V_10", "E_91"])
    test = patients_csv(
        (18, given, "M", names[0], told, "E_91"),
        (30, given, "F", names[0], repr([PLANTED]), "E_91"),
    )
    return write_release(
        folder, conditions, train=patients_csv((44, given, "F", names[1], repr(["E_91"]), "E_91")), test=test
    )


def _later(name: str) -> Callable[..., Path]:
    """The writer that a file `records_SOURCE.py` holds; skips the test while it is missing."""

    def write(folder: Path, canary: str = CANARY) -> Path:
        module = f"records_{name.replace('-', '_')}"
        if find_spec(module) is None:
            pytest.skip(f"no record of {name} yet: tests/clinical_data/{module}.py is missing")
        path: Path = import_module(module).write(folder, canary)
        return path

    return write


RECORDS: dict[str, Callable[..., Path]] = {
    "fhir": _write_fhir,
    "mimic-iv": _later("mimic-iv"),
    "mimic-iii": _later("mimic-iii"),
    "eicu": _later("eicu"),
    "meds": _later("meds"),
    "osce": _write_osce,
    "ddxplus": _write_ddxplus,
}
