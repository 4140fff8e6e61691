"""Sets, drawn votes and the page of the tree in a report: one case worked out by hand, and the links between pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_records as made
from test_report import CASE, Page, step, words_of

from evaluation.record import RankedAnswer, RunRecord
from evaluation.review import answer_data, set_compare, set_data, tree_svg
from evaluation.review.report import render
from evaluation.review.tree_page import render_tree
from evaluation.review.tree_text import tree_json
from evaluation.rows import result_cells
from evaluation.store.run_store import Run, StoredRecord

SYSTEM = "wardstar:catalogue"
ORDERS = {
    "blood_count": "blood count",
    "lactate": "lactate",
    "xray": "chest X-ray",
    "ecg": "ECG",
    "ct": "CT",
    "gas": "gas",
}
SHARES = {"lactate": 0.75, "xray": 0.5, "blood_count": 0.25, "ecg": 0.125, "ct": 0.125, "gas": 0.0625}


def row(code: str, display: str) -> dict[str, str]:
    return {"system": SYSTEM, "code": code, "display": display, "strength": "recorded-later"}


# Of the model's lactate and chest X-ray, lactate is recorded; a head scan is not among the possible answers.
TRUTH = [row("blood_count", "blood count"), row("lactate", "lactate in blood"), row("head_scan", "scan of the head")]


def orders(**changes: Any) -> RunRecord:
    """A workup step: the set lactate and chest X-ray, drawn; 4 of 32 draws named nothing."""
    base = made.pneumonia()
    first, second = base.candidates
    chosen = {"chosen": ("lactate", "xray"), "answer_key": "lactate + xray", "answer": "lactate; chest X-ray"}
    other = {
        "chosen": ("blood_count", "lactate"),
        "answer_key": "blood_count + lactate",
        "answer": "blood count; lactate",
    }
    peers = ("lactate + xray", "blood_count + lactate", "ecg", None)
    fields: dict[str, Any] = {
        "step": "workup",
        "ranked": tuple(
            RankedAnswer(system=SYSTEM, code=code, display=ORDERS[code], probability=p) for code, p in SHARES.items()
        ),
        "chosen": ("lactate", "xray"),
        "draws": 32,
        "unparseable": 4,
        "candidates": (
            first.model_copy(update={**chosen, "draws": 16, "unparseable": 4, "peer_answers": peers}),
            second.model_copy(update={**other, "draws": 16, "unparseable": 0}),
        ),
    }
    return base.model_copy(update=fields | changes)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose pathway asks for a set out of six orders."""
    entries = "".join(f"  - {{code: {code}, display: {name}}}\n" for code, name in ORDERS.items())
    file = tmp_path / "orders.yaml"
    file.write_text(f"name: six-orders\nversion: 1\nsystem: {SYSTEM}\nsource: made up\nentries:\n{entries}")
    steps = f"steps: [{{name: workup, answer: {{form: set, most: 3, vocabulary: {{fhir: '{file}'}}}}}}]"
    return Run(
        **{f: getattr(made.RUN, f) for f in made.RUN.__dataclass_fields__} | {"config": {"pathway": {"text": steps}}}
    )


def pages_of(run: Run, record: RunRecord, *, blind: bool = False, score: Any = None) -> dict[str, str]:
    return render(run, [StoredRecord(record, TRUTH, {"term": 0})], score, blind=blind)


def case_words(run: Run, record: RunRecord, **more: Any) -> str:
    return words_of(Page(pages_of(run, record, **more)[CASE]))


def test_a_set_is_shown_with_every_item_and_its_own_share(run):
    page = case_words(run, orders())
    assert "The model’s answer: a set of 2 lactate in 75 % of lists chest X-ray in 50 % of lists" in page
    assert "the shares do not add up to 100 %" in page
    shown, line = answer_data.bars(orders())
    assert [(b.display, b.share, b.chosen) for b in shown] == [
        ("lactate", "75\u00a0%", True), ("chest X-ray", "50\u00a0%", True), ("blood count", "25\u00a0%", False),
        ("ECG", "13\u00a0%", False), ("CT", "13\u00a0%", False),
    ]  # fmt: skip
    assert line.replace("\u00a0", " ") == "1 other item: none in more than 6 % of the lists."
    large = orders(chosen=("lactate", "xray", "blood_count", "ecg", "ct", "gas"))
    assert sum(b.chosen for b in answer_data.bars(large)[0]) == 6


