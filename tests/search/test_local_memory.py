"""The memory that the local back-end keeps: bounded in bytes, whatever is asked of it."""

import pytest
import torch
from tiny_llama import TOKEN_BYTES, prompt

from clinical_data.errors import UsageError
from search.models.kv_cache import PrefixCache, States
from search.models.language_model import Constraint, GenerateRequest, Sampling, ScoreRequest
from search.models.transformers import TransformersModel

SAMPLING = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.9)
BYTES = 500 * TOKEN_BYTES


def load(folder, size=2e9):
    return TransformersModel.load(str(folder), dtype="fp32", threads=1, cache_mb=size / 1e6)


def long_prompts(count):
    trunk = "the patient has fever. " * 6
    return [prompt(trunk, "abcdefghijklmnopqrst"[i] * (60 + i), " so") for i in range(count)]


def everything(model):
    """Samples, constrained samples and likelihoods after long prompts, several times over."""
    answers, likelihoods = [], []
    for start in (0, 10, 5):
        prompts = long_prompts(20)[start : start + 10]
        answers.append([(g.token_ids, g.finish) for g in model.generate(requests_of(prompts, None))])
        answers.append([(g.token_ids, g.chosen) for g in model.generate(requests_of(prompts, Constraint(("a", "bc"))))])
        scores = model.score([ScoreRequest(p, ("fever", "pain", "rest")) for p in prompts])
        likelihoods += [p for s in scores for p in s.logprobs]
    return answers, likelihoods


def requests_of(prompts, constraint):
    return [GenerateRequest(p, SAMPLING, seed, constraint) for seed, p in enumerate(prompts)]


def test_bytes_held_stay_under_the_bound_and_answers_the_same(folder, monkeypatch):
    roomy, tight = load(folder), load(folder, BYTES)
    cache, most = tight._engine.cache, []
    append = cache.append
    monkeypatch.setattr(cache, "append", lambda *new: (append(*new), most.append(cache.nbytes)))
    answers, likelihoods = everything(tight)
    expected, near = everything(roomy)
    assert answers == expected
    assert likelihoods == pytest.approx(near, abs=1e-3)
    assert len(most) > 100
    assert max(most) <= BYTES  # at any moment, not only after a call
    assert cache.nbytes == cache.tokens * TOKEN_BYTES  # no view keeps more alive than it shows
    assert roomy._engine.cache.nbytes > 3 * BYTES
    assert tight.work.computed > roomy.work.computed


def test_a_prompt_larger_than_the_bound_is_answered_and_then_forgotten(folder):
    model = load(folder, 50 * TOKEN_BYTES)
    asked = GenerateRequest(long_prompts(1)[0], SAMPLING, 0)
    assert model.generate([asked])[0].token_ids == load(folder).generate([asked])[0].token_ids
    assert model._engine.cache.nbytes <= 50 * TOKEN_BYTES


def test_no_memory_at_all_is_enough(folder):
    model, asked = load(folder, 0), requests_of(long_prompts(3), None)
    assert [g.token_ids for g in model.generate(asked)] == [g.token_ids for g in load(folder).generate(asked)]
    assert model._engine.cache.tokens == 0


@pytest.mark.parametrize("options", [{"cache_mb": -1}, {"max_batch": 0}])
def test_sizes_that_cannot_be(folder, options):
    with pytest.raises(UsageError):
        TransformersModel.load(str(folder), **options)


def test_what_is_looked_at_again_is_forgotten_last():
    cache = PrefixCache(limit=4)
    states = States(torch.zeros(2, 1, 1, 2, 1), torch.zeros(2, 1))
    for ids in ((1, 1), (2, 2)):
        cache.tick()
        cache.append(ids, states)
    cache.tick()
    assert cache.last_hidden((1, 1)).shape == (1,)
    with pytest.raises(KeyError):
        cache.last_hidden((1, 2))
    cache.tick()
    cache.trim(room=1)
    assert (cache.match((1, 1)), cache.match((2, 2)), cache.tokens) == (2, 0, 2)
