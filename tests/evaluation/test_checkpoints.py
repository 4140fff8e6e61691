"""Which checkpoint a stopped training goes on from."""

import json

import pytest

from clinical_data.errors import BadInputError, StorageError
from evaluation.supervision.fine_tune_checkpoints import SEAL, damage, last_good, open_plan, seal, write_json


@pytest.fixture
def folder(tmp_path):
    for step in (8, 9, 10):  # as text, 10 stands before 8
        made = tmp_path / f"checkpoint-{step}"
        made.mkdir()
        (made / "weights").write_text(f"of step {step}")
        seal(made)
    return tmp_path


def test_the_last_whole_one_is_taken_and_the_others_are_named(folder):
    remarks = []
    assert last_good(folder, remarks.append) == folder / "checkpoint-10"
    assert remarks == []
    (folder / "checkpoint-10" / "weights").unlink()
    (folder / "checkpoint-9" / SEAL).write_text("{")
    assert last_good(folder, remarks.append) == folder / "checkpoint-8"
    assert remarks == [
        f"checkpoint {folder / 'checkpoint-10'} is damaged (weights is missing); going on from checkpoint-8",
        f"checkpoint {folder / 'checkpoint-9'} is damaged (seal.json cannot be read (JSONDecodeError)); "
        "going on from checkpoint-8",
    ]


def test_without_any_training_begins_anew_unless_a_finished_one_is_damaged(folder, tmp_path_factory):
    remarks = []
    assert last_good(folder / "nothing", remarks.append) is None
    fresh = tmp_path_factory.mktemp("fresh")
    (fresh / "checkpoint-5").mkdir()
    assert last_good(fresh, remarks.append) is None
    assert remarks == [f"checkpoint {fresh / 'checkpoint-5'} is damaged (it was not finished); beginning anew"]
    for step in (8, 9, 10):
        (folder / f"checkpoint-{step}" / "weights").write_text("of step")
    with pytest.raises(BadInputError, match=r"checkpoint-10: the checkpoint is damaged \(weights is cut off"):
        last_good(folder, remarks.append)


def test_a_seal_tells_of_every_change(folder):
    made = folder / "checkpoint-9"
    assert damage(made) == ""
    (made / "weights").write_text("of step 7")
    assert damage(made) == "weights is cut off or changed"


def test_the_folder_of_a_training_is_its_owners_alone(tmp_path):
    open_plan(tmp_path / "a" / "out", {"settings": {}}, resume=True)
    assert (tmp_path / "a" / "out").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        open_plan(tmp_path / "file" / "out", {}, resume=False)


def test_json_appears_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
