"""Agreement, automation bias and the export of readings, by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from readings import review_of
from run_records import GROUPED, STEP, WARD, truth_of
from taught_runs import PATIENTS, Shelf

from clinical_data.errors import UsageError
from clinical_data.vocabulary import Entry, Vocabulary
from evaluation.reading.agreement import agreement_of, compare
from evaluation.reading.agreement_words import agreement_remarks, agreement_rows, bias_rows
from evaluation.reading.bias import bias_figures, reader_rows
from evaluation.reading.export import COLUMNS, check_place, csv_text, reading_row
from evaluation.reading.form import HARM_SEVERITY, Own, Review, Say, Verdict
from evaluation.reading.read_steps import ReadStep, independent, read_steps
from evaluation.store.run_store import RunStore

ACUITY = Vocabulary(
    "acuity", "1", "wardstar:acuity", tuple(Entry(str(i), f"acuity {i}") for i in range(1, 6)), "4" * 64
)


def steps_of(numbers, model=("J18",), labels=("J18.9",), vocabulary=WARD, step=STEP, **more):
    return {
        (f"fhir-{n}", step, 1): ReadStep(
            f"p{n}", vocabulary, model=model, truth=truth_of(*labels, case_id=f"fhir-{n}", step=step), **more
        )
        for n in numbers
    }


def two(number, ann, ben, **more):
    """Two readers' own first answers."""
    return [review_of(number, "ann", first=(ann,), **more), review_of(number, "ben", first=(ben,), **more)]


def test_own_answers_are_compared_at_every_level():
    """J18 and J15 are two categories of one chapter, I50 is of another."""
    reviews = [*two(1, "J18", "J18"), *two(2, "J18", "J15"), *two(3, "J18", "I50"), *two(4, "I50", "I50")]
    found = compare(reviews, steps_of((1, 2, 3, 4)))
    figures = found["steps"][STEP]["figures"]
    raw = {name.partition(", ")[2]: f["raw"]["value"] for name, f in figures.items() if name.startswith("own answer b")}
    assert raw == {"code": 0.5, "category": 0.5, "ccsr": 0.5, "block": 0.75, "chapter": 0.75}
    chapter = figures["own answer before, chapter"]
    # ann J J J I, ben J J I I: observed 3/4, by the margins 3/4 * 2/4 + 1/4 * 2/4 = 1/2
    assert chapter["cohen"]["ann + ben"]["value"] == pytest.approx((0.75 - 0.5) / 0.5)
    assert "fleiss" not in chapter
    assert "cohen_quadratic" not in chapter
    assert (found["overlap"], found["readings"], found["case_steps"]) == (4, 8, 4)


def test_only_independent_readings_of_the_overlap_count():
    reviews = [
        *two(1, "J18", "J18"),
        review_of(1, "eve", first=("I50",), adjudicates=True),
        review_of(2, "ann"),
        review_of(3, "ann", first=("I50",)),
        review_of(3, "ann", first=("J18",)),  # again, and another way
        review_of(3, "ben"),
        review_of(9, "ann"),
    ]
    found = compare(reviews, steps_of((1, 2, 3)))
    assert (found["overlap"], found["case_steps"], found["readings"]) == (2, 3, 5)
    assert (found["adjudications"], found["unknown"]) == (1, 1)
    assert found["steps"][STEP]["figures"]["own answer before, category"]["raw"]["value"] == 1.0
    assert [review.first.codes for review in independent(reviews) if review.key[0] == "fhir-3"] == [("J18",), ("J18",)]


def test_none_of_them_is_an_answer_and_a_set_is_one():
    steps = {**steps_of((1, 2)), **steps_of((3,), several=True)}
    reviews = [
        *two(1, "J18", "J18"),
        review_of(2, "ann", first=()),
        review_of(2, "ben", first=()),
        review_of(3, "ann", first=("J18", "A41")),
        review_of(3, "ben", first=("A41", "J18")),
    ]
    figures = compare(reviews, steps)["steps"][STEP]["figures"]["own answer before, category"]
    assert (figures["raw"]["value"], figures["n"]) == (1.0, 3)
    assert figures["alpha_nominal"]["value"] == pytest.approx(1.0)


