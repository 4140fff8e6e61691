"""Downloading data sets, against a local server that can drop connections, refuse ranges and redirect."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clinical_data.datasets import Dataset, find_dataset, load_datasets
from clinical_data.datasets import fetch as fetching
from clinical_data.datasets.fetch import BY_FIRST_FETCH, BY_MANIFEST, BY_PUBLISHER, fetch_dataset, parse_checksums
from clinical_data.errors import BadInputError, StorageError, UsageError

PATIENT, LAB = b"patient,unit\n1,2\n" * 4000, b"lab,value\n" * 9000


class Publisher:
    """A local server with files and faults.

    Attributes:
        files: path -> content.
        cuts: path -> after how many bytes the next answers break off, one by one.
        busy: how many requests are answered 503 before it works.
        ranges: whether it knows ranges.
        redirects: path -> address.
        asked: (method, path, range) of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: dict[str, list[int]] = {}
        self.busy = 0
        self.ranges = True
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                publisher.answer(self, body=False)

            def do_GET(self) -> None:
                publisher.answer(self, body=True)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/set/"

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        name = handler.path.removeprefix("/set/")
        asked = handler.headers.get("Range")
        self.asked.append((handler.command, name, asked))
        if name in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[name])
            handler.end_headers()
            return
        if self.busy or name not in self.files:
            handler.send_response(503 if self.busy else 404)
            self.busy = max(self.busy - 1, 0)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        content = self.files[name]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start and start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        if not body:
            return
        end = len(content)
        if self.cuts.get(name):
            end = start + self.cuts[name].pop(0)
        handler.wfile.write(content[start:end])

    def gets(self, name: str) -> list[str | None]:
        return [asked for method, path, asked in self.asked if (method, path) == ("GET", name)]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    found = Publisher()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found.files = {"hosp/patient.csv.gz": PATIENT, "hosp/lab.csv.gz": LAB, "notes.txt": b"not wanted"}
    found.files["SHA256SUMS.txt"] = sums_of(found.files)
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def sums_of(files: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()} {name}\n" for name, data in files.items()).encode()


def dataset_of(publisher: Publisher, **fields: object) -> Dataset:
    given: dict[str, object] = {"checksums": "SHA256SUMS.txt", "include": ["*.csv.gz"]}
    given = {} if "files" in fields else given
    common = dict.fromkeys(("title", "publisher", "licence", "version", "page", "supplies"), "x")
    own = {"name": "small", "import": "wardstar import eicu {out}", "base": publisher.url}
    return Dataset.model_validate({**common, **own, **given, **fields})


@pytest.fixture
def fetch(publisher: Publisher, tmp_path: Path) -> Callable[..., fetching.Fetched]:
    def call(**fields: object) -> fetching.Fetched:
        return fetch_dataset(dataset_of(publisher, **fields), tmp_path / "out", attempts=3, pause=0.001)

    return call


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_set_is_fetched_checked_and_private(publisher, fetch, tmp_path):
    found = fetch()
    out = tmp_path / "out"
    assert (out / "hosp/patient.csv.gz").read_bytes() == PATIENT
    assert (out / "hosp/lab.csv.gz").read_bytes() == LAB
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == ["lab.csv.gz", "patient.csv.gz", fetching.RECORD]
    assert (found.fetched, found.present) == (("hosp/lab.csv.gz", "hosp/patient.csv.gz"), ())
    assert (found.bytes, found.checked) == (len(PATIENT) + len(LAB), BY_PUBLISHER)
    assert found.import_command == f"wardstar import eicu {out}"
    assert {mode(p) for p in out.rglob("*") if p.is_file()} == {0o600}
    assert {mode(out), mode(out / "hosp")} == {0o700}
    record = json.loads((out / fetching.RECORD).read_text())["small"]
    assert record["files"]["hosp/lab.csv.gz"] == {"sha256": hashlib.sha256(LAB).hexdigest(), "bytes": len(LAB)}
    assert record["from"] == publisher.url


def test_what_is_there_is_not_fetched_again_unless_it_is_wrong(publisher, fetch, tmp_path):
    fetch()
    publisher.asked.clear()
    assert fetch().present == ("hosp/lab.csv.gz", "hosp/patient.csv.gz")
    assert [name for _, name, _ in publisher.asked] == ["SHA256SUMS.txt"]
    (tmp_path / "out/hosp/lab.csv.gz").write_bytes(b"damaged")
    assert fetch().fetched == ("hosp/lab.csv.gz",)
    assert (tmp_path / "out/hosp/lab.csv.gz").read_bytes() == LAB


