"""Databases for the tests: SQLite files, and schemas of a private PostgreSQL server. And torch on one thread."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

_numbers = count(1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch computes on one thread: small models only wait for a second one, and equal runs stay equal."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of an empty PostgreSQL database: WARDSTAR_TEST_POSTGRES, or a server of our own; skips without either."""
    if given := os.environ.get("WARDSTAR_TEST_POSTGRES"):
        yield given
        return
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL programs on this machine, and WARDSTAR_TEST_POSTGRES is not set")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    user = _unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="wardstar-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        folder.chmod(0o755)  # the test's own user must reach the socket
        data = folder / "data"
        # Trust without password is safe: no TCP port is opened, and the server dies with the tests.
        _call([programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"], user)
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=40"
        _call([programs / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start"], user)
        try:
            yield f"postgresql+psycopg://tester@/postgres?host={folder}"
        finally:
            _call([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Returns a function that gives the URL of a fresh schema; all are dropped after the test."""
    made: list[str] = []
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")

    def make() -> str:
        name = f"wardstar_test_{os.getpid()}_{next(_numbers)}"
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        made.append(name)
        url = make_url(postgres_server).update_query_dict({"options": f"-csearch_path={name}"})
        return url.render_as_string(hide_password=False)

    yield make
    with engine.connect() as connection:
        for name in made:
            connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / '100% a.db'}"
    make: Callable[[], str] = request.getfixturevalue("postgres_url")
    return make()


def _postgres_programs() -> Path | None:
    found = shutil.which("pg_ctl")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "pg_ctl").exists()), None)


def _unprivileged_user() -> str | None:
    """Returns a user for the server where the tests run as root, which PostgreSQL refuses to run as."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


def _call(command: list[object], user: str | None) -> None:
    """Runs a program of the server. Its output goes to a file: a server that inherits a pipe would keep it open."""
    group = None if user is None else pwd.getpwnam(user).pw_gid
    words = [str(part) for part in command]
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            words, user=user, group=group, extra_groups=None if user is None else [], cwd="/", stdout=output,
            stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False,
        )  # fmt: skip
        if done.returncode:
            output.seek(0)
            pytest.fail(f"{words[0]}: {output.read().decode(errors='replace')}")
