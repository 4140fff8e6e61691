"""A private PostgreSQL server for tests, which may be killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest


class PostgresServer:
    """A server of our own in a folder of its own; skips the test where there are no programs for one.

    Args:
        fsync: commits outlive a kill of the server without it as well, as the system keeps what was written.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        programs = _postgres_programs()
        if programs is None:
            pytest.skip("no PostgreSQL programs on this machine, and WARDSTAR_TEST_POSTGRES is not set")
        pytest.importorskip("psycopg", reason="psycopg is not installed")
        self._programs, self._user = programs, _unprivileged_user()
        self._folder = Path(tempfile.mkdtemp(prefix="wardstar-pg-", dir="/tmp"))  # a socket's path must be short
        self._data = self._folder / "data"
        self._fsync = "on" if fsync else "off"
        self._left: list[psutil.Process] = []
        self.url = f"postgresql+psycopg://tester@/postgres?host={self._folder}"
        if self._user is not None:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._folder.chmod(0o755)  # the test's own user must reach the socket
        # Trust without password is safe: no TCP port is opened, and the server dies with the tests.
        self._call("initdb", "-D", self._data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Starts the server and waits until it answers; what a kill left of it must be gone before."""
        psutil.wait_procs(self._left, timeout=60)
        options = f"-c listen_addresses='' -c unix_socket_directories={self._folder} -c max_connections=40"
        options += f" -c fsync={self._fsync}"
        self._call("pg_ctl", "-D", self._data, "-l", self._folder / "log", "-o", options, "-w", "start")

    def kill(self) -> None:
        """Ends the server's main process by SIGKILL; its children notice and leave."""
        main = psutil.Process(int((self._data / "postmaster.pid").read_text().splitlines()[0]))
        self._left = main.children()
        main.kill()

    def stop(self) -> None:
        """Stops the server."""
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """Removes all its files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, program: str, *arguments: object) -> None:
        """Runs a program of the server. Its output goes to a file: a server that inherits a pipe would keep it open."""
        user = self._user
        group = None if user is None else pwd.getpwnam(user).pw_gid
        words = [str(part) for part in (self._programs / program, *arguments)]
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                words, user=user, group=group, extra_groups=None if user is None else [], cwd="/", stdout=output,
                stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False,
            )  # fmt: skip
            if done.returncode:
                output.seek(0)
                pytest.fail(f"{words[0]}: {output.read().decode(errors='replace')}")


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
