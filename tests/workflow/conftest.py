"""A small database of made-up cases, and a pathway of two steps over a vocabulary of four answers."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, make_finding_id, sort_findings
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database
from workflow.cli import main

with warnings.catch_warnings():  # the package reads its files in a deprecated way when it is first imported
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("simple_icd_10_cm")

LOINC = "http://loinc.org"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
VOCABULARY = """\
name: four-answers
version: 1
system: http://hl7.org/fhir/sid/icd-10-cm
source: made up for tests
entries:
  - {code: J18.9, display: pneumonia}
  - {code: I50.9, display: heart failure}
  - {code: N39.0, display: urinary tract infection}
  - {code: K85.9, display: acute pancreatitis}
"""
PATHWAY = """\
name: two-steps
version: 1
title: Two steps
steps:
  - name: first
    title: First diagnosis
    question: What is the working diagnosis?
    answer_cue: Working diagnosis
    clock:
      fhir: {{anchor: admission, plus_minutes: 360, text: 6 hours after admission}}
    opening: [chief_complaint]
    answer:
      form: closed
      vocabulary: {{fhir: {vocabulary}}}
    truth: admission_diagnosis
    scorers: [icd]
    search: {{depth: 3}}
  - name: second
    title: Second diagnosis
    question: What is the principal diagnosis?
    answer_cue: Principal diagnosis
    clock:
      fhir: {{anchor: end_of_stay, text: at the end of the stay}}
    opening: [basic_metabolic_panel]
    answer:
      form: closed
      vocabulary: {{fhir: {vocabulary}}}
    truth: discharge_diagnosis
    scorers: [icd]
"""


def make_case(number: int, *, stay: int = 4000) -> LabelledCase:
    """A case of `stay` minutes; potassium comes at minute 60, sodium at minute 2000."""
    source_id = f"e{number:03d}"

    def fact(key: str, kind: FindingKind, code: str, display: str, value: float | str, at: int) -> Finding:
        name = make_finding_id("fhir", source_id, key)
        return Finding(name, kind, Coding(LOINC, code, display), value, at, at, "mmol/L" if key != "cc" else "")

    findings = [
        fact("cc", FindingKind.COMPLAINT, "8661-1", "Chief complaint", f"cough for {number} days", 0),
        fact("k", FindingKind.LABORATORY, "2823-3", "Potassium", 3.0 + number / 10, 60),
        fact("na", FindingKind.LABORATORY, "2951-2", "Sodium", 130.0 + number, 2000),
    ]
    case = Case(
        case_id=f"fhir-{source_id}",
        source="fhir",
        source_id=source_id,
        patient=Patient(f"fhir-p{number:03d}", "fhir", f"p{number:03d}", "female"),
        age=60 + number % 20,
        encounters=(Encounter(source_id, "inpatient", 0, stay),),
        anchors={"admission": 0, "end_of_stay": stay},
        findings=sort_findings(findings),
    )
    codes = ("J18.9", "I50.9", "N39.0", "K85.9")
    label = Label(Coding(ICD, codes[number % 4], "CANARY label"), Strength.RECORDED_AT_TIME)
    truth = {
        "admission_diagnosis": GroundTruth(case.case_id, "admission_diagnosis", (label,)),
        "discharge_diagnosis": GroundTruth(case.case_id, "discharge_diagnosis", (), "not recorded"),
    }
    return LabelledCase(case, truth)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns a function that runs the command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("WARDSTAR_HOME", str(tmp_path / "home"))

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def labelled() -> Callable[..., LabelledCase]:
    return make_case


@pytest.fixture
def pathway_file(tmp_path: Path) -> Path:
    vocabulary = tmp_path / "four-answers.yaml"
    vocabulary.write_text(VOCABULARY)
    path = tmp_path / "two-steps.yaml"
    path.write_text(PATHWAY.format(vocabulary=vocabulary))
    return path


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., str]:
    """Returns a function that makes a database of n cases and returns its URL."""

    def make(number: int, name: str = "cases.db", *, stay: int = 4000) -> str:
        url = f"sqlite:///{tmp_path / name}"
        engine = open_database(url, create=True)
        CaseStore(engine).put_many([make_case(i, stay=stay) for i in range(number)])
        engine.dispose()
        return url

    return make
