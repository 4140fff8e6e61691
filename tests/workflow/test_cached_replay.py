"""A repeated run makes no call to a model and gives the same records; what is not committed leaves no generation."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from clinical_data.errors import ModelError
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import reading, writing
from evaluation.rows import prompt_rows
from evaluation.store import generations as generation_store
from evaluation.store import open_database, run_store
from evaluation.store.run_store import RunStore
from evaluation.store.tables import generations
from search.models.toys import RandomModel
from tests.workflow.tiny_weights import make_weights
from workflow import case_worker
from workflow.cli import main
from workflow.config import ReplayOptions
from workflow.runner import replay, resume


class Counted(RandomModel):
    """Counts the requests that reach it, over all models of this process."""

    requests = 0

    def generate(self, requests: Any) -> Any:
        type(self).requests += len(requests)
        return super().generate(requests)

    def score(self, requests: Any) -> Any:
        type(self).requests += len(requests)
        return super().score(requests)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Caches the random model too; returns a function that gives the number of requests since it was last called."""

    def count() -> int:
        number, Counted.requests = Counted.requests, 0
        return number

    monkeypatch.setattr(case_worker, "WITHOUT_COST", ())
    monkeypatch.setattr(case_worker, "load_model", lambda spec, **_: Counted(int(spec.removeprefix("random:"))))
    count()
    return count


@pytest.fixture
def options(pathway_file: Path) -> ReplayOptions:
    return ReplayOptions(pathway=str(pathway_file), seed=3, generator="random:7", settings={"rollouts": 2})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama of two layers over single characters: a model whose results depend on batches in the last bits."""
    return make_weights(tmp_path_factory.mktemp("weights"))


def everything(url: str, run: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records without seconds, and every call with its ids."""
    engine = open_database(url, create=False)
    store = RunStore(engine)
    row = store.get(run)
    records = [s.record.model_dump(exclude={"seconds"}) for s in store.records(row.run_id)]
    prompts = list(prompt_rows(store, row, tokens=True))
    engine.dispose()
    assert records
    assert prompts
    return records, prompts


def stored(url: str) -> dict[bytes, bytes]:
    engine = open_database(url, create=False)
    with reading(engine) as connection:
        found = dict(connection.execute(select(generations.c.key, generations.c.value)).all())
    engine.dispose()
    return found


def test_a_second_run_makes_no_call_and_gives_the_same_records(
    database_url: str, labelled: Callable[..., Any], options: ReplayOptions, asked: Callable[[], int]
) -> None:
    engine = open_database(database_url, create=True)
    CaseStore(engine).put_many([labelled(i) for i in range(3)])
    first = replay(database_url, "one", options)
    assert asked() == first.work["cache_misses"] > 0
    number = len(stored(database_url))
    second = replay(database_url, "two", options)
    assert asked() == second.work["computed"] == second.work["cache_misses"] == 0
    assert second.work["cache_hits"] == first.work["cache_misses"] + first.work["cache_hits"]
    assert RunStore(engine).get("two").work == second.work
    assert everything(database_url, "two") == everything(database_url, "one")
    assert len(stored(database_url)) == number
    engine.dispose()


def test_deleting_and_replaying_a_run_makes_no_call(
    fill: Callable[..., str], options: ReplayOptions, asked: Callable[[], int]
) -> None:
    url = fill(2)
    replay(url, "one", options)
    before = everything(url, "one")
    engine = open_database(url, create=False)
    RunStore(engine).delete("one")
    engine.dispose()
    asked()
    replay(url, "one", options)
    assert asked() == 0
    assert everything(url, "one") == before


