"""Invariants of the search (search.md), on the random model, and a golden search on a scripted one."""

import json
import math
from dataclasses import replace

import pytest
from conftest import ITEMS, VOCABULARY, finding, make_case, make_problem
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clinical_data.errors import UsageError
from search.actions import ActionKind, legal_kinds
from search.mcts import rstar
from search.models.toys import RandomModel, ScriptedModel
from search.problem import Models
from search.selection import choose_child, uct
from search.settings import SearchSettings
from search.strategies import STRATEGIES, run_search
from search.trajectory import Status
from search.tree import Node, Slot, Tree

SMALL = SearchSettings(think=2, ask=2, ask_votes=2, request=2, max_requests=2, stop="never")


def random_models(seed):
    model = RandomModel(seed)
    return Models(model, model)


def children(nodes, node):
    return [n for n in nodes if n["parent"] == node["id"]]


def path(nodes, node):
    kinds = []
    while node["parent"] is not None:
        kinds.append(node)
        node = nodes[node["parent"]]
    return kinds[::-1]


@given(
    seed=st.integers(0, 10_000),
    rollouts=st.integers(1, 24),
    depth=st.integers(1, 6),
    requests=st.integers(0, 4),
    wave=st.integers(1, 6),
)
@hypothesis_settings(max_examples=120, deadline=None)
def test_invariants_of_the_tree(seed, rollouts, depth, requests, wave):
    options = replace(SMALL, rollouts=rollouts, depth=depth, max_requests=requests, wave=wave)
    result = rstar(make_problem(), random_models(seed), options, seed)
    nodes = result.tree["nodes"]
    assert result.rollouts == nodes[0]["visits"]
    assert result.rollouts == rollouts or 4 <= result.rollouts < rollouts
    for node in nodes:
        below = children(nodes, node)
        assert node["visits"] == sum(c["visits"] for c in below) + node["terminal_visits"]
        ended = node["terminal_visits"] * (node["terminal_value"] or 0.0)
        assert math.isclose(node["value_sum"], sum(c["value_sum"] for c in below) + ended, abs_tol=1e-9)
        assert node["terminal_value"] is None or 0.0 <= node["terminal_value"] <= 1.0
        turns = path(nodes, node)
        kinds = [ActionKind(t["kind"]) for t in turns]
        for at, kind in enumerate(kinds):
            assert kind in legal_kinds(kinds[:at])
        assert kinds.count(ActionKind.REPHRASE) <= 1
        assert kinds.count(ActionKind.REQUEST) <= requests
        assert node["depth"] <= depth
        items = [t["item"] for t in turns if t["item"]]
        assert len(items) == len(set(items))
        assert "complaint" not in items  # answered in the opening
        if kinds and kinds[-1] is ActionKind.FINISH:
            assert not below
            assert not node["open"]


def test_depth_limit_forces_an_answer():
    result = rstar(make_problem(), random_models(1), replace(SMALL, depth=1), 0)
    assert [n["kind"] for n in result.tree["nodes"]] == ["root", "finish"]
    assert result.status is Status.UNVERIFIED
    assert result.peer_agreement is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_seed_same_bytes_and_another_seed_another_search(strategy):
    def run(seed):
        return repr(run_search(strategy, make_problem(), random_models(5), SMALL, seed))

    assert run(1) == run(1)
    if strategy in ("rstar", "self-consistency"):
        assert run(1) != run(2)


def test_the_peer_does_not_change_the_tree():
    alone = rstar(make_problem(), random_models(2), replace(SMALL, peer_cuts=0), 0)
    watched = rstar(make_problem(), Models(RandomModel(2), RandomModel(9)), SMALL, 0)
    assert alone.tree == watched.tree
    assert alone.status is not Status.VERIFIED
    assert any(c.verification.answers for c in watched.candidates)


