"""Scores say how many case-steps are of patients that a model of the run was tuned on."""

import hashlib
import json

import pytest
from run_records import record_of

from evaluation.taught_patients import TaughtPatients
from search.models import weight_files
from search.models.weight_files import find_weights

NONE = {"train": 0, "tuning": 0}


def digest(patient):
    return hashlib.sha256(patient.encode()).hexdigest()


@pytest.fixture
def tuned(tmp_path):
    """A folder that passes for a whole model, tuned on p1 and p2 and stopped by p3."""
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    patients = {"train": sorted(map(digest, ("p1", "p2"))), "tuning": [digest("p3")], "unnamed": 0}
    (folder / "card.json").write_text(json.dumps({"status": "complete", "patients": patients}))
    return folder


def records(folder, role="generator"):
    toy = {"spec": "random:7", "revision": "1"}
    own = {"spec": str(folder), "revision": find_weights(str(folder)).revision if folder.is_dir() else "9"}
    models = {"generator": toy, "peer": toy, role: own}
    return [record_of("J18", case_id=f"fhir-{n}", patient=f"p{n}", models=models) for n in (1, 2, 3, 4)]


def test_a_value_model_is_a_model_of_the_run(tuned):
    """Its revision is over adapter and head."""
    for name in ("adapter_config.json", "adapter_model.safetensors", "value_head.safetensors"):
        (tuned / name).write_text(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_files, "find_weights", lambda spec: weight_files.Found(tuned, "tiny+judge", "adapter"))
        revision = weight_files.find_value_weights(str(tuned)).revision
        assert revision != "adapter"
        toy = {"spec": "random:7", "revision": "1"}
        models = {"generator": toy, "peer": toy, "value": {"spec": str(tuned), "revision": revision}}
        found = [record_of("J18", case_id=f"fhir-{n}", patient=f"p{n}", models=models) for n in (1, 2, 3, 4)]
        assert TaughtPatients("r").count(found) == {"train": 2, "tuning": 1}
        (tuned / "value_head.safetensors").write_text("another")
        taught = TaughtPatients("r")
        assert taught.count(found) == {"train": None, "tuning": None}
        assert "holds another model now" in taught.notes([])[0]


@pytest.mark.parametrize("role", ["generator", "peer"])
def test_case_steps_of_patients_that_were_taught_are_counted(tuned, role):
    taught = TaughtPatients("r")
    assert taught.count(records(tuned, role)) == {"train": 2, "tuning": 1}
    assert taught.notes([{"train": 2, "tuning": 1}, NONE]) == [
        "2 case-steps of r are of patients that a model of it was tuned on, 1 of patients that told it when to "
        "stop: figures over them say little of new cases"
    ]
    (tuned / "card.json").unlink()  # a model as it came
    assert TaughtPatients("r").count(records(tuned, role)) == NONE
    toys = [record_of("J18", models={"generator": {"spec": "random:7", "revision": "1"}})]
    assert TaughtPatients("r").count(toys) == NONE


@pytest.mark.parametrize("change", ["gone", "trained anew", "no patients", "unnamed"])
def test_what_cannot_be_told_is_said(tuned, tmp_path, change):
    found = records(tuned)
    words = "its card does not name patients"
    if change == "gone":
        tuned.rename(tmp_path / "elsewhere")
        words = "the folder is not here"
    elif change == "trained anew":
        (tuned / "config.json").write_text('{"a": 1}')
        words = "the folder holds another model now"
    elif change == "no patients":
        (tuned / "card.json").write_text('{"status": "complete"}')
    else:
        (tuned / "card.json").write_text('{"patients": {"train": [], "tuning": [], "unnamed": 5}}')
        words = "5 rows of its training set name no patient"
    taught = TaughtPatients("r")
    assert taught.count(found) == {"train": None, "tuning": None}
    assert taught.notes([]) == [f"cannot tell whom {tuned} of r was tuned on: {words}"]
