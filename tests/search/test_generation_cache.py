"""The cache before a model: what is a hit, and that no hit changes what comes after it."""

import logging
import math
from dataclasses import replace

import pytest

from search.generation_cache import CachedModel, pack
from search.models.language_model import (
    ChoiceScores,
    Constraint,
    GenerateRequest,
    Generation,
    LanguageModel,
    ModelIdentity,
    Sampling,
    ScoreRequest,
    Segment,
    Work,
)
from search.models.toys import RandomModel
from search.problem import Models
from search.strategies import run_search

DRAW = GenerateRequest((Segment("A case."), Segment(" so", (7, 8))), Sampling(), 5)
SCORE = ScoreRequest((Segment("A case."),), (" yes", " no", " not at all"))


class Shelf(dict):
    """A cache in memory."""

    def find(self, keys):
        return {k: self[k] for k in keys if k in self}

    def keep(self, model):
        changes = model.take()
        self.update(changes.new)
        return changes


class ContextModel:
    """Its likelihoods tell the batch, and all that was asked since the last release, as rounding does in bf16."""

    identity = ModelIdentity("context", "context", "1")

    def __init__(self):
        self.work, self.asked, self.calls = Work(), [], []

    def generate(self, requests):
        self.asked.append([(r.prompt, r.seed) for r in requests])
        self.calls.append(list(requests))
        return [
            Generation(f" {r.seed}", (1, 2), (i,), hash(str(self.asked)) / 3 + i, "stop")
            for i, r in enumerate(requests)
        ]

    def score(self, requests):
        self.asked.append([r.prompt for r in requests])
        self.calls.append(list(requests))
        likelihoods = [-math.inf, hash(str(self.asked)) / 7]
        return [ChoiceScores((1,), ((2,),) * len(r.choices), tuple(likelihoods[:1] * len(r.choices))) for r in requests]

    def release(self):
        self.asked = []


def draws(text, *seeds):
    return [GenerateRequest((Segment(text),), Sampling(), seed) for seed in seeds]


def course(model, *batches):
    """Takes a model through a case-step."""
    replies = [model.generate(batch) for batch in batches]
    model.release()
    return replies


PRIOR, FIRST, SECOND, THIRD = draws("no case", 0), draws("a", 1, 2, 1), draws("b", 3), draws("b", 4, 5)


def test_a_cached_model_is_a_language_model_and_tells_what_the_model_tells():
    model = RandomModel(1)
    cached = CachedModel(model, Shelf())
    assert isinstance(cached, LanguageModel)
    assert cached.identity == model.identity
    assert cached.repeatable
    model.repeatable = False
    assert not cached.repeatable


@pytest.mark.parametrize("in_context", [True, False])
def test_the_second_time_no_model_is_asked(in_context):
    shelf, replies = Shelf(), []
    for turn in range(2):
        model = RandomModel(3)
        cached = CachedModel(model, shelf, in_context=in_context)
        replies.append((cached.generate([DRAW, replace(DRAW, seed=6)]), cached.score([SCORE])))
        assert (cached.hits, cached.misses) == ((0, 3), (3, 0))[turn]
        assert len(shelf.keep(cached).used) == (0, 3)[turn]
    assert model.work == Work()
    assert replies[0] == replies[1] == (RandomModel(3).generate([DRAW, replace(DRAW, seed=6)]), model.score([SCORE]))


def test_a_whole_search_repeats_from_the_cache(problem, settings):
    shelf, found = Shelf(), []
    for _ in range(2):
        cached = CachedModel(RandomModel(3), shelf)
        found.append(run_search("rstar", problem, Models(cached, cached), settings, 1))
        shelf.keep(cached)
    assert cached.work.computed == cached.misses == 0
    assert cached.hits == len(found[0].calls) > 20
    alone = RandomModel(3)
    assert repr(found[0]) == repr(found[1]) == repr(run_search("rstar", problem, Models(alone, alone), settings, 1))


@pytest.mark.parametrize("known", [[PRIOR], [PRIOR, FIRST], [PRIOR, FIRST, SECOND], [FIRST], [PRIOR, draws("a", 1)]])
def test_what_is_known_changes_nothing_that_is_not(known):
    shelf, asked = Shelf(), [PRIOR, FIRST, SECOND, THIRD]
    earlier = CachedModel(ContextModel(), shelf)
    course(earlier, *known)
    shelf.keep(earlier)
    model = ContextModel()
    cached = CachedModel(model, shelf)
    assert course(cached, *asked) == course(ContextModel(), *asked)
    assert model.calls == asked  # in the same batches, once each
    assert (cached.hits, cached.misses) == (0, 7)
    shelf.keep(cached)
    assert course(CachedModel(ContextModel(), shelf), *asked) == course(ContextModel(), *asked)


def test_a_step_begins_anew_after_release():
    shelf, model = Shelf(), ContextModel()
    cached = CachedModel(model, shelf)
    first = course(cached, PRIOR, FIRST)
    assert course(cached, PRIOR, FIRST) == first  # before it is committed, too
    assert model.calls == [PRIOR, FIRST]


