"""Constrained sampling: whatever is drawn is a legal list, and drawn as often as it should be."""

import itertools
import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny_llama import EOS, letter_ids, prompt, stock_logits, stock_logprob

from search.models.choice_walk import ChoiceWalk, make_menu
from search.models.language_model import Constraint, GenerateRequest, Sampling
from search.models.token_sampling import Wish, sample_tokens
from search.models.transformers import TransformersModel

CHOICES = ("fever", "fear", "pain", "p", "pale", "no fever")
STOPS = (EOS, *letter_ids("\n"))
PLAIN = Sampling(max_new_tokens=60, temperature=1.0, top_p=1.0)
HOT = Sampling(max_new_tokens=60, temperature=1.7, top_p=0.9)
ONE = Constraint(CHOICES)
SEVERAL = Constraint(CHOICES, most=3, separator=". ")


def legal_lists(choices, separator, most):
    """Every legal sample by enumeration: tokens -> the lists of choices that read so."""
    first = {ids: index for index, ids in reversed(list(enumerate(choices)))}
    lists = {}
    for count in range(1, most + 1):
        for named in itertools.permutations(sorted(first.values()), count):
            ids = choices[named[0]] + tuple(t for i in named[1:] for t in (*separator, *choices[i]))
            lists.setdefault(ids, []).append(named)
    return lists


tokens = st.integers(0, 2)
few_tokens = st.lists(tokens, max_size=3).map(tuple)


@given(st.lists(few_tokens, max_size=4), few_tokens, st.integers(0, 3), st.randoms())
def test_a_walk_can_say_every_legal_list_and_nothing_else(choices, separator, most, chance):
    menu, legal = make_menu(choices, separator, most), legal_lists(choices, separator, most)
    assert menu.longest == max(map(len, legal), default=0)
    for ids, readings in legal.items():
        walk = ChoiceWalk(menu)
        for token in ids:
            assert token in walk.tokens
            walk.take(token)
        assert walk.complete
        assert walk.chosen in readings
    walk, said = ChoiceWalk(menu), ()
    while not walk.over:
        assert walk.complete == (said in legal)
        token = chance.choice(walk.tokens)
        walk.take(token)
        said += (token,)
    assert said in legal or not legal


def test_of_two_readings_the_longer_choice_counts():
    walk = ChoiceWalk(make_menu([(1,), (1, 0, 2), (2,)], (0,), 2))
    for token in (1, 0, 2):
        walk.take(token)
    assert walk.chosen == (1,)


@pytest.mark.parametrize("sampling", [PLAIN, HOT])
@pytest.mark.parametrize("constraint", [ONE, SEVERAL])
def test_every_sample_is_a_legal_list(tiny, sampling, constraint):
    requests = [GenerateRequest(prompt("the patient has "), sampling, seed, constraint) for seed in range(200)]
    counts = Counter()
    for generation in tiny.generate(requests):
        named = [CHOICES[i] for i in generation.chosen]
        assert generation.finish == "stop"
        assert generation.text == constraint.separator.join(named)
        assert 1 <= len(named) == len(set(named)) <= constraint.most
        counts[len(named)] += 1
    assert len(counts) == constraint.most


