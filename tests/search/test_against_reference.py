"""The engine at wave 1 against the reference search, node by node and bit by bit, on thousands of random searches."""

import pytest
from reference_search import reference_search
from scripted_trees import random_search

from search.mcts import rstar
from search.trajectory import Status
from tests.effort import effort

SEARCHES, PER_TEST = effort(800, 24000), effort(100, 300)


def paths_of(nodes):
    """Returns the path of every node of a stored tree: kinds, and places among the siblings of a kind."""
    paths, born = [""], {}
    for node in nodes[1:]:
        stem = f"{paths[node['parent']]}/{node['kind']}"
        born[stem] = born.get(stem, -1) + 1
        paths.append(f"{stem}{born[stem]}")
    return paths


def grown(search):
    """Returns what a lazy search would hold of the reference's tree: path -> figures of the node."""
    rows = {}
    for place in search.places.values():
        rows |= {child.path: figures(search, child) for kind in place.taken for child in place.slots[kind]}
    return rows | {"": figures(search, search.places[""])}


def figures(search, place):
    return {
        "visits": place.visits,
        "value_sum": place.worth,
        "terminal_visits": search.ended.get(place.path, 0),
        "open": [kind for kind in search.legal(place.turns) if kind not in place.taken],
        "item": place.turns[-1].action.item_id if place.turns else "",
        "text": place.turns[-1].text if place.turns else "",
        "answer_key": place.conclusion.answer_key if place.conclusion else None,
        "depth": sum(t.action.kind != "request" for t in place.turns),
    }


def compare(number):
    problem, models, settings, seed = random_search(number)
    result = rstar(problem, models, settings, seed)
    search, outcome = reference_search(problem, models, settings, seed, result.rollouts)
    nodes, expected = result.tree["nodes"], grown(search)
    paths = paths_of(nodes)
    assert {path: {name: node[name] for name in expected[""]} for path, node in zip(paths, nodes, strict=True)} == (
        expected
    )
    assert [paths[i] for i in dict.fromkeys(result.tree["rollouts"])] == list(search.ended)
    winner = paths[result.winner] if result.winner is not None else None
    found = (result.status.value, result.conclusion.answer_key, winner, result.peer_agreement, result.margin)
    assert found == (outcome.status, outcome.answer, outcome.winner, outcome.agreement, outcome.margin)
    calls = [(c.role, c.purpose, c.text, c.seed) for c in result.calls]
    assert set(calls) <= search.asked
    if result.rollouts < settings.rollouts:
        _, full = reference_search(problem, models, settings, seed)
        assert (result.status.value, result.conclusion.answer_key) == (full.status, full.answer)
    return result


@pytest.mark.parametrize("first", range(0, SEARCHES, PER_TEST), ids=lambda n: f"searches-{n}-to-{n + PER_TEST - 1}")
def test_engine_equals_reference(first):
    statuses = {}
    for number in range(first, first + PER_TEST):
        try:
            result = compare(number)
        except AssertionError as error:
            raise AssertionError(f"random search {number} differs from the reference") from error
        statuses[result.status] = statuses.get(result.status, 0) + 1
    assert set(statuses) == {Status.VERIFIED, Status.UNVERIFIED, Status.ABSTAIN}, statuses
