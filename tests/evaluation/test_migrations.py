"""The chain of database versions, on SQLite and PostgreSQL: up and down on a filled database, and agreement with the
tables; databases that are not ours.
"""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, MetaData, insert, inspect, select
from sqlalchemy.exc import OperationalError

import evaluation.reading.tables  # noqa: F401  (registers its tables)
import evaluation.store.tables as run_tables
from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient
from clinical_data.errors import StorageError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources import Quarantined
from clinical_data.splits import hospital_split_of, split_of
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine, reading, writing
from clinical_data.store.import_ledger import ImportLedger
from clinical_data.store.import_session import ImportSession
from clinical_data.store.import_store import ImportStore
from clinical_data.store.metadata import metadata
from evaluation import migrations
from evaluation.store import open_database

RUN = {
    "name": "r", "created": "t", "pathway": "p", "config_json": "{}", "config_hash": "h", "versions_json": "{}",
    "status": "done",
}  # fmt: skip


def one(number: int = 0, patient: str = "p", hospital: str = "7") -> LabelledCase:
    finding = Finding("f1", FindingKind.VITAL, Coding("http://loinc.org", "8867-4"), 90.0, 1, 1)
    key = f"e{number or ''}"
    case = Case(
        f"fhir-{key}", "fhir", key, Patient(f"fhir-{patient}", "fhir", patient), 50, (Encounter(key, "inpatient", 0),),
        {"admission": 0}, findings=(finding,), attributes={"hospital_id": hospital} if hospital else {},
    )  # fmt: skip
    label = Label(Coding("icd", "I10"), Strength.RECORDED_LATER)
    return LabelledCase(case, {"discharge_diagnosis": GroundTruth(case.case_id, "discharge_diagnosis", (label,))})


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / '100% a.db'}"


def fill(engine) -> None:
    store = CaseStore(engine)
    store.put(one())
    with writing(engine) as connection:
        run_id = connection.execute(insert(run_tables.runs).values(RUN)).inserted_primary_key[0]
        connection.execute(
            insert(run_tables.case_steps),
            {"run_id": run_id, "case_id": "fhir-e", "step": "s", "occurrence": 1, "source_id": "e",
             "status": "verified", "record_json": "{}", "created": "t", "calls": b"x\x00y"},
        )  # fmt: skip


def fill_by_import(engine) -> None:
    """Stores fifty cases of twenty patients and five hospitals (every third has none) by an unfinished import."""
    fill(engine)
    imports, ledger = ImportStore(engine), ImportLedger()
    session = ImportSession(engine, imports.begin("fhir", "folder", "print"), ledger, "folder")
    ledger.log.quarantined(Quarantined("a.ndjson", 3, "invalid JSON"))
    session.put_all(one(n, f"p{n % 20}", str(n % 5) if n % 3 else "") for n in range(1, 51))


def rows(engine) -> dict[str, list[dict]]:
    """Everything in a database, whatever its version."""
    found = MetaData()
    with reading(engine) as connection:
        found.reflect(connection)
        return {
            name: sorted((dict(r._mapping) for r in connection.execute(select(table))), key=repr)
            for name, table in found.tables.items()
        }


def without(found: dict[str, list[dict]], gone: dict[str, set[str]]) -> dict[str, list[dict]]:
    return {
        name: sorted(({k: v for k, v in row.items() if k not in gone.get(name, ())} for row in table), key=repr)
        for name, table in found.items()
        if name in TABLES_OF_0001
    }


TABLES_OF_0001 = {
    "imports", "patients", "runs", "case_steps", "cases", "quarantine", "findings", "ground_truth",
    "ground_truth_labels",
}  # fmt: skip
NEW_IN_0002 = {"imports": {"fingerprint", "progress_json"}, "quarantine": {"case_id"}, "cases": {"import_id"}}


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
        found = inspect(connection)  # compare_metadata does not see check constraints
        for name, table in metadata.tables.items():
            checks = {str(c.name): str(c.sqltext) for c in table.constraints if isinstance(c, CheckConstraint)}
            migrated = {c["name"]: c["sqltext"] for c in found.get_check_constraints(name)}
            assert migrated.keys() == checks.keys()
            if engine.dialect.name == "sqlite":
                assert migrated == checks
        for table in ("cases", "patient_splits"):
            assert {k["options"]["ondelete"] for k in found.get_foreign_keys(table) if k["options"]} <= {
                "CASCADE", "SET NULL",
            }  # fmt: skip
    engine.dispose()


def test_down_to_nothing_and_up_again_on_a_filled_database(url):
    engine = open_database(url, create=True)
    fill_by_import(engine)
    migrations.downgrade(engine, "base")
    with reading(engine) as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    migrations.check(engine)
    migrations.upgrade(engine)
    assert CaseStore(engine).count() == 0
    fill(engine)
    assert CaseStore(engine).truth("fhir-e") == one().truth
    engine.dispose()


