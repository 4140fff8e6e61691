"""The case store: exact round trip, idempotence, whole cases only, private file, clear errors."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, make_id, sort_findings
from clinical_data.errors import BadInputError, StorageError, UsageError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources import Quarantined
from clinical_data.splits import split_of
from clinical_data.store import tables
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine, reading, storage_errors, writing
from clinical_data.store.metadata import metadata
from clinical_data.store.truth_store import TruthStore


def labelled(number: int = 1, *, value: float | str | None = 4.2, patient: str = "p1") -> LabelledCase:
    case_id = make_id("fhir", f"e{number}")
    facts = [
        Finding(
            "fb",
            FindingKind.LABORATORY,
            Coding("http://loinc.org", "2823-3", "Potassium", "2.77"),
            value,
            -10,
            40,
            unit="mmol/L",
            low=3.5,
            high=5.1,
            flag="H",
            pending_from=-10,
            note="Observation/x",
        ),
        Finding("fa", FindingKind.HISTORY, Coding("s", "c", "高血压 — Größe"), "ja, 是", -600, -600),
        Finding("fc", FindingKind.IMAGING, Coding("s", "ct"), None, 5, 5, result_in_source=False),
    ]
    case = Case(
        case_id=case_id, source="fhir", source_id=f"e{number}",
        patient=Patient(make_id("fhir", patient), "fhir", patient, "female"),
        age=71, encounters=(Encounter(f"e{number}", "inpatient", 0, 5000), Encounter("ed", "emergency", -200, 10)),
        anchors={"admission": 0, "end_of_stay": 5000}, context={"admission_source": "Emergency"},
        findings=sort_findings(facts), attributes={"hospital_id": "7"},
    )  # fmt: skip
    labels = (
        Label(Coding("icd", "J18.9", "Pneumonia", "2024"), Strength.RECORDED_LATER, 1, 4000, "Condition/1"),
        Label(Coding("icd", "I10"), Strength.PROXY, 2),
    )
    truth = {
        "discharge_diagnosis": GroundTruth(case_id, "discharge_diagnosis", labels),
        "admission_diagnosis": GroundTruth(case_id, "admission_diagnosis", (), "no diagnosis with use AD"),
    }
    return LabelledCase(case, truth)


@pytest.fixture
def store(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    metadata.create_all(engine)
    yield CaseStore(engine)
    engine.dispose()


def test_a_case_and_its_truth_come_back_exactly(store):
    one = labelled()
    assert store.put(one) == "added"
    back = store.get(one.case.case_id)
    assert back == one.case
    assert back.content_hash == one.case.content_hash
    assert store.truth(one.case.case_id) == one.truth
    assert store.truth_of_step("admission_diagnosis") == {one.case.case_id: one.truth["admission_diagnosis"]}


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)
minutes = st.integers(-(10**8), 10**8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, st.one_of(st.none(), numbers, texts), minutes, st.integers(0, 10**6)), max_size=5))
def test_any_values_come_back_exactly(store, rows):
    facts = [
        Finding(f"f{i}", FindingKind.VITAL, Coding(text, text, text, text), value, at, at + lag, unit=text, flag=text)
        for i, (text, value, at, lag) in enumerate(rows)
    ]
    one = labelled()
    case = replace(one.case, findings=sort_findings(facts))
    store.put(replace(one, case=case))
    assert store.get(case.case_id) == case
    assert store.get(case.case_id).content_hash == case.content_hash


def test_putting_again_changes_nothing_and_a_change_replaces_the_whole_case(store):
    assert store.put(labelled()) == "added"
    assert store.put(labelled()) == "unchanged"
    assert store.put(labelled(value=9.9)) == "changed"
    assert store.get("fhir-e1") == labelled(value=9.9).case
    relabelled = replace(labelled(value=9.9), truth={})
    assert store.put(relabelled) == "changed"
    assert store.truth("fhir-e1") == {}
    assert store.put(relabelled) == "unchanged"
    assert store.count() == 1


def test_put_many_counts_and_commits_in_batches(store):
    seen = []

    def stream():
        for number in range(450):
            seen.append(store.count())  # what another reader sees while the stream runs
            yield labelled(number)

    assert store.put_many(stream()) == Counter(added=450)
    assert set(seen) == {0, 200, 400}
    assert store.put_many(labelled(n) for n in range(451)) == Counter(unchanged=450, added=1)


def test_a_failing_batch_leaves_no_partial_case(store):
    broken = labelled(7)
    twice = replace(broken, case=replace(broken.case, findings=broken.case.findings[:1] * 2))
    with pytest.raises(BadInputError, match=r"fhir-e7.*twice"):
        store.put_many([labelled(1), twice])
    assert store.count() == 0
    with reading(store.engine) as connection:
        assert connection.execute(select(tables.findings)).all() == []


def test_a_number_that_is_not_finite_is_refused_by_id_alone(store):
    with pytest.raises(BadInputError) as raised:
        store.put(labelled(value=float("nan")))
    assert "fb" in str(raised.value)


def test_listing_is_ordered_and_filtered(store):
    people = {split_of("fhir", f"p{n}"): f"p{n}" for n in range(200)}
    assert set(people) == {"train", "tuning", "held-out"}
    for number, patient in enumerate(people.values()):
        store.put(labelled(number, patient=patient))
    assert store.case_ids() == ["fhir-e0", "fhir-e1", "fhir-e2"]
    assert store.case_ids(limit=2) == ["fhir-e0", "fhir-e1"]
    assert store.case_ids(source="eicu") == []
    for number, split in enumerate(people):
        assert store.case_ids(split=split) == [f"fhir-e{number}"]
        assert store.split(f"fhir-e{number}") == split
    assert store.sources() == ["fhir"]
    row = store.summaries()[0]
    assert row == {
        "case_id": "fhir-e0", "source": "fhir", "source_id": "e0",
        "patient_id": make_id("fhir", next(iter(people.values()))),
        "split": next(iter(people)), "age": 71, "sex": "female", "findings": 3,
    }  # fmt: skip


def test_a_patient_cannot_be_in_two_splits(store):
    store.put(labelled())
    row = {"patient_id": "fhir-p1", "source": "fhir", "source_id": "p1", "sex": "female", "split": "tuning"}
    with pytest.raises(StorageError), writing(store.engine) as connection:
        connection.execute(tables.patients.insert(), row)
    with pytest.raises(StorageError), writing(store.engine) as connection:
        connection.execute(tables.patients.update().values(split="both"))


def test_unknown_case_is_a_usage_error(store):
    with pytest.raises(UsageError, match="fhir-none"):
        store.get("fhir-none")


def test_reading_a_case_never_touches_a_truth_table(store):
    store.put(labelled())
    statements: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda c, cur, sql, *rest: statements.append(sql))
    reader = CaseReader(store.engine)
    reader.get("fhir-e1")
    reader.summaries()
    assert statements
    assert not any("truth" in sql for sql in statements)
    TruthStore(store.engine).truth("fhir-e1")
    assert any("truth" in sql for sql in statements)


def test_the_reader_does_not_import_ground_truth():
    code = "import clinical_data.store.case_reader, sys; sys.exit('clinical_data.ground_truth' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_imports_and_quarantine(store):
    key = store.begin_import("fhir", "folder")
    rows = [Quarantined("a.ndjson", n, "invalid JSON", "Observation/1") for n in range(1200)]
    for row in rows:
        store.quarantine(key, row)
    store.finish_import(key, {"added": 3})
    assert store.quarantined(key) == rows
    assert store.quarantined(key + 1) == []


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


@pytest.mark.parametrize("url", ["nonsense", "oracle9://x", "sqlite:////no/such/folder/a.db"])
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


def test_two_writers_take_turns(store):
    def work(first: int) -> None:
        store.put_many(labelled(n) for n in range(first, first + 30))

    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 90


def test_a_url_without_its_driver_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StorageError) as raised:
        open_engine("postgresql+psycopg://me:SECRET@localhost/x", create=True)
    assert "SECRET" not in str(raised.value)
    assert "psycopg" in raised.value.hint


def test_paths_are_kept_as_given(tmp_path):
    path = Path(tmp_path) / "with space é.db"
    open_engine(f"sqlite:///{path}", create=True).dispose()
    assert path.exists()
