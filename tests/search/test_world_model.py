"""The world model and the rewards of RAP, by hand-worked numbers."""

import math
from dataclasses import replace

import pytest
from conftest import make_problem

from clinical_data.chart import Answer, AnswerState
from search.actions import Action, ActionKind
from search.desk import GENERATOR, Desk
from search.models.language_model import Generation
from search.models.toys import RandomModel, ScriptedModel
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import run_search
from search.trajectory import Conclusion, Hypothesis, Trajectory, Turn
from search.turns import TurnMaker, agreement, supporting
from search.value import reward, value_source
from search.world_model import WORLD_MODEL, evaluated, imagine

SMALL = SearchSettings(think=2, ask=2, ask_votes=3, request=2, max_requests=2, rollouts=8, value="rap")
CERTAIN = Conclusion(
    (Hypothesis("sepsis", "sepsis", probability=0.64), Hypothesis("a", "a", probability=0.36)), "sepsis"
)


def turn(kind=ActionKind.THINK, **more):
    return Turn(Action(kind), "words", **more)


def imagined(script, settings=SMALL):
    """The turns of an imagined request, and the desk that it went through."""
    model = ScriptedModel(script)
    desk = Desk(Models(model, model))
    maker = TurnMaker.begin(make_problem(), settings, 0)
    return desk.run(imagine(maker, maker.spot((), "root"))), desk


def test_what_is_imagined_is_no_finding_and_costs_nothing():
    turns, desk = imagined({"text": " normal", "score": [{"ends": "Request:", "scores": {"lactate": -0.1}}]})
    assert len(turns) == SMALL.request
    assert len({t.action.item_id for t in turns}) == len(turns)
    for one in turns:
        assert (one.imagined, one.answer, one.text) == (True, None, "normal")
        assert "".join(s.text for s in one.segments).endswith("\nResult: normal")
    assert supporting(turns) == ()
    calls = [c for c in desk.calls if c.purpose == "imagine"]
    assert len(calls) == SMALL.request * SMALL.imagine
    assert {c.role for c in calls} == {WORLD_MODEL}
    assert all(c.text.endswith("\nResult:") for c in calls)
    assert len({c.seed for c in calls}) == len(calls)


def test_the_majority_of_the_draws_is_taken_and_its_share_is_the_confidence():
    turns, desk = imagined({"generate": [{"texts": [" high", " low"]}]}, replace(SMALL, imagine=5, request=1))
    drawn = [c.completions[0].strip() for c in desk.calls if c.purpose == "imagine"]
    most = max(drawn.count("high"), drawn.count("low"))
    assert drawn.count(turns[0].text) == most
    assert turns[0].confidence == most / 5
    assert 0 < most < 5


def test_empty_dreams_are_dreams():
    turns, _ = imagined({"text": ""})
    assert [(t.text, t.imagined, t.confidence) for t in turns] == [("", True, 1.0)] * SMALL.request


def test_the_reward_is_the_weighted_geometric_mean_of_the_three():
    thought = turn(logprob=4 * math.log(0.5), tokens=4, confidence=0.25, evaluation=0.8)
    assert math.isclose(reward(thought, CERTAIN, SMALL), (0.5 * 0.25 * 0.8) ** (1 / 3), abs_tol=1e-12)
    weighted = replace(SMALL, likelihood_weight=2.0, confidence_weight=1.0, evaluation_weight=0.0)
    assert math.isclose(reward(thought, CERTAIN, weighted), (0.5**2 * 0.25) ** (1 / 3), abs_tol=1e-12)
    unasked = replace(thought, evaluation=None)
    assert math.isclose(reward(unasked, CERTAIN, SMALL), (0.5 * 0.25) ** 0.5, abs_tol=1e-12)
    assert (
        reward(thought, CERTAIN, replace(SMALL, likelihood_weight=0, confidence_weight=0, evaluation_weight=0)) == 1.0
    )
    for broken in (-math.inf, math.nan, math.inf):
        assert reward(turn(logprob=broken, tokens=3), CERTAIN, SMALL) == 0.0
    assert reward(turn(confidence=0.0), CERTAIN, SMALL) == 0.0