def test_a_broken_connection_goes_on_where_it_stopped(publisher, fetch, tmp_path):
    publisher.cuts = {"hosp/patient.csv.gz": [1000, 500, 20000]}
    fetch()
    assert (tmp_path / "out/hosp/patient.csv.gz").read_bytes() == PATIENT
    assert publisher.gets("hosp/patient.csv.gz") == [None, "bytes=1000-", "bytes=1500-", "bytes=21500-"]


def test_a_later_fetch_goes_on_where_an_earlier_one_gave_up(publisher, fetch, tmp_path):
    publisher.cuts = {"hosp/patient.csv.gz": [1000, 0, 0, 0]}
    with pytest.raises(BadInputError, match=r"127\.0\.0\.1 cannot be read") as caught:
        fetch()
    assert "goes on where it stopped" in caught.value.hint
    part = tmp_path / "out/hosp/patient.csv.gz.part"
    assert part.read_bytes() == PATIENT[:1000]
    assert not part.with_name("patient.csv.gz").exists()
    publisher.asked.clear()
    publisher.cuts = {}
    fetch()
    assert publisher.gets("hosp/patient.csv.gz") == ["bytes=1000-"]
    assert part.with_name("patient.csv.gz").read_bytes() == PATIENT
    assert not part.exists()


def test_a_server_without_ranges_starts_over(publisher, fetch, tmp_path):
    publisher.ranges = False
    publisher.cuts = {"hosp/patient.csv.gz": [1000]}
    fetch()
    assert (tmp_path / "out/hosp/patient.csv.gz").read_bytes() == PATIENT


@pytest.mark.parametrize("left", [PATIENT, PATIENT + b"more", b"of another version", LAB * 9])
def test_what_an_earlier_fetch_left_is_used_only_if_it_fits(fetch, tmp_path, left):
    part = tmp_path / "out/hosp/patient.csv.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    fetch()
    assert (tmp_path / "out/hosp/patient.csv.gz").read_bytes() == PATIENT


def test_a_wrong_checksum_is_refused_and_nothing_of_it_stays(publisher, fetch, tmp_path):
    publisher.files["hosp/lab.csv.gz"] = LAB[:-1] + b"!"
    with pytest.raises(BadInputError, match=r"hosp/lab\.csv\.gz: sha256 is .* not ") as caught:
        fetch()
    assert caught.value.exit_code == 3
    assert not list((tmp_path / "out").rglob("lab.csv.gz*"))


def test_passing_faults_are_tried_again(publisher, fetch):
    publisher.busy = 2
    assert len(fetch().fetched) == 2
    publisher.busy = 9
    with pytest.raises(BadInputError, match="the server answers 503"):
        fetch()


@pytest.mark.parametrize("gone", ["SHA256SUMS.txt", "hosp/lab.csv.gz"])
def test_a_missing_file_is_named(publisher, fetch, gone):
    del publisher.files[gone]
    with pytest.raises(BadInputError, match=f"{gone}: not there .*404") as caught:
        fetch()
    assert "--url" in caught.value.hint
    assert (
        Counter(name for _, name, _ in publisher.asked if name == gone)[gone] <= 2
    )  # its size, and itself: no retries


def test_an_unreachable_host_is_named(publisher, tmp_path):
    publisher.server.server_close()
    with pytest.raises(BadInputError, match=r"127\.0\.0\.1 cannot be read") as caught:
        fetch_dataset(dataset_of(publisher), tmp_path / "out", attempts=2, pause=0.001)
    assert "HTTPS_PROXY" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["../evil.csv.gz", "/etc/evil.csv.gz", "a/../../evil.csv.gz", "..\\evil.csv.gz", "C:evil.csv.gz", "a//b.csv.gz"],
)
def test_names_that_leave_the_folder_are_refused(publisher, fetch, tmp_path, name):
    publisher.files["SHA256SUMS.txt"] += f"{'0' * 64} {name}\n".encode()
    with pytest.raises(BadInputError, match=r"SHA256SUMS.txt:4: a file name that would leave the folder"):
        fetch()
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_out_of_the_folder_is_refused(fetch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/hosp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="lies outside"):
        fetch()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_lists_of_checksums():
    digest = "ab" * 32
    text = f"{digest}  ./a/b.csv\n{digest.upper()} *c d.csv\r\n\n{digest} e.csv\n"
    assert parse_checksums(text, "u") == {"a/b.csv": digest, "c d.csv": digest, "e.csv": digest}
    for bad in ("", "<html>\n", f"{digest}\n"):
        with pytest.raises(BadInputError):
            parse_checksums(bad, "u")


