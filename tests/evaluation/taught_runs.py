"""A stored search that can be worked out by hand: one answer of four, two thoughts, one of them verified.

root ── FINISH            0.4 pneumonia, 0.3 heart failure, 0.2 sepsis, 0.1 aki              1 rollout
     ├─ cough and fever ── FINISH   0.2, 0.5, 0.25, 0.05 -> heart failure, agreement 0.5     2 rollouts
     └─ swollen legs ── FINISH      0.6, 0.2, 0.1, 0.1   -> pneumonia, agreement 1.0         1 rollout
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from run_records import ICD, STEP, WARD, case_of, record_of, truth_of

from clinical_data.splits import split_of
from clinical_data.store.case_store import CaseStore
from clinical_data.vocabulary import load_vocabulary
from evaluation.matching import match, truth_rows
from evaluation.record import CandidateRecord, TurnRecord
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from search.prompts import PEER_CUE, TEMPLATE_HASH
from search.trajectory import ModelCall

SPLITS = ("train", "tuning", "held-out")
PATIENTS = {s: [f"p{i}" for i in range(200) if split_of("fhir", f"p{i}") == s] for s in SPLITS}
OPENING = "A doctor reviews. What?\nPossible answers: pneumonia; ...\n\nPatient: woman, 60 years."
THOUGHT, CUE = "\nThought:", "\nWorking diagnosis:"
FIRST, SECOND, THIRD = " cough and fever", " swollen legs ", " peer agrees"  # the space at the end is the model's own
VOTES = {
    "": (0.4, 0.3, 0.2, 0.1),
    THOUGHT + FIRST: (0.2, 0.5, 0.25, 0.05),
    THOUGHT + SECOND: (0.6, 0.2, 0.1, 0.1),
}
PATHWAY = (
    "steps: [{{name: {step}, truth: {step}, answer_cue: Working diagnosis, "
    "answer: {{form: closed, vocabulary: {{fhir: {file}}}}}}}]"
)


def scored(role, prompt, shares):
    """A vote by likelihood; one token an answer, so that mean and sum agree."""
    choices = tuple(f" {e.display}" for e in WARD.entries)
    ids = tuple((i,) for i in range(len(choices)))
    return ModelCall(role, "vote", prompt, (1,), choices, ids, tuple(math.log(s) for s in shares))


def drawn(role, purpose, prompt, text, tokens=3):
    return ModelCall(role, purpose, prompt, (1,), (text,), (tuple(range(tokens)),), (-1.0,), seed=1)


def calls_of(opening=OPENING, votes=None, tokens=3):
    found = [drawn("generator", "think", opening + THOUGHT, text, tokens) for text in (FIRST, SECOND)]
    found += [scored("generator", opening + path + CUE, shares) for path, shares in (votes or VOTES).items()]
    for thought, shares in ((FIRST, (0.2, 0.6, 0.1, 0.1)), (SECOND, (0.7, 0.1, 0.1, 0.1))):
        prompt = opening + THOUGHT + thought + PEER_CUE
        found += [drawn("peer", "think", prompt, THIRD), scored("peer", prompt + THIRD + CUE, shares)]
    return found


def candidates():
    def one(node, thought, key, answer, multiplicity, value, agreement):
        turns = [TurnRecord(kind="think", text=thought.strip())] if thought else []
        turns.append(TurnRecord(kind="finish", text=answer))
        cuts = (1,) if thought else ()
        return CandidateRecord(
            node=node, turns=tuple(turns), answer_key=key, answer=answer, multiplicity=multiplicity, value=value,
            agreement=agreement, cuts=cuts, peer_answers=(key,) if thought else (),
        )  # fmt: skip

    return (
        one(1, "", "J18", "pneumonia", 1, 0.4, None),
        one(3, FIRST, "I50", "heart failure", 2, 0.5, 0.5),
        one(5, SECOND, "J18", "pneumonia", 1, 0.6, 1.0),
    )


class Shelf:
    """A database, and in it runs of searches like the one above."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = open_database(f"sqlite:///{folder / 'w.db'}", create=True)
        self.file = folder / "ward.yaml"
        entries = [{"code": e.code, "display": e.display} for e in WARD.entries]
        self.file.write_text(json.dumps({"name": WARD.name, "version": 1, "system": ICD, "entries": entries}))
        self.vocabulary = load_vocabulary(str(self.file))

    def config(self, **more):
        config = {
            "pathway": {
                "name": "p", "version": "1", "sha256": "7", "text": PATHWAY.format(step=STEP, file=self.file)
            },
            "hashes": {"prompts": TEMPLATE_HASH, f"vocabulary {WARD.name}": self.vocabulary.sha256},
            "strategy": "rstar",
            "settings": {"value": "self_consistency"},
        }  # fmt: skip
        return {**config, **more}

    def set_pathway(self):
        """The same pathway, asking for at most two answers."""
        pathway = self.config()["pathway"]
        return {**pathway, "text": pathway["text"].replace("form: closed", "form: set, most: 2")}

    def begin(self, name, **more):
        return RunStore(self.engine).begin(name, "p", self.config(**more), {})

    def add(self, run, number, patient, *labels, calls=None, cases=True, **more):
        """Stores a case with labels (none: absent) and its record in a run."""
        if cases:
            CaseStore(self.engine).put_many([case_of(number, patient, *labels)])
        truth = truth_of(*labels, case_id=f"fhir-{number}")
        given = {
            "clock": 360, "candidates": candidates(), "settings": {"turn_tokens": 40}, "strategy": "rstar",
            "hashes": {"prompts": TEMPLATE_HASH, "pathway": "7", "vocabulary": self.vocabulary.sha256},
        }  # fmt: skip
        record = record_of("J18", case_id=f"fhir-{number}", patient=f"fhir-{patient}", **{**given, **more})
        marks = match(record, truth, self.vocabulary)
        RunStore(self.engine).put(run.run_id, record, truth_rows(truth), marks, calls_of() if calls is None else calls)
        return record
