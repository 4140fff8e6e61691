"""Import of a large generated FHIR folder: time against bare validation, peak memory of all processes, kill and resume.

    python -m benchmarks.scale_fhir [--resources 1000000] [--workers N] [--no-kill]

Prints one line of JSON. Bare validation is one process; the import runs in a process tree of its own.
"""

from __future__ import annotations

import argparse
import gzip
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.fhir_import import OBSERVATIONS, resources, validate
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.fhir import FhirSource
from clinical_data.sources.fhir_pool import MOST_WORKERS, usable_processors
from clinical_data.sources.fhir_stage import FILE
from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database

_SAMPLE_SECONDS = 0.2


def generate(folder: Path, number: int) -> int:
    """Writes about `number` resources, a file per type as a bulk export does; returns how many."""
    cases = max(1, number // (OBSERVATIONS + 3))
    written = 0
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for resource in resources(cases):
            kind = resource["resourceType"]
            if kind not in files:
                path = folder / f"{kind}.ndjson.gz"
                files[kind] = stack.enter_context(gzip.open(path, "wb", compresslevel=1))
            files[kind].write(orjson.dumps(resource) + b"\n")
            written += 1
    return written


def bare(folder: Path) -> float:
    """Returns the seconds of reading, parsing and validating every line, and nothing else."""
    begun = time.perf_counter()
    validate(_lines(folder))
    return time.perf_counter() - begun


def _lines(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.ndjson.gz")):
        with gzip.open(path, "rb") as text:
            yield from text


class Import:
    """A running import, with the memory of all its processes watched."""

    def __init__(self, data: Path, place: Path, workers: int) -> None:
        command = [sys.executable, "-m", __name__ if __name__ != "__main__" else "benchmarks.scale_fhir"]
        self.begun = time.perf_counter()
        self.process = subprocess.Popen([*command, "--import-into", str(place), str(data), "--workers", str(workers)])
        self.peak = 0
        self.most = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            try:
                root = psutil.Process(self.process.pid)
                tree = [root, *root.children(recursive=True)]
                self.peak = max(self.peak, sum(p.memory_info().rss for p in tree))
                self.most = max(self.most, len(tree))
            except psutil.Error:  # one of them ended meanwhile
                continue
            finally:
                time.sleep(_SAMPLE_SECONDS)

    def end(self) -> float:
        """Waits for the end; returns the seconds since the begin."""
        if self.process.wait():
            raise RuntimeError(f"the import ended with {self.process.returncode}")
        return time.perf_counter() - self.begun

    def kill_at(self, size: int, file: Path) -> float:
        """Kills the import when a file has grown to a size; returns the seconds since the begin."""
        while self.process.poll() is None and not (file.is_file() and file.stat().st_size >= size):
            time.sleep(0.05)
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return time.perf_counter() - self.begun


def run_import(data: Path, place: Path, workers: int) -> None:
    """Imports a folder into a database, staging in a workspace that outlives a kill."""
    engine = open_database(f"sqlite:///{place}/a.db", create=True)
    store = CaseStore(engine)
    broken: list[object] = []
    job = ImportJob(workspace=place / "stage")
    store.put_many(FhirSource(workers or None).read(data, ImportLog(broken.append), job))
    engine.dispose()
    if broken:
        raise RuntimeError("the benchmark's own resources did not import")


def measure(number: int, workers: int = 0, kill: bool = True) -> dict[str, float]:
    """Returns time, ratio to bare validation, peak memory, and what a kill in the middle costs."""
    with tempfile.TemporaryDirectory(prefix="wardstar-scale-") as name:
        data, whole, killed = (Path(name) / part for part in ("data", "whole", "killed"))
        for folder in (data, whole, killed):
            folder.mkdir()
        written = generate(data, number)
        validate(orjson.dumps(r) for r in resources(1))  # build the models outside the timing
        alone = bare(data)
        running = Import(data, whole, workers)
        seconds = running.end()
        found = {
            "scale_fhir_resources": written,
            "scale_fhir_bare_validation_seconds": round(alone, 1),
            "scale_fhir_import_seconds": round(seconds, 1),
            "scale_fhir_time_over_bare": round(seconds / alone, 3),
            "scale_fhir_peak_memory_mb": round(running.peak / 1e6, 1),
            "scale_fhir_processes": running.most,
            "scale_fhir_workers": workers or min(usable_processors(), MOST_WORKERS),
        }
        if kill:
            half = (whole / "stage" / FILE).stat().st_size // 3
            first = Import(data, killed, workers).kill_at(half, killed / "stage" / FILE)
            again = Import(data, killed, workers).end()
            found |= {
                "scale_fhir_killed_after_seconds": round(first, 1),
                "scale_fhir_resumed_seconds": round(again, 1),
                "scale_fhir_kill_cost": round((first + again) / seconds, 3),
            }
    return found


def main() -> None:
    """Runs the benchmark, or, called by itself, one import."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--resources", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--import-into", type=Path)
    chosen = parser.parse_args()
    if chosen.import_into:
        run_import(chosen.data, chosen.import_into, chosen.workers)
    else:
        print(orjson.dumps(measure(chosen.resources, chosen.workers, not chosen.no_kill)).decode())


if __name__ == "__main__":
    main()
