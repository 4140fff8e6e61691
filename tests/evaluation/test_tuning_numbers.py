"""The numbers of a tuning: a short one learns as well."""

from dataclasses import replace

import pytest
import torch
from tuning_sets import SFT, write_set

from evaluation.supervision import fine_tune_trainers, tuning_output
from evaluation.supervision.fine_tune import fine_tune
from evaluation.supervision.fine_tune_settings import TuneSettings
from tests.search.tiny_llama import make_tiny

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers for deprecated names
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("numbers") / "tiny")


@pytest.fixture
def settings(base, monkeypatch):
    monkeypatch.setattr(tuning_output, "draw_loss", lambda *_, **__: None)
    return TuneSettings(base=str(base), epochs=1, lr=0.01, batch_size=8, dtype="fp32", device="cpu")


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def rates_of(folder):
    lines = (folder / "loss.csv").read_text().splitlines()
    at = lines[0].split(",").index("learning_rate")
    return [float(cells[at]) for line in lines[1:] if (cells := line.split(","))[at]]


def test_a_training_of_one_step_learns(settings, tmp_path):
    card = fine_tune(write_set(tmp_path / "set", SFT), tmp_path / "out", settings)
    assert card["figures"]["steps"] == 1
    assert rates_of(tmp_path / "out") == [0.01]
    learned = {name: float(w.abs().sum()) for name, w in weights_of(tmp_path / "out").items() if "lora_B" in name}
    assert all(learned.values())


@pytest.mark.parametrize(("rows", "rising"), [(1, 0), (20, 0), (21, 2), (60, 3), (61, 4)])
def test_the_rate_rises_over_the_first_steps_of_longer_trainings_alone(settings, tmp_path, rows, rising):
    told = fine_tune_trainers.arguments(
        replace(settings, batch_size=1), tmp_path, rows, dtype=torch.float32, evaluate=False
    )
    assert told["warmup_steps"] == rising
