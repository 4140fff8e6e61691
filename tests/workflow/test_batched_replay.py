"""`--batch-across-cases`: the records of an ordinary run where batches decide nothing, and a run as hard to break."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from clinical_data.demo import bundle_folder
from clinical_data.errors import BadInputError, ModelError, StorageError, UsageError
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import reading
from evaluation.rows import prompt_rows
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.store.tables import generations
from search.models.registry import load_model
from search.models.toys import RandomModel
from search.shared_batches import THREAD
from tests.effort import effort
from tests.workflow.tiny_weights import make_weights
from workflow import case_worker
from workflow.case_worker import CaseReport
from workflow.config import ReplayOptions, make_config, read_options
from workflow.graph import checkpoint_path
from workflow.runner import Listener, replay, resume

CASES = 6
MANY = 24  # enough to be in the middle when a blow falls
WARDSTAR = (sys.executable, "-c", "from workflow.cli import main; main()")


class Ear(Listener):
    """Interrupts after some cases, or some rollouts."""

    def __init__(self, cases: int = 0, rollouts: int = 0) -> None:
        self.cases, self.rollouts = cases, rollouts
        self.most = self.computed = 0

    def rollout(self, rollouts: int, computed: int) -> None:
        self.most, self.computed = max(self.most, rollouts), computed
        self.rollouts -= 1
        if self.rollouts == 0:
            raise KeyboardInterrupt

    def finished(self, report: CaseReport) -> None:
        self.cases -= 1
        if self.cases == 0:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD]


@pytest.fixture
def options(pathway_file: Path) -> ReplayOptions:
    return ReplayOptions(pathway=str(pathway_file), seed=3, generator="random:7", settings={"rollouts": 2})


def batched(options: ReplayOptions, at_once: int | None = 3) -> ReplayOptions:
    return replace(options, batch_across_cases=True, cases_at_once=at_once)


def everything(url: str, run: str, *left_out: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records but for `seconds`, the hash of the run's configuration and what is left out; every call with its ids."""
    engine = open_database(url, create=False)
    store = RunStore(engine)
    row = store.get(run)
    leave: dict[str, Any] = {"hashes": {"configuration"}, "seconds": True, **dict.fromkeys(left_out, True)}
    records = [s.record.model_dump(exclude=leave) for s in store.records(row.run_id)]
    prompts = list(prompt_rows(store, row, tokens=True))
    engine.dispose()
    return records, prompts


def stored_run(url: str, name: str) -> Any:
    engine = open_database(url, create=False)
    found = RunStore(engine).get(name)
    engine.dispose()
    return found


def number_of_generations(url: str) -> int:
    engine = open_database(url, create=False)
    with reading(engine) as connection:
        found = connection.execute(select(func.count()).select_from(generations)).scalar_one()
    engine.dispose()
    return int(found)


