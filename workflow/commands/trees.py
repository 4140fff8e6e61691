"""`wardstar tree`: a stored search tree to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinical_data.errors import UsageError
from workflow.commands.common import DEFAULT_DB, Db, RunName, database, say, write_text

if TYPE_CHECKING:
    from evaluation.record import RunRecord
    from evaluation.store.run_store import RunStore

FORMATS = {"html": "html", "svg": "svg", "mermaid": "mmd", "json": "json"}
"""Format -> ending of the file."""


def tree_command(
    run: RunName,
    case: Annotated[str, typer.Option("--case", help="Case id, as `wardstar cases` lists it.")],
    db: Db = DEFAULT_DB,
    step: Annotated[str, typer.Option("--step", help="Step; the first with a tree when left out.")] = "",
    occurrence: Annotated[int, typer.Option("--occurrence", help="Which passage of a step that came again.")] = 1,
    commit: Annotated[
        int | None,
        typer.Option("--commit", help="Tree before that commit of a prospective search; the last when left out."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="html (default), svg, mermaid or json.")] = "html",
    out: Annotated[Path | None, typer.Option("--out", help="File; `-`: stdout; tree-CASE-STEP when left out.")] = None,
) -> None:
    """Writes the search tree of a case-step as a page, a drawing, a flowchart or JSON. Nothing is sent anywhere."""
    if form not in FORMATS:
        raise UsageError(f"--format {form} is unknown", hint=f"known: {', '.join(FORMATS)}")
    from evaluation.review.page_data import file_stem
    from evaluation.store.run_store import RunStore

    with database(db) as engine:
        record = _record(RunStore(engine), run, case, step, occurrence)
    text = _text(record, run, form, commit)
    target = out or Path(f"tree-{file_stem(record)}.{FORMATS[form]}")
    write_text(text, target)
    if str(target) != "-":
        typer.echo(str(target))


def _record(store: RunStore, run_name: str, case_id: str, step: str, occurrence: int) -> RunRecord:
    """Returns the record of the wanted case-step, or of the first one of the case that holds a tree.

    Raises:
        UsageError: no such run, case or step, or no tree there.
    """
    run = store.get(run_name)
    steps = sorted(s for c, s, o in store.done(run.run_id) if c == case_id and o == occurrence)
    if not steps:
        raise UsageError(f"case {case_id}: not in run {run_name}", hint="`wardstar records` lists what is")
    if step and step not in steps:
        raise UsageError(f"case {case_id}, step {step}: not in run {run_name}", hint=f"known: {', '.join(steps)}")
    found = [store.record(run.run_id, case_id, s, occurrence).record for s in ([step] if step else steps)]
    record = next((r for r in found if r.tree and r.tree.get("nodes")), None)
    if record is None:
        raise UsageError(
            f"case {case_id}, step {', '.join(r.step for r in found)}: no search tree is stored",
            hint=f"status {found[0].status}, strategy {found[0].strategy or 'none'}; only searches grow a tree",
        )
    if len(found) > 1:
        say(f"step {record.step}; name another with --step: {', '.join(s for s in steps if s != record.step)}")
    return record


def _text(record: RunRecord, run_name: str, form: str, commit: int | None) -> str:
    from evaluation.review.tree_page import render_svg, render_tree

    if form == "html":
        return render_tree(record, run_name, commit)
    from evaluation.review.tree_view import at_commit

    record = record if commit is None else at_commit(record, commit)
    if form == "svg":
        return render_svg(record)
    from evaluation.review.tree_text import mermaid, tree_json_text

    return mermaid(record) if form == "mermaid" else tree_json_text(record, run_name)
