"""What must hold of every tree and every result, whatever the settings and the models (search.md, "Invariants")."""

import json
import math

from search.trajectory import Status

AFTER = {
    "root": {"think", "finish", "ask", "rephrase", "request"},
    "rephrase": {"think", "finish", "ask", "request"},
    "ask": {"think", "finish", "ask", "reask", "request"},
    "reask": {"think", "finish", "ask", "request"},
    "think": {"think", "finish", "request"},
    "finish": set(),
}


def trees_of(result):
    """Returns every tree of a result: the last one, and with a prospective chart those before it."""
    return [*result.tree.get("commits", []), result.tree] if result.tree else []


def children(nodes, node):
    return [n for n in nodes if n["parent"] == node["id"]]


def path_to(nodes, node):
    """Returns the nodes below the root on the way to a node, itself included."""
    return [] if node["parent"] is None else [*path_to(nodes, nodes[node["parent"]]), node]


def allowed(kinds):
    if kinds and kinds[-1] == "request":
        return allowed(kinds[:-1]) - {"reask", "rephrase"}
    return AFTER[kinds[-1] if kinds else "root"]


def check_counts(tree, settings):
    """N(root) = rollouts; N = sum of children's N + terminal visits, W likewise; values in [0, 1]."""
    nodes = tree["nodes"]
    assert nodes[0]["visits"] == len(tree["rollouts"])
    for node in nodes:
        below = children(nodes, node)
        ended = node["terminal_visits"] * (node["terminal_value"] or 0.0)
        assert node["terminal_visits"] == tree["rollouts"].count(node["id"])
        assert node["visits"] == sum(c["visits"] for c in below) + node["terminal_visits"]
        assert math.isclose(node["value_sum"], sum(c["value_sum"] for c in below) + ended, abs_tol=1e-9)
        assert 0.0 <= node["value_sum"] <= node["visits"] + 1e-9
        assert node["terminal_value"] is None or 0.0 <= node["terminal_value"] <= 1.0
        if settings.expansion == "slot":  # an unexpanded slot before UCT
            taken = len({c["kind"] for c in below})
            assert taken == min(node["visits"], taken + len(node["open"]))


def check_shape(tree, settings, opening):
    """Legal kinds only, each within its limits; nothing requested twice; FINISH childless."""
    nodes = tree["nodes"]
    for node in nodes:
        path = path_to(nodes, node)
        kinds = [n["kind"] for n in path]
        items = [n["item"] for n in path if n["kind"] == "request"]
        assert {*kinds, *node["open"]} <= {*settings.actions.split(", ")}
        assert all(kind in allowed(kinds[:at]) for at, kind in enumerate(kinds))
        assert "rephrase" not in kinds[1:]
        assert "reask" not in kinds or kinds[kinds.index("reask") - 1] == "ask"
        assert node["depth"] == len(kinds) - len(items) <= settings.depth
        assert len(items) == len(set(items)) <= settings.max_requests
        assert not set(items) & opening
        if node["kind"] == "finish":
            assert not node["open"]
            assert not children(nodes, node)
        else:
            assert node["terminal_value"] is None


def check_result(result, problem, settings):
    """All of the above for each tree; a defined status, an answer that fits it, and figures in range."""
    for tree in trees_of(result):
        check_counts(tree, settings)
        check_shape(tree, settings, {i.item_id for i in problem.opening})
        json.dumps(tree, allow_nan=False)
    if result.tree:
        assert result.rollouts == sum(len(tree["rollouts"]) for tree in trees_of(result))
        assert sum(c.multiplicity for c in result.candidates) == len(result.tree["rollouts"])
    assert all(0.0 <= c.value <= 1.0 for c in result.candidates)
    shares = [h.probability for h in result.conclusion.ranked]
    assert all(0.0 <= share <= 1.0 + 1e-9 for share in shares)
    assert problem.form == "set" or sum(shares) <= 1.0 + 1e-9
    if result.winner is None:
        assert result.status is Status.ABSTAIN
        assert result.conclusion.answer_key is None
        return
    assert 0.0 <= result.margin <= 1.0 + 1e-9
    assert (result.status is Status.ABSTAIN) == (result.margin < settings.abstain_below)
    (winner,) = [c for c in result.candidates if c.node == result.winner]
    assert winner.trajectory.conclusion.answer_key == result.conclusion.answer_key
    if result.status is not Status.ABSTAIN:
        assert winner.verification.verified == (result.status is Status.VERIFIED)
    if settings.selection in ("verified", "product", "geometric"):  # a rejected majority cannot win
        assert winner.verification.verified or not any(c.verification.verified for c in result.candidates)
