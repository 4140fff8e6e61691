"""Strategies by name, value sources that steer them, and the settings that change how a tree grows."""

import math
from dataclasses import replace

import pytest
from conftest import VOCABULARY, make_problem

from clinical_data.errors import UsageError
from search.models.toys import RandomModel, ScriptedModel
from search.problem import Models
from search.settings import SearchSettings, preset
from search.strategies import STRATEGIES, check_strategy, run_search, settings_of
from search.trajectory import Status

SMALL = SearchSettings(rollouts=8, depth=4, think=2, ask=2, ask_votes=2, request=2, max_requests=2)
ONE_ANSWER = replace(VOCABULARY, entries=VOCABULARY.entries[:1])
COMMITTING = tuple(s for s in STRATEGIES if s not in ("self-consistency", "best-of-n", "part-information"))
RUNS = [*((s, "hindsight") for s in STRATEGIES), *((s, "prospective") for s in COMMITTING)]


def search(strategy="rstar", settings=SMALL, seed=0, problem=None, models=None, **more):
    model = RandomModel(seed)
    return run_search(strategy, problem or make_problem(), models or Models(model, model), settings, seed, **more)


def sepsis(conclusion):
    return float(conclusion.answer_key == "sepsis")


def test_rap_values_by_its_rewards_and_asks_no_peer():
    result = search("rap", models=Models(RandomModel(1), RandomModel(2)))
    assert {c.role for c in result.calls} == {"generator"}
    assert result.status in (Status.UNVERIFIED, Status.ABSTAIN)
    assert result.peer_agreement is None
    assert "no second model" in search("rap", replace(SMALL, abstain_below=0.0)).reason
    assert settings_of("rap", SMALL).value == "rap"
    assert settings_of("rstar", SMALL) == SMALL
    valued = search("rstar", replace(SMALL, value="rap", stop="never"), models=Models(RandomModel(1), RandomModel(2)))
    unwatched = search("rap", replace(SMALL, stop="never"), models=Models(RandomModel(1), RandomModel(2)))
    assert valued.tree == unwatched.tree
    assert valued.status is Status.VERIFIED or valued.peer_agreement is not None


def test_rap_stops_when_the_plain_vote_is_settled():
    rule = {"ends": "Working diagnosis:", "scores": {"sepsis": 0.0}}
    model = ScriptedModel({"score": [rule, {"scores": {"Yes": 0.0}}], "mean_logprob": -40.0, "text": " a"})
    settings = replace(SMALL, rollouts=32, calibration="none", likelihood_weight=0.0)
    result = search("rap", settings, models=Models(model, model), problem=make_problem(items=()))
    assert 4 <= result.rollouts < 32
    assert result.conclusion.answer_key == "sepsis"
    assert search("rap", replace(settings, stop="never"), models=Models(model, model)).rollouts == 32


def test_best_of_n_takes_the_answer_of_the_highest_value():
    for value in ("self_consistency", "rap"):
        settings = replace(SMALL, value=value, rollouts=6, abstain_below=0.0)
        result = search("best-of-n", settings, 3)
        best = max(result.candidates, key=lambda c: c.value)
        assert len(result.candidates) == result.rollouts == 6
        assert len({c.value for c in result.candidates}) > 1
        assert result.winner == best.node
        assert result.conclusion.answer_key == best.trajectory.conclusion.answer_key
        assert ("evaluate" in {c.purpose for c in result.calls}) == (value == "rap")
        assert (result.tree, result.status) == (None, Status.UNVERIFIED)


@pytest.mark.parametrize("strategy", ["rstar", "best-of-n"])
def test_a_judge_from_outside_values_conclusions(strategy):
    settings = replace(SMALL, value="ground_truth", abstain_below=0.0, rollouts=16)
    result = search(strategy, settings, 1, judge=sepsis)
    values = {c.trajectory.conclusion.answer_key: c.value for c in result.candidates}
    assert len(values) > 1
    assert values == {key: float(key == "sepsis") for key in values}
    assert not any("1.0" in c.text for c in result.calls)
    with pytest.raises(UsageError, match="needs recorded labels"):
        search(strategy, settings, 1)


def test_a_judge_changes_nothing_where_another_value_is_asked_for():
    assert search(judge=sepsis) == search()


def test_prospective_needs_a_strategy_that_commits():
    settings = replace(SMALL, chart_access="prospective")
    for strategy in ("self-consistency", "best-of-n", "part-information"):
        with pytest.raises(UsageError, match="prospective needs a search"):
            check_strategy(strategy, settings)
    for strategy in ("greedy", "full-information"):
        assert search(strategy, settings).conclusion == search(strategy).conclusion


def test_node_expansion_opens_all_slots_at_once_and_visits_all_children_first():
    result = search(settings=replace(SMALL, expansion="node", rollouts=40, stop="never", wave=1), seed=2)
    nodes = result.tree["nodes"]
    for node in nodes:
        assert not node["visits"] or node["open"] == []
        visits = [n["visits"] for n in nodes if n["parent"] == node["id"]]
        assert not visits or min(visits) > 0 or max(visits) == 1
    lazy = search(settings=replace(SMALL, rollouts=40, stop="never"), seed=2).tree["nodes"]
    unvisited = [sum(not n["visits"] for n in tree) for tree in (nodes, lazy)]
    assert unvisited[0] > 2 * unvisited[1]


