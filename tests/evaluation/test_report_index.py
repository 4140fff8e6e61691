"""The first page: the headlined figure, who counts, the list, plots and tables; nothing of it in a blind report."""

from __future__ import annotations

from typing import Any

import pytest
import report_records as made
from run_records import case_of, record_of
from test_report import Page, words_of

from clinical_data.errors import UsageError
from clinical_data.store.case_store import CaseStore
from evaluation.metrics import ScoredStep, SetAnswer
from evaluation.metrics.intervals import Metric
from evaluation.metrics.request_cut import CutPoint
from evaluation.review.cohort import Cohort, Further, Judged, Person, gather
from evaluation.review.cohort_plots import step_plots
from evaluation.review.language import LANGUAGES
from evaluation.review.metric_words import interval_text
from evaluation.review.report import render, write_report
from evaluation.review.results import headline_names, headlines, results
from evaluation.scoring import score_run
from evaluation.store import open_database
from evaluation.store.run_store import RunStore, StoredRecord

STEP = "admission_diagnosis"


def m(value: float | None, low: float | None = None, high: float | None = None, n: int = 20, **more: Any) -> dict:
    return {"value": value, "low": low, "high": high, "n": n, **more}


def step_score(metrics: dict, baselines: dict | None = None) -> dict[str, Any]:
    return {"n": 20, "metrics": metrics, "baselines": baselines or {}}


def judged(i: int, right: int, recorded: str = "sepsis", answered: str = "sepsis", **more: Any) -> Judged:
    scored = ScoredStep(f"fhir-{i}", STEP, 1, "fhir", f"p{i}", "verified", {"ccsr": right}, labelled=True, **more)
    return Judged(scored, "ccsr", {"a": right}, recorded, answered)


def cohort(rows: list[Judged], people: dict[str, Person] | None = None, **more: Any) -> Cohort:
    return Cohort({j.scored.key: j for j in rows}, people or {}, **more)


@pytest.mark.parametrize(
    ("step", "metrics", "several", "first"),
    [
        ("discharge_diagnosis", ("accuracy_category", "accuracy_code", "accuracy_ccsr", "accuracy_chapter"), False,
         ["accuracy_ccsr", "accuracy_chapter"]),
        (STEP, ("accuracy_group", "top_5"), False, ["accuracy_group", "top_5"]),
        ("disposition", ("accuracy_term",), False, ["accuracy_term"]),
        ("differential", ("set_f1_category", "set_f1_ccsr", "set_f1_chapter", "recall_at_5"), True,
         ["recall_at_5", "set_f1_ccsr", "set_f1_chapter"]),
        ("workup", ("set_f1_term", "recall_at_5", "top_5"), True, ["set_f1_term", "recall_at_5"]),
        ("result_update", ("accuracy_group", "log_score_change"), False, ["log_score_change", "accuracy_group"]),
        (STEP, ("accuracy_category", "accuracy_code"), False, []),
    ],
)  # fmt: skip
def test_category_and_code_are_never_headlined(step, metrics, several, first):
    assert headline_names(step, {name: m(0.5) for name in metrics}, several) == first


def one_headline(gain: dict, other: float = 0.15) -> Any:
    score = {
        "steps": {
            STEP: step_score(
                {"accuracy_group": m(0.4, 0.2, 0.6), "gain_over_majority_class": gain | {"level": "group"}},
                {"majority_class": {"levels": {"accuracy_group": m(other, 0.05, 0.3)}}},
            )
        }
    }
    (found,) = headlines(score, set(), str)
    return found


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        (m(0.25, 0.1, 0.4), "25 points better than always the most frequent answer (15 %); 95 % interval 10 to 40."),
        (m(-0.25, -0.4, -0.1), "25 points worse than always the most frequent answer (15 %); 95 % interval 10 to 40."),
        (m(0.05, -0.1, 0.2),
         "No difference shown from always the most frequent answer (15 %): +5 points; 95 % interval −10 to +20."),
        (m(0.25, 0.1, 0.4, reason="few discordant: 4 patients differ"),
         "Too few patients differ to tell it from always the most frequent answer (15 %)."),
    ],
)  # fmt: skip
def test_a_headline_says_how_it_compares(gain, text):
    found = one_headline(gain)
    assert [v.replace("\u00a0", " ") for v in found.verdicts] == [text]
    assert found.value.replace("\u00a0", " ") == "40 %"
    assert found.sentence.replace("\u00a0", " ") == "8 of 20; 95 % interval 20 % to 60 %"
    assert [row[1].replace("\u00a0", " ") for row in found.rows] == ["40 %", "15 %"]


