"""The page of results: made from kept runs, whatever became of their databases."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import proof, results_figures, results_table
from benchmarks.kept_runs import KeptRun, read_kept, write_kept
from clinical_data.demo import bundle_folder
from clinical_data.errors import BadInputError, UsageError
from evaluation.compare import compare_runs
from evaluation.formatting import metric_text
from evaluation.metrics import ScoredStep
from evaluation.scoring import score_run
from evaluation.step_runs import stored_step_run
from evaluation.store import existing_database
from workflow.config import ReplayOptions, make_config
from workflow.importing import import_cases
from workflow.runner import replay

STEP = "admission_diagnosis"
SECTION = {
    "name": "toys",
    "stage": "toy",
    "database": "toys",
    "split": "several (held-out, train, tuning)",
    "n": 32,
    "title": "Toys",
    "step": STEP,
    "key": "accuracy_ccsr",
    "hospitals": True,
    "by_group": ["second arm", "third arm"],
    "arms": [
        {"run": "toy-one", "label": "first arm"},
        {"run": "toy-two", "label": "second arm"},
        {"run": "toy-three", "label": "third arm"},
    ],
    "pairs": [["toy-two", "toy-one"], ["toy-three", "toy-one"]],
}
PLAN = {
    "head": "# Results\n\nHow.",
    "sections": [SECTION],
    "readme": {"section": "toys", "columns": ["arm", "log score"]},
}
ROOT = Path(proof.__file__).parents[1]
Row = list[str]


def rows_of(page: str) -> list[Row]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]


@pytest.fixture(scope="module")
def arms() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, seed in (("one", 1), ("two", 2), ("three", 3)):
            patch.setitem(proof.ARMS, name, proof.Arm("greedy", f"random:{seed}", settings={"max_requests": 4}))
        yield


@pytest.fixture(scope="module")
def folder(arms: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three arms were run, and are kept."""
    made = tmp_path_factory.mktemp("results")
    url = f"sqlite:///{made / 'toys.db'}"
    import_cases(url, "fhir", Path(bundle_folder()))
    for name, seed in (("one", 1), ("two", 2)):
        run = ReplayOptions(
            strategy="greedy",
            steps=(STEP,),
            generator=f"random:{seed}",
            seed=1,
            settings={"max_requests": 4},
            models={"dtype": proof.DTYPE},
        )
        replay(url, f"toy-{name}", run)
    assert results_table.keep_section(made, SECTION, made / "records") == 2
    return made


def altered(folder: Path, out: Path, run: str, **head: Any) -> Path:
    """Returns records in which the head of a run says something else."""
    shutil.copytree(folder / "records", out)
    kept = read_kept(out / f"{run}.jsonl")
    write_kept(replace(kept, head={**kept.head, **head}), out / f"{run}.jsonl")
    return out


def test_the_page_holds_each_arm_its_baselines_and_pairs(folder: Path) -> None:
    page = results_table.page_text(PLAN, folder / "records")
    rows = rows_of(page)
    firsts = [row[0] for row in rows]
    assert page.startswith("# Results")
    assert firsts[0] == "arm"
    assert {"first arm", "second arm", "majority class (class frequencies)", "second arm less first arm"} <= set(firsts)
    assert "first arm less logistic regression (all visible facts)" in firsts
    assert "Not measured: third arm." in page
    assert "32 stays of 32 patients, with " in page
    assert "third arm" not in firsts


def test_figures_are_those_of_score_and_compare(folder: Path) -> None:
    """The page is made from kept runs; `wardstar score` and `compare` read the database."""
    rows = rows_of(results_table.page_text(PLAN, folder / "records"))
    by_name: dict[str, dict[str, str]] = {}
    for head, row in with_heads(rows):
        by_name.setdefault(row[0], {}).update(zip(head, row, strict=True))
    with existing_database(f"sqlite:///{folder / 'toys.db'}") as engine:
        score = score_run(engine, "toy-two", regression=True)["steps"][STEP]
        paired = compare_runs(engine, "toy-two", "toy-one")["steps"][STEP]["metrics"]["accuracy_ccsr"]
    metrics, second = score["metrics"], by_name["second arm"]
    assert second["top-1"] == metric_text(metrics["accuracy_ccsr"])
    assert second["log score"] == metric_text(metrics["log_score"])
    assert second["in vain"] == metric_text(metrics["unanswerable_requests"])
    assert second["second model agrees"] == "-"
    for baseline, label in results_figures.BASELINES.items():
        levels = score["baselines"][baseline]["levels"]
        shown = {"accuracy_ccsr": "top-1", "top_5": "top-5", "brier": "Brier", "log_score": "log score"}
        assert {by_name[label][text] for text in shown.values()} == {metric_text(levels[name]) for name in shown}
        gain = metrics[f"gain_over_{baseline}_ccsr"]
        less = by_name[f"second arm less {label}"]
        assert less["top-1"].split(",")[0] == metric_text(gain)
    less = by_name["second arm less first arm"]
    assert less["top-1"].split(",")[0] == metric_text({**paired, "value": paired["difference"]})
    assert float(less["McNemar p"].removeprefix("< ")) == pytest.approx(paired["mcnemar_p"], abs=0.001)
    assert ("few discordant" in less["top-1"]) == (paired["discordant"] < 10)
    assert less["right in one alone"] == f"{paired['only_a']} / {paired['only_b']}"


