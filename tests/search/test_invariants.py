"""Invariants of search.md that the tests of the single modules and test_against_reference.py do not hold.

Most are held on the random searches of `scripted_trees.random_search`, by every strategy, at waves of any size.
"""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import finding, make_case, make_problem
from hypothesis import given
from hypothesis import strategies as st
from reference_search import Place
from reference_search import uct as reference_uct
from scripted_trees import OneByOne, random_search, searches
from tree_checks import check_result, path_to

from clinical_data.chart import AnswerState
from clinical_data.errors import ModelError
from search import prompts
from search.budgets import Budget
from search.desk import GENERATOR, Desk
from search.mcts import Search, grow, rstar
from search.models.toys import RandomModel, ScriptedModel
from search.problem import Models, SearchProblem
from search.selection import uct
from search.settings import SearchSettings
from search.strategies import run_search
from search.trajectory import Status
from search.tree import Node
from search.turns import TurnMaker


@pytest.mark.parametrize("first", range(100_000, 100_400, 100))
def test_what_must_hold_of_every_tree_and_result_holds(first):
    for strategy, problem, models, settings, seed in searches(first, 100):
        check_result(run_search(strategy, problem, models, settings, seed), problem, settings)


@given(visits=st.integers(1, 10_000), more=st.integers(0, 10_000), mean=st.floats(0, 1), exploration=st.floats(0, 10))
def test_uct_equals_the_formula(visits, more, mean, exploration):
    node = Node(1, 0, None, "", [], "", visits=visits, value_sum=mean * visits)
    expected = mean * visits / visits + exploration * math.sqrt(math.log(visits + more) / visits)
    assert math.isclose(uct(node, visits + more, exploration), expected, rel_tol=1e-12, abs_tol=1e-12)
    place, parent = Place(visits=visits, worth=mean * visits), Place(visits=visits + more)
    assert reference_uct(place, parent, exploration) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("wave", [1, 3, 50])
def test_virtual_loss_is_zero_afterwards(wave):
    for number in range(40):
        problem, models, settings, seed = random_search(number)
        maker = TurnMaker.begin(problem, replace(settings, wave=wave), seed)
        search = Search(maker, Desk(models))
        search.desk.run(maker.prepare((GENERATOR,)))
        grow(search, Budget(maker.settings))
        assert [n.virtual for n in search.tree.nodes] == [0] * len(search.tree.nodes)
        assert not any(slot.in_flight for n in search.tree.nodes for slot in n.slots)


def test_an_early_stop_comes_after_four_rollouts_and_keeps_status_and_answer():
    early = 0
    for strategy, problem, models, settings, seed in searches(0, 60, "rstar", "rap"):
        settings = replace(settings, rollouts=20, exploration=0.1, cost_weight=0.0, selection="verified")
        short = run_search(strategy, problem, models, replace(settings, stop="settled"), seed)
        full = run_search(strategy, problem, models, replace(settings, stop="never"), seed)
        assert (short.status, short.conclusion.answer_key) == (full.status, full.conclusion.answer_key)
        early += short.rollouts < full.rollouts
        if settings.chart_access == "hindsight":
            assert full.rollouts == settings.rollouts
            assert short.rollouts == full.rollouts or short.rollouts >= 4
        else:
            assert short.tree["nodes"] == full.tree["nodes"]
    assert early >= 28  # 26 if checks on which an end hinges were left to the next wave


def test_four_rollouts_are_done_before_an_early_stop():
    """After three certain rollouts of five the two left could change nothing either."""
    model = ScriptedModel({"score": [{"scores": {"sepsis": 0.0}}], "mean_logprob": -50.0})
    weights = {"likelihood_weight": 0.0, "confidence_weight": 0.0, "evaluation_weight": 0.0}
    settings = SearchSettings(calibration="none", rollouts=5, **weights)
    assert run_search("rap", make_problem(items=()), Models(model, model), settings, 0).rollouts == 4
    settings = replace(settings, rollouts=3)
    assert run_search("rap", make_problem(items=()), Models(model, model), settings, 0).rollouts == 3


