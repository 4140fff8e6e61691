"""kill -9 in the middle of an import, then the same command again: database and summary of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from clinical_data.demo import bundle_folder
from clinical_data.errors import BadInputError, StorageError, UsageError
from clinical_data.sources import ImportJob
from clinical_data.store import tables
from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database
from tests.effort import effort
from workflow import importing
from workflow.import_workspace import fingerprint_of, workspace, workspace_of
from workflow.importing import SOURCES, find_source, import_cases

HERE = Path(__file__).parent
LATER = ("seconds", "resumed")
IDS_AND_TIMES = {"imports": {"started", "finished"}, "quarantine": {"quarantine_id"}}


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.txt"
    path.write_text("\n".join(str(n) for n in range(1, 61)))
    return path


def begin(url: str, source: str, path: Path) -> subprocess.Popen[str]:
    home = {**os.environ, "WARDSTAR_HOME": str(path.parent / "home")}
    command = [sys.executable, str(HERE / "import_sources.py"), url, source, str(path)]
    return subprocess.Popen(command, cwd=Path.cwd(), env=home, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


def stored(url: str) -> int:
    """Number of cases in a database; 0 while it is not there."""
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).exists():
        return 0
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(tables.cases)) or 0
    except SQLAlchemyError:
        return 0
    finally:
        engine.dispose()


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    wait = time.monotonic() + 60
    while not ready() and process.poll() is None and time.monotonic() < wait:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def contents(url: str) -> dict[str, list[dict[str, Any]]]:
    """Everything in a database but keys that count up and times of day."""
    engine = open_database(url, create=False)
    found = MetaData()
    with engine.connect() as connection:
        found.reflect(connection)
        result = {}
        for name, table in found.tables.items():
            left = [c for c in table.c if c.name not in IDS_AND_TIMES.get(name, ())]
            result[name] = sorted((dict(r._mapping) for r in connection.execute(select(*left))), key=repr)
    engine.dispose()
    return result


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return {k: v for k, v in one.items() if k not in LATER} == {k: v for k, v in other.items() if k not in LATER}


@pytest.mark.parametrize("source", effort(["slow"], ["slow", "plain"]))
def test_a_killed_import_ends_as_an_undisturbed_one(
    database_url: str, numbers: Path, tmp_path: Path, source: str
) -> None:
    calm = f"sqlite:///{tmp_path / 'calm.db'}"
    undisturbed = finish(begin(calm, source, numbers))
    assert (undisturbed["cases"], undisturbed["stored"]) == (46, {"added": 46})
    assert (undisturbed["quarantined"], undisturbed["hospital_conflicts"]) == (1 + 8 + 11 + 6, 8)
    assert undisturbed["read"] == {"line": 60, "row": 2 * 52}
    reached = []
    for stop in (16, 33, 47):
        numbers.with_suffix(".stop").write_text(str(stop))
        kill_when(begin(database_url, source, numbers), numbers.with_suffix(".stopped").exists)
        numbers.with_suffix(".stopped").unlink()
        reached.append(stored(database_url))
    numbers.with_suffix(".stop").unlink()
    assert 0 < reached[0] < reached[1] < reached[2] < 46
    resumed = finish(begin(database_url, source, numbers))
    assert resumed["resumed"]
    assert same(resumed, undisturbed)
    assert contents(database_url) == contents(calm)
    assert not undisturbed["resumed"]
    assert list(tmp_path.glob("*.import-*")) == []
    assert list(tmp_path.glob("home/imports/*")) == []
    again = finish(begin(database_url, source, numbers))
    assert (again["resumed"], again["stored"]) == (False, {"unchanged": 46})


def test_the_bundled_cases_survive_kills_at_any_moment(tmp_path: Path) -> None:
    folder = Path(bundle_folder())
    calm, url = f"sqlite:///{tmp_path / 'calm.db'}", f"sqlite:///{tmp_path / 'a.db'}"
    undisturbed = finish(begin(calm, "fhir", folder))
    kill_when(begin(url, "fhir", folder), lambda: bool(list(tmp_path.glob("a.db.import-*/stage/*"))))
    assert stored(url) == 0
    for least in (1, 12):
        kill_when(begin(url, "fhir", folder), lambda n=least: stored(url) >= n)  # type: ignore[misc]
    resumed = finish(begin(url, "fhir", folder))
    assert same(resumed, undisturbed)
    assert contents(url) == contents(calm)


def test_an_interrupt_keeps_the_workspace_and_bad_input_does_not(
    tmp_path: Path, numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    class Source:
        name, stages, trouble = "slow", True, KeyboardInterrupt

        def read(self, path: Path, log: Any, job: ImportJob) -> Any:
            assert job.workspace is not None
            assert stat.S_IMODE(job.workspace.stat().st_mode) == 0o700
            assert stat.S_IMODE(job.workspace.parent.stat().st_mode) == 0o700
            (job.workspace / "staged").touch()
            raise self.trouble
            yield

    monkeypatch.setattr(importing, "find_source", lambda name: Source())
    for trouble, left in (
        (KeyboardInterrupt(), 1), (StorageError("disk full"), 1), (StorageError("disk image is malformed"), 0),
        (OSError("gone"), 1), (BadInputError("not of this source"), 0), (ValueError("a mistake of ours"), 0),
    ):  # fmt: skip
        Source.trouble = trouble
        with pytest.raises(type(trouble)):
            import_cases(url, "slow", numbers)
        assert len(list(tmp_path.glob("a.db.import-*"))) == left


def test_a_wrong_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none"):
        for source in ("eicu", "fhir"):
            with pytest.raises(BadInputError):
                import_cases(f"sqlite:///{tmp_path / 'a.db'}", source, path)
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_the_same_import_twice_at_a_time_is_refused(tmp_path: Path, numbers: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    first = begin(url, "slow", numbers)
    wait = time.monotonic() + 60
    while stored(url) < 3 and time.monotonic() < wait:
        time.sleep(0.01)
    folder = workspace_of(url, fingerprint_of("slow", numbers))
    assert folder is not None
    assert folder.is_dir()
    with pytest.raises(UsageError, match="running already"), workspace(folder):
        pass
    assert finish(first)["cases"] == 46
    assert not folder.exists()


def test_what_is_imported_decides_the_fingerprint(tmp_path: Path, numbers: Path) -> None:
    ranks = tmp_path / "ranks.csv"
    ranks.write_text("a")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    seen = [fingerprint_of("fhir", folder), fingerprint_of("fhir", folder, ranks), fingerprint_of("eicu", folder)]
    (folder / "b").write_text("1")
    seen.append(fingerprint_of("fhir", folder))
    os.utime(folder / "b", ns=(1, 1))
    seen.append(fingerprint_of("fhir", folder))
    assert len(set(seen)) == 5
    assert fingerprint_of("fhir", folder) == seen[-1]
    assert workspace_of("sqlite://", seen[0]) is None
    places = {workspace_of(f"postgresql+psycopg://me:{word}@host/{name}", seen[0]) for word in "ab" for name in "cd"}
    assert len(places) == 2  # by database, and no password in it


def test_an_unfinished_import_of_other_files_is_left_alone(tmp_path: Path, numbers: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    kill_when(begin(url, "slow", numbers), lambda: stored(url) >= 3)
    other = tmp_path / "other.txt"
    other.write_text("\n".join(str(n) for n in range(101, 111)))
    assert not finish(begin(url, "slow", other))["resumed"]
    assert len(list(tmp_path.glob("a.db.import-*"))) == 1
    resumed = finish(begin(url, "slow", numbers))
    assert (resumed["resumed"], resumed["cases"], resumed["quarantined"]) == (True, 46, 26)
    engine = open_database(url, create=False)
    assert CaseStore(engine).count() == 46 + len({n for n in range(101, 111) if n % 7 and n % 9})
    engine.dispose()


def test_every_source_has_its_importer() -> None:
    assert list(SOURCES) == ["fhir", "mimic-iv", "mimic-iii", "eicu", "meds", "osce", "ddxplus"]
    for name in ("fhir", "eicu"):
        assert find_source(name).name == name
    with pytest.raises(UsageError, match="mimic-v"):
        find_source("mimic-v")
