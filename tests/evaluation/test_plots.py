"""Plots: their scales, what they draw where, and that a screen reader and an XML parser can take them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.review.plots import (
    Axis,
    Point,
    Series,
    Spread,
    heat_map,
    interval_plot,
    line_plot,
    reliability_plot,
    ticks,
)

HOSTILE = "<script>&\"'"


def parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    names = root.get("aria-labelledby"), root.get("aria-describedby")
    assert root.get("role") == "img"
    assert tuple(e.get("id") for e in (root.find("title"), root.find("desc"))) == names
    assert root.find("title").text
    assert root.find("desc").text
    return root


def texts(root: ET.Element, kind: str = "") -> list[str]:
    return [t.text for t in root.iter("text") if not kind or t.get("class") == kind]


def test_an_axis_is_straight_and_stays_inside():
    axis = Axis(0.0, 10.0, 100.0, 0.0)
    assert [axis.at(v) for v in (0, 2.5, 10, 11, -1)] == [100.0, 75.0, 0.0, 0.0, 100.0]
    assert Axis(3.0, 3.0, 0.0, 8.0).at(3.0) == 4.0


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 0.25, [0, 0.05, 0.1, 0.15, 0.2, 0.25]), (0, 7, [0, 2, 4, 6]), (4, 4, [4])],
)
def test_ticks_are_round(low, high, found):
    assert ticks(low, high) == pytest.approx(found)


@given(st.floats(0, 1e6), st.floats(0.01, 1e6))
def test_ticks_lie_within_the_limits_and_are_few(low, width):
    found = ticks(low, low + width)
    assert len(found) <= 6
    slack = 1e-6 * (low + width)  # far less than a plot can show
    assert all(low - slack <= t <= low + width + slack for t in found)


def test_intervals_lie_where_their_limits_are():
    rows = [Spread("a", 0.5, 0.25, 0.75, "50 %"), Spread(HOSTILE, None, text="–")]
    root = parsed(interval_plot("k", "title", rows, describe="a 50 %"))
    (bar,) = (e for e in root.iter("line") if e.get("class") == "bar")
    (mark,) = (e for e in root.iter("circle"))
    assert (float(bar.get("x1")) + float(bar.get("x2"))) / 2 == pytest.approx(float(mark.get("cx")), abs=0.1)
    # The scale runs from 158 to 440 - 62, 220 units: a quarter is 55.
    assert (bar.get("x1"), mark.get("cx"), bar.get("x2")) == ("213", "268", "323")
    assert texts(root, "name") == ["a", HOSTILE]
    assert texts(root, "value") == ["50 %", "–"]


def test_lines_have_a_mark_of_their_own_and_a_key():
    two = [Series("this", (Point(0, 0.1, 0.05, 0.2), Point(1, 0.2))), Series("that", (Point(0, 0.15), Point(1, 0.1)))]
    root = parsed(line_plot("k", "t", two, [(0, "0"), (1, "1")], "requests", describe="d", references=[("most", 0.12)]))
    assert texts(root, "name") == ["this", "that", "most"]
    assert len(list(root.iter("circle"))) == 3  # two points and the key
    assert len(list(root.iter("polygon"))) == 3
    assert texts(root, "tick")[:6] == ["0\u00a0%", "5\u00a0%", "10\u00a0%", "15\u00a0%", "20\u00a0%", "25\u00a0%"]
    bars = [e for e in root.iter("line") if e.get("class") == "bar"]
    assert len(bars) == 1
    # From 0 at 264 to 25 % at 14: 5 % is 50 units.
    assert (float(bars[0].get("y1")), float(bars[0].get("y2"))) == (214.0, 64.0)


def test_the_upward_scale_holds_the_highest_interval():
    high = [Series("this", (Point(0, 0.4, 0.1, 0.9),))]
    assert "100\u00a0%" in texts(parsed(line_plot("k", "t", high, [(0, "0")], "x", describe="d")))


def test_a_reliability_diagram_counts_each_bin_below_it():
    points = [(Point(0.15, 0.1, 0.0, 0.3), 12), (Point(0.95, 1.0), 1034)]
    root = parsed(reliability_plot("k", "t", points, "share", describe="d"))
    assert texts(root, "tick")[-3:] == ["n", "12", "1,034"]
    assert [float(c.get("cy")) for c in root.iter("circle")] == [239.0, 14.0]  # 10 % and 100 % of 250 above 264


def test_a_heat_map_frames_the_diagonal_and_writes_counts():
    root = parsed(heat_map("k", "t", ["sepsis", HOSTILE], [[4, 1, 0], [0, 2, 0]], ["1", "2", "+"], describe="d"))
    cells = list(root.iter("rect"))
    assert [c.get("class") for c in cells] == ["cell right", "cell", "cell", "cell", "cell right", "cell"]
    assert [c.get("style") for c in cells][:3] == ["--strength: 1.00", "--strength: 0.25", "--strength: 0.00"]
    assert texts(root, "count") == ["4", "1", "2"]
    assert texts(root, "name") == ["1 sepsis", f"2 {HOSTILE}"]
    assert parsed(heat_map("k", "t", ["a"], [[0]], ["1"], describe="d")) is not None