def test_secondary_figures_say_of_how_many_questions():
    metrics = {
        "accuracy_group": m(0.4, n=20), "top_5": m(0.75, 0.5, 0.9, n=12), "peer_agreement": m(1.0, n=9),
        "verified_misses": m(0.25, n=8),
    }  # fmt: skip
    score = {"steps": {STEP: step_score(metrics)}}
    (head,), (all_of_step,) = headlines(score, set(), str), results(score, set(), str)
    said = {name: (f.value, f.interval) for name, f in (*head.beside, *all_of_step.further)}
    assert {name: tuple(text.replace("\u00a0", " ") for text in texts) for name, texts in said.items()} == {
        "Recorded answer among the first 5": ("75 %", "9 of 12; 50 % to 90 %"),
        "Agreement of the second reading": ("100 %", "9 questions"),
        "Wrong although the second reading agreed": ("25 %", "2 of 8"),
    }
    assert "could not answer 31 % (24 questions; 20 % to 45 %)" in words_of(index())


def test_a_gain_at_another_level_says_nothing_of_the_headline():
    score = {"steps": {STEP: step_score(
        {"accuracy_ccsr": m(0.4), "gain_over_majority_class": m(0.25, 0.1, 0.4, level="category"),
         "gain_over_majority_class_ccsr": m(-0.25, -0.4, -0.1, level="ccsr")},
        {"majority_class": {"levels": {"accuracy_ccsr": m(0.65)}}},
    )}}  # fmt: skip
    (found,) = headlines(score, set(), str)
    assert len(found.verdicts) == 1
    assert "worse" in found.verdicts[0]


def test_a_figure_without_an_interval_says_so_and_one_without_width_is_not_shown_as_sure():
    metrics = {"accuracy_chapter": m(0.0, n=1), "gain_over_majority_class": m(0.0, 0.0, 0.0)}
    (found,) = headlines({"steps": {STEP: step_score(metrics)}}, set(), str)
    assert found.sentence.endswith("no interval")
    assert interval_text("gain_over_majority_class", metrics["gain_over_majority_class"]) == "too few patients"


def test_a_question_that_was_not_asked_names_the_patient_as_the_case_does():
    bare = StoredRecord(made.pneumonia(step="triage", vignette="", clock=None, status="not_applicable"), [], {})
    html = render(made.RUN, [bare, *made.stored()], None)["index.html"]
    assert "not recorded." not in html


def index(**more: Any) -> Page:
    return Page(render(made.RUN, made.stored(), made.score(), **more)["index.html"])


def test_the_first_screen_has_headlines_counts_and_reasons():
    page = words_of(index())
    assert "Recorded cases: 2 (fhir)" in page
    assert "54 % of first answers lie in the ICD chapter of the recorded diagnosis 12 of 23" in page
    assert "29 points better than always the most frequent answer (29 %)" in page
    # Questions, not asked, failed, no answer, no recorded answer, compared, of these outside.
    assert "Admission diagnosis 2 0 0 1 0 2 –" in page
    assert "Discharge diagnosis 2 1 0 0 0 1 –" in page
    assert "1 not asked: The stay had ended before the time of the question." in page
    assert page.index("Who counts") < page.index("Cases Search") < page.index("All figures")
    figures = page[page.index("All figures") :]
    assert figures.index("same chapter") < figures.index("same category")
    assert "whole chart at once, no search: no run named demo-full-information" in figures


def test_every_question_is_in_the_list_with_what_the_filters_ask():
    rows = [attrs for tag, attrs in index().tags if tag == "tr" and "data-step" in attrs]
    assert [(r["data-step"], r["data-state"], r["data-right"]) for r in rows] == [
        (STEP, "agreed", "right"),
        ("discharge_diagnosis", "disagreed", "wrong"),
        (STEP, "none", "wrong"),
        ("discharge_diagnosis", "not_applicable", "unscored"),
    ]


def test_the_table_of_information_is_there_with_its_comparison():
    page = words_of(index())
    assert "Which information decided" in page
    assert "Too few patients for any item, in 2 questions." in page