def test_a_better_shared_item_outside_the_set_is_said(run):
    _, line = answer_data.bars(orders(ranked=orders().ranked[2:] + orders().ranked[:2], chosen=("blood_count", "ecg")))
    assert line.startswith("1\u00a0other item: none in more than")
    assert "An item outside the set has a larger share than one in it" in line


def test_the_recorded_set_lies_beside_it_behind_the_fold(run):
    html = step(pages_of(run, orders())[CASE], "workup")
    before, _, after = html.partition('<details class="fold">')
    for recorded in ("lactate in blood", "scan of the head", "in common: 1"):
        assert recorded not in before
        assert recorded in after
    fold = words_of(Page(f"<div>{after.partition('</details>')[0]}</div>"))
    assert "lactate lactate in blood catalogue (own list) lactate; entered in the record later both" in fold
    assert "chest X-ray – model only – blood count catalogue (own list) blood_count; entered" in fold
    # 1 in common of 2 chosen and 3 recorded: 1 of the 4 in either.
    assert "1 item in common: 1 of 2 in the model’s set is recorded, and 1 of 3 recorded is in the model’s set." in fold
    assert "Overlap 25 %" in fold
    assert "1 item of the recorded set is not among the possible answers" in fold
    assert "No same term" not in fold  # a mark of the first answer alone would say nothing of a set


def test_items_of_one_icd_category_count_once():
    ranked = (RankedAnswer(system=made.ICD, code="J18.9", display="pneumonia", probability=0.6),)
    record = orders(ranked=ranked, chosen=("J18.9",), vocabulary="general-ward-icd10")
    vocabulary = set_compare.vocabularies({})(record)
    labels = [{"system": made.ICD, "code": c, "display": c, "strength": "proxy"} for c in ("J18.1", "J18.0", "I10")]
    found = set_compare.compare(record, labels, vocabulary)
    assert found.short.replace("\u00a0", " ") == "1 of 2 items in common"
    assert [len(p.recorded) for p in found.pairs] == [2, 1]


def test_without_labels_or_list_nothing_is_compared(run):
    look_up = set_compare.vocabularies(run.config)
    assert set_compare.compare(orders(), [], look_up(orders())).short == "not scored"
    gone = set_compare.compare(orders(), TRUTH, set_compare.vocabularies({})(orders()))
    assert gone.short == "not compared"
    assert len(gone.pairs) == 5


def test_a_blind_report_of_a_set_shows_no_recorded_item(run):
    pages = pages_of(run, orders(), blind=True)
    assert "lactate in blood" not in "".join(pages.values())
    assert pages == render(run, [StoredRecord(orders(), [], {})], None, blind=True)


def test_the_check_of_a_set_says_how_much_is_in_common(run):
    page = case_words(run, orders())
    assert "the first turn lactate; chest X-ray same" in page
    assert "the first 2 turns blood count; lactate 1 of 3 items in common" in page
    assert "the first 3 turns ECG 0 of 3 items in common" in page
    assert "the first 4 turns no readable answer different" in page
    assert "It chose the same set in 1 of 4 runs. Agreement: 75 %" in page
    assert (
        "came to much the same set. Agreement: 75 % over 4 runs (items in both sets, of those in either; on average)."
        in page
    )
    assert "blood count; lactate. 3 of 16 lines of reasoning ended here; mean share of its items there 53 %" in page
    assert "1 of 3 items in common with the set above" in page
    assert set_data.in_common("a + b", "b + a") == ""


def test_an_undecided_set_is_not_called_an_answer(run):
    page = case_words(run, orders(status="abstain"))
    assert "No answer Leading: lactate; chest X-ray 63 % mean share of its items" in page
    assert "Leading set, which the model did not give" in page


def test_the_list_of_case_steps_names_the_whole_set(run):
    page = words_of(Page(pages_of(run, orders())["index.html"]))
    assert "Work-up lactate; chest X-ray a set of 2 63 % mean of its items second reading agreed" in page
    assert "blood count; lactate in blood; scan of the head 1 of 4 items in common" in page
    assert "Draws of votes 28 of 32 named an answer" in page


def test_figures_of_a_first_answer_are_not_shown_for_a_set(run):
    of_step = made.score()["steps"]["admission_diagnosis"]
    f1 = {"set_f1_term": {"value": 0.4, "low": 0.2, "high": 0.6, "n": 24}}
    score = {"run": "demo", "steps": {"workup": {**of_step, "metrics": of_step["metrics"] | f1}}}
    page = words_of(Page(pages_of(run, orders(), score=score)["index.html"]))
    assert "First answer:" not in page
    assert "among the first" not in page
    assert "40 % agreement of the chosen and the recorded set (F1) 24 questions" in page
    assert "Figures that compare one first answer say nothing of a set" in page
    assert "Questions with a recorded set: 24" in page
    assert "Set against recorded set (F1): same test 40 % 20 % to 60 %" in page