@pytest.mark.parametrize("expansion", ["slot", "node"])
def test_a_wave_neither_loses_nor_repeats_a_rollout(expansion):
    result = search(settings=replace(SMALL, expansion=expansion, wave=6, rollouts=20, stop="never"))
    nodes = result.tree["nodes"]
    assert result.rollouts == 20 == nodes[0]["visits"]
    for node in nodes:
        kinds = [(n["kind"], n["item"], n["text"], n["answer_key"]) for n in nodes if n["parent"] == node["id"]]
        assert len(kinds) == len(set(kinds))


def test_siblings_that_say_the_same_are_merged_or_not():
    model = ScriptedModel({"text": " the same"})
    counts = {}
    for merge in ("equal", "never"):
        settings = replace(SMALL, merge=merge, expansion="node", rollouts=1, think=3, ask=3, max_requests=0)
        nodes = search(settings=settings, models=Models(model, model)).tree["nodes"]
        below = [n["kind"] for n in nodes if n["parent"] == 0]
        counts[merge] = (below.count("think"), below.count("ask"))
        assert {n["duplicates"] for n in nodes if n["kind"] == "think"} == ({2} if merge == "equal" else {0})
    assert counts == {"equal": (1, 1), "never": (3, 3)}


def test_the_preset_of_the_paper_runs_all_its_rollouts():
    settings = SMALL.with_options(**{**preset("paper"), "votes": 4, "think": 2})
    result = search(settings=settings)
    assert result.rollouts == settings.rollouts == 32
    assert math.isclose(sum(c.multiplicity for c in result.candidates), 32)


@pytest.mark.parametrize(("strategy", "access"), RUNS)
@pytest.mark.parametrize(
    ("problem", "script", "options"),
    [
        (make_problem(items=()), {}, {}),
        (make_problem(vocabulary=ONE_ANSWER), {}, {}),
        (make_problem(items=(), vocabulary=ONE_ANSWER), {}, {"depth": 1}),
        (make_problem(), {"text": ""}, {}),
        (make_problem(), {"text": "", "mean_logprob": -math.inf}, {}),
        (make_problem(), {"text": "", "mean_logprob": math.nan}, {"wave": 3}),
        (make_problem(), {"text": ""}, {"merge": "never", "expansion": "node", "wave": 5}),
        (make_problem(), {}, {"rollouts": 0}),
        (make_problem(), {}, {"wave": 0}),
        (make_problem(), {}, {"depth": 1, "max_requests": 0, "rollouts": 1}),
    ],
    ids=["no items", "one answer", "neither", "empty", "-inf", "nan", "equal", "no rollouts", "no wave", "least"],
)
@pytest.mark.timeout(20)
def test_bad_times_end_with_a_status(strategy, access, problem, script, options):
    model = ScriptedModel(script)
    settings = replace(SMALL, chart_access=access, **options)
    result = search(strategy, settings, problem=problem, models=Models(model, model))
    assert result.status in (Status.VERIFIED, Status.UNVERIFIED, Status.ABSTAIN)
    assert result.status is Status.VERIFIED or result.reason
    assert all(0.0 <= c.value <= 1.0 for c in result.candidates)


@pytest.mark.parametrize("strategy", ["greedy", "self-consistency", "best-of-n", "rstar"])
def test_no_strategy_takes_an_action_that_is_left_out(strategy):
    settings = replace(SMALL, actions="finish, request", rollouts=6)
    kinds = {t.action.kind.value for c in search(strategy, settings).candidates for t in c.trajectory.turns}
    assert kinds == {"finish", "request"}
    alone = search(strategy, replace(settings, actions="finish"))
    assert {len(c.trajectory.turns) for c in alone.candidates} == {1}


def test_part_information_shows_random_parts_of_what_was_recorded():
    def parts_of(result):
        return [tuple(t.action.item_id for t in c.trajectory.turns[:-1]) for c in result.candidates]

    (full,) = parts_of(search("full-information"))
    settings = replace(SMALL, rollouts=12, max_requests=2)
    result = search("part-information", settings)
    parts = parts_of(result)
    assert {len(part) for part in parts} == {0, 1, 2}
    assert {item for part in parts for item in part} <= set(full)
    assert len(set(parts)) > 3
    assert parts != parts_of(search("part-information", settings, 2))
    turns = [t for c in result.candidates for t in c.trajectory.turns if t.action.item_id]
    assert all(t.logprob < 0 < t.tokens and t.answer.cost_usd == 0 for t in turns)
    assert sum(call.purpose == "request" for call in result.calls) > 0
    longest = max(parts_of(search("part-information", replace(settings, max_requests=99, rollouts=40))), key=len)
    assert sorted(longest) == sorted(full)


def test_part_information_keeps_to_actions_and_budgets():
    alone = search("part-information", replace(SMALL, actions="finish", rollouts=5))
    assert {len(c.trajectory.turns) for c in alone.candidates} == {1}
    short = search("part-information", replace(SMALL, rollouts=50, max_tokens=1, wave=1))
    assert len(short.candidates) == 1
