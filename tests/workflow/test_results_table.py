"""The page of results: made from stored runs, and kept where their database is gone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks import hospitals, proof, results_table
from benchmarks.hospitals import hospital_table, labelled
from clinical_data.demo import bundle_folder
from evaluation.metrics import ScoredStep
from evaluation.scoring import score_run
from evaluation.store import existing_database
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
            "hospitals": True,
            "arms": [{"run": "one", "label": "first arm"}, {"run": "two", "label": "second arm"}],
            "pairs": [["two", "one"]],
        }
    ],
    "readme": {"section": "toys", "columns": ["arm", "log score"]},
}
ROOT = Path(proof.__file__).parents[1]


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


def test_figures_by_hospital_are_of_the_same_stays(folder: Path) -> None:
    with existing_database(f"sqlite:///{folder / 'toys.db'}") as engine:
        head, *rows = hospital_table(engine, PLAN["sections"][0])
        score = score_run(engine, "two", regression=False)["steps"][STEP]["metrics"]
        stays = labelled(engine, "two", STEP)
    assert [row[0] for row in rows] == ["first arm", "second arm"]
    few, more = (int(head[i].split("(n ")[1].strip(")")) for i in (2, 3))
    assert few + more == len(stays) == 32
    second = dict(zip(head, rows[1], strict=True))
    assert second[head[1]].split()[0] == f"{score['accuracy_ccsr']['value']:.2f}"
    assert second[head[4]].split()[0] == f"{score['log_score']['value']:.2f}"


def test_hospitals_are_told_apart_by_their_train_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked out by hand: two stays of a known hospital, both right; one of a hospital that nobody learned from."""
    homes = {"t1": "A", "t2": "A", "a": "A", "b": "A", "c": "B"}
    common = {"step": STEP, "occurrence": 1, "source": "toy", "status": "concluded", "labelled": True}
    steps = [
        ScoredStep(case_id=i, patient_id=i, match={"group": right}, log_score=score, **common)
        for i, right, score in (("a", 1, -1.0), ("b", 1, -2.0), ("c", 0, -6.0))
    ]
    monkeypatch.setattr(hospitals, "FEW", 2)
    monkeypatch.setattr(hospitals, "hospitals_of", lambda engine: homes)
    monkeypatch.setattr(hospitals, "labelled", lambda engine, run, step: steps)
    monkeypatch.setattr(hospitals.CaseReader, "case_ids", lambda self, split: ["t1", "t2"])
    section = {"step": STEP, "key": "accuracy_group", "arms": [{"run": "one", "label": "arm"}]}
    with existing_database(f"sqlite:///{folder / 'toys.db'}") as engine:
        head, row = hospital_table(engine, section)
    assert head[1:4] == ["top-1, over 2 hospitals", "top-1, under 2 train stays (n 1)", "top-1, 2 or more (n 2)"]
    assert [cell.split()[0] for cell in row[1:]] == ["0.67", "0.00", "1.00", "-3.00", "-6.00", "-1.50"]


def test_the_readme_has_columns_of_a_section(folder: Path, tmp_path: Path) -> None:
    results_table.write_page(folder, folder / "plan.yaml", folder / "page.md")
    readme = tmp_path / "README.md"
    readme.write_text(f"Before.\n{results_table.BEGIN}\nold\n{results_table.END}\nAfter.\n")
    for _ in range(2):
        results_table.fill_readme(readme, folder / "plan.yaml")
    lines = readme.read_text().splitlines()
    assert lines[0] == "Before."
    assert lines[2] == "| arm | log score |"
    assert [line.split(" | ")[0] for line in lines[4:6]] == ["| first arm", "| second arm"]
    assert lines[-1] == "After."
    assert "old" not in lines


def test_the_readme_shows_what_the_results_say(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text((ROOT / "README.md").read_text())
    results_table.fill_readme(copy, ROOT / "docs" / "results" / "plan.yaml")
    assert copy.read_text() == (ROOT / "README.md").read_text()


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
    plan = yaml.safe_load((ROOT / "docs" / "results" / "plan.yaml").read_text())
    for section in plan["sections"]:
        runs = {arm["run"] for arm in section["arms"]}
        stage = next(s for s in ("held-out", "tuning", "bundled", "control") if all(r.startswith(s) for r in runs))
        assert {run.removeprefix(f"{stage}-") for run in runs} <= {*proof.ARMS, proof.CONTROL}
        assert {run for pair in section["pairs"] for run in pair} <= runs