def test_golden_scripted_tree():
    """Four kinds at the root, worth 1, 1/(1 + 1/e), 1/2 and 1/4; twelve rollouts by UCT, worked out by hand."""
    generator = ScriptedModel(
        {
            "generate": [
                {"ends": "Thought:", "texts": [" warm skin"]},
                {"ends": "Question:", "texts": [" how long?"]},
                {"ends": "Reply:", "texts": [" two days"]},
                {"ends": "In other words:", "texts": [" a tired man"]},
            ],
            "score": [
                {"if": "warm skin", "scores": {"sepsis": 0.0}},
                {"if": "two days", "scores": {"sepsis": 0.0, "pneumonia": -1.0}},
                {"if": "a tired man", "scores": {"sepsis": 0.0, "pneumonia": 0.0}},
            ],
            "mean_logprob": -50.0,
        }
    )
    peer = ScriptedModel({"score": [{"scores": {"sepsis": 0.0}}], "text": " hm", "mean_logprob": -50.0})
    options = SearchSettings(
        rollouts=12, depth=2, think=1, ask=1, ask_votes=1, exploration=1.4, calibration="none", stop="never"
    )
    result = rstar(make_problem(items=()), Models(generator, peer), options, 0)
    nodes = result.tree["nodes"]
    asked = 1 / (1 + math.exp(-1))
    found = {tuple(n["kind"] for n in path_to(nodes, node)): node for node in nodes}
    expected = {
        ("think",): (5, 1.0, None),
        ("think", "finish"): (5, 1.0, "sepsis"),
        ("ask",): (3, asked, None),
        ("ask", "finish"): (3, asked, "sepsis"),
        ("rephrase",): (2, 0.5, None),
        ("rephrase", "finish"): (2, 0.5, "pneumonia"),
        ("finish",): (2, 0.25, "embolism"),
    }
    assert set(found) == {(), *expected}
    for path, (visits, mean, answer) in expected.items():
        node = found[path]
        assert (node["visits"], node["answer_key"]) == (visits, answer)
        assert math.isclose(node["value_sum"], visits * mean, abs_tol=1e-12)
    assert (result.status, result.conclusion.answer_key) == (Status.VERIFIED, "sepsis")
    assert result.winner == found["think", "finish"]["id"]
    assert math.isclose(result.margin, (5 + 3 * asked) / (5 + 3 * asked + 2 * 0.5 + 2 * 0.25), abs_tol=1e-12)
    agreement = {c.node: c.verification.agreement for c in result.candidates}
    assert agreement == {
        found["think", "finish"]["id"]: 1.0,
        found["ask", "finish"]["id"]: 1.0,
        found["rephrase", "finish"]["id"]: 0.0,
        found["finish",]["id"]: None,
    }


def test_the_same_bytes_at_any_batch_size():
    for strategy, problem, models, settings, seed in searches(200_000, 30):
        generator = OneByOne(models.generator)
        single = Models(generator, generator if models.peer_is_generator else OneByOne(models.peer))
        together = run_search(strategy, problem, models, settings, seed)
        assert repr(together) == repr(run_search(strategy, problem, single, settings, seed))


class Breaking(RandomModel):
    """Fails once, at the call of that number; a random model before and after."""

    def __init__(self, seed, at):
        super().__init__(seed)
        self.left = at

    def generate(self, requests):
        self.left -= 1
        if self.left == 0:
            raise ModelError("out of order")
        return super().generate(requests)


@pytest.mark.parametrize("at", [1, 2, 7])
@pytest.mark.parametrize("strategy", ["rstar", "rap"])
def test_a_search_that_broke_off_is_the_same_when_begun_again(strategy, at):
    problem, settings = make_problem(), SearchSettings(rollouts=6, think=2, ask=2, wave=2)
    whole = run_search(strategy, problem, Models(RandomModel(1), RandomModel(2)), settings, 5)
    models = Models(Breaking(1, at), RandomModel(2))
    with pytest.raises(ModelError, match="out of order"):
        run_search(strategy, problem, models, settings, 5)
    assert repr(run_search(strategy, problem, models, settings, 5)) == repr(whole)


def test_the_same_bytes_in_any_process():
    """Nothing hangs on the order of a set or of a process's own hashes."""
    code = "import test_invariants; print(test_invariants.digest())"
    folder = Path(__file__).parent
    path = os.pathsep.join((str(folder), str(folder.parents[1])))
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == digest()


def digest():
    results = [run_search(*search) for search in searches(300_000, 4)]
    return hashlib.sha256(repr(results).encode()).hexdigest()


# What only one request shows. Values that differ from each other and from every word of the models.
SHOWN = {"lactate": "4.44", "blood count": "15.2", "chest x-ray": "QQ infiltrate", "vitals": "QQ rate"}
NEGATIVE = re.compile(
    r"\b(no|not found|none|normal|negative|absent|unremarkable|clear|without|denies)\b", re.IGNORECASE
)


