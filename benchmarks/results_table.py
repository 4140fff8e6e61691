"""The tables of docs/results.md, made from stored runs: nothing in them is typed.

A plan (`docs/results/plan.yaml`) names sections, their databases and runs. Each section becomes a table of figures with
their intervals, one of paired differences to its reference, and the records behind them, without chart text, as JSON
lines. A section whose database is not in the folder, or lacks one of its runs, stays as it was written before
(`docs/results/tables`), and is left out where it never was. The table in README is columns of one section.

    python -m benchmarks.results_table FOLDER docs/results/plan.yaml docs/results.md README.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import Engine

from benchmarks.hospitals import hospital_table
from evaluation.compare import compare_runs
from evaluation.formatting import metric_text
from evaluation.rows import record_rows
from evaluation.scoring import score_run
from evaluation.store import existing_database
from evaluation.store.run_state import FINISHED
from evaluation.store.run_store import RunStore

FIGURES = {
    "half_credit": "half credits",
    "top_5": "top-5",
    "brier": "Brier",
    "log_score": "log score",
    "expected_calibration_error": "calibration error",
    "requests": "requests",
    "unanswerable_requests": "of them unanswered",
    "verified": "verified",
    "tokens_prefilled": "positions prefilled",
}
"""What stands beside top-1; all of it exploratory."""
BASELINES = {"majority_class": "majority class", "logistic_regression": "logistic regression, all visible facts"}
BEGIN, END = "<!-- benchmarks.results_table: begin -->", "<!-- benchmarks.results_table: end -->"
KEPT = ("case_id", "step", "occurrence", "status", "peer_agreement", "rollouts", "tokens")
Table = list[list[str]]
Section = Mapping[str, Any]


def cells(metrics: Mapping[str, Any], key: str) -> list[str]:
    """Returns top-1, at the level `key`, and the other figures with their intervals."""
    found = (metrics.get(name) for name in (key, *FIGURES))
    return [metric_text(m) if m and m.get("value") is not None else "-" for m in found]


def section_text(engine: Engine, section: Section, records: Path) -> str:
    """Returns a section's tables, and writes its records."""
    step, key, runs = section["step"], section["key"], [arm["run"] for arm in section["arms"]]
    store = RunStore(engine)
    scores = {run: score_run(engine, run, regression=True)["steps"][step] for run in runs}
    first = scores[runs[0]]
    table = [["arm", "n", "top-1", *FIGURES.values()]]
    for arm in section["arms"]:
        rows = [row for row in record_rows(store, store.get(arm["run"])) if row["step"] == step]
        write_records(records / f"{arm['run']}.jsonl", rows)
        table.append([arm["label"], str(scores[arm["run"]]["n"]), *cells(scores[arm["run"]]["metrics"], key)])
    for name, label in BASELINES.items():
        levels = first["baselines"].get(name, {}).get("levels", {})
        table.append([label, str(first["n"]), *cells(levels, key)])
    tables = [table, [*paired(engine, section), *against_baselines(scores, section)]]
    if section.get("hospitals"):
        tables.append(hospital_table(engine, section))
    head = [f"## {section['title']}", "", section.get("text", "").strip(), ""]
    return "\n".join([*head, *(line for one in tables for line in [*markdown(one), ""])])


def paired(engine: Engine, section: Section) -> Table:
    """Returns the differences between pairs of arms, with a head."""
    named = {arm["run"]: arm["label"] for arm in section["arms"]}
    table = [["paired", "n", "top-1", "patients that differ", "McNemar p", "log score"]]
    for run, reference in section["pairs"]:
        metrics = compare_runs(engine, run, reference)["steps"][section["step"]]["metrics"]
        metric = metrics[section["key"]]
        words = f"{named[run]} less {named[reference]}"
        shown, logs = (metric_text({**m, "value": m["difference"]}) for m in (metric, metrics["log_score"]))
        table.append([words, str(metric["n"]), shown, str(metric["discordant"]), f"{metric['mcnemar_p']:.3f}", logs])
    return table


def against_baselines(scores: Mapping[str, Mapping[str, Any]], section: Section) -> Table:
    """Returns the differences of the arms from the baselines, as the scorer pairs them."""
    named = {arm["run"]: arm["label"] for arm in section["arms"]}
    table = []
    for run, score in scores.items():
        for name, label in BASELINES.items():
            gain = score["metrics"].get(f"gain_over_{name}")
            if gain and gain.get("value") is not None:
                table.append([f"{named[run]} less {label}", str(gain["n"]), metric_text(gain), "-", "-", "-"])
    return table


def write_records(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes what a run answered, and how many requests it made; nothing of a chart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            ranked = [[h["code"], round(h["probability"], 4)] for h in row["ranked"][:5]]
            kept = {**{k: row.get(k) for k in KEPT}, "requests": len(row["requests"]), "ranked": ranked}
            file.write(json.dumps(kept, sort_keys=True) + "\n")


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    head, *rest = (f"| {' | '.join(row)} |" for row in table)
    return [head, f"|{'---|' * len(table[0])}", *rest]


def holds(engine: Engine, section: Section) -> bool:
    """Says whether a database has all runs of a section, each of them finished."""
    finished = {run.name for run in RunStore(engine).runs() if run.status == FINISHED}
    return finished >= {arm["run"] for arm in section["arms"]}


def made_anew(database: Path, section: Section, records: Path) -> str | None:
    """Returns a section's tables from its database; None where that is missing or lacks a run."""
    if not database.is_file():
        return None
    with existing_database(f"sqlite:///{database}") as engine:
        return section_text(engine, section, records) if holds(engine, section) else None


def write_page(folder: Path, plan_path: Path, out: Path) -> int:
    """Writes the page, its sections and the records; returns how many sections were made anew."""
    plan = yaml.safe_load(plan_path.read_text(encoding="utf-8"))
    texts, made = [], 0
    for section in plan["sections"]:
        kept = plan_path.parent / "tables" / f"{section['name']}.md"
        text = made_anew(folder / f"{section['database']}.db", section, plan_path.parent / "records")
        if text is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(text, encoding="utf-8")
            made += 1
        if kept.is_file():
            texts.append(kept.read_text(encoding="utf-8"))
    out.write_text("\n".join([plan["head"].strip(), "", *texts]).rstrip() + "\n", encoding="utf-8")
    return made


def short_table(section: str, columns: Sequence[str]) -> list[str]:
    """Returns the lines of a section's first table with these columns alone."""
    lines = section.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in takewhile(_in_table, lines[start:])]
    kept = [rows[0].index(column) for column in columns]
    return markdown([[row[i] for i in kept] for n, row in enumerate(rows) if n != 1])


def _in_table(line: str) -> bool:
    return line.startswith("|")


def fill_readme(readme: Path, plan_path: Path) -> None:
    """Writes the plan's `readme` columns of its section between the marks in a page; nothing without the section."""
    wanted = yaml.safe_load(plan_path.read_text(encoding="utf-8"))["readme"]
    kept = plan_path.parent / "tables" / f"{wanted['section']}.md"
    if not kept.is_file():
        return
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    table = short_table(kept.read_text(encoding="utf-8"), wanted["columns"])
    readme.write_text(f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Writes the page named, and its table in the readme named."""
    folder, plan, out, readme = map(Path, sys.argv[1:5])
    print(f"{out}: {write_page(folder, plan, out)} sections made anew")
    fill_readme(readme, plan)


if __name__ == "__main__":
    main()
