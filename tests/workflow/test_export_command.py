"""`wardstar export` on real runs of the random model: what is taught is what the search asked, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from sqlalchemy import Engine

from clinical_data.catalogue import load_catalogue
from clinical_data.demo import bundle_folder
from clinical_data.splits import half_of, split_of
from clinical_data.store.case_reader import CaseReader
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.supervision.branches import branches
from evaluation.supervision.lessons import Lessons
from search.models.language_model import prompt_text
from search.prompts import PEER_CUE, opening
from workflow.config import prepare
from workflow.importing import import_cases
from workflow.step import clock_of, problem_of

ROLLOUTS = 4
CASES_OF_TWO = ("rstar", "greedy", "full-information")  # runs over both cases; the others take the first
TAKEN = ("0002", "0005")  # two cases of the train split


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of two bundled cases, with small runs of all strategies and rules between them."""
    folder = tmp_path_factory.mktemp("bundled")
    url = f"sqlite:///{folder / 'w.db'}"
    for path in sorted(bundle_folder().iterdir()):
        if any(number in path.name for number in TAKEN):
            (folder / "cases").mkdir(exist_ok=True)
            shutil.copy(path, folder / "cases")
    import_cases(url, "fhir", folder / "cases")
    from workflow.config import ReplayOptions
    from workflow.runner import replay

    base = ReplayOptions(
        generator="random:7",
        peer="random:8",
        steps=("admission_diagnosis", "discharge_diagnosis"),
        split="train",
        seed=3,
        settings={"rollouts": ROLLOUTS},
    )
    one = replace(base, limit=1)
    drawn = {"rollouts": ROLLOUTS, "vote": "drawn", "merge": "never", "expansion": "node", "calibration": "none"}
    runs = {
        "rstar": base,
        "greedy": replace(base, strategy="greedy"),
        "full-information": replace(base, strategy="full-information"),
        "drawn": replace(one, settings=drawn),
        "free": replace(one, strategy="self-consistency", settings={"rollouts": ROLLOUTS, "vote": "free"}),
        "prospective": replace(
            one, strategy="rap", chart_access="prospective", predecessors="predicted", settings={"rollouts": 2}
        ),
        "steered": replace(one, strategy="best-of-n", value="ground_truth", peer=None),
    }
    for name, options in runs.items():
        replay(url, name, options)
    return url


RUNS = ("rstar", "greedy", "full-information", "drawn", "free", "prospective", "steered")


@pytest.fixture
def engine(bundled: str) -> Iterator[Engine]:
    engine = open_database(bundled, create=False)
    yield engine
    engine.dispose()


