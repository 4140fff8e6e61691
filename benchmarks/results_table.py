"""The tables of docs/results.md, made from stored runs: nothing in them is typed.

A plan (`docs/results/plan.yaml`) names sections and their runs. Each section becomes a table of figures with their
intervals, one of paired differences to its reference, and the records behind them, without chart text, as JSON lines.

    python -m benchmarks.results_table sqlite:///eicu.db docs/results/plan.yaml docs/results.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from evaluation.compare import compare_runs
from evaluation.formatting import metric_text
from evaluation.rows import record_rows
from evaluation.scoring import score_run
from evaluation.store import existing_database
from evaluation.store.run_store import RunStore

FIGURES = {
    "top_5": "top-5",
    "brier": "Brier",
    "requests": "requests",
    "unanswerable_requests": "of them unanswered",
    "tokens_prefilled": "positions prefilled",
    "tokens_sampled": "sampled",
}
"""What stands beside top-1, which is named by the level of the step's answer key."""
BASELINES = {"majority_class": "majority class", "logistic_regression": "logistic regression, all visible facts"}
KEPT = ("case_id", "step", "occurrence", "status", "peer_agreement", "rollouts", "tokens")


def cells(metrics, key):
    """Returns top-1 and the other figures with their intervals."""
    found = (metrics.get(name) for name in (key, *FIGURES))
    return [metric_text(m) if m and m.get("value") is not None else "-" for m in found]


def section_text(engine, plan, section, folder):
    """Returns a section's tables, and writes its records."""
    step, store, runs = plan["step"], RunStore(engine), [arm["run"] for arm in section["arms"]]
    scores = [score_run(engine, run, regression=run == runs[0])["steps"][step] for run in runs]
    first = scores[0]
    key = next(name for name in first["metrics"] if name.startswith("accuracy_"))
    table = [["arm", "n", "top-1", *FIGURES.values()]]
    for arm, score in zip(section["arms"], scores, strict=True):
        rows = [row for row in record_rows(store, store.get(arm["run"])) if row["step"] == step]
        write_records(folder / f"{arm['run']}.jsonl", rows)
        table.append([arm["label"], str(score["n"]), *cells(score["metrics"], key)])
    for name, label in BASELINES.items():
        levels = first["baselines"].get(name, {}).get("levels", {})
        table.append([label, str(first["n"]), *cells(levels, key)])
    head = [f"## {section['title']}", "", section.get("text", "").strip(), ""]
    return "\n".join([*head, *markdown(table), "", *paired(engine, step, key, section), ""])


def paired(engine, step, key, section):
    """Returns the table of differences to the section's reference."""
    reference = section["reference"]
    named = {arm["run"]: arm["label"] for arm in section["arms"]}
    table = [[f"top-1 against {named[reference]}", "n", "difference", "patients that differ", "McNemar p"]]
    for run, label in named.items():
        if run == reference:
            continue
        metric = compare_runs(engine, run, reference)["steps"][step]["metrics"][key]
        shown = metric_text({**metric, "value": metric["difference"]})
        table.append([label, str(metric["n"]), shown, str(metric["discordant"]), f"{metric['mcnemar_p']:.3f}"])
    return markdown(table) if len(table) > 1 else []


def write_records(path, rows):
    """Writes what a run answered, and how many requests it made; nothing of a chart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            ranked = [[h["code"], round(h["probability"], 4)] for h in row["ranked"][:5]]
            kept = {**{k: row.get(k) for k in KEPT}, "requests": len(row["requests"]), "ranked": ranked}
            file.write(json.dumps(kept, sort_keys=True) + "\n")


def markdown(table):
    """Returns the lines of a table."""
    head, *rest = (f"| {' | '.join(row)} |" for row in table)
    return [head, f"|{'---|' * len(table[0])}", *rest]


def main():
    """Writes the page and the records."""
    url, plan_path, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    plan = yaml.safe_load(plan_path.read_text(encoding="utf-8"))
    with existing_database(url) as engine:
        sections = [section_text(engine, plan, section, plan_path.parent) for section in plan["sections"]]
    out.write_text("\n".join([plan["head"].strip(), "", *sections]).rstrip() + "\n", encoding="utf-8")
    print(f"{out}: {len(sections)} sections")


if __name__ == "__main__":
    main()
