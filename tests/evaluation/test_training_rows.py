"""Rows of training sets, worked out by hand from one small stored search."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from run_records import WARD, truth_of
from taught_runs import CUE, FIRST, OPENING, PATIENTS, SECOND, THIRD, THOUGHT, calls_of, candidates

from clinical_data.errors import BadInputError, StorageError, UsageError
from clinical_data.vocabulary import load_vocabulary
from evaluation.record import FindingRecord, TurnRecord
from evaluation.store.run_store import RunStore
from evaluation.supervision.shaping import balanced, contradictions, without_repetition, without_reversed
from evaluation.supervision.targets import target_of
from evaluation.supervision.training_sets import SetOptions, export_set
from search.prompts import PEER_CUE

TRAIN, TUNING, HELD_OUT = (PATIENTS[s] for s in ("train", "tuning", "held-out"))


def exported(shelf, kind, *runs, **options):
    card = export_set(shelf.engine, kind, runs or ("r",), shelf.folder / kind, SetOptions(**options))
    lines = (shelf.folder / kind / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], card


def said(rows):
    return [(r["role"], r["turn"], r["prompt"], r["completion"]) for r in rows]


def test_the_best_verified_trajectory_that_agrees_is_taught(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    rows, card = exported(shelf, "sft")
    prefix = OPENING + THOUGHT + SECOND
    assert said(rows) == [
        ("generator", "thought", OPENING + THOUGHT, f"{SECOND}\n"),
        ("generator", "answer", prefix + CUE, " pneumonia\n"),
        ("peer", "thought", prefix + PEER_CUE, f"{THIRD}\n"),
        ("peer", "answer", prefix + PEER_CUE + THIRD + CUE, " pneumonia\n"),
    ]
    assert {(r["label_source"], r["cold_start"], r["verified"], r["answer"]) for r in rows} == {
        ("peer", False, True, "J18")
    }
    assert (rows[0]["case_id"], rows[0]["patient_id"], rows[0]["split"]) == ("fhir-1", f"fhir-{TRAIN[0]}", "train")
    assert card["splits"]["train"]["cold_start_share"] == 0.0


def test_an_agreeing_trajectory_without_the_peer_comes_second(shelf):
    one, wrong, right = candidates()
    unverified = right.model_copy(update={"agreement": 0.25})
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "I50.9", candidates=(one, wrong.model_copy(update={"agreement": 0.0})))
    shelf.add(RunStore(shelf.engine).get("r"), 2, TRAIN[1], "J18.9", candidates=(one, wrong, unverified))
    rows, _ = exported(shelf, "sft")
    generator = {r["case_id"]: r for r in rows if r["role"] == "generator" and r["turn"] == "answer"}
    assert {c: (r["label_source"], r["verified"]) for c, r in generator.items()} == {
        "fhir-1": ("vote", False),
        "fhir-2": ("vote", False),
    }
    assert generator["fhir-1"]["completion"] == " heart failure\n"


def test_a_cold_start_takes_the_likeliest_branch_and_the_label(shelf):
    """Sepsis has 0.2, 0.25 and 0.1: the first thought is taught, and its peer's completion, with the label."""
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "A41.9")
    rows, card = exported(shelf, "sft")
    assert [(r["role"], r["turn"], r["completion"]) for r in rows] == [
        ("generator", "thought", f"{FIRST}\n"),
        ("generator", "answer", " sepsis\n"),
        ("peer", "thought", f"{THIRD}\n"),
        ("peer", "answer", " sepsis\n"),
    ]
    assert {(r["label_source"], r["cold_start"], r["verified"]) for r in rows} == {("record", True, False)}
    assert card["splits"]["train"]["cold_start_share"] == 1.0
    assert card["splits"]["train"]["cold_start_share_by_run"] == {"r": 1.0}


