"""A value model: it learns which turns are good, at the tokens where the search asks, and survives what may happen."""

import json
import math
import random
from dataclasses import replace

import pytest
from sklearn.metrics import roc_auc_score
from tuning_sets import write_set

from clinical_data.errors import BadInputError, ModelError, UsageError
from evaluation.supervision import stepwise_trainer, tuning_output
from evaluation.supervision.fine_tune_settings import SilentWatcher, TuneSettings
from evaluation.supervision.stepwise_trainer import collated, first_head, tokenise_turns, train_stepwise
from evaluation.supervision.tuning_rows import read_set
from search.models.language_model import ScoreRequest, Segment
from search.models.local_weights import load_weights
from search.models.registry import load_value_model
from search.value import ENDINGS
from tests.search.tiny_llama import letter_ids, make_tiny

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers for deprecated names
]

OPENING = ("a record.", "\n\npatient: tired.")


def trajectory(noise):
    """Turns that end warm are worth 0.9, those that end cold 0.1."""
    turns, values = [], []
    for cue in ("\nThought:", "\nRequest:", "\nworking diagnosis:"):
        good = noise.random() < 0.5
        words = "".join(noise.choice("abcdefgh") for _ in range(noise.randint(3, 8)))
        turns.append(f"{cue} {words} {'warm' if good else 'cold'}")
        values.append(0.9 if good else 0.1)
    return {"prompt": "".join(OPENING), "completions": turns, "values": values, "labels": [v > 0.5 for v in values]}


