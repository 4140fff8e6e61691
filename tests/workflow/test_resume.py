"""kill -9 in the middle of a replay, then resume: no case lost, none done twice, the same records."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.rows import prompt_rows, record_rows
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from tests.effort import effort

CASES, KILLS = effort((6, 1), (12, 5))
WARDSTAR = (sys.executable, "-c", "from workflow.cli import main; main()")


def command(url: str, run: str, pathway: Path, workers: int = 1) -> list[str]:
    own = ["replay", "--db", url, "--run", run, "--pathway", str(pathway), "--generator", "random:7", "--seed", "5"]
    return [*WARDSTAR, *own, "--rollouts", "12", "--workers", str(workers)]


def stored(url: str, run: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    engine = open_database(url, create=False)
    store = RunStore(engine)
    row = store.get(run)
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in record_rows(store, row)]
    prompts = list(prompt_rows(store, row, tokens=True))
    engine.dispose()
    return records, prompts


def done(url: str, run: str) -> int:
    """Number of case-steps done; -1 while the run is not begun."""
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found = [r for r in store.runs() if r.name == run]
    number = len(store.done(found[0].run_id)) if found else -1
    engine.dispose()
    return number


@pytest.mark.parametrize("workers", effort([2], [1, 2]))
def test_a_killed_replay_resumes_to_the_same_records(
    fill: Callable[..., str], pathway_file: Path, workers: int
) -> None:
    url = fill(CASES)
    subprocess.run(command(url, "whole", pathway_file), check=True, capture_output=True)
    dice = random.Random(workers)
    kills = []
    for _ in range(KILLS):  # each session is killed a little after it has done something more
        before = done(url, "killed")
        process = subprocess.Popen(command(url, "killed", pathway_file, workers), stderr=subprocess.DEVNULL)
        wait = time.monotonic() + 60
        while done(url, "killed") <= max(before, 0) and process.poll() is None and time.monotonic() < wait:
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills.append(done(url, "killed"))
    assert 0 < kills[0] < 2 * CASES, "the kill came too early or too late to show anything"
    resumed = subprocess.run(
        [*WARDSTAR, "resume", "--db", url, "--run", "killed"], check=True, capture_output=True, text=True
    )
    assert "killed" in resumed.stderr
    assert stored(url, "killed") == stored(url, "whole")
    records, _ = stored(url, "killed")
    keys = [(r["case_id"], r["step"], r["occurrence"]) for r in records]
    assert len(keys) == len(set(keys)) == 2 * CASES


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(CASES)
    process = subprocess.Popen(command(url, "one", pathway_file), stderr=subprocess.PIPE, text=True)
    wait = time.monotonic() + 60
    while done(url, "one") < 1 and time.monotonic() < wait:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"wardstar resume --db {url} --run one" in error.replace("\n", " ")
    assert "Traceback" not in error
    assert 0 < done(url, "one") < 2 * CASES
