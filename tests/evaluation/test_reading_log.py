"""The chain of the log of readings: it grows, refuses changes, and shows those made in spite of that."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select

from clinical_data.errors import StorageError
from clinical_data.store.engine import writing
from evaluation import migrations
from evaluation.reading.audit import BEGINNING, Event, append, digest, verify
from evaluation.reading.tables import reading_log
from evaluation.store import open_database

KEY = ("fhir-1", "triage", 1)


@pytest.fixture
def engine(database_url):
    engine = open_database(database_url, create=True)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(tmp_path):
    """A log of five entries whose triggers somebody has taken away."""
    engine = open_database(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    fill(engine, 5)
    with writing(engine) as connection:
        connection.exec_driver_sql("DROP TRIGGER reading_log_update")
        connection.exec_driver_sql("DROP TRIGGER reading_log_delete")
        connection.exec_driver_sql("DROP TRIGGER reading_log_insert")
    yield engine
    engine.dispose()


def fill(engine, number):
    for i in range(number):
        with writing(engine) as connection:
            append(connection, Event("draft", "Ann", "one", KEY, {"part": "first", "fields": {"words": [f"é {i}"]}}))


def deed(engine, sql):
    with writing(engine) as connection:
        connection.exec_driver_sql(sql)


def test_an_empty_log_is_in_order(engine):
    found = verify(engine)
    assert (found.entries, found.head, found.broken) == (0, BEGINNING, None)


def test_a_log_that_grew_is_in_order_and_keeps_its_heads(engine):
    fill(engine, 3)
    early = verify(engine)
    fill(engine, 2)
    found = verify(engine, early.head)
    assert (found.entries, found.broken, found.has_head) == (5, None, True)
    assert found.head != early.head
    assert verify(engine, "f" * 64).has_head is False


@pytest.mark.parametrize("sql", ["UPDATE reading_log SET reviewer = 'Ben'", "DELETE FROM reading_log WHERE seq = 2"])
def test_a_trigger_refuses_changes(engine, sql):
    fill(engine, 3)
    with pytest.raises(StorageError, match="can only grow"):
        deed(engine, sql)
    assert verify(engine).entries == 3


@pytest.mark.parametrize("seq", [1, 3])
def test_a_trigger_refuses_to_put_an_entry_in_the_place_of_another(tmp_path, seq):
    """SQLite's REPLACE asks no trigger for DELETE; of the last entry the chain would not show it."""
    engine = open_database(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    fill(engine, 3)
    columns = "time, reviewer, run, case_id, step, occurrence, kind, payload_json, previous, hash"
    sql = f"REPLACE INTO reading_log (seq, {columns}) SELECT seq, {columns.replace('reviewer', repr('Ben'))} "
    with pytest.raises(StorageError, match="can only grow"):
        deed(engine, sql + f"FROM reading_log WHERE seq = {seq}")
    assert verify(engine).entries == 3
    fill(engine, 1)
    assert verify(engine).entries == 4
    engine.dispose()


def test_a_trigger_refuses_to_empty_the_log(postgres_url):
    engine = open_database(postgres_url(), create=True)
    fill(engine, 1)
    with pytest.raises(StorageError, match="can only grow"):
        deed(engine, "TRUNCATE reading_log")
    engine.dispose()


ALTERED = {
    "time": "'2001-01-01T00:00:00+00:00'", "reviewer": "'Ben'", "run": "'two'", "case_id": "'fhir-2'", "step": "'x'",
    "occurrence": "2", "kind": "'first'", "payload_json": "payload_json || ' '", "previous": "hash", "hash": "previous",
}  # fmt: skip


@pytest.mark.parametrize("column", ALTERED)
def test_an_altered_field_is_found(sqlite, column):
    deed(sqlite, f"UPDATE reading_log SET {column} = {ALTERED[column]} WHERE seq = 3")
    assert verify(sqlite).broken == 3
    assert verify(sqlite).entries == 2


def test_every_field_is_covered():
    assert {*ALTERED, "seq"} == set(reading_log.c.keys())


def test_a_removed_and_an_inserted_entry_are_found(sqlite):
    deed(sqlite, "DELETE FROM reading_log WHERE seq = 3")
    assert (verify(sqlite).broken, verify(sqlite).why) == (4, "entry 3 is missing")
    deed(sqlite, "UPDATE reading_log SET seq = seq - 1 WHERE seq > 3")
    assert verify(sqlite).broken == 3


def test_an_entry_forged_with_a_fitting_hash_breaks_the_next(sqlite):
    with writing(sqlite) as connection:
        row = connection.execute(select(reading_log).where(reading_log.c.seq == 3)).one()._asdict()
        row["reviewer"] = "Ben"
        fitting = {"reviewer": "Ben", "hash": digest(row)}
        connection.execute(reading_log.update().where(reading_log.c.seq == 3).values(fitting))
    assert verify(sqlite).broken == 4


def test_a_value_of_another_kind_is_found(sqlite):
    deed(sqlite, "UPDATE reading_log SET payload_json = x'00ff' WHERE seq = 2")
    assert verify(sqlite).broken == 2


def test_entries_cut_off_at_the_end_are_missed_by_a_noted_head(sqlite):
    head = verify(sqlite).head
    deed(sqlite, "DELETE FROM reading_log WHERE seq > 3")
    assert verify(sqlite).broken is None
    assert verify(sqlite, head).has_head is False


def test_many_writers_make_one_chain(engine):
    def write():
        fill(engine, 5)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (verify(engine).entries, verify(engine).broken) == (30, None)


def test_the_way_down_and_up_again_brings_the_triggers_back(engine):
    fill(engine, 1)
    migrations.downgrade(engine, "0003_generations")
    migrations.upgrade(engine)
    fill(engine, 1)
    with pytest.raises(StorageError, match="can only grow"):
        deed(engine, "DELETE FROM reading_log")