def test_the_value_of_a_trajectory_by_hand():
    """Rewards 0.5 (thought) and 0.64 (FINISH, by the share of its answer): sqrt of mean 0.57 times share 0.64."""
    settings = replace(SMALL, confidence_weight=0.0, evaluation_weight=0.0)
    turns = (turn(logprob=2 * math.log(0.5), tokens=2), turn(ActionKind.FINISH, logprob=-1.0))
    value = value_source("rap")
    assert math.isclose(value(Trajectory(turns, CERTAIN), settings), math.sqrt(0.57 * 0.64), abs_tol=1e-12)
    assert value(Trajectory(turns, Conclusion((), None)), settings) == 0.0
    answer = Answer("lactate", AnswerState.RECORDED, (), 10.0)
    asked = (turn(ActionKind.REQUEST, answer=answer, logprob=math.log(0.5), tokens=1), turns[1])
    dear = replace(settings, cost_weight=0.01)
    assert math.isclose(value(Trajectory(asked, CERTAIN), dear), math.sqrt(0.57 * 0.64) - 0.1, abs_tol=1e-12)
    assert value(Trajectory(asked, CERTAIN), replace(settings, cost_weight=1.0)) == 0.0


@pytest.mark.parametrize(("yes", "no", "share"), [(-1.0, -1.0, 0.5), (0.0, -math.log(3), 0.75), (-math.inf, -1.0, 0.0)])
def test_the_self_evaluation_is_the_share_of_yes(yes, no, share):
    model = ScriptedModel({"score": [{"ends": "Yes or No:", "scores": {"Yes": yes, "No": no}}]})
    desk = Desk(Models(model, model))
    maker = TurnMaker.begin(make_problem(), SMALL, 0)
    (judged,) = desk.run(evaluated(maker, maker.spot((), "root"), [turn()]))
    assert math.isclose(judged.evaluation, share, abs_tol=1e-12)
    assert [(c.role, c.purpose, c.completions) for c in desk.calls] == [(GENERATOR, "evaluate", (" Yes", " No"))]


def test_only_a_search_that_reads_them_asks_for_self_evaluations():
    model = RandomModel(4)
    asked = {}
    for value, weight in (("self_consistency", 1.0), ("rap", 0.0), ("rap", 1.0)):
        settings = replace(SMALL, value=value, evaluation_weight=weight)
        result = run_search("rstar", make_problem(), Models(model, model), settings, 0)
        asked[value, weight] = sum(c.purpose == "evaluate" for c in result.calls)
        turns = [t for c in result.candidates for t in c.trajectory.turns]
        assert all((t.evaluation is not None) == (asked[value, weight] > 0) for t in turns)
    assert asked["self_consistency", 1.0] == asked["rap", 0.0] == 0
    assert asked["rap", 1.0] > 0


def test_the_recorded_chart_is_certain_and_replies_are_as_certain_as_their_votes():
    model = RandomModel(4)
    result = run_search("rap", make_problem(), Models(model, model), replace(SMALL, rollouts=16, depth=6), 0)
    turns = [t for c in result.candidates for t in c.trajectory.turns]
    kinds = {t.action.kind for t in turns}
    assert {ActionKind.REQUEST, ActionKind.ASK} <= kinds
    for one in turns:
        if one.action.kind in (ActionKind.ASK, ActionKind.REASK):
            assert math.isclose(one.confidence * 3, round(one.confidence * 3))
        else:
            assert one.confidence == 1.0
    assert all(0.0 <= c.value <= 1.0 for c in result.candidates)


def test_agreement_is_that_of_normalised_words():
    assert agreement([Generation(text, (), (), 0.0, "stop") for text in ("a", " A ", "b")]) == 2 / 3
