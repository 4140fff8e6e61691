"""`wardstar replay`, `resume`, `runs`, `prompts`, `records` and `report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinical_data.errors import ModelError, UsageError
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
)

if TYPE_CHECKING:
    from workflow.executors.ray import RayCluster
    from workflow.runner import Listener, Summary

runs_app = typer.Typer(help="Lists, shows and deletes runs.", no_args_is_help=True)
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor store generations of earlier runs.")]
Workers = Annotated[int, typer.Option("--workers", help="Processes to spread the cases over.")]
Executor = Annotated[str, typer.Option("--executor", help="local (default), or ray: workers on a Ray cluster.")]
RayAddress = Annotated[
    str, typer.Option("--ray-address", help="Ray cluster that runs already; left out: one of this machine alone.")
]
GpusPerWorker = Annotated[
    float, typer.Option("--gpus-per-worker", help="GPUs of a Ray worker, also a part of one: 0.5.", min=0.0)
]
Out = Annotated[Path | None, typer.Option("--out", help="JSON lines file; left out or `-`: stdout.")]


def replay_command(
    db: Db = DEFAULT_DB,
    run: RunName = "",
    pathway: Annotated[str, typer.Option("--pathway", help="Name of a bundled pathway, or a YAML file.")] = "",
    steps: Annotated[str, typer.Option("--steps", help="Steps to take, with commas between; all when left out.")] = "",
    split: Annotated[str, typer.Option("--split", help="train, tuning or held-out; all cases when left out.")] = "",
    split_scheme: Annotated[
        str, typer.Option("--split-scheme", help="What the split was drawn by: patient (default) or hospital.")
    ] = "",
    limit: Annotated[int | None, typer.Option("--limit", help="First N cases, in order of case id.")] = None,
    cases: Annotated[
        str, typer.Option("--cases", help="File with a case id a line: these alone, of the split if one is named.")
    ] = "",
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help="rstar (default), rap, greedy, self-consistency, best-of-n, full-information, part-information.",
        ),
    ] = "",
    value: Annotated[
        str,
        typer.Option(
            "--value",
            help="self_consistency (default), rap, model:FOLDER (see train stepwise); ground_truth with --split train.",
        ),
    ] = "",
    chart_access: Annotated[
        str,
        typer.Option("--chart-access", help="hindsight (default), or prospective: imagined until a turn is committed."),
    ] = "",
    preset: Annotated[str, typer.Option("--preset", help="default, paper or paper-8; other options come on top.")] = "",
    predecessors: Annotated[
        str, typer.Option("--predecessors", help="Earlier conclusions shown to a step: none (default) or predicted.")
    ] = "",
    rollouts: Annotated[int | None, typer.Option("--rollouts", help="Rollouts of one search (16).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the run (0).")] = None,
    workers: Workers = 1,
    executor: Executor = "local",
    ray_address: RayAddress = "",
    gpus_per_worker: GpusPerWorker = 0.0,
    generator: Annotated[
        str,
        typer.Option(
            "--generator", help="Model: embedded (default), hf:ORG/NAME, a folder, scripted:FILE, random:SEED."
        ),
    ] = "",
    peer: Annotated[
        str, typer.Option("--peer", help="Model that verifies; the generator under other seeds when left out.")
    ] = "",
    no_cache: NoCache = False,
    batch_across_cases: Annotated[
        bool,
        typer.Option(
            "--batch-across-cases", help="Take several cases at once, in common batches; no record is then repeatable."
        ),
    ] = False,
    cases_at_once: Annotated[
        int | None, typer.Option("--cases-at-once", help="Cases that share batches, with --batch-across-cases (8).")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with any of these options.")] = None,
) -> None:
    """Replays cases along a pathway. The name of a run with identical options resumes it."""
    from workflow.config import ReplayOptions, read_options

    cluster = _cluster(executor, ray_address, gpus_per_worker)
    if not run:
        raise UsageError("a run needs a name", hint="give it one with --run NAME")
    values: dict[str, Any] = {"settings": {}} if config is None else read_options(config)
    given = {
        "pathway": pathway,
        "steps": tuple(s.strip() for s in steps.split(",") if s.strip()),
        "split": split,
        "split_scheme": split_scheme,
        "limit": limit,
        "cases": cases,
        "strategy": strategy,
        "value": value,
        "chart_access": chart_access.lower(),
        "preset": preset,
        "predecessors": predecessors,
        "seed": seed,
        "generator": generator,
        "peer": peer,
        "batch_across_cases": batch_across_cases or None,
        "cases_at_once": cases_at_once,
    }
    values.update({name: v for name, v in given.items() if v not in ("", None, ())})
    if rollouts is not None:
        values["settings"] = {**values["settings"], "rollouts": rollouts}
    options = ReplayOptions(**values)

    def work(listener: Listener) -> Summary:
        from workflow.runner import replay

        return replay(db, run, options, workers=workers, cluster=cluster, listener=listener, cache=not no_cache)

    watched(db, run, work)


def resume_command(
    run: RunName,
    db: Db = DEFAULT_DB,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take steps again that failed.")] = False,
    workers: Workers = 1,
    executor: Executor = "local",
    ray_address: RayAddress = "",
    gpus_per_worker: GpusPerWorker = 0.0,
    no_cache: NoCache = False,
) -> None:
    """Goes on with a run that was stopped, as it was configured."""
    cluster = _cluster(executor, ray_address, gpus_per_worker)

    def work(listener: Listener) -> Summary:
        from workflow.runner import resume

        how: dict[str, Any] = {"workers": workers, "cluster": cluster, "listener": listener, "cache": not no_cache}
        return resume(db, run, retry_failed=retry_failed, **how)

    watched(db, run, work)


def _cluster(executor: str, address: str, gpus: float) -> RayCluster | None:
    """Returns the Ray cluster that is asked for; None for this machine without Ray."""
    if executor == "ray":
        from workflow.executors.ray import RayCluster

        return RayCluster(address, gpus)
    if executor != "local":
        raise UsageError(f"--executor {executor} is unknown", hint="known: local, ray")
    if address or gpus:
        raise UsageError("--ray-address and --gpus-per-worker are for --executor ray")
    return None


def watched(db: str, run: str, work: Callable[[Listener], Summary]) -> Summary:
    """Runs `work` under a progress bar, says how to go on after Ctrl-C, and writes what was done."""
    from workflow.progress import ProgressBar

    option = "" if db == DEFAULT_DB else f" --db {_without_password(db)}"
    try:
        with ProgressBar(err_console()) as bar:
            summary = work(bar)
    except KeyboardInterrupt:
        say(f"interrupted; everything done is kept: `wardstar resume{option} --run {run}` continues")
        raise
    counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(summary.statuses.items()))
    before = f" ({summary.skipped} done before)" if summary.skipped else ""
    counts = counts or "nothing left to do"
    say(f"run {summary.run}: {summary.cases} cases{before} in {summary.seconds:.0f} s; {counts}")
    if hits := summary.work.get("cache_hits", 0):
        say(f"{hits} of {hits + summary.work['cache_misses']} requests to models were answered from the cache")
    if summary.statuses["failed"]:
        say(f"some steps failed; their records say why: `wardstar resume{option} --run {run} --retry-failed`")
        if summary.statuses["failed"] == sum(summary.statuses.values()):
            raise ModelError(f"run {summary.run}: every step that was taken failed")
    return summary


@runs_app.command("list")
def runs_list(db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Lists the runs of a database."""
    from evaluation.store.run_store import RunStore

    with database(db) as engine:
        store = RunStore(engine)
        rows = [
            {
                "run": r.name,
                "pathway": r.pathway,
                "strategy": r.config.get("strategy", ""),
                "generator": r.config.get("generator", ""),
                "status": r.status,
                "case_steps": len(store.done(r.run_id)),
                "created": r.created,
                "finished": r.finished,
            }
            for r in store.runs()
        ]
    if as_json:
        show_json(rows)
    else:
        show_rows(rows)


