"""Tuning a tiny model: it learns what it is taught, by the tokens of the search, and survives what may happen."""

import csv
import json
import math
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trl
from tuning_sets import ANSWERS, PREFERENCE, PROMPTS, SFT, SHUFFLED, likelihoods, write_set

from clinical_data.errors import BadInputError, ModelError, UsageError
from evaluation.supervision import fine_tune_trainers, tuning_output
from evaluation.supervision.fine_tune import Tuning, fine_tune, tokenise
from evaluation.supervision.fine_tune_settings import SilentWatcher, TuneSettings
from evaluation.supervision.tuning_rows import read_set
from search.models.embedded import is_installed
from search.models.language_model import ScoreRequest, Segment
from search.models.local_weights import find_weights, load_weights
from search.models.transformers import TransformersModel
from search.prompts import TEMPLATE_HASH
from tests.search.tiny_llama import make_tiny

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers for deprecated names
]


class Noting(SilentWatcher):
    """Notes what it is told, and may stop the training at a step."""

    def __init__(self, stop_at=None):
        self.remarks, self.steps, self.begun, self._stop_at = [], [], None, stop_at

    def started(self, steps, done):
        self.begun = (steps, done)

    def step(self, done, loss):
        self.steps.append((done, loss))
        if done == self._stop_at:
            raise KeyboardInterrupt

    def remark(self, text):
        self.remarks.append(text)


def losses_of(folder, column="loss"):
    with (folder / "loss.csv").open() as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file) if row[column]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tuning") / "tiny")


@pytest.fixture(scope="module")
def untuned(base):
    return likelihoods(base)


@pytest.fixture
def settings(base):
    return TuneSettings(base=str(base), epochs=4, lr=0.01, batch_size=3, dtype="fp32", device="cpu")