def rows_of(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def stored_calls(engine: Engine, run: str) -> dict[tuple[str, str, str], dict[str, set[str]]]:
    """Returns (case, step, role) -> prompt -> what was written or weighed after it."""
    store = RunStore(engine)
    found: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    for case_id, _, step, _, call in store.calls(store.get(run).run_id):
        of_role = found.setdefault((case_id, step, call.role), {})
        of_role.setdefault(call.text, set()).update(call.completions)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_every_prompt_and_completion_is_one_of_the_search(
    run: Run, bundled: str, engine: Engine, tmp_path: Path, name: str
) -> None:
    for kind in ("sft", "preference"):
        code, _, error = run("export", kind, "--db", bundled, "--run", name, "--out", tmp_path / kind)
        if (kind, name) == ("preference", "free"):  # random words name no answer, so no branch is nearer to the label
            assert (code, "gives no preference row" in error) == (3, True)
            return
        assert code == 0, error
    calls = stored_calls(engine, name)
    entries = {f" {e.display}" for e in prepare(RunStore(engine).get(name).config).plans["admission_diagnosis"]
               .vocabularies["fhir"].entries}  # fmt: skip
    rows = rows_of(tmp_path / "sft")
    assert {r["turn"] for r in rows} >= {"answer"}
    for row in rows:
        written = calls[row["case_id"], row["step"], row["role"]][row["prompt"]]
        assert row["completion"].endswith("\n")
        text = row["completion"][:-1]
        assert text in (entries if row["turn"] == "answer" else written)
        assert (PEER_CUE in row["prompt"]) == (row["role"] == "peer")
    for row in rows_of(tmp_path / "preference"):
        written = calls[row["case_id"], row["step"], row["role"]][row["prompt"]]
        assert row["chosen"] != row["rejected"]
        for text in (row["chosen"][:-1], row["rejected"][:-1]):
            assert text in (entries if row["turn"] == "answer" else written)
        assert row["pair"] == "conclusion" or row["margin"] > 0


@pytest.mark.parametrize("name", RUNS)
def test_a_rebuilt_opening_is_what_the_search_renders(engine: Engine, name: str) -> None:
    lessons = Lessons(engine, (name,), ("train",))
    plans = prepare(lessons.runs[0].config).plans
    number = 0
    for lesson in lessons:
        record = lesson.record
        case, plan = CaseReader(engine).get(record.case_id), plans[record.step]
        clock = clock_of(case, plan.step)
        assert clock is not None
        text = lesson.leaves[0].trace.opening
        earlier = tuple(
            line.removeprefix("Earlier conclusion: ")
            for line in text.splitlines()
            if line.startswith("Earlier conclusion: ")
        )
        assert text == prompt_text(opening(problem_of(case, plan, clock, earlier)))
        assert bool(earlier) == (name == "prospective" and record.step == "discharge_diagnosis")
        number += 1
    assert number == (4 if name in CASES_OF_TWO else 2)
    assert load_catalogue("v1").sha256 in lessons.runs[0].config["hashes"].values()


@pytest.mark.parametrize("name", ["rstar", "drawn"])
def test_rebuilt_branches_have_visits_and_values_of_the_stored_tree(engine: Engine, name: str) -> None:
    lessons = Lessons(engine, (name,), ("train",))
    for lesson in lessons:
        tree = lesson.record.tree
        assert tree is not None
        visited = [n for n in tree["nodes"] if n["visits"]]
        rebuilt = list(branches(lesson.leaves).walk())
        if name != "drawn":  # there equal siblings stay apart in the tree
            expected = sorted((n["visits"], round(n["value_sum"] / n["visits"], 9)) for n in visited)
            assert sorted((b.visits, round(b.value, 9)) for b in rebuilt) == expected
        assert rebuilt[0].visits == lesson.record.rollouts
        for leaf in lesson.leaves:  # the vote worked out again is the one on record
            assert leaf.right == (leaf.candidate.answer_key is not None and lesson.target is not None
                                  and lesson.target.agrees((leaf.candidate.answer_key,)))  # fmt: skip
            if leaf.right and name != "drawn":
                assert leaf.likelihood == pytest.approx(leaf.candidate.probability)
    assert not lessons.dropped


def test_only_imagined_results_keep_a_prospective_trajectory_out(engine: Engine) -> None:
    lessons = Lessons(engine, ("prospective",), ("train",))
    seen = list(lessons)
    kept = sum(len(lesson.leaves) for lesson in seen)
    imagined = sum(any(t.imagined for t in c.turns) for lesson in seen for c in lesson.record.candidates)
    assert kept > 0
    assert dict(lessons.dropped) == ({"trajectory with imagined results": imagined} if imagined else {})


@pytest.mark.parametrize("name", ["full-information", "greedy"])
def test_answers_only_gives_one_row_per_labelled_train_case(
    run: Run, bundled: str, engine: Engine, tmp_path: Path, name: str
) -> None:
    code, out, error = run("export", "sft", "--answers-only", "--db", bundled, "--run", name, "--out", tmp_path / "s")
    assert (code, out.strip()) == (0, str(tmp_path / "s")), error
    store = RunStore(engine)
    wanted = {(s.record.case_id, s.record.step) for s in store.records(store.get(name).run_id)}
    rows = rows_of(tmp_path / "s")
    assert sorted((r["case_id"], r["step"]) for r in rows) == sorted(wanted)  # every bundled label is in the vocabulary
    assert {r["turn"] for r in rows} == {"answer"}
    if name == "full-information":
        code, _, _ = run("export", "sft", "--db", bundled, "--run", name, "--out", tmp_path / "all")
        assert code == 0
        assert rows_of(tmp_path / "all") == rows  # no turn of it was chosen by a model


def test_stepwise_rows_read_as_the_search_ended(run: Run, bundled: str, engine: Engine, tmp_path: Path) -> None:
    code, _, _ = run("export", "stepwise", "--db", bundled, "--run", "rstar", "--out", tmp_path / "s")
    assert code == 0
    prompts = {text for (_, _, role), of in stored_calls(engine, "rstar").items() if role == "generator" for text in of}
    for row in rows_of(tmp_path / "s"):
        *turns, last = row["completions"]
        cue, _, answer = last.rpartition(":")
        assert row["prompt"] + "".join(turns) + cue + ":" in prompts
        assert answer.strip()
        assert len(row["completions"]) == len(row["labels"]) == len(row["values"]) == len(row["values_visits"])
        assert all(0 <= v <= 1 for name in ("values", "values_visits", "values_record") for v in row[name])
        assert row["labels"] == [v > 0 for v in row["values"]]


def test_nothing_of_another_split_or_after_the_clock_is_taught(
    run: Run, fill: Callable[..., str], pathway_file: Path, tmp_path: Path
) -> None:
    """Patients p000 to p011; sodium comes at minute 2000, after the clock of the first step; labels say CANARY."""
    url = fill(12)
    replay = ("replay", "--db", url, "--pathway", pathway_file, "--generator", "random:7", "--rollouts", "5")
    assert run(*replay, "--run", "r")[0] == 0
    splits = {f"fhir-e{i:03d}": split_of("fhir", f"p{i:03d}") for i in range(12)}
    for kind in ("sft", "preference", "stepwise"):
        code, _, error = run("export", kind, "--db", url, "--run", "r", "--split", "tuning", "--out", tmp_path / kind)
        assert code == 0, error
        for split in ("train", "tuning"):
            rows = rows_of(tmp_path / kind, split)
            assert {r["case_id"] for r in rows} == {c for c, s in splits.items() if s == split}
            assert {r["step"] for r in rows} == {"first"}  # the second has no label
        for path in (p for p in (tmp_path / kind).rglob("*") if p.is_file()):
            text = path.read_text(encoding="utf-8")
            assert "CANARY" not in text
            assert "Sodium 1" not in text
            assert path.stat().st_mode & 0o077 == 0
    code, _, error = run("export", "sft", "--db", url, "--run", "r", "--steps", "second", "--out", tmp_path / "no")
    assert code == 3
    assert "no row for train.jsonl from run r" in error
    assert "no recorded label" in error
    assert not (tmp_path / "no").exists()


def test_errors_of_the_command(run: Run, bundled: str, tmp_path: Path) -> None:
    code, out, error = run("export", "sft", "--db", bundled, "--run", "none", "--out", tmp_path / "s")
    assert (code, out) == (2, "")
    assert "no run named none" in error
    assert run("export", "dpo", "--db", bundled, "--run", "rstar", "--out", tmp_path / "s")[0] == 2
    assert run("export", "sft", "--db", bundled, "--out", tmp_path / "s")[0] == 2
    code, _, error = run("export", "sft", "--db", bundled, "--run", "rstar", "--split", "held-out", "--out", "s")
    assert code == 2
    assert "never taught" in error
    code, _, error = run("export", "sft", "--db", bundled, "--run", "rstar", "--patients", "third", "--out", "s")
    assert (code, "known: all, first-half, second-half" in error) == (2, True)


def test_the_command_exports_halves_and_roles(run: Run, bundled: str, tmp_path: Path) -> None:
    assert {half_of(f"fhir-ward-p{number}") for number in TAKEN} == {0}
    export = ("export", "sft", "--db", bundled, "--run", "rstar", "--role", "peer", "--patients")
    code, _, error = run(*export, "first-half", "--out", "first")
    assert code == 0, error
    rows = rows_of(tmp_path / "first")
    assert {r["patient_id"] for r in rows} == {f"fhir-ward-p{number}" for number in TAKEN}
    assert {r["role"] for r in rows} == {"peer", "generator"}
    assert {r["turn"] for r in rows if r["role"] == "generator"} == {"answer"}
    code, _, error = run(*export, "second-half", "--out", "second")
    assert code == 3
    assert "case of the other half of the patients" in error


LOAD = """
import json, sys
from datasets import load_dataset
found = load_dataset("json", data_files={"train": sys.argv[1] + "/train.jsonl"}, cache_dir=sys.argv[2])["train"]
whole = load_dataset(sys.argv[1], cache_dir=sys.argv[2])
assert whole["train"].num_rows == found.num_rows
print(json.dumps({"rows": found.to_list(), "types": {k: str(v) for k, v in found.features.items()}}))
"""


def test_sets_load_with_datasets_offline(run: Run, bundled: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    types = {
        "sft": {"completion": "string", "cold_start": "bool"},
        "preference": {"chosen": "string", "rejected": "string", "margin": "float64"},
        "stepwise": {"completions": "List(Value('string'))", "labels": "List(Value('bool'))",
                     "values": "List(Value('float64'))", "values_record": "List(Value('float64'))"},
    }  # fmt: skip
    for kind, wanted in types.items():
        folder = tmp_path / kind
        assert run("export", kind, "--db", bundled, "--run", "rstar", "--run", "greedy", "--out", folder)[0] == 0
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "cache")],
            env=offline, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        loaded = json.loads(done.stdout.splitlines()[-1])
        assert loaded["rows"] == rows_of(folder)
        for column, name in {"prompt": "string", **wanted}.items():
            assert name in loaded["types"][column]