def test_draws_that_named_no_answer_are_counted(run):
    page = case_words(run, orders())
    assert "draws of votes 28 of 32 draws named an answer" in page
    exact = case_words(run, made.pneumonia())
    assert "draws named" not in exact
    assert "none: no vote was drawn" in exact
    tree = words_of(Page(render_tree(orders(), "demo")))
    assert "Mean share of its items in the lists drawn 75 % Draws of its vote 12 of 16 draws named an answer" in tree
    end = tree_json(orders(), "demo")["nodes"][orders().winner]
    assert (end["chosen"], end["draws"], end["unparseable"]) == (["lactate", "xray"], 16, 4)


def test_the_page_of_the_tree_names_the_set(run):
    page = words_of(Page(render_tree(orders(), "demo")))
    assert "The model’s answer: lactate; chest X-ray 63 % mean share of its items in the lists drawn" in page
    assert "2 items, 75 %, check 75 %" in page


def test_cells_of_a_row_do_not_pretend_that_a_set_is_one_answer():
    ranked = [a.model_dump() for a in orders().ranked]
    cells = result_cells({"chosen": ["lactate", "xray"], "ranked": ranked, "truth": TRUTH, "match": {"term": 1}})
    assert cells == {
        "answer": "lactate; chest X-ray",
        "share": "0.62",
        "recorded": "blood count; lactate in blood; scan of the head",
        "match": "",
    }
    one = result_cells({"chosen": [], "ranked": ranked, "truth": TRUTH, "match": {"term": 1}})
    assert (one["answer"], one["share"], one["recorded"], one["match"]) == (
        "lactate",
        "0.75",
        "blood count",
        "same term",
    )


def test_the_tree_lies_on_the_page_of_its_case_and_the_rejected_branch_leads_into_it():
    html = render(made.RUN, made.stored(), made.score())[CASE]
    links = Page(html).values("href")
    for anchor in ("admission_diagnosis", "discharge_diagnosis"):
        assert f"#{anchor}-d{made.pneumonia().candidates[1].node}" in links
        own = step(html, anchor)
        drawn = own.count('<g class="node')
        assert own.count(f'id="{anchor}-turn-') == drawn == len(made.pneumonia().tree["nodes"])
        ended = made.pneumonia().candidates[1].node
        assert f'<path class="edge rejected" data-to="{ended}"' in own
        assert f'<path class="edge best" data-to="{made.pneumonia().winner}"' in own
    alone = [h for h in Page(render_tree(made.pneumonia(), "demo")).values("href") if h != "#main"]
    assert alone == []  # `wardstar tree` writes no page to go back to


def test_a_case_page_leaves_out_many_untried_turns():
    record = made.pneumonia()
    nodes = [dict(n) for n in record.tree["nodes"]]
    idle = {**nodes[-1], "visits": 0, "value_sum": 0.0, "answer": "", "answer_key": None, "kind": "think"}
    nodes += [{**idle, "id": len(nodes) + i, "parent": 0} for i in range(tree_svg.MAX_IDLE + 1)]
    large = record.model_copy(update={"tree": {"nodes": nodes}})
    html = step(render(made.RUN, [StoredRecord(large, [], {})], None)[CASE])
    tried = sum(bool(n["visits"]) for n in nodes)
    assert html.count('<g class="node') == tried
    assert f"Only {tried} of {len(nodes)} turns are drawn: those that were visited." in words_of(Page(html))
    assert render_tree(large, "demo").count('<g class="node') == len(nodes)


def test_a_drawing_much_wider_than_high_is_printed_sideways():
    def chain(columns: int, rows: int) -> list[dict[str, Any]]:
        nodes = [{"id": 0, "parent": None}]
        for _ in range(rows):
            for column in range(columns):
                nodes.append({"id": len(nodes), "parent": len(nodes) - 1 if column else 0})
        return [n | {"kind": "think", "visits": 1, "value_sum": 0.5, "item": "", "text": ""} for n in nodes]

    # 8 columns are 1,152 units wide: 2 rows fill the width of a sheet, 40 rows its height.
    assert tree_svg.is_wide(chain(8, 2))
    assert not tree_svg.is_wide(chain(8, 40))
    assert not tree_svg.is_wide([])
