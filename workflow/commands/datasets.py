"""`wardstar data`: public data sets, and downloading the open ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflow import logs
from workflow.commands.common import AsJson, err_console, long_command, out_console, say, show_json, show_table

data_app = typer.Typer(help="Lists public data sets, and downloads the open ones.", no_args_is_help=True)
FOLDER = Path("wardstar-data")


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """Lists public data sets: publisher, licence, what each supplies, and how to import it."""
    from clinical_data.datasets import load_datasets

    sets = load_datasets()
    if as_json:
        show_json(
            [
                {
                    "name": s.name,
                    "title": s.title,
                    "publisher": s.publisher,
                    "licence": s.licence,
                    "version": s.version,
                    "page": s.page,
                    "megabytes": s.download_megabytes,
                    "supplies": s.supplies,
                    "import": s.import_command.format(out=FOLDER / s.name),
                    "open": s.open,
                    "apply": s.apply,
                }
                for s in sets
            ]
        )
        return
    rows = []
    for s in sets:
        size = "" if s.download_megabytes is None else f"{max(1, s.download_megabytes):,.0f} MB, " if s.open else ""
        then = s.import_command.format(out=FOLDER / s.name) if s.open else f"not open: {s.apply}"
        rows.append((s.name, f"{s.title}, {s.version}\n{s.supplies}\n{s.page}", f"{size}{s.licence}", then))
    show_table(["name", "what it is and supplies", "size, licence", "after fetching, or how to apply"], rows)


@data_app.command("fetch")
@long_command
def data_fetch(
    name: Annotated[str, typer.Argument(help="Name of a set, as `wardstar data list` gives it.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files; wardstar-data/NAME.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="A mirror that holds the same files.")] = None,
    as_json: AsJson = False,
) -> None:
    """Downloads an open set from its publisher and checks it. Goes on where an earlier fetch stopped."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from clinical_data.datasets import find_dataset
    from clinical_data.datasets.fetch import fetch_dataset

    dataset = find_dataset(name)
    folder = out or FOLDER / name
    console = err_console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    say(f"{dataset.title}: from {url or dataset.base or dataset.page}, licence {dataset.licence}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal or logs.as_json()) as bar:
        task = bar.add_task(name, total=None)

        def show(done: int, total: int | None, file: str) -> None:
            bar.update(task, completed=done, total=total, description=file)

        found = fetch_dataset(dataset, folder, mirror=url, progress=show)
    if as_json:
        show_json(
            {
                "name": found.name,
                "folder": str(found.folder),
                "fetched": list(found.fetched),
                "present": list(found.present),
                "bytes": found.bytes,
                "checked": found.checked,
                "import": found.import_command,
            }
        )
        return
    text = f"{len(found.fetched)} files fetched, {len(found.present)} there already, {found.bytes / 1e6:,.1f} MB"
    out_console().print(f"{found.folder}: {text}; {found.checked}", markup=False, soft_wrap=True)
    out_console().print(f"next: {found.import_command}", markup=False, soft_wrap=True)
