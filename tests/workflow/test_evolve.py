"""`wardstar evolve`: two rounds of a tiny model, what it refuses, and that a kill anywhere changes nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run

from clinical_data.errors import BadInputError, UsageError
from clinical_data.splits import half_of, split_of
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.supervision.fine_tune_settings import SilentWatcher, TuneSettings
from tests.search.tiny_llama import make_tiny
from workflow import evolve as evolution
from workflow.config import ReplayOptions
from workflow.evolve import EvolveOptions, EvolveWatcher, evolve
from workflow.runner import Listener

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for deprecated names

PATIENTS = {s: [i for i in range(30) if split_of("fhir", f"p{i:03d}") == s] for s in ("train", "tuning", "held-out")}
FAST = ("--steps", "first", "--rollouts", 2, "--limit", 8, "--dtype", "fp32", "--device", "cpu", "--max-length", 4096)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=4096)


@pytest.fixture
def small(run: Run, tiny: Path, pathway_file: Path, tmp_path: Path) -> EvolveOptions:
    """One round in its cheapest form."""
    replay = ReplayOptions(
        pathway=str(pathway_file), steps=("first",), strategy="full-information", limit=6, generator=str(tiny), seed=3
    )
    tune = TuneSettings(epochs=2, lr=0.02, batch_size=2, dtype="fp32", device="cpu", max_length=4096)
    return EvolveOptions("e", tmp_path / "evo", 1, replay, tuning_limit=2, tune=tune, answers_only=True)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def records_of(url: str, name: str) -> list[Any]:
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found = [stored.record for stored in store.records(store.get(name).run_id)]
    engine.dispose()
    return found


def test_two_rounds(run: Run, fill: Callable[..., str], pathway_file: Path, tiny: Path, tmp_path: Path) -> None:
    db = fill(30)
    command = ("evolve", "--db", db, "--run", "e", "--out", "evo", "--pathway", pathway_file, "--generator", tiny, *FAST,
               "--lr", 0.01, "--batch-size", 4, "--epochs", 2)  # fmt: skip
    code, out, error = run(*command, "--rounds", 1)
    assert code == 0, error
    for words in ("evolution e", "accuracy", "top 5", "against the best", "start"):
        assert words in out
    assert "round 1: tuning of the peer" in error
    code, out, error = run(*command, "--rounds", 2, "--json")
    assert code == 0, error
    assert "round 1:" not in error  # nothing of it is done again
    result = json.loads(out)  # nothing else on stdout
    assert [row["round"] for row in result["rounds"]] == [0, 1, 2]
    for row in result["rounds"][1:]:
        sets = {role: rows_of(tmp_path / row[f"{role}_set"]["set"]) for role in ("generator", "peer")}
        patients = {role: {r["patient_id"] for r in rows} for role, rows in sets.items()}
        assert patients["generator"].isdisjoint(patients["peer"])
        assert {half_of(p) for p in patients["generator"]} == {0}
        assert {half_of(p) for p in patients["peer"]} == {1}
        assert {r["split"] for rows in sets.values() for r in rows} == {"train"}
        assert {r["role"] for r in sets["generator"]} == {"generator"}
        assert {r["turn"] for r in sets["peer"] if r["role"] == "generator"} == {"answer"}
        for role, rows in sets.items():
            assert row[f"{role}_set"]["rows"] == len(rows)
            assert row[f"{role}_tuning"]["model"] == row[role]
    names = {"train": {f"fhir-e{i:03d}" for i in PATIENTS["train"]}, "tuning": {f"fhir-e{i:03d}" for i in PATIENTS["tuning"]}}
    best = result["best"]
    first, second = result["rounds"][1:]
    assert {r.case_id for r in records_of(db, "e-round1-train")} == set(sorted(names["train"])[:8])
    assert {r.case_id for r in records_of(db, "e-round2-tuning")} == names["tuning"]
    assert second["train"]["generator"] == (first["generator"] if first["decision"]["kept"] else str(tiny))
    assert best["round"] == max(r["round"] for r in result["rounds"] if r["decision"]["kept"])
    with (tmp_path / "evo" / "rounds.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["round"] for row in table] == ["0", "1", "2"]
    assert [float(row["primary"]) for row in table] == [r["tuning"]["primary"] for r in result["rounds"]]
    assert (tmp_path / "evo" / "rounds.png").read_bytes().startswith(b"\x89PNG")
    code, _, error = run("replay", "--db", db, "--run", "again", "--pathway", pathway_file, "--steps", "first", "--limit", 1,
                         "--rollouts", 2, "--generator", second["generator"], "--peer", second["peer"])  # fmt: skip
    assert code == 0, error
    code, _, error = run(*command, "--rounds", 2, "--rank", 4)
    assert code == 2
    assert "training.rank 16, now 4" in error


class Killed(BaseException):
    """Stands for a kill."""


class Killer(EvolveWatcher):
    """Stops an evolution at one event of a session: before a stage, within it, or when its work is done."""

    def __init__(self, at: int) -> None:
        self.at, self.events = at, list[str]()

    def _event(self, name: str) -> None:
        self.events.append(name)
        if len(self.events) == self.at:
            raise Killed(name)

    def stage(self, number, text):
        self._event(f"{number} {text}")

    def replay(self, work):
        class Cases(Listener):
            def finished(this, report):  # noqa: N805
                self._event("a case")

        summary = work(Cases())
        self._event("replayed")
        return summary

    def tune(self, work):
        class Steps(SilentWatcher):
            def step(this, done, loss):  # noqa: N805
                self._event("a step")

        card = work(Steps())
        self._event("tuned")
        return card


def left_by(out: Path) -> dict[str, bytes]:
    names = ("adapter_model.safetensors", "train.jsonl", "rounds.csv", "rounds.png")
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.name in names}


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(result, sort_keys=True)
    for row in result["rounds"]:
        for role in ("generator", "peer"):
            if f"{role}_tuning" in row:
                text = text.replace(json.dumps(row[f"{role}_tuning"]["seconds"]), "0")
    return json.loads(text)


def test_killed_at_every_event(small: EvolveOptions, fill: Callable[..., str], tmp_path: Path) -> None:
    """A session for each event: all that is done before a kill is kept, and the end is the same byte for byte."""
    whole = Killer(0)
    wanted = evolve(fill(30, "whole.db"), small, watcher=whole)
    left = left_by(small.out)
    assert len(left) == 6
    small.out.rename(tmp_path / "whole")
    url, stopped = fill(30, "killed.db"), []
    for _ in range(60):  # each session gets one event further in what is still to do
        killer = Killer(2)
        try:
            result = evolve(url, small, watcher=killer)
            break
        except Killed:
            stopped.append(killer.events[-1])
            assert not any(p.name.startswith(".") for p in small.out.rglob("*"))
    assert {"a case", "replayed", "a step", "tuned"} <= set(stopped)
    assert len(stopped) > 8
    assert left_by(small.out) == left
    result.pop("db", None)
    assert timeless(result)["rounds"] == timeless(wanted)["rounds"]