def charted():
    return make_problem(
        make_case(
            extra=[
                finding("lactate", 4.44, 10),
                finding("chest x-ray", "QQ infiltrate", 20),
                finding("vitals", "QQ rate", 30),
            ]
        )
    )


@pytest.mark.parametrize("access", ["hindsight", "prospective"])
@pytest.mark.parametrize("strategy", ["rstar", "rap"])
def test_a_finding_shows_below_its_own_request_only(strategy, access):
    """In a prospective search also not before the chart was opened: what is imagined holds no recorded value."""
    shown = 0
    for seed in range(12):
        models = Models(RandomModel(seed), RandomModel(seed + 1))
        settings = SearchSettings(rollouts=8, depth=5, think=1, ask=1, wave=1 + seed % 4, chart_access=access)
        result = run_search(strategy, charted(), models, settings, seed)
        committed = [commit["turn"]["item"] for commit in result.tree.get("commits", [])]
        for call in result.calls:
            for item, value in SHOWN.items():
                above, found, _ = call.text.partition(value)
                shown += bool(found)
                assert not found or f"\nRequest: {item}\nResult: " in above
                if access == "prospective":
                    assert not found or item.replace(" ", "_") in committed
                elif call.role == GENERATOR:
                    assert (f"\nRequest: {item}\nResult:" in call.text) == bool(found)
    assert shown > 20


def test_not_recorded_never_reads_as_negative():
    problem = make_problem()
    silent = {i.display: problem.chart.request(i) for i in problem.items}
    silent = {name: answer for name, answer in silent.items() if answer.state is not AnswerState.RECORDED}
    assert len({answer.state for answer in silent.values()}) == 3
    assert set(prompts.UNANSWERED) == set(AnswerState) - {AnswerState.RECORDED}
    for words in prompts.UNANSWERED.values():
        assert not NEGATIVE.search(words)
    told = 0
    for seed in range(10):
        models = Models(RandomModel(seed), RandomModel(seed))
        result = run_search("rstar", problem, models, SearchSettings(rollouts=8, think=1, ask=1), seed)
        for call in result.calls:
            for name, text in re.findall(r"\nRequest: (.*)\nResult: (.*)", call.text):
                if name in silent:
                    assert text == prompts.UNANSWERED[silent[name].state]
                    told += 1
        for candidate in result.candidates:
            assert not any(f.startswith(("f-lactate", "f-culture")) for f in candidate.trajectory.conclusion.supporting)
    assert told > 50


def test_a_judge_is_not_asked_where_the_value_is_not_ground_truth():
    def judge(conclusion):
        raise AssertionError("the search looked at the truth")

    names = {f.name for t in (SearchProblem, SearchSettings, Models, TurnMaker) for f in fields(t)}
    assert not [name for name in names if re.search("truth|gold|label|target|judge", name)]
    for search in searches(400_000, 10):
        assert repr(run_search(*search, judge=judge)) == repr(run_search(*search))


def answer_again(tree, agreements, delta):
    """Returns the answer that a stored tree and the peer's stored words amount to, without any model."""
    ends = [n for n in tree["nodes"] if n["terminal_visits"] and n["answer_key"] is not None]
    weight = {n["id"]: n["terminal_visits"] * n["terminal_value"] for n in ends}
    total = sum(weight.values())
    agreed = {i: a for i, a in agreements.items() if a is not None and a >= 0.5}
    used = [n for n in ends if n["id"] in agreed] or ends
    classes = {}
    for n in used:
        classes.setdefault(n["answer_key"], []).append(weight[n["id"]] * agreed.get(n["id"], 1.0))
    scores = {key: sum(w) / total if total else 1 / len(classes) for key, w in classes.items()}
    order = sorted(scores, key=lambda key: (-scores[key], -len(classes[key]), key))
    if not order:
        return "abstain", None
    margin = scores[order[0]] - (scores[order[1]] if len(order) > 1 else 0.0)
    return "abstain" if margin < delta else "verified" if agreed else "unverified", order[0]


def test_a_stored_tree_gives_the_answer_again():
    for strategy, problem, models, settings, seed in searches(500_000, 150, "rstar", "rap"):
        settings = replace(settings, selection="verified")
        result = run_search(strategy, problem, models, settings, seed)
        answered = {c.node: c.verification.agreement for c in result.candidates if c.verification.agreement is not None}
        tree = json.loads(json.dumps(result.tree))
        agreements = {int(node): share for node, share in json.loads(json.dumps(answered)).items()}
        expected = (result.status, result.conclusion.answer_key)
        assert answer_again(tree, agreements, settings.abstain_below) == expected
