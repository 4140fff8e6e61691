"""The search tree as an SVG: root at the left, one column per turn; shape by kind, size by visits, shade by value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from evaluation.review.language import count, look_up, say
from evaluation.review.tree_layout import tidy
from evaluation.review.words import kind_text, short, state_text

MAX_DRAWN = 400
"""Most nodes drawn; of a larger tree only the visited ones and the winning path are."""
MAX_IDLE = 20
"""Most turns proposed and never tried that are shown at the first look; more of them hide the rest."""
SHADES = 5
SMALLEST, GROWTH = 4.0, 7.0
"""Radius of a node in SVG units: 4 to 11, its area growing with visits. The page's script uses the same figures."""

_COLUMN = 122
_ROW = {"leaf": 27.0, "inner": 44.0, "idle": 11.0}
_MARGIN = 26
_RIGHT = 150
_LABEL, _LEAF_LABEL = 19, 24
_HALO = 5
_DOT = 2.5
# Room for a drawing on A4, upright and laid sideways, in mm: what margins and headings leave. Style sheets know it too.
_UPRIGHT, _SIDEWAYS = (178.0, 205.0), (265.0, 100.0)
_KINDS = frozenset({"root", "think", "finish", "ask", "reask", "rephrase", "request"})
# Corners on a circle of radius 1, counted clockwise from the first angle; areas are made roughly equal by the factor.
_SHAPES = {
    "request": (4, 45, 1.2),
    "finish": (4, 0, 1.3),
    "ask": (3, -90, 1.45),
    "reask": (3, 90, 1.45),
    "rephrase": (6, 0, 1.12),
}


@dataclass(frozen=True, slots=True)
class Placed:
    """A node with its place in the drawing, in SVG units, and its shade (0 to 4; None when never visited)."""

    data: Mapping[str, Any]
    x: float
    y: float
    radius: float
    shade: int | None

    @property
    def id(self) -> int:
        """The node's id in the tree."""
        return int(self.data["id"])


def winning_path(nodes: Sequence[Mapping[str, Any]], winner: int | None) -> tuple[int, ...]:
    """Returns the ids from the root to the winning node; empty when there is none."""
    parents = {int(n["id"]): n["parent"] for n in nodes}
    path: list[int] = []
    current = winner
    while current is not None and current in parents and current not in path:
        path.append(current)
        current = parents[current]
    return tuple(reversed(path))


def draw(
    tree: Mapping[str, Any] | None,
    winner: int | None,
    items: Mapping[str, str],
    notes: Mapping[int, str] | None = None,
    *,
    operable: bool = False,
    tried_only: bool = False,
    prefix: str = "",
    rejected: int | None = None,
) -> Markup:
    """Returns the tree as an SVG element without outside references; empty when there is no tree.

    Args:
        tree: `search.tree.Tree.to_json`.
        winner: terminal node id of the winning trajectory.
        items: catalogue item id -> words.
        notes: node id -> second line of its label.
        operable: name every node for keyboard and screen reader, and give the page's script its figures.
        tried_only: leave out what was proposed and never tried.
        prefix: goes before every id, so that a page can hold several trees.
        rejected: node at the end of the strongest branch that was not chosen.
    """
    nodes = list((tree or {}).get("nodes") or ())
    if not nodes:
        return Markup("")
    notes = notes or {}
    path = winning_path(nodes, winner)
    drawn = drawn_nodes(nodes, path, tried_only=tried_only)
    placed = _layout(drawn)
    width, height = _size(placed)
    size = f'width="{_n(width)}" height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}"'
    role, name = "tree" if operable else "img", f"{prefix}tree"
    parts = [
        f'<svg class="tree" role="{role}" aria-labelledby="{name}-title" aria-describedby="{name}-desc" {size}>',
        f'<title id="{name}-title">{escape(say("tree.title"))}</title>',
        f'<desc id="{name}-desc">{escape(describe(nodes, path, items, len(drawn)))}</desc>',
    ]
    on_path, other = set(path), set(winning_path(nodes, rejected)) - set(path)
    edges = [p for p in placed.values() if p.data["parent"] is not None]
    lines = {p.id: "best" if p.id in on_path else "rejected" if p.id in other else _line(p) for p in edges}
    for kinds in (("tried", "idle"), ("rejected",), ("best",)):  # the winning path lies on top
        parts += [_edge(placed[int(p.data["parent"])], p, lines[p.id]) for p in edges if lines[p.id] in kinds]
    for place in placed.values():
        given = _figures(place, prefix) if operable else ""
        parts.append(_node(place, place.id in on_path, items, notes.get(place.id, ""), given))
    return Markup("".join([*parts, "</svg>"]))


