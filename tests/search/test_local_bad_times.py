"""The local back-end when memory runs out, numbers overflow, samples do not end or the model breaks."""

import math

import pytest
import torch
from tiny_llama import TOKEN_BYTES, letter_ids, prompt

from clinical_data.errors import ModelError
from search.models.language_model import Constraint, GenerateRequest, Sampling, ScoreRequest
from search.models.transformers import TransformersModel

HOT = Sampling(max_new_tokens=10, temperature=1.0, top_p=0.9)
WORDS = ("fever", "pain", "rest")


def draw(model, text="the patient", seeds=range(16), **options):
    return [
        (g.token_ids, g.finish, g.chosen)
        for g in model.generate([GenerateRequest(prompt(text), HOT, seed, **options) for seed in seeds])
    ]


def fail_when(monkeypatch, model, happens, error):
    """Makes passes fail when `happens(rows)` says so; returns the rows of those that did."""
    forward, failed = model._engine._forward, []

    def breaking(ids, positions, plan):
        if happens(len(ids)):
            failed.append(len(ids))
            raise error
        return forward(ids, positions, plan)

    monkeypatch.setattr(model._engine, "_forward", breaking)
    return failed


NO_MEMORY = [
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_MEMORY)
@pytest.mark.parametrize(("constraint", "enough"), [(None, 2), (Constraint(WORDS, most=2), 1)])
def test_out_of_memory_halves_the_batch_and_changes_nothing(folder, tiny, monkeypatch, error, constraint, enough):
    expected = draw(tiny, constraint=constraint)
    other = TransformersModel.load(str(folder), dtype="fp32", max_batch=16)
    draw(other, seeds=[0])
    failed = fail_when(monkeypatch, other, lambda rows: rows > enough, error)
    assert draw(other, constraint=constraint) == expected
    assert failed
    assert other._batch < 16
    other.release()
    assert other._batch == 16  # a later case-step does not depend on this one


def test_out_of_memory_in_scoring_halves_the_batch(tiny, monkeypatch):
    requests = [ScoreRequest(prompt("the " + end), WORDS) for end in "abcd"]
    expected = tiny.score(requests)
    tiny.release()
    failed = fail_when(monkeypatch, tiny, lambda rows: rows > 12, MemoryError())
    for result, wanted in zip(tiny.score(requests), expected, strict=True):
        assert result.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
    assert failed


def test_a_batch_of_one_without_memory_gets_that_of_the_cache(tiny, monkeypatch):
    expected = draw(tiny, seeds=[5])
    tiny.release()
    draw(tiny, "something else")
    cache = tiny._engine.cache
    failed = fail_when(monkeypatch, tiny, lambda rows: cache.tokens > 25, MemoryError())
    assert draw(tiny, seeds=[5]) == expected
    assert failed
    fail_when(monkeypatch, tiny, lambda rows: True, MemoryError())
    with pytest.raises(ModelError, match="batch of one"):
        draw(tiny, "and now", seeds=[1])


def spoil(model, letter):
    """Gives a letter an embedding that no number survives."""
    model._model.model.embed_tokens.weight[letter_ids(letter)[0]] = math.inf


def test_numbers_that_are_not_finite_end_only_their_own_samples(folder, tiny):
    texts = ("the patient has pain", "the patient has z pain", "the patient has fever", "the patient")
    requests = [GenerateRequest(prompt(t), HOT, i, c) for c in (None, Constraint(WORDS)) for i, t in enumerate(texts)]
    sound = TransformersModel.load(str(folder), dtype="fp32").generate(requests)
    spoil(tiny, "z")
    results = tiny.generate(requests)  # one pass prefills them all, and their shared beginning
    compared = 0
    for at, (result, wanted) in enumerate(zip(results, sound, strict=True)):
        if at % 4 == 1:
            assert (result.finish, result.token_ids, result.logprob) == ("error", (), 0.0)
        elif "z" not in wanted.text:
            assert (result.token_ids, result.finish, result.chosen) == (wanted.token_ids, wanted.finish, wanted.chosen)
            assert result.logprob == pytest.approx(wanted.logprob, abs=1e-4)
            compared += 1
    assert compared >= 5