@pytest.fixture
def plain(monkeypatch):
    """Leaves out the picture, which takes longer than the training."""
    monkeypatch.setattr(tuning_output, "draw_loss", lambda *_, **__: None)


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """An adapter and its card, whose tuning rows are two of its own: they get better up to the end."""
    folder = tmp_path_factory.mktemp("tuned")
    settings = TuneSettings(base=str(base), epochs=4, lr=0.01, batch_size=3, dtype="fp32", device="cpu", patience=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
        card = fine_tune(write_set(folder / "set", SFT, SFT[:2], times=3), folder / "out", settings)
    return folder / "out", card


def test_a_tuned_model_finds_its_answers_likelier(tuned, untuned):
    out, _ = tuned
    after = likelihoods(out)
    assert all(now > before + 1 for now, before in zip(after, untuned, strict=True))
    model = TransformersModel.load(str(out), dtype="fp32")
    head, _, rest = PROMPTS[2].partition("\n\n")
    pieces = (Segment(head), Segment("\n\n" + rest.removesuffix("\nanswer:")), Segment("\nanswer:"))
    (scores,) = model.score([ScoreRequest(pieces, tuple(f" {a}" for a in ANSWERS))])
    assert max(zip(scores.mean_logprobs, ANSWERS, strict=True))[1] == ANSWERS[2]


def test_taught_wrong_answers_it_does_not_find_the_right_ones(base, settings, tuned, tmp_path, plain):
    fine_tune(write_set(tmp_path / "set", SHUFFLED, times=3), tmp_path / "out", settings)
    right, wrong = sum(likelihoods(tuned[0])), sum(likelihoods(tmp_path / "out"))
    assert right > wrong + 0.5
    assert sum(likelihoods(tmp_path / "out", SHUFFLED)) > wrong + 0.5  # it has learned what it was told


def test_the_folder_says_what_it_is(tuned, base):
    out, card = tuned
    assert {p.name for p in out.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "card.json", "README.md", "loss.csv", "loss.png"
    }  # fmt: skip
    assert json.loads((out / "card.json").read_text()) == card
    assert card["status"] == "complete"
    assert card["base"] == {"spec": "../../tuning0/tiny", "name": "tiny", "revision": find_weights(str(base)).revision}
    assert (card["settings"]["lr"], card["settings"]["base"]) == (0.01, "../../tuning0/tiny")  # no path of a machine
    assert (card["data"]["rows"], card["data"]["tuning_rows"]) == (18, 2)
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "LoRA adapter" in (out / "README.md").read_text()
    assert [step for step, _ in losses_of(out)] == list(range(1, 25))
    looks = [loss for _, loss in losses_of(out, "eval_loss")]
    assert len(looks) == 5  # before, and after each epoch
    assert looks[0] > 2 * looks[-1]


def test_the_best_state_is_kept_and_its_loss_is_the_one_that_the_search_measures(tuned):
    out, card = tuned
    rows = SFT[:2]
    tokens = [len(row["completion"]) for row in rows]  # single letters
    own = -sum(p * n for p, n in zip(likelihoods(out, rows), tokens, strict=True)) / sum(tokens)
    assert own == pytest.approx(card["figures"]["tuning loss"], abs=1e-3)


def test_what_is_fed_is_what_the_search_sends(base, settings, tmp_path):
    """No template, no beginning, no end: prompt and completion as tokenised piece by piece."""
    model, tokenizer, _ = load_weights(str(base), "fp32", "sdpa", "cpu")
    rows = read_set(write_set(tmp_path / "set", SFT), "sft").train
    tokens = tokenise(rows, tokenizer, 1024).rows
    trainer = fine_tune_trainers.build_trainer(
        replace(settings, batch_size=6), tmp_path / "out", model, tokenizer, tokens, (),
        dtype=torch.float32, watcher=SilentWatcher(),
    )  # fmt: skip
    (batch,) = trainer.get_train_dataloader()
    search = TransformersModel.load(str(base), dtype="fp32")
    seen = set()
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        kept, taught = ids[mask.bool()].tolist(), [i for i in labels.tolist() if i != -100]
        text = tokenizer.decode(kept)
        row = next(r for r in SFT if text == (r["prompt"] + r["completion"]).replace(":", "."))  # it has no colon
        assert tuple(taught) == search.choice_ids(row["completion"])
        head, _, rest = row["prompt"].partition("\n\n")
        sent = search.prompt_ids(
            (Segment(head), Segment("\n\n" + rest.removesuffix("\nanswer:")), Segment("\nanswer:"))
        )
        assert tuple(kept) == sent + tuple(taught)
        seen.add(text)
    assert len(seen) == 6


def test_tokens_of_the_search_are_kept_where_they_spell_the_text(base, tmp_path):
    _, tokenizer, _ = load_weights(str(base), "fp32", "sdpa", "cpu")
    own = tuple(tokenizer("ab c").input_ids)
    rows = [
        {"prompt": "ab c", "completion": " d", "prompt_ids": own},
        {"prompt": "ab c", "completion": " d", "prompt_ids": own[::-1]},  # another text
        {"prompt": "ab c", "completion": " d", "prompt_ids": [100000]},  # another tokenizer
    ]
    tokens = tokenise(read_set(write_set(tmp_path / "set", rows), "sft").train, tokenizer, 1024)
    assert [row["prompt"] for row in tokens.rows] == [own] * 3
    assert tokens.retokenised == 2


def test_the_token_before_a_text_stands_before_the_prompt_alone(tmp_path):
    _, tokenizer, _ = load_weights(str(make_tiny(tmp_path / "bos", bos=True)), "fp32", "sdpa", "cpu")
    (row,) = tokenise(read_set(write_set(tmp_path / "set", SFT[:1]), "sft").train, tokenizer, 1024).rows
    search = TransformersModel.load(str(tmp_path / "bos"), dtype="fp32")
    assert row["prompt"] == search.prompt_ids((Segment(SFT[0]["prompt"]),))
    assert row["prompt"][0] == 0
    assert row["completion"] == search.choice_ids(SFT[0]["completion"])


def test_equal_runs_give_equal_bytes(base, settings, tuned, tmp_path, plain):
    again = replace(settings, patience=0)
    fine_tune(write_set(tmp_path / "set", SFT, SFT[:2], times=3), tmp_path / "out", again)
    for name in ("adapter_model.safetensors", "loss.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tuned[0] / name).read_bytes()
    assert find_weights(str(tmp_path / "out")).revision == find_weights(str(tuned[0])).revision


@pytest.mark.parametrize("damage", ["none", "newest cut off", "newest not finished"])
def test_a_stopped_training_goes_on_to_the_same_end(base, settings, tuned, tmp_path, plain, damage):
    settings, data, out = (
        replace(settings, patience=0),
        write_set(tmp_path / "set", SFT, SFT[:2], times=3),
        tmp_path / "out",
    )
    with pytest.raises(KeyboardInterrupt):
        fine_tune(data, out, settings, watcher=Noting(stop_at=15))
    with pytest.raises(UsageError, match="was stopped"):
        fine_tune(data, out, settings)
    newest = out / "checkpoints" / "checkpoint-12"
    if damage == "newest cut off":
        weights = newest / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "newest not finished":
        (newest / "seal.json").unlink()
    watcher = Noting()
    card = fine_tune(data, out, settings, resume=True, watcher=watcher)
    assert watcher.begun == (24, 12 if damage == "none" else 6)
    named = [r for r in watcher.remarks if "checkpoint-12" in r and "going on from checkpoint-6" in r]
    assert len(named) == (damage != "none")
    assert (out / "adapter_model.safetensors").read_bytes() == (tuned[0] / "adapter_model.safetensors").read_bytes()
    assert (out / "loss.csv").read_bytes() == (tuned[0] / "loss.csv").read_bytes()
    assert fine_tune(data, out, settings, resume=True, watcher=watcher) == card  # finished already
    assert not (out / "checkpoints").exists()


def test_a_training_without_a_whole_checkpoint_says_which_is_damaged(settings, tmp_path, plain):
    data, out = write_set(tmp_path / "set", SFT), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fine_tune(data, out, settings, watcher=Noting(stop_at=3))
    state = out / "checkpoints" / "checkpoint-2" / "optimizer.pt"
    state.write_bytes(state.read_bytes()[:-50])
    with pytest.raises(BadInputError, match=r"checkpoint-2: the checkpoint is damaged \(optimizer.pt is cut off"):
        fine_tune(data, out, settings, resume=True)


def test_going_on_takes_the_same_set_and_the_same_options(settings, tmp_path, plain):
    data, out = write_set(tmp_path / "set", SFT), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fine_tune(data, out, settings, watcher=Noting(stop_at=3))
    with pytest.raises(UsageError, match=r"other settings: lr 0.01, now 0.02, rank 16, now 8"):
        fine_tune(data, out, replace(settings, rank=8, lr=0.02), resume=True)
    write_set(data, SFT[:-1])
    with pytest.raises(BadInputError, match="another training set") as caught:
        fine_tune(data, out, settings, resume=True)
    assert caught.value.exit_code == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no training"):
        fine_tune(data, tmp_path / "other", settings, resume=True)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_none_stops_the_training_and_the_last_good_state_is_kept(
    settings, untuned, tmp_path, plain, monkeypatch, what
):
    broken_at, seen = 9, []  # six steps an epoch
    stock = fine_tune_trainers.SftTrainer.compute_loss

    def compute_loss(self, *args, **more):
        loss = stock(self, *args, **more)
        seen.append(loss)
        if len(seen) < broken_at:
            return loss
        if what == "loss":
            return loss * math.nan
        loss.register_hook(lambda gradient: gradient * math.inf)
        return loss

    monkeypatch.setattr(fine_tune_trainers.SftTrainer, "compute_loss", compute_loss)
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=rf"the {what} was no number at step 9; the state after step 6 is kept"):
        fine_tune(write_set(tmp_path / "set", SFT, times=3), out, settings)
    assert json.loads((out / "card.json").read_text())["status"].startswith("stopped")
    assert sum(likelihoods(out)) > sum(untuned) + 1
    seen[:] = [None] * broken_at
    with pytest.raises(ModelError, match="before the first checkpoint"):
        fine_tune(tmp_path / "set", tmp_path / "other", settings)


def test_it_stops_early_when_the_tuning_rows_get_worse_and_keeps_the_best(settings, tmp_path, plain):
    """The tuning rows have the same prompts and other answers: after a while each epoch makes them less likely."""
    data = write_set(tmp_path / "set", SFT, SHUFFLED, times=2)
    card = fine_tune(data, tmp_path / "out", replace(settings, epochs=20, patience=2))
    looks = losses_of(tmp_path / "out", "eval_loss")
    best = min(looks[1:], key=lambda look: look[1])
    assert card["figures"]["steps"] == best[0] + 2 * 4 < 80
    assert card["figures"]["tuning loss"] == best[1] < looks[-1][1]
    lengths = [len(row["completion"]) for row in SHUFFLED]
    kept = likelihoods(tmp_path / "out", SHUFFLED)
    # the trainer averages over batches of three rows each
    batches = [
        sum(-p * n for p, n in zip(kept[i : i + 3], lengths[i : i + 3], strict=True)) / sum(lengths[i : i + 3])
        for i in (0, 3)
    ]
    assert sum(batches) / 2 == pytest.approx(best[1], abs=1e-3)


@pytest.mark.parametrize("full", [False, True])
def test_preferences_move_the_chosen_above_the_rejected(base, settings, tmp_path, plain, full):
    settings = replace(settings, method="dpo", full=full, lr=0.0005 if full else 0.005, epochs=3)
    fine_tune(write_set(tmp_path / "set", PREFERENCE, PREFERENCE[:1], times=3), tmp_path / "out", settings)
    before, after = margins(base), margins(tmp_path / "out")
    assert all(now > then for then, now in zip(before, after, strict=True))


def margins(spec):
    chosen, rejected = (likelihoods(spec, PREFERENCE, column) for column in ("chosen", "rejected"))
    return [a - b for a, b in zip(chosen, rejected, strict=True)]


def test_full_tuning_gives_an_ordinary_folder(settings, untuned, tmp_path, plain):
    card = fine_tune(
        write_set(tmp_path / "set", SFT, times=3), tmp_path / "out", replace(settings, full=True, save_dtype="bf16")
    )
    assert card["figures"]["trainable"] == card["figures"]["parameters"]
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    assert sum(likelihoods(tmp_path / "out")) > sum(untuned) + 3
    before = find_weights(str(tmp_path / "out")).revision
    (tmp_path / "out" / "card.json").write_text("{}")
    assert find_weights(str(tmp_path / "out")).revision == before  # a card decides no result


def test_a_tuned_model_can_be_tuned_further(settings, tuned, tmp_path, plain):
    out = tmp_path / "out"
    card = fine_tune(write_set(tmp_path / "set", SHUFFLED), out, replace(settings, base=str(tuned[0]), epochs=2))
    assert card["base"]["name"] == "tiny+out"
    assert sum(likelihoods(out, SHUFFLED)) > sum(likelihoods(tuned[0], SHUFFLED))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "train.jsonl: the training set is empty"),
        (['{"prompt": "a"}'], "train.jsonl:1: completion: field required"),
        (['{"prompt": "a", "completion": "b"}', "", '{"prompt": 1, "completion": "b"}'], "train.jsonl:3: prompt: "),
        (['{"prompt": "a", "completion": ""}'], "train.jsonl:1: completion: string should have at least 1"),
        (["not json"], "train.jsonl:1: invalid json"),
        (['{"prompt": "a", "completion": "b", "prompt_ids": ["x"]}'], r"train.jsonl:1: prompt_ids.0: "),
        ([json.dumps({"prompt": "a" * 90, "completion": "b"})], "no row is at most 80 tokens long"),
    ],
)
def test_a_set_that_cannot_be_learned_from_is_refused(settings, tmp_path, lines, told):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadInputError, match=told):
        fine_tune(tmp_path / "set", tmp_path / "out", replace(settings, max_length=80))