def test_uct_equals_the_formula_and_virtual_loss_lowers_it():
    node = Node(1, 0, None, "", [], "", visits=3, value_sum=2.0)
    assert math.isclose(uct(node, 10, 1.4), 2 / 3 + 1.4 * math.sqrt(math.log(10) / 3), abs_tol=1e-12)
    assert uct(replace(node, virtual=1), 11, 0.0) < uct(node, 10, 0.0)
    assert uct(Node(1, 0, None, "", [], ""), 10, 1.4) == math.inf


def test_the_rollout_that_asks_is_no_visit_of_the_parent():
    """With N_parent = 5 the second child leads; counting the asking rollout (6) the first one would."""
    slot = Slot(ActionKind.THINK, children=[1, 2])
    root = Node(0, None, None, "", [slot], "", visits=5, value_sum=2.6, virtual=1)
    rare = Node(1, 0, None, "", [], "", visits=1, value_sum=0.0)
    known = Node(2, 0, None, "", [], "", visits=4, value_sum=2.6)
    assert uct(known, 5, 1.0) > uct(rare, 5, 1.0)
    assert uct(known, 6, 1.0) < uct(rare, 6, 1.0)
    assert choose_child(Tree([root, rare, known]), root, 1.0) is known


def test_an_unexpanded_slot_comes_before_uct():
    result = rstar(make_problem(), random_models(4), replace(SMALL, rollouts=5), 0)
    root = result.tree["nodes"][0]
    assert root["open"] == []  # five legal kinds at the root, five rollouts


def test_wave_one_and_wave_many_agree_on_what_must_hold():
    one = rstar(make_problem(), random_models(6), SMALL, 0)
    many = rstar(make_problem(), random_models(6), replace(SMALL, wave=8), 0)
    assert one.rollouts == many.rollouts == SMALL.rollouts


def test_later_facts_change_nothing():
    before = rstar(make_problem(), random_models(1), SMALL, 0)
    late = [finding("lactate", 9.9, 361), finding("vitals", "SECRET", 1000), finding("culture", "grew SECRET", 400)]
    after = rstar(make_problem(make_case(extra=late)), random_models(1), SMALL, 0)
    assert [c.text for c in before.calls] == [c.text for c in after.calls]
    assert before == after
    assert "SECRET" not in repr(after)


def test_a_finding_revealed_deeper_never_shows_in_a_shallower_prompt():
    result = rstar(make_problem(), random_models(1), replace(SMALL, rollouts=24, depth=6), 0)
    for call in result.calls:
        shown = "15.2" in call.text
        assert shown == ("\nRequest: blood count\n" in call.text)


def test_unanswered_requests_read_as_unanswered():
    problem = make_problem()
    words = {name: problem.chart.request(problem.chart.catalogue.item(name.replace(" ", "_"))).state for name in ITEMS}
    assert words == {
        "complaint": "recorded",
        "vitals": "recorded",
        "blood count": "recorded",
        "lactate": "not_done_by_now",
        "chest x-ray": "not_done_by_now",
        "culture": "pending",
        "scan": "not_in_source",
    }
    assert problem.chart.request("blood  COUNT").state == "recorded"
    assert problem.chart.request("tea leaves").state == "unrecognised"


def test_no_items_one_answer_and_no_requests_still_conclude():
    one = replace(VOCABULARY, entries=VOCABULARY.entries[:1])
    result = rstar(make_problem(items=(), vocabulary=one), random_models(1), SMALL, 0)
    assert result.conclusion.answer_key == "pneumonia"
    assert result.status is Status.VERIFIED
    for strategy in STRATEGIES:
        assert run_search(strategy, make_problem(items=()), random_models(1), SMALL, 0).conclusion.ranked


def test_early_stop_keeps_the_winner():
    rule = {"if": "thinking about it", "ends": "Working diagnosis:", "scores": {"sepsis": 0.0}}
    model = ScriptedModel({"score": [rule], "mean_logprob": -40.0, "text": " thinking about it"})
    options = replace(SMALL, rollouts=32, exploration=0.1, stop="settled")
    result = rstar(make_problem(items=()), Models(model, model), options, 0)
    assert 4 <= result.rollouts < 32
    assert result.status is Status.VERIFIED
    assert result.conclusion.answer_key == "sepsis"


