"""Small plots as inline SVG: intervals in rows, lines with intervals, a reliability diagram, counts in shades.

Each plot is one `<svg role="img">` with title and description, drawn in the colours of the page (`plots.css`) and 440
units wide, so that its text stays readable at the width of a phone. Nothing in it is told by colour alone. Its numbers
belong beside it as a table: callers have them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from evaluation.review.words import percent, short

WIDTH = 440.0
_MARKS = ("circle", "square", "diamond", "triangle")
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 18.0, 14.0, 46.0
_PLOT = 250.0
_ROW = 26.0
_LABEL, _VALUE = 158.0, 62.0
_CHARACTER = 6.4  # width of one, on average, at the size of the text


@dataclass(frozen=True, slots=True)
class Axis:
    """A straight scale: `low` lies at `start`, `high` at `end`, in SVG units; `end` may be the smaller of the two."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Returns the place of a value; what lies outside of the scale is put at its end."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Spread:
    """One row of an interval plot; without a value only the label and `text` are written."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a line, with the limits of its interval where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A line with its name; the first of a plot is the one that matters."""

    name: str
    points: tuple[Point, ...]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns at most `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) within the limits, ascending."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def interval_plot(key: str, title: str, rows: Sequence[Spread], *, describe: str) -> Markup:
    """Returns values between 0 and 1 with their intervals, a row each: the label, the interval, the value in words.

    Args:
        key: unique on the page; ids derive from it.
        title, describe: for screen readers.
        rows: from the top; the first is drawn in the accent colour.
    """
    height = _TOP + _ROW * len(rows) + 24
    axis = Axis(0.0, 1.0, _LABEL, WIDTH - _VALUE)
    base = _TOP + _ROW * len(rows)
    parts = [_line("grid", axis.at(t), _TOP - 4, axis.at(t), base) for t in (0, 0.25, 0.5, 0.75, 1)]
    parts += [_text("tick", axis.at(t), base + 16, percent(t), "middle") for t in (0, 0.5, 1)]
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        group = [_text("name", 0, y + 4, short(row.label, int(_LABEL / _CHARACTER)))]
        if row.value is not None:
            if row.low is not None and row.high is not None:
                group.append(_line("bar", axis.at(row.low), y, axis.at(row.high), y))
            group.append(_mark(0, axis.at(row.value), y))
        group.append(_text("value", WIDTH, y + 4, row.text, "end"))
        parts.append(f'<g class="{"first" if number == 0 else "later"}">{"".join(group)}</g>')
    return _svg(key, title, describe, height, parts)


def line_plot(
    key: str,
    title: str,
    series: Sequence[Series],
    x_ticks: Sequence[tuple[float, str]],
    x_name: str,
    *,
    describe: str,
    references: Sequence[tuple[str, float]] = (),
) -> Markup:
    """Returns shares over a quantity as lines with intervals; the scale upwards ends above the highest interval.

    Args:
        key: unique on the page; ids derive from it.
        title, describe: for screen readers.
        series: lines, each with a mark of its own.
        x_ticks: places and words along the axis to the right.
        x_name: what lies along it.
        references: name and height of level lines without an interval.
    """
    shares = [v for s in series for p in s.points for v in (p.y, p.high) if v is not None]
    top = next(t for t in (0.25, 0.5, 1.0) if t >= max([*shares, *(y for _, y in references), 0.0]) * 0.98 or t == 1.0)
    places = [x for x, _ in x_ticks] or [0.0]
    pad = (max(places) - min(places)) * 0.04 or 0.5
    x = Axis(min(places) - pad, max(places) + pad, _LEFT, WIDTH - _RIGHT)
    y = Axis(0.0, top, _TOP + _PLOT, _TOP)
    parts = _grid(y, top)
    parts += [_text("tick", x.at(at), _TOP + _PLOT + 17, words, "middle") for at, words in x_ticks]
    parts.append(_text("axis", (_LEFT + WIDTH - _RIGHT) / 2, _TOP + _PLOT + 36, x_name, "middle"))
    keys: list[tuple[str, str]] = []
    for name, height in references:
        parts.append(_line("reference", _LEFT, y.at(height), WIDTH - _RIGHT, y.at(height)))
        keys.append((name, _line("reference", 0, -4, 22, -4)))
    for number in reversed(range(len(series))):  # the first lies on top
        parts.append(_series(number, series[number], x, y))
    marks = [(s.name, f'<g class="{_rank(i)}">{_line("path", 0, -4, 22, -4)}{_mark(i, 11, -4)}</g>')
             for i, s in enumerate(series)]  # fmt: skip
    rows, used = _keys([*marks, *keys], _TOP + _PLOT + _BOTTOM)
    return _svg(key, title, describe, _TOP + _PLOT + _BOTTOM + used, [*parts, *rows])


def reliability_plot(
    key: str, title: str, points: Sequence[tuple[Point, int]], x_name: str, *, describe: str, number_name: str = "n"
) -> Markup:
    """Returns a reliability diagram: accuracy over probability, both from 0 to 1, with the number of each bin below.

    Points on the dashed diagonal are calibrated.

    Source: as `evaluation.metrics.calibration.expected_calibration_error`.
    """
    x, y = Axis(0.0, 1.0, _LEFT, WIDTH - _RIGHT), Axis(0.0, 1.0, _TOP + _PLOT, _TOP)
    parts = _grid(y, 1.0)
    parts.append(_line("reference", x.at(0), y.at(0), x.at(1), y.at(1)))
    base = _TOP + _PLOT
    parts += [_text("tick", x.at(t), base + 17, percent(t), "middle") for t in ticks(0.0, 1.0)]
    parts.append(_text("axis", (_LEFT + WIDTH - _RIGHT) / 2, base + 36, x_name, "middle"))
    parts.append(_text("tick", 0, base + 58, number_name))
    parts += [_text("tick", x.at(p.x), base + 58, f"{n:,}", "middle") for p, n in points]
    parts.append(_series(0, Series("", tuple(p for p, _ in points)), x, y, joined=False))
    return _svg(key, title, describe, base + 66, parts)


def heat_map(
    key: str,
    title: str,
    names: Sequence[str],
    counts: Sequence[Sequence[int]],
    columns: Sequence[str],
    *,
    describe: str,
) -> Markup:
    """Returns a table of counts in shades, rows numbered and named, columns by number; the diagonal is framed.

    Args:
        key: unique on the page; ids derive from it.
        title, describe: for screen readers.
        names: of the rows, which are numbered from 1.
        counts: row by row.
        columns: heads of the columns, a few characters each.
    """
    label = 176.0
    cell = min((WIDTH - label) / max(len(columns), 1), 30.0)
    most = max((c for row in counts for c in row), default=0)
    parts = [_text("tick", label + cell * (j + 0.5), 16, head, "middle") for j, head in enumerate(columns)]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        top = 24 + cell * i
        parts.append(_text("name", 0, top + cell / 2 + 4, f"{i + 1} {short(name, int(label / _CHARACTER) - 3)}"))
        for j, count in enumerate(row):
            kind = "cell right" if i == j else "cell"
            strength = count / most if most else 0.0
            box = f'x="{_n(label + cell * j + 1)}" y="{_n(top + 1)}" width="{_n(cell - 2)}" height="{_n(cell - 2)}"'
            parts.append(f'<rect class="{kind}" {box} style="--strength: {strength:.2f}"/>')
            if count:
                parts.append(_text("count", label + cell * (j + 0.5), top + cell / 2 + 4, str(count), "middle"))
    return _svg(key, title, describe, 28 + cell * len(names), parts)


def _grid(y: Axis, top: float) -> list[str]:
    parts = []
    for t in ticks(0.0, top):
        parts.append(_line("grid", _LEFT, y.at(t), WIDTH - _RIGHT, y.at(t)))
        parts.append(_text("tick", _LEFT - 6, y.at(t) + 4, percent(t), "end"))
    return parts


def _series(number: int, series: Series, x: Axis, y: Axis, *, joined: bool = True) -> str:
    placed = [(x.at(p.x), y.at(p.y)) for p in series.points]
    parts = [_line("path", *one, *other) for one, other in pairwise(placed)] if joined else []
    shift = (number - 1) * 3.0 if number else 0.0  # intervals of several lines beside each other, not on top
    for point, (at, height) in zip(series.points, placed, strict=True):
        if point.low is not None and point.high is not None:
            parts.append(_line("bar", at + shift, y.at(point.low), at + shift, y.at(point.high)))
        parts.append(_mark(number, at, height))
    return f'<g class="{_rank(number)}">{"".join(parts)}</g>'


def _keys(keys: Sequence[tuple[str, str]], top: float) -> tuple[list[str], float]:
    """Returns the lines of the key below a plot, one for each name, and the height they take."""
    rows = []
    for i, (name, mark) in enumerate(keys):
        at = f"translate({_n(_LEFT)},{_n(top + 16 + 20 * i)})"
        rows.append(f'<g transform="{at}">{mark}{_text("name", 30, 0, short(name, 56))}</g>')
    return rows, 20.0 * len(keys) + 6


def _rank(number: int) -> str:
    return "first" if number == 0 else f"later dash{min(number, 3)}"


def _mark(number: int, x: float, y: float) -> str:
    kind = _MARKS[number % len(_MARKS)]
    if kind == "circle":
        return f'<circle class="mark" cx="{_n(x)}" cy="{_n(y)}" r="4.5"/>'
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "diamond": ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
        "triangle": ((0, -5), (5, 4), (-5, 4)),
    }[kind]
    points = " ".join(f"{_n(x + dx)},{_n(y + dy)}" for dx, dy in corners)
    return f'<polygon class="mark" points="{points}"/>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _text(kind: str, x: float, y: float, words: str, anchor: str = "") -> str:
    placed = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}"{placed}>{escape(words)}</text>'


def _svg(key: str, title: str, describe: str, height: float, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="plot" role="img" aria-labelledby="{key}-title" aria-describedby="{key}-desc" '
        f'viewBox="0 0 {_n(WIDTH)} {_n(height)}"><title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-desc">{escape(describe)}</desc>{"".join(parts)}</svg>'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
