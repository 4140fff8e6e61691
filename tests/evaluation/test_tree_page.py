"""The tree to look at: true to the record, whole in one file, safe against hostile text, operable and legible."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import report_records as made

from clinical_data.errors import UsageError
from evaluation.record import RunRecord, TurnRecord
from evaluation.review import tree_svg, tree_view
from evaluation.review.language import say
from evaluation.review.tree_layout import tidy
from evaluation.review.tree_page import render_svg, render_tree
from evaluation.review.tree_text import mermaid, tree_json, tree_json_text
from search.actions import ActionKind
from search.selection import uct
from search.tree import Node, Slot

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)> --> ]]> {{ 7*7 }} "
EVIL += "\u202egnp\u202c\u2066x \x00\x1b"


def record(**changes: Any) -> RunRecord:
    """The pneumonia record with a tree whose rollouts add up, and UCT's constant."""
    base = made.pneumonia()
    nodes = [dict(n) for n in base.tree["nodes"]]
    rollouts = [n["id"] for n in nodes for _ in range(n["terminal_visits"])]
    rollouts = rollouts[::2] + rollouts[1::2]
    for node_id, (visits, total) in tree_view.statistics(nodes, rollouts).items():
        nodes[node_id].update(visits=visits, value_sum=total)
    fields = {
        "tree": {"nodes": nodes, "rollouts": rollouts},
        "settings": base.settings | {"exploration": 1.4},
        "rollouts": len(rollouts),
    }
    return base.model_copy(update=fields | changes)


def big(count: int) -> RunRecord:
    """A record whose tree has `count` nodes, all visited but every fifth."""
    nodes = [
        {
            "id": i, "parent": None if i == 0 else (i - 1) // 3, "kind": "think" if i else "root", "item": "",
            "state": "", "text": f"thought {i}", "value_sum": 0.5,
            "answer_key": None, "answer": "", "terminal_visits": 0, "terminal_value": None,
            "visits": 0 if i % 5 == 4 and 3 * i + 1 >= count else 1 + count // (i + 1),
        }
        for i in range(count)
    ]  # fmt: skip
    return record(tree={"nodes": nodes}, winner=count - 2, candidates=())


