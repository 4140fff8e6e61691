"""The run store: one transaction per case-step, resumable runs, clear refusals."""

import json
import math

import pytest
from run_records import record_of
from sqlalchemy import create_engine, select, update

from clinical_data.errors import StorageError, UsageError
from clinical_data.store.engine import reading, writing
from evaluation.store import open_database
from evaluation.store.calls import pack, unpack
from evaluation.store.run_store import RunStore, differing_keys
from evaluation.store.tables import case_steps
from search.trajectory import ModelCall

CONFIG = {"seed": 0, "strategy": "rstar", "settings": {"rollouts": 16, "wave": 1}}
TRUTH = [{"system": "s", "code": "J18.9", "display": "pneumonia", "strength": "recorded-later"}]
CALLS = [
    ModelCall("generator", "think", "a line\nand\u2028another\x85 高血压", (1, 2), (" so",), ((3, 4),), (-0.1,), 2**63),
    ModelCall("peer", "vote", "", (), (" a", " b"), ((5,), ()), (-math.inf, 0.0), None),
]


@pytest.fixture
def store(database_url):
    engine = open_database(database_url, create=True)
    yield RunStore(engine)
    engine.dispose()


@pytest.fixture
def run(store):
    return store.begin("r", "inpatient", CONFIG, {"wardstar": "1"})


def test_begin_commits_at_once(store, run):
    other = create_engine(store.engine.url)
    with other.connect() as connection:
        assert connection.exec_driver_sql("SELECT name, status FROM runs").all() == [("r", "running")]
    other.dispose()


def test_the_same_configuration_resumes(store, run):
    again = store.begin("r", "inpatient", {k: CONFIG[k] for k in reversed(CONFIG)}, {"wardstar": "2"})
    assert again == run
    assert again.versions == {"wardstar": "1"}
    assert len(store.runs()) == 1


def test_another_configuration_names_what_differs(store, run):
    other = {"seed": 1, "settings": {"rollouts": 8, "wave": 1}, "strategy": "rstar", "limit": None}
    with pytest.raises(UsageError) as error:
        store.begin("r", "inpatient", other, {})
    assert str(error.value).endswith(": limit, seed, settings.rollouts")
    with pytest.raises(UsageError, match="pathway name"):
        store.begin("r", "outpatient", CONFIG, {})
    assert store.get("r") == run


def test_differing_keys_tell_kinds_apart():
    assert differing_keys({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [1]}}) == []
    assert differing_keys({"a": 1}, {"a": True}) == ["a"]
    assert differing_keys({"a": {"b": 1}}, {"a": 2}) == ["a"]
    assert differing_keys({"a": None}, {}) == ["a"]


def test_an_unknown_run_lists_the_known(store, run):
    with pytest.raises(UsageError) as error:
        store.get("x")
    assert "r" in error.value.hint
    with pytest.raises(UsageError):
        store.delete("x")


def test_what_is_put_is_read(store, run):
    record = record_of("J18", tree={"nodes": [{"id": 0, "text": "高"}]}, margin=0.1, settings={"a": 1.5})
    store.put(run.run_id, record, TRUTH, {"category": 1}, CALLS)
    stored = store.record(run.run_id, record.case_id, record.step)
    assert (stored.record, stored.truth, stored.match) == (record, TRUTH, {"category": 1})
    assert list(store.records(run.run_id)) == [stored]
    assert [c[:4] for c in store.calls(run.run_id)] == [("fhir-1", "1", record.step, 1)] * 2
    assert [c[4] for c in store.calls(run.run_id)] == CALLS
    assert store.done(run.run_id) == {("fhir-1", record.step, 1): "verified"}
    with pytest.raises(UsageError):
        store.record(run.run_id, record.case_id, record.step, 2)


def test_the_record_column_holds_no_truth(store, run):
    store.put(run.run_id, record_of("I50"), TRUTH, {"category": 0}, CALLS)
    with reading(store.engine) as connection:
        text = connection.scalar(select(case_steps.c.record_json))
    assert "J18.9" not in text
    assert "truth" not in json.loads(text)
    assert "match" not in json.loads(text)