def test_the_corrected_answer_of_who_accepted_is_the_models():
    reviews = [
        review_of(1, "ann"),
        review_of(1, "ben", corrected=("J18",)),
        review_of(2, "ann"),
        review_of(2, "ben", corrected=("I50",)),
        review_of(3, "ann"),
        replace(review_of(3, "ben"), verdict=Verdict.OVERRIDDEN),  # says no other: nothing to compare
    ]
    figures = compare(reviews, steps_of((1, 2, 3)))["steps"][STEP]["figures"]
    assert (figures["corrected answer, category"]["raw"]["value"], figures["corrected answer, category"]["n"]) == (
        0.5,
        2,
    )
    assert figures["verdict"]["raw"]["value"] == 0.0


def test_questions_with_an_order_have_weighted_and_ordinal_figures():
    """Harm: none-none, none-death, mild-mild; ratings are compared turn by turn; what was left open is missing."""
    said = (("none", "none"), ("none", "death"), ("mild", "mild"), ("", "severe"))
    reviews = []
    for number, (ann, ben) in enumerate(said, start=1):
        reviews += [
            review_of(number, "ann", harm_severity=ann, ratings={0: 5, 1: 3}),
            review_of(number, "ben", harm_severity=ben, ratings={0: 4}),
        ]
    figures = compare(reviews, steps_of(range(1, 5)))["steps"][STEP]["figures"]
    harm = figures["harm severity"]
    assert harm["n"] == 3
    # squares 0, 16, 0: 16/3; margins none 2/3, mild 1/3 against none, death, mild 1/3: 2/9 (0+16+1) + 1/9 (1+9+0)
    expected = (2 * 17 + 10) / 9
    assert harm["cohen_quadratic"]["ann + ben"]["value"] == pytest.approx(1 - (16 / 3) / expected)
    assert harm["cohen_linear"]["ann + ben"]["value"] == pytest.approx(1 - (4 / 3) / ((2 * 5 + 4) / 9))
    assert harm["alpha_ordinal"]["value"] is not None
    assert set(HARM_SEVERITY) >= {"none", "death", "mild"}
    assert (figures["rating of a turn"]["n"], figures["rating of a turn"]["raw"]["value"]) == (4, 0.0)
    assert "harm likelihood" not in figures


def test_urgency_is_ordered_and_none_of_them_has_no_place():
    steps = steps_of((1, 2, 3), vocabulary=ACUITY, model=("3",), step="triage")
    reviews = []
    for number, (ann, ben) in enumerate((("1", "2"), ("3", "3"), ("", "5")), start=1):
        reviews += [
            review_of(number, name, key=(f"fhir-{number}", "triage", 1), first=(code,) if code else ())
            for name, code in (("ann", ann), ("ben", ben))
        ]
    figures = compare(reviews, steps)["steps"]["triage"]["figures"]["own answer before, term"]
    assert figures["n"] == 2
    # 1-2, 3-3: mean square 1/2; margins 1, 3 against 2, 3: (1 + 4 + 1 + 0) / 4
    assert figures["cohen_quadratic"]["ann + ben"]["value"] == pytest.approx(1 - 0.5 / 1.5)


def test_three_readers_have_fleiss_and_every_pair():
    reviews = [r for n in (1, 2, 3) for r in (*two(n, "J18", "I50"), review_of(n, "cy", first=("J18",)))]
    found = compare(reviews, steps_of((1, 2, 3)))
    figures = found["steps"][STEP]["figures"]["own answer before, category"]
    assert set(figures["cohen"]) == {"ann + ben", "ann + cy", "ben + cy"}
    assert figures["fleiss"]["readers"] == 3
    assert figures["fleiss"]["value"] == pytest.approx((1 / 3 - 5 / 9) / (1 - 5 / 9))
    (row,) = [r for r in agreement_rows(found) if r["question"].startswith("own answer before")]
    assert row["question"] == "own answer before, code, category, ccsr, block, chapter"  # one figure at all levels
    assert "Cohen" not in row
    assert row["Fleiss"].startswith("-0.50")


