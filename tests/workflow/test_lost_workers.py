"""Workers that die, cases that kill them, cases that break: the run goes on, and ends with the same records."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.effort import effort
from tests.workflow.stored_runs import (
    DEADLY,
    done,
    finished,
    kill,
    reasons,
    replay_command,
    replay_here,
    stored,
    wait_until,
    workers_of,
)
from workflow.runner import resume

CASES = 6
BAD = "fhir-e002"


@pytest.fixture
def url(fill: Callable[..., str], pathway_file: Path) -> str:
    """A database with cases, and an undisturbed run `whole` over them."""
    made = fill(CASES)
    replay_here(made, "whole", pathway_file)
    return made


def test_a_worker_that_is_killed_loses_nothing(url: str, pathway_file: Path) -> None:
    command = replay_command(url, "one", pathway_file, "--workers", 2)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: done(url, "one") >= 1, process)
    before = workers_of(process.pid)
    kill(before[0])
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert reasons(url, "one") == {}
    assert stored(url, "one") == stored(url, "whole")


def test_a_case_that_kills_its_workers_fails_alone(url: str, pathway_file: Path) -> None:
    program = (*DEADLY, f"kill:first:{BAD}")
    said = finished(replay_command(url, "one", pathway_file, "--workers", 2, program=program)).stderr
    assert reasons(url, "one") == {(BAD, "first"): "3 workers died at it, the last one killed by SIGKILL"}
    assert "1 failed" in said
    assert "--retry-failed" in said
    assert [r for r in stored(url, "one")[0] if (r["case_id"], r["step"]) != (BAD, "first")] == [
        r for r in stored(url, "whole")[0] if (r["case_id"], r["step"]) != (BAD, "first")
    ]
    resume(url, "one")
    assert len(reasons(url, "one")) == 1, "a failed step is not taken again unless that is asked for"
    resume(url, "one", retry_failed=True)
    assert stored(url, "one") == stored(url, "whole")


@pytest.mark.parametrize(
    ("how", "reason"), [("break", "ValueError at deadly.py:"), ("memory", "MemoryError at deadly.py:")]
)
@pytest.mark.parametrize("workers", effort([1], [1, 2]))
def test_a_case_that_breaks_fails_alone(url: str, pathway_file: Path, how: str, reason: str, workers: int) -> None:
    program = (*DEADLY, f"{how}:first:{BAD}")
    done = finished(replay_command(url, "one", pathway_file, "--workers", workers, program=program))
    ((place, why),) = reasons(url, "one").items()
    assert place == (BAD, "first")
    assert why.startswith(reason)
    assert "a value of the record" not in done.stderr + why
    resume(url, "one", retry_failed=True)
    assert stored(url, "one") == stored(url, "whole")


def test_workers_that_die_while_they_load_end_the_run(url: str, pathway_file: Path) -> None:
    command = replay_command(url, "one", pathway_file, "--workers", 2, program=(*DEADLY, "load::"))
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "3 workers in a row died while they were loading, the last one killed by SIGKILL" in ended.stderr
    assert "fewer --workers" in ended.stderr
    assert reasons(url, "one") == {}
    resume(url, "one")
    assert stored(url, "one") == stored(url, "whole")


def test_ctrl_c_ends_all_workers(url: str, pathway_file: Path) -> None:
    command = replay_command(url, "one", pathway_file, "--workers", 2)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: done(url, "one") >= 1, process)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "wardstar resume" in said
    assert "Traceback" not in said
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert (len(gone), alive) == (2, [])
    resume(url, "one")
    assert stored(url, "one") == stored(url, "whole")


def test_without_their_parent_workers_leave(url: str, pathway_file: Path) -> None:
    command = replay_command(url, "one", pathway_file, "--workers", 2)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True)
    wait_until(lambda: done(url, "one") >= 1, process)
    workers = workers_of(process.pid)
    process.kill()
    process.wait()
    assert psutil.wait_procs(workers, timeout=20)[1] == []
