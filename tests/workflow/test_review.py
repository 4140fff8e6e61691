"""A step that asks a clinician as well: skipped offline, waited for where the run says so, answered by a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinical_data.errors import BadInputError
from evaluation.record import ReviewRecord, RunRecord
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from tests.workflow.stored_runs import stored
from workflow import step
from workflow.config import ReplayOptions
from workflow.runner import replay, resume

SETTINGS = {"rollouts": 2}
REVIEW = "opening: [chief_complaint]\n    review: required"


@pytest.fixture
def reviewed(pathway_file: Path) -> Path:
    """The two steps, with a clinician at the first."""
    pathway_file.write_text(pathway_file.read_text().replace("opening: [chief_complaint]", REVIEW))
    return pathway_file


def options(path: Path, review: str = "wait", **more: object) -> ReplayOptions:
    return ReplayOptions(
        pathway=str(path), seed=3, generator="random:7", settings=SETTINGS, predecessors="predicted", review=review,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def records(url: str, run: str) -> dict[tuple[str, str], RunRecord]:
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found = {(s.record.case_id, s.record.step): s.record for s in store.records(store.get(run).run_id)}
    engine.dispose()
    return found


def answers(path: Path, *rows: object) -> Path:
    file = path / "answers.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def test_offline_nobody_answers_and_the_run_goes_on(reviewed: Path, fill: Callable[..., str]) -> None:
    url = fill(2)
    summary = replay(url, "r", options(reviewed, "skip"))
    found = records(url, "r")
    assert summary.waiting == 0
    assert {step: record.review for (_, step), record in found.items()} == {
        "first": ReviewRecord(state="skipped"),
        "second": None,
    }
    assert len(found) == 4


def test_a_run_waits_and_goes_on_with_the_clinicians_answer(
    reviewed: Path, fill: Callable[..., str], tmp_path: Path
) -> None:
    url = fill(3)
    assert replay(url, "r", options(reviewed)).waiting == 3
    assert {step for _, step in records(url, "r")} == {"first"}
    idle = resume(url, "r")  # nobody has answered: nothing is done, no model is loaded
    assert (idle.waiting, idle.statuses.total()) == (3, 0)
    file = answers(
        tmp_path,
        {"case_id": "fhir-e000", "step": "first", "answer": "K85.9"},
        {"case_id": "fhir-e002", "step": "first", "answer": "Heart Failure"},
    )
    summary = resume(url, "r", answers=file)
    assert (summary.waiting, summary.statuses.total()) == (1, 2)
    found = records(url, "r")
    assert found["fhir-e000", "first"].review == ReviewRecord(
        state="answered", answer=("K85.9",), display="acute pancreatitis"
    )
    assert ("fhir-e001", "second") not in found
    told = prompts(url, "r", "second")
    assert all("Earlier conclusion: First diagnosis: acute pancreatitis" in text for text in told["fhir-e000"])
    assert all("Earlier conclusion: First diagnosis: heart failure" in text for text in told["fhir-e002"])


def prompts(url: str, run: str, step: str) -> dict[str, list[str]]:
    """The prompts of a step that speak of the case, by case."""
    engine = open_database(url, create=False)
    store, found = RunStore(engine), {}
    for case_id, _, name, _, call in store.calls(store.get(run).run_id):
        if name == step and "Patient: not described" not in call.text:
            found.setdefault(case_id, []).append(call.text)
    engine.dispose()
    return found


def test_the_models_record_and_marks_are_not_touched_by_an_answer(
    reviewed: Path, fill: Callable[..., str], tmp_path: Path
) -> None:
    url = fill(1)
    replay(url, "r", options(reviewed))
    before = records(url, "r")["fhir-e000", "first"]
    file = answers(tmp_path, {"case_id": "fhir-e000", "step": "first", "answer": "K85.9"})
    resume(url, "r", answers=file)
    after = records(url, "r")["fhir-e000", "first"]
    assert after.model_copy(update={"review": None}) == before.model_copy(update={"review": None})


def test_an_answer_outlives_a_kill_right_after_it_was_given(
    reviewed: Path, fill: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(1)
    replay(url, "r", options(reviewed))
    file = answers(tmp_path, {"case_id": "fhir-e000", "step": "first", "answer": "K85.9"})

    def killed(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("workflow.case_worker.run_case", killed)
    with pytest.raises(KeyboardInterrupt):
        resume(url, "r", answers=file)
    monkeypatch.undo()
    for checkpoints in tmp_path.glob("cases.db.checkpoints*"):
        checkpoints.unlink()  # the run store is all that is needed
    assert resume(url, "r").statuses.total() == 1
    assert all("acute pancreatitis" in text for text in prompts(url, "r", "second")["fhir-e000"])


def test_an_answer_settles_what_the_model_abstained_from(
    reviewed: Path, fill: Callable[..., str], tmp_path: Path
) -> None:
    text = reviewed.read_text().replace("search: {depth: 3}", "search: {abstain_below: 0.5}")
    reviewed.write_text(text + "edges: [{from: first, to: human, when: abstained}, {from: first, to: second}]\n")
    url = fill(3)
    replay(url, "r", options(reviewed))
    assert {r.status for r in records(url, "r").values()} >= {"abstain"}
    rows = [{"case_id": f"fhir-e{i:03d}", "step": "first", "answer": "K85.9"} for i in range(3)]
    resume(url, "r", answers=answers(tmp_path, *rows))
    second = [r for (_, step), r in records(url, "r").items() if step == "second"]
    assert len(second) == 3
    assert all(r.status != "not_applicable" for r in second)


GOOD = {"case_id": "fhir-e000", "step": "first", "answer": "K85.9"}


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ("{nonsense", None, "JSON"),
        ({"case_id": "fhir-e001", "step": "first"}, "answer", "required"),
        ({**GOOD, "case_id": "fhir-e001", "reply": 1}, "reply", "not permitted"),
        ({**GOOD, "case_id": "nobody"}, "case_id", "no such case-step waits"),
        ({**GOOD, "step": "second"}, "case_id", "no such case-step waits"),
        ({**GOOD, "case_id": "fhir-e001", "occurrence": 2}, "case_id", "no such case-step waits"),
        (GOOD, "case_id", "answered twice"),
        ({**GOOD, "case_id": "fhir-e001", "answer": "zugzwang"}, "answer", "no code or name"),
        ({**GOOD, "case_id": "fhir-e001", "answer": ["K85.9", "J18.9"]}, "answer", "one answer"),
        ({**GOOD, "case_id": "fhir-e001", "answer": []}, "answer", "one answer"),
    ],
)
def test_a_bad_answer_is_named_by_line_and_field_and_nothing_is_taken(
    reviewed: Path, fill: Callable[..., str], tmp_path: Path, row: object, field: str | None, message: str
) -> None:
    url = fill(2)
    replay(url, "r", options(reviewed))
    with pytest.raises(BadInputError, match=message) as caught:
        resume(url, "r", answers=answers(tmp_path, GOOD, "", row))
    assert (caught.value.line, caught.value.field) == (3, field)
    assert "zugzwang" not in str(caught.value)
    assert {r.review.state for r in records(url, "r").values() if r.review} == {"waiting"}


def test_a_set_is_answered_by_a_list(reviewed: Path, fill: Callable[..., str], tmp_path: Path) -> None:
    reviewed.write_text(reviewed.read_text().replace("form: closed", "form: set\n      most: 2", 1))
    url = fill(1)
    replay(url, "r", options(reviewed))
    resume(url, "r", answers=answers(tmp_path, {**GOOD, "answer": ["pneumonia", "K85.9"]}))
    review = records(url, "r")["fhir-e000", "first"].review
    assert review == ReviewRecord(state="answered", answer=("J18.9", "K85.9"), display="pneumonia; acute pancreatitis")


def test_only_the_end_of_a_line_ends_a_row(reviewed: Path, fill: Callable[..., str], tmp_path: Path) -> None:
    """JSON may hold other line breaks as they are; they are white space of a name."""
    url = fill(1)
    replay(url, "r", options(reviewed))
    row = json.dumps({**GOOD, "answer": "acute\u2028pancreatitis"}, ensure_ascii=False)
    resume(url, "r", answers=answers(tmp_path, row))
    assert records(url, "r")["fhir-e000", "first"].review == ReviewRecord(
        state="answered", answer=("K85.9",), display="acute pancreatitis"
    )


def test_the_command_line_shows_what_waits_and_takes_the_answers(
    reviewed: Path, fill: Callable[..., str], tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    url = fill(2)
    start = ("replay", "--db", url, "--run", "r", "--pathway", reviewed, "--generator", "random:7", "--rollouts", 2)
    code, _, said = run(*start, "--review", "wait")
    assert code == 0
    assert "waits for 2 answers of clinicians" in said
    shown = json.loads(run("runs", "show", "r", "--db", url)[1])
    assert shown["status"] == "waiting"
    assert [(row["case_id"], row["step"], row["question"]) for row in shown["waiting"]] == [
        ("fhir-e000", "first", "What is the working diagnosis?"),
        ("fhir-e001", "first", "What is the working diagnosis?"),
    ]
    rows = [{**GOOD, "case_id": f"fhir-e00{i}"} for i in range(2)]
    code, _, said = run("resume", "--db", url, "--run", "r", "--answers", answers(tmp_path, *rows))
    assert (code, "waits for" in said) == (0, False)
    shown = json.loads(run("runs", "show", "r", "--db", url)[1])
    assert (shown["status"], shown["waiting"]) == ("finished", [])
    listed = [json.loads(line) for line in run("records", "--db", url, "--run", "r")[1].splitlines()]
    assert {r["step"]: r["review"] and r["review"]["state"] for r in listed} == {"first": "answered", "second": None}
    assert run(*start[:4], "s", *start[5:], "--review", "sometimes")[0] == 2


def failing(monkeypatch: pytest.MonkeyPatch, step_name: str, error: BaseException) -> None:
    """Lets the search of a step break."""
    search = step.run_search

    def broken(strategy: str, problem: Any, *rest: Any, **more: Any) -> Any:
        if problem.step == step_name:
            raise error
        return search(strategy, problem, *rest, **more)

    monkeypatch.setattr(step, "run_search", broken)


@pytest.fixture
def answered(pathway_file: Path, fill: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`whole`: two steps, the second answered by a clinician. `one`: the same, but the first step had failed."""
    text = pathway_file.read_text()
    pathway_file.write_text(text.replace("opening: [basic", "review: required\n    opening: [basic"))
    url = fill(1)
    file = answers(tmp_path, {"case_id": "fhir-e000", "step": "second", "answer": "K85.9"})
    for run in ("whole", "one"):
        with monkeypatch.context() as patch:
            if run == "one":
                failing(patch, "first", ValueError("gone"))
            assert replay(url, run, options(pathway_file)).waiting == 1
        resume(url, run, answers=file)
    return url


