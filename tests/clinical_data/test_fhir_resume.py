"""A staging that was killed goes on where it stopped; several processes give what one gives."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fhir_building import condition, diagnosis, encounter, observation, patient

from clinical_data.errors import StorageError
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.fhir import FhirSource
from clinical_data.sources.fhir_files import Piece
from clinical_data.sources.fhir_pool import reduce_chunks
from clinical_data.sources.fhir_stage import FILE, Stage


def folder(tmp_path, many=3000):
    """Writes three files: stays, results with broken lines in between, and more of them packed."""
    place = tmp_path / "in"
    place.mkdir()
    stays = []
    for n in range(20):
        me = {"reference": f"Patient/p{n}"}
        stays += [
            patient(id=f"p{n}"),
            encounter(f"e{n}", diagnosis=[diagnosis("DD", f"c{n}", 1)], subject=me),
            condition(f"c{n}", subject=me, encounter={"reference": f"Encounter/e{n}"}),
        ]
    results = [
        json.dumps(
            observation(
                f"o{n}",
                subject={"reference": f"Patient/p{n % 20}"},
                encounter={"reference": f"Encounter/e{n % 20}"},
                valueQuantity={"value": n},
            )
            if n % 500
            else {"resourceType": "Observation", "id": f"broken{n}"}
        )
        for n in range(many)
    ]
    (place / "a.ndjson").write_text("\n".join(map(json.dumps, stays)), encoding="utf-8")
    (place / "b.ndjson").write_text("\n".join(results[: many // 2]), encoding="utf-8")
    (place / "c.ndjson.gz").write_bytes(gzip.compress("\n".join(results[many // 2 :]).encode()))
    return place


def outcome(place, workers=1, **job):
    broken = []
    log = ImportLog(broken.append)
    cases = list(FhirSource(workers).read(place, log, ImportJob(**job)))
    return cases, broken, dict(log.read), dict(log.unused)


def test_several_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setattr("clinical_data.sources.fhir._ALONE", 500)
    place = folder(tmp_path)
    assert outcome(place, 3) == outcome(place, 1)
    assert len(outcome(place, 1)[1]) == 6


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_staging_goes_on_where_it_was_killed(tmp_path, monkeypatch, after):
    place = folder(tmp_path)
    whole = outcome(place)
    monkeypatch.setattr("clinical_data.sources.fhir._COMMIT_PIECES", 500)
    commit, done = Stage.commit, []

    def commit_and_die(self, file, pieces):
        commit(self, file, pieces)
        done.append((file, pieces))
        if len(done) == after:
            raise Killed

    monkeypatch.setattr(Stage, "commit", commit_and_die)
    with pytest.raises(Killed):
        outcome(place, workspace=tmp_path / "w")
    seen = []
    add = Stage.add
    monkeypatch.setattr(Stage, "commit", commit)
    monkeypatch.setattr(Stage, "add", lambda self, found: (seen.append(sum(found.read.values())), add(self, found)))
    assert outcome(place, workspace=tmp_path / "w") == whole
    assert sum(seen) < sum(whole[2].values())  # not everything was read again
    seen.clear()
    assert outcome(place, workspace=tmp_path / "w") == whole
    assert seen == []  # staged already


def test_kill_9_in_the_middle(tmp_path):
    place = folder(tmp_path, 12_000)
    whole = outcome(place)
    code = (
        "import sys; from pathlib import Path; from clinical_data.sources import ImportJob, ImportLog;"
        "from clinical_data.sources import fhir; fhir._COMMIT_PIECES = 500; fhir._ALONE = 1000;"
        "list(fhir.FhirSource(2).read(Path(sys.argv[1]), ImportLog(lambda q: None),"
        " ImportJob(workspace=Path(sys.argv[2]))))"
    )
    root = Path(__file__).resolve().parents[2]
    work = tmp_path / "w"
    running = subprocess.Popen([sys.executable, "-c", code, str(place), str(work)], cwd=root)
    wal = work / f"{FILE}-wal"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (wal.is_file() and wal.stat().st_size > 300_000):
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert outcome(place, workspace=work) == whole


def test_other_input_is_staged_anew_and_a_broken_staging_file_too(tmp_path):
    place = folder(tmp_path)
    work = tmp_path / "w"
    whole = outcome(place, workspace=work)
    (work / FILE).write_bytes(b"no database" * 1000)
    assert outcome(place, workspace=work) == whole
    (place / "b.ndjson").unlink()
    assert outcome(place, workspace=work) == outcome(place)


def test_stored_cases_are_not_built_again(tmp_path):
    place = folder(tmp_path)
    every = [c.case.case_id for c in outcome(place)[0]]
    left = outcome(place, stored=lambda case_id: case_id != every[3])[0]
    assert [c.case.case_id for c in left] == [every[3]]


def test_a_worker_that_dies_is_one_clear_error():
    pieces = [Piece("a.ndjson", 1, b"{}")]

    def chunks():
        yield ("a.ndjson", 1), pieces
        mine = int(Path("/proc/self/stat").read_text().split()[0])
        for other in Path("/proc").glob("[0-9]*/stat"):
            fields = other.read_text().rpartition(")")[2].split()
            if int(fields[1]) == mine and b"fhir_pool" in (other.parent / "cmdline").read_bytes():
                os.kill(int(other.parent.name), signal.SIGKILL)
        for n in range(2, 9):
            yield ("a.ndjson", n), pieces

    if not Path("/proc/self/stat").is_file():
        pytest.skip("needs /proc to find the workers")
    with pytest.raises(StorageError, match="worker of the import ended") as raised:
        list(reduce_chunks(chunks(), 2))
    assert "goes on where it stopped" in raised.value.hint
