"""`wardstar config`: shows the configuration that takes effect, and writes a file of all options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clinical_data.errors import UsageError
from workflow.commands.common import AsJson, out_console, show_json, show_table, write_text
from workflow.commands.replay_arguments import takes_replay_options
from workflow.options import Chosen, effective, template

config_app = typer.Typer(help="Shows and begins configurations of a replay.", no_args_is_help=True)


@config_app.command("show")
@takes_replay_options
def config_show(
    chosen: Chosen,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not left at its default.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows every option as it takes effect in a replay, where its value comes from, and the hash of all of it."""
    from evaluation.store.run_store import config_hash
    from workflow.config import make_config

    sha256 = config_hash(make_config(chosen.options))
    rows = [row for row in effective(chosen) if not changed or row["from"] != "default"]
    if as_json:
        show_json({"options": rows, "sha256": sha256})
        return
    show_table(["option", "value", "from"], [(r["option"], _words(r["value"]), r["from"]) for r in rows])
    out_console().print(f"sha256 {sha256}")


@config_app.command("init")
def config_init(
    out: Annotated[Path, typer.Option("--out", help="File to make; `-`: stdout.")] = Path("wardstar.toml"),
) -> None:
    """Writes a configuration file with every option, its default and its meaning. It never replaces one."""
    if str(out) != "-" and out.exists():
        raise UsageError(f"{out} exists already", hint="name another file with --out")
    write_text(template(), out)
    if str(out) != "-":
        typer.echo(str(out))


def _words(value: object) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
