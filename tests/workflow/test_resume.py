"""kill -9 at random moments of a replay, then resume: nothing lost, nothing twice, the same records."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.effort import THOROUGH, effort
from tests.workflow.stored_runs import done, finished, replay_command, replay_here, resume_command, stored, wait_until

CASES, KILLS = effort((6, 1), (12, 5))
RANDOM_KILLS = effort(6, 100)


def kill_table(*more: object, seconds: int) -> list[dict[str, object]]:
    """Kills as `make bench-kill` does."""
    command = [sys.executable, "-m", "benchmarks.kill_table", "--json", *map(str, more)]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds, cwd=Path(__file__).parents[2]
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    kills: list[dict[str, object]] = json.loads(ended.stdout)["kills"]
    return kills


def check(kills: list[dict[str, object]], number: int) -> None:
    """One process has one step at work: that step alone is done again, and no call is made whose answer is stored."""
    assert len(kills) == number
    assert all(k["identical"] for k in kills)
    assert all(k["steps_twice"] == k["calls_repeated"] == 0 for k in kills)
    assert all(k["steps_redone"] in (0, 1) for k in kills)


@pytest.mark.timeout(effort(300, 3600))
def test_kills_at_random_moments_change_nothing() -> None:
    kills = kill_table("--kills", RANDOM_KILLS, "--seed", 11, "--cases", 3, "--rollouts", 2, seconds=effort(250, 3500))
    check(kills, RANDOM_KILLS)
    assert len({k["where"] for k in kills}) > 1, "all kills hit the same phase"
    assert any(k["steps_redone"] for k in kills), "no kill hit a step at work"


@pytest.mark.embedded
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not THOROUGH, reason="minutes with the embedded model: `make test-thorough`")
def test_kills_with_the_embedded_model_change_nothing() -> None:
    more = ("--generator", "embedded", "--cases", 1, "--rollouts", 1)
    check(kill_table("--kills", 5, "--seed", 12, *more, seconds=3500), 5)


@pytest.mark.parametrize("workers", effort([2], [1, 2]))
def test_a_killed_replay_resumes_to_the_same_records(
    fill: Callable[..., str], pathway_file: Path, workers: int
) -> None:
    url = fill(CASES)
    replay_here(url, "whole", pathway_file)
    dice = random.Random(workers)
    kills = []
    for _ in range(KILLS):  # each session is killed a little after it has done something more
        before = done(url, "killed")
        command = replay_command(url, "killed", pathway_file, "--workers", workers)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait = time.monotonic() + 60
        while done(url, "killed") <= max(before, 0) and process.poll() is None and time.monotonic() < wait:
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills.append(done(url, "killed"))
    assert 0 < kills[0] < 2 * CASES, "the kill came too early or too late to show anything"
    assert "killed" in finished(resume_command(url, "killed")).stderr
    assert stored(url, "killed") == stored(url, "whole")
    records, _ = stored(url, "killed")
    keys = [(r["case_id"], r["step"], r["occurrence"]) for r in records]
    assert len(keys) == len(set(keys)) == 2 * CASES


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(CASES)
    process = subprocess.Popen(replay_command(url, "one", pathway_file), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: done(url, "one") >= 1, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"wardstar resume --db {url} --run one" in error.replace("\n", " ")
    assert "Traceback" not in error
    assert 0 < done(url, "one") < 2 * CASES