def with_heads(rows: list[Row]) -> Iterator[tuple[Row, Row]]:
    """Yields each row of the first three tables beside the head of its table."""
    head: Row = []
    for row in rows:
        if row[0] in ("arm", "paired"):
            head = row
        elif row[0] == "recorded":
            return
        elif not row[0].startswith("---"):
            yield head, row


def test_records_hold_nothing_of_a_chart(folder: Path) -> None:
    head, *rows = [json.loads(line) for line in (folder / "records" / "toy-one.jsonl").read_text().splitlines()]
    assert len(rows) == 32
    kept = {f.name for f in fields(ScoredStep)} | {"hospital", "hospital_train_stays", "ranked"}
    assert all(set(row) <= kept for row in rows)
    assert all(isinstance(row["requests"], int) for row in rows)
    assert head["strategy"] == "greedy"


def test_what_is_kept_is_read_again(folder: Path) -> None:
    kept = read_kept(folder / "records" / "toy-one.jsonl")
    with existing_database(f"sqlite:///{folder / 'toys.db'}") as engine:
        steps = stored_step_run(engine, "toy-one", STEP)[1].labelled
    stored = {step.case_id: step for step in steps}
    assert len(kept.steps) == 32
    for step in kept.steps:
        assert step.match == stored[step.case_id].match
        assert step.log_score == pytest.approx(stored[step.case_id].log_score, abs=1e-6)
        assert step.tokens == stored[step.case_id].tokens


