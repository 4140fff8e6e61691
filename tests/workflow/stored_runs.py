"""What tests of killed runs share: commands in processes of their own, and what a run left in its database."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from evaluation.rows import prompt_rows, record_rows
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from workflow.config import ReplayOptions
from workflow.runner import replay

WARDSTAR = (sys.executable, "-c", "from workflow.cli import main; main()")
ROLLOUTS = 120  # a step takes a sixth of a second, so that whoever comes late to kill still finds some undone
DEADLY = (sys.executable, str(Path(__file__).with_name("deadly.py")))


def replay_command(
    url: str, run: str, pathway: Path, *more: object, program: tuple[str, ...] = WARDSTAR, rollouts: int = ROLLOUTS
) -> list[str]:
    own = ["replay", "--db", url, "--run", run, "--pathway", str(pathway), "--generator", "random:7", "--seed", "5"]
    return [*program, *own, "--rollouts", str(rollouts), *map(str, more)]


def resume_command(url: str, run: str, *more: object, program: tuple[str, ...] = WARDSTAR) -> list[str]:
    return [*program, "resume", "--db", url, "--run", run, *map(str, more)]


def replay_here(url: str, run: str, pathway: Path, *, rollouts: int = ROLLOUTS) -> None:
    """What `replay_command` does, in this process: no other has to start."""
    settings = {"rollouts": rollouts}
    replay(url, run, ReplayOptions(pathway=str(pathway), generator="random:7", seed=5, settings=settings))


def finished(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; it must end well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stderr
    return done


def stored(url: str, run: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records without their wall time, and prompts with their token ids."""
    engine = open_database(url, create=False)
    store = RunStore(engine)
    row = store.get(run)
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in record_rows(store, row)]
    prompts = list(prompt_rows(store, row, tokens=True))
    engine.dispose()
    return records, prompts


def reasons(url: str, run: str) -> dict[tuple[str, str], str]:
    """(case, step) -> reason, of the steps that failed."""
    engine = open_database(url, create=False)
    store = RunStore(engine)
    records = [s.record for s in store.records(store.get(run).run_id)]
    engine.dispose()
    return {(r.case_id, r.step): r.reason for r in records if r.status == "failed"}


def done(url: str, run: str) -> int:
    """Number of case-steps done; -1 while the run is not begun."""
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found = [r for r in store.runs() if r.name == run]
    number = len(store.done(found[0].run_id)) if found else -1
    engine.dispose()
    return number


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Waits until something holds; fails when the process ends before."""
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, "the command ended too early to show anything"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def workers_of(pid: int, sign: str = "spawn_main") -> list[psutil.Process]:
    """The worker processes below a process: those whose command line holds a sign."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if any(sign in word for word in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