def is_wide(nodes: Sequence[Mapping[str, Any]]) -> bool:
    """Says whether a sheet of A4 laid sideways shows a drawing of these nodes clearly larger than one upright."""
    if not nodes:
        return False
    width, height = _size(_layout(nodes))
    upright, sideways = (min(w / width, h / height) for w, h in (_UPRIGHT, _SIDEWAYS))
    return sideways > 1.2 * upright


def standalone(svg: Markup, style: str) -> str:
    """Returns an SVG as a file of its own, with its style inside.

    Before each colour named by a variable stands the colour itself, in light: what draws SVG outside a browser (word
    processors, librsvg) knows no variables.
    """
    values = dict(reversed(re.findall(r"(--[\w-]+): (#\w+);", style)))  # the first definition of each holds
    style = re.sub(r"([\w-]+): var\((--[\w-]+)\);", lambda m: f"{m[1]}: {values[m[2]]}; {m[0]}", style)
    head, rest = str(svg).removeprefix("<svg").split(">", 1)
    return f'<svg xmlns="http://www.w3.org/2000/svg"{head}><style>{style}</style>{rest}\n'


def describe(nodes: Sequence[Mapping[str, Any]], path: Sequence[int], items: Mapping[str, str], drawn: int) -> str:
    """Returns the text alternative of the drawing: its size and the winning path in words."""
    by_id = {int(n["id"]): n for n in nodes}
    visited = sum(int(n["visits"]) > 0 for n in nodes)
    text = say("tree.describe", nodes=count(len(nodes), "node"), visited=visited)
    if drawn < len(nodes):
        text += say("tree.describe_drawn", drawn=drawn)
    if not path:
        return text + say("tree.describe_none")
    steps = say("tree.then_word").join(label_of(by_id[i], items, 60) for i in path[1:])
    return text + say("tree.describe_path", steps=steps or say("tree.describe_start"))


def drawn_nodes(
    nodes: Sequence[Mapping[str, Any]], path: Sequence[int], *, tried_only: bool = False
) -> Sequence[Mapping[str, Any]]:
    """Returns the nodes that are drawn: all, or (of a large tree, or `tried_only`) the visited ones and the path."""
    if len(nodes) <= MAX_DRAWN and not tried_only:
        return nodes
    return [n for n in nodes if n["visits"] or n["parent"] is None or int(n["id"]) in path]


