"""Leaders among choices: those that scoring every choice would find, for less."""

import math
import random

import pytest
from conftest import CATALOGUE, make_problem
from hypothesis import given
from hypothesis import strategies as st
from tiny_llama import prompt

from clinical_data.catalogue import load_catalogue
from search.desk import Ask, Desk
from search.mcts import rstar
from search.models.language_model import ChoiceScores, Leaders, ScoreRequest
from search.models.race import AT_ONCE, Race
from search.models.toys import RandomModel
from search.models.transformers import TransformersModel
from search.problem import Models
from search.settings import SearchSettings
from search.turns import TurnMaker, gumbel

CHOICES = tuple(f" {item.display}" for item in load_catalogue("v1").items)


def ranked(leaders, logprobs, sizes):
    merits = [leaders.merit(i, p, size) for i, (p, size) in enumerate(zip(logprobs, sizes, strict=True))]
    return sorted(range(len(merits)), key=lambda i: (-merits[i], i))[: leaders.count]


def run(race, table):
    """Scores what each round wants, from a table token path -> ln p, and returns the number of choices scored."""
    rounds = 0
    while wanted := race.round():
        race.take({ids: sum(table[ids[:n]] for n in range(1, len(ids) + 1)) for ids in wanted})
        rounds += 1
        assert rounds < 2 + len(race.choices)
    return len(race.logprobs)


@st.composite
def races(draw):
    choices = draw(st.lists(st.lists(st.integers(0, 3), max_size=4).map(tuple), min_size=1, max_size=20))
    steps = st.one_of(st.floats(-9.0, 0.0), st.just(-math.inf), st.just(0.0))
    table = {ids[:n]: draw(steps) for ids in choices for n in range(1, len(ids) + 1)}
    noise = tuple(draw(st.floats(-3.0, 6.0)) for _ in choices)
    kind, temperature = draw(st.sampled_from(["sum", "mean"])), draw(st.sampled_from([1e-6, 0.8, 1.5]))
    return choices, table, Leaders(draw(st.integers(1, 6)), kind, temperature, noise)


@given(races())
def test_the_leaders_are_those_of_scoring_everything(drawn):
    choices, table, leaders = drawn
    race = Race((), choices, leaders)
    run(race, table)
    everything = [sum(table[ids[:n]] for n in range(1, len(ids) + 1)) for ids in choices]
    sizes = [len(ids) for ids in choices]
    first = ranked(leaders, everything, sizes)
    assert ranked(leaders, race.scores(), sizes) == first
    assert all(race.scores()[i] in (everything[i], -math.inf) for i in range(len(choices)))
    assert [race.scores()[i] for i in first] == [everything[i] for i in first]


def test_a_clear_leader_leaves_the_rest_unscored():
    choices = [(i, 0) for i in range(60)]
    table = {(i,): -float(i) for i in range(60)} | {(i, 0): -0.1 for i in range(60)}
    assert run(Race((), choices, Leaders(1, "sum", 1.0, (0.0,) * 60)), table) == AT_ONCE


def test_a_race_can_be_run_again():
    choices, table = [(0, 1), (2,)], {(0,): -1.0, (0, 1): -1.0, (2,): -3.0}
    race = Race((), choices, Leaders(1, "sum", 1.0, (0.0, 0.0)))
    run(race, table)
    found = race.scores()
    race.restart()
    assert race.scores() == (-math.inf, -math.inf)
    run(race, table)
    assert race.scores() == found


@pytest.mark.parametrize("likelihood", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [1e-6, 0.8])
def test_the_engine_finds_them_and_computes_less(folder, likelihood, temperature):
    model = TransformersModel.load(str(folder), dtype="fp32", threads=1)
    dice = random.Random(3)
    noises = [tuple(200 * gumbel(dice.random()) for _ in CHOICES) for _ in range(5)]
    prompts = [prompt(f"the patient has {word}") for word in ("fever", "pain", "fever", "a cough", "x")]
    wanted = [
        ScoreRequest(p, CHOICES, Leaders(2, likelihood, temperature, noise))
        for p, noise in zip(prompts, noises, strict=True)
    ]
    mixed = [wanted[0], ScoreRequest(prompts[1], CHOICES[:3]), *wanted[1:]]
    found = model.score(mixed)
    computed = model.work.computed
    model.release()
    full = model.score([ScoreRequest(r.prompt, r.choices) for r in mixed])
    assert found[1].logprobs == pytest.approx(full[1].logprobs, abs=1e-4)
    assert all(p > -math.inf for p in found[1].logprobs)
    for request, few, every in zip(mixed, found, full, strict=True):
        if request.leaders is not None:
            sizes = [len(ids) for ids in every.choice_ids]
            first = ranked(request.leaders, every.logprobs, sizes)
            assert few.choice_ids == every.choice_ids
            assert ranked(request.leaders, few.logprobs, sizes) == first
            assert [few.logprobs[i] for i in first] == pytest.approx([every.logprobs[i] for i in first], abs=1e-4)
    most = 0.6 if temperature == 0.8 else 1.2  # an untrained model favours nothing: without noise bounds tell little
    assert computed < most * (model.work.computed - computed)


def test_an_audit_trail_holds_what_was_scored():
    class Partial(RandomModel):
        def score(self, requests):
            replies = super().score(requests)
            assert all(r.leaders is not None for r in requests)
            return [ChoiceScores(r.prompt_ids, r.choice_ids, (-math.inf, *r.logprobs[1:])) for r in replies]

    def part():
        yield [Ask("generator", "request", ScoreRequest(prompt("x"), CHOICES, Leaders(1, "sum", 1.0, noise)))]

    noise = (0.0,) * len(CHOICES)
    desk = Desk(Models(Partial(1), Partial(1)))
    desk.run(part())
    (call,) = desk.calls
    assert call.completions == CHOICES[1:]
    assert len(call.completions) == len(call.completion_ids) == len(call.logprobs)


@pytest.mark.parametrize("least", [0, 1, 3])
def test_a_path_concludes_after_the_least_requests(least):
    settings = SearchSettings(actions="finish, request", rollouts=12, min_requests=least, max_requests=4, request=2)
    result = rstar(make_problem(), Models(RandomModel(1), RandomModel(2)), settings, 5)
    asked = [len(c.trajectory.turns) - 1 for c in result.candidates]
    assert min(asked) == least
    assert max(asked) <= 4


def test_a_path_concludes_where_nothing_is_left_to_request():
    settings = SearchSettings(min_requests=3, max_requests=9, actions="finish, request")
    maker = TurnMaker.begin(make_problem(items=CATALOGUE.items[:2]), settings, 1)
    result = rstar(maker.problem, Models(RandomModel(1), RandomModel(2)), settings, 5)
    left = len(maker.items_left(()))
    assert left < 3
    assert {len(c.trajectory.turns) - 1 for c in result.candidates} == {left}