def test_a_sample_that_breaks_on_its_way_keeps_what_it_said(tiny):
    spoil(tiny, "z")
    sampling = Sampling(max_new_tokens=8, temperature=1.0)
    lists = Constraint(("az", "bb"), most=2, separator=".")
    results = tiny.generate([GenerateRequest(prompt("the"), sampling, seed, lists) for seed in range(30)])
    assert {(g.text, g.finish) for g in results} <= {("az", "error"), ("bb", "stop"), ("bb.az", "stop")}
    assert len({g.finish for g in results}) == 2


def test_likelihoods_that_are_not_finite_are_minus_infinity(folder, tiny):
    choices = ("fever", "zest", "a", "faze", "far")
    requests = [ScoreRequest(prompt(t), choices) for t in ("the patient", "the z", "the pain")]
    sound = TransformersModel.load(str(folder), dtype="fp32").score(requests)
    spoil(tiny, "z")
    results = tiny.score(requests)
    assert results[1].logprobs == (-math.inf,) * len(choices)
    for at in (0, 2):
        broken = [i for i, p in enumerate(results[at].logprobs) if p == -math.inf]
        assert [choices[i] for i in broken] == ["zest", "faze"]
        for i in {0, 2, 4}:
            assert results[at].logprobs[i] == pytest.approx(sound[at].logprobs[i], abs=1e-4)
    assert results[1].mean_logprobs[0] == -math.inf


def test_no_choices_and_empty_ones_have_likelihoods(tiny):
    none, empty = tiny.score([ScoreRequest(prompt("the"), choices) for choices in ((), ("",))])
    assert (none.logprobs, empty.logprobs, empty.mean_logprobs) == ((), (0.0,), (0.0,))


def test_a_sample_without_an_end_ends_at_its_length(tiny):
    tiny._eos = frozenset()
    endless = Sampling(max_new_tokens=80, temperature=1.0, stop=())
    generation = tiny.generate([GenerateRequest(prompt("the"), endless, 0)])[0]
    assert (len(generation.token_ids), generation.finish) == (80, "length")


def test_a_sample_that_ends_at_once_is_empty(tiny):
    first = Sampling(max_new_tokens=5, temperature=0.0, stop=())
    letter = tiny.generate([GenerateRequest(prompt("the"), first, 0)])[0].text[0]
    stopped = Sampling(max_new_tokens=5, temperature=0.0, stop=(letter,))
    generation = tiny.generate([GenerateRequest(prompt("the"), stopped, 0)])[0]
    assert (generation.text, generation.token_ids, generation.finish, generation.logprob) == ("", (), "stop", 0.0)


def test_what_exceeds_the_context_is_named_with_its_lengths(tiny):
    with pytest.raises(ModelError, match="1020 tokens and 10 new ones exceed the context of 1024"):
        tiny.generate([GenerateRequest(prompt("a" * 1020), HOT, 0)])
    with pytest.raises(ModelError, match="1020 tokens and 5 new ones exceed the context of 1024"):
        tiny.score([ScoreRequest(prompt("a" * 1020), WORDS)])
    short = GenerateRequest(prompt("a" * 1020), HOT, 0, Constraint(("rest",)))
    assert tiny.generate([short])[0].text == "rest"  # a constraint bounds what may come


@pytest.mark.parametrize("at", [1, 2, 5, 9])
@pytest.mark.parametrize("error", [RuntimeError("a kernel died"), IndexError("index"), KeyboardInterrupt()])
def test_a_model_that_breaks_leaves_the_engine_usable(folder, tiny, monkeypatch, at, error):
    expected = draw(tiny, "the patient has pain", range(8))
    other = TransformersModel.load(str(folder), dtype="fp32", cache_mb=15 * TOKEN_BYTES / 1e6)
    calls = iter(range(1, 100))
    with monkeypatch.context() as patch:
        fail_when(patch, other, lambda rows: next(calls) == at, error)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ModelError):
            draw(other, "the patient has pain", range(8))
    cache = other._engine.cache
    assert cache.tokens == sum(len(node.ids) for node in cache._nodes()) <= cache.limit
    assert draw(other, "the patient has pain", range(8)) == expected
    scores = [m.score([ScoreRequest(prompt("the patient has pain"), WORDS)])[0].logprobs for m in (tiny, other)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
