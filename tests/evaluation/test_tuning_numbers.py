"""The numbers of a tuning: a short one learns, passes over one row each come to the same step, and none is infinite."""

import json
import math
from dataclasses import replace
from itertools import count

import pytest
import torch
from tuning_sets import PREFERENCE, SFT, write_set

from clinical_data.errors import ModelError
from evaluation.supervision import fine_tune_trainers, ttrl, tuning_output
from evaluation.supervision.fine_tune import Tuning, fine_tune
from evaluation.supervision.fine_tune_settings import SilentWatcher, TuneSettings
from evaluation.supervision.ttrl import train_ttrl
from evaluation.supervision.tuning_rows import read_set
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


def trainer_of(data, out, settings):
    """Returns the trainer of a tuning, before it has begun."""
    rows = read_set(data, settings.method, "value")
    return Tuning(rows, out, settings, SilentWatcher(), torch.device("cpu"), {})._trainer()


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def rates_of(folder):
    lines = (folder / "loss.csv").read_text().splitlines()
    at = lines[0].split(",").index("learning_rate")
    return [float(cells[at]) for line in lines[1:] if (cells := line.split(","))[at]]


def change_looks(monkeypatch, change):
    """Has a trainer find another loss of the tuning rows: `change` takes the number of the look and the loss."""
    stock, numbers = fine_tune_trainers.SftTrainer.prediction_step, count(1)

    def prediction_step(self, *args, **more):
        loss, *others = stock(self, *args, **more)
        return change(next(numbers), loss), *others

    monkeypatch.setattr(fine_tune_trainers.SftTrainer, "prediction_step", prediction_step)


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


def test_preferences_in_passes_of_one_pair_come_to_the_step_of_the_batch(settings, tmp_path, monkeypatch):
    """Six pairs in steps of four: the last step of an epoch holds two."""
    data = write_set(tmp_path / "set", PREFERENCE, PREFERENCE[:3])
    settings = replace(settings, method="dpo", batch_size=4, epochs=2)
    one = fine_tune(data, tmp_path / "one", settings)
    assert trainer_of(data, tmp_path / "x", settings).args.per_device_train_batch_size == 1
    monkeypatch.setattr(fine_tune_trainers, "one_by_one", dict)
    assert trainer_of(data, tmp_path / "x", settings).args.per_device_train_batch_size == 4
    whole = fine_tune(data, tmp_path / "whole", settings)
    assert one["figures"]["steps"] == whole["figures"]["steps"] == 4
    for name in ("first loss", "last loss", "tuning loss untuned", "tuning loss"):
        assert one["figures"][name] == pytest.approx(whole["figures"][name], rel=1e-4)
    ours, theirs = weights_of(tmp_path / "one"), weights_of(tmp_path / "whole")
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in theirs)


def test_only_places_that_the_loss_counts_go_through_the_output_layer(settings, tmp_path, monkeypatch):
    """Loss and gradients are those of TRL, which sends every place through it."""
    settings = replace(settings, method="dpo", full=True)
    trainer = trainer_of(write_set(tmp_path / "set", PREFERENCE), tmp_path / "out", settings)
    with torch.no_grad():  # a model that is no longer the one it is compared with
        for weight in trainer.model.parameters():
            weight.mul_(1.02)
    batch = next(iter(trainer.get_train_dataloader()))
    sizes = []
    stock = fine_tune_trainers.trl_utils._ChunkedLogProbFunction.apply
    monkeypatch.setattr(
        fine_tune_trainers.trl_utils._ChunkedLogProbFunction,
        "apply",
        lambda hidden, *more: sizes.append(len(hidden)) or stock(hidden, *more),
    )

    def found(compute):
        trainer.model.zero_grad()
        loss = compute(trainer, trainer.model, dict(batch))
        loss.backward()
        return loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters()}

    loss, gradients = found(fine_tune_trainers.DpoTrainer.compute_loss)
    assert sizes == [int(batch["completion_mask"][:, 1:].sum())] * 2  # of the model, and of what it is compared with
    stock_loss, stock_gradients = found(fine_tune_trainers.trl.DPOTrainer.compute_loss)
    assert sizes[-1] == batch["input_ids"][:, 1:].numel()
    assert loss == pytest.approx(stock_loss, rel=1e-6)
    assert loss != pytest.approx(math.log(2), abs=1e-4)
    assert all(torch.allclose(gradients[name], stock_gradients[name], atol=1e-6) for name in stock_gradients)


def test_a_vote_in_passes_of_one_answer_comes_to_the_same_step(settings, tmp_path, monkeypatch):
    rows = [
        {"prompt": f"Possible answers: a cold; burns; cramp.\n\nPatient: number {c}.\nAnswer:", "turn": "answer"}
        for c in "uvwx"
    ]
    data = write_set(tmp_path / "set", rows)
    settings = replace(settings, method="ttrl", group=4, batch_size=2, least_share=0.3, lr=1e-4)
    one = train_ttrl(data, tmp_path / "one", settings)
    monkeypatch.setattr(ttrl, "one_by_one", dict)
    whole = train_ttrl(data, tmp_path / "whole", settings)
    assert one["figures"]["steps"] == whole["figures"]["steps"] == 2
    ours, theirs = weights_of(tmp_path / "one"), weights_of(tmp_path / "whole")
    assert any(bool(weight.any()) for name, weight in theirs.items() if "lora_B" in name)
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-6) for name in theirs)


def test_a_weight_that_is_no_number_is_never_kept(settings, tmp_path):
    """The last step is the one that breaks it: nothing comes after that would show."""
    data = write_set(tmp_path / "set", SFT[:2], SFT[:2])
    with pytest.raises(ModelError, match=r"a weight was no number at step 1, before the first checkpoint") as caught:
        fine_tune(data, tmp_path / "out", replace(settings, lr=1e37, batch_size=2))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out").exists()


def test_a_tuning_loss_that_is_no_number_keeps_the_last_good_state(settings, tmp_path, monkeypatch):
    change_looks(monkeypatch, lambda number, loss: loss if number < 3 else loss * math.inf)
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"the tuning loss was no number at step 2; the state after step 1 is kept"):
        fine_tune(write_set(tmp_path / "set", SFT, SFT[:2]), out, replace(settings, epochs=2))
    card = json.loads((out / "card.json").read_text(), parse_constant=pytest.fail)
    assert card["status"].startswith("stopped")
    assert math.isfinite(card["figures"]["tuning loss"])


def test_a_tuning_that_only_made_it_worse_says_so(settings, tmp_path, monkeypatch):
    """The untuned model is made out to be better than it is."""
    change_looks(monkeypatch, lambda number, loss: loss / 100 if number == 1 else loss)
    told = SilentWatcher()
    told.remark = (remarks := []).append
    out = tmp_path / "out"
    card = fine_tune(write_set(tmp_path / "set", SFT, SFT[:2]), out, settings, watcher=told)
    before, best = (card["figures"][name] for name in ("tuning loss untuned", "tuning loss"))
    words = f"the best loss of the tuning rows, {best:.4g}, is above that of the untuned model, {before:.4g}"
    assert best > before
    assert card["remarks"] == remarks == [words]
    assert words in (out / "README.md").read_text()
    better = fine_tune(write_set(tmp_path / "other", SFT, SFT[:2]), tmp_path / "better", settings)
    assert better["remarks"] == []
