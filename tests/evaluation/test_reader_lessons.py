"""Readings back into teaching: what clinicians said becomes targets, pairs and labels, and only with permission."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from readings import review_of
from taught_runs import CUE, FIRST, OPENING, PATIENTS, SECOND, THIRD, THOUGHT, candidates

from clinical_data.errors import BadInputError
from evaluation.reading.form import Verdict
from evaluation.store.run_store import RunStore
from evaluation.supervision.training_sets import SetOptions, export_set
from search.prompts import PEER_CUE

TRAIN, TUNING, HELD_OUT = (PATIENTS[s] for s in ("train", "tuning", "held-out"))
FINAL = OPENING + THOUGHT + SECOND + CUE
"""The prompt after which the search concluded: pneumonia."""


@pytest.fixture
def run(shelf):
    """A run whose three train cases are labelled pneumonia, heart failure, and nothing; the model said pneumonia."""
    run = shelf.begin("r")
    for number, labels in ((1, ("J18.9",)), (2, ("I50.9",)), (3, ())):
        shelf.add(run, number, TRAIN[number], *labels, winner=5)
    return run


def exported(shelf, kind, reviews, **options):
    """Returns rows and card of a set; `reviews` belong to the run as it is stored."""
    config_hash = RunStore(shelf.engine).get("r").config_hash
    given = [r if r.run_hash else replace(r, run_hash=config_hash) for r in reviews]
    card = export_set(
        shelf.engine, kind, ["r"], shelf.folder / kind, SetOptions(**options), reviews=lambda engine, run_id: given
    )
    lines = (shelf.folder / kind / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], card


def answers(rows):
    """Returns case -> (what is to be written, who says so), of the generator's answers."""
    chosen = [r for r in rows if (r["role"], r["turn"]) == ("generator", "answer")]
    return {r["case_id"]: (r["completion"].strip(), r["label_source"]) for r in chosen}


def test_without_readings_a_set_is_what_it_was(shelf, run):
    """`none` never asks for readings; `with` without any gives the same rows."""
    kinds = {"sft": {}, "preference": {"least_visits": 1}}
    for kind, options in kinds.items():
        export_set(
            shelf.engine, kind, ["r"], shelf.folder / "old", SetOptions(**options),
            reviews=lambda *_: pytest.fail("readings were asked for"),
        )  # fmt: skip
        old = (shelf.folder / "old" / "train.jsonl").read_bytes()
        exported(shelf, kind, [], readings="with", **options)
        assert (shelf.folder / kind / "train.jsonl").read_bytes() == old
        with pytest.raises(BadInputError, match="no row for train"):
            exported(shelf, kind, [], readings="only", **options)


def test_who_accepts_that_there_is_no_answer_does_not_teach_the_leading_one(shelf, run):
    """At case 5 the model abstained: readers were told that it gives no answer, whatever leads."""
    shelf.add(run, 5, TRAIN[4], winner=5, status="abstain")
    accepted = review_of(5)
    rows, card = exported(shelf, "sft", [accepted], readings="with")
    assert "fhir-5" not in {r["case_id"] for r in rows}
    assert card["left_out"]["reading that accepts that no answer was given"] == 1
    rows, _ = exported(shelf, "sft", [review_of(5, corrected=("J18",))], readings="with")
    assert answers(rows)["fhir-5"] == ("pneumonia", "reviewer")


def test_a_corrected_answer_is_the_target_and_the_label_stays_elsewhere(shelf, run):
    rows, card = exported(shelf, "sft", [review_of(1, corrected=("A41",))], readings="with")
    assert answers(rows) == {"fhir-1": ("sepsis", "reviewer"), "fhir-2": ("heart failure", "peer")}
    mine = [r for r in rows if r["case_id"] == "fhir-1"]
    assert {r["answer"] for r in mine} == {"A41"}
    assert {(r["label_source"], r["cold_start"]) for r in mine} == {("reviewer", True)}  # no branch concluded sepsis
    assert [r["prompt"] for r in mine] == [
        OPENING + THOUGHT,
        OPENING + THOUGHT + FIRST + CUE,  # likeliest there
        OPENING + THOUGHT + FIRST + PEER_CUE,
        OPENING + THOUGHT + FIRST + PEER_CUE + THIRD + CUE,
    ]
    assert card["options"]["readings"] == "with"
    assert card["splits"]["train"]["by"]["label_source"]["reviewer"] == 4
    assert any("word is that of clinicians" in limit for limit in card["limits"])
    rows, card = exported(shelf, "sft", [review_of(1, corrected=("A41",))], readings="only")
    assert answers(rows) == {"fhir-1": ("sepsis", "reviewer")}
    assert card["left_out"]["case-step without a reader's answer that may teach"] == 2