def test_a_turn_that_was_cut_is_not_taught_but_stays_in_prompts(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9", calls=calls_of(tokens=40))
    rows, card = exported(shelf, "sft")
    assert [(r["role"], r["turn"]) for r in rows] == [("generator", "answer"), ("peer", "thought"), ("peer", "answer")]
    assert SECOND in rows[0]["prompt"]
    assert card["left_out"] == {"turn empty, or cut by the limit of tokens": 1}


def test_pairs_by_hand(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    rows, card = exported(shelf, "preference", least_visits=1)
    branch = rows[0]
    assert (branch["pair"], branch["prompt"]) == ("branch", OPENING + THOUGHT)
    assert (branch["chosen"], branch["rejected"]) == (f"{SECOND}\n", f"{FIRST}\n")
    assert (branch["chosen_score"], branch["rejected_score"]) == (pytest.approx(0.6), pytest.approx(0.2))
    assert (branch["margin"], branch["score_before"]) == (pytest.approx(0.4), pytest.approx(0.4))  # concluding at once
    assert (branch["chosen_visits"], branch["rejected_visits"]) == (1, 2)
    found = {r["prompt"]: (r["chosen"], r["rejected"], round(r["margin"], 9)) for r in rows[1:]}
    assert found == {
        OPENING + CUE: (" pneumonia\n", " heart failure\n", 0.1),
        OPENING + THOUGHT + FIRST + CUE: (" pneumonia\n", " heart failure\n", -0.3),
        OPENING + THOUGHT + SECOND + CUE: (" pneumonia\n", " heart failure\n", 0.4),
    }
    assert card["splits"]["train"]["by"]["pair"] == {"branch": 1, "conclusion": 3}
    assert (card["options"]["least_margin"], card["options"]["least_visits"]) == (0.01, 1)


def test_pairs_of_branches_that_may_be_chance_are_left_out(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    rows, card = exported(shelf, "preference")  # the chosen thought was visited once
    assert {r["pair"] for r in rows} == {"conclusion"}
    assert card["left_out"] == {"pair of branches by less than 0.01, or over fewer than 2 visits": 1}
    for least, kept in ((0.39, 1), (0.41, 0)):
        rows, _ = exported(shelf, "preference", least_visits=1, least_margin=least)
        assert sum(r["pair"] == "branch" for r in rows) == kept


def test_a_tuning_pair_that_train_has_the_other_way_round_is_left_out(shelf):
    """After the same prompts pneumonia is right for a taught patient, and heart failure for one of the tuning split."""
    run = shelf.begin("r")
    shelf.add(run, 1, TRAIN[0], "J18.9")
    shelf.add(run, 2, PATIENTS["tuning"][0], "I50.9")
    shelf.add(run, 3, PATIENTS["tuning"][1], "A41.9")
    rows, card = exported(shelf, "preference", splits=("train", "tuning"))
    tuning = [json.loads(line) for line in (shelf.folder / "preference" / "tuning.jsonl").read_text().splitlines()]
    taught = {(r["prompt"], r["chosen"], r["rejected"]) for r in rows}
    assert not [r for r in tuning if (r["prompt"], r["rejected"], r["chosen"]) in taught]
    assert {r["case_id"] for r in tuning} == {"fhir-3"}  # after the first thought 2 and 3 contradict each other
    assert card["left_out"]["pair of tuning that train has the other way round"] == 2


def test_a_split_that_no_run_holds_is_named(shelf):
    shelf.add(shelf.begin("r", split="train"), 1, TRAIN[0], "J18.9")
    with pytest.raises(BadInputError, match=r"no row for tuning\.jsonl") as caught:
        exported(shelf, "sft", splits=("train", "tuning"))
    assert "run r is of split train alone" in caught.value.hint


def test_no_pair_of_siblings_where_none_raised_the_label(shelf):
    """Heart failure: 0.3 at once, then 0.5 and 0.2: a pair. AKI: 0.1, then 0.05 and 0.1: none was raised."""
    run = shelf.begin("r")
    shelf.add(run, 1, TRAIN[0], "I50.9")
    shelf.add(run, 2, TRAIN[1], "N17.9")
    rows, _ = exported(shelf, "preference", least_visits=1)
    pairs = {r["case_id"]: (r["chosen"], r["rejected"]) for r in rows if r["pair"] == "branch"}
    assert pairs == {"fhir-1": (f"{FIRST}\n", f"{SECOND}\n")}


def test_turn_labels_and_values_by_hand(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    rows, _ = exported(shelf, "stepwise")
    assert [r["completions"] for r in rows] == [
        [f"{CUE} pneumonia"],
        [THOUGHT + FIRST, f"{CUE} heart failure"],
        [THOUGHT + SECOND, f"{CUE} pneumonia"],
    ]
    assert [r["labels"] for r in rows] == [[True], [False, False], [True, True]]
    assert [r["values"] for r in rows] == [[1.0], [0.0, 0.0], [1.0, 1.0]]
    assert [r["values_visits"] for r in rows] == [[0.4], [0.5, 0.5], [0.6, 0.6]]
    assert [r["visits"] for r in rows] == [[1], [2, 2], [1, 1]]
    assert [r["values_record"][0] for r in rows] == [pytest.approx(v) for v in (0.4, 0.2, 0.6)]
    assert {r["label_source"] for r in rows} == {"record"}


def test_turn_labels_of_peer_and_vote_need_no_recorded_label(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0])
    rows, _ = exported(shelf, "stepwise", label_source="peer")
    assert [r["labels"] for r in rows] == [[False], [True, True], [True, True]]
    assert [r["values"] for r in rows] == [[0.0], [0.5, 0.5], [1.0, 1.0]]
    rows, _ = exported(shelf, "stepwise", label_source="vote")  # the search answered pneumonia
    assert [r["labels"] for r in rows] == [[True], [False, False], [True, True]]
    assert all("values_record" not in r and "answer" not in r for r in rows)
    with pytest.raises(BadInputError, match="no row for train") as failed:
        exported(shelf, "stepwise")
    assert "1 x no recorded label" in failed.value.hint


def test_prompts_need_no_recorded_label_and_look_at_none(shelf):
    run = shelf.begin("r")
    shelf.add(run, 1, TRAIN[0])
    for number, code in enumerate(("J18.9", "I50.9"), start=2):
        shelf.add(run, number, TRAIN[number], code)
    rows, card = exported(shelf, "prompts")
    assert [r["case_id"] for r in rows] == ["fhir-1", "fhir-2", "fhir-3"]
    assert {r["prompt"] for r in rows} == {OPENING + THOUGHT + SECOND + CUE}  # verified, of the highest value
    assert all("answer" not in r for r in rows)
    assert {(r["completion"], r["label_source"]) for r in rows} == {(" pneumonia\n", "peer")}  # whatever is recorded
    assert (card["kind"], card["left_out"]) == ("prompts", {})
    assert card["splits"]["train"]["by"]["label_source"] == {"peer": 3}
    for options in ({"answers_only": True}, {"balance": True}, {"role": "peer"}, {"label_source": "peer"}):
        with pytest.raises(UsageError):
            exported(shelf, "prompts", **options)


def test_prompts_are_not_made_of_runs_that_recorded_labels_valued(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9", settings={"turn_tokens": 40, "value": "ground_truth"})
    with pytest.raises(BadInputError, match="no row for train"):
        exported(shelf, "prompts")


def test_only_the_splits_asked_for_and_never_held_out(shelf):
    run = shelf.begin("r")
    for number, patient in enumerate((TRAIN[0], TUNING[0], HELD_OUT[0], TUNING[1]), start=1):
        shelf.add(run, number, patient, "J18.9")
    rows, card = exported(shelf, "sft")
    assert {r["case_id"] for r in rows} == {"fhir-1"}
    assert card["left_out"] == {"case of split held-out": 1, "case of split tuning": 2}
    assert not (shelf.folder / "sft" / "tuning.jsonl").exists()
    rows, card = exported(shelf, "sft", splits=("tuning",))
    assert {r["case_id"] for r in rows} == {"fhir-1"}
    tuning = [json.loads(line) for line in (shelf.folder / "sft" / "tuning.jsonl").read_text().splitlines()]
    assert {(r["case_id"], r["split"]) for r in tuning} == {("fhir-2", "tuning"), ("fhir-4", "tuning")}
    assert card["splits"]["tuning"]["cases"] == 2
    with pytest.raises(UsageError, match="never taught"):
        exported(shelf, "sft", splits=("held-out",))


def test_a_label_outside_the_vocabulary_is_left_out(shelf):
    run = shelf.begin("r")
    shelf.add(run, 1, TRAIN[0], "J18.9")
    shelf.add(run, 2, TRAIN[1], "K85.9")
    rows, card = exported(shelf, "sft")
    assert {r["case_id"] for r in rows} == {"fhir-1"}
    assert card["left_out"] == {"label outside the vocabulary": 1}


def test_contradictions_are_kept_and_named_and_repetitions_are_not(shelf):
    """Three patients whose charts read alike; a second run says of the first what the first run said."""
    run, again = shelf.begin("r"), shelf.begin("s", seed=2)
    for number, label in ((1, "J18.9"), (2, "J18.9"), (3, "A41.9")):
        shelf.add(run, number, TRAIN[number], label)
    shelf.add(again, 1, TRAIN[1], "J18.9", cases=False)
    rows, card = exported(shelf, "sft", "r", "s", answers_only=True)
    assert [(r["case_id"], r["completion"]) for r in rows] == [
        ("fhir-1", " pneumonia\n"),
        ("fhir-2", " pneumonia\n"),
        ("fhir-3", " sepsis\n"),
    ]
    assert card["left_out"] == {"row that repeats another of its case": 1}
    assert card["contradictions"]["train"]["prompts"] == 0  # sepsis was likeliest after the other thought
    assert [run["name"] for run in card["runs"]] == ["r", "s"]
    alike = [{**row, "prompt": "p"} for row in rows]
    assert contradictions(alike, "sft") == {"prompts": 1, "rows": 3, "cases": ["fhir-1", "fhir-2", "fhir-3"]}
    assert without_repetition([*rows, *rows], "sft") == rows


def test_of_some_runs_answers_alone_can_be_taken(shelf):
    """One run teaches its turns as well, the other its answers: each row says of which it is."""
    for name, case in (("r", 1), ("s", 2)):
        shelf.add(shelf.begin(name, seed=case), case, TRAIN[case], "J18.9")
    rows, card = exported(shelf, "sft", answers_from=("s",))
    turns = {name: {r["turn"] for r in rows if r["run"] == name} for name in ("r", "s")}
    assert turns["s"] == {"answer"}
    assert "answer" in turns["r"]
    assert len(turns["r"]) > 1
    assert card["options"]["answers_from"] == ["s"]
    with pytest.raises(UsageError, match="run r is named by --run and by --answers-from"):
        exported(shelf, "sft", answers_from=("r",))


def test_pairs_the_other_way_round_are_both_left_out():
    rows = [{"prompt": "p", "chosen": a, "rejected": b} for a, b in (("x", "y"), ("y", "x"), ("x", "z"))]
    assert without_reversed(rows) == [rows[2]]


def test_balance_caps_a_class_at_the_median_size():
    sizes = {"a": 5, "b": 2, "c": 1}
    rows = [{"step": "s", "answer": a, "case_id": f"{a}{i}", "n": n} for a, k in sizes.items() for i in range(k)
            for n in range(2)]  # fmt: skip
    left = balanced(rows)
    assert Counter(r["answer"] for r in left) == {"a": 4, "b": 4, "c": 2}
    assert balanced(rows[::-1]) == left[::-1]


def test_too_long_rows_are_left_out_whole(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    most = len(OPENING + THOUGHT + SECOND) + 1
    rows, card = exported(shelf, "sft", most_characters=most)
    assert [r["turn"] for r in rows] == ["thought"]
    assert card["left_out"] == {f"row of more than {most} characters": 3}


def test_the_card_and_the_vocabulary_go_with_the_set(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    _, card = exported(shelf, "sft")
    folder = shelf.folder / "sft"
    assert json.loads((folder / "card.json").read_text()) == card
    (vocabulary,) = card["vocabularies"]
    assert load_vocabulary(str(folder / vocabulary["file"])).sha256 == vocabulary["sha256"] == shelf.vocabulary.sha256
    assert card["hashes"] == shelf.config()["hashes"]
    assert card["runs"][0]["config_hash"] == RunStore(shelf.engine).get("r").config_hash
    assert card["splits"]["train"]["by"]["turn"] == {"answer": 2, "thought": 2}
    text = (folder / "README.md").read_text()
    for words in ("sft set of r", "cold starts, of case-steps | 0%", "ODbL", "not for care", "ward-icd10.yaml: 4"):
        assert words in text


def test_the_same_runs_give_the_same_bytes_in_any_order(shelf):
    for name, seed in (("r", 1), ("s", 2)):
        run = shelf.begin(name, seed=seed)
        for number in (2, 1):
            shelf.add(run, number, TRAIN[number], "J18.9", cases=name == "r")
    files = []
    for runs in (("r", "s"), ("s", "r")):
        exported(shelf, "preference", *runs)
        folder = shelf.folder / "preference"
        files.append({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert files[0] == files[1]
    assert not list(shelf.folder.glob(".preference-*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pathway": {"name": "p", "version": "2", "sha256": "8"}}, "pathway"),
        ({"split_scheme": "hospital"}, "split scheme"),
        ({"vocabulary": "0"}, "vocabulary general-ward-icd10"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(shelf, changes, words):
    config = shelf.config()
    if "pathway" in changes:
        changes = {"pathway": {**config["pathway"], **changes["pathway"]}}
    if "vocabulary" in changes:
        changes = {"hashes": {**config["hashes"], "vocabulary general-ward-icd10": "0"}}
    shelf.begin("r")
    shelf.begin("s", **changes)
    with pytest.raises(UsageError, match=words):
        exported(shelf, "sft", "r", "s")


def test_a_run_of_other_prompts_is_refused(shelf):
    shelf.begin("r", hashes={**shelf.config()["hashes"], "prompts": "0"})
    with pytest.raises(UsageError, match="prompts are not those"):
        exported(shelf, "sft")


LATE = FindingRecord(finding_id="f", name="Sodium", value="1", charted=400, available=400, kind="laboratory")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hashes": {"prompts": "0"}}, r"case fhir-1, step admission_diagnosis, field hashes.prompts"),
        ({"calls": []}, "field calls"),
        ({"calls": calls_of(opening="Another text.")}, "field calls"),
        ({"opening": (TurnRecord(kind="opening", text="x", findings=(LATE,)),)}, "field opening.findings.available"),
        ({"clock": None}, "field clock"),
    ],
)
def test_a_record_that_is_not_what_it_should_be_is_named(shelf, changes, words):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9", **changes)
    with pytest.raises(BadInputError, match=f"run r, .*{words}"):
        exported(shelf, "sft")
    assert not (shelf.folder / "sft").exists()


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("calls", b"no", "calls cannot be read"),
        ("record_json", "{", "not JSON"),
        ("record_json", '{"version": 99}', "version 99"),
    ],
)
def test_a_damaged_row_of_the_database_is_named(shelf, column, value, words):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    with shelf.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE case_steps SET {column} = ?", (value,))
    with pytest.raises(StorageError, match=f"run r, case fhir-1, .*{words}"):
        exported(shelf, "sft")
    assert not (shelf.folder / "sft").exists()


def test_a_branch_whose_prompts_are_not_stored_is_left_out(shelf):
    calls = [call for call in calls_of() if SECOND not in call.text]
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9", calls=calls)
    rows, card = exported(shelf, "sft")
    assert said(rows) == [("generator", "answer", OPENING + CUE, " pneumonia\n")]
    assert card["left_out"] == {"trajectory whose prompts are not stored": 1}


def test_a_world_models_results_are_not_taught(shelf):
    one, wrong, right = candidates()
    dreamt = TurnRecord(kind="request", text="dreamt", item="sodium", imagined=True)
    others = [c.model_copy(update={"turns": (dreamt, *c.turns)}) for c in (wrong, right)]
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9", candidates=(one, *others))
    rows, card = exported(shelf, "stepwise")
    assert [r["completions"] for r in rows] == [[f"{CUE} pneumonia"]]
    assert card["left_out"] == {"trajectory with imagined results": 2}


def test_a_set_agrees_from_a_half_and_keeps_what_the_vocabulary_has():
    truth = truth_of("J18.9", "K85.9", "A41.9", "I50.9")
    target, reason = target_of(truth, WARD, 2)
    assert target is not None
    assert (target.words, target.code, reason) == (" pneumonia; sepsis", "J18 + A41", "")
    assert target.rightness(["A41", "J18"]) == 1.0
    assert target.rightness(["A41"]) == 0.5
    assert target.rightness(["A41", "I50"]) == pytest.approx(1 / 3)
    assert (target.agrees(["A41"]), target.agrees(["A41", "I50"]), target.agrees([])) == (True, False, False)
    one, _ = target_of(truth, WARD, None)
    assert one is not None
    assert (one.words, one.agrees(["J18"]), one.agrees(["A41"])) == (" pneumonia", True, False)
    assert target_of(truth_of("K85.9"), WARD, 2) == (None, "label outside the vocabulary")


def test_the_best_half_right_set_is_taught_with_the_records_items(shelf):
    """Of two recorded items the second trajectory names one: it agrees, and the record's set is written."""
    one, wrong, right = candidates()
    half = right.model_copy(update={"chosen": ("J18",)})
    others = [c.model_copy(update={"chosen": ("N17",), "answer_key": "N17"}) for c in (one, wrong)]
    run = shelf.begin("r", pathway=shelf.set_pathway())
    shelf.add(run, 1, TRAIN[0], "J18.9", "A41.9", candidates=(*others, half))
    rows, _ = exported(shelf, "sft")
    assert [(r["role"], r["turn"], r["completion"]) for r in rows] == [
        ("generator", "thought", f"{SECOND}\n"),
        ("generator", "answer", " pneumonia; sepsis\n"),
        ("peer", "thought", f"{THIRD}\n"),
        ("peer", "answer", " pneumonia; sepsis\n"),
    ]
    assert [(r["label_source"], r["cold_start"]) for r in rows] == [("record", False)] * 2 + [("record", True)] * 2
    pairs, _ = exported(shelf, "preference")
    found = {r["prompt"]: (r["chosen"], r["rejected"], r["margin"]) for r in pairs if r["pair"] == "conclusion"}
    assert found[OPENING + THOUGHT + SECOND + CUE] == (" pneumonia; sepsis\n", " pneumonia\n", 0.5)
    assert found[OPENING + CUE][2] == 1.0


def test_another_folder_is_never_overwritten(shelf):
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    (shelf.folder / "sft").mkdir()
    (shelf.folder / "sft" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        exported(shelf, "sft")
    assert (shelf.folder / "sft" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("card", "rows"), [('{"status": "complete"}', True), ('{"kind": "sft"}', False), ("no JSON", True)]
)
def test_a_folder_with_a_card_that_is_no_set_is_never_overwritten(shelf, card, rows):
    """A tuned model has a card as well."""
    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    folder = shelf.folder / "sft"
    folder.mkdir()
    (folder / "card.json").write_text(card)
    (folder / "adapter_model.safetensors").write_text("weights")
    if rows:
        (folder / "train.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="holds something else than a training set"):
        exported(shelf, "sft")
    assert (folder / "adapter_model.safetensors").read_text() == "weights"
    assert (folder / "card.json").read_text() == card


def test_a_full_disk_leaves_the_earlier_set(shelf, monkeypatch):
    from evaluation.supervision import training_sets

    shelf.add(shelf.begin("r"), 1, TRAIN[0], "J18.9")
    before, _ = exported(shelf, "sft")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training_sets, "readme", full)
    with pytest.raises(StorageError, match="No space left"):
        exported(shelf, "sft", answers_only=True)
    monkeypatch.undo()
    lines = (shelf.folder / "sft" / "train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == before
    assert not list(shelf.folder.glob(".sft-*"))


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("dpo", {}, "no training set named dpo"),
        ("sft", {"label_source": "vote"}, "is for stepwise sets"),
        ("sft", {"label_source": "reviewer"}, "is for stepwise sets"),
        ("sft", {"readings": "some"}, "--readings some is unknown"),
        ("stepwise", {"readings": "with"}, "--readings is for sft and preference sets"),
        ("prompts", {"readings": "only"}, "--readings is for sft and preference sets"),
        ("stepwise", {"label_source": "me"}, "no label source named me"),
        ("stepwise", {"answers_only": True}, "--answers-only"),
        ("stepwise", {"answers_from": ("s",)}, "--answers-from"),
        ("stepwise", {"balance": True, "label_source": "vote"}, "--balance"),
        ("sft", {"most_characters": -1}, "--max-characters"),
        ("sft", {"steps": ("triage",)}, "no step named triage"),
    ],
)
def test_options_that_cannot_be(shelf, kind, options, words):
    shelf.begin("r")
    with pytest.raises(UsageError, match=words):
        exported(shelf, kind, **options)