def test_steps_of_several_sources_and_all_steps_together():
    other = ("eicu-1", "workup", 1)
    steps = {**steps_of((1,)), other: ReadStep("p9", GROUPED, model=("mi",))}
    reviews = [*two(1, "J18", "I50"), *(replace(r, key=other) for r in two(2, "mi", "mi"))]
    found = compare(reviews, steps)
    assert list(found["steps"]) == [STEP, "workup", "all steps"]
    assert "own answer before, group" in found["steps"]["workup"]["figures"]
    assert found["steps"]["all steps"]["figures"]["verdict"]["n"] == 2
    assert not [name for name in found["steps"]["all steps"]["figures"] if name.startswith("own answer")]
    assert found["bias"]["accuracy_before"]["n"] == 2  # of the other nothing is recorded


def changes():
    """Four readings beside a wrong model (I50, recorded J18), three beside a right one."""
    wrong, right = steps_of((1, 2, 3, 4), model=("I50",)), steps_of((5, 6, 7))
    said = (
        (1, "J18", "I50", ()),  # talked out of the right answer, and accepts
        (2, "J18", "J18", ("J18",)),
        (3, "A41", "I50", ()),  # moves from one wrong answer to the model's
        (4, "I50", "I50", ()),  # had the model's wrong answer already
        (5, "A41", "J18", ()),  # put right
        (6, "A41", "A41", ("A41",)),
        (7, "J18", "J18", ()),
    )
    reviews = [review_of(n, f"r{n % 2}", first=(a,), after=(b,), corrected=c) for n, a, b, c in said]
    return reviews, {**wrong, **right}


def test_automation_bias_by_hand():
    reviews, steps = changes()
    found = {name: (m.value, m.n) for name, m in bias_figures(reviews, steps, 0).items()}
    assert found == {
        "accuracy_before": (pytest.approx(3 / 7), 7),
        "accuracy_after": (pytest.approx(3 / 7), 7),
        "accuracy_change": (0.0, 7),
        "accuracy_model": (pytest.approx(3 / 7), 7),
        "moved_to_wrong_model": (pytest.approx(2 / 3), 3),
        "moved_to_right_model": (0.5, 2),
        "commission": (0.5, 2),
        "rescue": (0.5, 2),
        "accepted_wrong_model": (0.75, 4),
        "accepted_right_model": (pytest.approx(2 / 3), 3),
    }
    intervals = bias_figures(reviews, steps, 0)
    assert intervals["accuracy_before"].low < 3 / 7 < intervals["accuracy_before"].high
    assert intervals["accuracy_change"].reason.startswith("few discordant: 2 patients")


def test_a_case_step_without_label_or_answer_says_nothing_of_bias():
    steps = {**steps_of((1,), labels=()), **steps_of((2,), model=()), **steps_of((3,), labels=("K85.9",))}
    found = bias_figures([review_of(n) for n in (1, 2, 3)], steps, 0)
    assert (found["accuracy_before"].value, found["accuracy_before"].n) == (
        0.0,
        1,
    )  # outside the list: everybody misses
    assert found["commission"].value is None
    assert found["commission"].reason == "no case-step to compute it from"


def test_a_set_is_right_from_a_half():
    step = steps_of((1,), labels=("J18.9", "A41.9"), several=True)["fhir-1", STEP, 1]
    assert [step.right(codes) for codes in (("J18",), ("J18", "I50", "N17"), ("A41", "J18"), ())] == [
        True, False, True, False,
    ]  # fmt: skip
    assert step.same(("J18", "A41"), ("A41", "J18"))
    assert not step.same((), ())


def test_readers_are_listed():
    reviews, steps = changes()
    assert reader_rows(reviews, steps)[1] == {
        "reader": "r1", "readings": 4, "with_label": 4, "right_before": 2, "right_after": 2, "overridden": 0,
        "median_minutes": 6.0,
    }  # fmt: skip


