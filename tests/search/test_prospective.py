"""The prospective chart: what is imagined stays in the search, what is committed opens the chart."""

import json
from dataclasses import replace

import pytest
from conftest import finding, make_case, make_problem
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from search.models.toys import RandomModel, ScriptedModel
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import run_search
from search.trajectory import Status

SMALL = SearchSettings(
    rollouts=8, depth=4, think=2, ask=2, ask_votes=2, request=2, max_requests=2, chart_access="prospective"
)


def search(settings=SMALL, seed=0, strategy="rstar", problem=None, models=None, **more):
    model = RandomModel(seed)
    problem = problem or make_problem()
    return run_search(strategy, problem, models or Models(model, model), settings, seed, **more)


def trees(result):
    """All trees of a search, the last one at the end."""
    return [*result.tree["commits"], {"nodes": result.tree["nodes"], "rollouts": result.tree["rollouts"]}]


def chain(nodes, length):
    """The committed turns with which a tree begins."""
    assert [n["parent"] for n in nodes[1 : length + 1]] == list(range(length))
    return [{name: n[name] for name in ("kind", "item", "state", "text")} for n in nodes[1 : length + 1]]


@given(
    seed=st.integers(0, 10_000),
    strategy=st.sampled_from(["rstar", "rap"]),
    rollouts=st.integers(1, 10),
    depth=st.integers(1, 5),
    requests=st.integers(0, 3),
    wave=st.integers(1, 4),
    expansion=st.sampled_from(["slot", "node"]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_every_tree_starts_from_what_was_committed(seed, strategy, rollouts, depth, requests, wave, expansion):
    settings = replace(SMALL, rollouts=rollouts, depth=depth, max_requests=requests, wave=wave, expansion=expansion)
    result = search(settings, seed, strategy)
    committed = []
    for number, tree in enumerate(trees(result)):
        nodes, start = tree["nodes"], number
        assert chain(nodes, number) == committed
        assert nodes[0]["visits"] == nodes[start]["visits"] == len(tree["rollouts"])
        for node in nodes[number + 1 :]:
            asked = node["kind"] == "request"
            assert node.get("imagined", False) == asked  # nothing below the start has read the chart
            assert node["state"] == ""
            below = [n for n in nodes if n["parent"] == node["id"]]
            assert node["visits"] == sum(n["visits"] for n in below) + node["terminal_visits"]
        below = [n for n in nodes if n["parent"] == start]
        best = max(below, key=lambda n: (n["visits"], n["value_sum"] / max(n["visits"], 1), -n["id"]))
        if "turn" in tree:
            assert tree["node"] == best["id"]
            assert tree["turn"]["kind"] == best["kind"] != "finish"
            assert tree["turn"]["item"] == best["item"]
            assert (tree["turn"]["state"] != "") == (best["kind"] == "request")
            committed.append(tree["turn"])
        else:
            assert best["kind"] == "finish"
    assert result.rollouts == sum(t["nodes"][0]["visits"] for t in trees(result))
    assert result.imagined_requests == sum(bool(n.get("imagined")) for t in trees(result) for n in t["nodes"])
    assert sum(t["kind"] == "request" for t in committed) <= requests
    assert sum(t["kind"] != "request" for t in committed) < depth


def test_the_chart_shows_in_prompts_only_once_it_was_opened():
    opened_something = False
    for seed in range(12):
        result = search(replace(SMALL, max_requests=3), seed)
        opened = {t["turn"]["item"] for t in result.tree["commits"] if t["turn"]["kind"] == "request"}
        for item, shown in (("vitals", "heart rate 112"), ("blood_count", "15.2")):
            prompts = [c.text for c in result.calls if shown in c.text]
            assert bool(prompts) == (item in opened)
            opened_something = opened_something or bool(prompts)
        recorded = {"vitals": "f-vitals-5", "blood_count": "f-blood-count-40"}
        assert set(result.conclusion.supporting) <= {recorded[i] for i in opened if i in recorded}
        assert {c.role for c in result.calls if c.purpose == "imagine"} <= {"world_model"}
    assert opened_something


def test_a_committed_request_is_answered_by_the_chart_and_not_by_the_dream():
    """Any dream makes the model sure of sepsis, so vitals are asked for; the recorded ones say embolism."""
    model = ScriptedModel(
        {
            "score": [
                {"ends": "Request:", "scores": {"vitals": 0.0}},
                {"if": "heart rate 112", "ends": "Working diagnosis:", "scores": {"pulmonary embolism": 0.0}},
                {"if": "Result: dream", "ends": "Working diagnosis:", "scores": {"sepsis": 0.0}},
            ],
            "text": " dream",
            "mean_logprob": -30.0,
        }
    )
    settings = replace(SMALL, depth=2, request=1, max_requests=1, calibration="none", exploration=0.5, rollouts=12)
    result = search(settings, models=Models(model, model))
    first = result.tree["commits"][0]
    assert first["turn"] == {"kind": "request", "item": "vitals", "state": "recorded", "text": "vitals"}
    dreamt = next(n for n in first["nodes"] if n["item"] == "vitals")
    assert (dreamt["imagined"], dreamt["text"]) == (True, "dream")
    assert {n["answer_key"] for n in first["nodes"] if n["terminal_visits"] and n["parent"] == dreamt["id"]} == {
        "sepsis"
    }
    assert result.conclusion.answer_key == "embolism"
    assert result.conclusion.supporting == ("f-vitals-5",)
    assert result.status is Status.VERIFIED
    assert [c.trajectory.turns[0].answer.state for c in result.candidates] == ["recorded"] * len(result.candidates)


def test_the_same_search_twice_gives_the_same_bytes_whatever_the_wave_says_of_the_peer():
    assert repr(search(seed=3)) == repr(search(seed=3))
    watched = search(seed=3, models=Models(RandomModel(3), RandomModel(8)))
    assert watched.tree == search(seed=3).tree
    assert repr(search(seed=3)) != repr(search(seed=4))


def test_later_facts_change_nothing():
    late = [finding("lactate", 9.9, 361), finding("vitals", "SECRET", 1000)]
    assert search(seed=2) == search(seed=2, problem=make_problem(make_case(extra=late)))


def test_the_peer_checks_the_last_tree_alone():
    result = search(seed=5)
    checked = [c for c in result.candidates if c.verification.answers]
    assert checked
    last = {n["id"] for n in result.tree["nodes"]}
    assert {c.node for c in result.candidates} <= last
    roles = [c.role for c in result.calls]
    assert "peer" not in roles[: roles.index("peer")]
    assert set(roles[roles.index("peer") :]) == {"peer"}  # after all of the generator's work
    assert "peer" not in {c.role for c in search(seed=5, strategy="rap").calls}


def test_a_committed_request_is_judged_again_by_what_the_chart_said():
    result = search(replace(SMALL, rollouts=12), 1, "rap")
    chained = [t for c in result.candidates for t in c.trajectory.turns if t.answer is not None]
    assert chained
    assert all(t.confidence == 1.0 and t.evaluation is not None for t in chained)


def test_hindsight_knows_no_commits_and_imagines_nothing():
    result = search(replace(SMALL, chart_access="hindsight"))
    assert set(result.tree) == {"nodes", "rollouts"}
    assert not any("imagined" in n for n in result.tree["nodes"])
    assert result.imagined_requests == 0
    assert "world_model" not in {c.role for c in result.calls}


def test_a_tree_ends_early_only_where_the_turn_to_commit_is_settled():
    for seed in range(6):
        early = search(replace(SMALL, rollouts=24), seed)
        whole = search(replace(SMALL, rollouts=24, stop="never"), seed)
        assert whole.rollouts == 24 * len(trees(whole))
        assert [t["turn"] for t in early.tree["commits"]] == [t["turn"] for t in whole.tree["commits"]]
        assert early.rollouts <= whole.rollouts
        assert len(early.tree["rollouts"]) == 24  # the tree that gives the answer is grown in full


@pytest.mark.parametrize("strategy", ["rstar", "rap"])
def test_told_rollouts_go_on_over_all_trees(strategy):
    told = []
    result = search(strategy=strategy, on_rollout=told.append)
    assert told == list(range(1, result.rollouts + 1))
    assert json.loads(json.dumps(result.tree)) == result.tree