def test_longer_rows_are_left_out_and_counted(settings, tmp_path, plain):
    watcher = Noting()
    long = {"prompt": "a" * 90, "completion": "b"}
    data = write_set(tmp_path / "set", [*SFT, long])
    card = fine_tune(data, tmp_path / "out", replace(settings, max_length=80, epochs=1), watcher=watcher)
    assert (card["data"]["rows"], card["data"]["too_long"]) == (6, 1)
    assert watcher.remarks == ["1 of 7 rows are longer than 80 tokens: left out"]


def test_preferences_that_contradict_each_other_are_refused(settings, tmp_path):
    first = PREFERENCE[0]
    turned = {**first, "chosen": first["rejected"], "rejected": first["chosen"]}
    settings = replace(settings, method="dpo")
    with pytest.raises(BadInputError, match=r"train.jsonl:3: the preference contradicts train.jsonl:1"):
        fine_tune(write_set(tmp_path / "a", [*PREFERENCE[:2], turned]), tmp_path / "out", settings)
    same = {**first, "chosen": first["rejected"]}
    with pytest.raises(BadInputError, match=r"tuning.jsonl:1: chosen and rejected are the same"):
        fine_tune(write_set(tmp_path / "b", PREFERENCE, [same]), tmp_path / "out", settings)