def test_an_accepted_answer_confirms_the_label_and_stands_where_none_is(shelf, run):
    """Of the second case the record says heart failure and the reader accepted pneumonia: the record's word stays."""
    rows, card = exported(shelf, "sft", [review_of(n) for n in (1, 2, 3)], readings="with")
    assert answers(rows) == {
        "fhir-1": ("pneumonia", "reviewer"),
        "fhir-2": ("heart failure", "peer"),
        "fhir-3": ("pneumonia", "reviewer"),
    }
    assert card["left_out"] == {"reading that accepts another answer than the recorded one": 1}
    rows, _ = exported(shelf, "sft", [review_of(n) for n in (1, 2, 3)], readings="only")
    assert set(answers(rows)) == {"fhir-1", "fhir-3"}


def test_nothing_appears_without_permission(shelf, run):
    """Neither answer, pair, rating nor what the reader disliked."""
    silent = [review_of(n, corrected=("A41",), ratings={0: 1, 1: 1}, may_train=False) for n in (1, 2, 3)]
    for kind in ("sft", "preference"):
        plain, _ = exported(shelf, kind, [])
        rows, card = exported(shelf, kind, silent, readings="with")
        assert rows == plain
        assert "sepsis" not in {r.get("completion", r.get("chosen")).strip() for r in rows}
        assert card["left_out"]["reading without permission to train"] == 3
        with pytest.raises(BadInputError, match="no row for train") as caught:
            exported(shelf, kind, silent, readings="only")
        assert "3 x reading without permission to train" in caught.value.hint
    with pytest.raises(BadInputError, match="no row for train") as caught:
        exported(shelf, "stepwise", silent, label_source="reviewer")
    assert "3 x reading without permission to train" in caught.value.hint


def test_readers_who_differ_teach_nothing_until_somebody_adjudicates(shelf, run):
    two = [review_of(1, "ann", corrected=("A41",)), review_of(1, "ben", corrected=("N17",))]
    rows, card = exported(shelf, "sft", two, readings="with")
    assert answers(rows)["fhir-1"] == ("pneumonia", "peer")
    assert card["left_out"]["reading that differs from another of its case-step, without an adjudication"] == 2
    judged = [*two, review_of(1, "eve", corrected=("N17",), adjudicates=True)]
    rows, card = exported(shelf, "sft", judged, readings="with")
    assert answers(rows)["fhir-1"] == ("aki", "reviewer")
    assert card["left_out"]["reading in whose place an adjudication stands"] == 2
    forbidden = [*two, review_of(1, "eve", corrected=("N17",), adjudicates=True, may_train=False)]
    rows, card = exported(shelf, "sft", forbidden, readings="with")
    assert answers(rows)["fhir-1"] == ("pneumonia", "peer")
    assert card["left_out"]["reading without permission to train"] == 1


def test_a_reading_without_permission_can_still_differ(shelf, run):
    two = [review_of(1, "ann", corrected=("A41",)), review_of(1, "ben", may_train=False)]
    rows, card = exported(shelf, "sft", two, readings="with")
    assert answers(rows)["fhir-1"] == ("pneumonia", "peer")
    assert card["left_out"]["reading that differs from another of its case-step, without an adjudication"] == 2


def test_readers_who_agree_teach_by_the_word_of_who_permits(shelf, run):
    two = [review_of(1, "ann", corrected=("A41",)), review_of(1, "ben", corrected=("A41",), may_train=False)]
    rows, card = exported(shelf, "sft", two, readings="with")
    assert answers(rows)["fhir-1"] == ("sepsis", "reviewer")
    assert card["left_out"] == {"no recorded label": 1, "reading without permission to train": 1}


