"""TTRL: the majority is the reward, and the vote that runs away is stopped."""

import csv
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tuning_sets import write_set

from clinical_data.errors import BadInputError, ModelError
from evaluation.supervision import ttrl, tuning_output
from evaluation.supervision.fine_tune_settings import TuneSettings
from evaluation.supervision.fine_tune_trainers import StoppedError
from evaluation.supervision.ttrl import Ballot, carried, entropy, majority, offered, train_ttrl
from evaluation.supervision.tuning_rows import read_set
from search.models.language_model import ScoreRequest
from search.models.transformers import TransformersModel
from search.prompt_pieces import prompt_pieces
from tests.search.tiny_llama import make_tiny

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers for deprecated names
]
OFFER = "A doctor reviews.\nPossible answers: a cold; burns; cramp.\n\n"
PROMPTS = [f"{OFFER}Patient: number {c}.\nAnswer:" for c in "uvwx"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("ttrl") / "tiny", initializer_range=0.2)


@pytest.fixture
def settings(base, monkeypatch):
    monkeypatch.setattr(tuning_output, "draw_loss", lambda *_, **__: None)
    return TuneSettings(
        method="ttrl", base=str(base), epochs=6, lr=0.01, batch_size=2, group=8, dtype="fp32", device="cpu"
    )


def test_majority_and_entropy():
    assert majority(["a", "b", "a", "c"], 0.5) == ("a", 0.5)
    assert majority(["a", "b", "a", "c"], 0.6) == (None, 0.5)
    assert majority(["a", "b", "a", "b"], 0.5) == (None, 0.5)  # a tie is no majority
    assert entropy(["a", "a"]) == 0
    assert entropy(["a", "b", "a", "b"]) == pytest.approx(math.log(2))


def test_answers_are_those_that_the_prompt_offers():
    assert offered(PROMPTS[0]) == (" a cold", " burns", " cramp")
    assert offered("What now?") == ()


def test_a_prompt_that_names_no_answers_takes_those_of_the_set(tmp_path):
    assert carried(tmp_path) == ()
    (tmp_path / "vocabularies").mkdir()
    text = "name: two\nversion: 1\nsystem: s\nsource: made up\nentries:\n"
    text += "  - {code: a, display: a cold}\n  - {code: b, display: burns}\n"
    (tmp_path / "vocabularies" / "two.yaml").write_text(text)
    assert carried(tmp_path) == (" a cold", " burns")


def vote(ballot, groups, labels=None, step=0):
    logged = []
    prompts = [f"p{i}" for i, group in enumerate(groups) for _ in group]
    rewards = ballot(
        prompts,
        [f" {answer}\n" for group in groups for answer in group],
        label=labels or [""] * len(prompts),
        log_metric=lambda name, value: logged.append((name, value)),
        trainer_state=SimpleNamespace(global_step=step),
    )
    return rewards, logged


def test_reward_goes_to_the_majority_or_to_the_label_of_the_peer():
    rewards, logged = vote(Ballot(3, 0.6, 10), ["aab", "abc"])
    assert rewards == [1, 1, 0, 0, 0, 0]
    assert logged[0] == ("majority_ratio", pytest.approx(2 / 3))
    assert [name for name, _ in logged] == ["majority_ratio", "vote_entropy"] * 2
    rewards, _ = vote(Ballot(3, 0.6, 10), ["aab", "abc"], [" b"] * 3 + [""] * 3)
    assert rewards == [0, 0, 1, 0, 0, 0]


def test_a_vote_that_collapses_stops_the_training():
    ballot = Ballot(3, 0.5, 3)
    vote(ballot, ["aab", "bbb", "ccb"])
    for _ in range(12):
        vote(ballot, ["aaa", "aaa", "aaa"])  # at last 110 of 117, 94 %: not yet
    # the first two of 42 groups are forgotten: 117 of 120
    with pytest.raises(StoppedError, match="one answer makes up 98% of those to 3 prompts") as caught:
        vote(ballot, ["aaa", "aaa", "aaa"], step=9)
    assert caught.value.step == 9
    lone = Ballot(3, 0.5, 1)
    for _ in range(30):
        vote(lone, ["aaa"])  # of one prompt no collapse can be told


