"""Where the parts of a pathway stand in its picture: one column of steps, arrows down, ways past a step at the right,
loops at the left. Lengths are in points, y grows downwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workflow.pathway import END, START, Edge, Pathway, Step

WIDTH = 330.0
PILL = 110.0
GAP, LABELLED_GAP = 30.0, 40.0
MARGIN = 20.0
PAD = 12.0
LINE = 14.5
LANE = 20.0

_CONDITIONS = {  # predicate -> when it holds, when it does not
    "has_ed_stay": ("came by the ED", "came by another way"),
    "abstained": ("abstained", "answered"),
    "answer_settled": ("answer verified", "answer not verified"),
    "clock_passed": ("stay lasts so long", "stay ends before"),
}
_PILLS = {START: "Case", END: "End", "human": "Goes to a human"}
_SPACED = 5.0  # before the first clock and the note

Measure = Callable[[str, float, bool], float]
"""Width of a text: its size in points, and whether it is bold."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text within a box: `title`, `question`, `clock` (first line of one), `more` (the next) or `note`.

    `above` is room above it.
    """

    kind: str
    text: str
    above: float = 0.0


@dataclass(frozen=True, slots=True)
class Node:
    """A step, or (without lines) the start or an end, with its place."""

    name: str
    x: float
    y: float
    width: float
    height: float
    lines: tuple[Line, ...] = ()
    badges: tuple[str, ...] = ()
    text: str = ""

    @property
    def middle(self) -> float:
        """The x of its middle."""
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class Arrow:
    """A way from one node to another.

    Attributes:
        kind: `next`: to the node below; `past`: beyond it; `loop`: back.
        leave, enter: y at both ends, for arrows at the side.
        lane: x of the vertical part.
    """

    kind: str
    start: Node
    end: Node
    label: str = ""
    leave: float = 0.0
    enter: float = 0.0
    lane: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """A picture: its size, nodes and arrows."""

    width: float
    height: float
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]


def lay_out(pathway: Pathway, measure: Measure) -> Layout:
    """Returns the places of everything in a pathway's picture."""
    ways = _ways(pathway)
    exits = [to for to in dict.fromkeys(to for _, to in ways) if to not in {s.name for s in pathway.steps}]
    exits.sort(key=lambda name: name == END)  # the usual end is the last
    order = [START, *(s.name for s in pathway.steps), *exits]
    rank = {name: i for i, name in enumerate(order)}
    sides = {
        "past": [pair for pair in ways if rank[pair[1]] > rank[pair[0]] + 1],
        "loop": [pair for pair in ways if rank[pair[1]] <= rank[pair[0]]],
    }
    lanes = {side: _lanes(pairs, rank) for side, pairs in sides.items()}
    room = {
        side: 0.0
        if not pairs
        else max(measure(ways[p], 8.5, False) for p in pairs) + 34 + LANE * max(lanes[side].values())
        for side, pairs in sides.items()
    }
    left = MARGIN + room["loop"]
    nodes: dict[str, Node] = {}
    y = MARGIN
    for name in order:
        step = next((s for s in pathway.steps if s.name == name), None)
        node = _pill(name, left, y) if step is None else _box(step, left, y, measure)
        nodes[name] = node
        after = order[rank[name] + 1] if rank[name] + 1 < len(order) else ""
        y += node.height + (LABELLED_GAP if ways.get((name, after)) else GAP)
    height = max(n.y + n.height for n in nodes.values()) + MARGIN
    arrows = [Arrow("next", nodes[a], nodes[b], label) for (a, b), label in ways.items() if rank[b] == rank[a] + 1]
    for side, pairs in sides.items():
        arrows += _side_arrows(side, pairs, ways, nodes, lanes[side], room[side])
    width = left + WIDTH + room["past"] + MARGIN
    return Layout(width, height, tuple(nodes.values()), tuple(arrows))


def words(name: str) -> str:
    """Returns a name of the file in words."""
    return name.replace("_", " ")


def label_of(edge: Edge) -> str:
    """Returns the condition of an edge in words, with whatever else the edge says."""
    parts = [_condition(edge.when, True) if edge.when else "", _condition(edge.unless, False) if edge.unless else ""]
    given = edge.model_dump(exclude_defaults=True, exclude={"from_", "to", "when", "unless"})
    parts += [f"{words(key)} {words(str(value))}" for key, value in given.items()]
    return ", ".join(p for p in parts if p)


def _condition(predicate: str, holds: bool) -> str:
    usual = (words(predicate), f"not {words(predicate)}")
    return _CONDITIONS.get(predicate, usual)[0 if holds else 1]


def clock_lines(step: Step) -> list[str]:
    """Returns the clocks of a step in words, equal ones together, with their sources where they differ."""
    sources: dict[str, list[str]] = {}
    for source in step.clock:
        sources.setdefault(step.clock_text(source), []).append(source)
    if len(sources) == 1:
        return list(sources)
    return [f"{text} ({', '.join(names)})" for text, names in sources.items()]


def wrapped(text: str, width: float, size: float, bold: bool, measure: Measure) -> list[str]:
    """Returns a text in lines no wider than `width`; a longer word is broken."""
    lines, line = [], ""
    for word in text.split():
        while measure(word, size, bold) > width:
            keep = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or measure(word[:n], size, bold) <= width)
            lines += [line] if line else []
            lines.append(word[:keep])
            line, word = "", word[keep:]
        longer = f"{line} {word}".strip()
        if line and measure(longer, size, bold) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line] if line else lines