def value_range(nodes: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Returns the lowest and highest value of a conclusion, between which every mean value lies; (0, 1) without any."""
    ended = [float(n["terminal_value"]) for n in nodes if n.get("terminal_value") is not None]
    values = ended or [mean_of(n) for n in nodes if n["visits"]]
    return (min(values), max(values)) if values else (0.0, 1.0)


def mean_of(node: Mapping[str, Any]) -> float:
    """Returns Q = W/N of a node, 0 when unvisited."""
    return float(node["value_sum"]) / int(node["visits"]) if node["visits"] else 0.0


def label_of(node: Mapping[str, Any], items: Mapping[str, str], limit: int) -> str:
    """Returns the short name of a node: what was asked for, the answer, or the kind of turn."""
    kind = str(node["kind"])
    if kind == "request":
        return short(items.get(str(node["item"]), str(node["item"]).replace("_", " ")), limit)
    if kind == "finish":
        return short(str(node.get("answer") or say("tree.no_readable")), limit)
    return short(look_up("tree.label", kind), limit)


def name_of(node: Mapping[str, Any], items: Mapping[str, str]) -> str:
    """Returns what a node did in words: its kind, and what was asked for or answered."""
    kind = str(node["kind"])
    own = say("words.colon") + label_of(node, items, 80) if kind in ("request", "finish") else ""
    return f"{short(kind_text(kind), 60)}{own}"


def tooltip(node: Mapping[str, Any], items: Mapping[str, str], best: bool, note: str = "") -> str:
    """Returns a node in words: what it did, what came of it, visits and mean value."""
    kind = str(node["kind"])
    lines = [name_of(node, items)]
    if note:
        lines.append(note)
    elif kind == "request" and node.get("state"):
        lines.append(state_text(str(node["state"])))
    elif kind not in ("finish", "root") and node.get("text"):
        lines.append(short(str(node["text"]), 240).rstrip(" .;"))
    visits = int(node["visits"])
    mean = say("tree.tip_mean", q=f"{mean_of(node):.2f}") if visits else ""
    lines.append((say("tree.tip_visits", n=visits) if visits != 1 else say("tree.tip_once")) + mean)
    if best:
        lines.append(say("tree.tip_best"))
    return short(say("words.list_gap").join(lines), 500)


def _layout(nodes: Sequence[Mapping[str, Any]]) -> dict[int, Placed]:
    ids = [int(n["id"]) for n in nodes]
    parents = {int(n["id"]): None if n["parent"] is None else int(n["parent"]) for n in nodes}
    inner = {p for p in parents.values() if p is not None}
    row = {int(n["id"]): "idle" if not n["visits"] else "inner" if int(n["id"]) in inner else "leaf" for n in nodes}
    leaves = {i for i in ids if row[i] == "leaf"}
    spots = tidy(parents, {i: _ROW[row[i]] for i in ids}, leaves)
    low, high = value_range(nodes)
    most = max((int(n["visits"]) for n in nodes), default=0)
    placed = {}
    for node in nodes:
        spot, visits = spots[int(node["id"])], int(node["visits"])
        shade = _shade(mean_of(node), low, high) if visits else None
        x, y = _MARGIN + spot.level * _COLUMN, round(spot.y + _MARGIN / 2, 1)
        placed[int(node["id"])] = Placed(node, x, y, _radius(visits, most), shade)
    return placed


def _size(placed: Mapping[int, Placed]) -> tuple[float, float]:
    return max(p.x for p in placed.values()) + _RIGHT, max(p.y for p in placed.values()) + _MARGIN


def _radius(visits: int, most: int) -> float:
    return _DOT if visits <= 0 else SMALLEST + GROWTH * math.sqrt(visits / max(most, 1))


def _shade(mean: float, low: float, high: float) -> int:
    share = (mean - low) / (high - low) if high > low else 0.5
    return min(SHADES - 1, max(0, int(share * SHADES)))


def _line(place: Placed) -> str:
    return "tried" if place.data["visits"] else "idle"


def _edge(parent: Placed, child: Placed, kind: str) -> str:
    middle = (parent.x + child.x) / 2
    return (
        f'<path class="edge {kind}" data-to="{child.id}" d="M{_n(parent.x)},{_n(parent.y)} C{_n(middle)},'
        f'{_n(parent.y)} {_n(middle)},{_n(child.y)} {_n(child.x)},{_n(child.y)}"/>'
    )


def _node(place: Placed, best: bool, items: Mapping[str, str], note: str, given: str) -> str:
    node = place.data
    kind = str(node["kind"]) if node["kind"] in _KINDS else "other"
    leaf = kind == "finish" or bool(node.get("answer_key"))
    shade = "idle" if place.shade is None else f"v{place.shade}"
    text = label_of(node, items, _LEAF_LABEL if leaf else _LABEL)
    label = _label(place, text, note, leaf, best) if node["visits"] else ""
    return (
        f'<g class="node {kind} {shade}{" best" if best else ""}"{given}>'
        f"<title>{escape(tooltip(node, items, best, note))}</title>"
        f'<circle class="halo" cx="{_n(place.x)}" cy="{_n(place.y)}" r="{_n(place.radius + _HALO)}"/>'
        f'<path class="mark" d="{_mark(kind, place)}"/>{label}</g>'
    )


def _label(place: Placed, text: str, note: str, leaf: bool, best: bool) -> str:
    name = "label best" if best else "label"
    if leaf:
        at, low = f'x="{_n(place.x + place.radius + 6)}"', 11.0
        up = 0.0 if note else 4.0
    else:
        at, low = f'x="{_n(place.x)}" text-anchor="middle"', place.radius + 11
        up = -place.radius - 6
    lines = f'<text class="{name}" {at} y="{_n(place.y + up)}">{escape(text)}</text>'
    if note:
        lines += f'<text class="note" {at} y="{_n(place.y + low)}">{escape(short(note, 30))}</text>'
    return lines


def _mark(kind: str, place: Placed) -> str:
    """Returns the outline of a node: a polygon for some kinds, else a circle."""
    if kind not in _SHAPES or place.shade is None:
        r = round(place.radius, 1)  # or its double would not span the arc
        half = f"a{_n(r)},{_n(r)} 0 1,0 "
        return f"M{_n(place.x - r)},{_n(place.y)}{half}{_n(2 * r)},0{half}{_n(-2 * r)},0z"
    corners, first, factor = _SHAPES[kind]
    points = []
    for corner in range(corners):
        angle = math.radians(first + corner * 360 / corners)
        r = place.radius * factor
        points.append(f"{_n(place.x + r * math.cos(angle))},{_n(place.y + r * math.sin(angle))}")
    return f"M{'L'.join(points)}z"


def _figures(place: Placed, prefix: str) -> str:
    """Returns the attributes by which the page's script knows a node; all are numbers."""
    node = place.data
    parent = "" if node["parent"] is None else int(node["parent"])
    return (
        f' id="{prefix}turn-{place.id}" role="treeitem" tabindex="-1" data-id="{place.id}" data-parent="{parent}" '
        f'data-x="{_n(place.x)}" data-y="{_n(place.y)}" data-r="{_n(place.radius)}" '
        f'data-visits="{int(node["visits"])}" data-sum="{float(node["value_sum"])!r}" '
        f'data-value="{float(node.get("terminal_value") or 0.0)!r}"'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