def test_calls_pack_exactly():
    assert list(unpack(pack(CALLS))) == CALLS
    assert list(unpack(pack([]))) == list(unpack(None)) == []


def test_a_case_step_is_stored_once(store, run):
    store.put(run.run_id, record_of(status="failed", reason="first"), [], {}, [])
    with pytest.raises(StorageError, match="fhir-1"):
        store.put(run.run_id, record_of("J18"), TRUTH, {}, CALLS)
    assert store.record(run.run_id, "fhir-1", "admission_diagnosis").record.reason == "first"
    assert list(store.calls(run.run_id)) == []
    store.put(run.run_id, record_of("J18"), TRUTH, {"category": 1}, CALLS, replace=True)
    assert store.done(run.run_id) == {("fhir-1", "admission_diagnosis", 1): "verified"}
    assert len(list(store.calls(run.run_id))) == 2


def test_replace_puts_what_is_not_there(store, run):
    store.put(run.run_id, record_of("J18"), [], {}, [], replace=True)
    assert len(store.done(run.run_id)) == 1


def test_order_is_by_case_then_by_time_of_first_storing(store, run):
    for case_id, step in (("fhir-b", "second"), ("fhir-B", "z"), ("fhir-b", "first"), ("fhir-a", "only")):
        store.put(run.run_id, record_of("J18", case_id=case_id, step=step), [], {}, CALLS[:1])
    store.put(run.run_id, record_of("I50", case_id="fhir-b", step="second"), [], {}, CALLS[:1], replace=True)
    expected = [("fhir-B", "z"), ("fhir-a", "only"), ("fhir-b", "second"), ("fhir-b", "first")]
    assert [(s.record.case_id, s.record.step) for s in store.records(run.run_id)] == expected
    assert [(c[0], c[2]) for c in store.calls(run.run_id)] == expected


def test_one_may_write_while_reading(store, run):
    for n in range(3):
        store.put(run.run_id, record_of("J18", case_id=f"fhir-{n}"), [], {}, [])
    for stored in store.records(run.run_id):
        key = (stored.record.case_id, stored.record.step, 1)
        store.rescore(run.run_id, key, TRUTH, {"category": 1})
    assert all(s.match == {"category": 1} and s.truth == TRUTH for s in store.records(run.run_id))


def test_a_failing_put_leaves_nothing(store, run):
    with pytest.raises(ValueError, match="JSON"):
        store.put(run.run_id, record_of("J18"), [{"code": math.nan}], {}, CALLS)
    assert store.done(run.run_id) == {}


def test_runs_are_apart(store, run):
    other = store.begin("other", "inpatient", CONFIG, {})
    store.put(run.run_id, record_of("J18"), [], {}, CALLS)
    store.put(other.run_id, record_of("I50"), [], {}, CALLS)
    store.finish(run.run_id, "finished", {"computed": 5})
    assert (store.get("r").status, store.get("r").work) == ("finished", {"computed": 5})
    assert store.get("r").finished is not None
    assert store.get("other").finished is None
    store.delete("r")
    assert [r.name for r in store.runs()] == ["other"]
    assert len(list(store.records(other.run_id))) == 1
    with reading(store.engine) as connection:
        assert len(connection.execute(select(case_steps.c.run_id)).all()) == 1


def test_a_record_of_a_newer_version_is_refused(store, run):
    store.put(run.run_id, record_of("J18"), [], {}, [])
    text = json.dumps({**json.loads(record_of("J18").model_dump_json()), "version": 2, "canary": "value 123"})
    with writing(store.engine) as connection:
        connection.execute(update(case_steps).values(record_json=text))
    with pytest.raises(StorageError) as error:
        list(store.records(run.run_id))
    assert "version 2" in str(error.value)
    assert "canary" in str(error.value)
    assert "value 123" not in str(error.value)
