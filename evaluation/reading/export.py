"""Finished readings as rows for other programs: every field of `Review`, one row per reading.

docs/agreement.md lists the columns. JSON lines hold values as they are; in a CSV file lists and tables are JSON, and a
cell that a spreadsheet would run as a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from clinical_data.errors import UsageError
from evaluation.reading.form import Own, Review

JSONL, CSV = ".jsonl", ".csv"
KEY = ("case_id", "step", "occurrence")
_OWN = ("first", "after")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet runs. Source: OWASP, CSV Injection."""


def _columns() -> tuple[str, ...]:
    names: list[str] = []
    for one in fields(Review):
        if one.name == "key":
            names += KEY
        elif one.name in _OWN:
            names += [f"{one.name}_{part.name}" for part in fields(Own)]
        else:
            names.append(one.name)
    return tuple(names)


COLUMNS = _columns()


def reading_row(review: Review) -> dict[str, Any]:
    """Returns a reading as plain data, by column."""
    row: dict[str, Any] = {}
    for one in fields(Review):
        value = getattr(review, one.name)
        if one.name == "key":
            row.update(zip(KEY, value, strict=True))
        elif isinstance(value, Own):
            row.update({f"{one.name}_{part.name}": _plain(getattr(value, part.name)) for part in fields(Own)})
        else:
            row[one.name] = _plain(value)
    return row


def csv_text(reviews: Iterable[Review]) -> str:
    """Returns readings as CSV (RFC 4180), with a line of column names."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for review in reviews:
        writer.writerow([_cell(value) for value in reading_row(review).values()])
    return file.getvalue()


def check_place(out: Path) -> None:
    """Raises UsageError for a file that is neither `.jsonl` nor `.csv`, or that holds something else than readings."""
    if out.suffix not in (JSONL, CSV):
        raise UsageError(f"--out {out}: readings are written as .jsonl or .csv", hint="name a file that ends so")
    if out.exists() and not (out.is_file() and _holds_readings(out)):
        raise UsageError(f"{out} holds something else than readings", hint="name another file with --out")


def _holds_readings(path: Path) -> bool:
    """Says whether a file is an earlier export, or empty."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        line = file.readline()
    if not line:
        return True
    if path.suffix == CSV:
        return next(csv.reader([line]), []) == list(COLUMNS)
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and set(found) == set(COLUMNS)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): inner for key, inner in value.items()}
    if isinstance(value, str):
        return str(value)  # an enumeration becomes its value
    return list(value) if isinstance(value, Sequence) else value


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict | bool):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