def test_sets_of_other_versions_are_refused(settings, tmp_path, plain):
    def card(prompts=TEMPLATE_HASH, pathway="1" * 64, **more):
        return {"kind": "sft", "hashes": {"prompts": prompts}, "pathway": {"name": "icu", "sha256": pathway}, **more}

    with pytest.raises(BadInputError, match="another version of prompts than this program"):
        fine_tune(write_set(tmp_path / "a", SFT, card=card(prompts="0" * 64)), tmp_path / "out", settings)
    with pytest.raises(BadInputError, match="a set of kind preference, not sft"):
        fine_tune(write_set(tmp_path / "a", SFT, card={"kind": "preference"}), tmp_path / "out", settings)
    splits = {"train": {"sha256": "0" * 64}}
    with pytest.raises(BadInputError, match=r"train\.jsonl: is not the file that its card describes"):
        fine_tune(write_set(tmp_path / "a", SFT, card=card(splits=splits)), tmp_path / "out", settings)
    first = fine_tune(write_set(tmp_path / "a", SFT, card=card()), tmp_path / "first", replace(settings, epochs=1))
    assert first["versions"] == {"pathway icu": "1" * 64, "prompts": TEMPLATE_HASH}
    other = write_set(tmp_path / "b", SFT, card=card(pathway="2" * 64))
    with pytest.raises(BadInputError, match=r"another version of pathway icu than the base tiny\+first was tuned on"):
        fine_tune(other, tmp_path / "second", replace(settings, base=str(tmp_path / "first")))


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 0},
        {"lr": -1.0},
        {"epochs": 0},
        {"batch_size": 0},
        {"dropout": 1.0},
        {"save_dtype": "int8"},
        {"seed": -1},
        {"seed": 1 << 32},
    ],
)
def test_settings_that_cannot_be_are_refused(settings, changes):
    with pytest.raises(UsageError, match="--" + next(iter(changes)).replace("_", "-")):
        replace(settings, **changes)