def test_a_corrected_answer_that_cannot_be_written_leaves_the_record(shelf, run):
    reviews = [
        review_of(1, corrected=("K85",)),
        replace(review_of(2), verdict=Verdict.OVERRIDDEN),
    ]
    rows, card = exported(shelf, "sft", reviews, readings="with")
    assert answers(rows) == {"fhir-1": ("pneumonia", "peer"), "fhir-2": ("heart failure", "peer")}
    assert card["left_out"] == {
        "no recorded label": 1,
        "reading whose answer is outside the vocabulary": 1,
        "reading that overrides without another answer": 1,
    }


def test_readings_of_other_splits_are_left_out_and_counted(shelf, run):
    shelf.add(run, 4, TUNING[0], "J18.9", winner=5)
    shelf.add(run, 5, HELD_OUT[0], "J18.9", winner=5)
    reviews = [review_of(n, corrected=("A41",), ratings={0: 4}) for n in (1, 4, 5)]
    for kind, options in (("sft", {"readings": "with"}), ("preference", {"readings": "only"}),
                          ("stepwise", {"label_source": "reviewer"})):  # fmt: skip
        rows, card = exported(shelf, kind, reviews, **options)
        assert {r["case_id"] for r in rows} <= {"fhir-1", "fhir-2"}
        for split in ("tuning", "held-out"):
            assert card["left_out"][f"reading left out with its case-step (case of split {split})"] == 1
    exported(shelf, "sft", reviews, readings="only", splits=("train", "tuning"))
    tuning = (shelf.folder / "sft" / "tuning.jsonl").read_text().splitlines()
    assert {json.loads(line)["case_id"] for line in tuning} == {"fhir-4"}


def test_readings_of_another_state_are_left_out(shelf, run):
    shelf.add(run, 6, TRAIN[6], "J18.9", winner=5, hashes={**hashes_of(shelf), "case": "c" * 64})
    reviews = [
        review_of(1, corrected=("A41",), run_hash="another configuration"),
        review_of(6, corrected=("A41",), case_hash="d" * 64),
        review_of(99, corrected=("A41",)),
    ]
    rows, card = exported(shelf, "sft", reviews, readings="with")
    assert "sepsis" not in {said for said, _ in answers(rows).values()}
    assert card["left_out"] == {
        "no recorded label": 1,
        "reading of another state of the run or of the case": 2,
        "reading of a case-step that the run does not hold": 1,
    }
    rows, _ = exported(shelf, "sft", [review_of(6, corrected=("A41",), case_hash="c" * 64)], readings="only")
    assert answers(rows) == {"fhir-6": ("sepsis", "reviewer")}


def hashes_of(shelf):
    return next(RunStore(shelf.engine).records(RunStore(shelf.engine).get("r").run_id)).record.hashes


def test_an_override_is_a_pair_after_the_final_prompt(shelf, run):
    """Sepsis has 0.1 of the last vote and pneumonia 0.6: the reader's word against the model's."""
    rows, card = exported(shelf, "preference", [review_of(1, corrected=("A41",))], readings="with")
    (pair,) = [r for r in rows if r["pair"] == "override"]
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (FINAL, " sepsis\n", " pneumonia\n")
    assert (pair["chosen_score"], pair["rejected_score"]) == (pytest.approx(0.1), pytest.approx(0.6))
    assert (pair["label_source"], pair["answer"], pair["case_id"]) == ("reviewer", "A41", "fhir-1")
    assert card["splits"]["train"]["by"]["pair"]["override"] == 1
    assert (
        card["left_out"]["row that repeats another of its case"] == 1
    )  # the best wrong answer of that vote is the same
    prompts = {call.text for *_, call in RunStore(shelf.engine).calls(run.run_id)}
    mine = [r for r in rows if r["case_id"] == "fhir-1"]
    assert {r["prompt"] for r in mine} <= prompts
    assert {r["label_source"] for r in mine} == {"reviewer"}
    assert not [r for r in mine if r["chosen"].strip() == "pneumonia"]  # the record's word, which the reader set aside
    assert {r["label_source"] for r in rows if r["case_id"] == "fhir-2"} == {"record"}
    rows, _ = exported(shelf, "preference", [review_of(1, corrected=("A41",))], readings="only", answers_only=True)
    assert {r["case_id"] for r in rows} == {"fhir-1"}