def test_a_rejected_majority_cannot_win_over_a_verified_class():
    """The generator says pneumonia everywhere but after a lactate request; the peer agrees with sepsis alone."""
    generator = ScriptedModel(
        {
            "score": [
                {"if": "Request: lactate", "ends": "Working diagnosis:", "scores": {"sepsis": -0.1}},
                {"ends": "Working diagnosis:", "scores": {"pneumonia": -0.1}},
            ],
            "text": " a thought",
        }
    )
    peer = ScriptedModel({"score": [{"ends": "Working diagnosis:", "scores": {"sepsis": -0.1}}], "text": " hm"})
    result = rstar(make_problem(), Models(generator, peer), replace(SMALL, rollouts=24, calibration="none"), 0)
    counts = {}
    for candidate in result.candidates:
        key = candidate.trajectory.conclusion.answer_key
        counts[key] = counts.get(key, 0) + candidate.multiplicity
    assert counts["pneumonia"] > counts["sepsis"]
    assert result.conclusion.answer_key == "sepsis"
    assert result.status is Status.VERIFIED


def test_golden_scripted_search():
    """Exact path, Q and winner on a known tree: root has FINISH only, one visit each, certain answer."""
    model = ScriptedModel({"score": [{"scores": {"embolism": 0.0, "pulmonary embolism": 0.0}}], "mean_logprob": -50})
    options = replace(SMALL, depth=1, rollouts=3, calibration="none")
    result = rstar(make_problem(items=()), Models(model, model), options, 0)
    finish = result.tree["nodes"][1]
    assert finish["visits"] == 3
    assert math.isclose(finish["value_sum"], 3.0, abs_tol=1e-12)
    assert result.conclusion.ranked[0].display == "pulmonary embolism"


def test_calibration_takes_out_what_a_model_answers_without_a_case():
    """A model that favours sepsis whatever it reads, and pneumonia a little more once it has read the case."""
    always = {"sepsis": -0.5, "pneumonia": -3.0}
    read = {"sepsis": -0.6, "pneumonia": -2.0}
    script = {"score": [{"if": "Patient: not described.", "scores": always}, {"scores": read}], "mean_logprob": -9.0}
    model = ScriptedModel(script)
    answers = {}
    for calibration in ("contextual", "none"):
        options = replace(SMALL, depth=1, rollouts=1, calibration=calibration)
        result = rstar(make_problem(), Models(model, model), options, 0)
        answers[calibration] = result.conclusion
    assert answers["none"].answer_key == "sepsis"
    assert answers["contextual"].answer_key == "pneumonia"
    expected = [math.exp(x) for x in (0.0, 0.0, -0.1, 1.0)]
    share = expected[3] / sum(expected)
    assert math.isclose(answers["contextual"].probability_of("pneumonia"), share, abs_tol=1e-12)


def test_tree_is_plain_json():
    result = rstar(make_problem(), random_models(1), SMALL, 0)
    assert json.loads(json.dumps(result.tree)) == result.tree


def test_unknown_names_are_usage_errors():
    for options in ({"value": "gold"}, {"selection": "gold"}):
        with pytest.raises(UsageError, match="gold"):
            run_search("rstar", make_problem(), random_models(1), replace(SMALL, **options), 0)
    with pytest.raises(UsageError, match="oracle"):
        run_search("oracle", make_problem(), random_models(1), SMALL, 0)
    with pytest.raises(UsageError, match="rollouts"):
        SMALL.with_options(rollouts=0)
    wrong = {"rollouts": 2.5, "temperature": "x", "wave": True, "top_p": 0.0, "exploration": -1.0, "value": 3}
    for name, value in wrong.items():
        with pytest.raises(UsageError, match=name):
            SMALL.with_options(**{name: value})
    with pytest.raises(UsageError, match="depht"):
        SMALL.with_options(depht=3)
