"""An import in a process of its own, with the memory of all its processes watched, and a kill at a chosen moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_IMPORT = """
import json, sys
from pathlib import Path
from workflow.importing import import_cases
done = import_cases(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
print(json.dumps({"cases": done.cases, "quarantined": done.quarantined, "resumed": done.resumed}))
"""


@dataclass(frozen=True)
class Watched:
    """What an import took: seconds, peak resident memory of its process tree in MB; None fields where it was killed."""

    seconds: float
    peak_mb: float
    cases: int | None = None
    quarantined: int | None = None
    resumed: bool | None = None


def run_import(
    source: str, path: Path, database: Path, kill_at: Callable[[float], bool] = lambda seconds: False
) -> Watched:
    """Imports as `wardstar import` does, into an SQLite file; kills it with SIGKILL once `kill_at` says so.

    Raises:
        RuntimeError: the import failed.
    """
    began, peak = time.perf_counter(), 0
    command = [sys.executable, "-c", _IMPORT, f"sqlite:///{database}", source, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as process:
        while process.poll() is None:
            peak = max(peak, sum(_memory_of_tree(process.pid)))
            if kill_at(time.perf_counter() - began):
                for one in (*_tree(process.pid),):
                    one.send_signal(signal.SIGKILL)
                process.wait()
                break
            time.sleep(0.1)
        told = process.stdout.read() if process.stdout else b""
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the import ended with {process.returncode}")
    return Watched(time.perf_counter() - began, peak / 1e6, **(json.loads(told) if told else {}))


def _tree(pid: int) -> Iterator[psutil.Process]:
    try:
        process = psutil.Process(pid)
        yield from process.children(recursive=True)
        yield process
    except psutil.NoSuchProcess:
        return


def _memory_of_tree(pid: int) -> Iterator[int]:
    for one in _tree(pid):
        try:
            yield one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
