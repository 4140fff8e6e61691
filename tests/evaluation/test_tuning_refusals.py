"""A tuning that is refused, or fails at once, leaves nothing in the way of the next try."""

import pytest
import torch
from tuning_sets import SFT, write_set

from clinical_data.errors import BadInputError, ModelError, UsageError
from evaluation.supervision import fine_tune as tuning
from evaluation.supervision import tuning_output
from evaluation.supervision.fine_tune import fine_tune
from evaluation.supervision.fine_tune_settings import TuneSettings
from tests.search.tiny_llama import make_tiny

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for deprecated names


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("refused") / "tiny")


@pytest.fixture
def settings(base, monkeypatch):
    monkeypatch.setattr(tuning_output, "draw_loss", lambda *_, **__: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TuneSettings(base=str(base), epochs=1, lr=0.01, batch_size=3, dtype="fp32", device="cpu")
    torch.set_num_threads(threads)


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