def full_cohort() -> Cohort:
    rows = [
        Judged(
            ScoredStep(s.record.case_id, s.record.step, 1, "fhir", s.record.patient_id, "verified", {"group": 1},
                       labelled=True, right=1),
            "group",
            {"pneumonia": 1, "pulmonary-embolism": 0, "heart-failure": 0, "copd-or-asthma-attack": 0},
            made.CANARY,
            "pneumonia",
        )
        for s in made.stored()
    ]  # fmt: skip
    people = {s.record.case_id: Person(67, "female", "fhir", "") for s in made.stored()}
    points = [CutPoint(k, Metric(0.5, 0.2, 0.8, 2), 1.0, 3.0) for k in range(3)]
    return cohort(rows, people, curves={STEP: points, "discharge_diagnosis": points})


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_blind_report_has_nothing_of_what_labels_gave(language):
    whole = full_cohort()
    shown = render(made.RUN, made.stored(), made.score(), whole, language=language)["index.html"]
    assert made.CANARY in shown
    assert shown.count('class="plot"') > 6
    blind = render(made.RUN, made.stored(), made.score(), whole, blind=True, language=language)["index.html"]
    bare = [StoredRecord(s.record, [], {}) for s in made.stored()]
    assert blind == render(made.RUN, bare, None, blind=True, language=language)["index.html"]
    for absent in ("data-right", "filter-right", 'class="plot"', "show-recorded", 'class="truth"', made.CANARY):
        assert absent not in blind
    assert 'id="information"' in blind
    if language == "en":
        text = words_of(Page(blind))
        for absent in ("Chance of the recorded answer", "Compared", "No recorded answer", "Results", "better than"):
            assert absent not in text


def test_every_plot_has_its_numbers_as_a_table_and_unique_ids():
    page = index(cohort=full_cohort())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("figure") == tags.count("figcaption") > 3
    named = {name for attr in ("aria-labelledby", "aria-describedby") for name in " ".join(page.values(attr)).split()}
    assert named <= set(ids)


def plots_of(whole: Cohort, score: dict | None = None) -> dict[str, Any]:
    steps = {STEP: score or step_score({"accuracy_ccsr": m(0.5)})}
    found = step_plots({"steps": steps}, whole, str)
    return {plot.title: plot for step in found for plot in step.plots}


def test_confusion_counts_answers_by_recorded_class():
    rows = [
        judged(1, 1), judged(2, 1), judged(3, 0, "sepsis", "stroke"), judged(4, 0, "stroke", "other thing"),
        judged(5, 0, "stroke", ""), judged(6, 0, "", "sepsis"),
    ]  # fmt: skip
    plot = plots_of(cohort(rows))["What was answered for what"]
    assert plot.rows == (("sepsis", "2", "1", "0", "0"), ("stroke", "0", "0", "1", "1"))
    assert "5 of 6 compared" in plot.notes[0]


def test_groups_say_when_they_are_too_small():
    rows = [judged(i, int(i < 6)) for i in range(20)]
    people = {
        f"fhir-{i}": Person(30 + i if i < 4 else 70, "female" if i % 2 else "male", "fhir", "A" if i < 12 else "B")
        for i in range(20)
    }
    plot = plots_of(cohort(rows, people))["Groups of patients"]
    found = {row[0]: row[1:] for row in plot.rows}
    assert found["all patients"][:2] == ("20", "30\u00a0%")
    assert (found["age 0 to 44"][0], found["age 0 to 44"][3]) == ("4", "too few patients")
    assert (found["women"][0], found["women"][3]) == ("10", "")
    assert found["hospital A"][:2] == ("12", "50\u00a0%")
    assert found["all smaller hospitals"][0] == "8"
    assert "source" not in " ".join(found)
    assert plot.notes[1] == "Under 10 patients, too few to conclude anything: age 0 to 44; all smaller hospitals."


def test_groups_of_a_differential_use_its_headline():
    answer = SetAnswer({"ccsr": frozenset("a")}, {"ccsr": frozenset("ab")}, 0.5)
    scored = ScoredStep("fhir-1", "differential", 1, "fhir", "p", "verified", {"ccsr": 1}, True, answer_set=answer)
    whole = cohort([Judged(scored, "ccsr", {}, "", "")], {"fhir-1": Person(None, "", "fhir", "")})
    (step,) = step_plots({"steps": {"differential": step_score({})}}, whole, str)
    assert [row[:3] for row in step.plots[0].rows] == [
        ("all patients", "1", "50\u00a0%"),
        ("age not recorded", "1", "50\u00a0%"),
        ("sex not recorded", "1", "50\u00a0%"),
    ]  # fmt: skip


