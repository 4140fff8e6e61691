"""The tables of docs/results.md, made from kept runs: nothing in them is typed.

A plan (`docs/results/plan.yaml`) names sections, their databases and the arms of `benchmarks.proof`. Finished runs that
a database in the folder holds are kept first (`benchmarks.kept_runs`, in `records` beside the plan); the page and the
table in README are then made of kept runs alone, so that arms may have been run on several days. A run that is not what
its arm says, or not over the section's cases, is refused.

    python -m benchmarks.results_table FOLDER docs/results/plan.yaml docs/results.md README.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import proof
from benchmarks.kept_runs import KeptRun, keep, read_kept, write_kept
from clinical_data.errors import UsageError
from evaluation.baselines import MAJORITY, REGRESSION
from evaluation.compare import paired_difference
from evaluation.formatting import metric_text
from evaluation.metrics import Value, comparable, mean_metric, summarise
from evaluation.store import existing_database
from evaluation.store.run_state import FINISHED
from evaluation.store.run_store import RunStore

TOP_1, LOGS = "top-1", "log score"
FIGURES = {
    "half_credit": "half credits",
    "top_5": "top-5",
    "brier": "Brier",
    "log_score": LOGS,
    "expected_calibration_error": "calibration error",
    "failed": "failed",
    "unparseable": "unparseable",
    "requests": "requests",
    "unanswerable_requests": "of them unanswered",
    "verified": "verified",
    "tokens_prefilled": "positions prefilled",
}
"""What stands beside top-1; all of it exploratory."""
BASELINES = {MAJORITY: "majority class", REGRESSION: "logistic regression, all visible facts"}
OF_BASELINES = {MAJORITY: (TOP_1,), REGRESSION: (TOP_1, "half credits", "top-5", "Brier", LOGS, "calibration error")}
FEW_STAYS = 5  # of a hospital, in the train split
FEW_DISCORDANT = "few discordant"
SEED = 0
BEGIN, END = "<!-- benchmarks.results_table: begin -->", "<!-- benchmarks.results_table: end -->"
Table = list[list[str]]
Section = Mapping[str, Any]
Arms = dict[str, KeptRun]
"""Label -> run or baseline, in the order of the table."""


def keep_section(folder: Path, section: Section, records: Path) -> int:
    """Keeps the finished runs of a section that its database holds, and their baselines; returns how many runs."""
    database = folder / f"{section['database']}.db"
    if not database.is_file():
        return 0
    kept: list[str] = []
    with existing_database(f"sqlite:///{database}") as engine:
        finished = {run.name for run in RunStore(engine).runs() if run.status == FINISHED}
        for name in (arm["run"] for arm in section["arms"] if arm["run"] in finished):
            found = keep(engine, name, section["step"], None if kept else _level(section))
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
        UsageError: a run that is refused (`check`), or runs over different cases or with different prompts.
    """
    found: Arms = {}
    for arm in section["arms"]:
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


def _level(section: Section) -> str:
    return str(section["key"].removeprefix("accuracy_"))


def figures_table(section: Section, arms: Arms) -> Table:
    """Returns top-1, at the level of the section, and the other figures of each arm, with a head."""
    table = [["arm", "n", TOP_1, *FIGURES.values()]]
    for label, kept in arms.items():
        metrics = {k: m.to_json() for k, m in summarise(kept.steps, _level(section), SEED).items()}
        shown = OF_BASELINES.get(kept.head["name"], (TOP_1, *FIGURES.values()))
        columns = {TOP_1: metrics[section["key"]], **{text: metrics.get(name) for name, text in FIGURES.items()}}
        table.append([label, str(len(kept.steps)), *(_text(m if c in shown else None) for c, m in columns.items())])
    return table


def _text(metric: Mapping[str, Any] | None) -> str:
    return metric_text(metric) if metric else "-"


def pairs_table(section: Section, arms: Arms) -> Table:
    """Returns paired differences, with a head: those of the plan, then each arm less each baseline."""
    named = {arm["run"]: arm["label"] for arm in section["arms"]}
    pairs = [(named[one], named[other]) for one, other in section["pairs"]]
    pairs += [(arm["label"], baseline) for arm in section["arms"] for baseline in BASELINES.values()]
    table = [["paired", "n", TOP_1, "patients that differ", "McNemar p", LOGS]]
    for one, other in (pair for pair in pairs if set(pair) <= set(arms)):
        steps = list(zip(arms[one].steps, arms[other].steps, strict=True))
        values = comparable([step for pair in steps for step in pair], _level(section))
        right = paired_difference(steps, values[section["key"]], SEED)
        logs = paired_difference(steps, values["log_score"], SEED)
        if right is not None:
            few = f", {FEW_DISCORDANT}" if str(right.get("reason", "")).startswith(FEW_DISCORDANT) else ""
            words = [str(right["n"]), _gain(right) + few, str(right["discordant"]), _p(right["mcnemar_p"])]
            table.append([f"{one} less {other}", *words, _gain(logs) if logs else "-"])
    return table


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _gain(metric: Mapping[str, Any]) -> str:
    return metric_text({**metric, "value": metric["difference"]})


def hospital_table(section: Section, arms: Arms) -> Table:
    """Returns top-1 and log score by hospital, with a head.

    Splits are drawn by patient, so that a hospital has stays in several of them. Two looks at that: the stays of
    hospitals with few stays in the train split beside those of hospitals with more, and intervals by bootstrap over
    hospitals, which are wider than those over patients where stays of one hospital are alike.
    """
    first = next(iter(arms.values()))
    few = [stays < FEW_STAYS for stays in first.train_stays]
    groups = {
        f"over {len(set(first.hospitals))} hospitals": [True] * len(few),
        f"under {FEW_STAYS} train stays (n {sum(few)})": few,
        f"{FEW_STAYS} or more (n {len(few) - sum(few)})": [not one for one in few],
    }
    table = [["by hospital", *(f"{figure}, {group}" for figure in (TOP_1, LOGS) for group in groups)]]
    for label, kept in arms.items():
        values = comparable(kept.steps, _level(section))
        right, logs = values[section["key"]], values["log_score"]
        cells = [_by_hospital(kept, right, group, share=True) for group in groups.values()]
        table.append([label, *cells, *(_by_hospital(kept, logs, group, share=False) for group in groups.values())])
    return table


def _by_hospital(kept: KeptRun, value: Value, chosen: Sequence[bool], *, share: bool) -> str:
    rows = zip(kept.steps, kept.hospitals, chosen, strict=True)
    found = [(v, home) for step, home, wanted in rows if wanted and (v := value(step)) is not None]
    return metric_text(mean_metric([v for v, _ in found], [home for _, home in found], SEED, share=share).to_json())


def section_lines(section: Section, arms: Arms) -> Iterator[str]:
    """Yields the lines of a section."""
    yield from (f"## {section['title']}", "", section.get("text", "").strip(), "")
    tables = [figures_table(section, arms), pairs_table(section, arms)]
    if section.get("hospitals"):
        tables.append(hospital_table(section, arms))
    missing = [arm["label"] for arm in section["arms"] if arm["label"] not in arms]
    if missing:
        yield from (f"Not measured yet: {', '.join(missing)}.", "")
    for table in tables:
        yield from (*markdown(table), "")


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    head, *rest = (f"| {' | '.join(row)} |" for row in table)
    return [head, f"|{'---|' * len(table[0])}", *rest]


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
    head, *rows = figures_table(section, arms)
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
