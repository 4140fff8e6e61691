"""`wardstar import`, `wardstar cases` and `wardstar pathway`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinical_data.errors import UsageError
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

    from clinical_data.case import Case, Finding
    from clinical_data.ground_truth import GroundTruth
    from workflow.importing import ImportSummary

ROW_KEYS = ("case_id", "source", "source_id", "patient_id", "split")  # of `cases --json`, before truth and absent
cases_app = typer.Typer(help="Lists and shows imported cases.", invoke_without_command=True)
pathway_app = typer.Typer(help="Lists, shows and validates pathways.", no_args_is_help=True)
Truth = Annotated[bool, typer.Option("--truth", help="Show the recorded labels as well.")]


def import_command(
    source: Annotated[str, typer.Argument(help="fhir or eicu.")],
    path: Annotated[Path, typer.Argument(help="A file or folder of that source.")],
    db: Db = DEFAULT_DB,
    condition_rank: Annotated[
        Path | None,
        typer.Option("--condition-rank", help="Ranks of FHIR Conditions; not available yet."),
    ] = None,
) -> None:
    """Imports recorded cases. Importing the same again changes nothing."""
    from rich.progress import Progress

    from workflow.importing import import_cases

    if condition_rank is not None:
        raise UsageError("--condition-rank is not available yet")
    console = err_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"reading {path.name}", total=None)
        summary = import_cases(
            db, source, path, lambda done, total: bar.update(task, completed=done, total=total or None)
        )
    show_import(summary)


def show_import(summary: ImportSummary) -> None:
    """Writes the summary of an import."""
    stored = ", ".join(f"{n:,} {what}" for what, n in sorted(summary.stored.items()))
    rows: list[tuple[str, str]] = [
        ("cases", f"{summary.cases:,} ({stored})"),
        ("patients", f"{summary.patients:,}"),
    ]
    for step in sorted(summary.labels):
        text = f"{summary.labels[step]:,} cases"
        if reasons := summary.absent.get(step):
            text += "; none for " + ", ".join(f"{n:,}: {why}" for why, n in reasons.most_common(3))
        rows.append((f"recorded label, {step.replace('_', ' ')}", text))
    rows.append(("rows or resources read", ", ".join(f"{k} {n:,}" for k, n in sorted(summary.read.items()))))
    rows += [(f"not used: {why}", f"{n:,}") for why, n in summary.unused.most_common(8)]
    rows.append(("quarantined (broken)", f"{summary.quarantined:,}"))
    for q in summary.first_quarantined:
        place = q.file if q.line is None else f"{q.file}:{q.line}"
        rows.append(("", f"{place}: {f'{q.resource}: ' if q.resource else ''}{q.reason}"))
    show_table(["import", ""], rows)


@cases_app.callback()
def cases_root(context: typer.Context, db: Db = DEFAULT_DB, as_json: AsJson = False, truth: Truth = False) -> None:
    """Lists and shows imported cases; alone it lists them."""
    if context.invoked_subcommand is None:
        cases_list(db, as_json, truth)


@cases_app.command("list")
def cases_list(db: Db = DEFAULT_DB, as_json: AsJson = False, truth: Truth = False) -> None:
    """Lists the imported cases with their split."""
    from clinical_data.store.case_store import CaseStore

    with database(db) as engine:
        store = CaseStore(engine)
        summaries = store.summaries()
        if not summaries and not as_json:
            raise UsageError("the database holds no cases", hint="`wardstar import fhir PATH` puts some in")
        if as_json:
            rows = []
            for one in summaries:
                own = {k: v for k, v in one.items() if k in ROW_KEYS}
                rows.append({**own, **truth_fields(store.truth(one["case_id"]))})
            show_json(rows)
            return
        table = []
        for one in summaries:
            row: dict[str, Any] = dict(one)
            if truth:
                row["recorded labels"] = _labels_text(store.truth(one["case_id"]))
            table.append(row)
        show_rows(table)


@cases_app.command("show")
def cases_show(
    case_id: Annotated[str, typer.Argument(help="Case id, as `wardstar cases` lists it.")],
    as_of: Annotated[
        str, typer.Option("--as-of", help="Show what was known at this time from the start: minutes, or 6h, 2d.")
    ],
    db: Db = DEFAULT_DB,
    truth: Truth = False,
    as_json: AsJson = False,
) -> None:
    """Shows a case as it was known at a time."""
    minute = minutes(as_of)
    with database(db) as engine:
        _show_case(engine, case_id, minute, truth, as_json)


def _show_case(engine: Engine, case_id: str, minute: int, truth: bool, as_json: bool) -> None:
    from clinical_data.store.case_store import CaseStore

    store = CaseStore(engine)
    case = store.get(case_id)
    known = [f for f in case.findings if f.available <= minute]
    labels = store.truth(case_id) if truth else {}
    if as_json:
        show_json(_case_fields(case, minute, known) | (truth_fields(labels) if truth else {}))
        return
    console = out_console()
    age = "age unknown" if case.age is None else f"{case.age} years"
    console.print(f"{case.case_id}: {case.patient.sex}, {age}; as known {when(minute)} from the start", markup=False)
    for name, text in sorted(case.context.items()):
        console.print(f"  {name.replace('_', ' ')}: {text}", markup=False)
    rows = [
        (
            when(f.available),
            when(f.charted),
            f.kind.value,
            f.code.display or f.code.code,
            _value(f),
            f.unit,
            _range(f),
            f.flag,
        )
        for f in known
    ]
    show_table(["known at", "charted", "kind", "what", "value", "unit", "range", "flag"], rows)
    if truth:
        console.print("recorded labels (never shown to a model):", markup=False)
        console.print(_labels_text(labels) or "none", markup=False)


def minutes(text: str) -> int:
    """Returns a time in minutes: `360`, `6h`, `2d`, `-30`.

    Raises:
        UsageError: another form.
    """
    found = re.fullmatch(r"([+-]?\d+)\s*(m|min|h|d)?", text.strip())
    if found is None:
        raise UsageError(f"--as-of {text}: no time", hint="minutes from the start of the case, or 6h, 2d")
    return int(found[1]) * {"h": 60, "d": 1440}.get(found[2] or "m", 1)


def when(minute: int) -> str:
    """Returns minutes from the start of the case as people read them: `+2:05`, `-0:30`, and beyond two days `+3 d`."""
    sign, size = "-" if minute < 0 else "+", abs(minute)
    return f"{sign}{size // 60}:{size % 60:02d}" if size < 2880 else f"{sign}{size // 1440:,} d"


def truth_fields(truths: dict[str, GroundTruth]) -> dict[str, Any]:
    """Returns recorded labels in the row format of `cases --json`: `truth` and `absent`."""
    return {
        "truth": {
            step: [
                {
                    "system": label.coding.system,
                    "code": label.coding.code,
                    "display": label.coding.display,
                    "strength": label.strength.value,
                }
                for label in truth.labels
            ]
            for step, truth in truths.items()
            if truth.labels
        },
        "absent": {step: truth.absent_reason for step, truth in truths.items() if truth.absent_reason},
    }


def _case_fields(case: Case, minute: int, known: list[Finding]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "case_id": case.case_id,
        "as_of": minute,
        "age": case.age,
        "sex": case.patient.sex,
        "context": case.context,
        "findings": [asdict(f) for f in known],
    }


def _labels_text(truths: dict[str, GroundTruth]) -> str:
    lines = []
    for step, truth in sorted(truths.items()):
        named = "; ".join(f"{x.coding.code} {x.coding.display}".strip() for x in truth.labels)
        lines.append(f"{step}: {named or f'none ({truth.absent_reason})'}")
    return "\n".join(lines)


def _value(finding: Finding) -> str:
    if finding.value is None:
        return "" if finding.result_in_source else "done, result not in source"
    return finding.value if isinstance(finding.value, str) else f"{finding.value:g}"


def _range(finding: Finding) -> str:
    if finding.low is None and finding.high is None:
        return ""
    return f"{'' if finding.low is None else f'{finding.low:g}'}-{'' if finding.high is None else f'{finding.high:g}'}"


@pathway_app.command("list")
def pathway_list() -> None:
    """Lists the bundled pathways."""
    from workflow.pathway import known_pathways, load_pathway

    found = [load_pathway(name).pathway for name in known_pathways()]
    rows = [(p.name, p.version, p.title, ", ".join(s.name for s in p.steps)) for p in found]
    show_table(["name", "version", "title", "steps"], rows)


@pathway_app.command("show")
def pathway_show(name: Annotated[str, typer.Argument(help="Name of a bundled pathway, or a YAML file.")]) -> None:
    """Writes a pathway as a Mermaid flowchart."""
    from workflow.pathway import load_pathway

    typer.echo(load_pathway(name).pathway.to_mermaid(), nl=False)


@pathway_app.command("validate")
def pathway_validate(name: Annotated[str, typer.Argument(help="Name of a bundled pathway, or a YAML file.")]) -> None:
    """Says whether a pathway is valid; names file, line and field of the first fault."""
    from workflow.config import check_names
    from workflow.pathway import load_pathway

    loaded = load_pathway(name)
    check_names(loaded.pathway)
    say(f"{name}: valid, {len(loaded.pathway.steps)} steps, sha256 {loaded.sha256[:12]}")