def test_a_search_beside_an_answer_is_taken_again_with_the_step_before_it(answered: str) -> None:
    stale = records(answered, "one")["fhir-e000", "second"]
    assert not any("Earlier conclusion" in text for text in prompts(answered, "one", "second")["fhir-e000"])
    summary = resume(answered, "one", retry_failed=True)
    assert (summary.statuses.total(), summary.waiting) == (2, 0)
    fresh = records(answered, "one")["fhir-e000", "second"]
    assert (
        fresh.review == stale.review == ReviewRecord(state="answered", answer=("K85.9",), display="acute pancreatitis")
    )
    assert stored(answered, "one") == stored(answered, "whole")
    assert resume(answered, "one", retry_failed=True).statuses.total() == 0


def test_a_kill_between_the_two_leaves_it_to_the_next_resume(answered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        failing(patch, "second", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            resume(answered, "one", retry_failed=True)
    assert records(answered, "one")["fhir-e000", "second"].review.outdated
    assert resume(answered, "one").statuses.total() == 1
    assert stored(answered, "one") == stored(answered, "whole")


def test_an_answer_outlives_a_search_that_fails_when_it_is_taken_again(
    answered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, "second", ValueError("gone too"))
        resume(answered, "one", retry_failed=True)
    lost = records(answered, "one")["fhir-e000", "second"]
    assert (lost.status, lost.review and lost.review.answer) == ("failed", ("K85.9",))
    resume(answered, "one", retry_failed=True)
    assert stored(answered, "one") == stored(answered, "whole")
