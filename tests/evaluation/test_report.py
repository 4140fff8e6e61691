"""The report: self-contained, truthful in its words, safe against hostile records, blind when asked to be."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import pytest
import report_records as made

from clinical_data.case import Coding
from clinical_data.errors import StorageError, UsageError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.store.case_store import CaseStore
from evaluation.record import RankedAnswer, TurnRecord
from evaluation.review import answer_data, page_data, reasoning, tree_svg, words
from evaluation.review.report import in_order, render, write_report
from evaluation.store import open_database
from evaluation.store.run_store import RunStore, StoredRecord

VOID = {"meta", "link", "br", "img", "input", "hr", "base", "col", "embed", "source", "wbr"}
CASE, OTHER = "cases/fhir-demo-07.html", "cases/fhir-demo-11.html"


class Page(HTMLParser):
    """Tags, ids, links and visible text of a page; refuses tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag == "small" else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " " if tag in {"td", "th", "dt", "dd", "li", "p", "small"} else ""

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data

    def values(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def step(html: str, anchor: str = "admission_diagnosis") -> str:
    """The HTML of one step of a case's page."""
    pattern = (
        rf'<article class="step" id="{anchor}".*?</article>(?=\s*(?:<article class="step"|<section class="facts"))'
    )
    return re.search(pattern, html, re.DOTALL)[0]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return render(made.RUN, made.stored(), made.score())


def shown(**changes) -> Page:
    """The page of the pneumonia case with some fields of its record changed."""
    record = made.pneumonia(**changes)
    html = render(made.RUN, [StoredRecord(record, made.truth(), {})], None)
    return Page(html[f"cases/{page_data.case_file(record.case_id)}"])


def words_of(page: Page) -> str:
    return " ".join(page.text.replace("\u00a0", " ").split())


def test_a_page_for_every_case_with_all_its_steps_in_order_and_an_index(pages):
    assert sorted(pages) == [CASE, OTHER, "index.html"]
    for path in (CASE, OTHER):
        ids = [a.get("id") for t, a in Page(pages[path]).tags if t == "article" and a.get("class") == "step"]
        assert ids == ["admission_diagnosis", "discharge_diagnosis"]
        linked = [h for h in Page(pages[path]).values("href") if h in ("#admission_diagnosis", "#discharge_diagnosis")]
        assert linked == ["#admission_diagnosis", "#discharge_diagnosis"]  # the table of contents


def test_a_loop_is_told_in_the_order_in_which_it_was_taken():
    turns = (("workup", 1, 480), ("workup", 2, 720), ("result_update", 1, 720), ("result_update", 2, 960))
    records = [made.pneumonia(step=s, occurrence=n, clock=t, question="?") for s, n, t in turns]
    html = render(made.RUN, [StoredRecord(r, [], {}) for r in records], None)[CASE]
    ids = re.findall(r'<article class="step" id="([^"]+)"', html)
    assert ids == ["workup", "result_update", "workup-2", "result_update-2"]
    assert "Step 3 of 4: Work-up, round 2" in words_of(Page(html))
    assert page_data.case_address(records[1]) == "cases/fhir-demo-07.html#workup-2"


def test_a_step_that_was_not_asked_stands_in_its_place_in_the_pathway():
    names = ("triage", "admission_diagnosis", "treatment", "disposition")
    clocks = dict(zip(names, (None, 60, None, 120), strict=True))
    records = [made.pneumonia(step=s, clock=clocks[s]) for s in reversed(names)]
    found = in_order([StoredRecord(r, [], {}) for r in records], names)
    assert [s.record.step for s in found] == list(names)


@pytest.mark.parametrize("blind", [False, True])
def test_pages_load_nothing_from_anywhere(blind):
    for path, html in render(made.RUN, made.stored(), made.score(), blind=blind).items():
        page = Page(html)
        for tag, attrs in page.tags:
            assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "image"}, (
                path
            )
            assert "src" not in attrs
            assert not {"xlink:href", "srcset", "action", "background"} & set(attrs)
            assert not [name for name in attrs if name.startswith("on")]
        assert not re.search(r"url\(|@import|@font-face|fetch\(|XMLHttpRequest", html), path
        assert not [h for h in page.values("href") if ":" in h or h.startswith("/")], path
        assert "default-src 'none'" in page.values("content")[1]
        assert "<script" in html