def _ways(pathway: Pathway) -> dict[tuple[str, str], str]:
    """Returns (from, to) -> label of every way that a case can take; several edges between two nodes are one."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in (START, *(step.name for step in pathway.steps)):
        edges = pathway.edges_from(name)
        for edge in edges:
            found.setdefault((name, edge.to), []).append(label_of(edge))
        if all(edge.condition or pathway.leads_back(edge) for edge in edges):  # none of them is always taken
            found.setdefault((name, END), []).append("otherwise" if edges else "")
    targets = Counter(name for name, _ in found)
    return {pair: _joined(labels, targets[pair[0]] == 1) for pair, labels in found.items()}


def _joined(labels: Sequence[str], alone: bool) -> str:
    """Returns the labels of all edges of one way; what is always taken needs none, unless other ways come before it."""
    if "" not in labels:
        return " or ".join(labels)
    conditions = [label for label in labels if label]
    return "" if alone or not conditions else " or ".join(conditions) + ", or no other way"


def _lanes(pairs: Sequence[tuple[str, str]], rank: dict[str, int]) -> dict[tuple[str, str], int]:
    """Returns the lane of each way at a side, from 1: short ones inside, and none that overlap in the same one."""
    taken: dict[tuple[str, str], int] = {}
    for pair in sorted(pairs, key=lambda p: abs(rank[p[1]] - rank[p[0]])):
        low, high = sorted((rank[pair[0]], rank[pair[1]]))
        used = {
            lane for (a, b), lane in taken.items() if min(rank[a], rank[b]) <= high and max(rank[a], rank[b]) >= low
        }
        taken[pair] = next(n for n in range(1, len(pairs) + 1) if n not in used)
    return taken


def _side_arrows(
    side: str,
    pairs: Sequence[tuple[str, str]],
    ways: dict[tuple[str, str], str],
    nodes: dict[str, Node],
    lanes: dict[tuple[str, str], int],
    room: float,
) -> list[Arrow]:
    ends: dict[str, list[tuple[float, tuple[str, str], str]]] = {}
    for pair in pairs:
        for name, end, other in ((pair[0], "leave", pair[1]), (pair[1], "enter", pair[0])):
            ends.setdefault(name, []).append((nodes[other].y, pair, end))
    at: dict[tuple[tuple[str, str], str], float] = {}
    for name, meeting in ends.items():  # ends at one side of a node are spread over its height, upper ones to the upper
        node = nodes[name]
        for i, (_, pair, end) in enumerate(sorted(meeting), 1):
            share = i / (len(meeting) + 1) if node.lines else 0.5  # ways to an end become one
            at[pair, end] = node.y + node.height * share
    text = room - 12 - LANE * max(lanes.values(), default=0)
    found = []
    for pair in pairs:
        out = text + LANE * lanes[pair] - LANE / 2
        column = nodes[START].middle
        lane = column + WIDTH / 2 + out if side == "past" else column - WIDTH / 2 - out
        found.append(
            Arrow(side, nodes[pair[0]], nodes[pair[1]], ways[pair], at[pair, "leave"], at[pair, "enter"], lane)
        )
    return found


def _pill(name: str, left: float, y: float) -> Node:
    text = _PILLS.get(name, words(name).capitalize())
    return Node(name, left + (WIDTH - PILL) / 2, y, PILL, 26.0, text=text)


def _box(step: Step, left: float, y: float, measure: Measure) -> Node:
    inner = WIDTH - 2 * PAD - 6
    lines = [Line("title", text) for text in wrapped(step.title, inner, 11.5, True, measure)]
    lines += [Line("question", text) for text in wrapped(step.question, inner, 10, False, measure)]
    for number, clock in enumerate(clock_lines(step)):
        parts = wrapped(clock, inner - 16, 9, False, measure) or [""]
        first = Line("clock", parts[0], 0 if number else _SPACED)
        lines += [first, *(Line("more", text) for text in parts[1:])]
    for number, text in enumerate(wrapped(_note(step), inner, 8.5, False, measure)):
        lines.append(Line("note", text, 0 if number else _SPACED))
    extra = step.model_dump(exclude_defaults=True, exclude=set(_SHOWN))
    badges = tuple(_badge(key, value) for key, value in extra.items())
    height = 2 * PAD + sum(LINE + line.above for line in lines) + (20.0 if badges else 0.0) - 4
    return Node(step.name, left, y, WIDTH, height, tuple(lines), badges)


_SHOWN = (
    "name", "title", "question", "answer_cue", "clock", "opening", "items", "answer", "truth", "scorers", "search",
)  # fmt: skip


def _note(step: Step) -> str:
    forms = {"closed": "one of a list", "free": "in own words"}
    form = forms.get(step.answer.form, f"up to {step.answer.most} of a list")
    return f"answer: {form}" + (f"; scored by the recorded {words(step.truth)}" if step.truth else "")


def _badge(key: str, value: Any) -> str:
    """Returns a key that a step has besides, in words; a bound and a review have words of their own."""
    if key == "repeat" and isinstance(value, dict) and {"most", "every_minutes"} == set(value):
        return f"at most {value['most']} times, every {value['every_minutes'] / 60:g} h"
    if (key, value) == ("review", "required"):
        return "a clinician answers as well"
    return f"{words(key)}: {_said(value)}"


def _said(value: object) -> str:
    """Returns the value of a key that this picture knows nothing of, in words."""
    if isinstance(value, dict):
        return ", ".join(f"{words(str(key))} {_said(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_said(inner) for inner in value)
    return words(str(value))
