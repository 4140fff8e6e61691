"""What is said of each node of a stored tree, worked out from the record; no HTML, no drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinical_data.errors import UsageError
from evaluation.record import CandidateRecord, RunRecord, TurnRecord
from evaluation.review import page_data, reasoning, tree_svg, words
from evaluation.review.language import count, look_up, say

FINDINGS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of figures; those with a name in `live` change during a replay."""

    name: str
    value: str
    live: str = ""


@dataclass(frozen=True, slots=True)
class TurnDetail:
    """Everything about one node; texts are cleaned but not yet escaped.

    Attributes:
        remarks: short sentences: on the winning path, never tried, imagined.
        said: what the model wrote, None where a turn has no words of its own.
        findings: what the record answered; `more` counts those left out.
        checks: what the second run answered after each cut.
    """

    node_id: int
    heading: str
    remarks: tuple[str, ...]
    said: str | None
    facts: tuple[Fact, ...]
    findings: tuple[page_data.FindingView, ...]
    more: int
    checks: tuple[reasoning.Check, ...]
    open: str


def nodes_of(record: RunRecord) -> list[dict[str, Any]]:
    """Returns the nodes of a record's tree; none without a tree."""
    return list((record.tree or {}).get("nodes") or ())


def at_commit(record: RunRecord, commit: int) -> RunRecord:
    """Returns a record as it stood at an earlier tree of a prospective search, whose path leads to the committed turn.

    Args:
        record: a record with one tree for each commit and a last one.
        commit: 1 for the first tree.

    Raises:
        UsageError: no such tree.
    """
    commits = (record.tree or {}).get("commits") or ()
    if not 1 <= commit <= len(commits):
        hint = (
            f"known: 1 to {len(commits)}" if commits else "only a prospective search commits; it grows a tree each time"
        )
        raise UsageError(f"case {record.case_id}, step {record.step}: no commit {commit}", hint=hint)
    tree = commits[commit - 1]
    return record.model_copy(update={"tree": tree, "winner": tree["node"], "candidates": ()})


def commit_words(record: RunRecord, commit: int | None) -> str:
    """Returns in words which tree of a prospective search is shown (None: the last); empty where there is only one."""
    commits = (record.tree or {}).get("commits") or ()
    if not commits:
        return ""
    if commit is None:
        return say("tree.last_commit", n=len(commits))
    return say("tree.this_commit", k=commit, all=len(commits) + 1)


def notes_of(record: RunRecord) -> dict[int, str]:
    """Returns the second line of labels: share and check of an answer, state and price of a request."""
    costs = {r.item: r.cost for r in record.requests}
    checked = {c.node: c.agreement for c in record.candidates}
    sizes = {c.node: len(c.chosen) for c in record.candidates}
    notes = {}
    for node in nodes_of(record):
        node_id, parts = int(node["id"]), []
        if node["kind"] == "finish":
            if sizes.get(node_id):
                parts.append(count(sizes[node_id], "item"))
            if node.get("probability") is not None:
                share = words.percent(float(node["probability"]))
                parts.append(share if sizes.get(node_id) else say("tree.share_note", share=share))
            if checked.get(node_id) is not None:
                parts.append(say("tree.check_note", share=words.percent(checked[node_id])))
        elif node["kind"] == "request":
            imagined = bool(node.get("imagined"))
            parts.append(
                say("tree.imagined_note") if imagined else words.short(look_up("tree.state", str(node["state"])), 24)
            )
            if not imagined and node["item"] in costs:
                parts.append(words.money(costs[node["item"]]))
        if parts:
            notes[node_id] = ", ".join(filter(None, parts))
    return notes


def uct_terms(node: Mapping[str, Any], parent: Mapping[str, Any] | None, c: float) -> tuple[float, float] | None:
    """Returns mean value W/N and exploration term c * sqrt(ln N_parent / N); None where UCT is not defined.

    Source: search.md, "One search"; Kocsis and Szepesvari 2006.
    """
    if parent is None or not node["visits"]:
        return None
    return tree_svg.mean_of(node), c * math.sqrt(math.log(max(int(parent["visits"]), 1)) / int(node["visits"]))


def exploration(record: RunRecord) -> float | None:
    """Returns the constant c of UCT in a record's settings, None when it is not there."""
    value = record.settings.get("exploration")
    return float(value) if isinstance(value, int | float) else None


def rollouts_of(record: RunRecord) -> tuple[tuple[int, ...], str]:
    """Returns the terminal nodes of the rollouts in order, or none and the reason why there is no replay."""
    tree, nodes = record.tree or {}, nodes_of(record)
    order = [int(i) for i in tree.get("rollouts") or ()]
    if not order:
        return (), say("tree.no_replay.absent")
    stored = {int(n["id"]): (int(n["visits"]), float(n["value_sum"])) for n in nodes}
    counted = statistics(nodes, order)
    same = set(order) <= set(stored) and all(
        counted[i][0] == n and math.isclose(counted[i][1], w, abs_tol=1e-6) for i, (n, w) in stored.items()
    )
    return (tuple(order), "") if same else ((), say("tree.no_replay.differs"))


