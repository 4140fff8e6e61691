"""`wardstar export`: training sets from stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clinical_data.errors import UsageError
from evaluation.supervision.set_limits import LEAST_MARGIN, LEAST_VISITS, MOST_CHARACTERS
from workflow.commands.common import DEFAULT_DB, AsJson, Db, database, err_console, say, show_json


def export_command(
    kind: Annotated[str, typer.Argument(help="sft, preference, stepwise, or prompts (for ttrl).")],
    run: Annotated[list[str], typer.Option("--run", help="Name of a run; may be given several times.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make; one that holds an earlier set is replaced.")],
    db: Db = DEFAULT_DB,
    split: Annotated[
        list[str],
        typer.Option("--split", help="train, which is always written; tuning: write tuning.jsonl as well."),
    ] = ["train"],  # noqa: B006
    steps: Annotated[str, typer.Option("--steps", help="Steps to take, with commas between; all when left out.")] = "",
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="Answers alone, without the turns that lead there.")
    ] = False,
    answers_from: Annotated[
        list[str],
        typer.Option("--answers-from", help="Name of a run of which answers alone are taken; may be given several times."),
    ] = [],  # noqa: B006
    balance: Annotated[
        bool, typer.Option("--balance", help="Keep no more cases of a class than the class of median size has.")
    ] = False,
    max_characters: Annotated[
        int, typer.Option("--max-characters", help="Leave out rows longer than this; 0: none.")
    ] = MOST_CHARACTERS,
    label_source: Annotated[
        str, typer.Option("--label-source", help="Of stepwise labels: record (default), peer or vote.")
    ] = "record",
    patients: Annotated[
        str, typer.Option("--patients", help="first-half or second-half (by hash) of the train patients; all.")
    ] = "all",
    role: Annotated[
        str, typer.Option("--role", help="Of sft rows those for the generator or the peer; all when left out.")
    ] = "",
    least_margin: Annotated[
        float, typer.Option("--least-margin", help="Of preference pairs of branches: smallest margin that is taught.")
    ] = LEAST_MARGIN,
    least_visits: Annotated[
        int, typer.Option("--least-visits", help="Of preference pairs of branches: rollouts that each side must have.")
    ] = LEAST_VISITS,
    as_json: AsJson = False,
) -> None:
    """Makes a training set from stored runs: cases of the train split alone, with a card that says what is in it."""
    from evaluation.supervision.training_sets import HALVES, SetOptions, export_set
    from workflow.bars import CountBar

    named = {"all": None, **{name: half for half, name in HALVES.items()}}
    if patients not in named:
        raise UsageError(f"--patients {patients} is unknown", hint=f"known: {', '.join(named)}")
    options = SetOptions(
        splits=tuple(split),
        steps=tuple(s.strip() for s in steps.split(",") if s.strip()),
        answers_only=answers_only,
        answers_from=tuple(answers_from),
        balance=balance,
        most_characters=max_characters,
        label_source=label_source,
        half=named[patients],
        role=role or None,
        least_margin=least_margin,
        least_visits=least_visits,
    )
    with database(db) as engine, CountBar(err_console(), "case-steps") as bar:
        card = export_set(engine, kind, run, out, options, watch=bar)
    if as_json:
        show_json(card)
        return
    for name, figures in card["splits"].items():
        cold = figures.get("cold_start_share")
        share = "" if cold is None else f", {cold:.0%} of case-steps cold-started"
        say(f"{name}.jsonl: {figures['rows']} rows of {figures['cases']} cases{share}")
    for reason, number in card["left_out"].items():
        say(f"left out: {number} x {reason}")
    for name, found in card["contradictions"].items():
        if found["prompts"]:
            say(f"{name}.jsonl: {found['prompts']} prompts have several answers; they are kept (card.json names cases)")
    typer.echo(str(out))
