"""An adapter's folder is a model: its base with the adapter merged into it, as PEFT would."""

import json
import shutil

import peft
import pytest
import torch
import transformers
from tiny_llama import make_tiny, prompt, stock_logprob

from clinical_data.errors import ModelError
from search.models import adapters
from search.models.adapters import CONFIG, WEIGHTS, folder_of
from search.models.language_model import ScoreRequest
from search.models.local_weights import find_weights
from search.models.registry import load_model
from search.models.transformers import TransformersModel

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for deprecated names


def stock(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def make_adapter(base, folder, *, seed=0, **config):
    """Saves an adapter with random numbers, by PEFT alone; returns PEFT's model."""
    model = peft.get_peft_model(stock(base), peft.LoraConfig(**({"r": 4, "target_modules": "all-linear"} | config)))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, save_embedding_layers=False)
    return model


def edit(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


@pytest.fixture
def adapter(folder, tmp_path):
    made = tmp_path / "adapter"
    make_adapter(folder, made)
    return made


@pytest.mark.parametrize("config", [{}, {"lora_alpha": 32}, {"use_rslora": True}, {"target_modules": ["q_proj"]}])
def test_weights_are_those_of_peft(folder, tmp_path, config):
    make_adapter(folder, tmp_path / "adapter", **config)
    theirs = peft.PeftModel.from_pretrained(stock(folder), tmp_path / "adapter").merge_and_unload()
    ours = TransformersModel.load(str(tmp_path / "adapter"), dtype="fp32")._model
    untouched = stock(folder).state_dict()
    found = ours.state_dict()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(found[name], weight), name
    assert sum(not torch.equal(found[name], untouched[name]) for name in found) >= 2


def test_the_search_gets_the_likelihoods_of_the_unmerged_adapter(folder, tmp_path):
    unmerged = make_adapter(folder, tmp_path / "adapter")
    model = load_model(str(tmp_path / "adapter"), dtype="fp32", threads=1)
    (scores,) = model.score([ScoreRequest(prompt("what is it", " then"), (" a cold", " a burn"))])
    for ids, logprob in zip(scores.choice_ids, scores.logprobs, strict=True):
        assert logprob == pytest.approx(stock_logprob(unmerged, scores.prompt_ids, ids), abs=1e-3)


def test_rounding_comes_after_merging(adapter):
    exact = TransformersModel.load(str(adapter), dtype="fp32")._model
    rounded = TransformersModel.load(str(adapter), dtype="bf16")._model
    for (name, one), other in zip(exact.named_parameters(), rounded.parameters(), strict=True):
        assert torch.equal(one.to(torch.bfloat16), other), name
    assert rounded.model.rotary_emb.inv_freq.dtype == torch.float32


def test_identity_follows_base_and_adapter(folder, adapter, tmp_path):
    edit(adapter, base_model_name_or_path=str(folder))
    own = find_weights(str(adapter))
    assert own.name == f"{folder.name}+adapter"
    assert own.revision not in ("", find_weights(str(folder)).revision)
    shutil.copytree(adapter, tmp_path / "copy")
    edit(tmp_path / "copy", base_model_name_or_path=str(folder), inference_mode=False)
    assert find_weights(str(tmp_path / "copy")).revision == own.revision  # where it lies decides nothing
    make_adapter(folder, tmp_path / "other", seed=1)
    assert find_weights(str(tmp_path / "other")).revision != own.revision
    edit(tmp_path / "copy", lora_alpha=99)
    assert find_weights(str(tmp_path / "copy")).revision != own.revision


def test_another_base_than_the_recorded_one_is_refused(folder, adapter, tmp_path):
    edit(adapter, base_model_name_or_path=str(folder), revision=find_weights(str(folder)).revision)
    find_weights(str(adapter))
    make_tiny(tmp_path / "base", seed=1)
    edit(adapter, base_model_name_or_path="../base")  # seen from the adapter
    with pytest.raises(ModelError, match="was tuned on another model than base is now"):
        load_model(str(adapter))


def test_an_adapter_may_stand_on_another(folder, tmp_path):
    make_adapter(folder, tmp_path / "first")
    merged = peft.PeftModel.from_pretrained(stock(folder), tmp_path / "first").merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    make_adapter(tmp_path / "merged", tmp_path / "second", seed=1)
    theirs = peft.PeftModel.from_pretrained(stock(tmp_path / "merged"), tmp_path / "second").merge_and_unload()
    edit(
        tmp_path / "second", base_model_name_or_path="../first", revision=find_weights(str(tmp_path / "first")).revision
    )
    ours = TransformersModel.load(str(tmp_path / "second"), dtype="fp32")._model.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.state_dict().items())
    assert find_weights(str(tmp_path / "second")).name.endswith("+first+second")
    edit(tmp_path / "first", base_model_name_or_path="../second")
    with pytest.raises(ModelError, match="is its own base"):
        find_weights(str(tmp_path / "second"))


def test_bundled_adapters_have_names(folder, adapter, monkeypatch):
    edit(adapter, base_model_name_or_path=str(folder))
    monkeypatch.setattr(adapters, "BUNDLED", adapter.parent)
    assert folder_of("embedded:adapter") == adapter
    assert find_weights("embedded:adapter").revision == find_weights(str(adapter)).revision
    assert load_model("embedded:adapter", dtype="fp32", threads=1).identity.spec == "embedded:adapter"
    with pytest.raises(ModelError, match="no bundled adapter other") as refused:
        load_model("embedded:other")
    assert refused.value.hint == "bundled: adapter"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"base_model_name_or_path": ""}, "names no base"),
        ({"base_model_name_or_path": "org/not-here"}, "not in the local hub cache"),
        ({"base_model_name_or_path": "../gone"}, "holds no model"),
        ({"lora_alpha": None}, "no configuration of a LoRA adapter"),
    ],
)
def test_what_cannot_be_merged_exactly_is_refused(adapter, changes, told):
    edit(adapter, **changes)
    with pytest.raises(ModelError, match=told):
        load_model(str(adapter))


def test_damaged_weights_are_named(folder, adapter, tmp_path):
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=WEIGHTS):
        load_model(str(adapter))
    (adapter / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(str(adapter))
    make_tiny(tmp_path / "wide", hidden_size=64)
    (adapter / WEIGHTS).write_bytes(whole)
    edit(adapter, base_model_name_or_path="../wide")
    with pytest.raises(ModelError, match="does not fit its base"):
        load_model(str(adapter))