def test_an_accepted_answer_is_no_override(shelf, run):
    rows, _ = exported(shelf, "preference", [review_of(1)], readings="only")
    assert {r["pair"] for r in rows} == {"conclusion"}
    assert {(r["chosen"], r["label_source"]) for r in rows} == {(" pneumonia\n", "reviewer")}


def test_turns_that_readers_disliked_are_not_taught(shelf, run):
    """The winning thought was rated 2: what follows from it is still taught, it itself is not."""
    rows, card = exported(shelf, "sft", [review_of(1, ratings={0: 2, 1: 5})], readings="with")
    mine = [(r["role"], r["turn"]) for r in rows if r["case_id"] == "fhir-1"]
    assert mine == [("generator", "answer"), ("peer", "thought"), ("peer", "answer")]
    assert card["left_out"]["turn that readers rated below acceptable"] == 1
    rows, card = exported(shelf, "sft", [review_of(1, ratings={0: 3})], readings="with")
    assert len([r for r in rows if r["case_id"] == "fhir-1"]) == 4


def test_no_pair_prefers_a_turn_that_readers_disliked(shelf):
    """Of the two thoughts the winning one raised the label; its reader found it harmful."""
    shelf.add(shelf.begin("r"), 1, TRAIN[1], "J18.9", winner=5)
    for rating, kept in ((3, 1), (1, 0)):
        rows, card = exported(shelf, "preference", [review_of(1, ratings={0: rating})], readings="with", least_visits=1)
        assert sum(r["pair"] == "branch" for r in rows) == kept
        assert all("disliked" not in r for r in rows)
        assert card["left_out"].get("turn that readers rated below acceptable", 0) == 1 - kept


def test_ratings_are_stepwise_labels(shelf, run):
    """The winning trajectory alone, up to the first turn without a rating."""
    reviews = [
        review_of(1, "ann", ratings={0: 2, 1: 4}),
        review_of(1, "ben", ratings={0: 1, 1: 5}),
        review_of(2, ratings={0: 3}),
        review_of(3, ratings={1: 5}),
    ]
    rows, card = exported(shelf, "stepwise", reviews, label_source="reviewer")
    assert [(r["case_id"], r["completions"]) for r in rows] == [
        ("fhir-1", [THOUGHT + SECOND, f"{CUE} pneumonia"]),
        ("fhir-2", [THOUGHT + SECOND]),
    ]
    assert [r["prompt"] for r in rows] == [OPENING] * 2
    assert [r["labels"] for r in rows] == [[False, True], [True]]
    assert [r["values"] for r in rows] == [[0.125, 0.875], [0.5]]
    assert [r["values_visits"] for r in rows] == [[0.6, 0.6], [0.6]]
    assert {r["label_source"] for r in rows} == {"reviewer"}
    assert all("answer" not in r and "values_record" not in r for r in rows)
    assert card["left_out"] == {"case-step that gives no stepwise row": 1}
    assert card["limits"][0].startswith("A turn's label and value are what readers rated it")


def test_turns_that_readers_rate_differently_wait_for_an_adjudication(shelf, run):
    two = [review_of(1, "ann", ratings={0: 2, 1: 4}), review_of(1, "ben", ratings={0: 4, 1: 4})]
    with pytest.raises(BadInputError, match="no row") as caught:
        exported(shelf, "stepwise", two, label_source="reviewer")
    assert "1 x turn that readers rated differently, without an adjudication" in caught.value.hint
    judged = [*two, review_of(1, "eve", ratings={0: 5}, adjudicates=True)]
    rows, _ = exported(shelf, "stepwise", judged, label_source="reviewer")
    assert [(r["labels"], r["values"]) for r in rows] == [([True, True], [1.0, 0.75])]
    silent = [*two, review_of(1, "eve", ratings={0: 5}, adjudicates=True, may_train=False)]
    with pytest.raises(BadInputError, match="no row"):
        exported(shelf, "stepwise", silent, label_source="reviewer")