def statistics(nodes: Sequence[Mapping[str, Any]], rollouts: Sequence[int]) -> dict[int, tuple[int, float]]:
    """Returns visits N and value sum W of every node after the given rollouts (terminal node ids, in order)."""
    by_id = {int(n["id"]): n for n in nodes}
    counted = dict.fromkeys(by_id, (0, 0.0))
    for end in rollouts:
        value = float(by_id[end].get("terminal_value") or 0.0) if end in by_id else 0.0
        current: int | None = end
        while current in by_id:
            visits, total = counted[current]
            counted[current] = (visits + 1, total + value)
            current = by_id[current]["parent"]
    return counted


def details(record: RunRecord, drawn: Sequence[Mapping[str, Any]], path: Sequence[int]) -> list[TurnDetail]:
    """Returns what is said of each drawn node, in the order of the tree.

    Args:
        record: the record of the case-step.
        drawn: the nodes to describe.
        path: ids of the winning path.
    """
    items, trail = page_data.item_words(record), page_data.Trail()
    costs = {r.item: r.cost for r in record.requests}
    by_id = {int(n["id"]): n for n in nodes_of(record)}
    turns = _recorded_turns(record, by_id)
    candidates = {c.node: c for c in record.candidates}
    c = exploration(record)
    found = []
    for node in drawn:
        node_id = int(node["id"])
        turn = turns.get(node_id)
        shown = turn.findings[:FINDINGS_SHOWN] if turn else ()
        parent = None if node["parent"] is None else by_id.get(int(node["parent"]))
        candidate = candidates.get(node_id)
        detail = TurnDetail(
            node_id=node_id,
            heading=tree_svg.name_of(node, items),
            remarks=tuple(_remarks(node, node_id in path)),
            said=_said(node, items),
            facts=(*_outcome(node, costs, candidate), *_figures(node, parent, c)) if node["visits"] else (),
            findings=tuple(trail.show(f) for f in shown),
            more=len(turn.findings) - len(shown) if turn else 0,
            checks=reasoning.checks(record, candidate),
            open=", ".join(words.short(words.kind_text(str(k)), 40).lower() for k in node.get("open") or ()),
        )
        found.append(detail)
    return found


def _recorded_turns(record: RunRecord, by_id: Mapping[int, Mapping[str, Any]]) -> dict[int, TurnRecord]:
    """Pairs nodes with the turns of the candidates that pass through them, which hold what the record answered."""
    turns: dict[int, TurnRecord] = {}
    for candidate in record.candidates:
        path = tree_svg.winning_path(list(by_id.values()), candidate.node)
        if len(path) == len(candidate.turns) + 1:
            turns.update(zip(path[1:], candidate.turns, strict=True))
    return turns


def _remarks(node: Mapping[str, Any], best: bool) -> list[str]:
    imagined = words.sentence(say("tree.imagined"))
    return [
        text
        for text, true in (
            (say("tree.best"), best),
            (say("tree.idle"), not node["visits"]),
            (imagined, bool(node.get("imagined"))),
        )
        if true
    ]


def _said(node: Mapping[str, Any], items: Mapping[str, str]) -> str | None:
    text = words.clean(str(node.get("text") or "")).strip()
    if node["kind"] in ("root", "request", "finish") and text in ("", tree_svg.label_of(node, items, words.TEXT_LIMIT)):
        return None
    return text or say("tree.nothing")


def _outcome(node: Mapping[str, Any], costs: Mapping[str, float], candidate: CandidateRecord | None) -> list[Fact]:
    """What came of a turn: an answer's share and check, a request's state and price."""
    if node["kind"] == "finish":
        checked = say("tree.not_checked")
        if candidate and candidate.agreement is not None:
            checked = page_data.agreement_text(candidate, candidate.agreement)
        share = node.get("probability")
        name = say(f"tree.fact.{'share_of_set' if candidate and candidate.chosen else 'share'}")
        rows = [Fact(name, words.percent(None if share is None else float(share)))]
        if candidate and candidate.draws:
            rows.append(Fact(say("tree.fact.draws"), words.draws_text(candidate.draws, candidate.unparseable)))
        rows.append(Fact(say("tree.fact.agreement"), checked))
        return [*rows, Fact(say("tree.fact.ended"), f"{int(node.get('terminal_visits') or 0):,}")]
    if node["kind"] == "request":
        state = str(node.get("state") or "")
        rows = [Fact(say("tree.fact.state"), words.short(words.state_text(state), 60) or "–")]
        if node["item"] in costs and not node.get("imagined"):
            rows.append(Fact(say("tree.fact.cost"), words.money(costs[node["item"]])))
        return rows
    return []


def _figures(node: Mapping[str, Any], parent: Mapping[str, Any] | None, c: float | None) -> list[Fact]:
    """How the search saw a turn."""
    visits = int(node["visits"])
    mean = f"{tree_svg.mean_of(node):.3f}" if visits else "–"
    rows = [
        Fact(say("tree.fact.visits"), f"{visits:,}", "visits"),
        Fact(say("tree.fact.sum"), f"{float(node['value_sum']):.3f}", "sum"),
        Fact(say("tree.fact.mean"), mean, "mean"),
    ]
    if c is not None and parent is not None:
        terms = uct_terms(node, parent, c)
        curious = f"{terms[1]:.3f}" if terms else "–"
        rows.append(Fact(say("tree.fact.uct"), f"{sum(terms):.3f} = {mean} + {curious}" if terms else "–", "uct"))
    if node.get("depth") is not None:
        rows.append(Fact(say("tree.fact.depth"), f"{int(node['depth']):,}"))
    if node.get("duplicates"):
        rows.append(Fact(say("tree.fact.duplicates"), f"{int(node['duplicates']):,}"))
    return rows
