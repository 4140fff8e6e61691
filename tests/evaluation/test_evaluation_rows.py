"""Row formats of `wardstar prompts` and `wardstar records`."""

import pytest
from run_records import STEP, record_of, request_of

from evaluation.rows import prompt_rows, record_rows
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.token_ratio import distinct_tokens
from search.trajectory import ModelCall

TRUTH = [{"system": "s", "code": "J18.9", "display": "pneumonia", "strength": "recorded-later"}]
CALLS = [
    ModelCall("generator", "think", "one", (1, 2), (" so",), ((3, 4),), (-0.1,), 7),
    ModelCall("peer", "vote", "one so", (1, 2, 3, 4), (" a", " b"), ((5,), (6,)), (-1.0, -2.0), None),
]
MODELS = {"generator": {"spec": "hf:x", "name": "x", "revision": "r1"}, "peer": {"spec": "random:1", "name": "y"}}


@pytest.fixture
def store(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'w.db'}", create=True)
    store = RunStore(engine)
    run = store.begin("r", "p", {}, {})
    full = record_of(
        "J18", "I50", models=MODELS, requests=(request_of("lactate", "pending", 12.0, True),), rollouts=16,
        peer_agreement=0.75, tokens={"prefilled": 3, "sampled": 2, "reused": 1}, seconds=0.5,
    )  # fmt: skip
    store.put(run.run_id, full, TRUTH, {"category": 1}, CALLS)
    late = record_of(status="not_applicable", case_id="fhir-2", models=MODELS, vocabulary="")
    store.put(run.run_id, late, [], {}, [])
    yield store
    engine.dispose()


def test_prompt_rows(store):
    rows = list(prompt_rows(store, store.get("r")))
    own = {"case_id": "fhir-1", "source_id": "1", "step": STEP, "occurrence": 1}
    assert rows == [
        {**own, "role": "generator", "model": "x@r1", "text": "one"},
        {**own, "role": "peer", "model": "y", "text": "one so"},
    ]


def test_prompt_rows_with_tokens(store):
    rows = list(prompt_rows(store, store.get("r"), tokens=True))
    assert [(r["prompt_ids"], r["completion_ids"], r["seed"]) for r in rows] == [
        ([1, 2], [[3, 4]], 7),
        ([1, 2, 3, 4], [[5], [6]], None),
    ]
    assert distinct_tokens(rows) == 4 + 6  # two models share nothing
    assert distinct_tokens([{**r, "model": "one"} for r in rows]) == 6


def test_record_rows(store):
    first, second = record_rows(store, store.get("r"))
    assert first == {
        "case_id": "fhir-1", "source_id": "1", "step": STEP, "occurrence": 1, "status": "verified",
        "reason": "", "review": None,
        "ranked": [
            {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "J18", "display": "J18", "probability": 0.5},
            {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50", "display": "I50", "probability": 0.5},
        ],
        "chosen": [], "draws": 0, "unparseable": 0, "truth": TRUTH, "match": {"category": 1},
        "requests": [{"item": "lactate", "state": "pending", "cost": 12.0, "on_path": True}],
        "peer_agreement": 0.75, "rollouts": 16, "tokens": {"prefilled": 3, "sampled": 2, "reused": 1},
        "seconds": 0.5, "repeatable": True,
    }  # fmt: skip
    assert (second["status"], second["truth"], second["match"]) == ("not_applicable", [], {})
    assert second["tokens"] == {"prefilled": 0, "sampled": 0, "reused": 0}
