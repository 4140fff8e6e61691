"""A case that cannot be read, labels that cannot, a vocabulary that is gone: one bad case never stops a run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clinical_data.errors import WardstarError
from evaluation.store import existing_database
from evaluation.store.run_store import RunStore
from tests.workflow.stored_runs import reasons, stored
from workflow.config import ReplayOptions
from workflow.runner import replay, resume

BAD = "fhir-e001"
BREAK = {
    "encounters": "UPDATE cases SET encounters_json = '[{' WHERE case_id = 'fhir-e001'",
    "an encounter's field": "UPDATE cases SET encounters_json = '[{\"kind\": 1}]' WHERE case_id = 'fhir-e001'",
    "anchors": "UPDATE cases SET anchors_json = '7' WHERE case_id = 'fhir-e001'",
    "a finding's kind": "UPDATE findings SET kind = 'gossip' WHERE case_id = 'fhir-e001' AND position = 0",
    "a finding's time": "UPDATE findings SET available = 'soon' WHERE case_id = 'fhir-e001' AND position = 1",
    "a label's strength": "UPDATE ground_truth_labels SET strength = 'iron' WHERE case_id = 'fhir-e001'",
}
TABLES = ("cases", "findings", "ground_truth_labels")


@pytest.fixture
def options(pathway_file: Path) -> ReplayOptions:
    return ReplayOptions(pathway=str(pathway_file), seed=3, generator="random:7", settings={"rollouts": 2})


def execute(url: str, *statements: str) -> None:
    """By the driver itself, which holds to no foreign keys."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def keep(url: str) -> None:
    execute(url, *(f"CREATE TABLE kept_{t} AS SELECT * FROM {t} WHERE case_id = '{BAD}'" for t in TABLES))


def mend(url: str) -> None:
    """Puts the rows back as they were."""
    execute(url, *(f"INSERT OR REPLACE INTO {t} SELECT * FROM kept_{t}" for t in TABLES))