class Page(HTMLParser):
    """Tags with attributes, and the text outside style and script, of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.script, self._inside = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""
        self.text += " "

    def handle_data(self, data):
        if self._inside == "script":
            self.script += data
        elif self._inside != "style":
            self.text += data

    def by_id(self, name: str) -> dict[str, str | None]:
        return next(attrs for _, attrs in self.tags if attrs.get("id") == name)


def article(text: str, node_id: int) -> str:
    """The words said of one node."""
    found = re.search(rf'<article id="d{node_id}".*?</article>', text, re.DOTALL)[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found)).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def page() -> str:
    return render_tree(record(), "demo")


def test_the_page_is_one_file_that_can_neither_load_nor_send(page):
    read = Page(page)
    for tag, attrs in read.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "image", "use"}
        assert not {"src", "href", "srcset", "action", "xlink:href", "style"} & set(attrs) or attrs["href"] == "#main"
        assert not [name for name in attrs if name.startswith("on")]
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|innerHTML|eval\(", page)
    policy = next(a["content"] for _, a in read.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(read.script.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}';")
    assert "connect-src" not in policy  # the default forbids it
    assert page.count("<script") == 1


def test_the_svg_file_names_its_colours_for_readers_without_variables():
    style = re.search(r"<style>(.*?)</style>", render_svg(record()), re.DOTALL)[1]
    rules = re.findall(r"([\w-]+): var\((--[\w-]+)\)", style)
    assert len(rules) > 10
    plain = re.findall(r"([\w-]+): (#\w+); \1: var\((--[\w-]+)\)", style)
    assert [(name, variable) for name, _, variable in plain] == rules
    assert ("stroke", "#dde1e6", "--t-line") in plain  # the light one, not that of the dark or the printed page


def test_the_svg_file_loads_nothing_and_is_well_formed():
    text = render_svg(record())
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert len(root.findall(f"{SVG}g")) == len(record().tree["nodes"])
    assert root.find(f"{SVG}style").text
    assert not re.search(r"https?://|url\(|@import|<script", text.replace('xmlns="http://www.w3.org/2000/svg"', ""))


def test_a_node_says_what_was_asked_answered_paid_and_counted(page):
    nodes = record().tree["nodes"]
    request = next(n for n in nodes if n["item"] == "lactate")
    said = article(page, request["id"])
    assert "Request to the record: lactate On the way to the chosen answer." in said
    assert "The record’s answer not done or not recorded by then Price $12" in said
    visits, total = request["visits"], request["value_sum"]
    assert f"Visits (N) {visits} Sum of values (W) {total:.3f} Mean value (Q = W/N) {total / visits:.3f} UCT" in said
    vitals = article(page, next(n["id"] for n in nodes if n["item"] == "vital_signs"))
    assert "What the record answered Body temperature 38.9 °C high 2 h before admission" in vitals
    idle = article(page, next(n["id"] for n in nodes if n["text"] == "She is breathing fast."))
    assert "Proposed, never tried. What the model wrote She is breathing fast." in idle


def test_an_answer_says_its_share_and_what_the_check_reached_after_each_cut(page):
    said = article(page, record().winner)
    assert "Answer: pneumonia On the way to the chosen answer. Share of votes 75 % Agreement of the check" in said
    assert "Agreement of the check 75 %, in 3 of 4 runs" in said
    assert "Rollouts that ended here 4" in said
    assert "the first turn pneumonia same" in said
    assert "the first 3 turns pulmonary embolism different" in said
    drawn = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", render_svg(record()))).replace("\u00a0", " ").split())
    assert "pneumonia share 75 %, check 75 %" in drawn
    assert "lactate not done by then, $12" in drawn


def test_uct_is_that_of_the_search():
    nodes = {n["id"]: n for n in record().tree["nodes"]}
    tried = [n for n in nodes.values() if n["visits"] and n["parent"] is not None]
    for node in tried:
        parent = nodes[node["parent"]]
        real = Node(node["id"], node["parent"], None, "", [Slot(ActionKind.THINK)], "")
        real.visits, real.value_sum = node["visits"], node["value_sum"]
        assert abs(sum(tree_view.uct_terms(node, parent, 1.4)) - uct(real, parent["visits"], 1.4)) < 1e-12
    assert tree_view.uct_terms(nodes[0], None, 1.4) is None
    assert "UCT" not in render_tree(record(settings={}), "demo").split("<script>")[0]


def test_the_rollouts_in_order_add_up_to_the_stored_visits():
    rollouts, reason = tree_view.rollouts_of(record())
    assert len(rollouts) == 11
    assert reason == ""
    counted = tree_view.statistics(record().tree["nodes"], rollouts[:3])
    assert counted[0][0] == 3
    assert counted[rollouts[0]][0] >= 1
    assert sum(n for i, (n, _) in counted.items() if record().tree["nodes"][i]["parent"] == 0) == 3


def test_without_an_order_of_rollouts_there_is_no_replay_and_the_page_says_so(page):
    assert Page(page).by_id("rollout")["max"] == "11"
    old = {"nodes": record().tree["nodes"]}
    wrong = {**old, "rollouts": record().tree["rollouts"][1:]}
    unknown = {**old, "rollouts": [999]}
    for tree, reason in ((old, "absent"), (wrong, "differs"), (unknown, "differs")):
        text = render_tree(record(tree=tree), "demo")
        assert 'id="rollout"' not in text
        assert say(f"tree.no_replay.{reason}") in text


def test_the_drawing_can_be_worked_by_keyboard_and_read_aloud(page):
    read = Page(page)
    items = [attrs for _, attrs in read.tags if attrs.get("role") == "treeitem"]
    assert len(items) == len(record().tree["nodes"])
    assert {a["tabindex"] for a in items} == {"-1"}  # the script lets one of them be reached by Tab
    svg = next(attrs for tag, attrs in read.tags if tag == "svg" and attrs.get("role") == "tree")
    for name in (svg["aria-labelledby"], svg["aria-describedby"], read.by_id("panel")["aria-labelledby"]):
        assert read.by_id(name) is not None
    assert not [
        a for tag, a in read.tags if tag in ("button", "input") and not a.get("aria-label") and not a.get("data-do")
    ]
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End", "Enter", "Escape"):
        assert key in read.script
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_hostile_text_is_shown_and_never_obeyed():
    plain = record()
    nodes = [dict(n, text=EVIL, item=EVIL, state=EVIL, answer=EVIL, open=[EVIL]) for n in plain.tree["nodes"]]
    nodes[3]["kind"] = EVIL
    turns = (TurnRecord(kind="think", text=EVIL),)
    hostile = record(
        tree={"nodes": nodes, "rollouts": plain.tree["rollouts"]}, case_id=EVIL, step=EVIL, question=EVIL,
        vignette=EVIL,
        candidates=(plain.candidates[0].model_copy(update={"turns": turns, "peer_answers": (EVIL,), "cuts": (1,)}),),
    )  # fmt: skip
    text = render_tree(hostile, EVIL)
    read = Page(text)
    assert text.count("<script") == 1
    assert "alert(1)" not in read.script
    assert not [tag for tag, _ in read.tags if tag == "img"]
    assert "</script><script>alert(1)</script>" in read.text
    svg = render_svg(hostile)
    flow = mermaid(hostile)
    ET.fromstring(svg)
    for made_of in (text, svg, flow):
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", made_of)
    assert "[U+202E]" in read.text
    assert not re.search(r"[<>\"'`|{}\[\]]", re.sub(r"<br/>", "", " ".join(re.findall(r'"(.*)"', flow))))
    assert tree_json_text(hostile, EVIL).isascii()


def test_a_megabyte_of_text_is_cut_with_a_note():
    nodes = [dict(n) for n in record().tree["nodes"]]
    nodes[2]["text"] = "z" * 1_000_000
    text = render_tree(record(tree={"nodes": nodes}), "demo")
    assert "cut here for display: 4,000 of 1,000,000 characters" in text
    assert len(text) < 200_000
    assert len(mermaid(record(tree={"nodes": nodes}))) < 10_000


@pytest.mark.parametrize("count", [40, 350, 900])
def test_a_large_tree_has_no_two_rows_on_each_other(count):
    wanted = big(count)
    nodes = wanted.tree["nodes"]
    drawn = tree_svg.drawn_nodes(nodes, tree_svg.winning_path(nodes, wanted.winner))
    text = render_tree(wanted, "demo")
    spots = [
        (float(a["data-x"]), float(a["data-y"]), float(a["data-r"]), int(a["data-visits"]))
        for _, a in Page(text).tags
        if "data-x" in a
    ]
    assert len(spots) == len(drawn)
    assert ("Only" in text and f"of {count} turns are drawn" in text) == (count > tree_svg.MAX_DRAWN)
    by_column: dict[float, list[tuple[float, bool]]] = {}
    for x, y, _, visits in spots:
        by_column.setdefault(x, []).append((y, visits > 0))
    for column in by_column.values():
        column.sort()
        for (y, tried), (below, also) in pairwise(column):
            assert below - y >= (27 if tried and also else 11) - 0.11


def test_the_layout_is_tidy():
    # A parent lies halfway between its outer children, equal subtrees are drawn alike, and a subtree moves up beside a
    # shorter one: Reingold and Tilford's aesthetics.
    parents = {0: None, 1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 2}
    at = tidy(parents, dict.fromkeys(parents, 10.0), frozenset())
    assert [at[i].level for i in parents] == [0, 1, 1, 2, 2, 2, 2]
    assert [at[i].y for i in (3, 4, 5, 6)] == [5, 15, 25, 35]
    assert (at[1].y, at[2].y, at[0].y) == (10, 30, 20)
    tucked = {0: None, 1: 0, 2: 0, 3: 2, 4: 2, 5: 2}
    spots = tidy(tucked, dict.fromkeys(tucked, 10.0), frozenset())
    assert spots[2].y - spots[1].y == 10
    assert spots[3].y == spots[1].y
    aside = tidy(tucked, dict.fromkeys(tucked, 10.0), frozenset({1}))  # the label of 1 needs the room beside it
    assert aside[3].y - aside[1].y == 10


def test_mermaid_draws_the_winning_path_first_and_counts_what_it_leaves_out():
    flow = mermaid(record())
    assert flow.startswith("flowchart LR\n")
    assert "more[" not in flow
    assert '{{"pneumonia<br/>share 75 %, check 75 %<br/>visits 4, value 0.75"}}' in flow
    assert len(re.findall(r"^  n\d+ (?:==>|-->|-\.->) n\d+$", flow, re.MULTILINE)) == len(record().tree["nodes"]) - 1
    small = mermaid(record(), most=8)
    path = tree_svg.winning_path(record().tree["nodes"], record().winner)
    named = {int(i) for i in re.findall(r"^  n(\d+)[\[({]", small, re.MULTILINE)}
    assert set(path) <= named
    assert len(named) == 8
    assert f'more["and {len(record().tree["nodes"]) - 8}\u00a0nodes more, not drawn"]' in small
    assert {int(i) for edge in re.findall(r"n(\d+) \S+ n(\d+)", small) for i in edge} == named


def test_json_is_the_stored_tree_with_labels():
    rows = json.loads(tree_json_text(record(), "demo"))
    assert rows["rollouts"] == record().tree["rollouts"]
    assert rows["path"][-1] == rows["winner"] == record().winner
    stored = record().tree["nodes"]
    for row, node in zip(rows["nodes"], stored, strict=True):
        assert {k: row[k] for k in node} == node
    end = rows["nodes"][record().winner]
    assert (end["label"], end["agreement"], end["cuts"]) == ("pneumonia", 0.75, [1, 2, 3, 4])
    assert next(r["cost"] for r in rows["nodes"] if r["item"] == "lactate") == 12
    assert tree_json(record(settings={}), "demo")["nodes"][1]["uct"] is None


def test_earlier_trees_of_a_prospective_search_can_be_looked_at():
    tree = record().tree
    early = {"turn": {"kind": "request"}, "node": 1, "nodes": tree["nodes"][:4], "rollouts": []}
    wanted = record(tree={**tree, "commits": [early]})
    assert "This is the last tree" in render_tree(wanted, "demo")
    text = render_tree(wanted, "demo", commit=1)
    assert "Tree 1 of 2" in text
    assert text.count("<article") == 4
    with pytest.raises(UsageError):
        render_tree(wanted, "demo", commit=2)
    with pytest.raises(UsageError):
        render_tree(record(), "demo", commit=1)


def test_a_record_without_a_tree_has_no_page():
    with pytest.raises(ValueError, match="no tree"):
        render_tree(record(tree=None), "demo")
    assert render_tree(record(), "demo") == render_tree(record(), "demo")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser on this machine")
def test_a_browser_replays_the_search_to_the_figures_that_python_counts(page, tmp_path: Path):
    file = tmp_path / "tree.html"
    file.write_text(page, encoding="utf-8")
    node_id, k = 1, 5
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    address = f"{file.as_uri()}#n{node_id}.{k}"
    done = subprocess.run(["chromium", *options, "--dump-dom", address], capture_output=True, timeout=120, check=True)
    after = done.stdout.decode()
    visits, total = tree_view.statistics(record().tree["nodes"], record().tree["rollouts"][:k])[node_id]
    said = article(after, node_id)
    bonus = tree_view.uct_terms({"visits": visits, "value_sum": total}, {"visits": k}, 1.4)[1]
    assert f"Visits (N) {visits} Sum of values (W) {total:.3f}" in said
    assert f"= {total / visits:.3f} + {bonus:.3f}" in said
    assert f"Rollout {k} of 11 ended at" in after
    assert len(re.findall(r'<article [^>]*hidden=""', after)) == len(record().tree["nodes"]) - 1