STEPS = ("admission_diagnosis", "result_update")  # the second one is taken several times


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Some of the bundled cases, and an ordinary run over them."""
    folder = tmp_path_factory.mktemp("bundled")
    for path in sorted(bundle_folder().glob("*.json.gz"))[:7]:
        (folder / path.name).write_bytes(path.read_bytes())
    url = f"sqlite:///{folder / 'cases.db'}"
    subprocess.run([*WARDSTAR, "import", "fhir", str(folder), "--db", url], check=True, capture_output=True)
    replay(url, "plain", ReplayOptions(generator="random:7", steps=STEPS, settings={"rollouts": 2}))
    return url


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_records_of_a_random_model_are_those_of_an_ordinary_run(bundled: str, at_once: int) -> None:
    options = ReplayOptions(generator="random:7", steps=STEPS, settings={"rollouts": 2})
    name, ear = f"batched{at_once}", Ear()
    summary = replay(bundled, name, batched(options, at_once), listener=ear)
    assert summary.cases == 7
    assert everything(bundled, name, "repeatable") == everything(bundled, "plain", "repeatable")
    assert {r["repeatable"] for r in everything(bundled, name)[0]} == {False}
    assert {r["repeatable"] for r in everything(bundled, "plain")[0]} == {True}
    assert summary.work == stored_run(bundled, name).work == stored_run(bundled, "plain").work
    assert ear.computed <= summary.work["computed"]
    assert ear.most > 2 or at_once == 1  # rollouts of several cases at once


def test_every_record_says_that_it_is_not_repeatable(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(2, stay=100)  # too short for the clock of the first step
    replay(url, "one", batched(options))
    records, _ = everything(url, "one")
    assert {(r["status"] == "not_applicable", r["repeatable"]) for r in records} == {(True, False), (False, False)}


def test_a_real_model_makes_fewer_passes(
    fill: Callable[..., str], options: ReplayOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make_weights(tmp_path / "weights")
    small = {"rollouts": 2, "turn_tokens": 4, "ask_votes": 2, "think": 2}
    options = replace(options, generator=weights, settings=small, steps=("second",))
    url = fill(4)
    plain = replay(url, "plain", options, cache=False)
    models: list[Any] = []
    monkeypatch.setattr(case_worker, "load_model", lambda *a, **k: models.append(load_model(*a, **k)) or models[-1])
    summary = replay(url, "batched", batched(options, 4))
    (model,) = models
    assert summary.work["passes"] == model.work.passes < plain.work["passes"] / 2
    assert (summary.work["computed"], summary.work["sampled"]) == (model.work.computed, model.work.sampled)
    assert stored_run(url, "batched").work == summary.work
    assert number_of_generations(url) == 0  # no cache: what was asked before in a case-step decides nothing here
    assert "cache_misses" not in summary.work
    assert model._engine.cache.tokens == 0  # nothing kept once no case needs it
    records, _ = everything(url, "batched")
    assert {(r["repeatable"], r["status"] in {"failed", "not_applicable"}) for r in records} == {(False, False)}


def test_a_case_that_fails_spoils_no_other(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(6)
    replay(url, "whole", options)
    generate, calls = RandomModel.generate, [0]

    def broken(self: Any, requests: Any) -> Any:
        if any("cough for 2 days" in str(r.prompt) for r in requests):
            calls[0] += 1
            if calls[0] > 4:  # in the middle of its first step
                raise ModelError("out of memory")
        return generate(self, requests)

    options = batched(options)
    with monkeypatch.context() as patch:
        patch.setattr(RandomModel, "generate", broken)
        summary = replay(url, "one", options)
    failed = [(r["case_id"], r["status"]) for r in everything(url, "one")[0] if r["status"] == "failed"]
    assert failed
    assert {case_id for case_id, _ in failed} == {"fhir-e002"}
    assert summary.statuses["failed"] == len(failed)
    assert sum(resume(url, "one", retry_failed=True).statuses.values()) == len(failed)
    assert everything(url, "one", "repeatable") == everything(url, "whole", "repeatable")
    assert not any(r["repeatable"] for r in everything(url, "one")[0])


def test_a_model_that_dies_fails_every_step_and_ends_the_run(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(4)

    def dead(self: Any, requests: Any) -> Any:
        raise ModelError("gone")

    monkeypatch.setattr(RandomModel, "generate", dead)
    assert dict(replay(url, "one", batched(options)).statuses) == {"failed": 8}
    assert {r["reason"] for r in everything(url, "one")[0]} == {"ModelError: gone"}


@pytest.mark.parametrize("ear", [Ear(cases=2), Ear(rollouts=9)], ids=["between cases", "within a search"])
def test_an_interrupted_run_resumes_in_the_same_mode(
    fill: Callable[..., str], options: ReplayOptions, ear: Ear
) -> None:
    url, options = fill(6), batched(options)
    replay(url, "whole", options)
    with pytest.raises(KeyboardInterrupt):
        replay(url, "halved", options, listener=ear)
    assert stored_run(url, "halved").status == "interrupted"
    before, _ = everything(url, "halved")
    assert len(before) < 12
    assert not any(r["status"] == "failed" for r in before)
    resume(url, "halved")
    assert everything(url, "halved") == everything(url, "whole")
    assert checkpoints(url) == 0


def checkpoints(url: str) -> int:
    import sqlite3
    from contextlib import closing

    from sqlalchemy import make_url

    with closing(sqlite3.connect(checkpoint_path(make_url(url)))) as connection:
        return int(connection.execute("SELECT count(*) FROM checkpoints").fetchone()[0])


def test_a_storage_error_ends_the_run_at_once(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, options = fill(5), batched(options)
    put, number = RunStore.put, [0]

    def full(self: RunStore, *rest: Any, **more: Any) -> None:
        number[0] += 1
        if number[0] > 3:
            raise StorageError("disk full")
        put(self, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "put", full)
        with pytest.raises(StorageError, match="disk full"):
            replay(url, "one", options)
    assert len(everything(url, "one")[0]) == 3
    resume(url, "one")
    replay(url, "whole", options)
    assert everything(url, "one") == everything(url, "whole")


def test_predecessors_and_a_database_server(
    database_url: str, labelled: Callable[..., Any], options: ReplayOptions
) -> None:
    engine = open_database(database_url, create=True)
    CaseStore(engine).put_many([labelled(i) for i in range(4)])
    engine.dispose()
    options = replace(options, predecessors="predicted")
    replay(database_url, "plain", options)
    replay(database_url, "batched", batched(options))
    assert everything(database_url, "batched", "repeatable") == everything(database_url, "plain", "repeatable")


def test_a_served_model_keeps_its_cache(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_worker, "WITHOUT_COST", ())
    monkeypatch.setattr(case_worker, "SERVED", "random:")
    url = fill(4)
    first = replay(url, "plain", options)
    second = replay(url, "batched", batched(options))  # the same requests have the same keys
    assert (second.work["computed"], second.work["cache_misses"]) == (0, 0)
    assert second.work["cache_hits"] == first.work["cache_hits"] + first.work["cache_misses"]
    assert everything(url, "batched", "repeatable") == everything(url, "plain", "repeatable")
    other = replay(url, "other", replace(batched(options), seed=4))
    again = replay(url, "again", replace(batched(options, 2), seed=4))
    assert other.work["cache_misses"] > 0
    assert again.work["cache_misses"] == 0
    assert everything(url, "again") == everything(url, "other")
    assert number_of_generations(url) > 0


def test_the_mode_belongs_to_the_configuration(fill: Callable[..., str], options: ReplayOptions) -> None:
    assert make_config(batched(options, None)) == {**make_config(options), "batch_across_cases": 8}
    url = fill(2)
    replay(url, "one", batched(options, 2))
    for other in (options, batched(options, 4)):
        with pytest.raises(UsageError, match="another configuration: batch_across_cases"):
            replay(url, "one", other)
    assert replay(url, "one", batched(options, 2)).skipped == 2


def test_what_cannot_be_is_refused(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(2)
    with pytest.raises(UsageError, match="one process"):
        replay(url, "one", batched(options), workers=2)
    with pytest.raises(UsageError, match="no run named one"):  # a refused run leaves no row
        resume(url, "one")
    replay(url, "one", batched(options))
    with pytest.raises(UsageError, match="one process"):
        resume(url, "one", workers=2)
    with pytest.raises(UsageError, match="at least 1"):
        make_config(batched(options, 0))
    with pytest.raises(UsageError, match="for --batch-across-cases alone"):
        make_config(replace(options, cases_at_once=4))


def test_the_mode_in_a_file(options: ReplayOptions, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("batch-across-cases = true\ncases-at-once = 5\n")
    assert make_config(replace(options, **read_options(path)))["batch_across_cases"] == 5
    for text, words in (('batch-across-cases = "yes"', "true or false"), ("cases-at-once = true", "a whole number")):
        path.write_text(text)
        with pytest.raises(BadInputError, match=words):
            read_options(path)


def command(url: str, pathway: Path) -> list[str]:
    own = [
        "replay",
        "--db",
        url,
        "--run",
        "killed",
        "--pathway",
        str(pathway),
        "--generator",
        "random:7",
        "--seed",
        "5",
    ]
    return [*WARDSTAR, *own, "--rollouts", "12", "--batch-across-cases", "--cases-at-once", "3"]


def done(url: str) -> int:
    """Number of case-steps done."""
    engine = open_database(url, create=False)
    store = RunStore(engine)
    number = sum(len(store.done(run.run_id)) for run in store.runs())
    engine.dispose()
    return number


@pytest.mark.parametrize(("blow", "code"), effort([(signal.SIGKILL, -9)], [(signal.SIGKILL, -9), (signal.SIGINT, 130)]))
def test_a_killed_or_interrupted_replay_resumes_to_the_same_records(
    fill: Callable[..., str], pathway_file: Path, blow: signal.Signals, code: int
) -> None:
    url = fill(MANY)
    process = subprocess.Popen(command(url, pathway_file), stderr=subprocess.PIPE, text=True)
    wait = time.monotonic() + 120
    engine = open_database(url, create=False)  # once: opening takes longer than a case-step
    store = RunStore(engine)
    while process.poll() is None and time.monotonic() < wait:
        if any(len(store.done(run.run_id)) >= 2 for run in store.runs()):
            break
        time.sleep(0.01)
    engine.dispose()
    process.send_signal(blow)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in error
    assert ("wardstar resume" in error) == (blow == signal.SIGINT)
    assert 2 <= done(url) < 2 * MANY, "the blow came too late to show anything"
    resume(url, "killed")
    options = ReplayOptions(str(pathway_file), seed=5, generator="random:7", settings={"rollouts": 12})
    replay(url, "whole", batched(options))
    assert everything(url, "killed") == everything(url, "whole")
    keys = [(r["case_id"], r["step"], r["occurrence"]) for r in everything(url, "killed")[0]]
    assert len(keys) == len(set(keys)) == 2 * MANY
    assert stored_run(url, "killed").config == stored_run(url, "whole").config
