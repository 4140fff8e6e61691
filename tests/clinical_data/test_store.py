"""The case store in an SQLite file: private, whole at every failure, clear errors. What all databases share is in
test_store_conformance.py.
"""

import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from store_cases import labelled

from clinical_data.errors import StorageError, UsageError
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine, storage_errors
from clinical_data.store.metadata import metadata


@pytest.fixture
def store(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    metadata.create_all(engine)
    yield CaseStore(engine)
    engine.dispose()


def test_the_reader_does_not_import_ground_truth():
    code = "import clinical_data.store.case_reader, sys; sys.exit('clinical_data.ground_truth' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_file_and_its_journal_are_private(tmp_path):
    path = tmp_path / "a.db"
    before = os.umask(0)
    try:
        engine = open_engine(f"sqlite:///{path}", create=True)
        metadata.create_all(engine)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
            CaseStore(engine).put(labelled())
            files = sorted(tmp_path.iterdir())
            assert [f.name for f in files] == ["a.db", "a.db-shm", "a.db-wal"]
            assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
        engine.dispose()
    finally:
        os.umask(before)


def test_missing_database_is_not_created(tmp_path):
    with pytest.raises(StorageError, match="no such database") as raised:
        open_engine(f"sqlite:///{tmp_path / 'none.db'}", create=False)
    assert raised.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["nonsense", "oracle9://x", "mysql://x", "sqlite:////no/such/folder/a.db"])
def test_bad_urls(url):
    with pytest.raises(StorageError) as raised:
        open_engine(url, create=True)
    assert raised.value.hint


def test_a_file_that_is_no_database_stays_as_it_was(tmp_path):
    path = tmp_path / "a.db"
    path.write_bytes(b"no database " * 500)
    with pytest.raises(StorageError, match="not a database") as raised:
        open_engine(f"sqlite:///{path}", create=True)
    assert raised.value.hint
    assert path.read_bytes() == b"no database " * 500


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(StorageError):
        open_engine(f"sqlite:///{tmp_path}", create=False)


def test_a_locked_database_names_the_reason(store, monkeypatch):
    store.put(labelled())
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    other = sqlite3.connect(store.engine.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StorageError, match="locked") as raised:
            store.put(labelled(2))
        assert "writing" in raised.value.hint
        assert store.count() == 1  # readers go on
    finally:
        other.close()


def test_a_full_disk_names_the_reason_and_keeps_what_was_there(store):
    store.put(labelled())
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageError, match="full") as raised:
        store.put_many(labelled(n) for n in range(2, 190))
    assert raised.value.hint
    assert store.case_ids() == ["fhir-e1"]


def test_errors_hold_no_values():
    with pytest.raises(StorageError) as raised, storage_errors("a.db"):
        raise IntegrityError("INSERT ...", {"value": "SECRET"}, sqlite3.IntegrityError("failed\nDETAIL: SECRET"))
    assert str(raised.value) == "a.db: failed"
    with pytest.raises(StorageError) as raised, storage_errors("a.db"):
        raise DataError("INSERT ...", {}, ValueError('invalid input syntax for type integer: "SECRET"'))
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ('could not extend file "base/16384/16390": No space left on device', "free some disk space"),
        ("canceling statement due to lock timeout", "wait for it"),
        ('database "ward" does not exist', "createdb"),
        ("permission denied for schema public", "GRANT"),
        ("FATAL:  sorry, too many clients already", "--workers"),
        ("connection failed: Connection refused\n\tIs the server running?", "server runs"),
    ],
)
def test_what_a_postgresql_server_says_becomes_one_line_with_a_hint(message, hint):
    with pytest.raises(StorageError) as raised, storage_errors("ward"):
        raise OperationalError("INSERT ...", {}, RuntimeError(message + "\nDETAIL: SECRET"))
    assert str(raised.value) == f"ward: {message.splitlines()[0]}"
    assert hint in raised.value.hint


def test_a_url_without_its_driver_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError) as raised:
        open_engine("postgresql+psycopg://me:SECRET@localhost/x", create=True)
    assert "SECRET" not in str(raised.value)
    assert "wardstar[postgresql]" in raised.value.hint


def test_paths_are_kept_as_given(tmp_path):
    path = Path(tmp_path) / "with space é.db"
    open_engine(f"sqlite:///{path}", create=True).dispose()
    assert path.exists()


def test_cases_are_read_without_findings_in_the_order_that_is_asked_for(store, monkeypatch):
    monkeypatch.setattr("clinical_data.store.case_reader._AT_ONCE", 2)
    store.put_many([labelled(i) for i in range(5)])
    ids = store.case_ids()[::-1]
    found = list(store.without_findings(ids, pytest.fail))
    assert [c.case_id for c in found] == ids
    assert found == [replace(store.get(i), findings=()) for i in ids]
    assert list(store.without_findings([], pytest.fail)) == []
    with pytest.raises(UsageError, match="no case fhir-none"):
        list(store.without_findings([ids[0], "fhir-none"], pytest.fail))
