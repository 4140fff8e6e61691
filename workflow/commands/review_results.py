"""`wardstar review agreement` and `wardstar review export`: what finished readings say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflow.commands.common import (
    DEFAULT_DB,
    AsJson,
    Db,
    RunName,
    database,
    err_console,
    say,
    show_json,
    show_rows,
    write_lines,
    write_text,
)
from workflow.commands.comparing import Seed


def agreement_command(run: RunName, db: Db = DEFAULT_DB, seed: Seed = 0, as_json: AsJson = False) -> None:
    """Says how far readers agree with each other, and what seeing the model's answer did to their own."""
    from evaluation.reading.agreement import agreement_of
    from evaluation.reading.agreement_words import agreement_remarks, agreement_rows, bias_rows
    from evaluation.reading.store import reviews_of
    from evaluation.store.run_store import RunStore
    from workflow.bars import CountBar

    with database(db) as engine, CountBar(err_console(), "groups of case-steps") as bar:
        reviews = reviews_of(engine, RunStore(engine).get(run).run_id)
        result = agreement_of(engine, run, reviews, seed=seed, watch=bar)
    if as_json:
        show_json(result)
        return
    if rows := agreement_rows(result):
        show_rows(rows, title=f"run {run}: agreement of readers, with 95 % intervals")
    if result["readers"]:
        show_rows(bias_rows(result), title="own answers, and what the model's did to them")
        show_rows(result["readers"], title="readers")
    for remark in agreement_remarks(result):
        say(remark)


def export_readings_command(
    run: RunName,
    out: Annotated[Path, typer.Option("--out", help="File to write, .jsonl or .csv; an earlier export is replaced.")],
    db: Db = DEFAULT_DB,
) -> None:
    """Writes every finished reading of a run, one row each, to a file that only its owner can read."""
    from evaluation.reading.export import CSV, check_place, csv_text, reading_row
    from evaluation.reading.store import reviews_of
    from evaluation.store.run_store import RunStore

    check_place(out)
    with database(db) as engine:
        reviews = reviews_of(engine, RunStore(engine).get(run).run_id)
    if out.suffix == CSV:
        write_text(csv_text(reviews), out)
    else:
        write_lines(map(reading_row, reviews), out)
    say(f"{len(reviews)} readings")
    typer.echo(str(out))