def test_every_internal_link_and_reference_resolves(pages):
    ids = {path: Page(html).values("id") for path, html in pages.items()}
    for path, html in pages.items():
        assert len(set(ids[path])) == len(ids[path]), f"an id occurs twice on {path}"
        page = Page(html)
        for href in page.values("href"):
            target, _, anchor = href.partition("#")
            parts: list[str] = []
            for part in (PurePosixPath(path).parent / target).parts if target else PurePosixPath(path).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            where = "/".join(parts)
            assert where in pages, f"{path}: {href}"
            assert target or anchor, f"{path}: {href}"
            assert not anchor or anchor in ids[where], f"{path}: {href}"
        for name in " ".join(page.values("aria-labelledby")).split():
            assert name in ids[path]


def test_equal_input_gives_equal_bytes(pages):
    assert render(made.RUN, made.stored(), made.score()) == pages


def test_blind_leaves_out_labels_marks_and_whatever_came_later(pages):
    blind = render(made.RUN, made.stored(), made.score(), blind=True)
    assert made.CANARY in "".join(pages.values())
    assert "recorded later in the stay: Lactate" in words_of(Page(step(pages[CASE])))
    other = [StoredRecord(s.record, made.truth("another label"), {"code": 1}) for s in made.stored()]
    silent = [
        StoredRecord(
            s.record.model_copy(
                update={"requests": tuple(r.model_copy(update={"done_later": False}) for r in s.record.requests)}
            ),
            [],
            {},
        )
        for s in made.stored()
    ]
    # Whatever the labels, marks, results and later events are, a blind report has the same bytes.
    assert render(made.RUN, other, None, blind=True) == blind
    assert render(made.RUN, silent, None, blind=True) == blind
    text = "".join(blind.values())
    for absent in (made.CANARY, "J18.1", "same category", "later in the stay", "show-recorded", "most frequent answer"):
        assert absent not in text


def test_a_run_steered_by_labels_is_not_reported_blind():
    record = made.pneumonia(settings={"value": "ground_truth"})
    with pytest.raises(UsageError):
        render(made.RUN, [StoredRecord(record, [], {})], None, blind=True)


def test_recorded_diagnosis_is_behind_a_closed_fold_and_a_toggle_that_starts_off(pages):
    for anchor in ("admission_diagnosis", "discharge_diagnosis"):
        html = step(pages[CASE], anchor)
        label = made.CANARY if anchor == "discharge_diagnosis" else "Lobar pneumonia"
        before, _, after = html.partition('<details class="fold">')
        assert label not in before
        assert label in after.partition("</details>")[0]
        assert html.count('<details class="fold">') == 2  # the label, and what was done afterwards
        assert "Lactate" in html.rpartition('<details class="fold">')[2]
    for tag, attrs in Page(pages["index.html"]).tags:
        if "truth" in (attrs.get("class") or ""):
            assert "hidden" in attrs, tag
    assert Page(pages["index.html"]).values("data-label").count("Recorded") == 4


def test_hostile_text_is_shown_and_never_obeyed():
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7*7 }} "
    evil += "\u202egnp\u202c\u2066x\u2069 \x00\x1b[31m \ud800"
    record = made.pneumonia()
    winner = record.candidates[0]
    finding = (
        winner.turns[0]
        .findings[0]
        .model_copy(update={"name": evil, "value": evil, "unit": evil, "range": evil, "flag": evil})
    )
    turns = (
        winner.turns[0].model_copy(update={"findings": (finding,), "item": evil}),
        TurnRecord(kind="think", text=evil),
        TurnRecord(kind=evil, text=evil),
    )
    tree = {"nodes": [dict(n, text=evil, item=evil, state=evil, answer=evil) for n in record.tree["nodes"]]}
    hostile = record.model_copy(
        update={
            "case_id": "../../" + evil, "vignette": evil, "question": evil, "clock_text": evil, "reason": evil,
            "tree": tree, "ranked": (RankedAnswer(system=evil, code=evil, display=evil, probability=0.5),),
            "candidates": (winner.model_copy(update={"turns": turns, "answer": evil}),), "vocabulary": evil,
            "settings": {evil: evil}, "models": {evil: {evil: evil}}, "hashes": {evil: evil},
        }
    )  # fmt: skip
    label = [{"system": evil, "code": evil, "display": evil, "strength": evil}]
    html = render(made.RUN, [StoredRecord(hostile, label, {evil: 1})], None)
    assert len(html) == 2
    for path, text in html.items():
        assert re.fullmatch(r"index\.html|cases/[A-Za-z0-9_][A-Za-z0-9._-]*\.html", path)
        page = Page(text)
        assert not [t for t, _ in page.tags if t == "img"]
        assert "<script>alert" not in text
        assert "49" not in re.findall(r"onerror=alert\(1\)> (\S+)", page.text)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b\ud800-\udfff]", text)
        assert "[U+202E]" in page.text
        text.encode("utf-8")
        for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
            ET.fromstring(svg)