def test_runs_stand_beside_each_other_in_order():
    points = [CutPoint(0, Metric(0.1, 0.0, 0.3, 9), 1.0, 0.0), CutPoint(1, Metric(0.2, 0.1, 0.4, 9), 1.0, 8.5)]
    own = {STEP: points}
    further = tuple(
        Further(label, f"evo-round{label}-tuning", {STEP: step_score({"accuracy_ccsr": m(v, v - 0.1, v + 0.1)})},
                own if label == "1" else {STEP: points[:1]})
        for label, v in (("0", 0.2), ("1", 0.3))
    )  # fmt: skip
    made_plots = plots_of(cohort([judged(1, 1)], curves=own, further=further))
    assert [r[:2] for r in made_plots["Beside other runs"].rows] == [
        ("0", "evo-round0-tuning"), ("1", "evo-round1-tuning"),
    ]  # fmt: skip
    cost = made_plots["What more requests bring"]
    assert [(r[0], r[1], r[2]) for r in cost.rows] == [
        ("This run", "0", "no charge"), ("This run", "1", "$8.50"), ("0", "0", "no charge"),
    ]  # fmt: skip


def test_calibration_shows_n_and_intervals_of_each_bin():
    bins = [{"above": 0.1, "up_to": 0.2, "n": 7, "probability": 0.16, "accuracy": 0.14, "low": 0.0, "high": 0.4}]
    score = step_score({"accuracy_ccsr": m(0.5), "expected_calibration_error": m(0.02, bins=bins), "brier": m(0.9)})
    plot = plots_of(cohort([]), score)["Does a large share of votes mean a right answer?"]
    assert [c.replace("\u00a0", " ") for c in plot.rows[0]] == ["10 %–20 %", "7", "16 %", "14 %", "0 % to 40 %"]
    assert "Brier score (0 best, 2 worst): 0.90" in plot.notes


CONFIG = {
    "pathway": {
        "text": "steps: [{name: admission_diagnosis, truth: admission_diagnosis, "
        "answer: {vocabulary: {fhir: general-ward-icd10}}}]"
    }
}


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'w.db'}", create=True)
    CaseStore(engine).put(case_of(1, "p1", "J18.9"))
    store = RunStore(engine)
    for name, answer in (("evo-round0-tuning", "I50"), ("evo-round1-tuning", "J15"), ("plain", "J18")):
        run = store.begin(name, "inpatient", CONFIG, {})
        nodes = [
            {"id": 0, "parent": None, "kind": "root", "item": "", "state": "", "visits": 2},
            {"id": 1, "parent": 0, "kind": "finish", "item": "", "state": "", "visits": 2, "terminal_visits": 2,
             "terminal_value": 0.5, "answer_key": answer},
        ]  # fmt: skip
        record = record_of(answer, case_id="fhir-1", patient="fhir-p1", tree={"nodes": nodes, "rollouts": [1, 1]})
        store.put(run.run_id, record, [], {}, [])
    other = store.begin("other", "emergency", CONFIG, {})
    store.put(other.run_id, record_of("J18", case_id="fhir-1", patient="fhir-p1"), [], {}, [])
    yield engine
    engine.dispose()


def gathered(engine, name: str, *compare: str) -> Cohort:
    score, store = score_run(engine, name), RunStore(engine)
    run = store.get(name)
    return gather(engine, run, list(store.records(run.run_id)), score, compare)


def test_answers_are_judged_at_the_level_that_is_headlined(engine):
    found = gathered(engine, "plain")
    (one,) = found.judged.values()
    assert (one.level, dict(one.right)) == ("ccsr", {"J18": 1})
    assert one.recorded == one.answered
    assert "respiratory" in one.recorded.lower()
    assert found.people == {"fhir-1": Person(60, "female", "fhir", "")}
    assert found.further == ()
    assert [(p.requests, p.accuracy.value) for p in found.curves[STEP]] == [(0, 1.0)]
    assert gathered(engine, "evo-round0-tuning").curves[STEP][0].accuracy.value == 0.0


def test_rounds_of_an_evolution_are_found_and_further_runs_added(engine):
    found = gathered(engine, "evo-round1-tuning", "plain")
    assert [(f.label, f.name) for f in found.further] == [
        ("0", "evo-round0-tuning"), ("1", "evo-round1-tuning"), ("plain", "plain"),
    ]  # fmt: skip
    assert found.further[1].curves is found.curves


@pytest.mark.parametrize(
    ("compare", "why"),
    [(["plain"], "compared with others"), (["other"], "pathway emergency"), (["gone"], "no run named gone")],
)
def test_what_cannot_be_compared_is_refused(engine, tmp_path, compare, why):
    with pytest.raises(UsageError, match=why):
        write_report(engine, "plain", tmp_path / "r", compare=compare)
    with pytest.raises(UsageError, match="blind report compares no runs"):
        write_report(engine, "plain", tmp_path / "r", compare=compare, blind=True)
    assert not (tmp_path / "r").exists()
