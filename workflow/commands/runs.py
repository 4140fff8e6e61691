"""`wardstar replay`, `resume`, `prompts`, `records` and `report`."""

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
    plain,
    say,
    show_json,
    write_lines,
)
from workflow.commands.replay_arguments import takes_replay_options
from workflow.options import Chosen

if TYPE_CHECKING:
    from workflow.executors.ray import RayCluster
    from workflow.runner import Listener, Summary

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


@takes_replay_options
def replay_command(
    chosen: Chosen,
    db: Db = DEFAULT_DB,
    run: RunName = "",
    workers: Workers = 1,
    executor: Executor = "local",
    ray_address: RayAddress = "",
    gpus_per_worker: GpusPerWorker = 0.0,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Replays cases along a pathway. The name of a run with identical options resumes it."""
    cluster = _cluster(executor, ray_address, gpus_per_worker)
    if not run:
        raise UsageError("a run needs a name", hint="give it one with --run NAME")

    def work(listener: Listener) -> Summary:
        from workflow.runner import replay

        how: dict[str, Any] = {"workers": workers, "cluster": cluster, "listener": listener, "cache": not no_cache}
        return replay(db, run, chosen.options, **how)

    watched(db, run, work, as_json=as_json)


def resume_command(
    run: RunName,
    db: Db = DEFAULT_DB,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take steps again that failed.")] = False,
    workers: Workers = 1,
    executor: Executor = "local",
    ray_address: RayAddress = "",
    gpus_per_worker: GpusPerWorker = 0.0,
    no_cache: NoCache = False,
    as_json: AsJson = False,
    answers: Annotated[
        Path | None,
        typer.Option("--answers", help="JSON lines of clinicians' answers: case_id, step, answer (and occurrence)."),
    ] = None,
) -> None:
    """Goes on with a run that was stopped, or that waits for clinicians, as it was configured."""
    cluster = _cluster(executor, ray_address, gpus_per_worker)

    def work(listener: Listener) -> Summary:
        from workflow.runner import resume

        how: dict[str, Any] = {"workers": workers, "cluster": cluster, "listener": listener, "cache": not no_cache}
        return resume(db, run, retry_failed=retry_failed, answers=answers, **how)

    watched(db, run, work, as_json=as_json)


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


def watched(db: str, run: str, work: Callable[[Listener], Summary], *, as_json: bool = False) -> Summary:
    """Runs `work` under a progress bar, says how to go on after Ctrl-C, and writes what was done."""
    from workflow.progress import ProgressBar

    option = "" if db == DEFAULT_DB else f" --db {_without_password(db)}"
    try:
        with ProgressBar(err_console()) as bar:
            summary = work(bar)
    except KeyboardInterrupt:
        say(f"interrupted; everything done is kept: `wardstar resume{option} --run {run}` continues")
        raise
    if as_json:
        show_json(plain(summary))
    counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(summary.statuses.items()))
    before = f" ({summary.skipped} done before)" if summary.skipped else ""
    counts = counts or "nothing left to do"
    say(f"run {summary.run}: {summary.cases} cases{before} in {summary.seconds:.0f} s; {counts}")
    if hits := summary.work.get("cache_hits", 0):
        say(f"{hits} of {hits + summary.work['cache_misses']} requests to models were answered from the cache")
    if summary.waiting:
        number = "1 answer" if summary.waiting == 1 else f"{summary.waiting} answers"
        say(f"waits for {number} of clinicians: `wardstar runs show{option} {run}` lists what is asked, and")
        say(f"`wardstar resume{option} --run {run} --answers FILE.jsonl` goes on with them")
    if summary.statuses["failed"]:
        say(f"some steps failed; their records say why: `wardstar resume{option} --run {run} --retry-failed`")
        if summary.all_failed:
            raise ModelError(f"run {summary.run}: every step that was taken failed")
    return summary


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
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", help="Further run of the pathway to show beside it; may be given several times."),
    ] = None,
    language: Annotated[str, typer.Option("--language", help="Language of the fixed words: en or zh.")] = "en",
    pdf: Annotated[bool, typer.Option("--pdf", help="Write a PDF beside each page (extra `pdf`).")] = False,
    fhir: Annotated[
        bool, typer.Option("--fhir", help="A FHIR R4 Bundle per case besides, in the folder's fhir/.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Writes a report that clinicians can read and judge."""
    from evaluation.review.report import write_report
    from workflow.bars import CountBar

    with database(db) as engine, CountBar(err_console(), "done") as bar:
        index = write_report(
            engine, run, out, blind=blind, compare=compare or (), language=language, with_pdf=pdf, fhir=fhir, watch=bar
        )
    if as_json:
        show_json({"run": run, "index": str(index), "pages": sum(1 for _ in index.parent.rglob("*.html"))})
    else:
        typer.echo(str(index))


def _without_password(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)