def test_without_cache_nothing_is_read_or_stored(
    fill: Callable[..., str], options: ReplayOptions, asked: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(2)
    replay(url, "never", options, cache=False)
    assert asked() > 0
    assert stored(url) == {}
    replay(url, "one", options)
    kept = stored(url)
    asked()
    monkeypatch.delattr(generation_store.GenerationStore, "find")
    summary = replay(url, "without", options, cache=False)
    assert asked() > 0
    assert "cache_hits" not in summary.work
    assert stored(url) == kept
    assert everything(url, "without") == everything(url, "one") == everything(url, "never")


def test_models_without_cost_are_not_cached(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(1)
    assert "cache_misses" not in replay(url, "one", options).work
    assert stored(url) == {}


def die(url: str, options: ReplayOptions, moment: str) -> None:
    """Replays in a process of its own that ends at once when the second case-step is about to be committed."""
    case_worker.WITHOUT_COST = ()  # type: ignore[assignment]
    put, put_changes = RunStore.put, run_store.put_changes
    seen: list[str] = []

    def before(self: RunStore, *rest: Any, **more: Any) -> None:
        seen.append("step")
        if len(seen) == 2 and moment == "before":
            os._exit(9)
        put(self, *rest, **more)

    def within(*arguments: Any) -> None:
        put_changes(*arguments)
        if len(seen) == 2:
            os._exit(9)

    RunStore.put, run_store.put_changes = before, within  # type: ignore[method-assign, assignment]
    replay(url, "one", options)


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_process_killed_before_the_commit_leaves_no_generation_of_that_step(
    fill: Callable[..., str], options: ReplayOptions, asked: Callable[[], int], moment: str
) -> None:
    url = fill(2)
    process = multiprocessing.get_context("spawn").Process(target=die, args=(url, options, moment))
    process.start()
    process.join(120)
    assert process.exitcode == 9
    kept = stored(url)
    records, prompts = everything(url, "one")
    assert len(records) == 1
    assert len(kept) == len(prompts)  # those of the one step that is recorded
    whole = fill(2, "whole.db")
    replay(whole, "one", options)
    resume(url, "one")
    assert everything(url, "one") == everything(whole, "one")
    assert len(kept) < len(stored(url)) == len(stored(whole))


def test_a_failed_step_leaves_no_generation(
    fill: Callable[..., str], options: ReplayOptions, asked: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(1)
    generate = Counted.generate
    calls = []

    def broken(self: Any, requests: Any) -> Any:
        calls.append(len(requests))
        if len(calls) > 2:
            raise ModelError("out of memory")
        return generate(self, requests)

    with monkeypatch.context() as patch:
        patch.setattr(Counted, "generate", broken)
        assert replay(url, "one", options).statuses["failed"] == 2
    assert len(calls) > 2
    assert stored(url) == {}
    resume(url, "one", retry_failed=True)
    assert len(stored(url)) > 0


def test_damaged_generations_are_computed_again(
    fill: Callable[..., str],
    options: ReplayOptions,
    asked: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = fill(2)
    replay(url, "one", options)
    whole = stored(url)
    engine = open_database(url, create=False)
    with writing(engine) as connection:
        for key in sorted(whole)[::9]:
            connection.execute(update(generations).where(generations.c.key == key).values(value=whole[key][:-4]))
    engine.dispose()
    with caplog.at_level(logging.WARNING, logger="search"):
        replay(url, "two", options)
    assert "damaged" in caplog.text
    assert "cough" not in caplog.text
    assert everything(url, "two") == everything(url, "one")
    assert stored(url) == whole


def test_whoever_filled_the_cache_records_of_a_real_model_stay_the_same(
    fill: Callable[..., str], options: ReplayOptions, weights: str
) -> None:
    small = {"rollouts": 4, "turn_tokens": 4, "ask_votes": 2, "think": 2, "wave": 2}
    options = replace(options, generator=weights, settings=small, steps=("second",))
    url = fill(2)
    assert "cache_misses" not in replay(url, "without", options, cache=False).work
    fewer = replace(options, limit=1, settings={**options.settings, "rollouts": 1})
    replay(url, "fewer", fewer)  # begins like the others, and ends early
    first = replay(url, "first", options)
    assert everything(url, "first") == everything(url, "without")
    second = replay(url, "second", options)
    assert everything(url, "second") == everything(url, "without")
    assert second.work["computed"] == second.work["cache_misses"] == 0
    assert second.work["cache_hits"] == first.work["cache_misses"]
    assert not any(b"_ids" in zlib.decompress(v).replace(b"token_ids", b"") for v in stored(url).values())


def test_the_command_line_says_what_the_cache_did(
    fill: Callable[..., str], options: ReplayOptions, asked: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    url = fill(1)

    def wardstar(*arguments: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        assert not left.value.code
        captured = capsys.readouterr()
        return captured.out, captured.err.replace("\n", " ")

    how = ("--db", url, "--pathway", options.pathway, "--generator", "random:7", "--rollouts", "2")
    assert "answered from the cache" not in wardstar("replay", "--run", "one", *how)[1]
    number = asked()
    said = wardstar("replay", "--run", "two", *how)[1]
    assert f"{number} of {number} requests to models were answered from the cache" in said
    work = json.loads(wardstar("runs", "show", "two", "--db", url)[0])["work"]
    assert (work["cache_hits"], work["cache_misses"], work["computed"]) == (number, 0, 0)
    assert "cache" not in wardstar("replay", "--run", "three", "--no-cache", *how)[1]
    assert asked() == number
    assert "0 generations removed" in wardstar("runs", "prune", "--db", url)[1]
    assert f"{len(stored(url))} generations removed" in wardstar("runs", "prune", "--db", url, "--days", "0")[1]
    assert stored(url) == {}