def test_of_two_readings_by_one_reader_the_later_counts(shelf, run):
    reviews = [review_of(1, corrected=("N17",)), review_of(1, corrected=("A41",))]
    rows, card = exported(shelf, "sft", reviews, readings="with")
    assert answers(rows)["fhir-1"] == ("sepsis", "reviewer")
    assert "differs" not in json.dumps(card["left_out"])


def test_a_corrected_set_is_written_in_the_readers_order(shelf):
    one, wrong, right = (c.model_copy(update={"chosen": ("J18",)}) for c in candidates())
    run = shelf.begin("r", pathway=shelf.set_pathway())
    shelf.add(run, 1, TRAIN[0], "J18.9", candidates=(one, wrong, right), chosen=("J18",), winner=5)
    rows, _ = exported(shelf, "sft", [review_of(1, corrected=("A41", "N17"))], readings="with")
    assert answers(rows) == {"fhir-1": ("sepsis; aki", "reviewer")}
    pairs, _ = exported(shelf, "preference", [review_of(1, corrected=("A41", "N17"))], readings="with")
    (override,) = [r for r in pairs if r["pair"] == "override"]
    assert (override["chosen"], override["rejected"], override["margin"]) == (" sepsis; aki\n", " pneumonia\n", 1.0)


def test_equal_readings_give_equal_bytes(shelf, run):
    reviews = [review_of(1, corrected=("A41",), ratings={0: 2}), review_of(2, ratings={0: 5})]
    for kind, options in (("sft", {"readings": "with"}), ("stepwise", {"label_source": "reviewer"})):
        found = []
        for _ in range(2):
            exported(shelf, kind, reviews, **options)
            found.append({p.name: p.read_bytes() for p in (shelf.folder / kind).rglob("*") if p.is_file()})
        assert found[0] == found[1]


def test_a_corrected_case_step_is_left_out_of_the_runs_without_the_correction(shelf, run):
    """Of two runs over the same cases one was read: the record's word is not taught beside the reader's."""
    other = shelf.begin("s", seed=2)
    for number, labels in ((1, ("J18.9",)), (2, ("I50.9",))):
        shelf.add(other, number, TRAIN[number], *labels, winner=5, cases=False)
    hashes = {name: RunStore(shelf.engine).get(name).config_hash for name in ("r", "s")}

    def rows_of(*reviews, **options):
        by_run = {r.run_id: [] for r in (run, other)}
        for name, review in reviews:
            by_run[{"r": run, "s": other}[name].run_id].append(replace(review, run=name, run_hash=hashes[name]))
        card = export_set(
            shelf.engine, "sft", ["r", "s"], shelf.folder / "two", SetOptions(**options),
            reviews=lambda engine, run_id: by_run[run_id],
        )  # fmt: skip
        lines = (shelf.folder / "two" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return {(r["case_id"], r["completion"].strip()) for r in rows if r["turn"] == "answer"}, card

    corrected = review_of(1, corrected=("A41",))
    both = {("fhir-1", "pneumonia"), ("fhir-2", "heart failure")}
    assert rows_of(("r", corrected))[0] == both  # nobody asked for readings
    found, card = rows_of(("r", corrected), readings="with")
    assert found == {("fhir-1", "sepsis"), ("fhir-2", "heart failure")}
    assert card["left_out"]["case-step that a reader overrode in another run"] == 1
    found, _ = rows_of(("r", corrected), ("s", review_of(1)), readings="with")
    assert found == {("fhir-1", "sepsis"), ("fhir-2", "heart failure")}
    found, card = rows_of(("r", corrected), ("s", corrected), readings="with")
    assert found == {("fhir-1", "sepsis"), ("fhir-2", "heart failure")}
    assert not [name for name in card["left_out"] if "overrode" in name]
    found, card = rows_of(("r", corrected), ("s", review_of(1, corrected=("N17",))), readings="with")
    assert found == {("fhir-2", "heart failure")}
    assert card["left_out"]["case-step that readers of several runs overrode with different answers"] == 2