def test_a_megabyte_of_text_is_cut_with_a_note():
    record = made.pneumonia()
    winner = record.candidates[0]
    long = winner.turns[0].findings[0].model_copy(update={"value": "x" * 1_000_000, "name": "y" * 1_000_000})
    turns = (
        winner.turns[0].model_copy(update={"findings": (long,) * 100}),
        TurnRecord(kind="think", text="z" * 1_000_000),
    )
    page = shown(candidates=(winner.model_copy(update={"turns": turns}),), vignette="v" * 1_000_000)
    assert "cut here for display: 4,000 of 1,000,000 characters" in page.text
    assert "and 60 more of the same request" in words_of(page)
    assert len(page.text) < 400_000


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("pending", "result pending"),
        ("not_done_by_now", "not done or not recorded by then"),
        ("done_result_not_in_source", "done, result not in this record"),
        ("not_in_source", "not in this source"),
        ("unrecognised", "request not understood"),
    ],
)
def test_an_unanswered_request_is_said_so_and_kept_apart_from_the_evidence(state, text):
    winner = made.pneumonia().candidates[0]
    turns = (TurnRecord(kind="request", text="", item="lactate", state=state), winner.turns[-1])
    requests = tuple(r.model_copy(update={"state": state}) for r in made.pneumonia().requests if r.item == "lactate")
    page = words_of(
        shown(candidates=(winner.model_copy(update={"turns": turns}),), opening=(), requests=requests, tree=None)
    )
    lists, _, timeline = page.partition("What was asked, and what the record answered")
    weighed, _, lists = lists.partition("Negative, not done, not in the source")
    assert f"Lactate $12 {text}" in timeline
    assert "Lactate" not in weighed.partition("For and against")[2]
    titles = {
        "pending": "Result pending",
        "not_done_by_now": "Not done or not recorded by then",
        "unrecognised": "Request not understood",
    }
    assert f"{titles.get(state, 'Not in this source')} Lactate" in lists
    assert "Not recorded is not negative" in lists


def test_findings_come_with_value_unit_range_flag_and_time(pages):
    page = words_of(Page(step(pages[CASE])))
    assert "Body temperature 38.9 °C high 36.1–37.8 2 h before admission known 2 min later" in page
    assert "White cells 17.4 10³/µL high 4–10.5 1 h 35 min before admission known 1 h 15 min later" in page
    assert "Platelets 312 10³/µL 150–400" in page


def test_reasoning_links_findings_to_their_rows(pages):
    html = step(pages[CASE])
    anchor, note = re.search(
        r'<a href="#([\w-]+finding-\d+)">heart rate</a> <span class="cite">\[([^]]+)\]</span>', html
    ).groups()
    row = html.split(f'<tr id="{anchor}">')[1].split("</tr>")[0]
    assert "Heart rate" in row
    assert "112 /min" in row
    assert note.replace("\u00a0", " ") == "112 /min high, known 1 h 58 min before admission"


def test_a_claim_that_names_nothing_of_the_record_is_marked_as_such():
    winner = made.pneumonia().candidates[0]
    turns = (*winner.turns[:1], TurnRecord(kind="think", text="The moon is full."), *winner.turns[2:])
    page = words_of(shown(candidates=(winner.model_copy(update={"turns": turns}),)))
    assert "Thought (names nothing that the record had shown) The moon is full." in page
    assert "(names nothing" not in words_of(shown())


