from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinical_data.errors import ModelError, StorageError, UsageError
from clinical_data.store.case_store import CaseStore
from evaluation.rows import prompt_rows, record_rows
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from search.models.registry import load_model
from workflow.case_worker import CaseReport
from workflow.config import ReplayOptions, make_config, prepare, read_options
from workflow.runner import Listener, replay, resume


class Ear(Listener):
    def __init__(self, after: int | None = None) -> None:
        self.reports: list[CaseReport] = []
        self.after = after
        self.rollouts = 0

    def rollout(self, rollouts: int, computed: int) -> None:
        self.rollouts += 1

    def finished(self, report: CaseReport) -> None:
        self.reports.append(report)
        if self.after is not None and len(self.reports) >= self.after:
            raise KeyboardInterrupt


@pytest.fixture
def options(pathway_file: Path) -> ReplayOptions:
    return ReplayOptions(pathway=str(pathway_file), seed=3, generator="random:7", settings={"rollouts": 2})


def rows(url: str, run: str) -> list[dict[str, Any]]:
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found = [{k: v for k, v in row.items() if k != "seconds"} for row in record_rows(store, store.get(run))]
    engine.dispose()
    return found


def status(url: str, run: str) -> str:
    engine = open_database(url, create=False)
    found = RunStore(engine).get(run).status
    engine.dispose()
    return found


def changed(options: ReplayOptions, **values: Any) -> ReplayOptions:
    from dataclasses import replace

    return replace(options, **values)


def test_a_replay_records_every_step_of_every_case(fill: Callable[..., str], options: ReplayOptions) -> None:
    url, ear = fill(3), Ear()
    summary = replay(url, "one", options, listener=ear)
    found = rows(url, "one")
    assert [(r["case_id"], r["step"]) for r in found] == [
        (f"fhir-e{i:03d}", step) for i in range(3) for step in ("first", "second")
    ]
    assert (summary.cases, summary.skipped, sum(summary.statuses.values())) == (3, 0, 6)
    assert all(r["truth"] and r["match"] for r in found if r["step"] == "first")
    assert all(r["truth"] == [] and r["match"] == {} for r in found if r["step"] == "second")
    assert all(r["rollouts"] == 2 and r["repeatable"] for r in found)
    assert status(url, "one") == "finished"
    assert ear.rollouts >= 12
    assert summary.work["sampled"] > 0


