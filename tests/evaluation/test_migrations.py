"""The chain of database versions: up, down, agreement with the tables, and databases that are not ours."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, inspect, select

import evaluation.store.tables as run_tables
from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient
from clinical_data.errors import StorageError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import reading, writing
from clinical_data.store.metadata import metadata
from evaluation import migrations
from evaluation.store import open_database

RUN = {
    "name": "r", "created": "t", "pathway": "p", "config_json": "{}", "config_hash": "h", "versions_json": "{}",
    "status": "done",
}  # fmt: skip


def one() -> LabelledCase:
    finding = Finding("f1", FindingKind.VITAL, Coding("http://loinc.org", "8867-4"), 90.0, 1, 1)
    patient = Patient("fhir-p", "fhir", "p")
    case = Case(
        "fhir-e", "fhir", "e", patient, 50, (Encounter("e", "inpatient", 0),), {"admission": 0}, findings=(finding,)
    )
    label = Label(Coding("icd", "I10"), Strength.RECORDED_LATER)
    return LabelledCase(case, {"discharge_diagnosis": GroundTruth("fhir-e", "discharge_diagnosis", (label,))})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / '100% a.db'}"


def fill(engine) -> None:
    store = CaseStore(engine)
    store.put(one())
    with writing(engine) as connection:
        connection.execute(insert(run_tables.runs), RUN)
        connection.execute(
            insert(run_tables.case_steps),
            {"run_id": 1, "case_id": "fhir-e", "step": "s", "occurrence": 1, "source_id": "e", "status": "verified",
             "record_json": "{}", "created": "t", "calls": b"x"},
        )  # fmt: skip


def test_a_new_database_is_ready_for_use_and_opens_again(url):
    engine = open_database(url, create=True)
    fill(engine)
    engine.dispose()
    engine = open_database(url, create=False)
    assert CaseStore(engine).get("fhir-e") == one().case
    engine.dispose()


def test_migrations_and_tables_agree(url):
    engine = open_database(url, create=True)
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    with reading(engine) as connection:
        migrated = {r[0]: " ".join(r[1].split()) for r in connection.exec_driver_sql(_CHECKS)}
    engine.dispose()
    assert migrated
    for name, table in metadata.tables.items():  # compare_metadata does not see check constraints
        for constraint in table.constraints:
            if constraint.__visit_name__ == "check_constraint":
                assert str(constraint.name) in migrated[name]
                assert str(constraint.sqltext) in migrated[name]


_CHECKS = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL"


def test_down_and_up_again_on_a_filled_database(url):
    engine = open_database(url, create=True)
    fill(engine)
    migrations.downgrade(engine, "base")
    with reading(engine) as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    migrations.check(engine)
    migrations.upgrade(engine)
    assert CaseStore(engine).count() == 0
    fill(engine)
    assert CaseStore(engine).truth("fhir-e") == one().truth
    engine.dispose()


def test_deleting_a_run_deletes_its_steps(url):
    engine = open_database(url, create=True)
    fill(engine)
    with writing(engine) as connection:
        connection.execute(run_tables.runs.delete())
        assert connection.execute(select(run_tables.case_steps)).all() == []
    engine.dispose()


def test_a_newer_database_is_left_as_it_was(url):
    engine = open_database(url, create=True)
    fill(engine)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0999_future'")
    engine.dispose()
    path = Path(url.removeprefix("sqlite:///"))
    before = path.read_bytes()
    with pytest.raises(StorageError, match="0999_future") as raised:
        open_database(url, create=True)
    assert raised.value.hint
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_as_it_was(url):
    path = Path(url.removeprefix("sqlite:///"))
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="not a wardstar database"):
        open_database(url, create=True)
    assert path.read_bytes() == before


def test_an_empty_file_is_filled_only_on_request(url):
    Path(url.removeprefix("sqlite:///")).touch()
    with pytest.raises(StorageError, match="no cases"):
        open_database(url, create=False)
    engine = open_database(url, create=True)
    assert CaseStore(engine).count() == 0
    engine.dispose()


def test_a_failing_upgrade_leaves_no_table(url, monkeypatch):
    def fail(*args, **kwargs):
        raise sqlite3.OperationalError("database or disk is full")

    from alembic.operations import Operations

    monkeypatch.setattr(Operations, "create_index", fail, raising=False)
    with pytest.raises(StorageError, match="full"):
        open_database(url, create=True)
    monkeypatch.undo()
    other = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == []
    other.close()