@runs_app.command("show")
def runs_show(name: Annotated[str, typer.Argument(help="Name of the run.")], db: Db = DEFAULT_DB) -> None:
    """Writes a run's configuration, versions and work as JSON."""
    from dataclasses import asdict

    from evaluation.store.run_store import RunStore

    with database(db) as engine:
        show_json(asdict(RunStore(engine).get(name)))


@runs_app.command("delete")
def runs_delete(
    name: Annotated[str, typer.Argument(help="Name of the run.")],
    db: Db = DEFAULT_DB,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Deletes a run with all its records."""
    from evaluation.store.run_store import RunStore

    with database(db) as engine:
        store = RunStore(engine)
        number = len(store.done(store.get(name).run_id))
        if not yes:
            typer.confirm(f"Delete run {name} with {number} records?", abort=True, err=True)
        store.delete(name)
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


def prompts_command(
    run: RunName,
    db: Db = DEFAULT_DB,
    out: Out = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Add prompt and completion token ids.")] = False,
) -> None:
    """Writes every prompt that was sent, verbatim, as JSON lines: the audit trail."""
    from evaluation.rows import prompt_rows
    from evaluation.store.run_store import RunStore

    with database(db) as engine:
        store = RunStore(engine)
        number = write_lines(prompt_rows(store, store.get(run), tokens=tokens), out)
    say(f"{number} prompts")


def records_command(run: RunName, db: Db = DEFAULT_DB, out: Out = None) -> None:
    """Writes one row per case-step as JSON lines."""
    from evaluation.rows import record_rows
    from evaluation.store.run_store import RunStore

    with database(db) as engine:
        store = RunStore(engine)
        number = write_lines(record_rows(store, store.get(run)), out)
    say(f"{number} records")


def report_command(
    run: RunName,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pages.")],
    db: Db = DEFAULT_DB,
    blind: Annotated[bool, typer.Option("--blind", help="Leave out recorded labels.")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Not available yet.")] = False,
    fhir: Annotated[bool, typer.Option("--fhir", help="Not available yet.")] = False,
) -> None:
    """Writes a report that clinicians can read and judge."""
    from evaluation.review.report import write_report

    for name, wanted in (("pdf", pdf), ("fhir", fhir)):
        if wanted:
            raise UsageError(f"--{name} is not available yet")
    with database(db) as engine:
        index = write_report(engine, run, out, blind=blind)
    typer.echo(str(index))


def _without_password(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)
