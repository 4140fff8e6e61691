"""The page of results: made from stored runs, and kept where their database is gone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks import proof, results_table
from clinical_data.demo import bundle_folder
from workflow.config import ReplayOptions, make_config
from workflow.importing import import_cases
from workflow.runner import replay

STEP = "admission_diagnosis"
PLAN = {
    "head": "# Results\n\nHow.",
    "sections": [
        {
            "name": "toys",
            "database": "toys",
            "title": "Toys",
            "step": STEP,
            "key": "accuracy_ccsr",
            "arms": [{"run": "one", "label": "first arm"}, {"run": "two", "label": "second arm"}],
            "pairs": [["two", "one"]],
        }
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    url = f"sqlite:///{made / 'toys.db'}"
    import_cases(url, "fhir", Path(bundle_folder()))
    for run, seed in (("one", 1), ("two", 2)):
        replay(url, run, ReplayOptions(strategy="greedy", steps=(STEP,), generator=f"random:{seed}", seed=seed))
    (made / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    return made


def test_the_page_holds_each_arm_its_baselines_and_pairs(folder: Path) -> None:
    assert results_table.write_page(folder, folder / "plan.yaml", folder / "page.md") == 1
    page = (folder / "page.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    firsts = [row[0] for row in rows]
    assert page.startswith("# Results")
    assert firsts[0] == "arm"
    assert {"first arm", "second arm", "majority class", "second arm less first arm"} <= set(firsts)
    assert "first arm less logistic regression, all visible facts" in firsts
    row = dict(zip(rows[0], rows[firsts.index("second arm")], strict=True))
    assert int(row["n"]) == 32
    low, high = row["top-1"].split("(")[1].strip(")").split(" to ")
    assert 0.0 <= float(low) <= float(row["top-1"].split()[0]) <= float(high) <= 1.0


def test_records_hold_nothing_of_a_chart(folder: Path) -> None:
    results_table.write_page(folder, folder / "plan.yaml", folder / "page.md")
    rows = [json.loads(line) for line in (folder / "records" / "one.jsonl").read_text().splitlines()]
    assert len(rows) == 32
    assert set(rows[0]) == {*results_table.KEPT, "requests", "ranked"}
    assert all(isinstance(row["requests"], int) for row in rows)


def test_a_section_outlives_its_database(folder: Path, tmp_path: Path) -> None:
    results_table.write_page(folder, folder / "plan.yaml", folder / "page.md")
    assert results_table.write_page(tmp_path, folder / "plan.yaml", folder / "again.md") == 0
    assert (folder / "again.md").read_text() == (folder / "page.md").read_text()


def test_a_section_of_a_run_that_is_missing_stays_or_is_left_out(folder: Path, tmp_path: Path) -> None:
    section = {**PLAN["sections"][0], "name": "more", "arms": [{"run": "three", "label": "third arm"}], "pairs": []}
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({**PLAN, "sections": [*PLAN["sections"], section]}))
    assert results_table.write_page(folder, plan, tmp_path / "page.md") == 1
    assert "third arm" not in (tmp_path / "page.md").read_text()
    (tmp_path / "tables" / "more.md").write_text("## As it was")
    assert results_table.write_page(folder, plan, tmp_path / "page.md") == 1
    assert "## As it was" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("stage", ["tuning", "held-out", "bundled"])
@pytest.mark.parametrize("name", list(proof.ARMS))
def test_every_arm_of_the_proof_is_a_configuration(stage: str, name: str, tmp_path: Path) -> None:
    options = proof.ground(tmp_path, stage).options(proof.ARMS[name])
    arm = proof.ARMS[name]
    assert make_config(replace(options, cases=None))  # the list of stays is made by `teach`
    assert (options.generator == "embedded") == (not arm.model)
    assert (options.peer is not None) == arm.peer
    assert options.cases == (None if stage == "bundled" else str(tmp_path / "cohort" / f"{stage}.txt"))


def test_the_plan_names_runs_that_the_proof_makes() -> None:
    plan = yaml.safe_load((Path(proof.__file__).parents[1] / "docs" / "results" / "plan.yaml").read_text())
    for section in plan["sections"]:
        runs = {arm["run"] for arm in section["arms"]}
        stage = next(s for s in ("held-out", "tuning", "bundled", "control") if all(r.startswith(s) for r in runs))
        assert {run.removeprefix(f"{stage}-") for run in runs} <= {*proof.ARMS, proof.CONTROL}
        assert {run for pair in section["pairs"] for run in pair} <= runs
