"""`wardstar evolve`: two rounds of a tiny model, what it refuses, and that a kill anywhere changes nothing."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from clinical_data.errors import BadInputError, ModelError, UsageError
from clinical_data.splits import half_of, split_of
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.supervision.fine_tune_settings import SilentWatcher, TuneSettings
from tests.search.tiny_llama import make_tiny
from workflow import evolve as evolution
from workflow.config import ReplayOptions
from workflow.evolve import FIGURES, EvolveOptions, EvolveWatcher, evolve
from workflow.runner import Listener, Summary

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers for deprecated names
]

PATIENTS = {s: [i for i in range(30) if split_of("fhir", f"p{i:03d}") == s] for s in ("train", "tuning", "held-out")}
FAST = ("--steps", "first", "--rollouts", 2, "--limit", 6, "--tuning-limit", 2, "--lr", 0.01, "--epochs", 1,
        "--batch-size", 4, "--max-length", 4096, "--dtype", "fp32", "--device", "cpu")  # fmt: skip


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
    start = ("--db", db, "--pathway", pathway_file, "--generator", tiny)
    command = ("evolve", *start, "--run", "e", "--out", "evo", *FAST)
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
    best, (first, second) = result["best"], result["rounds"][1:]
    names = {split: [f"fhir-e{i:03d}" for i in numbers] for split, numbers in PATIENTS.items()}
    assert [r.case_id for r in records_of(db, "e-round1-train")] == names["train"][:6]
    assert [r.case_id for r in records_of(db, "e-round2-tuning-peer")] == names["tuning"][:2]
    assert second["train"]["generator"] == (first["generator"] if first["decision"]["kept"] else str(tiny))
    assert best["round"] == max(r["round"] for r in result["rounds"] if r["decision"]["kept"])
    with (tmp_path / "evo" / "rounds.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["round"] for row in table] == ["0", "1", "2"]
    assert [float(row["primary"]) for row in table] == [r["tuning"]["primary"] for r in result["rounds"]]
    assert (tmp_path / "evo" / "rounds.png").read_bytes().startswith(b"\x89PNG")
    code, _, error = run(*command, "--rounds", 2, "--rank", 4)
    assert code == 2
    assert "training.rank 16, now 4" in error


class Killed(BaseException):
    """Stands for a kill."""


class Killer(EvolveWatcher):
    """Kills an evolution once at each of some events, over as many sessions as that takes.

    Args:
        at: event -> how often it goes by before the kill; taken out when that has come.
    """

    def __init__(self, at: dict[str, int]) -> None:
        self.at, self.round, self.name = at, 0, ""

    def _event(self, what: str) -> None:
        event = f"{self.round} {self.name}: {what}"
        if event in self.at:
            self.at[event] -= 1
            if self.at[event] < 0:
                del self.at[event]
                raise Killed(event)

    def stage(self, number: int, text: str) -> None:
        self.round, self.name = number, text.partition(", run")[0]
        self._event("begins")

    def replay(self, work: Any) -> Any:
        event = self._event

        class Cases(Listener):
            def finished(self, report: Any) -> None:
                event("case")

        done = work(Cases())
        event("done")  # and not noted yet
        return done

    def tune(self, work: Any) -> Any:
        event = self._event

        class Steps(SilentWatcher):
            def step(self, done: int, loss: float) -> None:
                event("step")

        card = work(Steps())
        event("done")
        return card


KILLS = {
    "0 replay of the tuning split: done": 0,
    "1 replay of the train split: case": 2,
    "1 replay of the train split: done": 0,
    "1 training set of the generator: begins": 0,
    "1 training set of the peer: begins": 0,
    "1 tuning of the generator: begins": 0,
    "1 tuning of the generator: step": 2,  # behind the first checkpoint
    "1 tuning of the generator: done": 0,
    "1 tuning of the peer: begins": 0,
    "1 replay of the tuning split: begins": 1,  # the second one, with the places exchanged
    "1 replay of the tuning split: done": 0,
}


def left_by(out: Path) -> dict[str, bytes]:
    names = ("adapter_model.safetensors", "train.jsonl", "rounds.csv", "rounds.png")
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.name in names}


def timeless(result: dict[str, Any]) -> list[dict[str, Any]]:
    rounds = result["rounds"]
    for row in rounds:
        for role in ("generator", "peer"):
            row.get(f"{role}_tuning", {}).pop("seconds", None)
    return rounds


@pytest.mark.timeout(900)  # a dozen sessions, each of which loads a model
def test_killed_at_every_stage(small: EvolveOptions, fill: Callable[..., str], tmp_path: Path) -> None:
    """All that is done before a kill is kept, and the end is the same byte for byte."""
    wanted = evolve(fill(30, "w.db"), small)
    left = left_by(small.out)
    assert len(left) == 6
    small.out.rename(tmp_path / "whole")
    url, at = fill(30, "k.db"), dict(KILLS)
    sessions = 0
    while at:
        with pytest.raises(Killed):
            evolve(url, small, watcher=Killer(at))
        sessions += 1
        state = json.loads((small.out / "evolve.json").read_text())  # whole at any moment
        assert state["rounds"].keys() <= {"0", "1"}
        if (small.out / "round1").is_dir() and not (small.out / "round1" / "peer-set").exists():
            (small.out / "round1" / ".peer-set-left").mkdir(exist_ok=True)  # as an export that is killed leaves it
    assert sessions == len(KILLS)
    result = evolve(url, small)
    assert left_by(small.out) == left
    assert not (small.out / "round1" / ".peer-set-left").exists()
    assert timeless(result) == timeless(wanted)
    keys = [r.case_id for r in records_of(url, "e-round1-train")]
    assert len(keys) == len(set(keys)) == 6
    again = evolve(url, small, watcher=Killer(dict(KILLS)))  # nothing is left at which it could be killed
    assert again["best"] == result["best"]


def test_only_a_better_pair_is_kept(
    small: EvolveOptions, fill: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    """Told what each pair is worth: round 1 is worse, so that round 2 searches with the starting pair again."""
    worth = {"e-round0-tuning": 0.5, "e-round1-tuning": 0.25, "e-round2-tuning": 0.75, "e-round3-tuning": 0.75}
    metric = {"low": None, "high": None, "n": 4}
    seen: list[ReplayOptions] = []
    bases: list[tuple[str, int]] = []

    def scored(engine: Any, run: str, **_: Any) -> dict[str, Any]:
        figures = {name: {"value": worth[run], **metric} for name in ("accuracy_category", *FIGURES)}
        return {"steps": {"first": {"metrics": figures, "baselines": {"majority_class": figures["top_5"]}}}}

    def replayed(url: str, name: str, options: ReplayOptions, **_: Any) -> Summary:
        if name.endswith("-train"):
            seen.append(options)
        return Summary(name, 4, 0, Counter(verified=4))

    def exported(*_: Any) -> dict[str, Any]:
        figures = {"rows": 1, "cases": 1, "patients": 1, "cold_start_share": 1.0, "sha256": ""}
        return {"splits": {"train": figures}}

    def tuned(data: Path, out: Path, settings: TuneSettings, **_: Any) -> dict[str, Any]:
        bases.append((settings.base, settings.seed))
        return {"figures": dict.fromkeys(("steps", "first loss", "last loss", "seconds"), 1)}

    monkeypatch.setattr(evolution, "score_run", scored)
    monkeypatch.setattr(evolution, "replay", replayed)
    monkeypatch.setattr(evolution, "export_set", exported)
    monkeypatch.setattr(evolution, "compare_runs", lambda *_, **__: {"steps": {}})
    monkeypatch.setattr(evolution, "training_functions", lambda: {"sft": tuned})
    options = replace(small, rounds=3, peer_alone=False)
    url = fill(30)
    result = evolve(url, options)
    assert [row["decision"]["kept"] for row in result["rounds"]] == [True, False, True, False]  # 0.75 is not above 0.75
    assert result["best"]["round"] == 2
    second = (str(small.out / "round2" / "generator"), str(small.out / "round2" / "peer"))
    start = (str(tiny), None)
    assert [(o.seed, o.generator, o.peer) for o in seen] == [(3, *start), (4, *start), (5, *second)]
    assert {o.split for o in seen} == {"train"}
    assert bases == [(str(tiny), seed) for seed in (3, 3, 4, 4, 5, 5)]
    worth["e-round4-tuning"] = 0.0
    evolve(url, replace(options, rounds=4))  # goes on
    assert (seen[-1].seed, seen[-1].generator, seen[-1].peer) == (6, *second)
    bases.clear()
    evolve(url, replace(options, out=small.out.with_name("kept"), from_kept=True))
    kept = small.out.with_name("kept") / "round2"
    assert [base for base, _ in bases] == [str(tiny)] * 4 + [str(kept / "generator"), str(kept / "peer")]


def test_no_case_of_another_split(
    run: Run, fill: Callable[..., str], pathway_file: Path, tiny: Path, tmp_path: Path
) -> None:
    db = fill(30)
    command = ("evolve", "--db", db, "--pathway", pathway_file, "--generator", tiny, "--run", "e", "--out", "evo",
               "--rounds", 1, *FAST)  # fmt: skip
    listed = tmp_path / "ids.txt"
    for option, split in (("--cases", "held-out"), ("--tuning-cases", "held-out"), ("--tuning-cases", "train")):
        listed.write_text(f"fhir-e{PATIENTS[split][0]:03d}\n")
        code, _, error = run(*command, option, listed)
        assert code == 2
        assert f"is of split {split}, not" in error
    (tmp_path / "c.toml").write_text('split = "held-out"\n')
    code, _, error = run(*command, "--config", "c.toml")
    assert (code, "no other can be named" in error) == (2, True)
    (tmp_path / "c.toml").write_text('value = "ground_truth"\n')
    assert run(*command, "--config", "c.toml")[0] == 2  # would judge by the labels that steered it
    code, out, _ = run("runs", "list", "--db", db, "--json")
    assert (code, json.loads(out)) == (0, [])  # nothing was begun
    assert not (tmp_path / "evo").exists()


def test_refusals(small: EvolveOptions, fill: Callable[..., str], tmp_path: Path) -> None:
    url = fill(30)
    for change, words in (
        ({"rounds": 0}, "--rounds"),
        ({"run": ""}, "needs a name"),
        ({"replay": replace(small.replay, generator="random:7")}, "cannot be tuned"),
        ({"replay": replace(small.replay, split="held-out")}, "no other can be named"),
    ):
        with pytest.raises(UsageError, match=words):
            replace(small, **change)
    with pytest.raises(ModelError, match="holds no model"):
        evolve(url, replace(small, replay=replace(small.replay, peer=str(tmp_path / "none"))))
    small.out.mkdir()
    (small.out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        evolve(url, small)
    (small.out / "notes.txt").rename(small.out / "evolve.json")
    with pytest.raises(BadInputError, match="no readable state"):
        evolve(url, small)
    (small.out / "evolve.json").unlink()
    with pytest.raises(Killed):
        evolve(url, small, watcher=Killer({"0 replay of the tuning split: begins": 0}))
    for other, words in (
        (replace(small, tune=replace(small.tune, rank=4)), "training.rank 16, now 4"),
        (replace(small, replay=replace(small.replay, seed=4)), "replay.seed 3, now 4"),
        (replace(small, replay=replace(small.replay, limit=5)), "cases.train.number 6, now 5"),
        (replace(small, run="f", answers_only=False), "answers_only True, now False; run e, now f"),
    ):
        with pytest.raises(UsageError, match=words):
            evolve(url, other)
