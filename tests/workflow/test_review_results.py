"""Readings on the command line: agreement, export, and back into teaching, on real runs of the random model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from sqlalchemy import Engine

from clinical_data.splits import split_of
from evaluation.reading.form import Review
from evaluation.reading.read_steps import answer_of
from evaluation.record import RunRecord
from evaluation.review.page_data import path_of
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from tests.evaluation.readings import review_of
from tests.search.tiny_llama import make_tiny

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers for deprecated names
]
CASES = 12
CODES = ("J18.9", "I50.9", "N39.0", "K85.9")
Readings = Callable[..., list[Review]]


@pytest.fixture
def url(run: Run, fill: Callable[..., str], pathway_file: Path) -> str:
    """A database with a run of two steps over twelve cases, of which the first has labels."""
    url = fill(CASES)
    code, _, error = run(
        "replay", "--db", url, "--pathway", pathway_file, "--run", "r", "--rollouts", 4, "--generator", "random:3"
    )
    assert code == 0, error
    return url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_database(url, create=False)
    yield engine
    engine.dispose()


def records_of(engine: Engine, step: str = "first") -> list[RunRecord]:
    store = RunStore(engine)
    return [s.record for s in store.records(store.get("r").run_id) if s.record.step == step]


@pytest.fixture
def readings(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Readings:
    """Returns a function that lets two readers read the first step of all cases; both override with the next answer."""

    def read(**more: Any) -> list[Review]:
        config_hash, found = RunStore(engine).get("r").config_hash, []
        for record in records_of(engine):
            (given,) = answer_of(record)
            shown = path_of(record)
            assert shown is not None
            other = CODES[(CODES.index(given) + 1) % 4]
            rated = dict.fromkeys(range(len(shown.turns)), 4)
            for reader in ("ann", "ben"):
                one = review_of(1, reader, corrected=(other,), ratings=rated, first=(other,), after=(given,))
                key = (record.case_id, "first", 1)
                own = {"key": key, "run_hash": config_hash, "case_hash": record.hashes["case"]}
                found.append(replace(one, **own, **more))
        monkeypatch.setattr("evaluation.reading.store.reviews_of", lambda engine, run_id: found)
        return found

    return read


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def train_cases() -> set[str]:
    return {f"fhir-e{i:03d}" for i in range(CASES) if split_of("fhir", f"p{i:03d}") == "train"}


def test_agreement_is_a_table_or_json(run: Run, url: str, readings: Readings) -> None:
    code, out, error = run("review", "agreement", "--db", url, "--run", "r")
    assert (code, out) == (0, "")
    assert "no case-step was read by two readers" in error
    readings()
    code, out, error = run("review", "agreement", "--db", url, "--run", "r")
    assert code == 0, error
    for words in (
        "own answer before, code, category",
        "1.00 (0.74 to 1.00)",
        "rating of a turn",
        "right own answers",
        "ann",
    ):
        assert words in " ".join(out.split())
    assert "24 readings of 12 case-steps by 2 readers" in error
    code, out, _ = run("review", "agreement", "--db", url, "--run", "r", "--json", "--seed", 3)
    figures = json.loads(out)
    assert (code, figures["seed"], figures["overlap"], figures["run"]) == (0, 3, 12, "r")
    assert figures["steps"]["first"]["figures"]["own answer after, chapter"]["alpha_nominal"]["value"] == 1.0
    assert figures["bias"]["accuracy_before"]["n"] == 24
    code, _, error = run("review", "agreement", "--db", url, "--run", "none")
    assert (code, "no run named none" in error) == (2, True)


def test_readings_are_exported_for_their_owner_alone(run: Run, url: str, readings: Readings, tmp_path: Path) -> None:
    readings(remark="=HYPERLINK(1)")
    for name in ("a.jsonl", "a.csv"):
        for _ in range(2):  # the second time in the place of the first
            code, out, error = run("review", "export", "--db", url, "--run", "r", "--out", name)
            assert (code, out.strip()) == (0, name), error
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    with (tmp_path / "a.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(lines) == len(table) == 24
    assert list(lines[0]) == list(table[0])
    assert (lines[0]["remark"], table[0]["remark"]) == ("=HYPERLINK(1)", "'=HYPERLINK(1)")
    (tmp_path / "thesis.csv").write_text("mine\n")
    for out_file, words in (("thesis.csv", "holds something else"), ("a.txt", "as .jsonl or .csv")):
        code, _, error = run("review", "export", "--db", url, "--run", "r", "--out", out_file)
        assert (code, words in error) == (2, True)
    assert (tmp_path / "thesis.csv").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sft", ("--readings", "only")),
        ("preference", ("--readings", "only")),
        ("stepwise", ("--label-source", "reviewer")),
    ],
)
def test_rows_of_readers_are_the_text_of_the_search(
    run: Run, url: str, engine: Engine, readings: Readings, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    """Every prompt and every turn is a stored one; of the answers each is in the vocabulary; train cases alone."""
    readings()
    code, _, error = run("export", kind, "--db", url, "--run", "r", "--out", "set", *options)
    assert code == 0, error
    rows = rows_of(tmp_path / "set")
    assert {row["case_id"] for row in rows} == train_cases()
    assert {row["label_source"] for row in rows} == {"reviewer"}
    written: dict[tuple[str, str, str], set[str]] = {}
    store = RunStore(engine)
    for case_id, _, _, _, call in store.calls(store.get("r").run_id):
        written.setdefault((case_id, call.role, call.text), set()).update(call.completions)
    entries = {" pneumonia", " heart failure", " urinary tract infection", " acute pancreatitis"}
    for row in rows:
        if kind == "stepwise":
            *turns, last = row["completions"]
            cue, _, answer = last.rpartition(":")
            assert (row["case_id"], "generator", row["prompt"] + "".join(turns) + cue + ":") in written
            assert answer in entries
            assert (set(row["values"]), set(row["labels"])) == ({0.75}, {True})
            continue
        said = written[row["case_id"], row["role"], row["prompt"]]
        for text in (row.get("completion"), row.get("chosen"), row.get("rejected")):
            assert text is None or text[:-1] in (entries if row["turn"] == "answer" else said)
    answers = {record.case_id: answer_of(record) for record in records_of(engine)}
    if kind == "preference":
        pairs = [row for row in rows if row["pair"] == "override"]
        assert {row["case_id"] for row in pairs} == train_cases()
        for row in pairs:
            at = CODES.index(answers[row["case_id"]][0])
            order = ("pneumonia", "heart failure", "urinary tract infection", "acute pancreatitis")
            assert (row["rejected"], row["chosen"]) == (f" {order[at]}\n", f" {order[(at + 1) % 4]}\n")
    for path in (p for p in (tmp_path / "set").rglob("*") if p.is_file()):
        assert path.stat().st_mode & 0o077 == 0


def test_nothing_is_taught_without_permission(run: Run, url: str, readings: Readings, tmp_path: Path) -> None:
    readings(may_train=False)
    for kind in ("sft", "preference"):
        for name, options in (("plain", ()), ("with", ("--readings", "with"))):
            code, _, error = run("export", kind, "--db", url, "--run", "r", "--out", f"{kind}-{name}", *options)
            assert code == 0, error
        plain, asked = (rows_of(tmp_path / f"{kind}-{name}") for name in ("plain", "with"))
        assert plain == asked
        code, _, error = run("export", kind, "--db", url, "--run", "r", "--out", "no", "--readings", "only")
        assert (code, "reading without permission to train" in error) == (3, True)
    code, _, error = run("export", "stepwise", "--db", url, "--run", "r", "--out", "no", "--label-source", "reviewer")
    assert (code, "reading without permission to train" in error) == (3, True)
    assert not (tmp_path / "no").exists()


def test_options_that_do_not_go_together(run: Run, url: str) -> None:
    export = ("export", "stepwise", "--db", url, "--run", "r", "--out", "no")
    code, _, error = run(*export, "--readings", "with")
    assert (code, "stepwise sets take --label-source reviewer" in error) == (2, True)
    code, _, error = run("export", "sft", "--db", url, "--run", "r", "--out", "no", "--readings", "all")
    assert (code, "known: none, with, only" in error) == (2, True)


def test_what_readers_said_can_be_trained_on(run: Run, url: str, readings: Readings, tmp_path: Path) -> None:
    """TRL's SFT and DPO trainers and the value trainer take the rows of readers as they are."""
    readings()
    tiny = make_tiny(tmp_path / "tiny", max_position_embeddings=4096)
    sets = {
        "sft": ("sft", "--readings", "only"),
        "dpo": ("preference", "--readings", "only", "--answers-only"),
        "stepwise": ("stepwise", "--label-source", "reviewer"),
    }
    for method, options in sets.items():
        code, _, error = run("export", *options, "--db", url, "--run", "r", "--out", f"set-{method}")
        assert code == 0, error
        code, out, error = run(
            "train", method, "--data", f"set-{method}", "--out", f"by-{method}", "--base", tiny, "--json",
            "--epochs", "0.2", "--dtype", "fp32", "--device", "cpu", "--max-length", "2048",
        )  # fmt: skip
        assert code == 0, error
        card = json.loads(out)
        assert (card["status"], card["data"]["rows"] > 0) == ("complete", True)
