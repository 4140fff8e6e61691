"""`wardstar tree`: a stored tree as page, drawing, flowchart and JSON."""

from __future__ import annotations

import json
import stat
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run

from evaluation.review.tree_view import rollouts_of, statistics
from evaluation.store import open_database
from evaluation.store.run_store import RunStore

CASE = "fhir-e000"


@pytest.fixture
def replayed(run: Run, fill: Callable[..., str], pathway_file: Path) -> str:
    """A database with a search of four rollouts and a run without search."""
    url = fill(1)
    common = ("replay", "--db", url, "--pathway", pathway_file, "--generator", "random:7", "--rollouts", "4", "--run")
    assert run(*common, "one")[0] == 0
    assert run(*common, "flat", "--strategy", "greedy")[0] == 0
    return url


def test_each_format_of_a_real_search(run: Run, replayed: str, tmp_path: Path) -> None:
    wanted = ("tree", "--db", replayed, "--run", "one", "--case", CASE, "--step", "second")
    code, out, error = run(*wanted)
    page = Path(out.strip())
    assert (code, error, str(page)) == (0, "", f"tree-{CASE}-second.html")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert run(*wanted, "--format", "svg", "--out", tmp_path / "t.svg")[1].strip() == str(tmp_path / "t.svg")
    ET.parse(tmp_path / "t.svg")
    assert run(*wanted, "--format", "mermaid", "--out", "-")[1].startswith("flowchart LR\n  n0(")
    rows = json.loads(run(*wanted, "--format", "json", "--out", "-")[1])
    assert (rows["run"], rows["case_id"], rows["step"]) == ("one", CASE, "second")
    assert rows["nodes"][0]["label"] == "start"


def test_a_real_search_can_be_replayed_from_its_record(run: Run, replayed: str) -> None:
    engine = open_database(replayed, create=False)
    store = RunStore(engine)
    record = store.record(store.get("one").run_id, CASE, "second").record
    engine.dispose()
    rollouts, reason = rollouts_of(record)
    assert (len(rollouts), reason) == (record.rollouts, "")
    counted = statistics(record.tree["nodes"], rollouts)
    assert [n["visits"] for n in record.tree["nodes"]] == [counted[n["id"]][0] for n in record.tree["nodes"]]


def test_without_a_step_the_first_is_taken_and_the_others_are_named(run: Run, replayed: str) -> None:
    code, out, error = run("tree", "--db", replayed, "--run", "one", "--case", CASE)
    assert (code, out.strip()) == (0, f"tree-{CASE}-first.html")
    assert "second" in error


def test_no_label_of_the_record_reaches_the_tree(run: Run, replayed: str) -> None:
    for form in ("html", "svg", "mermaid", "json"):
        code, out, _ = run("tree", "--db", replayed, "--run", "one", "--case", CASE, "--format", form, "--out", "-")
        assert code == 0
        assert "CANARY" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run", "none", "--case", CASE), "no run named none"),
        (("--run", "one", "--case", "fhir-no"), "case fhir-no: not in run one"),
        (("--run", "one", "--case", CASE, "--step", "triage"), "step triage: not in run one"),
        (("--run", "one", "--case", CASE, "--occurrence", "2"), f"case {CASE}: not in run one"),
        (("--run", "one", "--case", CASE, "--format", "png"), "--format png is unknown"),
        (("--run", "one", "--case", CASE, "--commit", "1"), "no commit 1"),
        (("--run", "flat", "--case", CASE), "no search tree is stored"),
    ],
)
def test_what_is_not_there_is_a_usage_error(run: Run, replayed: str, arguments: tuple[str, ...], message: str) -> None:
    code, out, error = run("tree", "--db", replayed, *arguments)
    assert (code, out) == (2, "")
    assert message in error
    assert not list(Path().glob("tree-*"))


def test_a_folder_that_is_not_there_is_a_storage_error(run: Run, replayed: str, tmp_path: Path) -> None:
    code, _, error = run("tree", "--db", replayed, "--run", "one", "--case", CASE, "--out", tmp_path / "no" / "t.html")
    assert code == 5
    assert "cannot be written" in error
