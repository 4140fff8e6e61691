"""Budgets: what one search may use up."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import make_problem

from search import budgets
from search.models.toys import RandomModel
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import run_search
from search.trajectory import Status

SMALL = SearchSettings(rollouts=24, depth=4, think=2, ask=2, ask_votes=2, request=2, max_requests=3, stop="never")
TREES = ("rstar", "rap")
PATHS = ("self-consistency", "best-of-n")


def search(strategy="rstar", seed=0, **options):
    model = RandomModel(seed)
    return run_search(strategy, make_problem(), Models(model, model), replace(SMALL, **options), seed)


def used(result):
    return result.tokens.prefilled + result.tokens.sampled


def opened(nodes):
    return {n["item"] for n in nodes if n["kind"] == "request" and not n.get("imagined")}


@pytest.mark.parametrize("strategy", [*TREES, *PATHS])
@pytest.mark.parametrize("wave", [1, 4])
def test_the_least_budget_still_gives_one_wave_and_a_result(strategy, wave):
    result = search(strategy, max_tokens=1, wave=wave)
    assert result.rollouts == wave
    assert "the budget of 1 tokens is spent" in result.reason
    assert result.conclusion.ranked
    assert result.status in (Status.VERIFIED, Status.UNVERIFIED, Status.ABSTAIN)


@pytest.mark.parametrize("strategy", ["rap", *PATHS])  # without a peer, whose checks are finished after the end
def test_a_budget_of_tokens_ends_the_search_after_the_rollout_that_spends_it(strategy):
    whole = search(strategy, wave=1)
    budget = used(whole) // 2
    cut = search(strategy, max_tokens=budget, wave=1)
    assert used(cut) >= budget
    assert 1 < cut.rollouts < whole.rollouts
    shorter = search(strategy, rollouts=cut.rollouts - 1, wave=1)
    assert used(shorter) < budget
    assert f"after {cut.rollouts} rollouts" in cut.reason
    if strategy == "rap":
        assert cut.tree["rollouts"] == whole.tree["rollouts"][: cut.rollouts]


def test_a_large_budget_changes_nothing():
    for strategy in (*TREES, *PATHS):
        free, rich = search(strategy, wave=24), search(strategy, wave=24, max_tokens=10**9, max_cost_usd=1e9)
        assert rich == free
        assert "budget" not in rich.reason


def test_a_budget_of_money_counts_each_item_once():
    whole = search(seed=1)
    assert len(opened(whole.tree["nodes"])) > 2
    cut = search(seed=1, max_cost_usd=10.0)  # every item costs 5
    assert len(opened(cut.tree["nodes"])) >= 2
    assert cut.rollouts < whole.rollouts
    assert len(opened(search(seed=1, rollouts=cut.rollouts - 1).tree["nodes"])) < 2
    assert "the budget of 10 USD for requests is spent" in cut.reason


def test_a_budget_of_seconds_ends_by_the_clock(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(budgets, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    result = search(max_seconds=5.0)
    assert result.rollouts == 5
    assert "the budget of 5 seconds is spent after 5 rollouts" in result.reason


def test_a_prospective_search_that_runs_out_answers_from_the_tree_at_hand():
    whole = search(chart_access="prospective", seed=1)
    assert len(whole.tree["commits"]) > 1
    cut = search(chart_access="prospective", seed=1, max_tokens=used(whole) // 3)
    assert cut.rollouts < whole.rollouts
    assert len(cut.tree["commits"]) < len(whole.tree["commits"])
    assert cut.conclusion.ranked
    assert "tokens is spent" in cut.reason


def test_a_prospective_budget_of_money_ends_requests_and_not_the_search():
    found = 0
    for seed in range(12):
        whole = search(chart_access="prospective", seed=seed, rollouts=8)
        cut = search(chart_access="prospective", seed=seed, rollouts=8, max_cost_usd=5.0)
        committed = [[t["turn"]["kind"] for t in r.tree["commits"]].count("request") for r in (whole, cut)]
        assert committed[1] <= 1
        assert ("USD for requests is spent" in cut.reason) == (committed[1] == 1)
        assert len(cut.tree["rollouts"]) == 8  # the tree that answers is grown in full
        found += committed[0] > 1 == committed[1]
    assert found
