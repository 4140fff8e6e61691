"""Replays on a real Ray cluster of two nodes: the same records as here, whatever is killed or stopped."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from clinical_data.errors import UsageError
from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database
from tests.workflow.stored_runs import (
    done,
    finished,
    kill,
    reasons,
    replay_command,
    replay_here,
    resume_command,
    stored,
    wait_until,
    workers_of,
)
from workflow.executors.ray import RayCluster, RayCrew

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

pytestmark = pytest.mark.timeout(600)  # Ray takes its time where other programs keep the processors busy
CASES = 6
ACTOR = "RayWorker"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """Address, and id of the process above all of its processes."""
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(Path(__file__).with_name("ray_cluster.py"))]
    with subprocess.Popen(
        script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=own
    ) as process:
        assert process.stdout is not None
        address = ""
        for line in process.stdout:
            if found := re.fullmatch(r"\S+:\d+", line.strip()):
                address = found[0]
                break
        assert address, "the cluster did not start"
        try:
            yield address, process.pid
        finally:
            process.communicate(timeout=60)  # closes its stdin


@pytest.fixture
def url(postgres_url: Callable[[], str], labelled: Callable[..., object], pathway_file: Path) -> str:
    """A PostgreSQL database with cases, and an undisturbed run `whole` over them by the local executor."""
    made = postgres_url()
    engine = open_database(made, create=True)
    CaseStore(engine).put_many([labelled(i) for i in range(CASES)])
    engine.dispose()
    replay_here(made, "whole", pathway_file)
    return made


def on_ray(address: str, *more: object) -> tuple[object, ...]:
    return ("--executor", "ray", "--ray-address", address, "--workers", 2, *more)


def loops_back(place: str) -> bool:
    return ipaddress.ip_address(place.removeprefix("::ffff:")).is_loopback


def test_a_killed_worker_changes_no_record(url: str, pathway_file: Path, cluster: tuple[str, int]) -> None:
    address, above = cluster
    command = replay_command(url, "one", pathway_file, *on_ray(address, "--gpus-per-worker", 0.5))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: done(url, "one") >= 1, process, 200)
    workers = workers_of(above, ACTOR)
    assert len(workers) == 2
    kill(workers[0])
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert reasons(url, "one") == {}
    assert stored(url, "one") == stored(url, "whole")


def test_ctrl_c_ends_the_actors_and_the_run_goes_on(url: str, pathway_file: Path, cluster: tuple[str, int]) -> None:
    address, above = cluster
    command = replay_command(url, "one", pathway_file, *on_ray(address))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: done(url, "one") >= 1, process, 200)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "wardstar resume" in said
    assert "Traceback" not in said
    end = time.monotonic() + 20
    while workers_of(above, ACTOR) and time.monotonic() < end:
        time.sleep(0.1)
    assert workers_of(above, ACTOR) == []
    assert 0 < done(url, "one") < 2 * CASES
    finished(resume_command(url, "one", *on_ray(address)))
    assert stored(url, "one") == stored(url, "whole")


def test_what_the_cluster_has_no_room_for_is_refused(url: str, pathway_file: Path, cluster: tuple[str, int]) -> None:
    command = replay_command(url, "one", pathway_file, *on_ray(cluster[0], "--gpus-per-worker", 2))
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "no node of the Ray cluster has a processor and 2 GPUs" in ended.stderr
    assert done(url, "one") == -1, "a run that could not begin must not occupy the name"


def test_a_cluster_of_this_machine_alone_listens_to_it_alone(fill: Callable[..., str], pathway_file: Path) -> None:
    """Without an address; SQLite serves, as all workers are here."""
    url = fill(CASES)
    replay_here(url, "whole", pathway_file)
    command = replay_command(url, "one", pathway_file, "--executor", "ray", "--workers", 1)
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "1"}
    )
    wait_until(lambda: done(url, "one") >= 1, process, 200)
    family = psutil.Process(process.pid).children(recursive=True)
    switches = {p.environ().get("RAY_USAGE_STATS_ENABLED") for p in family if p.status() != "zombie"}
    places = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == "LISTEN"}
    far = {c.raddr.ip for p in family for c in p.net_connections("inet") if c.raddr}
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert places
    assert [place for place in places | far if not loops_back(place)] == []
    assert "0" in switches
    assert "1" not in switches  # a process that has named itself shows no environment
    assert stored(url, "one") == stored(url, "whole")
    assert psutil.wait_procs(family, timeout=20)[1] == []


@pytest.mark.parametrize(("host", "refused"), [("another-node", True), (socket.gethostname(), False)])
def test_sqlite_is_for_a_cluster_of_this_machine(host: str, refused: bool) -> None:
    crew = object.__new__(RayCrew)
    here, there = ({"Alive": True, "NodeManagerHostname": name} for name in (socket.gethostname(), host))
    crew._ray = SimpleNamespace(nodes=lambda: [here, there, {"Alive": False, "NodeManagerHostname": "gone"}])
    if refused:
        with pytest.raises(UsageError, match="serves one machine"):
            crew._url_for_nodes("sqlite:///cases.db")
    else:
        assert crew._url_for_nodes("sqlite:///cases.db") == f"sqlite:///{Path.cwd() / 'cases.db'}"
    assert crew._url_for_nodes("postgresql+psycopg://one:two@there/db") == "postgresql+psycopg://one:two@there/db"


def test_what_is_reached_over_loopback() -> None:
    assert [RayCluster(a).here for a in ("", "127.0.0.1:6379", "localhost:6379", "10.0.0.7:6379", "auto")] == [
        True, True, True, False, False,
    ]  # fmt: skip