def test_what_is_stored_survives_the_way_down_to_0001_and_up_again(url):
    engine = open_database(url, create=True)
    fill_by_import(engine)
    before = rows(engine)
    assert {len(before[t]) for t in ("cases", "findings", "ground_truth_labels")} == {51}
    migrations.downgrade(engine, "0001_initial")
    old = rows(engine)
    assert set(old) == {*TABLES_OF_0001, "alembic_version"}
    assert {r["patient_id"]: r["split"] for r in old["patients"]} == {
        r["patient_id"]: split_of("fhir", r["source_id"]) for r in old["patients"]
    }
    with pytest.raises(StorageError), writing(engine) as connection:
        connection.exec_driver_sql("UPDATE patients SET split = 'both'")
    assert without(old, {"patients": {"split"}}) == without(before, NEW_IN_0002)
    migrations.upgrade(engine)
    after = rows(engine)
    assert without(after, NEW_IN_0002) == without(before, NEW_IN_0002)
    assert after["patient_splits"] == before["patient_splits"]
    assert {r["import_id"] for r in after["cases"]} == {None}
    with reading(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    fill_again = CaseStore(engine)
    assert fill_again.put(one()) == "unchanged"
    assert fill_again.put(one(77, "p3")) == "added"
    engine.dispose()


def test_the_way_up_draws_the_hospital_split_as_the_store_does(url):
    engine = open_database(url, create=True)
    fill_by_import(engine)
    migrations.downgrade(engine, "0001_initial")
    migrations.upgrade(engine)
    store = CaseStore(engine)
    first: dict[str, str] = {}
    for case_id in store.case_ids():
        case = store.get(case_id)
        if hospital := case.attributes.get("hospital_id"):
            first.setdefault(case.patient.patient_id, hospital_split_of("fhir", hospital))
    with reading(engine) as connection:
        drawn = connection.exec_driver_sql("SELECT patient_id, split FROM patient_splits WHERE scheme = 'hospital'")
        assert dict(drawn.all()) == first
    assert len(first) == 21
    engine.dispose()


def test_a_way_up_that_fails_leaves_a_filled_database_as_it_was(url, monkeypatch):
    from alembic.operations.batch import BatchOperationsImpl

    engine = open_database(url, create=True)
    fill_by_import(engine)
    migrations.downgrade(engine, "0001_initial")
    before = rows(engine)

    def fail(*args, **kwargs):
        raise OperationalError("CREATE INDEX", {}, RuntimeError("No space left on device"))

    monkeypatch.setattr(BatchOperationsImpl, "create_index", fail)
    with pytest.raises(StorageError, match="No space left") as raised:
        migrations.upgrade(engine)
    assert raised.value.hint
    assert rows(engine) == before
    monkeypatch.undo()
    migrations.upgrade(engine)
    assert CaseStore(engine).count() == 51
    engine.dispose()


def test_a_full_disk_in_the_middle_of_the_way_up_leaves_the_file_whole(file_url):
    engine = open_database(file_url, create=True)
    fill_by_import(engine)
    migrations.downgrade(engine, "0001_initial")
    before = rows(engine)
    with engine.connect() as connection:
        free = connection.exec_driver_sql("PRAGMA freelist_count").scalar()
    filler = open_engine(file_url, create=False)
    with writing(filler) as connection:  # takes up the pages that the way down has freed
        connection.exec_driver_sql("CREATE TABLE filler AS SELECT zeroblob(?) AS x", (4096 * (free + 1),))
    filler.dispose()
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageError, match="full") as raised:
        migrations.upgrade(engine)
    assert raised.value.hint
    found = rows(engine)
    assert found.pop("filler")
    assert found == before
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
    before = rows(engine)
    engine.dispose()
    path = Path(url.removeprefix("sqlite:///"))
    bytes_before = path.read_bytes() if path.exists() else b""
    for create in (True, False):
        with pytest.raises(StorageError, match="0999_future") as raised:
            open_database(url, create=create)
        assert raised.value.hint
    assert (path.read_bytes() if path.exists() else b"") == bytes_before
    engine = open_engine(url, create=False)
    assert rows(engine) == before
    engine.dispose()


def test_a_database_of_another_program_is_left_as_it_was_on_any_server(url):
    engine = open_engine(url, create=True)
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (x INTEGER)")
    with pytest.raises(StorageError, match="not a wardstar database"):
        open_database(url, create=True)
    assert rows(engine) == {"theirs": []}
    engine.dispose()


def test_a_database_of_another_program_is_left_as_it_was(file_url):
    path = Path(file_url.removeprefix("sqlite:///"))
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="not a wardstar database"):
        open_database(file_url, create=True)
    assert path.read_bytes() == before


def test_an_empty_file_is_filled_only_on_request(file_url):
    Path(file_url.removeprefix("sqlite:///")).touch()
    with pytest.raises(StorageError, match="no cases"):
        open_database(file_url, create=False)
    engine = open_database(file_url, create=True)
    assert CaseStore(engine).count() == 0
    engine.dispose()


def test_a_failing_upgrade_leaves_no_table(file_url, monkeypatch):
    def fail(*args, **kwargs):
        raise sqlite3.OperationalError("database or disk is full")

    from alembic.operations import Operations

    monkeypatch.setattr(Operations, "create_index", fail, raising=False)
    with pytest.raises(StorageError, match="full"):
        open_database(file_url, create=True)
    monkeypatch.undo()
    other = sqlite3.connect(file_url.removeprefix("sqlite:///"))
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == []
    other.close()
