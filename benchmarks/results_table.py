"""The tables of docs/results.md, made from kept runs: nothing in them is typed.

A plan (`docs/results/plan.yaml`) names sections, their databases and the arms of `benchmarks.proof`. Finished runs that
a database in the folder holds are kept first (`benchmarks.kept_runs`, in `records` beside the plan); the page and the
table in README are then made of kept runs alone, so that arms may have been run on several days. A run that is not what
its arm says, or not over the section's cases, is refused.

    python -m benchmarks.results_table FOLDER docs/results/plan.yaml docs/results.md README.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks import proof
from benchmarks.kept_runs import KeptRun, keep, read_kept, write_kept
from benchmarks.results_figures import (
    BASELINES,
    Arms,
    Section,
    answers_table,
    groups_table,
    hospital_table,
    level_of,
    markdown,
    pairs_table,
    searches_table,
)
from clinical_data.errors import UsageError
from evaluation.baselines import MAJORITY
from evaluation.store import existing_database
from evaluation.store.run_state import FINISHED
from evaluation.store.run_store import RunStore

BEGIN, END = "<!-- benchmarks.results_table: begin -->", "<!-- benchmarks.results_table: end -->"
OF_ARM = {"run", "label"}


def keep_section(folder: Path, section: Section, records: Path) -> int:
    """Keeps the finished runs of a section that its database holds, and their baselines; returns how many runs."""
    database = folder / f"{section['database']}.db"
    if not database.is_file():
        return 0
    kept: list[str] = []
    with existing_database(f"sqlite:///{database}") as engine:
        finished = {run.name for run in RunStore(engine).runs() if run.status == FINISHED}
        for name in (arm["run"] for arm in section["arms"] if arm["run"] in finished):
            found = keep(engine, name, section["step"], None if kept else level_of(section))
            check(section, name, found["run"])
            write_kept(found.pop("run"), records / f"{name}.jsonl")
            for baseline, of_baseline in found.items():
                write_kept(of_baseline, records / _baseline_file(section, baseline))
            kept.append(name)
    return len(kept)


def check(section: Section, name: str, kept: KeptRun) -> None:
    """Refuses a run that is not what a section says of it.

    Raises:
        UsageError: other cases, another split, failed case-steps, patients that its models were tuned on, or other
            models or settings than the arm's.
    """
    arm = proof.ARMS[name.removeprefix(f"{section['stage']}-")]
    head, cases = kept.head, len({step.case_id for step in kept.steps})
    said = {
        "case-steps with a label": (len(kept.steps), section["n"]),
        "cases": (cases, section["n"]),
        "split": (head["split"], section["split"]),
        "failed case-steps": (head["failed"], 0),
        "case-steps of patients taught": (head["taught"]["train"], 0),
        "strategy": (head["strategy"], arm.strategy),
        "generator": (head["generator"], _model(section, arm.model) or "embedded"),
        "peer": (head["peer"], _model(section, proof.PEER if arm.peer else "") or None),
        "seed": (head["seed"], proof.SEED),
        "dtype": (head["dtype"], proof.DTYPE),
        **{f"setting {k}": (head["settings"].get(k), v) for k, v in arm.settings.items()},
    }
    wrong = [f"{what}: {found}, not {wanted}" for what, (found, wanted) in said.items() if found != wanted]
    if wrong:
        raise UsageError(f"run {name} is not the arm of section {section['name']}: {'; '.join(wrong)}")


def _model(section: Section, name: str) -> str:
    return f"embedded:{name}" if name and section["stage"] == "bundled" else name


def arms_of(section: Section, records: Path) -> Arms:
    """Returns the kept runs of a section, and then its baselines.

    Raises:
        UsageError: an arm of the plan is none, a run is refused (`check`), or runs are over different cases or with
            different prompts.
    """
    found: dict[str, KeptRun] = {}
    for arm in section["arms"]:
        if set(arm) != OF_ARM:
            raise UsageError(f"section {section['name']}: an arm has run and label, not {', '.join(map(str, arm))}")
        path = records / f"{arm['run']}.jsonl"
        if path.is_file():
            found[arm["label"]] = read_kept(path)
            check(section, arm["run"], found[arm["label"]])
    if len({kept.head["prompts"] for kept in found.values()}) > 1:
        raise UsageError(f"the runs of section {section['name']} were not made with the same prompts")
    if found:
        for name, label in BASELINES.items():
            found[label] = read_kept(records / _baseline_file(section, name))
    cases = {label: sorted(step.case_id for step in kept.steps) for label, kept in found.items()}
    first = next(iter(cases.values()), [])
    other = [label for label, of_arm in cases.items() if of_arm != first]
    if other:
        raise UsageError(f"section {section['name']}: {', '.join(other)} answered other cases than the first arm")
    return found


def _baseline_file(section: Section, baseline: str) -> str:
    return f"{section['name']}-{baseline}.jsonl"


def section_lines(section: Section, arms: Arms) -> Iterator[str]:
    """Yields the lines of a section."""
    yield from (f"## {section['title']}", "", section.get("text", "").strip(), "")
    missing = [arm["label"] for arm in section["arms"] if arm["label"] not in arms]
    if missing:
        yield from (f"Not measured: {'; '.join(missing)}.", "")
    yield from (_whom(section, arms), "")
    tables = [answers_table(section, arms), searches_table(arms), pairs_table(section, arms)]
    if section.get("by_group"):
        tables.append(groups_table(section, arms))
    if section.get("hospitals"):
        tables.append(hospital_table(section, arms))
    for table in tables:
        if len(table) > 1:
            yield from (*markdown(table), "")


def _whom(section: Section, arms: Arms) -> str:
    """Returns over whom the figures are, in a sentence or two."""
    steps = next(iter(arms.values())).steps
    patients, classes = len({s.patient_id for s in steps}), len({s.classes.get(level_of(section)) for s in steps})
    unnamed = {label: sum(not s.parseable for s in kept.steps) for label, kept in arms.items()}
    told = [f"{number} answers of {label} named nothing" for label, number in unnamed.items() if number]
    n_train = arms[BASELINES[MAJORITY]].head["n_train"]
    return (
        f"{len(steps)} stays of {patients} patients, with {classes} different labels. No case-step failed"
        f"{', and every answer named one of those to choose from' if not told else '; ' + ', '.join(told)}."
        f" Both baselines know the labels of all {n_train} stays of the train split that have one."
    )


def page_text(plan: Mapping[str, Any], records: Path) -> str:
    """Returns the page; a section none of whose runs is kept is left out."""
    lines = [plan["head"].strip(), ""]
    for section in plan["sections"]:
        if arms := arms_of(section, records):
            lines += section_lines(section, arms)
    return "\n".join(lines).rstrip() + "\n"


def readme_text(plan: Mapping[str, Any], records: Path, readme: str) -> str:
    """Returns a page with the plan's `readme` columns of its section between the marks; as it is without the runs."""
    wanted = plan["readme"]
    section = next(s for s in plan["sections"] if s["name"] == wanted["section"])
    arms = arms_of(section, records)
    if not arms:
        return readme
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    head, *rows = answers_table(section, arms)
    kept = [head.index(column) for column in wanted["columns"]]
    lines = markdown([[row[i] for i in kept] for row in (head, *rows)])
    return f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}"


def main() -> None:
    """Keeps what the folder's databases hold, and writes the page and the table in the readme."""
    folder, plan_path, page, readme = map(Path, sys.argv[1:5])
    plan = yaml.safe_load(plan_path.read_text(encoding="utf-8"))
    records = plan_path.parent / "records"
    for section in plan["sections"]:
        print(f"{section['name']}: {keep_section(folder, section, records)} runs kept")
    page.write_text(page_text(plan, records), encoding="utf-8")
    readme.write_text(readme_text(plan, records, readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
