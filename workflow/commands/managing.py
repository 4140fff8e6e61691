"""`wardstar runs`: lists, shows, deletes runs, and prunes stored generations."""

from __future__ import annotations

from typing import Annotated

import typer

from workflow.commands.common import DEFAULT_DB, AsJson, Db, database, say, show_json, show_rows

runs_app = typer.Typer(help="Lists, shows and deletes runs.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the run.")]


@runs_app.command("list")
def runs_list(db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Lists the runs of a database: whether they are running, stopped, finished or failed, and how far they are."""
    from evaluation.store.run_state import run_states

    with database(db) as engine:
        states = run_states(engine)
    if as_json:
        about = [(s, s.run) for s in states]
        show_json(
            [
                {
                    "run": r.name,
                    "pathway": r.pathway,
                    "strategy": r.config.get("strategy", ""),
                    "generator": r.config.get("generator", ""),
                    "status": r.status,
                    "created": r.created,
                    "finished": r.finished,
                    "config_hash": r.config_hash,
                    **s.to_json(),
                }
                for s, r in about
            ]
        )
        return
    show_rows(
        [
            {
                "run": s.run.name,
                "state": s.state,
                "cases": f"{s.done:,} of {s.cases:,}",
                "case-steps": f"{s.case_steps:,}",
                "failed": f"{s.failed_steps:,}",
                "seconds": f"{s.seconds:,.0f}",
                "tokens": f"{s.prefilled + s.sampled:,}",
                "pathway": s.run.pathway,
                "strategy": s.run.config.get("strategy", ""),
                "generator": s.run.config.get("generator", ""),
                "created": s.run.created[:16].replace("T", " "),
                "last record": s.last[:16].replace("T", " "),
            }
            for s in states
        ]
    )


@runs_app.command("show")
def runs_show(name: Name, db: Db = DEFAULT_DB) -> None:
    """Writes how far a run is, its configuration, versions and work as JSON, and what in it waits for a clinician."""
    from dataclasses import asdict

    from evaluation.store.run_state import run_states
    from evaluation.store.run_store import RunStore
    from workflow.reviewing import waiting_rows

    with database(db) as engine:
        store = RunStore(engine)
        run = store.get(name)
        (state,) = run_states(engine, [run])
        show_json({**asdict(run), **state.to_json(), "waiting": waiting_rows(store, run)})


@runs_app.command("delete")
def runs_delete(
    name: Name,
    db: Db = DEFAULT_DB,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    with_readings: Annotated[
        bool, typer.Option("--with-readings", help="Also where clinicians have finished readings of it.")
    ] = False,
) -> None:
    """Deletes a run with all its records, and nothing else.

    A run with finished readings by clinicians is kept unless --with-readings is given. The log of readings cannot be
    shortened: what it says of the run stays, and counts for no later run of that name.
    """
    from evaluation.reading.store import part_with
    from evaluation.store.run_store import RunStore

    with database(db) as engine:
        store = RunStore(engine)
        number = len(store.done(store.get(name).run_id))
        if not yes:
            typer.confirm(f"Delete run {name} with {number} records?", abort=True, err=True)
        store.delete(name, lambda connection: part_with(connection, name, readings_too=with_readings))
    say(f"run {name} deleted; its generations stay for other runs until `wardstar runs prune`")


@runs_app.command("prune")
def runs_prune(
    db: Db = DEFAULT_DB,
    days: Annotated[int, typer.Option("--days", min=0, help="Those not used for so many days; 0: all.")] = 90,
) -> None:
    """Removes stored generations that no run has used lately. No record changes; another replay may cost time."""
    from evaluation.store.generations import GenerationStore

    with database(db) as engine:
        number = GenerationStore(engine).prune(days)
    say(f"{number} generations removed")