def test_the_same_run_again_does_nothing(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(2)
    replay(url, "one", options)
    before = rows(url, "one")
    summary = replay(url, "one", options)
    assert (summary.skipped, sum(summary.statuses.values())) == (2, 0)
    assert rows(url, "one") == before


def test_another_configuration_of_the_same_name_is_refused(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(1)
    replay(url, "one", options)
    with pytest.raises(UsageError, match="seed"):
        replay(url, "one", changed(options, seed=4))


def test_workers_change_no_record(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(4)
    replay(url, "one", options)
    summary = replay(url, "two", options, workers=2)
    assert sum(summary.statuses.values()) == 8
    assert rows(url, "two") == rows(url, "one")


def test_an_interrupted_run_resumes_to_the_same_records(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(4)
    replay(url, "whole", options)
    with pytest.raises(KeyboardInterrupt):
        replay(url, "halved", options, listener=Ear(after=2))
    assert status(url, "halved") == "interrupted"
    assert len(rows(url, "halved")) == 4
    summary = resume(url, "halved")
    assert (summary.skipped, sum(summary.statuses.values())) == (2, 4)
    assert rows(url, "halved") == rows(url, "whole")


def test_predicted_predecessors_survive_a_resume(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, options = fill(2), changed(options, predecessors="predicted")
    replay(url, "whole", options)
    put = RunStore.put

    def stop_at_second(self: RunStore, run_id: int, record: Any, *rest: Any, **more: Any) -> None:
        if record.step == "second":
            raise KeyboardInterrupt
        put(self, run_id, record, *rest, **more)

    monkeypatch.setattr(RunStore, "put", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        replay(url, "halved", options)
    monkeypatch.undo()
    assert [r["step"] for r in rows(url, "halved")] == ["first"]
    resume(url, "halved")
    assert rows(url, "halved") == rows(url, "whole")


def test_the_run_is_committed_before_models_load(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(1)
    seen = []

    def load(spec: str, **options: Any) -> Any:
        seen.append(status(url, "one"))
        raise ModelError("weights missing")

    monkeypatch.setattr("workflow.case_worker.load_model", load)
    with pytest.raises(ModelError):
        replay(url, "one", options)
    assert seen == ["running"]
    assert status(url, "one") == "failed"
    monkeypatch.undo()
    assert sum(resume(url, "one").statuses.values()) == 2


def test_a_mistyped_model_does_not_occupy_the_name(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(1)
    with pytest.raises(UsageError, match="no model"):
        replay(url, "one", changed(options, generator="rndom:7"))
    replay(url, "one", options)


def test_failed_steps_are_kept_and_taken_again_on_request(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(2)
    replay(url, "whole", options)
    model = load_model("random:7")
    generate = type(model).generate

    def broken(self: Any, requests: Any) -> Any:
        if "cough for 1 days" in str(requests[0].prompt):
            raise ModelError("out of memory")
        return generate(self, requests)

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "generate", broken)
        assert replay(url, "one", options).statuses["failed"] > 0
    failed = [r for r in rows(url, "one") if r["status"] == "failed"]
    assert failed
    assert all(r["case_id"] == "fhir-e001" for r in failed)
    assert sum(resume(url, "one").statuses.values()) == 0
    assert sum(resume(url, "one", retry_failed=True).statuses.values()) == len(failed)
    assert rows(url, "one") == rows(url, "whole")


def test_a_storage_error_ends_the_run(
    fill: Callable[..., str], options: ReplayOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(2)

    def full(self: RunStore, *rest: Any, **more: Any) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(RunStore, "put", full)
    with pytest.raises(StorageError, match="disk full"):
        replay(url, "one", options)
    monkeypatch.undo()
    assert rows(url, "one") == []
    assert sum(resume(url, "one").statuses.values()) == 4


def test_limit_and_split_choose_the_cases(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(8)
    replay(url, "limited", changed(options, limit=2, steps=("second",)))
    assert [(r["case_id"], r["step"]) for r in rows(url, "limited")] == [
        ("fhir-e000", "second"),
        ("fhir-e001", "second"),
    ]
    engine = open_database(url, create=False)
    train = CaseStore(engine).case_ids(split="train")
    engine.dispose()
    replay(url, "train", changed(options, split="train", steps=("second",)))
    assert [r["case_id"] for r in rows(url, "train")] == train


def test_truth_changes_no_prompt_and_no_conclusion(fill: Callable[..., str], options: ReplayOptions) -> None:
    url = fill(2)
    replay(url, "with", options)
    engine = open_database(url, create=False)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM ground_truth_labels")
        connection.exec_driver_sql("DELETE FROM ground_truth")
    replay(url, "without", options)
    store = RunStore(engine)
    prompts = {name: list(prompt_rows(store, store.get(name), tokens=True)) for name in ("with", "without")}
    engine.dispose()
    assert prompts["with"] == prompts["without"]
    assert "CANARY" not in json.dumps(prompts)
    hidden = ("truth", "match")
    stripped = [[{k: v for k, v in r.items() if k not in hidden} for r in rows(url, n)] for n in ("with", "without")]
    assert stripped[0] == stripped[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "luck"}, "is unknown"),
        ({"chart_access": "sideways"}, "must be hindsight or prospective"),
        ({"predecessors": "guessed"}, "is unknown"),
        ({"review": "sometimes"}, "is unknown"),
        ({"value": "ground_truth"}, "needs --split train"),
        ({"split": "test"}, "is unknown"),
        ({"limit": 0}, "at least 1"),
        ({"steps": ("frist",)}, "did you mean first"),
        ({"settings": {"rollouts": 0}}, "at least 1"),
        ({"settings": {"wishes": 3}}, "unknown search option"),
    ],
)
def test_options_that_cannot_be_are_refused(options: ReplayOptions, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(changed(options, **values))


def test_no_case_to_replay_is_said(fill: Callable[..., str], options: ReplayOptions) -> None:
    with pytest.raises(UsageError, match="no cases"):
        replay(fill(0), "one", options)


def test_a_configuration_survives_json_and_notices_change(options: ReplayOptions) -> None:
    config = json.loads(json.dumps(make_config(options)))
    assert prepare(config).plans["first"].settings.depth == 3  # the step's own setting
    assert prepare(config).plans["second"].settings.rollouts == 2
    config["hashes"]["prompts"] = "0"
    with pytest.raises(UsageError, match="prompts"):
        prepare(config)


def test_options_come_from_a_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('chart-access = "hindsight"\nsteps = ["first"]\n[search]\nrollouts = 4\n')
    assert read_options(path) == {
        "chart_access": "hindsight",
        "steps": ("first",),
        "settings": {"rollouts": 4},
        "models": {},
    }
