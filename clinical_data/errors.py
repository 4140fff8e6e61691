"""Every error that wardstar raises on purpose.

    WardstarError                  exit 1   root; never raised itself
    ├── UsageError                 exit 2   an option, a name or a combination that cannot be
    ├── BadInputError              exit 3   a file that is not what it should be; names file, line, field
    ├── ModelError                 exit 4   weights missing, back-end failed
    └── StorageError               exit 5   database missing, locked, newer than the program, disk full

Messages carry ids, file names and field names, never a patient value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class WardstarError(Exception):
    """Root of all deliberate errors.

    Attributes:
        exit_code: process exit status of the command line.
        hint: one sentence that says what to do, or an empty string.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(WardstarError):
    """An option, a name or a combination of options that cannot be."""

    exit_code = 2


class BadInputError(WardstarError):
    """A file or folder that is not what it should be.

    Attributes:
        file: the file at fault, if one is.
        line: line in it, counted from 1, if known.
        field: dotted field name, if known.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
        hint: str = "",
    ) -> None:
        place = "" if file is None else str(file)
        if line is not None:
            place += f":{line}"
        if field:
            place += f"{': ' if place else ''}{field}"
        super().__init__(f"{place}: {message}" if place else message, hint=hint)
        self.file = None if file is None else str(file)
        self.line = line
        self.field = field


class ModelError(WardstarError):
    """A language model that is missing or failed."""

    exit_code = 4


class StorageError(WardstarError):
    """A database that is missing, locked, full or of another version."""

    exit_code = 5


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean NAME?` for the known name that is most like another one; empty where none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
