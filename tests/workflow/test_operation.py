"""Running wardstar for days: states of runs, quiet and JSON modes, structured logs, deletion, and the doctor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from sqlalchemy import MetaData, func, select, update

from clinical_data.catalogue import Catalogue, load_catalogue
from clinical_data.errors import BadInputError, StorageError
from evaluation.store import open_database
from evaluation.store.run_state import SILENT, RunState, run_states
from evaluation.store.run_store import RunStore
from evaluation.store.tables import case_steps, runs
from workflow.commands import machine
from workflow.runner import resume

TINY = ("--generator", "random:7", "--rollouts", "2")


def listed(run: Run, url: str) -> dict[str, dict[str, Any]]:
    return {row["run"]: row for row in json.loads(run("runs", "list", "--db", url, "--json")[1])}


def test_runs_are_listed_with_state_and_progress(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(3)
    assert run("replay", "--db", url, "--run", "one", "--pathway", pathway_file, *TINY)[0] == 0
    row = listed(run, url)["one"]
    assert (row["state"], row["cases"], row["done"], row["case_steps"], row["failed_steps"]) == ("finished", 3, 3, 6, 0)
    assert row["seconds"] > 0
    assert min(row["prefilled"], row["sampled"]) > 0
    assert len(row["config_hash"]) == 64
    table = run("runs", "list", "--db", url)[1]
    assert "finished" in table
    assert "3 of 3" in table
    shown = json.loads(run("runs", "show", "one", "--db", url)[1])
    assert (shown["state"], shown["done"], shown["config_hash"]) == ("finished", 3, row["config_hash"])
    assert shown["config"]["seed"] == 0


@pytest.mark.parametrize(
    ("status", "silent", "state"),
    [
        ("running", False, "running"),
        ("running", True, "stopped"),
        ("interrupted", False, "stopped"),
        ("failed", False, "failed"),
        ("finished", True, "finished"),
    ],
)
def test_the_state_of_a_run(
    run: Run, fill: Callable[..., str], pathway_file: Path, status: str, silent: bool, state: str
) -> None:
    """What was killed says nothing any more: it counts as stopped once it has been silent for long."""
    url = fill(2)
    run("replay", "--db", url, "--run", "one", "--pathway", pathway_file, *TINY)
    engine = open_database(url, create=False)
    with engine.begin() as connection:
        connection.execute(update(runs).values(status=status))
        first = connection.execute(select(case_steps.c.case_id).order_by(case_steps.c.case_id)).scalars().first()
        connection.execute(case_steps.delete().where(case_steps.c.case_id != first))
        connection.execute(update(case_steps).where(case_steps.c.step == "second").values(status="failed"))
    now = datetime.now(UTC) + (SILENT + timedelta(seconds=1) if silent else timedelta())
    (found,) = run_states(engine, now=now)
    engine.dispose()
    assert (found.state, found.cases, found.failed_steps) == (state, 2, 1)
    assert found.done == (2 if state == "finished" else 1)


def test_a_run_that_is_resumed_is_running_and_a_kill_leaves_it_so(
    run: Run, fill: Callable[..., str], pathway_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as its last session ended: that said `finished` of a run whose failed steps were being taken again."""
    url = fill(2)
    seen: list[RunState] = []
    run("replay", "--db", url, "--run", "one", "--pathway", pathway_file, *TINY)
    engine = open_database(url, create=False)
    with engine.begin() as connection:
        connection.execute(update(case_steps).where(case_steps.c.step == "second").values(status="failed"))

    def killed(*_: object, **__: object) -> None:
        seen.append(run_states(engine)[0])
        raise Killed

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patched:
        patched.setattr("workflow.case_worker.run_case", killed)
        patched.setattr(RunStore, "finish", lambda *_: None)  # it never gets so far
        with pytest.raises(Killed):
            resume(url, "one", retry_failed=True)
    (left,) = run_states(engine, now=datetime.now(UTC) + SILENT + timedelta(seconds=1))
    assert (seen[0].state, left.state) == ("running", "stopped")
    resume(url, "one", retry_failed=True)
    assert run_states(engine)[0].state == "finished"
    engine.dispose()


def test_progress_is_counted_on_every_database(
    database_url: str, labelled: Callable[..., Any], pathway_file: Path
) -> None:
    from clinical_data.store.case_store import CaseStore
    from workflow.options import ReplayOptions
    from workflow.runner import replay

    engine = open_database(database_url, create=True)
    CaseStore(engine).put_many([labelled(i) for i in range(2)])
    options = ReplayOptions(pathway=str(pathway_file), generator="random:7", settings={"rollouts": 2})
    replay(database_url, "one", options)
    (found,) = run_states(engine)
    records = [s.record for s in RunStore(engine).records(found.run.run_id)]
    engine.dispose()
    assert found.prefilled == sum(r.tokens["prefilled"] for r in records)
    assert found.sampled == sum(r.tokens["sampled"] for r in records)
    assert found.seconds == pytest.approx(sum(r.seconds for r in records), abs=0.01)
    assert (found.state, found.case_steps) == ("finished", 4)