def test_votes_are_never_called_a_probability(pages):
    page = words_of(Page(step(pages[CASE])))
    assert "pneumonia 62 % share of votes" in page
    assert page.count("probability") == page.count("it is not a probability of disease") == 1


def test_bars_say_so_when_the_answer_is_not_the_one_with_most_votes():
    ranked = made.pneumonia().ranked
    shown_bars, line = answer_data.bars(made.pneumonia(ranked=(ranked[2], ranked[3], ranked[0])))
    assert [b.display for b in shown_bars] == ["COPD or asthma attack", "pneumonia", "heart failure"]
    assert [b.chosen for b in shown_bars] == [True, False, False]
    assert line.startswith("The first answer is not the one with most votes")
    line = answer_data.bars(made.pneumonia())[1].replace("\u00a0", " ")
    assert line == "2 other answers together: 3 % of the votes. Spread evenly, each of the 7 answers would have 14 %."


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {},
            "(not clinical verification). The same model, started anew, reached the same answer. "
            "Agreement: 75 %, in 3 of 4 runs.",
        ),
        (
            {"peer_is_generator": False},
            "(not clinical verification). A second model reached the same answer. Agreement",
        ),
        (
            {"status": "unverified", "peer_agreement": 0.25},
            "Second model disagreed. The same model, started anew, did not reach",
        ),
        (
            {"status": "unverified", "peer_agreement": None},
            "Not checked by a second model. The line of reasoning chosen was not checked itself",
        ),
        (
            {"status": "abstain", "reason": "the margin is small"},
            "No answer given. The case is one for a person to decide. The margin is small.",
        ),
        (
            {"status": "failed", "reason": "the model broke"},
            "Failed. This step has no answer. The model broke.",
        ),
    ],
)
def test_status_in_plain_words(changes, text):
    page = words_of(shown(**changes))
    assert text in page
    assert ("The model’s answer pneumonia" in page) == (changes.get("status") not in ("abstain", "failed"))


def test_strongest_rejected_branch_is_the_heaviest_with_another_answer(pages):
    page = words_of(Page(step(pages[CASE])))
    assert "pulmonary embolism. 3 of 16 lines of reasoning ended here; share of votes there 53 %." in page
    record = made.pneumonia()
    assert reasoning.rejected(record, record.candidates[0], page_data.Trail()).answer == "pulmonary embolism"
    assert "None: no branch reached another answer" in words_of(shown(candidates=record.candidates[:1]))


def test_check_names_an_icd_category_by_its_answer():
    ranked = (RankedAnswer(system=made.ICD, code="J18.9", display="Pneumonia", probability=0.9),)
    candidate = made.pneumonia().candidates[0].model_copy(update={"peer_answers": ("J18",), "cuts": (1,), "answer": ""})
    record = made.pneumonia(ranked=ranked, candidates=(candidate.model_copy(update={"answer_key": "J18"}),))
    assert reasoning.checks(record, record.candidates[0]) == (
        reasoning.Check("the first turn", "Pneumonia", True, "same"),
    )


def drawn(tree, winner) -> ET.Element:
    return ET.fromstring(tree_svg.draw(tree, winner, {}))


def test_tree_draws_every_node_and_marks_the_winning_path():
    record = made.pneumonia()
    svg = drawn(record.tree, record.winner)
    assert len(svg.findall("g")) == len(record.tree["nodes"])
    assert len(svg.findall("path")) == len(record.tree["nodes"]) - 1
    best = [g for g in svg.findall("g") if "best" in g.get("class").split()]
    assert len(best) == len(tree_svg.winning_path(record.tree["nodes"], record.winner)) == 7
    assert all(g.find("title").text for g in svg.findall("g"))
    assert "The winning path: vital signs, then thought, then blood count" in svg.find("desc").text