def test_a_set_of_answers_is_taught_as_the_record_has_it(
    run: Run, fill: Callable[..., str], pathway_file: Path, tmp_path: Path
) -> None:
    """One of at most two answers is recorded: a conclusion agrees when half of it is right."""
    pathway_file.write_text(pathway_file.read_text().replace("form: closed", "form: set\n      most: 2", 1))
    url = fill(8)
    assert run("replay", "--db", url, "--pathway", pathway_file, "--generator", "random:7", "--rollouts", "4",
               "--steps", "first", "--run", "r")[0] == 0  # fmt: skip
    for kind in ("sft", "preference", "stepwise"):
        code, _, error = run("export", kind, "--db", url, "--run", "r", "--out", tmp_path / kind)
        assert code == 0, error
    names = ("pneumonia", "heart failure", "urinary tract infection", "acute pancreatitis")
    rows = rows_of(tmp_path / "sft")
    for row in rows:
        if row["turn"] == "answer":
            assert row["completion"] == f" {names[int(row['case_id'][-3:]) % 4]}\n"
            assert row["prompt"].endswith("\nWorking diagnosis:")
    assert {r["cold_start"] for r in rows} == {True, False}
    pairs = [r for r in rows_of(tmp_path / "preference") if r["pair"] == "conclusion"]
    assert {r["margin"] for r in pairs} <= {1.0, 0.5}  # no item right, or one of two
    assert pairs