def test_tables_and_remarks():
    reviews = [*two(1, "J18", "J18"), *two(2, "J18", "I50")]
    found = compare(reviews, steps_of((1, 2)))
    rows = agreement_rows(found)
    row = next(r for r in rows if r["question"].startswith("own answer before, code, category"))
    assert (row["step"], row["n"], row["same answer"]) == ("admission diagnosis", "2", "0.50 (0.00 to 1.00)")
    assert row["Cohen"].startswith("0.00")
    remarks = agreement_remarks(found)
    assert remarks[0].startswith("4 readings of 2 case-steps by 2 readers; 2 case-steps by two and more")
    assert any("every answer is the same" in line and "verdict: cohen ann + ben" in line for line in remarks)
    assert len(bias_rows(found)) == 10
    none = compare([], {})
    assert (agreement_rows(none), none["overlap"]) == ([], 0)
    assert "no case-step was read by two readers: no agreement to tell" in agreement_remarks(none)
    assert json.dumps(found, allow_nan=False)


def test_case_steps_are_read_from_the_store(tmp_path):
    shelf = Shelf(tmp_path)
    run = shelf.begin("r")
    patient = PATIENTS["held-out"][0]
    shelf.add(run, 1, patient, "J18.9")
    steps = read_steps(shelf.engine, run, [("fhir-1", STEP, 1), ("fhir-2", STEP, 1)])
    assert list(steps) == [("fhir-1", STEP, 1)]
    (step,) = steps.values()
    assert (step.patient_id, step.model, step.right(("J18",)), step.levels[0]) == (
        f"fhir-{patient}",
        ("J18",),
        True,
        "code",
    )
    found = agreement_of(shelf.engine, "r", [*two(1, "J18", "J18"), review_of(2)])
    assert (found["run"], found["overlap"], found["unknown"]) == ("r", 1, 1)
    assert RunStore(shelf.engine).get("r").run_id == run.run_id
    shelf.engine.dispose()


def test_a_row_holds_every_field_and_the_columns_are_on_the_page():
    review = review_of(
        1, corrected=("A41", "N17"), ratings={0: 3}, remark="=1+1", would_ask=("lab.cbc",),
        unsafe='no "fluids"\nat all', record_wrong=Say.YES,
    )  # fmt: skip
    row = reading_row(review)
    assert tuple(row) == COLUMNS
    assert len(COLUMNS) == len(fields(Review)) + 2 + 2 * (len(fields(Own)) - 1)
    assert (row["case_id"], row["step"], row["occurrence"]) == ("fhir-1", STEP, 1)
    assert (row["first_codes"], row["first_confidence"], row["ratings"]) == (["J18"], 70, {"0": 3})
    assert (row["verdict"], row["reason"], row["record_wrong"]) == ("overridden", "wrong-diagnosis", "yes")
    assert (row["corrected"], row["may_train"], row["remark"]) == (["A41", "N17"], True, "=1+1")
    assert json.loads(json.dumps(row)) == row
    (read,) = csv.DictReader(io.StringIO(csv_text([review]), newline=""))
    assert (read["corrected"], read["remark"], read["may_train"]) == ('["A41", "N17"]', "'=1+1", "true")
    assert read["unsafe"] == review.unsafe
    page = (Path(__file__).parents[2] / "docs" / "agreement.md").read_text(encoding="utf-8")
    assert not [name for name in COLUMNS if f"`{name}`" not in page]


def test_another_file_is_never_overwritten(tmp_path):
    for name in ("notes.csv", "notes.jsonl"):
        (tmp_path / name).write_text('{"mine": 1}\n')
        with pytest.raises(UsageError, match="holds something else than readings"):
            check_place(tmp_path / name)
    with pytest.raises(UsageError, match=r"written as \.jsonl or \.csv"):
        check_place(tmp_path / "readings.xlsx")
    (tmp_path / "a.csv").write_text(csv_text([review_of()]))
    (tmp_path / "a.jsonl").write_text(json.dumps(reading_row(review_of())) + "\n")
    for name in ("a.csv", "a.jsonl", "new.csv"):
        check_place(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="holds something else"):
        check_place(tmp_path / "folder.csv")
