"""Import of a large generated FHIR folder: time against bare validation, peak memory of all processes, kill and resume.

    python -m benchmarks.scale_fhir [RESOURCES] [--no-kill]      20,000 unless told; 1,000,000 for the full measurement

Prints one line of JSON. Bare validation is one process; the import runs in a process tree of its own.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from benchmarks.fhir_import import OBSERVATIONS, resources, validate
from benchmarks.watched import run_import
from clinical_data.sources.fhir_pool import MOST_WORKERS, usable_processors


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


def measure(number: int = 20_000, kill: bool = True) -> dict[str, float | int | bool]:
    """Returns time, ratio to bare validation, peak memory, and what a kill halfway costs.

    Raises:
        RuntimeError: the import failed, or left something out.
    """
    with tempfile.TemporaryDirectory(prefix="wardstar-scale-") as name:
        home, data = Path(name), Path(name) / "data"
        data.mkdir()
        written = generate(data, number)
        validate(orjson.dumps(r) for r in resources(1))  # build the models outside the timing
        alone = bare(data)
        whole = run_import("fhir", data, home / "whole.db")
        if whole.quarantined or whole.cases != written // (OBSERVATIONS + 3):
            raise RuntimeError("the benchmark's own resources did not import")
        found: dict[str, float | int | bool] = {
            "fhir_scale_resources": written,
            "fhir_scale_bare_validation_seconds": round(alone, 1),
            "fhir_scale_import_seconds": round(whole.seconds, 1),
            "fhir_scale_import_over_bare_validation": round(whole.seconds / alone, 3),
            "fhir_scale_peak_mb": round(whole.peak_mb),
            "fhir_scale_workers": min(usable_processors(), MOST_WORKERS),
        }
        if kill:
            first = run_import("fhir", data, home / "killed.db", lambda seconds: seconds > whole.seconds / 2)
            again = run_import("fhir", data, home / "killed.db")
            if again.cases != whole.cases:
                raise RuntimeError("the import that was killed and resumed holds something else")
            found["fhir_scale_resume_after_kill_seconds"] = round(again.seconds, 1)
            found["fhir_scale_resumed"] = bool(again.resumed)
            found["fhir_scale_kill_cost"] = round((first.seconds + again.seconds) / whole.seconds, 2)
    return found


def main() -> None:
    """Runs the benchmark at a size given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("resources", nargs="?", type=int, default=20_000)
    parser.add_argument("--no-kill", action="store_true")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.resources, not chosen.no_kill)))


if __name__ == "__main__":
    main()
