"""`wardstar data list|fetch`: what is shown, exit codes, and that nothing but the named host is asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Run

CONTENT = b"patientunitstayid\n1\n"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """A mirror of the eICU demo with a single table."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "patient.csv.gz").write_bytes(CONTENT)
    (folder / "SHA256SUMS.txt").write_text(f"{hashlib.sha256(CONTENT).hexdigest()} patient.csv.gz\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_list_shows_licence_and_import(run: Run) -> None:
    code, out, _ = run("data", "list")
    assert code == 0
    for text in ("eicu-demo", "ODbL 1.0", "wardstar import eicu", "CC BY 4.0", "not open"):
        assert text in out


def test_list_as_json(run: Run) -> None:
    code, out, error = run("data", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert (code, error) == (0, "")
    assert rows["eicu-demo"]["import"] == "wardstar import eicu wardstar-data/eicu-demo"
    assert rows["ddxplus"]["megabytes"] == 178.8
    assert rows["mimic-iv"]["open"] is False
    assert "data use agreement" in rows["mimic-iv"]["apply"].replace("\n", " ")


def test_fetch_from_a_mirror(run: Run, mirror: str, tmp_path: Path) -> None:
    code, out, error = run("data", "fetch", "eicu-demo", "--url", mirror)
    assert code == 0, error
    assert "1 files fetched, 0 there already" in out
    assert "next: wardstar import eicu wardstar-data/eicu-demo" in out
    assert f"from {mirror}" in error
    assert (tmp_path / "wardstar-data/eicu-demo/patient.csv.gz").read_bytes() == CONTENT
    code, out, _ = run("data", "fetch", "eicu-demo", "--url", mirror, "--out", "wardstar-data/eicu-demo", "--json")
    found = json.loads(out)
    assert (code, found["fetched"], found["present"]) == (0, [], ["patient.csv.gz"])


def test_exit_codes(run: Run, mirror: str, tmp_path: Path) -> None:
    assert run("data", "fetch", "nothing")[0] == 2
    code, _, error = run("data", "fetch", "eicu")
    assert code == 2
    assert "must be applied for" in error
    assert "hint: https://physionet.org/content/eicu-crd/2.0/" in error
    (tmp_path / "mirror/patient.csv.gz").write_bytes(b"other")
    assert run("data", "fetch", "eicu-demo", "--url", mirror)[0] == 3
    (tmp_path / "taken").write_text("a file")
    assert run("data", "fetch", "eicu-demo", "--url", mirror, "--out", "taken")[0] == 5
