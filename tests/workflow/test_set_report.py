"""A step that asks for a set, from the pathway file to what a person reads: records, report and tree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run

CASE = "fhir-e000"


@pytest.fixture
def replayed(run: Run, fill: Callable[..., str], pathway_file: Path) -> str:
    """A database with a run whose first step asks for a set of at most three, all votes drawn."""
    text = pathway_file.read_text().replace("form: closed", "form: set\n      most: 3", 1)
    pathway_file.write_text(text + "    search: {vote: drawn}\n")
    url = fill(2)
    common = ("--db", url, "--pathway", pathway_file, "--generator", "random:7", "--rollouts", "4")
    assert run("replay", *common, "--run", "sets")[0] == 0
    return url


def test_records_say_which_items_were_chosen_and_how_many_draws_were_read(run: Run, replayed: str) -> None:
    _, out, _ = run("records", "--db", replayed, "--run", "sets")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert row["chosen"] == [a["code"] for a in row["ranked"][: len(row["chosen"])]]
        assert bool(row["chosen"]) == (row["step"] == "first")
        assert row["draws"] > 0
        assert row["unparseable"] == 0


def test_the_report_shows_the_set_beside_the_recorded_one_and_holds_the_tree(
    run: Run, replayed: str, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    assert run("report", "--db", replayed, "--run", "sets", "--out", out)[0] == 0
    page = (out / "cases" / f"{CASE}.html").read_text(encoding="utf-8")
    first, _, second = page.partition('<article class="step" id="second"')
    before, _, fold = first.partition('<details class="fold">')
    assert "Recorded label" in before
    assert "in common: " in fold
    assert "CANARY" in fold
    assert "CANARY" not in before
    assert "draws named an answer" in second.replace("\u00a0", " ")
    assert 'id="first-turn-0"' in first
    assert not (out / "trees").exists()
    index = (out / "index.html").read_text(encoding="utf-8")
    assert "Figures that compare one first answer say nothing of a set" in index
    assert "items in common" in index.replace("\u00a0", " ")


def test_a_report_in_chinese_and_an_unknown_language(run: Run, replayed: str, tmp_path: Path) -> None:
    out = tmp_path / "report"
    common = ("report", "--db", replayed, "--run", "sets", "--out", out)
    code, _, err = run(*common, "--language", "xx")
    assert code == 2
    assert "known: en, zh" in err
    assert not list(out.rglob("*.html"))
    assert run(*common, "--language", "zh")[0] == 0
    page = (out / "cases" / f"{CASE}.html").read_text(encoding="utf-8")
    assert '<html lang="zh">' in page
    assert "模型的答案" in page
