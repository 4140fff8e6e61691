"""Sets of one half of the patients, and of one model's rows."""

from __future__ import annotations

import json

import pytest
from taught_runs import PATIENTS, Shelf

from clinical_data.errors import BadInputError, UsageError
from clinical_data.splits import half_of
from evaluation.supervision.fine_tune_checkpoints import open_plan
from evaluation.supervision.training_sets import SetOptions, export_set

TRAIN, TUNING = PATIENTS["train"][:8], PATIENTS["tuning"][:3]


@pytest.fixture
def shelf(tmp_path):
    """A run of eight train and three tuning patients; the first patient has two stays."""
    shelf = Shelf(tmp_path)
    run = shelf.begin("r")
    for number, patient in enumerate((*TRAIN, TRAIN[0], *TUNING)):
        shelf.add(run, number, patient, "J18.9")
    yield shelf
    shelf.engine.dispose()


def exported(shelf, name, **options):
    card = export_set(shelf.engine, "sft", ("r",), shelf.folder / name, SetOptions(**options))
    files = {path.stem: path.read_text().splitlines() for path in (shelf.folder / name).glob("*.jsonl")}
    return {split: [json.loads(line) for line in lines] for split, lines in files.items()}, card


def test_halves_share_no_patient_and_are_all_together(shelf):
    whole, _ = exported(shelf, "all")
    halves = [exported(shelf, f"h{half}", half=half, splits=("train", "tuning")) for half in (0, 1)]
    patients = [{row["patient_id"] for row in files["train"]} for files, _ in halves]
    assert all(patients)
    assert patients[0].isdisjoint(patients[1])
    assert patients[0] | patients[1] == {f"fhir-{p}" for p in TRAIN}
    assert [{half_of(p) for p in own} for own in patients] == [{0}, {1}]
    both = sorted(json.dumps(row) for files, _ in halves for row in files["train"])
    assert both == sorted(json.dumps(row) for row in whole["train"])
    for half, (files, card) in enumerate(halves):
        assert files["tuning"] == halves[0][0]["tuning"]  # stays whole: it is of other patients than either half
        assert len({row["patient_id"] for row in files["tuning"]}) == 3
        assert card["options"]["patients"] == ("first-half", "second-half")[half]
        others = 9 - card["splits"]["train"]["cases"]
        assert card["left_out"]["case of the other half of the patients"] == others
    text = (shelf.folder / "h1" / "README.md").read_text()
    assert "It is of the second half of the patients (by hash) alone." in text
    assert "of the patients" not in (shelf.folder / "all" / "README.md").read_text()


def test_rows_for_one_model(shelf):
    whole, _ = exported(shelf, "all")
    one = [(r["role"], r["turn"]) for r in whole["train"] if r["case_id"] == "fhir-1"]
    assert one == [("generator", "thought"), ("generator", "answer"), ("peer", "thought"), ("peer", "answer")]
    wanted = {"generator": one[:2], "peer": one[1:]}
    for role, rows in wanted.items():
        files, card = exported(shelf, role, role=role)
        assert [(r["role"], r["turn"]) for r in files["train"] if r["case_id"] == "fhir-1"] == rows
        assert card["options"]["role"] == role
        assert card["splits"]["train"]["cold_start_share"] == 0.0  # known of the peer's set as well
        assert f"It holds the rows that teach the {role}." in (shelf.folder / role / "README.md").read_text()
    files, _ = exported(shelf, "answers", role="peer", answers_only=True)
    assert {(r["role"], r["turn"]) for r in files["train"]} == {("generator", "answer")}


def test_what_cannot_be(shelf):
    with pytest.raises(UsageError, match="no half 2"):
        exported(shelf, "no", half=2)
    with pytest.raises(UsageError, match="--role world_model is unknown"):
        exported(shelf, "no", role="world_model")
    with pytest.raises(UsageError, match="--role is for sft sets"):
        export_set(shelf.engine, "preference", ("r",), shelf.folder / "no", SetOptions(role="peer"))


def test_an_empty_half_says_why(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    with pytest.raises(BadInputError, match="no row for train") as error:
        exported(shelf, "no", half=1 - half_of(f"fhir-{TRAIN[0]}"))
    assert "1 x case of the other half of the patients" in error.value.hint
    assert not (tmp_path / "no").exists()
    shelf.engine.dispose()


def test_a_training_killed_before_its_plan_begins_anew(tmp_path):
    """What a kill can leave is an empty folder, or one with an unfinished plan; anything else is somebody's."""
    folder = tmp_path / "out"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "plan.json.part").write_text("{")
    open_plan(folder, {"settings": {}}, resume=True)
    assert json.loads((folder / "checkpoints" / "plan.json").read_text()) == {"settings": {}}
    (folder / "checkpoints" / "plan.json").rename(folder / "checkpoints" / "mine.json")
    with pytest.raises(UsageError, match="holds no training"):
        open_plan(folder, {"settings": {}}, resume=True)
