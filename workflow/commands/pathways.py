"""`wardstar pathway`: lists, shows, validates and exchanges pathways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from clinical_data.errors import UsageError
from workflow.commands.common import say, show_table, write_bytes, write_text

pathway_app = typer.Typer(help="Lists, shows, validates and exchanges pathways.", no_args_is_help=True)
FORMATS = ("mermaid", "svg", "png")
Named = Annotated[str, typer.Argument(help="Name of a bundled pathway, or a YAML file.", metavar="NAME")]


@pathway_app.command("list")
def pathway_list() -> None:
    """Lists the bundled pathways."""
    from workflow.pathway import known_pathways, load_pathway

    found = [load_pathway(name).pathway for name in known_pathways()]
    rows = [(p.name, p.version, p.title, ", ".join(s.name for s in p.steps)) for p in found]
    show_table(["name", "version", "title", "steps"], rows)


@pathway_app.command("show")
def pathway_show(
    name: Named,
    form: Annotated[str, typer.Option("--format", help="mermaid (default), svg or png.")] = "mermaid",
    out: Annotated[Path | None, typer.Option("--out", help="File; Mermaid goes to stdout when left out.")] = None,
) -> None:
    """Writes a pathway as a Mermaid flowchart, or draws it as SVG or PNG."""
    from workflow.pathway import load_pathway

    if form not in FORMATS:
        raise UsageError(f"--format {form} is unknown", hint=f"known: {', '.join(FORMATS)}")
    pathway = load_pathway(name).pathway
    if form == "mermaid":
        write_text(pathway.to_mermaid(), out or Path("-"))
        return
    if out is None:
        raise UsageError(f"--format {form} needs a file", hint=f"--out {pathway.name}.{form}")
    from workflow.pathway_picture import draw_pathway

    write_bytes(draw_pathway(pathway, form), out)
    typer.echo(str(out))


@pathway_app.command("export-fhir")
def pathway_export_fhir(
    name: Named,
    out: Annotated[Path, typer.Option("--out", help="JSON file to write; `-`: stdout.")],
) -> None:
    """Writes a pathway as a FHIR R4 PlanDefinition, from which `import-fhir` makes the same pathway."""
    from workflow.pathway import load_pathway
    from workflow.plan_definition import to_plan_definition

    plan = to_plan_definition(load_pathway(name).pathway)
    write_text(json.dumps(plan, ensure_ascii=False, indent=2) + "\n", out)
    if str(out) != "-":
        typer.echo(str(out))


@pathway_app.command("import-fhir")
def pathway_import_fhir(
    file: Annotated[Path, typer.Argument(help="JSON file with a PlanDefinition that `export-fhir` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="YAML file to write; `-`: stdout.")],
) -> None:
    """Writes the pathway in a FHIR R4 PlanDefinition as a YAML file."""
    from workflow.config import check_names
    from workflow.plan_definition_reader import read_plan_definition

    loaded, whole = read_plan_definition(file)
    check_names(loaded.pathway)
    write_text(loaded.text, out)
    if not whole:
        say(f"note: {file} says more than a pathway can hold; that was left out")
    if str(out) != "-":
        typer.echo(str(out))


@pathway_app.command("validate")
def pathway_validate(name: Named) -> None:
    """Says whether a pathway is valid; names file, line and field of the first fault."""
    from workflow.config import check_names
    from workflow.pathway import load_pathway

    loaded = load_pathway(name)
    check_names(loaded.pathway)
    say(f"{name}: valid, {len(loaded.pathway.steps)} steps, sha256 {loaded.sha256[:12]}")
