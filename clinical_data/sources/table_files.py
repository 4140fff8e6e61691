"""Finds table files and reads what duckdb does not tell: their header, lines that lack a value or are too long."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

_LONGEST_LINE = 2_000_000  # characters, as duckdb's own limit
_CHUNK = 1 << 20  # bytes; shorter than the longest line, so that a line within a chunk is never too long


class UnreadableTable(Exception):
    """A table file that is of no use; the text says why, without any value."""


def find_tables(folder: Path, wanted: set[str]) -> dict[str, list[Path]]:
    """Returns the files of the wanted tables (lower-case names) in a folder and two levels below, in order of path."""
    found: dict[str, list[Path]] = {}
    for pattern in ("*", "*/*", "*/*/*"):
        for path in sorted(folder.glob(pattern)):
            name = path.name.lower()
            stem = name.removesuffix(".gz").removesuffix(".csv")
            if stem in wanted and name.endswith((".csv", ".csv.gz")) and path.is_file():
                found.setdefault(stem, []).append(path)
    return found


def open_table(path: Path) -> IO[str]:
    """Opens a table file as text, without its byte order mark."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open("r", encoding="utf-8-sig", errors="replace", newline="")


def read_header(path: Path) -> list[str]:
    """Returns the column names of a table file in lower case.

    Raises:
        UnreadableTable: the file is empty, its first line has no end, or it names a column twice.
    """
    with open_table(path) as file:
        line = file.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        raise UnreadableTable("the first line is too long")
    header = [column.strip().lower() for column in next(csv.reader([line]), [])]
    if not header:
        raise UnreadableTable("the file is empty")
    if len(set(header)) != len(header):
        raise UnreadableTable("a column name occurs twice")
    return header


def _open_bytes(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def lines_too_long(path: Path) -> list[int]:
    """Returns the numbers of the lines beyond duckdb's limit.

    duckdb reports them itself only up to its buffer (32 MB); a longer one it passes over without a word.
    """
    found, line, length = [], 1, 0
    with _open_bytes(path) as file:
        while chunk := file.read(_CHUNK):
            first = chunk.find(b"\n")
            if first < 0:
                length += len(chunk)
                continue
            if length + first > _LONGEST_LINE:
                found.append(line)
            line += chunk.count(b"\n")
            length = len(chunk) - chunk.rfind(b"\n") - 1
    return [*found, line] if length > _LONGEST_LINE else found


def lines_with_empty(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yields line and column of every complete row that leaves one of these columns empty."""
    with open_table(path) as file:
        reader = csv.reader(_bounded(file))
        header = [column.strip().lower() for column in next(reader)]
        places = [(header.index(column), column) for column in columns]
        for row in reader:
            if len(row) != len(header):
                continue  # already rejected for its number of fields
            if empty := next((column for place, column in places if row[place] == ""), None):
                yield reader.line_num, empty


def _bounded(file: IO[str]) -> Iterator[str]:
    """Yields the lines of a file; of one that is too long, an empty line in its place."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) < _LONGEST_LINE:
            yield line
            continue
        while line and not line.endswith("\n"):
            line = file.readline(_LONGEST_LINE)
        yield "\n"