NOISE = random.Random(5)
ROWS, TUNING = [trajectory(NOISE) for _ in range(32)], [trajectory(NOISE) for _ in range(12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("stepwise") / "tiny")


@pytest.fixture(scope="module")
def settings(base):
    return TuneSettings("stepwise", str(base), epochs=5, lr=0.01, batch_size=8, dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def tuned(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("valued")
    card = train_stepwise(write_set(folder / "set", ROWS, TUNING), folder / "out", settings)
    return folder / "out", card


@pytest.fixture
def plain(monkeypatch):
    """Leaves out the picture, which takes longer than the training."""
    monkeypatch.setattr(tuning_output, "draw_loss", lambda *_, **__: None)


def segments(row, turns):
    """The prompt after some turns, cut as the search makes it."""
    pieces = [Segment(text) for text in OPENING]
    for turn in row["completions"][:turns]:
        cue, _, words = turn.partition(":")
        pieces += [Segment(f"{cue}:"), Segment(words)]
    return tuple(pieces)


def values_of(folder, rows):
    """ln p of both endings after each turn of each row, as the search asks for them."""
    model = load_value_model(str(folder), dtype="fp32", threads=1)
    requests = [ScoreRequest(segments(r, n), ENDINGS) for r in rows for n in range(1, 4)]
    return [reply.logprobs for reply in model.score(requests)]


def test_good_turns_of_other_trajectories_get_higher_values(tuned, settings, tmp_path, plain):
    labels = [label for row in TUNING for label in row["labels"]]
    after = [math.exp(well) for well, _ in values_of(tuned[0], TUNING)]
    assert roc_auc_score(labels, after) > 0.97
    few = replace(settings, epochs=0.1, lr=1e-30)  # as good as untuned: less than the last digit of a value
    train_stepwise(write_set(tmp_path / "set", ROWS), tmp_path / "out", few)
    before = [math.exp(well) for well, _ in values_of(tmp_path / "out", TUNING)]
    assert abs(roc_auc_score(labels, before) - 0.5) < 0.3
    assert all(0 <= value <= 1 for value in (*after, *before))
    right = [v for v, label in zip(after, labels, strict=True) if label]
    assert sum(right) / len(right) == pytest.approx(0.9, abs=0.1)  # values, not only their order


def test_the_loss_is_the_one_that_the_search_measures(tuned):
    """Training and search read the same state at the same token: each row's mean, then the mean over rows."""
    out, card = tuned
    answers = iter(values_of(out, TUNING))
    rows = []
    for row in TUNING:
        losses = [-(v * well + (1 - v) * badly) for v, (well, badly) in zip(row["values"], answers, strict=False)]
        rows.append(sum(losses) / len(losses))
    assert card["figures"]["tuning loss"] == pytest.approx(sum(rows) / len(rows), abs=1e-4)
    assert card["figures"]["tuning loss"] < card["figures"]["tuning loss untuned"] - 0.2
    share = sum(v for row in ROWS for v in row["values"]) / 96  # before tuning every turn has the mean of the targets
    worth = [v for row in TUNING for v in row["values"]]
    untuned = -sum(v * math.log(share) + (1 - v) * math.log(1 - share) for v in worth) / len(worth)
    assert card["figures"]["tuning loss untuned"] == pytest.approx(untuned, abs=1e-5)


def test_the_folder_says_what_it_is(tuned):
    out, card = tuned
    assert {p.name for p in out.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "value_head.safetensors", "card.json", "README.md",
        "loss.csv", "loss.png",
    }  # fmt: skip
    assert json.loads((out / "card.json").read_text()) == card
    assert (card["status"], card["settings"]["target"]) == ("complete", "value")
    assert (card["data"]["rows"], card["data"]["tuning_rows"]) == (32, 12)
    assert "`--value model:out`" in (out / "README.md").read_text()


@pytest.mark.parametrize("bos", [False, True])
def test_values_stand_at_the_last_token_of_each_turn(tmp_path, bos):
    _, tokenizer, _ = load_weights(str(make_tiny(tmp_path / "tiny", bos=bos)), "fp32", "sdpa", "cpu")
    row = {"prompt": "a.\n\nb.", "completions": ["\nThought: cd", "\nanswer: e"], "values": [0.25, 1]}
    (found,) = tokenise_turns(read_set(write_set(tmp_path / "set", [row]), "stepwise").train, tokenizer, 100).rows
    text = "a.\n\nb.\nthought. cd\nanswer. e"  # the tiny tokenizer has small letters, and a full stop for all else
    text = text.replace("\nt", "\n.")
    assert found["input_ids"] == ((0,) if bos else ()) + letter_ids(text)
    # letters: a . \n \n b . = 6, then "\nThought: cd" = 12, then "\nanswer: e" = 10
    assert found["at"] == ((18, 28) if bos else (17, 27))
    assert found["targets"] == (0.25, 1.0)
    assert not tokenise_turns(read_set(tmp_path / "set", "stepwise").train, tokenizer, 20).rows


def test_a_batch_is_filled_up_at_the_end_and_the_filling_counts_nothing(base, tmp_path):
    rows = [
        {"input_ids": [5, 6, 7], "at": [1, 2], "targets": [0.5, 1.0]},
        {"input_ids": [5, 6, 7, 8, 9], "at": [4], "targets": [0.0]},
    ]
    batch = collated(rows, pad=3)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 3, 3], [5, 6, 7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["at"].tolist() == [[1, 2], [4, 0]]
    assert batch["targets"].tolist() == [[0.5, 1.0], [0.0, -1.0]]
    assert first_head(4, [0.25, 0.25, 1.0]).bias.item() == pytest.approx(0.0)  # a mean of one half
    assert first_head(4, [1.0]).bias.item() == pytest.approx(math.log(99))  # never certain


def test_labels_are_learned_where_they_are_asked_for(settings, tmp_path, plain):
    """The labels of this set are the wrong way round."""
    rows = [{**row, "labels": [not label for label in row["labels"]]} for row in ROWS]
    card = train_stepwise(write_set(tmp_path / "set", rows), tmp_path / "out", replace(settings, target="label"))
    assert card["settings"]["target"] == "label"
    labels = [label for row in TUNING for label in row["labels"]]
    assert roc_auc_score(labels, [well for well, _ in values_of(tmp_path / "out", TUNING)]) < 0.03


class Stopping(SilentWatcher):
    def __init__(self, at):
        self._at = at

    def step(self, done, loss):
        if done == self._at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", [False, True])
def test_equal_seeds_give_equal_bytes_stopped_or_not(settings, tuned, tmp_path, plain, stopped):
    data, out = write_set(tmp_path / "set", ROWS, TUNING), tmp_path / "out"
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            train_stepwise(data, out, settings, watcher=Stopping(11))
        assert (out / "checkpoints" / "checkpoint-8" / "value_head.safetensors").is_file()
    train_stepwise(data, out, settings, resume=stopped)
    for name in ("adapter_model.safetensors", "value_head.safetensors", "loss.csv"):
        assert (out / name).read_bytes() == (tuned[0] / name).read_bytes(), name


def test_a_loss_that_is_no_number_keeps_the_last_good_state(settings, tmp_path, plain, monkeypatch):
    stock, seen = stepwise_trainer.ValueTrainer.compute_loss, []

    def compute_loss(self, *args, **more):
        seen.append(1)
        return stock(self, *args, **more) * (math.nan if len(seen) > 9 else 1)

    monkeypatch.setattr(stepwise_trainer.ValueTrainer, "compute_loss", compute_loss)
    with pytest.raises(ModelError, match="the loss was no number at step 10; the state after step 8 is kept"):
        train_stepwise(write_set(tmp_path / "set", ROWS), tmp_path / "out", settings)
    assert all(math.isfinite(well) for well, _ in values_of(tmp_path / "out", TUNING[:1]))


def test_what_cannot_be_learned_from_is_said(settings, tmp_path):
    def message(row, **options):
        with pytest.raises(BadInputError) as caught:
            train_stepwise(write_set(tmp_path / "set", [row]), tmp_path / "out", replace(settings, **options))
        return str(caught.value)

    row = ROWS[0]
    bare = {"prompt": row["prompt"], "completions": row["completions"]}
    assert "train.jsonl:1: values: field required" in message(bare)
    assert "train.jsonl:1: labels: field required" in message({**bare, "values": row["values"]}, target="label")
    assert "train.jsonl:1: values: 1 values for 3 completions" in message({**row, "values": [1.0]})
    assert "values.1: input should be less than or equal to 1" in message({**row, "values": [0, 1.5, 0]})
    assert "completions: list should have at least 1 item" in message({**row, "completions": []})
    with pytest.raises(BadInputError, match="a set of kind sft, not stepwise"):
        train_stepwise(write_set(tmp_path / "set", ROWS, card={"kind": "sft"}), tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="--full is not for stepwise"):
        replace(settings, full=True)
    with pytest.raises(UsageError, match="--target reward is unknown"):
        replace(settings, target="reward")
    assert "target" not in TuneSettings("sft").row()  # it belongs to no other training
