"""What all commands share: options, consoles, tables and files."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_type_hints

import typer
from rich.console import Console
from rich.table import Table

from clinical_data.errors import StorageError
from workflow import logs

if TYPE_CHECKING:
    from sqlalchemy import Engine

DEFAULT_DB = "sqlite:///wardstar.db"
Db = Annotated[str, typer.Option("--db", help="Database: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.")]
RunName = Annotated[str, typer.Option("--run", help="Name of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no remarks; errors still show.")]
_quiet: list[bool] = [False]


def be_quiet(quiet: bool) -> None:
    """Leaves out progress and remarks of this command, or (False) shows them again."""
    _quiet[0] = quiet


def long_command(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the option `--quiet`."""
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters.values()
    parameters = [p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in own]

    @functools.wraps(command)
    def quietly(*, quiet: bool, **given: Any) -> None:
        be_quiet(quiet)
        command(**given)

    extra = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, annotation=Quiet, default=False)
    return with_parameters(quietly, [*parameters, extra])


def with_parameters(command: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Gives a command the parameters that typer is to see."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def out_console() -> Console:
    """Returns the console of results: stdout."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def err_console() -> Console:
    """Returns the console of progress and remarks: stderr."""
    return Console(stderr=True, highlight=False, quiet=_quiet[0])


def say(text: str) -> None:
    """Writes a remark to stderr, unless the command is to be quiet."""
    if logs.as_json():
        logs.event("remark", text)
    else:
        err_console().print(text, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """Writes an error to stderr, in any case."""
    if logs.as_json():
        logs.EVENTS.error(text)
    else:
        Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)


def show_json(value: object) -> None:
    """Writes a value to stdout as JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def plain(value: Any) -> Any:
    """Returns dataclasses and counters as dictionaries (`asdict` breaks counters), for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Writes a table to stdout."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    out_console().print(table, markup=False)


def show_rows(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> None:
    """Writes rows of equal keys as a table; column names are the keys, in words."""
    if not rows:
        out_console().print("nothing to show")
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    words = [c.replace("_", " ") for c in columns]
    show_table(words, [[row.get(c) for c in columns] for row in rows], title=title)


def write_lines(rows: Iterable[Mapping[str, Any]], out: Path | None) -> int:
    """Writes JSON lines to a file that only its owner can read (None or `-`: stdout); returns their number.

    The file appears whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    if out is None or str(out) == "-":
        return _write(rows, sys.stdout)
    with _whole(out) as file:
        return _write(rows, file)


def write_text(text: str, out: Path) -> None:
    """Writes a text to a file that only its owner can read (`-`: stdout); the file appears whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    if str(out) == "-":
        sys.stdout.write(text)
        return
    with _whole(out) as file:
        file.write(text)


def write_bytes(data: bytes, out: Path) -> None:
    """Writes bytes to a file, as `write_text`.

    Raises:
        StorageError: the file cannot be written.
    """
    with _whole(out) as file:
        file.buffer.write(data)


@contextmanager
def database(url: str) -> Iterator[Engine]:
    """Opens an existing database and closes it afterwards.

    Raises:
        StorageError: missing or unusable.
    """
    from evaluation.store import existing_database  # its libraries only for commands that need them

    with existing_database(url) as engine:
        yield engine


@contextmanager
def _whole(out: Path) -> Iterator[TextIO]:
    part = out.with_name(out.name + ".part")
    try:
        with open(part, "w", encoding="utf-8", newline="\n", opener=_private) as file:
            yield file
        part.replace(out)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)


def _write(rows: Iterable[Mapping[str, Any]], file: TextIO) -> int:
    number = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        number += 1
    return number


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
