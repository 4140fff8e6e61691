"""The search tree as an inline SVG: root at the left, one column per turn, one row per leaf."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from evaluation.review.words import KINDS, STATES, count, short

MAX_DRAWN = 400
"""Most nodes drawn; of a larger tree only the visited ones and the winning path are."""

_COLUMN = 118
_ROW = 27
_ROW_UNVISITED = 11
_MARGIN = 26
_LABEL = 19
_LABELS = {"root": "start", "think": "thought", "ask": "sub-question", "reask": "second answer", "rephrase": "restated"}


@dataclass(frozen=True, slots=True)
class Placed:
    """A node with its place in the drawing, in SVG units."""

    data: Mapping[str, Any]
    x: float
    y: float
    radius: float


def winning_path(nodes: Sequence[Mapping[str, Any]], winner: int | None) -> tuple[int, ...]:
    """Returns the ids from the root to the winning node; empty when there is none."""
    parents = {int(n["id"]): n["parent"] for n in nodes}
    path: list[int] = []
    current = winner
    while current is not None and current in parents and current not in path:
        path.append(current)
        current = parents[current]
    return tuple(reversed(path))


def draw(tree: Mapping[str, Any] | None, winner: int | None, items: Mapping[str, str]) -> Markup:
    """Returns the tree as an SVG element without outside references; empty when there is no tree.

    Args:
        tree: `search.tree.Tree.to_json`.
        winner: terminal node id of the winning trajectory.
        items: catalogue item id -> words.
    """
    nodes = list((tree or {}).get("nodes") or ())
    if not nodes:
        return Markup("")
    path = winning_path(nodes, winner)
    drawn = _drawn(nodes, set(path))
    placed = _layout(drawn)
    width = max(p.x for p in placed.values()) + 150
    height = max(p.y for p in placed.values()) + _MARGIN
    parts = [
        f'<svg class="tree" role="img" aria-labelledby="tree-title tree-desc" width="{_n(width)}" '
        f'height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}">',
        '<title id="tree-title">Search tree</title>',
        f'<desc id="tree-desc">{escape(describe(nodes, path, items, len(drawn)))}</desc>',
    ]
    on_path = set(path)
    edges = [p for p in placed.values() if p.data["parent"] is not None]
    for best in (False, True):  # the winning path lies on top
        parts += [_edge(placed[p.data["parent"]], p, best) for p in edges if (int(p.data["id"]) in on_path) is best]
    parts += [_circle(p, int(p.data["id"]) in on_path, items) for p in placed.values()]
    return Markup("".join([*parts, "</svg>"]))


def describe(nodes: Sequence[Mapping[str, Any]], path: Sequence[int], items: Mapping[str, str], drawn: int) -> str:
    """Returns the text alternative of the drawing: its size and the winning path in words."""
    by_id = {int(n["id"]): n for n in nodes}
    visited = sum(int(n["visits"]) > 0 for n in nodes)
    text = f"A tree of {count(len(nodes), 'node')}, {visited} of them visited"
    if drawn < len(nodes):
        text += f", {drawn} drawn"
    if not path:
        return text + "; no winning path."
    steps = [_label(by_id[i], items, 60) for i in path[1:]]
    return f"{text}. The winning path: {', then '.join(steps) or 'the start alone'}."


def _drawn(nodes: list[Mapping[str, Any]], path: set[int]) -> list[Mapping[str, Any]]:
    if len(nodes) <= MAX_DRAWN:
        return nodes
    return [n for n in nodes if n["visits"] or n["parent"] is None or int(n["id"]) in path]


def _layout(nodes: Sequence[Mapping[str, Any]]) -> dict[int, Placed]:
    """Places leaves row by row in the order of the tree, and each parent in the middle of its children."""
    children: dict[int, list[int]] = {int(n["id"]): [] for n in nodes}
    level: dict[int, int] = {}
    for node in nodes:  # a parent's id is always less than its child's
        parent = node["parent"]
        if parent is not None:
            children[int(parent)].append(int(node["id"]))
        level[int(node["id"])] = 0 if parent is None else level[int(parent)] + 1
    by_id = {int(n["id"]): n for n in nodes}
    y: dict[int, float] = {}
    cursor = float(_MARGIN)
    stack = [int(n["id"]) for n in reversed(nodes) if n["parent"] is None]
    while stack:
        current = stack.pop()
        stack.extend(reversed(children[current]))
        if not children[current]:
            row = _ROW if by_id[current]["visits"] else _ROW_UNVISITED
            y[current] = cursor + row / 2
            cursor += row
    for node_id in sorted(by_id, reverse=True):
        if children[node_id]:
            y[node_id] = (y[children[node_id][0]] + y[children[node_id][-1]]) / 2
    most = max((int(n["visits"]) for n in nodes), default=0)
    return {i: Placed(n, _MARGIN + level[i] * _COLUMN, y[i], _radius(int(n["visits"]), most)) for i, n in by_id.items()}


def _radius(visits: int, most: int) -> float:
    """Area grows with visits: 4 to 11 units; an unvisited node is a dot."""
    return 2.5 if visits <= 0 else 4 + 7 * math.sqrt(visits / max(most, 1))


def _edge(parent: Placed, child: Placed, best: bool) -> str:
    middle = (parent.x + child.x) / 2
    kind = "best" if best else "tried" if child.data["visits"] else "idle"
    return (
        f'<path class="edge {kind}" d="M{_n(parent.x)},{_n(parent.y)} C{_n(middle)},{_n(parent.y)} '
        f'{_n(middle)},{_n(child.y)} {_n(child.x)},{_n(child.y)}"/>'
    )


def _circle(place: Placed, best: bool, items: Mapping[str, str]) -> str:
    node = place.data
    leaf = bool(node.get("answer_key")) or node["kind"] == "finish"
    label = ""
    if node["visits"]:
        text = escape(_label(node, items, _LABEL))
        at = (
            f'x="{_n(place.x + place.radius + 5)}" y="{_n(place.y + 4)}"'
            if leaf
            else f'x="{_n(place.x)}" y="{_n(place.y - place.radius - 5)}" text-anchor="middle"'
        )
        label = f'<text class="{"best" if best else "other"}" {at}>{text}</text>'
    kind = node["kind"] if node["kind"] in KINDS else "other"
    state = " best" if best else "" if node["visits"] else " idle"
    return (
        f'<g class="node {kind}{state}"><title>{escape(tooltip(node, items, best))}</title>'
        f'<circle cx="{_n(place.x)}" cy="{_n(place.y)}" r="{_n(place.radius)}"/>{label}</g>'
    )


def _label(node: Mapping[str, Any], items: Mapping[str, str], limit: int) -> str:
    kind = str(node["kind"])
    if kind == "request":
        return short(items.get(str(node["item"]), str(node["item"]).replace("_", " ")), limit)
    if kind == "finish":
        return short(str(node.get("answer") or "no readable answer"), limit)
    return _LABELS.get(kind, short(kind, limit))


def tooltip(node: Mapping[str, Any], items: Mapping[str, str], best: bool) -> str:
    """Returns a node in words: what it did, what came of it, visits and mean value."""
    kind = str(node["kind"])
    lines = [f"{KINDS.get(kind, kind)}{': ' + _label(node, items, 80) if kind in ('request', 'finish') else ''}"]
    if kind == "request" and node.get("state"):
        lines.append(STATES.get(str(node["state"]), str(node["state"])))
    elif kind not in ("finish", "root") and node.get("text"):
        lines.append(short(str(node["text"]), 240).rstrip(" .;"))
    visits = int(node["visits"])
    mean = f", mean value {float(node['value_sum']) / visits:.2f}" if visits else ""
    lines.append(f"visited {visits} times{mean}" if visits != 1 else f"visited once{mean}")
    if best:
        lines.append("on the winning path")
    return short("; ".join(lines), 500)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
