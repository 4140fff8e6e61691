"""A value model as value source: what it is asked, what its head says, and what holds of a search with it."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import make_problem
from scripted_trees import searches
from test_generation_cache import Shelf
from tiny_llama import make_tiny
from tree_checks import check_result

from clinical_data.errors import ModelError, UsageError
from search.actions import ActionKind
from search.desk import VALUE, Desk
from search.generation_cache import CachedModel
from search.models.adapters import CONFIG, HEAD, WEIGHTS
from search.models.language_model import ScoreRequest, Segment
from search.models.local_weights import find_weights
from search.models.registry import load_model, load_value_model
from search.models.toys import RandomModel, ScriptedModel
from search.problem import Models
from search.settings import SearchSettings
from search.shared_batches import run_together
from search.strategies import run_search
from search.value import ENDINGS, check_value, value_model

FOLDER = "model:anywhere"  # the settings only say that a model is asked; which one is in `Models`


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("wide") / "tiny", max_position_embeddings=4096)


@pytest.fixture(scope="module")
def judge_folder(wide):
    """A head over a base that its adapter leaves as it is (B = 0)."""
    import json

    from safetensors.torch import save_file

    from search.models.value_head import save_head

    folder = wide.parent / "judge"
    folder.mkdir()
    stem = "base_model.model.model.layers.0.self_attn.o_proj"
    save_file({f"{stem}.lora_A.weight": torch.ones(1, 32), f"{stem}.lora_B.weight": torch.zeros(32, 1)},
              folder / WEIGHTS)  # fmt: skip
    base = {"base_model_name_or_path": "../tiny", "revision": find_weights(str(wide)).revision, "lora_alpha": 1}
    (folder / CONFIG).write_text(json.dumps({**base, "peft_type": "LORA"}))
    save_head(torch.linspace(-0.5, 0.5, 32), torch.tensor([0.25]), folder)
    return folder


@pytest.fixture
def judge(judge_folder):
    return load_value_model(str(judge_folder), dtype="fp32", threads=1)


def request(*texts):
    return ScoreRequest(tuple(map(Segment, texts)), ENDINGS)


def stock_value(stock, ids):
    with torch.inference_mode():
        hidden = stock.base_model(torch.tensor([ids])).last_hidden_state[0, -1].double()
    return torch.sigmoid(hidden @ torch.linspace(-0.5, 0.5, 32).double() + 0.25).item()


def test_a_value_is_the_head_on_the_last_hidden_state(judge, wide):
    import transformers

    stock = transformers.AutoModelForCausalLM.from_pretrained(wide, dtype=torch.float32).eval()
    asked = [request("a case.", "\nso it is"), request("a case.", "\nso it was"), request("a case."), request("b")]
    replies = judge.score([*asked, asked[0]])
    for reply in replies:
        well, badly = map(math.exp, reply.logprobs)
        assert well == pytest.approx(stock_value(stock, reply.prompt_ids), abs=1e-5)
        assert well + badly == pytest.approx(1, abs=1e-12)
    assert replies[0] == replies[4]
    assert len({reply.logprobs for reply in replies}) == 4
    assert judge.work.computed == 7 + 7 + 2 + 3 + 1  # "a case." and "\nso it " once, then "is" and "was"; "b"


def test_of_a_known_beginning_only_what_is_new_is_computed(judge):
    judge.score([request("a case.", "\nso it is")])
    before = judge.work.computed
    judge.score([request("a case.", "\nso it is", " well")])
    assert judge.work.computed - before == len(" well")
    judge.release()
    assert judge._engine.cache.tokens == 0


def test_extreme_and_broken_numbers(judge):
    from search.models.value_head import _log_shares

    assert _log_shares(0.0) == pytest.approx((-math.log(2), -math.log(2)))
    assert _log_shares(800.0) == (0.0, -800.0)
    assert _log_shares(-800.0) == (-800.0, 0.0)
    judge._bias = math.nan
    assert judge.score([request("a")])[0].logprobs == (-math.inf, -math.inf)


def test_the_head_is_part_of_what_the_model_is(judge, judge_folder, wide, tmp_path):
    from shutil import copytree

    from search.models.value_head import save_head

    other = copytree(judge_folder, wide.parent / "other", dirs_exist_ok=True)
    save_head(torch.linspace(-0.5, 0.5, 32), torch.tensor([0.5]), other)
    changed = load_value_model(str(other), dtype="fp32")
    assert changed.identity.revision != judge.identity.revision != find_weights(str(judge_folder)).revision
    save_head(torch.ones(31), torch.tensor([0.5]), other)
    with pytest.raises(ModelError, match="31 weights, not 32"):
        load_value_model(str(other))
    save_head(torch.full((32,), math.inf), torch.tensor([0.5]), other)
    with pytest.raises(ModelError, match="not finite"):
        load_value_model(str(other))
    (other / HEAD).write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot be read as a value head"):
        load_value_model(str(other))
    (other / HEAD).unlink()
    for spec in (str(other), str(wide), str(tmp_path / "nowhere")):
        with pytest.raises(ModelError, match="is no value model") as caught:
            load_value_model(spec)
        assert "train stepwise" in caught.value.hint


def test_a_base_that_is_another_now_is_refused(judge_folder, wide, tmp_path):
    from shutil import copytree

    copytree(judge_folder, tmp_path / "judge")
    make_tiny(tmp_path / "tiny", seed=1, max_position_embeddings=4096)
    with pytest.raises(ModelError, match="was tuned on another model than tiny is now"):
        load_value_model(str(tmp_path / "judge"))


def test_it_judges_and_writes_nothing(judge, judge_folder):
    with pytest.raises(ModelError, match="writes none"):
        judge.generate([])
    with pytest.raises(ModelError, match="two choices"):
        judge.score([ScoreRequest((Segment("a"),), (" one", " two", " three"))])
    with pytest.raises(UsageError, match="values trajectories and writes none") as caught:
        load_model(str(judge_folder))
    assert caught.value.hint == f"use it as --value model:{judge_folder}"


def test_names_of_value_sources():
    assert value_model("model:some/folder") == "some/folder"
    assert value_model("rap") == ""
    check_value("model:x")
    with pytest.raises(UsageError, match="no value source named model:"):
        check_value("model:")
    model = RandomModel(3)
    with pytest.raises(UsageError, match="needs its model"):
        run_search("rstar", make_problem(), Models(model, model), SearchSettings(value="model:x"), 0)


def test_what_must_hold_of_every_tree_and_result_holds():
    seen = set()
    for strategy, problem, models, settings, seed in searches(0, 50):
        if strategy == "rap":
            continue
        valued, settings = replace(models, value=RandomModel(seed)), replace(settings, value=FOLDER)
        result = run_search(strategy, problem, valued, settings, seed)
        check_result(result, problem, settings)
        assert repr(run_search(strategy, problem, valued, settings, seed)) == repr(result)
        asked = [call for call in result.calls if call.role == VALUE]
        assert bool(asked) <= (strategy in ("rstar", "best-of-n"))
        seen |= {strategy} if asked else set()
    assert seen == {"rstar", "best-of-n"}


@pytest.mark.parametrize("strategy", ["rstar", "best-of-n"])
def test_the_value_is_what_the_model_says_at_the_end_of_the_trajectory(strategy):
    """`well` is e times as likely as `badly` after sepsis, and the other way round after all else."""
    rules = [{"ends": "Working diagnosis: sepsis", "scores": {"well": -1.0, "badly": -2.0}}]
    scripted = ScriptedModel({"score": [*rules, {"scores": {"well": -2.0, "badly": -1.0}}]})
    settings = SearchSettings(value=FOLDER, rollouts=12, stop="never", cost_weight=0.001)
    model = RandomModel(1)
    result = run_search(strategy, make_problem(), Models(model, model, scripted), settings, 4)
    named = set()
    for candidate in result.candidates:
        key = candidate.trajectory.conclusion.answer_key
        cost = 5 * sum(kind is ActionKind.REQUEST for kind in candidate.trajectory.kinds)  # 5 USD each
        sign = 1 if key == "sepsis" else -1
        assert candidate.value == pytest.approx(1 / (1 + math.exp(-sign)) - 0.001 * cost)
        named.add(key == "sepsis")
    assert named == {True, False}
    calls = [call for call in result.calls if call.role == VALUE]
    assert {call.purpose for call in calls} == {VALUE}
    assert {call.completions for call in calls} == {ENDINGS}
    assert len({call.text for call in calls}) >= len(result.candidates)
    assert all("Working diagnosis:" in call.text.rsplit("\n", 1)[1] for call in calls)
    tokens = run_search(strategy, make_problem(), Models(model, model), replace(settings, value="self_consistency"), 4)
    assert result.tokens.prefilled > tokens.tokens.prefilled  # its prompts count


def test_a_trajectory_without_an_answer_is_worth_nothing_and_nothing_is_asked():
    silent = ScriptedModel({"text": " mumble"})
    settings = SearchSettings(value=FOLDER, vote="drawn", rollouts=2, calibration="none")
    result = run_search("rstar", make_problem(), Models(silent, silent, RandomModel(1)), settings, 0)
    assert {c.value for c in result.candidates} == {0.0}
    assert not [call for call in result.calls if call.role == VALUE]


def test_a_search_valued_by_a_local_model_repeats_cached_or_not(judge):
    settings = SearchSettings(value=FOLDER, rollouts=5, think=1, ask=1, ask_votes=1, request=1, max_requests=1)
    model, shelf, problem = RandomModel(2), Shelf(), make_problem()
    found = []
    for _ in range(2):
        cached = CachedModel(judge, shelf)
        found.append(run_search("rstar", problem, Models(model, model, cached), settings, 1))
        cached.release()
        shelf.keep(cached)
    assert (cached.hits > 0, cached.misses) == (True, 0)
    alone = run_search("rstar", problem, Models(model, model, judge), settings, 1)
    check_result(alone, problem, settings)
    assert repr(found[0]) == repr(found[1]) == repr(alone)
    assert len({c.value for c in alone.candidates}) > 1


def test_cases_that_share_batches_share_the_value_model_too():
    settings = SearchSettings(value=FOLDER, rollouts=4)
    model, value = RandomModel(2), RandomModel(9)

    def job(models):
        return repr(run_search("rstar", make_problem(), models, settings, 1))

    alone = job(Models(model, model, value))
    assert list(run_together(Models(model, model, value), [job, job], 2)) == [alone, alone]


def test_each_model_stands_once_among_those_of_a_search():
    one, two = RandomModel(1), RandomModel(2)
    assert Models(one, one).distinct == (one,)
    assert Models(one, two, one).distinct == (one, two)
    assert Desk(Models(one, one, two))._model(VALUE) is two
