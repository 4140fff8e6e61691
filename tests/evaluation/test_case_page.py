"""The page of a case: evidence counted, lists kept apart, hindsight folded, two languages, and fit for every reader."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
import report_records as made
from test_report import CASE, Page, step, words_of

from clinical_data.case import Case, Coding, Finding, FindingKind
from clinical_data.errors import UsageError
from clinical_data.vocabulary import load_vocabulary
from evaluation.record import FindingRecord, RankedAnswer, RunRecord
from evaluation.review import answer_data, evidence, page_data
from evaluation.review.afterwards import Hindsight
from evaluation.review.language import use
from evaluation.review.rendering import asset
from evaluation.review.report import render
from evaluation.store.run_store import Run, StoredRecord

STEPS = (
    "steps: [{name: admission_diagnosis, title: Working diagnosis, answer: {vocabulary: {fhir: general-ward-icd10}}}]"
)


def finding(name: str, code: str, charted: int, available: int, kind: FindingKind = FindingKind.LABORATORY) -> Finding:
    return Finding(f"later-{name}", kind, Coding(made.LOINC, code, name), 1.0, charted, available, "mmol/L")


@pytest.fixture
def case() -> Case:
    """The chart with a lactate drawn before the clock and known after it, and a troponin taken three hours later."""
    later = (
        finding("Lactate", "2524-7", made.CLOCK - 30, made.CLOCK + 60),
        finding("Troponin T", "6598-7", made.CLOCK + 180, made.CLOCK + 200),
        finding("D-dimer", "48065-7", made.CLOCK + 3_000, made.CLOCK + 3_030),
    )
    whole = made.case()
    pending = replace(later[0], pending_from=made.CLOCK - 40)
    return replace(whole, findings=(*whole.findings, pending, *later[1:]))


@pytest.fixture
def run() -> Run:
    given = {f: getattr(made.RUN, f) for f in made.RUN.__dataclass_fields__}
    return Run(**given | {"config": {"pathway": {"text": STEPS}}})


def of(case: Case, **changes: Any) -> RunRecord:
    """The record of the pneumonia case, made from this chart."""
    record = made.pneumonia(**changes)
    return record.model_copy(update={"hashes": record.hashes | {"case": case.content_hash}})


def html_of(run: Run, case: Case, **more: Any) -> str:
    stored = [StoredRecord(of(case), made.truth(), {"group": 1})]
    return render(run, stored, None, case_of=lambda _: case, **more)[CASE]


def weighed(record: RunRecord) -> evidence.Evidence:
    path, trail = page_data.path_of(record), page_data.Trail()
    assert path is not None
    requests = page_data.requests_on(record, path.turns, trail)
    opening = page_data.requests_on(record, record.opening, trail, "given")
    return evidence.evidence(record, path, requests, opening, trail)


def test_evidence_is_counted_by_how_lines_of_reasoning_ended_with_an_item_and_without():
    # Pneumonia (4 rollouts) read vitals, blood count and X-ray; embolism (3) read vitals, and an angiogram in vain.
    found = weighed(made.pneumonia())
    said = {w.asked: w.counted.replace("\u00a0", " ") for w in found.pro}
    assert said["Blood count"] == "the answer in 4 of 4 lines of reasoning that had read it, in 0 of 3 that had not"
    assert set(said) == {"Blood count", "Chest x-ray"}
    assert found.against == ()
    even = [text.replace("\u00a0", " ") for text, _ in found.even]
    assert "Vital signs (read in all 7 lines of reasoning that reached an answer)" in even
    assert "Chief complaint (given at the start)" in even


def test_what_only_the_rejected_line_had_read_speaks_against():
    record = made.pneumonia()
    first, second = record.candidates
    swapped = made.pneumonia(winner=second.node)
    found = weighed(swapped)
    assert {w.asked for w in found.against} == {"Blood count", "Chest x-ray"}
    assert all(w.anchor.startswith("other-") for w in found.against)  # its rows lie in the table of the other lines
    assert "in 0 of 4" in found.against[0].counted.replace("\u00a0", " ")
    once = first.model_copy(update={"multiplicity": 1})
    few = weighed(made.pneumonia(candidates=(once, second)))
    assert few.pro == ()
    assert "too few to tell" in {a: t for t, a in few.even}["asked-2"]


def test_abnormal_findings_of_the_evidence_come_first_and_lead_to_their_rows(run, case):
    html = step(html_of(run, case))
    part = html.split('aria-labelledby="admission_diagnosis-evidence"')[1].split("</section>")[0]
    leukocytes = re.search(r'<a href="#([\w-]+)">White cells</a>', part)[1]
    row = html.split(f'<tr id="{leukocytes}">')[1].split("</tr>")[0]
    assert "17.4" in row
    said = " ".join(re.sub(r"<[^>]+>", " ", part).replace("\u00a0", " ").split())
    assert "White cells 17.4 10³/µL high (4–10.5), 1 h 35 min before admission, known 1 h 15 min later" in said


@pytest.mark.parametrize(
    ("value", "limits", "flag", "negative"),
    [
        ("13.2", "12-16", "", True),
        ("17.4", "4-10.5", "H", False),
        ("17.4", "4-10.5", "", False),
        ("3", "<= 4", "", True),
        ("2", ">= 3.5", "", False),
        ("No consolidation.", "", "", True),
        ("Nothing of note", "", "", False),
        ("not well", "", "", False),
        ("17.4", "", "", False),
    ],
)
def test_only_what_is_recorded_as_normal_or_absent_is_listed_as_negative(value, limits, flag, negative):
    one = FindingRecord(
        finding_id="f", name="n", value=value, range=limits, flag=flag, charted=0, available=0, kind="laboratory"
    )
    view = page_data.Trail().show(one)
    request = page_data.RequestView("a", "i", "Item", True, "recorded", "$1", (view,))
    assert bool(evidence.negatives([request])[0]) is negative
    silent = replace(request, answered=False)
    assert evidence.negatives([silent])[0] == ()


def test_values_of_one_name_share_a_row_with_the_last_first():
    values = [("86", 20), ("88", -150), ("87", -240)]
    rows = [
        FindingRecord(finding_id=v, name="Heart rate", value=v, unit="/min", charted=t, available=t, kind="vital")
        for v, t in values
    ]
    (view,) = page_data.Trail().show_all(rows)
    assert view.value == "86 /min"
    assert [e.replace("\u00a0", " ") for e in view.earlier] == [
        "87 /min (4 h before admission)",
        "88 /min (2 h 30 min before admission)",
    ]


def test_the_check_says_in_how_many_runs_it_agreed(run, case):
    page = words_of(Page(step(html_of(run, case))))
    assert "reached the same answer. Agreement: 75 %, in 3 of 4 runs." in page
    assert "Agreement of the second model with it: 25 %, in 1 of 4 runs." in page


def test_which_answer_led_is_told_after_each_request(run, case):
    page = words_of(Page(step(html_of(run, case))))
    assert "Leading at the start: pneumonia, in 4 of 7 lines of reasoning from here." in page
    assert "Leading after this: pneumonia, in the 4 of 4" not in page
    assert "Leading after this: pneumonia, in 4 of 4 lines of reasoning from here. Price so far: $8" in page


def test_what_was_not_known_at_the_clock_is_listed_and_what_was_done_later_folded(run, case):
    html = step(html_of(run, case))
    before, _, after = html.partition("What clinicians did afterwards")
    header = words_of(Page(before.split("</header>")[0] + "</header></article>"))
    assert "Results pending: lactate." in header
    assert re.search(r"Not done or not recorded by then: \d+ that could be asked for", header)
    assert "troponin and creatine kinase" in header
    assert "Troponin T" not in before
    said = words_of(Page(f"<div>{after.split('</details>')[0].partition('</summary>')[2]}</div>"))
    assert "Troponin and creatine kinase Troponin T 9 h after admission" in said
    assert "Results that came in" in said
    assert "Lactate Lactate 7 h after admission" in said
    assert "D-dimer" not in said  # more than a day later
    blind = html_of(run, case, blind=True)
    assert "Results pending: lactate." in words_of(Page(blind))
    assert "Troponin T" not in blind


def test_a_treatment_under_way_is_no_result_that_came_in(case):
    drug = Coding("http://www.nlm.nih.gov/research/umls/rxnorm", "7052", "morphine")
    begun = Finding("drug", FindingKind.TREATMENT, drug, "given", made.CLOCK - 30, made.CLOCK + 60)
    treated = replace(case, findings=(*case.findings, begun))
    found = Hindsight({"pathway": {"text": STEPS}}, lambda _: treated).afterwards(of(treated))
    assert found is not None
    assert [deed.names for deed in found.results] == ["Lactate"]


def test_what_must_not_be_missed_is_not_said_to_be_looked_for(run, case):
    ranked = (RankedAnswer(system=made.ICD, code="I26.99", display="pulmonary embolism", probability=0.3),)
    stored = [StoredRecord(of(case, ranked=ranked, vocabulary="general-ward-icd10"), [], {})]
    page = words_of(Page(step(render(run, stored, None, case_of=lambda _: case)[CASE])))
    assert "With a share of the votes, among what must not be missed:" in page
    assert "a small one, does not rule it out" in page


def test_a_case_that_changed_since_the_run_tells_nothing(case):
    look = Hindsight({"pathway": {"text": STEPS}}, lambda _: case)
    assert look.unknown(of(case)) is not None
    assert look.unknown(made.pneumonia()) is None
    assert look.afterwards(made.pneumonia()) is None
    assert Hindsight({}, lambda _: case).unknown(of(case)) is None
    assert Hindsight({"pathway": {"text": STEPS}}, lambda _: None).afterwards(of(case)) is None


def test_what_must_not_be_missed_is_named_with_its_share():
    ranked = tuple(
        RankedAnswer(system=made.ICD, code=code, display=name, probability=p)
        for code, name, p in (
            ("J18.9", "pneumonia", 0.6),
            ("I26.99", "pulmonary embolism", 0.3),
            ("J44.1", "COPD", 0.1),
        )
    )
    vocabulary = load_vocabulary("general-ward-icd10")
    found = answer_data.dangers(made.pneumonia(ranked=ranked), vocabulary)
    assert found is not None
    assert found.answers == (("pneumonia", "60\u00a0%", True), ("pulmonary embolism", "30\u00a0%", False))
    assert answer_data.dangers(made.pneumonia(ranked=ranked[2:]), vocabulary).answers == ()
    assert answer_data.dangers(made.pneumonia(), load_vocabulary("triage-acuity")) is None


def test_a_step_is_called_as_its_pathway_calls_it_and_labels_of_triage_by_level(run, case):
    page = words_of(Page(html_of(run, case)))
    assert "Step 1 of 1: Working diagnosis What is the working diagnosis?" in page
    assert "admission_diagnosis" not in page.partition("About this search")[0]
    triage = render(made.RUN, [StoredRecord(made.pneumonia(step="triage"), made.truth(), {"group": 1})], None)[CASE]
    assert "Yes same triage level" in words_of(Page(triage))
    assert "diagnosis group" not in triage


def test_nothing_of_the_machine_is_said_before_the_end(run, case):
    html = re.sub(r'<div class="bench".*?fold-button.*?</div>\s*</div>', "", html_of(run, case), flags=re.DOTALL)
    body = words_of(Page(html)).partition("About this search")[0].casefold()
    for word in ("mcts", "rollout", "token", "seed", "hash", "uct", "node", "strategy"):
        assert not re.search(rf"\b{word}", body), word
    assert html.index("About this search") > html.index("Recorded label")


def test_the_page_speaks_chinese_and_keeps_what_was_recorded(run, case):
    page = html_of(run, case, language="zh")
    assert '<html lang="zh">' in page
    said = words_of(Page(page))
    for text in ("模型的答案", "不可漏诊", "支持与反对", "病历所载标签", "第 1 环节，共 1 个：入院诊断", "pneumonia"):
        assert text in said or text == "不可漏诊"
    fixed = re.sub(r"<article class=\"step\".*</article>", "", page, flags=re.DOTALL)
    assert "Retrospective research" not in fixed
    assert "Skip to the content" not in page
    with pytest.raises(UsageError):
        html_of(run, case, language="de")
    with use("en"):
        assert "The model’s answer" in html_of(run, case)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_headings_landmarks_and_tables_are_fit_for_a_screen_reader(run, case, language):
    page = Page(html_of(run, case, language=language))
    levels = [int(t[1]) for t, _ in page.tags if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    tags = [t for t, _ in page.tags]
    assert tags.count("main") == 1
    assert page.tags[tags.index("body") + 1][1]["href"] == "#main"
    navs = [a for t, a in page.tags if t == "nav"]
    assert all(a.get("aria-label") or a.get("aria-labelledby") for a in navs)
    for table in re.findall(r"<table.*?</table>", html_of(run, case, language=language), re.DOTALL):
        assert "<caption" in table
        assert 'scope="' in table
    for svg in [a for t, a in page.tags if t == "svg" and a.get("role")]:
        assert svg["aria-labelledby"] in page.values("id")
        assert svg["aria-describedby"] in page.values("id")


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2, "relative luminance"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_enough_contrast_in_light_and_in_dark():
    style = asset("style.css") + asset("tree_svg.css") + asset("tree.css")
    blocks = re.findall(r"\{([^{}]*--(?:paper|t-paper): #\w+;[^{}]*)\}", style)
    assert len(blocks) == 6  # page and tree, each light, dark and printed
    for block in blocks:
        colours = {
            n: v if len(v) == 7 else "#" + "".join(c * 2 for c in v[1:])
            for n, v in re.findall(r"--([\w-]+): (#\w+)", block)
        }
        paper = luminance(colours.get("paper") or colours["t-paper"])
        for name in ("ink", "soft", "accent", "t-ink", "t-soft", "t-accent", "t-no"):
            if name in colours:
                light, dark = sorted((paper, luminance(colours[name])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, block)


def test_eight_steps_of_sixteen_rollouts_stay_below_two_megabytes():
    steps = [made.pneumonia(step=f"step_{i}", clock=made.CLOCK + i) for i in range(8)]
    first = steps[0]
    nodes = [dict(n) for n in first.tree["nodes"]]
    idle = {**nodes[-1], "visits": 0, "value_sum": 0.0, "kind": "think", "text": "z" * 200, "answer_key": None}
    for turn in range(60):  # as many turns as 16 rollouts try
        nodes.append({**nodes[2], "id": len(nodes), "parent": turn % 2, "text": "y" * 300})
    nodes += [{**idle, "id": len(nodes) + i, "parent": 0} for i in range(60)]
    large = [StoredRecord(s.model_copy(update={"tree": {"nodes": nodes}}), made.truth(), {}) for s in steps]
    assert len(render(made.RUN, large, None)[CASE].encode()) < 2_000_000
