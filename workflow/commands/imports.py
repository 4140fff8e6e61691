"""`wardstar import`: reads recorded cases into a database and says what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinical_data.errors import UsageError
from workflow.commands.common import DEFAULT_DB, AsJson, Db, err_console, plain, show_json, show_table

if TYPE_CHECKING:
    from workflow.importing import ImportSummary

MOST_REASONS = 8


def import_command(
    source: Annotated[str, typer.Argument(help="fhir, mimic-iv, mimic-iii, eicu, meds, osce or ddxplus.")],
    path: Annotated[Path, typer.Argument(help="A file or folder of that source.")],
    db: Db = DEFAULT_DB,
    condition_rank: Annotated[
        Path | None,
        typer.Option("--condition-rank", help="Ranks of the Conditions of MIMIC-IV on FHIR (condition_rank.csv.gz)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Imports recorded cases. Importing the same again changes nothing; an import that was killed goes on."""
    from workflow.bars import CountBar
    from workflow.importing import import_cases

    if condition_rank is not None and source != "fhir":
        raise UsageError("--condition-rank belongs to `import fhir`", hint="tables carry the rank themselves")
    with CountBar(err_console(), "read") as bar:
        what = f"importing {path.name}"
        summary = import_cases(
            db, source, path, lambda done, total: bar(what, done, total or 0), condition_rank=condition_rank
        )
    if as_json:
        show_json(plain(summary))
    else:
        show_import(summary)


def show_import(summary: ImportSummary) -> None:
    """Writes what an import found, which recorded labels there are, and what it could not use."""
    stored = ", ".join(f"{n:,} {what}" for what, n in sorted(summary.stored.items()) if n)
    people = f"{summary.patients:,}"
    if summary.hospital_conflicts:
        people += f" ({summary.hospital_conflicts:,} with stays in several hospitals)"
    rows = [("cases", f"{summary.cases:,} ({stored})"), ("patients", people)]
    rows += [("read", f"{n:,} {kind}") for kind, n in sorted(summary.read.items())]
    took = f"{summary.seconds:,.0f} s" + (", went on with an import that was interrupted" if summary.resumed else "")
    show_table(["found", ""], [*rows, ("took", took)])
    steps = []
    for step in summary.labels:
        reasons = summary.absent.get(step)
        words = "; ".join(f"{n:,}: {why}" for why, n in reasons.most_common(3)) if reasons else ""
        steps.append((step.replace("_", " "), f"{summary.labels[step]:,} of {summary.cases:,}", words))
    show_table(["recorded label of the step", "cases", "why the others have none"], steps)
    show_unused(summary)


def show_unused(summary: ImportSummary) -> None:
    """Writes what an import left out, and why; nothing when it used everything."""
    missing = [why.split()[1] for why in summary.unused if why.startswith("table ") and why.endswith(" is missing")]
    left = [(why, n) for why, n in summary.unused.most_common() if not why.endswith(" is missing")]
    unused = [("of no use here", why, f"{n:,}") for why, n in left[:MOST_REASONS]]
    if rest := left[MOST_REASONS:]:
        unused.append(("of no use here", f"{len(rest)} more reasons", f"{sum(n for _, n in rest):,}"))
    if missing:
        unused.append(("not in this folder", "tables " + ", ".join(sorted(missing)), ""))
    if summary.quarantined:
        unused.append(
            ("broken, set aside", "all are listed in the database, table quarantine", f"{summary.quarantined:,}")
        )
    for q in summary.first_quarantined:
        place = q.file if q.line is None else f"{q.file}:{q.line}"
        unused.append(("  such as", f"{place}: {f'{q.resource}: ' if q.resource else ''}{q.reason}", ""))
    if unused:
        show_table(["not used", "what and why", "rows"], unused)
