"""A tuning that is refused, or fails at once, leaves nothing in the way of the next; a card says who was taught."""

import hashlib
import json

import pytest
from tuning_sets import PREFERENCE, SFT, write_set

from clinical_data.errors import BadInputError, ModelError, UsageError
from evaluation.supervision import fine_tune as tuning
from evaluation.supervision import tuning_output
from evaluation.supervision.fine_tune import fine_tune
from evaluation.supervision.fine_tune_settings import TuneSettings
from tests.search.tiny_llama import make_tiny

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers for deprecated names
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("refused") / "tiny")


@pytest.fixture
def settings(base, monkeypatch):
    monkeypatch.setattr(tuning_output, "draw_loss", lambda *_, **__: None)
    return TuneSettings(base=str(base), epochs=1, lr=0.01, batch_size=3, dtype="fp32", device="cpu")


def changed(settings, **more):
    return TuneSettings(**{**settings.row(), **more})


def test_an_option_that_leaves_no_row_makes_no_folder(settings, tmp_path):
    data, out = write_set(tmp_path / "set", SFT), tmp_path / "models" / "out"
    with pytest.raises(BadInputError, match="no row is at most 5 tokens long"):
        fine_tune(data, out, changed(settings, max_length=5))
    assert not out.parent.exists()
    assert fine_tune(data, out, settings)["status"] == "complete"


def test_a_training_that_fails_before_a_checkpoint_gives_the_folder_back(settings, tmp_path, monkeypatch):
    data, out = write_set(tmp_path / "set", SFT), tmp_path / "out"

    def too_much(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "build_trainer", too_much)
        with pytest.raises(ModelError, match="out of memory"):
            fine_tune(data, out, changed(settings, batch_size=6))
    assert not out.exists()
    fine_tune(data, out, settings)
    monkeypatch.setattr(tuning, "load_weights", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UsageError, match="is there already"):
        fine_tune(data, out, settings)


def of(rows, *patients):
    return [{**row, "patient_id": patient} for row, patient in zip(rows, patients, strict=False)]


def test_the_card_tells_by_hash_who_was_taught_and_the_folder_keeps_the_answers(settings, tmp_path):
    data = write_set(
        tmp_path / "set", of(SFT, "p1", "p2", "p1"), of(SFT, "p3"), card={"kind": "sft", "split_scheme": "patient"}
    )
    (data / "vocabularies").mkdir()
    (data / "vocabularies" / "ward.yaml").write_text("name: ward\n")
    first = fine_tune(data, tmp_path / "first", settings)
    p1, p2, p3, p4 = (hashlib.sha256(f"p{n}".encode()).hexdigest() for n in (1, 2, 3, 4))
    assert first["patients"] == {
        "split_scheme": "patient",
        "splits": ["train", "tuning"],
        "train": sorted((p1, p2)),
        "tuning": [p3],
        "unnamed": 0,
    }
    assert first["vocabularies"] == ["vocabularies/ward.yaml"]
    assert (tmp_path / "first" / "vocabularies" / "ward.yaml").read_text() == "name: ward\n"
    assert '"p1"' not in (tmp_path / "first" / "card.json").read_text()
    words = (tmp_path / "first" / "README.md").read_text()
    assert "patience 3" in words
    assert not [name for name in ("beta", "group", "temperature", "least_share", "labels") if f"{name} " in words]

    further = changed(settings, base=str(tmp_path / "first"))
    (data / "card.json").write_text(json.dumps({"kind": "sft", "split_scheme": "hospital"}))
    with pytest.raises(BadInputError, match=r"card\.json: split_scheme: splits of scheme hospital, but the base"):
        fine_tune(data, tmp_path / "second", further)
    assert not (tmp_path / "second").exists()
    pairs = write_set(tmp_path / "pairs", of(PREFERENCE, "p4", "p1"))  # without a card
    second = fine_tune(pairs, tmp_path / "second", changed(further, method="dpo"))
    assert second["patients"]["train"] == sorted((p1, p2, p4))  # whom the base was taught counts too
    assert (second["patients"]["split_scheme"], second["patients"]["tuning"]) == ("patient", [p3])