def test_a_run_is_deleted_whole_and_nothing_else(
    run: Run, fill: Callable[..., str], pathway_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs that share cached generations: rows of every table are compared, not only counted."""
    monkeypatch.setattr("workflow.case_worker.WITHOUT_COST", ("scripted:",))  # so that the random model is cached
    url = fill(3)
    common = ("--db", url, "--pathway", pathway_file, "--rollouts", "2")
    run("replay", *common, "--run", "one", "--generator", "random:7")
    remark = run("replay", *common, "--run", "two", "--generator", "random:7")[2]
    assert "requests to models were answered from the cache" in remark
    before = contents(url)
    assert before["generations"]
    assert {"cases", "findings", "patients", "runs", "case_steps"} <= {name for name, rows in before.items() if rows}
    assert run("runs", "delete", "one", "--yes", "--db", url)[0] == 0
    after = contents(url)
    assert set(after) == set(before)
    for name, rows in before.items():
        kept = [r for r in rows if not (name in ("runs", "case_steps") and r["run_id"] == 1)]
        assert after[name] == kept, name
    assert len(after["case_steps"]) == 6
    assert [r["name"] for r in after["runs"]] == ["two"]
    assert run("runs", "show", "one", "--db", url)[0] == 2
    assert run("replay", *common, "--run", "two", "--generator", "random:7")[0] == 0


def contents(url: str) -> dict[str, list[dict[str, Any]]]:
    """Returns every row of every table, however many tables there are."""
    engine = open_database(url, create=False)
    metadata = MetaData()
    metadata.reflect(engine)
    found = {}
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            rows = [dict(r._mapping) for r in connection.execute(select(table))]
            found[table.name] = sorted(rows, key=repr)
            assert connection.scalar(select(func.count()).select_from(table)) == len(rows)
    engine.dispose()
    return found


def test_quiet_commands_say_nothing(run: Run, fill: Callable[..., str], pathway_file: Path, tmp_path: Path) -> None:
    url = fill(2)
    common = ("--db", url, "--run", "one", "--quiet")
    assert run("replay", *common, "--pathway", pathway_file, *TINY) == (0, "", "")
    assert run("resume", *common) == (0, "", "")
    assert run("report", *common, "--out", tmp_path / "report")[::2] == (0, "")
    code, out, error = run("score", *common, "--json")
    assert (code, error) == (0, "")
    assert json.loads(out)["run"] == "one"
    code, out, error = run("replay", *common, "--pathway", pathway_file, "--generator", "random:8")
    assert (code, out) == (2, "")
    assert "another configuration" in error  # an error shows in any case
    assert "nothing left to do" in run("resume", "--db", url, "--run", "one")[2]  # and quiet is over


def test_long_commands_write_json_alone_to_stdout(
    run: Run, fill: Callable[..., str], pathway_file: Path, tmp_path: Path
) -> None:
    url = fill(6)
    common = ("--db", url, "--run", "one", "--json")
    done = json.loads(run("replay", *common, "--pathway", pathway_file, *TINY, "--split", "train")[1])
    assert (done["run"], done["skipped"]) == ("one", 0)
    assert sum(done["statuses"].values()) == 2 * done["cases"]
    assert json.loads(run("resume", *common)[1])["skipped"] == done["cases"]
    report = json.loads(run("report", *common, "--out", tmp_path / "report")[1])
    assert report["pages"] == len(list((tmp_path / "report").rglob("*.html")))
    code, out, error = run("export", "sft", "--db", url, "--run", "one", "--out", tmp_path / "set", "--json")
    assert code == 0, error
    assert json.loads(out)["splits"]["train"]["rows"] > 0


def test_an_import_writes_json(run: Run, tmp_path: Path) -> None:
    from clinical_data.demo import bundle_folder

    code, out, _ = run("import", "fhir", bundle_folder(), "--db", f"sqlite:///{tmp_path / 'new.db'}", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["stored"]["added"] == found["cases"] > 0


def test_logs_are_json_lines_with_ids(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(2)
    code, out, error = run("--log-json", "replay", "--db", url, "--run", "one", "--pathway", pathway_file, *TINY)
    assert (code, out) == (0, "")
    rows = [json.loads(line) for line in error.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(row) for row in rows)
    cases = [row for row in rows if row.get("event") == "case"]
    assert [row["case_id"] for row in cases] == ["fhir-e000", "fhir-e001"]
    assert set(cases[0]["statuses"]) == {"first", "second"}
    assert "CANARY" not in error
    assert "cough" not in error
    code, _, error = run("--log-json", "runs", "show", "nothing", "--db", url)
    assert code == 2
    assert [json.loads(line)["level"] for line in error.splitlines()] == ["ERROR", "ERROR"]


def test_every_long_command_has_quiet_and_json(run: Run) -> None:
    long = ["import", "plan", "replay", "resume", "score", "export", "report", "evolve", "demo", "data fetch"]
    long += [f"train {method}" for method in ("sft", "dpo", "ttrl", "stepwise")]
    for command in long:
        code, out, _ = run(*command.split(), "--help")
        assert code == 0
        assert "--quiet" in out, command
        assert "--json" in out, command


@pytest.fixture
def doctor(run: Run) -> Callable[..., tuple[int, dict[str, tuple[str, str]]]]:
    """Returns a function that runs the doctor: (exit code, check -> (whether it is well, whole row))."""

    def call(*words: object) -> tuple[int, dict[str, tuple[str, str]]]:
        code, out, _ = run("doctor", *words)
        rows = [[c.strip() for c in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
        found: dict[str, tuple[str, str]] = {}
        name = ""
        for row in rows:
            name = row[0] or name
            well, text = found.get(name, ("", ""))
            found[name] = (well + row[1], f"{text} {row[2]} {row[3]}".strip())
        return code, found

    return call


def test_the_doctor_finds_an_old_python(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "version_info", (3, 10, 4))
    code, found = doctor()
    assert code == 2
    assert found["Python"][0] == "not ok"
    assert "Python 3.11" in found["Python"][1]


def test_the_doctor_finds_little_memory(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 2**18)
    _, found = doctor()
    assert "1.0 GiB" in found["memory"][1]
    assert "needs about 2 GiB" in found["memory"][1]

    def broken(name: str) -> int:
        raise OSError

    monkeypatch.setattr(machine.os, "sysconf", broken)
    assert "unknown" in doctor()[1]["memory"][1]


def test_the_doctor_finds_missing_weights(doctor: Any) -> None:
    code, found = doctor()  # the fixture's home holds none
    assert code == 4
    assert found["embedded model"][0] == "not ok"
    assert "wardstar models install" in found["embedded model"][1]


@pytest.mark.parametrize("name", ["v1", "v1-zh"])
def test_the_doctor_finds_a_broken_catalogue(doctor: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def broken(wanted: str = "v1") -> Catalogue:
        if wanted == name:
            raise BadInputError("invalid YAML", file=f"{name}.yaml", line=3, hint="install wardstar again")
        return load_catalogue(wanted)

    monkeypatch.setattr("clinical_data.catalogue.load_catalogue", broken)
    code, found = doctor()
    assert found["catalogues"][0] == "not ok"
    assert f"{name}.yaml:3" in found["catalogues"][1]
    assert "install wardstar again" in found["catalogues"][1]
    assert code in (3, 4)


def test_the_doctor_finds_broken_vocabularies_and_pathways(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise BadInputError("not UTF-8 text", file="x.yaml")

    monkeypatch.setattr("clinical_data.vocabulary.load_vocabulary", broken)
    monkeypatch.setattr("workflow.pathway.load_pathway", broken)
    _, found = doctor()
    assert found["answer vocabularies"][0] == found["pathways"][0] == "not ok"


@pytest.mark.parametrize("kind", ["missing", "text", "newer", "folder"])
def test_the_doctor_finds_a_bad_database(doctor: Any, tmp_path: Path, kind: str, fill: Callable[..., str]) -> None:
    path = tmp_path / "some.db"
    url = f"sqlite:///{path}"
    if kind == "text":
        path.write_text("no database" * 200)
    elif kind == "folder":
        path.mkdir()
    elif kind == "newer":
        url = fill(1)
        engine = open_database(url, create=False)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        engine.dispose()
    code, found = doctor("--db", url)
    well, text = found["database"]
    if kind == "missing":
        assert "wardstar import fhir PATH" in text
        assert well == "ok"
    else:
        assert well == "not ok"
        assert code in (StorageError.exit_code, 4)


def test_the_doctor_is_content_with_a_good_database(doctor: Any, fill: Callable[..., str]) -> None:
    _, found = doctor("--db", fill(2))
    assert found["database"] == ("ok", "2 cases, 0 runs")
    assert found["catalogues"][1] == "v1 (69), v1-zh (69)"
    for name in ("Python", "catalogues", "answer vocabularies", "pathways"):
        assert found[name][0] == "ok"
    assert sys.version_info >= (3, 11)
