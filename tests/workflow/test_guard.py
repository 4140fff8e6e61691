"""A replay opens no connection beyond this machine, whatever the environment switches on."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflow.stored_runs import stored
from tests.workflow.tiny_weights import make_weights
from workflow.guard import OFF, quiet_libraries

SCRIPT = str(Path(__file__).with_name("listening.py"))
SWITCHED_ON = {
    "LANGSMITH_TRACING": "true",
    "LANGSMITH_TRACING_V2": "true",
    "LANGCHAIN_TRACING_V2": "true",
    "LANGSMITH_API_KEY": "lsv2_made_up",
    "HF_HUB_DISABLE_TELEMETRY": "0",
    "DO_NOT_TRACK": "0",
    "RAY_USAGE_STATS_ENABLED": "1",
    "HF_HUB_OFFLINE": "0",
}


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **SWITCHED_ON, **more}


def command(url: str, run: str, pathway: Path, generator: str, file: Path, how: str = "quiet") -> list[str]:
    own = ["--pathway", str(pathway), "--generator", generator, "--rollouts", "1", "--seed", "3"]
    return [sys.executable, SCRIPT, str(file), how, "replay", "--db", url, "--run", run, *own]


def beyond(heard: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is not this machine: any name but localhost, any address that does not loop back."""
    return [(event, host) for event, host in heard if not _here(host)]


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "None", "")


@pytest.mark.parametrize("kind", ["random", "local weights"])
def test_a_replay_opens_no_connection(fill: Callable[..., str], pathway_file: Path, tmp_path: Path, kind: str) -> None:
    url, file = fill(2), tmp_path / "heard.json"
    generator = "random:7" if kind == "random" else make_weights(tmp_path / "weights")
    own = command(url, "one", pathway_file, generator, file)
    done = subprocess.run(own, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(stored(url, "one")[0]) == 4
    assert json.loads(file.read_text()) == []


def test_the_test_would_hear_tracing(fill: Callable[..., str], pathway_file: Path, tmp_path: Path) -> None:
    """Without the guard, the same environment makes LangSmith send each step to where it is told: here to nobody."""
    url, file = fill(1), tmp_path / "heard.json"
    nobody = environment(LANGSMITH_ENDPOINT="http://127.0.0.2:9")
    for how in ("loud", "quiet"):
        subprocess.run(command(url, how, pathway_file, "random:7", file, how), env=nobody, check=False, timeout=120)
        heard = [host for _, host in json.loads(file.read_text())]
        assert ("127.0.0.2" in heard) == (how == "loud")


def test_the_system_sees_no_connection_either(fill: Callable[..., str], pathway_file: Path, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace on this machine")
    url, file, trace = fill(1), tmp_path / "heard.json", tmp_path / "trace"
    watched = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)]
    own = command(url, "one", pathway_file, "random:7", file)
    done = subprocess.run([*watched, *own], env=environment(), capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr.lower() and not trace.exists():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    hosts = re.findall(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"', trace.read_text())
    assert [h for h in hosts if not ipaddress.ip_address(h).is_loopback] == []


def test_telemetry_is_off_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OFF, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, SWITCHED_ON.get(name, "true"))
    quiet_libraries()
    assert {name: os.environ[name] for name in OFF} == OFF
    assert os.environ["HF_HUB_OFFLINE"] == "0", "a user's own permission to fetch a model stands"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    quiet_libraries()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_langsmith_remembers_nothing_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from langsmith import utils

    for name in OFF:  # all of them: an earlier test may have switched them off, and all are put back afterwards
        monkeypatch.setenv(name, "true")
    utils.get_env_var.cache_clear()
    assert utils.tracing_is_enabled()
    quiet_libraries()
    assert not utils.tracing_is_enabled()
