"""The picture of a pathway: what is in it, where it lies, and that it is the same each time."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from clinical_data.errors import UsageError
from workflow.pathway import Pathway, known_pathways, load_pathway
from workflow.pathway_layout import START, WIDTH, Layout, Node, label_of, lay_out, wrapped
from workflow.pathway_picture import _measure, draw_pathway

pytest.importorskip("matplotlib", reason="matplotlib is an extra")


def looped() -> Pathway:
    """Four steps with ways past a step, two loops and two ends; no file could hold loops yet."""
    data: dict[str, Any] = load_pathway("inpatient").pathway.model_dump(by_alias=True)
    step = data["steps"][0]
    data["steps"] = [{**step, "name": n, "title": f"Step {n}", "question": "Which? " * 30} for n in "abcd"]
    data["edges"] = [
        {"from": "a", "to": "b", "when": "has_ed_stay"},
        {"from": "a", "to": "c"},
        {"from": "b", "to": "human", "when": "abstained"},
        {"from": "b", "to": "c"},
        {"from": "c", "to": "b", "unless": "answer_settled"},
        {"from": "c", "to": "c", "when": "abstained"},
        {"from": "c", "to": "d", "when": "clock_passed"},
        {"from": "d", "to": "a", "when": "abstained"},
        {"from": "d", "to": "end"},
    ]
    return Pathway.model_validate(data)


def layout_of(pathway: Pathway) -> Layout:
    return lay_out(pathway, _measure)


def test_a_way_that_comes_before_and_after_another_says_both() -> None:
    """The loop of `inpatient` is left when the answer is settled, and when its bound is reached."""
    labels = {(a.start.name, a.end.name): a.label for a in layout_of(load_pathway("inpatient").pathway).arrows}
    assert labels["result_update", "treatment"] == "answer verified, or no other way"
    assert labels["result_update", "workup"] == "budget left"
    assert labels["treatment", "disposition"] == labels[START, "admission_diagnosis"] == ""


def overlap(one: Node, other: Node) -> bool:
    return one.y < other.y + other.height and other.y < one.y + one.height


@pytest.mark.parametrize(
    "pathway", [*(load_pathway(n).pathway for n in known_pathways()), looped()], ids=lambda p: p.name
)
def test_nothing_lies_on_anything(pathway: Pathway) -> None:
    layout = layout_of(pathway)
    assert not [pair for pair in combinations(layout.nodes, 2) if overlap(*pair)]
    for node in layout.nodes:
        assert 0 < node.x < node.x + node.width < layout.width
        assert 0 < node.y < node.y + node.height < layout.height
        for line in node.lines:
            sizes = {"title": (11.5, True), "question": (10.0, False), "note": (8.5, False)}
            assert _measure(line.text, *sizes.get(line.kind, (9.0, False))) <= WIDTH - 24
    side = [a for a in layout.arrows if a.kind != "next"]
    for arrow in side:
        assert 0 < arrow.lane < layout.width
        assert arrow.start.y <= arrow.leave <= arrow.start.y + arrow.start.height
        room = abs(arrow.lane - (arrow.start.x + (arrow.start.width if arrow.kind == "past" else 0)))
        assert _measure(arrow.label, 8.5, False) + 8 < room  # the label stands beside the vertical part, not on it
    for one, other in combinations(side, 2):
        ours, theirs = sorted((one.leave, one.enter)), sorted((other.leave, other.enter))
        if one.lane == other.lane:
            assert ours[1] < theirs[0] or theirs[1] < ours[0]


def test_every_way_is_drawn_with_its_condition() -> None:
    pathway = looped()
    layout = layout_of(pathway)
    drawn = {(a.start.name, a.end.name): (a.kind, a.label) for a in layout.arrows}
    assert drawn[START, "a"] == ("next", "")
    assert drawn["a", "b"] == ("next", "came by the ED")
    assert drawn["a", "c"] == ("past", "")
    assert drawn["b", "human"] == ("past", "abstained")
    assert drawn["c", "b"] == ("loop", "answer not verified")
    assert drawn["c", "c"] == ("loop", "abstained")
    assert drawn["d", "a"] == ("loop", "abstained")
    assert drawn["c", "end"] == ("past", "otherwise")
    assert {(e.from_, e.to) for e in pathway.edges} < set(drawn)
    assert [n.name for n in layout.nodes] == [START, "a", "b", "c", "d", "human", "end"]
    assert label_of(pathway.edges[0]) == "came by the ED"


def test_a_box_says_title_question_and_clocks() -> None:
    box = next(n for n in layout_of(load_pathway("inpatient").pathway).nodes if n.name == "admission_diagnosis")
    texts = [(line.kind, line.text) for line in box.lines]
    assert texts[:2] == [("title", "Admission diagnosis"), ("question", "What is the working diagnosis?")]
    assert ("clock", "at admission (mimic-iv, mimic-iii, meds)") in texts
    assert any("one of a list" in text for kind, text in texts if kind == "note")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("repeat", {"most": 3, "every_minutes": 240}, "at most 3 times, every 4 h"),
        ("review", "required", "a clinician answers as well"),
        ("some_key", ["a_b", 3], "some key: a b, 3"),
        ("budget", {"hours_left": 4}, "budget: hours left 4"),
    ],
)
def test_keys_of_later_versions_stand_in_the_box(key: str, value: object, text: str) -> None:
    from workflow.pathway_layout import _badge

    assert _badge(key, value) == text


@pytest.mark.parametrize("form", ["svg", "png"])
def test_a_picture_is_the_same_each_time(form: str) -> None:
    pathway = looped()
    assert draw_pathway(pathway, form) == draw_pathway(pathway, form)


def test_pictures_are_written_without_network_or_outside_references(run: Run, tmp_path: Path) -> None:
    assert run("pathway", "show", "inpatient", "--format", "svg", "--out", "p.svg")[:2] == (0, "p.svg\n")
    text = (tmp_path / "p.svg").read_text()
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    references = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
    assert all(reference.startswith("#") for reference in references)
    assert "Inpatient stay" in text  # its title, for who cannot see it
    assert run("pathway", "show", "inpatient", "--format", "png", "--out", "p.png")[0] == 0
    from PIL import Image

    with Image.open(tmp_path / "p.png") as image:
        assert image.width > 800
        colours = image.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 50  # text and lines, not an empty sheet


def test_other_scripts_are_drawn_or_left_to_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    from workflow import pathway_picture

    data = load_pathway("inpatient").pathway.model_dump(by_alias=True)
    question = "\u5165\u9662\u8bca\u65ad\u662f\u4ec0\u4e48\uff1f" * 9
    data["steps"] = [{**step, "question": question} for step in data["steps"]]
    pathway = Pathway.model_validate({**data, "edges": []})
    box = layout_of(pathway).nodes[1]
    lines = [line.text for line in box.lines if line.kind == "question"]
    assert "".join(lines) == question
    assert all(_measure(line, 10, False) <= WIDTH - 24 for line in lines)
    monkeypatch.setattr(pathway_picture, "_font_with", lambda characters: None)
    assert lines[0] in draw_pathway(pathway, "svg").decode()
    with pytest.raises(UsageError, match="no font of this machine"):
        draw_pathway(pathway, "png")
    monkeypatch.undo()
    assert pathway_picture._font_with(frozenset({"\U0010fffd"})) is None  # the font of last resort is none
    assert pathway_picture._font_with(frozenset("\u03b1\u0434")) is not None  # Greek and Cyrillic


def test_mermaid_stays_the_default(run: Run, tmp_path: Path) -> None:
    assert run("pathway", "show", "inpatient")[1] == load_pathway("inpatient").pathway.to_mermaid()
    assert run("pathway", "show", "inpatient", "--out", "p.mmd")[0] == 0
    assert (tmp_path / "p.mmd").read_text().startswith("flowchart TD\n")


def test_what_cannot_be_drawn_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("pathway", "show", "inpatient", "--format", "gif")[0] == 2
    assert "--out inpatient.svg" in run("pathway", "show", "inpatient", "--format", "svg")[2]
    assert run("pathway", "show", "inpatient", "--format", "svg", "--out", "no/such/p.svg")[0] == 5
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, error = run("pathway", "show", "inpatient", "--format", "png", "--out", "p.png")
    assert code == 2
    assert "wardstar[pictures]" in error


@pytest.mark.parametrize("text", ["", "one", "a " * 80, "w" * 300, "$x^2$ and _y_ 50 %"])
def test_text_is_wrapped_without_loss(text: str) -> None:
    def measure(words: str, size: float, bold: bool) -> float:
        return 6.0 * len(words)

    lines = wrapped(text, 120, 10, False, measure)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(measure(line, 10, False) <= 120 for line in lines)
