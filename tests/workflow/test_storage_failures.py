"""A full disk, a file that may not grow, a database server that dies: exit 5, and a resume to the same records."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database
from tests.effort import effort
from tests.postgres_server import PostgresServer
from tests.workflow.stored_runs import (
    WARDSTAR,
    done,
    replay_command,
    replay_here,
    resume_command,
    stored,
    wait_until,
    workers_of,
)
from workflow.runner import resume

CASES = 8
NARROW = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
del sys.argv[1]
from workflow.cli import main; main()
"""


@pytest.fixture
def url(fill: Callable[..., str], pathway_file: Path) -> str:
    """A database with cases, and an undisturbed run `whole` over them."""
    made = fill(CASES)
    replay_here(made, "whole", pathway_file, rollouts=12)
    return made


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def test_a_database_file_that_may_not_grow(url: str, fill: Callable[..., str], pathway_file: Path) -> None:
    """The limit of a file's size stands for a full disk: it takes no rights, and hits SQLite in the same places."""
    narrow = fill(CASES, "narrow.db")
    size = file_of(narrow).stat().st_size + 30_000
    command = replay_command(
        narrow, "one", pathway_file, rollouts=12, program=(sys.executable, "-c", NARROW, str(size))
    )
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 5, ended.stderr
    assert "disk" in ended.stderr
    assert "hint: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert 0 < done(narrow, "one") < 2 * CASES, "the limit came too early or too late to show anything"
    resume(narrow, "one")
    assert stored(narrow, "one") == stored(url, "whole")


def test_a_full_disk(url: str, pathway_file: Path, tmp_path: Path) -> None:
    """A small file system of our own, in a namespace that an ordinary user may make."""
    mount = tmp_path / "small"
    mount.mkdir()
    names = ("unshare", "--user", "--map-root-user", "--mount")
    trial = [*names, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if shutil.which("unshare") is None or subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted in a namespace of one's own here")
    size = file_of(url).stat().st_size + 400_000
    small = f"sqlite:///{mount / 'cases.db'}"
    script = f"""
        mount -t tmpfs -o size={size} tmpfs {mount} || exit 90
        cp {file_of(url)} {mount}/cases.db
        {shlex.join(replay_command(small, "one", pathway_file, rollouts=12))} 2> {tmp_path}/said
        echo $? > {tmp_path}/code
        mount -o remount,size=100m {mount} || exit 91
        {shlex.join(resume_command(small, "one"))} 2> {tmp_path}/resumed || exit 92
        {shlex.join([*WARDSTAR, "runs", "show", "one", "--db", small])} > /dev/null || exit 93
        cp {mount}/cases.db* {tmp_path}/after/
    """
    (tmp_path / "after").mkdir()
    ended = subprocess.run([*names, "sh", "-c", script], capture_output=True, text=True, check=False)
    said = (tmp_path / "said").read_text()
    assert ended.returncode == 0, f"{ended.returncode} {ended.stderr} {said}"
    assert (tmp_path / "code").read_text().strip() == "5", said
    assert "disk is full" in said
    assert "free some disk space" in said
    assert stored(f"sqlite:///{tmp_path}/after/cases.db", "one") == stored(url, "whole")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of this test alone, as it is killed."""
    made = PostgresServer(fsync=True)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        made.remove()


@pytest.mark.parametrize("workers", effort([1], [1, 2]))
def test_a_database_server_that_is_killed(
    server: PostgresServer,
    labelled: Callable[..., object],
    pathway_file: Path,
    workers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    engine = open_database(server.url, create=True)
    CaseStore(engine).put_many([labelled(i) for i in range(CASES)])
    engine.dispose()
    replay_here(server.url, "whole", pathway_file)
    whole = stored(server.url, "whole")
    command = replay_command(server.url, "one", pathway_file, "--workers", workers)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: done(server.url, "one") >= 1, process)
    server.kill()
    children = workers_of(process.pid) if process.poll() is None else []
    _, said = process.communicate(timeout=120)
    assert process.returncode == 5, said
    assert "Traceback" not in said
    assert not any(child.is_running() and child.status() != "zombie" for child in children)
    server.start()
    assert 0 < done(server.url, "one") < 2 * CASES, "the kill came too early or too late to show anything"
    resume(server.url, "one", workers=workers)
    assert stored(server.url, "one") == whole
