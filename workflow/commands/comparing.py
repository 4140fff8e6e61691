"""`wardstar score` and `wardstar compare`: figures of stored runs; no model runs."""

from __future__ import annotations

from typing import Annotated

import typer

from workflow.commands.common import DEFAULT_DB, AsJson, Db, RunName, database, err_console, say, show_json, show_rows

Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap intervals.")]


def score_command(
    run: RunName,
    db: Db = DEFAULT_DB,
    full_information: Annotated[
        str, typer.Option("--full-information", help="Run of that strategy to compare with; RUN-full-information.")
    ] = "",
    seed: Seed = 0,
    no_regression: Annotated[
        bool, typer.Option("--no-regression", help="Leave out that baseline, which reads all train cases.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Scores the stored records of a run again, beside its baselines; runs no model."""
    from evaluation.scoring import result_remarks, result_table, score_run
    from workflow.bars import CountBar

    with database(db) as engine, CountBar(err_console(), "done") as bar:
        score = score_run(
            engine, run, baseline_run=full_information or None, seed=seed, regression=not no_regression, watch=bar
        )
    if as_json:
        show_json(score)
    else:
        show_rows(result_table(score), title=f"run {run}")
        for remark in result_remarks(score):
            say(remark)
    for note in score.get("notes", ()):
        say(f"note: {note}")


def compare_command(
    run_a: Annotated[str, typer.Argument(help="Name of a run.", metavar="RUN_A")],
    run_b: Annotated[str, typer.Argument(help="Name of another run over the same cases.", metavar="RUN_B")],
    db: Db = DEFAULT_DB,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compares two runs case by case: differences (first minus second) with intervals clustered by patient."""
    from evaluation.compare import compare_runs, comparison_table

    with database(db) as engine:
        result = compare_runs(engine, run_a, run_b, seed=seed)
    if as_json:
        show_json(result)
        for note in result["notes"]:
            say(f"note: {note}")
        return
    rows = comparison_table(result)
    for step in dict.fromkeys(
        row["step"] for row in rows
    ):  # a table each: a column of steps leaves no room for figures
        own = [{key: cell for key, cell in row.items() if key != "step"} for row in rows if row["step"] == step]
        show_rows(own, title=f"{step}: run {run_a} against run {run_b}")
    if not rows:
        say("no figure that both runs have")
    for option, (ours, theirs) in result["differs"].items():
        say(f"differs: {option}: {_option_text(option, ours)} / {_option_text(option, theirs)}")
    for note in result["notes"]:
        say(f"note: {note}")


def _option_text(option: str, value: object) -> str:
    """Returns the value of an option in words; without one, a run takes all splits."""
    if value is None:
        return "all" if option == "split" else "none"
    return str(value)