@pytest.mark.parametrize("damage", list(BREAK))
def test_a_damaged_case_fails_alone_and_is_taken_again(
    fill: Callable[..., str], options: ReplayOptions, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = fill(3)
    replay(url, "whole", options)
    keep(url)
    execute(url, BREAK[damage])
    summary = replay(url, "one", options)
    failed = reasons(url, "one")
    assert {case for case, _ in failed} == {BAD}
    assert all(" at " in reason for reason in failed.values()), failed
    assert "gossip" not in caplog.text + str(failed)
    assert summary.statuses["failed"] == len(failed)
    records, _ = stored(url, "one")
    assert [r for r in records if r["case_id"] != BAD] == [r for r in stored(url, "whole")[0] if r["case_id"] != BAD]
    assert [(r["case_id"], r["source_id"]) for r in records if r["case_id"] == BAD] == [(BAD, "e001")] * 2
    assert sum(resume(url, "one").statuses.values()) == 0
    mend(url)
    assert sum(resume(url, "one", retry_failed=True).statuses.values()) == len(failed)
    assert stored(url, "one") == stored(url, "whole")


@pytest.mark.parametrize("damage", ["encounters", "an encounter's field", "anchors"])
def test_a_plan_counts_and_names_a_damaged_case_and_goes_on(
    fill: Callable[..., str], run: Callable[..., tuple[int, str, str]], options: ReplayOptions, damage: str
) -> None:
    url = fill(3)
    execute(url, BREAK[damage])
    words = ("--db", url, "--pathway", options.pathway, "--generator", "random:7", "--rollouts", "2")
    plan = json.loads(run("plan", *words, "--json")[1])
    assert list(plan["damaged"]) == [BAD]
    assert " at " in plan["damaged"][BAD]
    for count in plan["steps"].values():
        assert (count["applicable"], count["not_applicable"]) == (2, {"the case cannot be read: failed": 1})
    code, _, error = run("plan", *words)
    assert (code, f"{BAD}: cannot be read" in error) == (0, True)
    replay(url, "one", options)
    assert plan["case_steps"] == {"fewest": 6, "most": 6}
    assert len(stored(url, "one")[0]) == 6
    again = json.loads(run("plan", *words, "--seed", "3", "--run", "one", "--json")[1])
    assert [count["done"] for count in again["steps"].values()] == [2, 2]


def test_a_plan_of_a_run_valued_by_labels_survives_a_damaged_label(
    fill: Callable[..., str], run: Callable[..., tuple[int, str, str]], options: ReplayOptions
) -> None:
    url = fill(3)
    execute(url, BREAK["a label's strength"])
    words = ("--pathway", options.pathway, "--generator", "random:7", "--value", "ground_truth", "--split", "train")
    assert BAD in json.loads(run("plan", "--db", url, *words, "--json")[1])["damaged"]


def test_a_case_that_is_deleted_under_way_fails_alone(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(3)
    monkeypatch.setattr("workflow.runner.case_ids_of", lambda *a, **k: ["fhir-e000", "fhir-e009", "fhir-e002"])
    summary = replay(url, "one", options)
    assert set(reasons(url, "one").values()) == {"BadInputError: no case fhir-e009"}
    with existing_database(url) as engine:
        store = RunStore(engine)
        run = store.get("one")
        assert {s.record.hashes.get("configuration") for s in store.records(run.run_id)} == {run.config_hash}
    assert sum(summary.statuses.values()) == 6


def test_a_mended_case_keeps_no_failed_step_to_which_it_does_not_come(
    fill: Callable[..., str], pathway_file: Path, options: ReplayOptions
) -> None:
    pathway_file.write_text(pathway_file.read_text() + "edges:\n  - {from: first, to: second, when: has_ed_stay}\n")
    url = fill(2)
    replay(url, "whole", options)
    assert [(r["step"], r["status"] == "not_applicable") for r in stored(url, "whole")[0]] == [
        ("first", False),
        ("second", True),
    ] * 2
    keep(url)
    execute(url, BREAK["encounters"])
    replay(url, "one", options)
    assert len(reasons(url, "one")) == 2
    mend(url)
    resume(url, "one", retry_failed=True)
    assert stored(url, "one") == stored(url, "whole")


def test_what_breaks_after_a_search_fails_that_case_alone(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluation import recording

    url = fill(3)
    replay(url, "whole", options)
    make = recording.make_record

    def broken(**how: Any) -> Any:
        if how["case"].case_id == BAD and how["problem"].step == "second":
            raise KeyError("a value of the record")
        return make(**how)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "make_record", broken)
        replay(url, "one", options)
    ((place, reason),) = reasons(url, "one").items()
    assert place == (BAD, "second")
    assert reason.startswith("KeyError at ")
    resume(url, "one", retry_failed=True)
    assert stored(url, "one") == stored(url, "whole")


def test_a_vocabulary_that_is_gone_stops_a_run_before_it_begins_and_loses_nothing(
    fill: Callable[..., str], pathway_file: Path, options: ReplayOptions
) -> None:
    url, vocabulary = fill(2), pathway_file.with_name("four-answers.yaml")
    replay(url, "whole", options)
    with pytest.raises(KeyboardInterrupt):
        replay(url, "one", options, listener=_Stop())
    half, text = stored(url, "one"), vocabulary.read_text()
    assert 0 < len(half[0]) < 4
    vocabulary.unlink()
    with pytest.raises(WardstarError, match="four-answers") as told:
        resume(url, "one")
    assert told.value.exit_code in (2, 3)
    assert stored(url, "one") == half
    vocabulary.write_text(text)
    resume(url, "one")
    assert stored(url, "one") == stored(url, "whole")


class _Stop:
    """A listener that stops a run after its first case."""

    def started(self, cases: int, done: int, steps: int) -> None: ...

    def rollout(self, rollouts: int, computed: int) -> None: ...

    def finished(self, report: Any) -> None:
        raise KeyboardInterrupt
