"""Vocabulary, truth and scorer of every step meet: what a source records can be answered, or its share is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from clinical_data.catalogue import ORDERED_GROUPS, load_catalogue
from clinical_data.demo import bundle_folder
from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth, LabelledCase
from clinical_data.sources import ImportLog
from clinical_data.vocabulary import load_vocabulary, vocabulary_texts
from evaluation.matching import in_vocabulary, key_level, label_classes
from workflow.pathway import Step, known_pathways, load_pathway

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def read(source: str, name: str, path: Path) -> list[LabelledCase]:
    importer: Any = getattr(import_module(f"clinical_data.sources.{source}"), name)
    return list(importer().read(path, ImportLog(lambda row: None)))


def answerable(step: Step, cases: Iterable[LabelledCase]) -> tuple[int, int]:
    """How many labels of a step some answer names, and how many there are; of one answer the principal alone."""
    found: Counter[bool] = Counter()
    vocabularies = {source: load_vocabulary(name) for source, name in step.answer.vocabulary.items()}
    for one in cases:
        truth, vocabulary = one.truth.get(step.truth), vocabularies[one.case.source]
        if truth is None or not truth.labels:
            continue
        if step.answer.form != "set":
            found[in_vocabulary(truth, vocabulary)] += 1
            continue
        level = key_level(vocabulary)
        for label in truth.labels:
            alone = GroundTruth(truth.case_id, truth.step, (label,))
            found[in_vocabulary(alone, vocabulary)] += 1
            assert in_vocabulary(alone, vocabulary) <= (level in label_classes(label, vocabulary))
    return found[True], found.total()


def shares(pathway: str, cases: list[LabelledCase]) -> dict[str, float]:
    """Step -> share of its labels that can be answered, of steps with labels."""
    counts = {s.name: answerable(s, cases) for s in load_pathway(pathway).pathway.steps if s.truth}
    return {step: named / total for step, (named, total) in counts.items() if total}


def test_every_label_of_the_bundled_cases_can_be_answered() -> None:
    cases = read("fhir", "FhirSource", Path(bundle_folder()))
    found = shares("inpatient", cases)
    assert set(found) == {  # no bundled case records a differential
        "triage", "admission_diagnosis", "workup", "result_update", "treatment", "disposition", "discharge_diagnosis",
    }  # fmt: skip
    assert set(found.values()) == {1.0}
    assert set(shares("emergency", cases).values()) == {1.0}
    assert set(shares("inpatient-zh", cases).values()) == {1.0}


@pytest.mark.shared_data
@pytest.mark.skipif(not (DATA / "mimic-iv-demo").is_dir(), reason="the MIMIC-IV demo is not beside the project")
def test_labels_of_mimic_iv() -> None:
    found = shares("inpatient", read("mimic_iv", "MimicIvSource", DATA / "mimic-iv-demo"))
    assert {found[step] for step in ("workup", "treatment", "disposition")} == {1.0}
    assert 0.4 < found["discharge_diagnosis"] < 0.6  # 55 categories are not all of medicine: see docs/data.md


@pytest.mark.shared_data
@pytest.mark.skipif(not (DATA / "eicu-demo").is_dir(), reason="the eICU demo is not beside the project")
def test_labels_of_eicu() -> None:
    found = shares("icu", read("eicu", "EicuSource", DATA / "eicu-demo"))
    assert {found[step] for step in ("workup", "treatment", "disposition")} == {1.0}
    assert found["admission_diagnosis"] > 0.8  # the others are operations
    assert min(found["differential"], found["discharge_diagnosis"]) > 0.9


def test_every_source_of_a_bundled_step_has_a_clock_and_a_vocabulary() -> None:
    for name in known_pathways():
        for step in load_pathway(name).pathway.steps:
            assert set(step.clock) == set(step.answer.vocabulary), (name, step.name)


def test_the_answers_of_a_work_up_are_what_the_catalogue_lets_order(tmp_path: Path) -> None:
    catalogue, vocabulary = load_catalogue(), load_vocabulary("catalogue:v1")
    ordered = [i.item_id for i in catalogue.items if i.group in ORDERED_GROUPS]
    assert [e.code for e in vocabulary.entries] == ordered
    assert vocabulary.key_of("CBC") == "blood_count"
    ((name, text),) = vocabulary_texts("catalogue:v1").items()
    (tmp_path / name).write_text(text)
    assert load_vocabulary(str(tmp_path / name)) == vocabulary  # so that a training set can carry it
    with pytest.raises(UsageError, match="no catalogue named v9"):
        load_vocabulary("catalogue:v9")
