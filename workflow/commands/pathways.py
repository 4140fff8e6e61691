"""`wardstar pathway`: lists, shows and validates pathways."""

from __future__ import annotations

from typing import Annotated

import typer

from workflow.commands.common import say, show_table

pathway_app = typer.Typer(help="Lists, shows and validates pathways.", no_args_is_help=True)


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