def masked(stock, ids, allowed, temperature=1.0):
    """Probability of each allowed token among the allowed ones."""
    p = (stock_logits(stock, ids)[list(allowed)] / temperature).softmax(-1)
    return dict(zip(allowed, p.tolist(), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_one_choice_is_drawn_by_its_masked_probabilities(tiny, stock, temperature):
    n, sampling = 3000, Sampling(max_new_tokens=20, temperature=temperature, top_p=1.0)
    requests = [GenerateRequest(prompt("the patient has "), sampling, seed, ONE) for seed in range(n)]
    generations = tiny.generate(requests)
    begin = generations[0].prompt_ids
    expected = []
    for choice in CHOICES:
        ids, p = letter_ids(choice), 1.0
        for at, token in enumerate(ids):
            before = choice[:at]
            allowed = sorted({letter_ids(c)[at] for c in CHOICES if c.startswith(before) and len(c) > at})
            allowed += STOPS if before in CHOICES else ()
            p *= masked(stock, (*begin, *ids[:at]), allowed, temperature)[token]
        if choice == "p":  # may go on: to stop competes
            ends = masked(stock, (*begin, *ids), (*STOPS, *letter_ids("a")), temperature)
            p *= sum(ends[stop] for stop in STOPS)
        expected.append(p * n)
    assert sum(expected) == pytest.approx(n)
    assert min(expected) > 5
    counts = Counter(g.chosen for g in generations)
    assert chisquare([counts[(i,)] for i in range(len(CHOICES))], expected).pvalue > 0.001


def test_top_p_acts_on_what_is_allowed(tiny, stock):
    greedy = Sampling(max_new_tokens=60, temperature=0.0)
    narrow = Sampling(max_new_tokens=60, temperature=1.0, top_p=1e-6)
    requests = [GenerateRequest(prompt("the "), s, 7, SEVERAL) for s in (greedy, narrow)]
    best, same = tiny.generate(requests)
    assert (best.token_ids, best.chosen) == (same.token_ids, same.chosen)
    first = {letter_ids(c)[0] for c in CHOICES}
    assert best.token_ids[0] == max(first, key=lambda t: float(stock_logits(stock, best.prompt_ids)[t]))


def test_logprob_is_the_models_own(tiny, stock):
    for generation in tiny.generate([GenerateRequest(prompt("the "), HOT, seed, SEVERAL) for seed in range(20)]):
        expected = stock_logprob(stock, generation.prompt_ids, generation.token_ids)
        assert generation.logprob == pytest.approx(expected, abs=1e-3)


def test_batch_and_company_change_nothing(folder):
    kinds = [None, ONE, SEVERAL, Constraint(("pain", "rest"), most=2)]
    sampling = Sampling(max_new_tokens=24, temperature=1.0, top_p=0.95)
    requests = [
        GenerateRequest(prompt(("the patient", "pain")[i % 2]), sampling, i, kinds[i // 2 % len(kinds)])
        for i in range(64)
    ]
    results = [
        TransformersModel.load(str(folder), dtype="fp32", max_batch=size).generate(requests) for size in (1, 7, 64)
    ]
    alone = [TransformersModel.load(str(folder), dtype="fp32").generate([r])[0] for r in requests[:8]]
    said = [[(g.token_ids, g.finish, g.chosen) for g in generations] for generations in (*results, alone)]
    assert said[0] == said[1] == said[2]
    assert said[3] == said[0][:8]
    assert len(set(said[0])) > 16


def test_a_choice_cut_off_by_length_does_not_count(tiny):
    one = Sampling(max_new_tokens=3, temperature=1.0)
    for generation in tiny.generate([GenerateRequest(prompt("a"), one, s, Constraint(("fever",))) for s in range(3)]):
        assert (generation.text, generation.finish, generation.chosen) == ("fev", "length", ())
    lists = Constraint(("pain", "rest"), most=2, separator=".")
    short = Sampling(max_new_tokens=6, temperature=2.0, top_p=1.0)
    generations = tiny.generate([GenerateRequest(prompt("a"), short, seed, lists) for seed in range(40)])
    cut = [g for g in generations if g.finish == "length"]
    assert {g.text for g in cut} <= {"pain.r", "rest.p"}
    assert {("pain", "rest")[i] for g in cut for i in g.chosen} <= {g.text[:4] for g in cut}
    assert all(len(g.chosen) == 1 for g in generations)
    assert cut


def test_what_constraints_leave_nothing_to_say(tiny):
    requests = [GenerateRequest(prompt("a"), PLAIN, 0, Constraint(choices)) for choices in ((), ("",))]
    nothing, empty = tiny.generate(requests)
    assert (nothing.text, nothing.finish, nothing.chosen) == ("", "stop", ())
    assert (empty.text, empty.finish, empty.chosen) == ("", "stop", (0,))
    assert tiny.work.computed == 0


def test_what_continues_a_choice_is_no_stop(tiny):
    lines = Constraint(("a", "a\nb"))
    generations = tiny.generate([GenerateRequest(prompt("the "), HOT, seed, lines) for seed in range(60)])
    assert {(g.text, g.chosen) for g in generations} == {("a", (0,)), ("a\nb", (1,))}
    tiny._eos = frozenset()
    endless = tiny.generate([GenerateRequest(prompt("the "), HOT, seed, lines) for seed in range(60)])
    assert {(g.text, g.chosen) for g in endless} == {("a\nb", (1,))}  # nothing is left that could stop it before


@pytest.mark.parametrize("allowed", [None, range(300)])
def test_rounding_draws_nothing_of_no_probability(allowed):
    logits = torch.randn(1000, 300, generator=torch.Generator().manual_seed(0))
    logits[:, 200:] = -torch.inf
    almost_one = 1 - 2**-53
    tokens, _ = sample_tokens(logits, [Wish(1.0, 1.0, almost_one, allowed)] * 1000)
    assert max(tokens) < 200


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_allowed_tokens_without_any_probability_are_an_error(temperature):
    logits = torch.zeros(2, 5)
    logits[0, :2] = -torch.inf
    tokens, _ = sample_tokens(logits, [Wish(temperature, 1.0, 0.5, (0, 1)), Wish(temperature, 1.0, 0.5, (0, 1))])
    assert tokens[0] == -1
    assert tokens[1] in (0, 1)


def test_forced_tokens_are_counted_like_others(tiny):
    generation = tiny.generate([GenerateRequest(prompt("the "), HOT, 0, Constraint(("no fever",)))])[0]
    assert generation.chosen == (0,)
    assert tiny.work.sampled == len("no fever")
    assert tiny.work.computed == len("the ") + len("no feve")


def test_draws_share_the_tokens_that_they_share(tiny):
    likely = ("no fever", "no pain", "p", "pale")

    def draws(seeds):
        return tiny.generate([GenerateRequest(prompt("the "), PLAIN, seed, Constraint(likely)) for seed in seeds])

    first = draws(range(100))
    computed = [ids for g in first for ids in [g.token_ids[: len(g.token_ids) - (g.text != "p")]]]
    distinct = {ids[:i] for ids in computed for i in range(1, len(ids) + 1)}
    assert {g.text for g in first} == set(likely)
    assert tiny.work.computed == len("the ") + len(distinct)
    assert {g.text for g in draws(range(100, 200))} == set(likely)  # all of it is known by now
    assert tiny.work.computed == len("the ") + len(distinct)
    assert tiny.work.sampled > 256


@pytest.mark.embedded
def test_embedded_samples_name_diagnoses():
    from search.models import embedded

    if not embedded.is_installed():
        pytest.skip("the embedded model is not installed: wardstar models install")
    model = TransformersModel.load("embedded", dtype="fp32")
    names = (" pneumonia", " pulmonary embolism", " pulmonary oedema", " sepsis", " septic shock", " heart failure")
    lists = Constraint(names, most=3)
    cue = prompt("Fever, cough, low blood pressure. Differential diagnosis:")
    requests = [GenerateRequest(cue, Sampling(max_new_tokens=40), seed, lists) for seed in range(8)]
    random.Random(0).shuffle(requests)
    for generation in model.generate(requests):
        assert generation.text == ";".join(names[i] for i in generation.chosen)
        assert generation.chosen
