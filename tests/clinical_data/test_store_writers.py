"""Several writers of one database: they take turns, none fails, none overwrites what another has written."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update
from store_cases import labelled

from clinical_data.errors import StorageError
from clinical_data.store import engine as engines
from clinical_data.store import tables
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine, reading, writing
from clinical_data.store.import_store import ImportStore
from clinical_data.store.metadata import metadata

HOLD = 2.0  # seconds

# A second process that reads a counter, keeps the lock for a while, and writes the counter plus one.
HOLDER = """
import sys, time
from sqlalchemy import select, update
from clinical_data.store import tables
from clinical_data.store.engine import open_engine, writing
engine = open_engine(sys.argv[1], create=False)
counted = tables.imports.c.counts_json
with writing(engine) as connection:
    value = int(connection.scalar(select(counted)))
    print("holding", flush=True)
    time.sleep(float(sys.argv[2]))
    connection.execute(update(tables.imports).values(counts_json=str(value + 1)))
engine.dispose()
"""

WRITER = """
import json, sys
from store_cases import labelled
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine
engine = open_engine(sys.argv[1], create=False)
first = int(sys.argv[2])
print(json.dumps(CaseStore(engine).put_many(labelled(n, patient="p1") for n in range(first, first + 20))))
engine.dispose()
"""


@pytest.fixture
def store(database_url):
    engine = open_engine(database_url, create=True)
    metadata.create_all(engine)
    yield CaseStore(engine)
    engine.dispose()


def url_of(store):
    return store.engine.url.render_as_string(hide_password=False)


def holder(store, seconds):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, url_of(store), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"holding\n"
    return process


def test_a_second_writer_waits_and_no_update_is_lost(store):
    imports = ImportStore(store.engine)
    imports.finish(imports.begin("x", "x").import_id)
    counted = tables.imports.c.counts_json
    with writing(store.engine) as connection:
        connection.execute(update(tables.imports).values(counts_json="0"))
    with holder(store, HOLD) as process:
        began = time.monotonic()
        with reading(store.engine) as connection:  # who only reads does not wait
            assert connection.scalar(select(counted)) == "0"
        assert time.monotonic() - began < HOLD / 2
        with writing(store.engine) as connection:
            value = int(connection.scalar(select(counted)))
            connection.execute(update(tables.imports).values(counts_json=str(value + 1)))
        assert time.monotonic() - began > HOLD / 2
        process.stdout.close()
    assert process.returncode == 0
    with reading(store.engine) as connection:
        assert connection.scalar(select(counted)) == "2"


def test_a_writer_that_waits_too_long_says_why(store, monkeypatch):
    imports = ImportStore(store.engine)
    imports.finish(imports.begin("x", "x").import_id)
    with writing(store.engine) as connection:
        connection.execute(update(tables.imports).values(counts_json="0"))
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.2)
    impatient = open_engine(url_of(store), create=False)
    with holder(store, HOLD) as process:
        with pytest.raises(StorageError, match="lock") as raised:
            CaseStore(impatient).put(labelled())
        assert "writing" in raised.value.hint
        process.stdout.close()
    assert CaseStore(impatient).put(labelled()) == "added"
    impatient.dispose()


def test_processes_that_write_the_same_patient_all_succeed(store):
    command = [sys.executable, "-c", WRITER, url_of(store)]
    here = Path(__file__).parent
    running = [subprocess.Popen([*command, str(first)], cwd=here, stdout=subprocess.PIPE) for first in (0, 10, 20)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    counts = [json.loads(text) for text in said]
    assert sum(c.get("added", 0) for c in counts) == 40
    assert sum(c.get("unchanged", 0) for c in counts) == 20
    assert store.count() == 40
    with reading(store.engine) as connection:
        assert len(connection.execute(select(tables.patients)).all()) == 1


def test_threads_of_one_process_take_turns(store):
    failed = []

    def work(first: int) -> None:
        try:
            store.put_many(labelled(n) for n in range(first, first + 30))
        except StorageError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert store.count() == 90