def test_a_page_needs_no_database(folder: Path, tmp_path: Path) -> None:
    assert results_table.keep_section(tmp_path, SECTION, tmp_path / "records") == 0
    shutil.copytree(folder / "records", tmp_path / "records")
    assert results_table.page_text(PLAN, tmp_path / "records") == results_table.page_text(PLAN, folder / "records")


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ({"split": "train"}, "split: train"),
        ({"failed": 3}, "failed case-steps: 3"),
        ({"taught": {"train": 2, "tuning": 0}}, "patients taught: 2"),
        ({"generator": "random:9"}, "generator: random:9"),
        ({"strategy": "rstar"}, "strategy: rstar"),
        ({"settings": {"max_requests": 20}}, "setting max_requests: 20"),
        ({"seed": 2}, "seed: 2"),
        ({"prompts": "0"}, "same prompts"),
    ],
)
def test_a_run_that_is_not_its_arm_is_refused(folder: Path, tmp_path: Path, head: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        results_table.page_text(PLAN, altered(folder, tmp_path / "records", "toy-two", **head))


def test_arms_over_other_cases_are_refused(folder: Path, tmp_path: Path) -> None:
    records = altered(folder, tmp_path / "records", "toy-two")
    kept = read_kept(records / "toy-two.jsonl")
    moved = [*kept.steps[:-1], replace(kept.steps[-1], case_id="fhir-other")]
    write_kept(replace(kept, steps=moved), records / "toy-two.jsonl")
    with pytest.raises(UsageError, match="second arm answered other cases"):
        results_table.page_text(PLAN, records)


def test_a_file_that_is_no_kept_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy-one.jsonl").write_text('{"name": "toy-one"}\n{"case_id": "c"}\n')
    with pytest.raises(BadInputError, match="toy-one"):
        results_table.page_text(PLAN, tmp_path)


def toy_steps(*rows: tuple[str, int, float, int]) -> list[ScoredStep]:
    common = {"step": STEP, "occurrence": 1, "source": "toy", "status": "verified", "labelled": True}
    return [
        ScoredStep(
            case_id=i, patient_id=i, match={"ccsr": right}, right=right, log_score=score, rank=rank,
            classes={"ccsr": i[0]}, must_not_miss=(right, 1.0) if i[0] == "a" else None, **common,
        )
        for i, right, score, rank in rows
    ]  # fmt: skip


def toy_arms() -> dict[str, KeptRun]:
    """Three stays; the first two in one hospital, with the label a."""
    firsts = [[["a", 0.5]], [["a", 0.5]], [["a", 0.5]]]
    arm = toy_steps(("a1", 1, -1.0, 1), ("a2", 1, -2.0, 1), ("b", 0, -6.0, 7))
    other = toy_steps(("a1", 1, -1.5, 1), ("a2", 0, -2.5, 2), ("b", 1, -1.0, 1))
    homes, stays = ["A", "A", "B"], [7, 7, 0]
    regression = KeptRun({"name": "logistic_regression"}, other, homes, stays, firsts)
    return {
        "arm": KeptRun({"name": "one"}, arm, homes, stays, firsts),
        results_figures.BASELINES["logistic_regression"]: regression,
    }


def test_hospitals_are_told_apart_by_their_train_stays() -> None:
    """Worked out by hand: two stays of a known hospital; one of a hospital that nobody learned from."""
    head, row, last = results_figures.hospital_table(SECTION, toy_arms())
    assert head[1:3] == ["top-1, under 5 (n 1)", "top-1, 5 or more (n 2)"]
    assert [cell.split()[0] for cell in row[1:]] == ["0.00", "1.00", "-5.00", "0.50"]
    assert last[3:] == ["-", "-"]


def test_right_answers_are_told_by_label() -> None:
    regression = results_figures.BASELINES["logistic_regression"]
    _, *rows = results_figures.groups_table({**SECTION, "by_group": ["arm", regression]}, toy_arms())
    assert rows == [
        ["a", "2", "2, 2", "1, 2"],
        ["b", "1", "0, 0", "1, 1"],
        ["*must not be missed*", "2", "2, 2", "1, 2"],
    ]


def test_one_answer_to_everything_is_told() -> None:
    """An arm that says the same of all stays is no better than its commonest class, whatever its top-1."""
    _, row, _ = results_figures.answers_table({**SECTION, "key": "accuracy_ccsr"}, toy_arms())
    assert row[-1] == "a: 3, 2 right"


def test_arms_that_are_right_in_the_same_stays_have_no_interval() -> None:
    arms = toy_arms()
    section = {
        **SECTION,
        "arms": [{"run": "one", "label": "arm"}, {"run": "two", "label": "twin"}],
        "pairs": [["one", "two"]],
    }
    table = results_figures.pairs_table(section, {**arms, "twin": arms["arm"]})
    assert table[1][:4] == ["arm less twin", "0, right in the same stays", "0 / 0", "-"]


def test_an_arm_of_the_plan_with_a_comma_in_its_label_is_refused(tmp_path: Path) -> None:
    arm = yaml.safe_load("{run: toy-one, label: first, arm}")
    with pytest.raises(UsageError, match="section toys"):
        results_table.arms_of({**SECTION, "arms": [arm]}, tmp_path)


def test_the_readme_has_columns_of_a_section(folder: Path) -> None:
    readme = f"Before.\n{results_table.BEGIN}\nold\n{results_table.END}\nAfter.\n"
    for _ in range(2):
        readme = results_table.readme_text(PLAN, folder / "records", readme)
    lines = readme.splitlines()
    assert lines[0] == "Before."
    assert lines[2] == "| arm | log score |"
    assert [line.split(" | ")[0] for line in lines[4:6]] == ["| first arm", "| second arm"]
    assert lines[-1] == "After."
    assert "old" not in lines


def test_the_pages_say_what_the_records_say() -> None:
    """Nobody typed a figure: both pages are what the script makes of the records that are kept."""
    docs = ROOT / "docs"
    plan = yaml.safe_load((docs / "results" / "plan.yaml").read_text())
    readme = (ROOT / "README.md").read_text()
    assert results_table.page_text(plan, docs / "results" / "records") == (docs / "results.md").read_text()
    assert results_table.readme_text(plan, docs / "results" / "records", readme) == readme


def test_a_stopped_training_is_not_taken_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: Any, **__: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(proof, "replay", begun)
    lesson = proof.Lesson("one", "", proof.TUNING, (proof.FULL,))
    card = tmp_path / "models" / "one" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"status": "stopped: the loss was no number"}))
    with pytest.raises(InterruptedError):
        proof.teach_one(tmp_path, "sqlite://", lesson)
    card.write_text(json.dumps({"status": "complete"}))
    proof.teach_one(tmp_path, "sqlite://", lesson)


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
        assert stage == section["stage"]
        assert {run.removeprefix(f"{stage}-") for run in runs} <= set(proof.ARMS)
        assert {run for pair in section["pairs"] for run in pair} <= runs
