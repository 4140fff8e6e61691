"""Prompts to answer, and the answers among them that a peer stood by."""

from __future__ import annotations

import json

from taught_runs import CUE, OPENING, PATIENTS, SECOND, THOUGHT, VOTES, calls_of, candidates

from evaluation.supervision.training_sets import SetOptions, export_set
from evaluation.supervision.tuning_rows import read_set

TRAIN = PATIENTS["train"]
FINAL = OPENING + THOUGHT + SECOND + CUE


def exported(shelf, *runs):
    card = export_set(shelf.engine, "prompts", runs or ("r",), shelf.folder / "set", SetOptions())
    return [json.loads(line) for line in (shelf.folder / "set" / "train.jsonl").read_text().splitlines()], card


def test_an_answer_that_the_peer_verified_goes_with_its_prompt(shelf):
    """Without a recorded label; where nothing was verified, or the search chose something else, the vote has to do."""
    run = shelf.begin("r")
    doubted = tuple(c.model_copy(update={"agreement": 0.25}) for c in candidates())
    shelf.add(run, 1, TRAIN[0], winner=5)
    shelf.add(run, 2, TRAIN[1], candidates=doubted, status="unverified", winner=5)
    shelf.add(run, 3, TRAIN[2], winner=1)
    shelf.add(run, 4, TRAIN[3], winner=5, status="abstain")
    rows, card = exported(shelf)
    assert [(r["prompt"], r["completion"], r["label_source"]) for r in rows] == [
        (FINAL, " pneumonia\n", "peer"),
        (FINAL, "", "vote"),
        (FINAL, "", "vote"),
        (FINAL, "", "vote"),
    ]
    assert card["splits"]["train"]["by"]["label_source"] == {"peer": 1, "vote": 3}
    read = read_set(shelf.folder / "set", "ttrl").train
    assert [(row.texts["completion"], row.texts["label_source"]) for row in read][:2] == [
        (" pneumonia\n", "peer"),
        ("", "vote"),
    ]


def test_peers_who_stood_by_different_answers_lead_nobody(shelf):
    """In the second run the same thought ends in heart failure, and the peer of that run agrees."""
    shelf.add(shelf.begin("r"), 1, TRAIN[0], winner=5)
    other = {**VOTES, THOUGHT + SECOND: (0.2, 0.6, 0.1, 0.1)}
    one, wrong, right = candidates()
    turns = (right.turns[0], right.turns[1].model_copy(update={"text": "heart failure"}))
    there = right.model_copy(update={"turns": turns, "answer": "heart failure", "answer_key": "I50"})
    run = shelf.begin("s", seed=2)
    shelf.add(run, 2, TRAIN[1], winner=5, candidates=(one, wrong, there), calls=calls_of(votes=other))
    rows, _ = exported(shelf, "s")
    assert [(r["completion"], r["label_source"]) for r in rows] == [(" heart failure\n", "peer")]
    rows, card = exported(shelf, "r", "s")
    assert [(r["completion"], r["label_source"]) for r in rows] == [("", "vote")] * 2
    assert card["left_out"] == {"answer of a peer that differs from another to the same prompt": 2}
