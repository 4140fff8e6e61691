"""Generations in the database: with the record or not at all, by several processes, up and down the migrations."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from run_records import record_of
from sqlalchemy import func, inspect, select, update

from clinical_data.errors import StorageError
from clinical_data.store.engine import reading, writing
from clinical_data.store.metadata import metadata
from evaluation import migrations
from evaluation.store import open_database
from evaluation.store.generations import GenerationStore, put_changes
from evaluation.store.run_store import RunStore
from evaluation.store.tables import generations
from search.generation_cache import CacheChanges

KEYS = [n.to_bytes(32, "big") for n in range(1200)]
ODD = b"x\x00\xff'"


@pytest.fixture
def engine(database_url):
    engine = open_database(database_url, create=True)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine):
    return GenerationStore(engine)


def put(engine, new, used=()):
    with writing(engine) as connection:
        put_changes(connection, CacheChanges(dict(new), set(used)))


def last_used(engine):
    with reading(engine) as connection:
        return dict(connection.execute(select(generations.c.key, generations.c.last_used)).all())


def make_old(engine, *keys, days):
    day = (datetime.now(UTC) - timedelta(days=days)).date().isoformat()
    with writing(engine) as connection:
        connection.execute(update(generations).where(generations.c.key.in_(keys)).values(last_used=day))


def test_what_is_put_is_found(engine, store):
    put(engine, {k: ODD + k[-2:] for k in KEYS})
    assert store.find(KEYS) == {k: ODD + k[-2:] for k in KEYS}
    assert store.find([KEYS[3], b"absent" * 5]) == {KEYS[3]: ODD + KEYS[3][-2:]}
    assert store.find([]) == {}


def test_a_key_that_is_there_takes_the_new_value(engine, store):
    put(engine, {KEYS[0]: b"damaged", KEYS[1]: b"1"})
    put(engine, {KEYS[0]: b"whole"})
    assert store.find(KEYS[:2]) == {KEYS[0]: b"whole", KEYS[1]: b"1"}


def test_generations_are_stored_with_their_record_or_not_at_all(engine, store):
    runs = RunStore(engine)
    run = runs.begin("r", "inpatient", {}, {})
    of_two_models = [CacheChanges({KEYS[0]: b"generator"}), CacheChanges({KEYS[1]: b"peer"})]
    runs.put(run.run_id, record_of("J18"), [], {}, [], changes=of_two_models)
    assert store.find(KEYS) == {KEYS[0]: b"generator", KEYS[1]: b"peer"}
    with pytest.raises(StorageError, match="stored already"):
        runs.put(run.run_id, record_of("J18"), [], {}, [], changes=[CacheChanges({KEYS[2]: b"twice"})])
    assert KEYS[2] not in store.find(KEYS)


def test_a_record_is_not_stored_without_its_generations(engine, store, monkeypatch):
    runs = RunStore(engine)
    run = runs.begin("r", "inpatient", {}, {})
    changes = [CacheChanges({KEYS[0]: b"good"}), CacheChanges({KEYS[1]: None})]  # which no column takes
    with pytest.raises(StorageError):
        runs.put(run.run_id, record_of("J18"), [], {}, [], changes=changes)
    assert runs.done(run.run_id) == {}
    assert store.find(KEYS) == {}


def test_deleting_a_run_leaves_its_generations(engine, store):
    runs = RunStore(engine)
    run = runs.begin("r", "inpatient", {}, {})
    runs.put(run.run_id, record_of("J18"), [], {}, [], changes=[CacheChanges({KEYS[0]: b"g"})])
    runs.delete("r")
    assert store.find(KEYS) == {KEYS[0]: b"g"}


def test_what_is_not_used_for_long_is_pruned(engine, store):
    put(engine, dict.fromkeys(KEYS, b"g"))
    make_old(engine, *KEYS[:700], days=31)
    put(engine, {}, used=[*KEYS[100:700], b"gone" * 8])
    days = last_used(engine)
    assert days[KEYS[0]] < days[KEYS[100]] == days[KEYS[699]] == days[KEYS[-1]]
    assert store.prune(30) == 100
    assert set(store.find(KEYS)) == set(KEYS[100:])
    assert store.prune(30) == 0
    assert store.prune(0) == 1100


def worker(url, ready, go, own):
    engine = open_database(url, create=False)
    runs = RunStore(engine)
    run = runs.begin(f"run {own}", "inpatient", {}, {})
    ready.release()
    go.wait(30)
    for number in range(20):
        changes = [CacheChanges(dict.fromkeys(KEYS[:200], b"g"), set(KEYS[100:300]))]
        runs.put(run.run_id, record_of("J18", case_id=f"fhir-{number}"), [], {}, [], changes=changes)
    engine.dispose()


def test_two_processes_store_the_same_keys_at_once(engine, store, database_url):
    spawn = multiprocessing.get_context("spawn")
    ready, go = spawn.Semaphore(0), spawn.Event()
    processes = [spawn.Process(target=worker, args=(database_url, ready, go, own)) for own in range(2)]
    for process in processes:
        process.start()
    for _ in processes:
        assert ready.acquire(timeout=60)
    go.set()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0]
    assert store.find(KEYS) == dict.fromkeys(KEYS[:200], b"g")


def test_the_migration_goes_down_and_up_on_a_filled_database(engine, store):
    runs = RunStore(engine)
    run = runs.begin("r", "inpatient", {}, {})
    runs.put(run.run_id, record_of("J18"), [], {"category": 1}, [], changes=[CacheChanges(dict.fromkeys(KEYS, ODD))])
    before = list(runs.records(run.run_id))
    migrations.downgrade(engine, "0002_splits_and_resume")
    with reading(engine) as connection:
        assert "generations" not in inspect(connection).get_table_names()
    assert list(runs.records(run.run_id)) == before
    migrations.upgrade(engine)
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(generations)) == 0
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert list(runs.records(run.run_id)) == before
    put(engine, {KEYS[0]: ODD})
    assert store.find(KEYS) == {KEYS[0]: ODD}


def test_a_database_that_fails_is_a_storage_error(engine, store):
    migrations.downgrade(engine, "0002_splits_and_resume")
    with pytest.raises(StorageError):
        store.find(KEYS[:1])