def test_a_served_model_is_sent_only_what_is_not_known_and_that_once():
    shelf, model = Shelf(), ContextModel()
    cached = CachedModel(model, shelf, in_context=False)
    one, two, three = draws("a", 1, 2, 3)
    cached.generate([one])
    shelf.keep(cached)
    cached.release()
    replies = cached.generate([two, one, three, two])
    assert model.calls == [[one], [two, three]]
    assert [r.text for r in replies] == [" 2", " 1", " 3", " 2"]
    assert replies[0] == replies[3]
    assert (cached.hits, cached.misses) == (1, 4)


@pytest.mark.parametrize("in_context", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {"prompt": (Segment("A case."), Segment(" so"))},
        {"prompt": (Segment("A case."), Segment(" so", (7, 9)))},
        {"prompt": (Segment("A case. so", (7, 8)),)},
        {"sampling": Sampling(temperature=0.7)},
        {"sampling": Sampling(top_p=0.9)},
        {"sampling": Sampling(max_new_tokens=41)},
        {"sampling": Sampling(stop=())},
        {"seed": 6},
        {"constraint": Constraint((" yes",))},
    ],
)
def test_another_request_is_no_hit(change, in_context):
    shelf = Shelf()
    cached = CachedModel(RandomModel(1), shelf, in_context=in_context)
    cached.generate([DRAW])
    shelf.keep(cached)
    cached.release()
    cached.generate([replace(DRAW, **change)])
    cached.score([SCORE, replace(SCORE, choices=SCORE.choices[:2])])
    assert cached.hits == 0


@pytest.mark.parametrize("name", ["spec", "name", "revision", "dtype", "backend", "device", "extra", "code"])
def test_another_model_machine_or_version_is_no_hit(name, monkeypatch):
    shelf, model = Shelf(), ContextModel()
    cached = CachedModel(model, shelf)
    cached.score([SCORE])
    shelf.keep(cached)
    if name == "code":
        monkeypatch.setattr("search.generation_cache._code_hash", lambda: "another")
    else:
        model.identity = replace(model.identity, **{name: {"hardware": "x"} if name == "extra" else "x"})
    other = CachedModel(model, shelf)
    other.score([SCORE])
    assert (other.hits, other.misses) == (0, 1)


@pytest.mark.parametrize("damage", [lambda v: v[:-3], lambda v: v[:20] + b"!" + v[21:], lambda v: b"", lambda v: b"{}"])
@pytest.mark.parametrize("in_context", [True, False])
def test_a_damaged_value_is_computed_again_with_a_warning(damage, in_context, caplog):
    shelf = Shelf()
    good = CachedModel(ContextModel(), shelf, in_context=in_context)
    expected = course(good, PRIOR, FIRST, SECOND)
    shelf.keep(good)
    key, whole = list(shelf)[1], dict(shelf)
    shelf[key] = damage(shelf[key])
    cached = CachedModel(ContextModel(), shelf, in_context=in_context)
    with caplog.at_level(logging.WARNING):
        found = course(cached, PRIOR, FIRST, SECOND)
    assert [r.text for batch in found for r in batch] == [r.text for batch in expected for r in batch]
    assert "damaged" in caplog.text
    assert "no case" not in caplog.text
    assert key in shelf.keep(cached).new
    if in_context:
        assert found == expected
        assert shelf == whole


def test_scores_of_another_number_of_choices_are_damage(caplog):
    shelf, model = Shelf(), RandomModel(1)
    cached = CachedModel(model, shelf)
    expected = cached.score([SCORE])
    (key,) = cached.take().new
    shorter = replace(SCORE, choices=SCORE.choices[:1])
    shelf[key] = pack(model.score([shorter])[0], shorter, model)
    assert CachedModel(model, shelf).score([SCORE]) == expected
    assert "damaged" in caplog.text


def test_values_keep_every_bit_and_no_ids_that_follow_from_the_request():
    shelf, model = Shelf(), RandomModel(1)
    prompt = (Segment("word " * 2000),)
    for numbers in ((0.1 + 0.2, -math.inf, -1e-310), (math.nextafter(-1, 0), -0.0, math.pi)):
        model.score = lambda requests, n=numbers: [
            ChoiceScores(model.prompt_ids(prompt), tuple(map(model.choice_ids, SCORE.choices)), n)
        ]
        cached = CachedModel(model, shelf)
        cached.score([replace(SCORE, prompt=prompt)])
        (value,) = shelf.keep(cached).new.values()
        assert len(value) < 120
        again = CachedModel(model, shelf).score([replace(SCORE, prompt=prompt)])[0]
        assert [x.hex() for x in again.logprobs] == [x.hex() for x in numbers]
        assert again.prompt_ids == model.prompt_ids(prompt)
        shelf.clear()


def test_a_failing_model_leaves_nothing():
    shelf, model = Shelf(), ContextModel()
    cached = CachedModel(model, shelf)

    def fail(requests):
        raise RuntimeError("broken")

    model.generate = fail
    with pytest.raises(RuntimeError):
        cached.generate(FIRST)
    assert not shelf.keep(cached).new