@pytest.mark.parametrize(("count", "fanout"), [(1, 1), (2, 1), (40, 1), (300, 3), (300, 299), (3000, 7)])
def test_tree_of_any_shape_stays_inside_its_box_without_overlap(count, fanout):
    nodes = [
        {"id": i, "parent": None if i == 0 else (i - 1) // fanout, "kind": "think" if i else "root", "item": "",
         "state": "", "text": f"<{i}>", "visits": 0 if i % 5 == 3 else 1 + count // (i + 1), "value_sum": 0.5,
         "answer_key": None, "answer": ""}
        for i in range(count)
    ]  # fmt: skip
    for node in nodes[1:]:  # as in a search: below an unvisited node nothing is visited
        if not nodes[node["parent"]]["visits"]:
            node["visits"] = 0
    svg = drawn({"nodes": nodes}, count - 1)
    width, height = float(svg.get("width")), float(svg.get("height"))
    spots = [(float(c.get("cx")), float(c.get("cy")), float(c.get("r"))) for c in svg.iter("circle")]
    assert len(set(spots)) == len(spots)
    assert all(r <= x <= width - r and r <= y <= height - r for x, y, r in spots)
    assert len(spots) == count if count <= tree_svg.MAX_DRAWN else len(spots) < count


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        (-130, "2 h 10 min before admission"),
        (0, "at admission"),
        (45, "45 min after admission"),
        (380, "6 h 20 min after admission"),
        (1440, "24 h after admission"),
        (1459, "24 h 19 min after admission"),
        (2880, "2 days after admission"),
        (3 * 1440 + 380, "3 days 6 h 20 min after admission"),
        (-3 * 1440, "3 days before admission"),
        (-3 * 365 * 1440, "3 years before admission"),
    ],
)
def test_times_in_words(minutes, text):
    assert words.relative_time(minutes).replace("\u00a0", " ") == text


def test_page_names_are_safe_and_distinct():
    odd = ("a/b", "a_b", "a\\b", "a" * 300, "a" * 301, "..")
    for names in ([page_data.case_file(i) for i in odd], [page_data.file_stem(made.pneumonia(case_id=i)) for i in odd]):
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,140}", n) for n in names)
    assert page_data.page_name(made.pneumonia(step="a b/c", occurrence=3)) == "fhir-demo-07.html#a_b_c-3"


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'w.db'}", create=True)
    label = Label(Coding(made.ICD, "J18.1", made.CANARY), Strength.RECORDED_LATER)
    truth = GroundTruth("fhir-demo-07", "admission_diagnosis", (label,))
    CaseStore(engine).put(LabelledCase(made.case(), {"admission_diagnosis": truth}))
    store = RunStore(engine)
    steps = "steps: [{name: admission_diagnosis, truth: admission_diagnosis, "
    steps += "answer: {vocabulary: {fhir: general-ward-icd10}}}]"
    run = store.begin("demo", "inpatient", {"seed": 7, "strategy": "rstar", "pathway": {"text": steps}}, {})
    store.put(run.run_id, made.pneumonia(), [], {}, [])
    store.finish(run.run_id, "finished", {})
    yield engine
    engine.dispose()


def test_write_report_from_a_database(engine, tmp_path):
    out = tmp_path / "report"
    index = write_report(engine, "demo", out)
    assert index == out / "index.html"
    assert made.CANARY in (out / CASE).read_text(encoding="utf-8")
    assert "in the clinical category (CCSR) of the recorded diagnosis" in index.read_text(encoding="utf-8")


def test_a_blind_report_removes_pages_of_an_open_one_and_nothing_else(engine, tmp_path):
    out = tmp_path / "report"
    write_report(engine, "demo", out)
    (out / "trees").mkdir()  # as older reports had it
    (out / "trees" / "of-an-earlier-run.html").write_bytes((out / CASE).read_bytes())
    (out / CASE).rename(out / "cases" / "of-an-earlier-run.html")
    (out / "cases" / "mine.html").write_text("my own notes", encoding="utf-8")
    write_report(engine, "demo", out, blind=True)
    assert sorted(p.name for p in (out / "cases").iterdir()) == [Path(CASE).name, "mine.html"]
    assert list((out / "trees").iterdir()) == []
    assert not [p for p in out.rglob("*.html") if made.CANARY in p.read_text(encoding="utf-8")]


def test_errors_are_named(engine, tmp_path):
    with pytest.raises(UsageError):
        write_report(engine, "no such run", tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError):
        write_report(engine, "demo", tmp_path / "file")
