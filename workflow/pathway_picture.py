"""A pathway as SVG or PNG, drawn with matplotlib: no browser, no network, the same bytes for the same pathway."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

from clinical_data.errors import UsageError
from workflow.pathway import END, START, Pathway
from workflow.pathway_layout import LINE, PAD, Arrow, Layout, Node, lay_out

DOTS_PER_INCH = 200
_FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same
_INK, _SOFT, _BLUE, _AMBER = "#1d2733", "#5b6775", "#2b5d8a", "#a8601a"
_FILL, _EDGE, _PILL_FILL = "#ffffff", "#b9c4d0", "#eef2f6"
_SIZES = {"title": 11.5, "clock": 9.0, "more": 9.0, "question": 10.0, "note": 8.5}
_LABEL = 8.5


def draw_pathway(pathway: Pathway, form: str) -> bytes:
    """Returns the picture of a pathway.

    Args:
        pathway: the pathway.
        form: `svg` or `png`.

    Raises:
        UsageError: matplotlib is not installed, or no font has the characters (of a PNG).
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = "pip install 'wardstar[pictures]'; --format mermaid needs nothing"
        raise UsageError(f"--format {form} needs matplotlib", hint=hint) from error
    layout = lay_out(pathway, _measure)
    missing = frozenset(_missing("".join(_texts(layout))))
    other = _font_with(missing) if missing else None
    if missing and other is None and form == "png":
        hint = "install one, such as Noto Sans CJK, or take --format svg, which leaves the font to the reader"
        raise UsageError(f"no font of this machine has all characters of {pathway.name}", hint=hint)
    as_text = bool(missing) and other is None
    rules: dict[str, Any] = {
        "svg.hashsalt": "wardstar",
        "svg.fonttype": "none" if as_text else "path",
        "font.family": [_FONT, *([other] if other else [])],
    }
    with matplotlib.rc_context(rules), warnings.catch_warnings():
        if as_text:
            warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(layout.width / 72, layout.height / 72), facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, layout.width)
        axes.set_ylim(layout.height, 0)
        axes.axis("off")
        _draw(axes, layout)
        file = io.BytesIO()
        about = {"Title": pathway.title, **({"Date": None} if form == "svg" else {"Software": None})}
        figure.savefig(file, format=form, dpi=DOTS_PER_INCH, metadata=about)
    return file.getvalue()


@lru_cache(maxsize=4096)
def _measure(text: str, size: float, bold: bool) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=_FONT, size=size, weight="bold" if bold else "normal")
    missing = _missing(text)
    known = "".join(c for c in text if c not in missing)
    width = float(text_to_path.get_text_width_height_descent(known, font, ismath=False)[0]) if known else 0.0
    return width + size * (len(text) - len(known))  # those of other scripts are as wide as high


def _missing(text: str) -> set[str]:
    """Returns the characters that the usual font lacks."""
    from matplotlib.font_manager import FontProperties, findfont

    known = _characters(findfont(FontProperties(family=_FONT)))
    return {c for c in text if ord(c) not in known}


@cache
def _characters(path: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(path).get_charmap())


@cache
def _font_with(characters: frozenset[str]) -> str | None:
    """Returns the first font of this machine, by name, that has all these characters."""
    from matplotlib.font_manager import fontManager

    wanted = {ord(c) for c in characters}
    for name, path in sorted((entry.name, entry.fname) for entry in fontManager.ttflist):
        try:
            if not name.startswith("Last Resort") and wanted <= _characters(path):  # which has boxes for all
                return name
        except (OSError, RuntimeError, ValueError):  # a broken font file is none
            continue
    return None


def _texts(layout: Layout) -> Iterator[str]:
    for node in layout.nodes:
        yield node.text
        yield from (line.text for line in node.lines)
        yield from node.badges
    yield from (arrow.label for arrow in layout.arrows)


def _draw(axes: Any, layout: Layout) -> None:
    for arrow in layout.arrows:
        _arrow(axes, arrow)
    for node in layout.nodes:
        if node.text:
            _pill(axes, node)
        else:
            _box(axes, node)


def _write(axes: Any, x: float, y: float, text: str, size: float, colour: str = _INK, **style: Any) -> None:
    style.setdefault("va", "center")
    axes.text(x, y, text, size=size, color=colour, parse_math=False, zorder=5, **style)