def test_it_learns_its_own_vote(base, settings, tmp_path):
    rows = [{"prompt": p, "completion": " cramp\n", "label_source": "record", "turn": "answer"} for p in PROMPTS]
    other = {"prompt": f"{OFFER}Patient: z.\nThought:", "completion": " so\n", "turn": "thought"}
    card = train_ttrl(write_set(tmp_path / "set", [*rows, rows[0], other], rows[:1]), tmp_path / "out", settings)
    assert (card["data"]["rows"], card["data"]["tuning_rows"]) == (4, 0)
    assert card["figures"]["steps"] == 12  # two prompts a step
    with (tmp_path / "out" / "loss.csv").open() as file:
        ratios = [float(row["majority_ratio"]) for row in csv.DictReader(file)]
    assert sum(ratios[-4:]) > sum(ratios[:4]) + 0.4
    assert sharpness(tmp_path / "out") > sharpness(base)


def test_a_set_of_prompts_is_for_ttrl_alone(settings, tmp_path):
    data = write_set(tmp_path / "set", [{"prompt": p, "turn": "answer"} for p in PROMPTS], card={"kind": "prompts"})
    assert len(read_set(data, "ttrl").train) == len(PROMPTS)
    with pytest.raises(BadInputError, match="a set of kind prompts, not sft"):
        read_set(data, "sft")


def test_a_set_without_labels_of_a_peer_is_refused(settings, tmp_path):
    rows = [{"prompt": p, "completion": " cramp\n", "label_source": "record", "turn": "answer"} for p in PROMPTS]
    with pytest.raises(BadInputError, match="no answer of the set has the label source peer"):
        train_ttrl(write_set(tmp_path / "set", rows), tmp_path / "out", replace(settings, labels="peer"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (" burns\n", r"train\.jsonl:3: completion: another answer of the peer than that of train\.jsonl:2"),
        (" gout\n", r"train\.jsonl:3: completion: the answer of the peer is none of those to choose from"),
    ],
)
def test_labels_of_the_peer_that_cannot_lead_are_refused(settings, tmp_path, other, told):
    rows = [
        {"prompt": PROMPTS[0], "completion": answer, "label_source": source, "turn": "answer"}
        for answer, source in ((" gout\n", "record"), (" cramp\n", "peer"), (other, "peer"))
    ]
    data = write_set(tmp_path / "set", rows)
    with pytest.raises(BadInputError, match=told) as caught:
        train_ttrl(data, tmp_path / "out", replace(settings, labels="peer"))
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()
    train_ttrl(data, tmp_path / "out", replace(settings, epochs=1))  # the vote looks at no label


def test_labels_of_the_peer_lead_it(base, settings, tmp_path):
    rows = [{"prompt": p, "completion": " cramp\n", "label_source": "peer", "turn": "answer"} for p in PROMPTS]
    train_ttrl(write_set(tmp_path / "set", rows), tmp_path / "out", replace(settings, labels="peer"))
    assert all(after > before for before, after in zip(shares(base), shares(tmp_path / "out"), strict=True))


def test_a_collapse_keeps_what_was_before(base, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(ttrl, "COLLAPSED", 0.2)
    monkeypatch.setattr(ttrl, "WINDOW", 10)
    rows = [{"prompt": p} for p in PROMPTS]
    with pytest.raises(ModelError, match="the vote has collapsed"):
        train_ttrl(write_set(tmp_path / "set", rows), tmp_path / "out", settings)


def test_a_set_without_a_choice_is_refused(settings, tmp_path):
    with pytest.raises(BadInputError, match="no prompt that asks for one of several answers"):
        train_ttrl(write_set(tmp_path / "set", [{"prompt": "What now?"}]), tmp_path / "out", settings)


def shares(spec, answer=" cramp"):
    """Share of an answer among those offered, for each prompt."""
    model = TransformersModel.load(str(spec), dtype="fp32", threads=1)
    choices = offered(PROMPTS[0])
    found = []
    for scores in model.score([ScoreRequest(prompt_pieces(p), choices) for p in PROMPTS]):
        weights = [math.exp(value) for value in scores.logprobs]
        found.append(weights[choices.index(answer)] / sum(weights))
    return found


def sharpness(spec):
    """Mean share of the likeliest answer."""
    by_answer = [shares(spec, answer) for answer in offered(PROMPTS[0])]
    return sum(map(max, zip(*by_answer, strict=True))) / len(PROMPTS)