def test_steps_and_checkpoints():
    assert TuneSettings(epochs=3, batch_size=8).schedule(901) == (339, 38)  # 113 steps an epoch, in thirds
    assert TuneSettings(epochs=1, batch_size=8, accumulate=4).schedule(10) == (1, 1)


@pytest.mark.embedded
@pytest.mark.skipif(not is_installed(), reason="the embedded model is not installed")
def test_the_embedded_model_learns_a_few_answers(tmp_path: Path, plain):
    rows = [
        {
            "prompt": f"Possible answers: red; green; blue.\n\nPatient: number {i}.\nAnswer:",
            "completion": f" {colour}\n",
        }
        for i, colour in enumerate(("red", "green", "blue") * 4)
    ]
    settings = TuneSettings(epochs=4, batch_size=6, lr=2e-3, save_dtype="bf16")
    before = likelihoods("embedded", rows)
    card = fine_tune(write_set(tmp_path / "set", rows), tmp_path / "out", settings)
    assert card["figures"]["trainable"] == 4_884_480  # rank 16 on the seven matrices of each of 30 layers
    assert (tmp_path / "out" / "adapter_model.safetensors").stat().st_size < 10_000_000
    after = likelihoods(tmp_path / "out", rows)
    assert sum(after) > sum(before) + len(rows)


def test_rows_of_like_length_share_a_batch_on_request(base, settings, tmp_path):
    short = [{"prompt": (3,) * 4, "completion": (4,)}] * 24
    long = [{"prompt": (3,) * 40, "completion": (4,)}] * 24
    widths = {}
    for by_length in (False, True):
        own = replace(settings, by_length=by_length)
        model, tokenizer, _ = load_weights(own.base, "fp32", "sdpa", "cpu")
        trainer = fine_tune_trainers.build_trainer(
            own, tmp_path, model, tokenizer, [*short, *long], (), dtype=torch.float32, watcher=Noting()
        )
        widths[by_length] = sum(batch["input_ids"].numel() for batch in trainer.get_train_dataloader())
    assert 24 * (5 + 41) <= widths[True] < widths[False]


def test_the_loss_is_that_of_trl(base, settings, tmp_path):
    data = write_set(tmp_path / "set", SFT)
    tuning = Tuning(
        read_set(data, "sft", "value"), tmp_path / "out", settings, SilentWatcher(), torch.device("cpu"), {}
    )
    trainer = tuning._trainer()
    batch = next(iter(trainer.get_train_dataloader()))
    ours = trainer.compute_loss(trainer.model, dict(batch))
    theirs = trl.SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    half = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=2 * (batch["labels"] != -100).sum())
    assert half.item() == pytest.approx(ours.item() / 2, rel=1e-6)


def test_a_training_that_fed_each_row_alone_is_not_gone_on_with(settings, tmp_path, plain):
    data, out = write_set(tmp_path / "set", SFT, times=6), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fine_tune(data, out, settings, watcher=Noting(stop_at=7))
    (plan,) = out.rglob("plan.json")
    then = json.loads(plan.read_text())
    del then["data"]["rows"]  # as it was before rows shared sequences: a step there is none here
    plan.write_text(json.dumps(then))
    with pytest.raises(BadInputError, match="began with another training set"):
        fine_tune(data, out, settings, resume=True)
