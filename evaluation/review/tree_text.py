"""A stored search tree as text: a Mermaid flowchart, and JSON with labels."""

from __future__ import annotations

import json
from typing import Any

from evaluation.record import RunRecord
from evaluation.review import page_data, tree_svg, tree_view, words

MOST_IN_MERMAID = 120
"""Most nodes of a flowchart; Mermaid draws larger ones slowly and small."""

_CLASSES = (
    "classDef best stroke:#1d5a8c,stroke-width:3px",
    "classDef idle stroke-dasharray:3 3",
)
_ENTITIES = str.maketrans({c: f"#{ord(c)};" for c in "#&<>\"'`|\\[]{}()"})
_SHAPES = {"finish": ("{{", "}}"), "request": ("[", "]")}


def mermaid(record: RunRecord, most: int = MOST_IN_MERMAID) -> str:
    """Returns a record's tree as a Mermaid flowchart: the winning path, then the most visited nodes.

    Args:
        record: a record that holds a tree.
        most: most nodes drawn; a note counts those left out.
    """
    nodes = tree_view.nodes_of(record)
    path = set(tree_svg.winning_path(nodes, record.winner))
    # A parent has at least the visits of its child and a smaller id, so every drawn node has its parent drawn.
    ranked = sorted(nodes, key=lambda n: (int(n["id"]) not in path, -int(n["visits"]), int(n["id"])))
    drawn = sorted(ranked[: max(most, 1)], key=lambda n: int(n["id"]))
    items, notes = page_data.item_words(record), tree_view.notes_of(record)
    lines = ["flowchart LR"]
    for node in drawn:
        node_id = int(node["id"])
        opening, closing = _SHAPES.get(str(node["kind"]), ("(", ")"))
        mean = f", value {tree_svg.mean_of(node):.2f}" if node["visits"] else ""
        parts = [
            tree_svg.label_of(node, items, 40),
            words.short(notes.get(node_id, ""), 60),
            f"visits {int(node['visits'])}{mean}",
        ]
        text = "<br/>".join(part.translate(_ENTITIES) for part in parts if part)
        lines.append(f'  n{node_id}{opening}"{text}"{closing}')
    shown = {int(n["id"]) for n in drawn}
    for node in drawn:
        if node["parent"] in shown:
            arrow = "==>" if int(node["id"]) in path else "-->" if node["visits"] else "-.->"
            lines.append(f"  n{int(node['parent'])} {arrow} n{int(node['id'])}")
    if left := len(nodes) - len(drawn):
        lines.append(f'  more["and {words.count(left, "node")} more, not drawn"]')
    lines += [f"  {line}" for line in _CLASSES]
    idle = [int(n["id"]) for n in drawn if not n["visits"]]
    for name, ids in (("best", sorted(path & shown)), ("idle", idle)):
        if ids:
            lines.append(f"  class {','.join(f'n{i}' for i in ids)} {name}")
    return "\n".join(lines) + "\n"


def tree_json(record: RunRecord, run_name: str) -> dict[str, Any]:
    """Returns the stored tree with labels, mean values, UCT terms and the second run's word on each answer.

    `{"run", "case_id", "step", "occurrence", "winner", "path": [ids], "replay": reason why not, or "",
    "exploration": c, "rollouts": [ids], "nodes": [the stored node and "label", "title", "on_path", "mean",
    "uct": {"mean", "exploration"} or None, "agreement", "cuts", "peer_answers",
    "chosen" (items of a set), "draws", "unparseable", "cost"]}`
    """
    nodes = tree_view.nodes_of(record)
    by_id = {int(n["id"]): n for n in nodes}
    path = tree_svg.winning_path(nodes, record.winner)
    items, notes = page_data.item_words(record), tree_view.notes_of(record)
    candidates = {c.node: c for c in record.candidates}
    costs = {r.item: r.cost for r in record.requests}
    c = tree_view.exploration(record)
    rows = []
    for node in nodes:
        node_id, candidate = int(node["id"]), candidates.get(int(node["id"]))
        parent = None if node["parent"] is None else by_id.get(int(node["parent"]))
        terms = None if c is None else tree_view.uct_terms(node, parent, c)
        paid = node["kind"] == "request" and not node.get("imagined")
        labels = {
            "label": tree_svg.label_of(node, items, 80),
            "title": tree_svg.tooltip(node, items, node_id in path, notes.get(node_id, "")),
            "on_path": node_id in path,
            "mean": tree_svg.mean_of(node) if node["visits"] else None,
            "uct": {"mean": terms[0], "exploration": terms[1]} if terms else None,
            "agreement": candidate.agreement if candidate else None,
            "cuts": list(candidate.cuts) if candidate else [],
            "peer_answers": list(candidate.peer_answers) if candidate else [],
            "chosen": list(candidate.chosen) if candidate else [],
            "draws": candidate.draws if candidate else 0,
            "unparseable": candidate.unparseable if candidate else 0,
            "cost": costs.get(str(node["item"])) if paid else None,
        }
        rows.append({**node, **labels})
    return {
        "run": run_name,
        "case_id": record.case_id,
        "step": record.step,
        "occurrence": record.occurrence,
        "winner": record.winner,
        "path": list(path),
        "exploration": c,
        "replay": tree_view.rollouts_of(record)[1],
        "rollouts": list((record.tree or {}).get("rollouts") or ()),
        "nodes": rows,
    }


def tree_json_text(record: RunRecord, run_name: str) -> str:
    """Returns `tree_json` as text; characters beyond ASCII are written by number, so that none reorders a line."""
    return json.dumps(tree_json(record, run_name), indent=1) + "\n"
