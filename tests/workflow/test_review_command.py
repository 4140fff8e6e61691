"""`wardstar review` and what `runs delete` does to readings, as a user calls them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run
from starlette.testclient import TestClient

from evaluation.reading.app.application import create_app
from evaluation.reading.app.login import SESSION
from evaluation.reading.readers import csrf_token
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from workflow.commands import review


@pytest.fixture
def replayed(run: Run, fill: Callable[..., str], pathway_file: Path) -> str:
    """A database of two cases with the run `one`, stored by a real search."""
    url = fill(2)
    options = ("--pathway", pathway_file, "--steps", "first", "--generator", "random:7", "--rollouts", "4")
    assert run("replay", "--db", url, "--run", "one", *options)[0] == 0
    return url


def read_first(url: str, token: str) -> None:
    """Reads the first case-step on the list to its end."""
    engine = open_database(url, create=False)
    app = create_app(engine, RunStore(engine).get("one"))
    with TestClient(app, base_url="http://localhost") as client:
        page = client.get("/login").text
        csrf = re.search(r'name="csrf" value="(\w+)"', page)
        assert csrf is not None
        work = client.post("/login", data={"csrf": csrf[1], "name": "Ann", "token": token}).text
        link = re.search(r'class="button" href="(/read/\w+)"', work)
        assert link is not None
        own = {"csrf": csrf_token(client.cookies[SESSION]), "answer": "pneumonia", "confidence": "50"}
        for part, more in (("first", {}), ("after", {}), ("finished", {"verdict": "accepted"})):
            assert client.post(f"{link[1]}/{part}", data=own | more).status_code == 200
    engine.dispose()


def test_a_token_is_shown_once(run: Run, replayed: str) -> None:
    code, token, _ = run("review", "add-reviewer", "Ann", "--db", replayed, "--role", "resident", "--years", "3")
    assert code == 0
    assert re.fullmatch(r"(\w{6}-){3}\w{6}\n", token)
    assert run("review", "add-reviewer", "Ann", "--db", replayed)[0] == 2
    code, other, _ = run("review", "add-reviewer", "Ann", "--db", replayed, "--new-token")
    assert code == 0
    assert other != token
    assert run("review", "add-reviewer", "<b>", "--db", replayed)[0] == 2
    assert run("review", "disable-reviewer", "Ben", "--db", replayed)[0] == 2


def test_progress_and_verify_after_a_reading(run: Run, replayed: str) -> None:
    token = run("review", "add-reviewer", "Ann", "--db", replayed)[1].strip()
    head = json.loads(run("review", "verify", "--db", replayed, "--json")[1])["head"]
    read_first(replayed, token)
    code, out, _ = run("review", "progress", "--db", replayed, "--run", "one", "--json")
    (row,) = json.loads(out)["readers"]
    assert (code, row["reader"], row["case-steps"], row["finished"]) == (0, "Ann", 2, 1)
    assert "Ann" in run("review", "progress", "--db", replayed, "--run", "one")[1]
    assert run("review", "verify", "--db", replayed, "--head", head)[0] == 0
    code, out, error = run("review", "verify", "--db", replayed, "--head", "0" * 63 + "1")
    assert (code, "noted head" in error) == (3, True)
    assert re.match(r"\d+ entries in order, head [0-9a-f]{64}", out)


def test_verify_names_the_first_broken_entry(run: Run, replayed: str) -> None:
    token = run("review", "add-reviewer", "Ann", "--db", replayed)[1].strip()
    read_first(replayed, token)
    engine = open_database(replayed, create=False)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER reading_log_update")
        connection.exec_driver_sql("UPDATE reading_log SET reviewer = 'Ben' WHERE seq IN (4, 6)")
    engine.dispose()
    code, out, error = run("review", "verify", "--db", replayed)
    assert (code, out[:18]) == (3, "3 entries in order")
    assert "log of readings, entry 4: its content does not fit its hash" in error
    assert "Traceback" not in error


def test_a_run_with_readings_is_deleted_on_request_only(run: Run, replayed: str) -> None:
    token = run("review", "add-reviewer", "Ann", "--db", replayed)[1].strip()
    read_first(replayed, token)
    code, _, error = run("runs", "delete", "one", "--db", replayed, "--yes")
    assert (code, "1 finished readings" in error, "--with-readings" in error) == (2, True, True)
    assert run("runs", "show", "one", "--db", replayed)[0] == 0
    assert run("runs", "delete", "one", "--db", replayed, "--yes", "--with-readings")[0] == 0
    assert run("runs", "show", "one", "--db", replayed)[0] == 2
    assert run("review", "verify", "--db", replayed)[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run", "two"], "no run named two"),
        (["--run", "one", "--overlap", "half"], "not an overlap"),
        (["--run", "one", "--host", "0.0.0.0"], "--allow-host"),
        (["--run", "one", "--tls-cert", "a.pem"], "--tls-key"),
        (["--run", "one", "--host", "203.0.113.7"], "cannot listen"),
    ],
)
def test_serve_refuses_what_cannot_be(run: Run, replayed: str, options: list[str], words: str) -> None:
    code, out, error = run("review", "serve", "--db", replayed, "--port", "0", *options)
    assert (code, out) == (2, "")
    assert words in error


def test_serve_listens_on_this_machine_alone_and_ends_when_told(replayed: str) -> None:
    command = [sys.executable, "-c", "from workflow.cli import main; main()", "review", "serve", "--db", replayed]
    own = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, "--run", "one", "--port", "0"], **own)  # type: ignore[call-overload]
    try:
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", process.stdout.readline())
        assert found is not None
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=10) as connection:
            connection.sendall(b"GET /login HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = connection.recv(100_000).decode()
        assert answer.startswith("HTTP/1.1 200")
        assert "server:" not in answer.lower().split("\r\n\r\n")[0]
    finally:
        process.terminate()
        _, error = process.communicate(timeout=30)
    assert "no reader yet" in error
    assert "warning" not in error


def test_another_address_than_this_machine_is_warned_of(
    run: Run, replayed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[object] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: served.append(self.config) or sockets[0].close())
    given = ("review", "serve", "--db", replayed, "--run", "one", "--port", "0")
    code, _, error = run(*given, "--host", "0.0.0.0", "--allow-host", "ward.example")
    assert (code, error.count("warning")) == (0, 2)
    place = served[0].app._place  # type: ignore[attr-defined]
    assert place.secure
    assert place.hosts == {"ward.example", "127.0.0.1", "localhost", "::1"}
    code, _, error = run(*given)
    assert "warning" not in error
    assert not served[1].app._place.secure  # type: ignore[attr-defined]


def test_the_usual_port_is_taken_once(run: Run, replayed: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, error = run("review", "serve", "--db", replayed, "--run", "one", "--port", port)
    assert (code, f"127.0.0.1:{port}: cannot listen there" in error) == (2, True)
    assert review.PORT == 8765
