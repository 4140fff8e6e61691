"""A case that fails as a whole on a way with loops, clinicians or an oracle, and the same case taken again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_bad_cases import BAD, BREAK, execute, keep, mend
from test_loops import looped

from evaluation.store import open_database
from evaluation.store.run_state import run_states
from evaluation.store.run_store import RunStore
from tests.workflow.stored_runs import stored
from workflow import step
from workflow.config import ReplayOptions
from workflow.runner import replay, resume

NEVER_SETTLED = """\
edges:
  - {from: first, to: first, when: budget_left}
  - {from: first, to: second}
"""


@pytest.fixture
def options(pathway_file: Path) -> ReplayOptions:
    pathway_file.write_text(looped(pathway_file))
    return ReplayOptions(pathway=str(pathway_file), seed=3, generator="random:7", settings={"rollouts": 2})


def failed(url: str, run: str) -> list[tuple[str, str, int]]:
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found = [key for key, status in store.done(store.get(run).run_id).items() if status == "failed"]
    engine.dispose()
    return sorted(found)


def alike(url: str, *runs: str) -> bool:
    """Says whether runs hold the same records and prompts."""
    found = []
    for run in runs:
        records, prompts = stored(url, run)
        found.append(sorted(json.dumps(row, sort_keys=True) for row in [*records, *prompts]))
    return all(one == found[0] for one in found)


@pytest.mark.parametrize(
    ("damage", "lost"),
    [("a finding's kind", [("first", 1), ("first", 2), ("first", 3), ("second", 1)]),
     ("encounters", [("first", 1), ("second", 1)])],  # its way cannot be told
)  # fmt: skip
def test_a_case_with_a_loop_fails_once_and_is_whole_again_when_it_is_mended(
    fill: Callable[..., str], pathway_file: Path, damage: str, lost: list[tuple[str, int]]
) -> None:
    pathway_file.write_text(looped(pathway_file, edges=NEVER_SETTLED))
    options = ReplayOptions(pathway=str(pathway_file), seed=3, generator="random:7", settings={"rollouts": 2})
    url = fill(3)
    replay(url, "whole", options)
    keep(url)
    execute(url, BREAK[damage])
    replay(url, "one", options)
    assert failed(url, "one") == [(BAD, *passage) for passage in lost]
    assert resume(url, "one").statuses.total() == 0
    mend(url)
    resume(url, "one", retry_failed=True)
    assert alike(url, "whole", "one")


def test_what_breaks_when_a_step_comes_again_fails_from_there(
    fill: Callable[..., str], pathway_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluation import recording

    pathway_file.write_text(looped(pathway_file, edges=NEVER_SETTLED))
    options = ReplayOptions(pathway=str(pathway_file), seed=3, generator="random:7", settings={"rollouts": 2})
    url = fill(3)
    replay(url, "whole", options)
    make = recording.make_record

    def broken(**how: Any) -> Any:
        if how["case"].case_id == BAD and how["problem"].occurrence == 2:
            raise KeyError("a value of the record")
        return make(**how)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "make_record", broken)
        summary = replay(url, "one", options)
    assert failed(url, "one") == [(BAD, "first", 2), (BAD, "first", 3), (BAD, "second", 1)]
    assert summary.statuses["failed"] == 3
    assert resume(url, "one").statuses.total() == 0
    resume(url, "one", retry_failed=True)
    assert alike(url, "whole", "one")


@pytest.mark.parametrize("predecessors", ["none", "predicted"])
def test_a_step_that_is_settled_when_it_is_taken_again_leaves_nothing_of_its_loop(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch, predecessors: str
) -> None:
    url, options = fill(6), replace(options, predecessors=predecessors)
    replay(url, "whole", options)
    search = step.run_search

    def broken(strategy: str, problem: Any, *rest: Any, **more: Any) -> Any:
        if (problem.step, problem.occurrence) == ("first", 1):
            raise ValueError("a value of the record")
        return search(strategy, problem, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(step, "run_search", broken)
        replay(url, "one", options)
    again = {r["case_id"] for r in stored(url, "one")[0] if r["occurrence"] > 1}
    needed = {r["case_id"] for r in stored(url, "whole")[0] if r["occurrence"] > 1}
    assert needed < again  # some are settled at once when nothing breaks
    resume(url, "one", retry_failed=True)
    assert alike(url, "whole", "one")


def test_what_was_not_told_a_failed_conclusion_is_taken_again_with_it_even_after_a_kill(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, options = fill(2), replace(options, predecessors="predicted")
    replay(url, "whole", options)
    search = step.run_search

    def broken(strategy: str, problem: Any, *rest: Any, **more: Any) -> Any:
        if problem.step == "first":
            raise ValueError("a value of the record")
        return search(strategy, problem, *rest, **more)

    def killed(strategy: str, problem: Any, *rest: Any, **more: Any) -> Any:
        if problem.step == "second":
            raise KeyboardInterrupt
        return search(strategy, problem, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(step, "run_search", broken)
        replay(url, "one", options)
    assert not alike(url, "whole", "one")
    with monkeypatch.context() as patch:
        patch.setattr(step, "run_search", killed)
        with pytest.raises(KeyboardInterrupt):
            resume(url, "one", retry_failed=True)
    resume(url, "one", retry_failed=True)
    assert alike(url, "whole", "one")


def test_a_case_that_fails_while_it_waits_goes_on_when_it_is_mended(
    fill: Callable[..., str], pathway_file: Path, tmp_path: Path
) -> None:
    text = pathway_file.read_text()
    pathway_file.write_text(text.replace("opening: [chief", "review: required\n    opening: [chief"))
    options = ReplayOptions(
        pathway=str(pathway_file), seed=3, generator="random:7", settings={"rollouts": 2}, review="wait"
    )
    answers = tmp_path / "answers.jsonl"
    rows = [{"case_id": f"fhir-e{i:03d}", "step": "first", "answer": "K85.9"} for i in range(3)]
    answers.write_text("\n".join(map(json.dumps, rows)))
    url = fill(3)
    replay(url, "whole", options)
    resume(url, "whole", answers=answers)
    replay(url, "one", options)
    keep(url)
    execute(url, BREAK["a finding's kind"])
    assert resume(url, "one").statuses.total() == 0  # it waits, and nobody reads it
    assert resume(url, "one", retry_failed=True).statuses == {"failed": 1}
    assert failed(url, "one") == [(BAD, "second", 1)]
    mend(url)
    assert resume(url, "one", retry_failed=True).waiting == 3
    assert failed(url, "one") == []
    engine = open_database(url, create=False)
    whole, one = run_states(engine)
    engine.dispose()
    assert [(s.state, s.done, s.cases) for s in (whole, one)] == [("finished", 3, 3), ("waiting", 0, 3)]
    answers.write_text(json.dumps(rows[1]))
    assert resume(url, "one", answers=answers).waiting == 2
    engine = open_database(url, create=False)
    _, one = run_states(engine)
    engine.dispose()
    assert (one.state, one.done) == ("waiting", 1)
    answers.write_text("\n".join(map(json.dumps, (rows[0], rows[2]))))
    resume(url, "one", answers=answers)
    assert alike(url, "whole", "one")


def test_a_failed_case_of_an_oracle_says_that_it_is_one(fill: Callable[..., str], pathway_file: Path) -> None:
    options = ReplayOptions(
        pathway=str(pathway_file), generator="random:7", settings={"rollouts": 2}, predecessors="recorded"
    )
    url = fill(2)
    execute(url, BREAK["a label's strength"])
    replay(url, "one", options)
    engine = open_database(url, create=False)
    store = RunStore(engine)
    records = [s.record for s in store.records(store.get("one").run_id)]
    engine.dispose()
    assert {(r.case_id, r.status == "failed") for r in records} == {("fhir-e000", False), (BAD, True)}
    assert {r.settings["predecessors"] for r in records} == {"recorded"}