def _rounded(axes: Any, x: float, y: float, width: float, height: float, radius: float, **style: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    shape = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, **style))


def _pill(axes: Any, node: Node) -> None:
    style = {"facecolor": _PILL_FILL if node.name in (START, END) else "#fbf1e4", "edgecolor": _EDGE, "linewidth": 1.0}
    _rounded(axes, node.x, node.y, node.width, node.height, node.height / 2, zorder=3, **style)
    _write(axes, node.middle, node.y + node.height / 2, node.text, 9.5, ha="center")


def _box(axes: Any, node: Node) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

    _rounded(
        axes, node.x, node.y, node.width, node.height, 7, zorder=3, facecolor=_FILL, edgecolor=_EDGE, linewidth=1.0
    )
    bar = Rectangle((node.x, node.y), 6, node.height, facecolor=_BLUE, edgecolor="none", zorder=4)
    axes.add_patch(bar)
    outline = FancyBboxPatch(
        (node.x, node.y), node.width, node.height, boxstyle="round,pad=0,rounding_size=7", transform=axes.transData
    )
    bar.set_clip_path(outline)
    x, y = node.x + PAD + 6, node.y + PAD + LINE / 2 - 2
    for line in node.lines:
        y += line.above
        size = _SIZES[line.kind]
        if line.kind == "title":
            _write(axes, x, y, line.text, size, weight="bold")
        elif line.kind in ("clock", "more"):
            if line.kind == "clock":
                axes.add_patch(Circle((x + 4.5, y), 4, facecolor="none", edgecolor=_BLUE, linewidth=0.9, zorder=5))
                hands = ([x + 4.5, x + 4.5, x + 6.7], [y - 2.6, y, y])
                axes.plot(*hands, color=_BLUE, linewidth=0.9, zorder=5, solid_capstyle="round")
            _write(axes, x + 14, y, line.text, size, _BLUE)
        else:
            _write(axes, x, y, line.text, size, _INK if line.kind == "question" else _SOFT)
        y += LINE
    for badge in node.badges:
        width = _measure(badge, 8, False) + 12
        _rounded(axes, x, y - 2.5, width, 14, 7, zorder=4, facecolor="#fbf1e4", edgecolor="#e2c39b", linewidth=0.8)
        _write(axes, x + width / 2, y + 4.5, badge, 8, _AMBER, ha="center")
        x += width + 6


def _arrow(axes: Any, arrow: Arrow) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    colour = _AMBER if arrow.kind == "loop" else _SOFT
    if arrow.kind == "next":
        x = arrow.start.middle
        top, bottom = arrow.start.y + arrow.start.height, arrow.end.y
        path = Path([(x, top), (x, bottom - 1)])
        if arrow.label:
            _write(axes, x + 7, (top + bottom) / 2 - 2, arrow.label, _LABEL, colour)
    else:
        path = _side_path(arrow)
        away = 1 if arrow.kind == "past" else -1
        edge = arrow.start.x + (arrow.start.width if away > 0 else 0)
        _write(axes, edge + 8 * away, arrow.leave - 7, arrow.label, _LABEL, colour, ha="left" if away > 0 else "right")
    style: dict[str, Any] = {"color": colour, "linewidth": 1.2, "zorder": 2, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>,head_length=5,head_width=2.6", fill=True, **style))


def _side_path(arrow: Arrow) -> Any:
    """Returns a way with round corners past other steps, or the arc of a loop."""
    from matplotlib.path import Path

    right = arrow.kind == "past"
    away = 1 if right else -1
    start = arrow.start.x + (arrow.start.width if right else 0)
    end = arrow.end.x + (arrow.end.width if right else 0) + away
    lane, leave, enter = arrow.lane, arrow.leave, arrow.enter
    down = 1 if enter > leave else -1
    bend = min(10.0 if right else 26.0, abs(enter - leave) / 2)
    points = [
        (start, leave), (lane - away * bend, leave), (lane, leave), (lane, leave + down * bend),
        (lane, enter - down * bend), (lane, enter), (lane - away * bend, enter), (end, enter),
    ]  # fmt: skip
    line, curve = Path.LINETO, Path.CURVE3
    return Path(points, [Path.MOVETO, line, curve, curve, line, curve, curve, line])