def test_redirections_stay_with_the_publisher(publisher, fetch):
    publisher.redirects = {"hosp/lab.csv.gz": "http://localhost:9/stolen"}
    with pytest.raises(BadInputError, match="redirects to http://localhost"):
        fetch()
    publisher.redirects = {"hosp/lab.csv.gz": publisher.url + "moved"}
    publisher.files["moved"] = LAB
    assert "hosp/lab.csv.gz" in fetch().fetched


def test_without_any_checksum_the_first_fetch_decides(publisher, fetch, tmp_path):
    files = [{"path": "notes.txt"}]
    assert fetch(files=files).checked == BY_FIRST_FETCH
    assert fetch(files=files).present == ("notes.txt",)
    (tmp_path / "out/notes.txt").unlink()
    publisher.files["notes.txt"] = b"changed at its source"
    with pytest.raises(BadInputError, match=r"notes.txt: sha256 is"):
        fetch(files=files)


def test_archives_are_unpacked_beside_themselves(publisher, fetch, tmp_path):
    publisher.files["77"] = zip_of({"fhir/a.json": b"{}" * 99, "fhir/b.json": b"[]"})
    sha256 = hashlib.sha256(publisher.files["77"]).hexdigest()
    files = [{"path": "all.zip", "remote": "77", "sha256": sha256, "bytes": len(publisher.files["77"]), "unpack": True}]
    for _ in range(2):
        assert fetch(files=files).checked == BY_MANIFEST
        assert (tmp_path / "out/fhir/a.json").read_bytes() == b"{}" * 99
        (tmp_path / "out/fhir/a.json").write_bytes(b"torn")  # the next fetch mends it
    assert mode(tmp_path / "out/fhir/b.json") == 0o600
    assert publisher.gets("77") == [None]


@pytest.mark.parametrize("members", [{"../evil.json": b"{}"}, {"bomb.json": b"0" * 3_000_000}])
def test_hostile_archives_are_refused(publisher, fetch, tmp_path, members):
    publisher.files["all.zip"] = zip_of(members)
    with pytest.raises(BadInputError, match=r"all\.zip"):
        fetch(files=[{"path": "all.zip", "unpack": True}])
    assert not list(tmp_path.rglob("*.json")) or [p.name for p in tmp_path.rglob("*.json")] == [fetching.RECORD]


def zip_of(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_a_full_disk_is_a_storage_error_and_keeps_what_is_there(fetch, monkeypatch, tmp_path):
    def full(path: Path, have: int, chunks: object, progress: object) -> None:
        path.write_bytes(PATIENT[:10])
        raise fetching.disk_errors(OSError(28, "No space left on device"), path)

    with monkeypatch.context() as patch:
        patch.setattr("clinical_data.datasets.transfer._write", full)
        with pytest.raises(StorageError, match="the disk is full") as caught:
            fetch()
    assert caught.value.exit_code == 5
    assert len(fetch().fetched) == 2


def test_too_little_space_is_told_before_anything_is_fetched(publisher, fetch, monkeypatch):
    monkeypatch.setattr(fetching, "SPARE", 1 << 60)
    with pytest.raises(StorageError, match="MB are needed"):
        fetch()
    assert publisher.gets("hosp/lab.csv.gz") == []


def test_a_mirror_holds_the_files_under_their_own_names(publisher, tmp_path):
    real = dataset_of(publisher, base="https://example.invalid/", files=[{"path": "notes.txt", "remote": "4711"}])
    found = fetch_dataset(real, tmp_path / "out", mirror=publisher.url.rstrip("/"), pause=0.001)
    assert found.fetched == ("notes.txt",)
    with pytest.raises(UsageError, match="no web address"):
        fetch_dataset(real, tmp_path / "out", mirror="notes")


def test_the_manifest_names_every_set():
    names = [one.name for one in load_datasets()]
    assert len(names) == len(set(names))
    assert {"eicu-demo", "mimic-iv-demo", "mimic-iii-demo", "mimic-iv-ed-demo", "mimic-iv-fhir-demo"} <= set(names)
    for one in load_datasets():
        assert one.page.startswith("https://")
        assert not one.open or (one.base.startswith("https://") and one.base.endswith("/"))
        assert all(f.sha256 and f.size for f in one.files)
    with pytest.raises(UsageError, match="no data set named nothing"):
        find_dataset("nothing")


@pytest.mark.parametrize("name", ["mimic-iv", "mimic-iii", "eicu"])
def test_credentialed_sets_are_refused_with_the_way_to_them(name, tmp_path):
    with pytest.raises(UsageError, match="must be applied for") as caught:
        fetch_dataset(find_dataset(name), tmp_path / "out")
    assert "credentialed PhysioNet user" in caught.value.hint
    assert find_dataset(name).page in caught.value.hint
    assert not (tmp_path / "out").exists()
