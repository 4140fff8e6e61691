"""Reads a text file line by line in bounded memory: plain, gzip, or a zip that holds one file.

Damage never stops an import: a line that is too long or no UTF-8, and an archive that ends early, come back as lines
that say what is wrong with them.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clinical_data.errors import BadInputError

LONGEST_LINE = 1 << 24  # bytes
_MOST_BLANK = 1_000_000  # lines in a row; beyond, packed data is a bomb, not a record
_OFTEN = 1024  # lines between two reports of progress
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank, or the reason why it cannot be read.

    Attributes:
        number: counted from 1, blank lines too.
        text: without its end; None when `trouble` says why.
        trouble: what is wrong, without any value of the file.
    """

    number: int
    text: str | None
    trouble: str = ""


def read_lines(
    path: Path, progress: Callable[[int], None] = lambda done: None, longest: int = LONGEST_LINE
) -> Iterator[Line]:
    """Yields the lines of a file; after damage that cannot be passed, one line that names it, and no more.

    Args:
        path: the file; `.gz` and `.zip` are unpacked.
        progress: called now and then with the bytes of the (compressed) file consumed so far.
        longest: bytes of a line beyond which it is passed over.
    """
    number, blank = 0, 0
    try:
        with _opened(path) as (stored, text):
            for number, raw in enumerate(_bounded(text, longest), start=1):
                if number % _OFTEN == 0:
                    progress(stored.tell())
                line = _decoded(number, raw)
                if line is not None:
                    blank = 0
                    yield line
                    continue
                blank += 1
                if blank == _MOST_BLANK:
                    yield Line(number, None, "a million blank lines; what follows is lost")
                    return
    except BadInputError as error:
        yield Line(number + 1, None, error.message)
    except _DAMAGE:
        yield Line(number + 1, None, "the archive is damaged or cut short; what follows is lost")
    except OSError as error:
        yield Line(number + 1, None, f"the file cannot be read ({error.strerror})")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Opens a file; yields it as it is stored, and unpacked."""
    name = path.name.lower()
    with path.open("rb") as stored:
        if name.endswith(".gz"):
            with gzip.GzipFile(fileobj=stored) as text:
                yield stored, text  # type: ignore[misc]
        elif name.endswith(".zip"):
            with zipfile.ZipFile(stored) as archive:
                # A Mac adds a folder of its own to the archives it makes.
                inside = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
                if len(inside) != 1:
                    raise BadInputError(f"the zip holds {len(inside)} files instead of one")
                with archive.open(inside[0]) as text:
                    yield stored, text
        else:
            yield stored, stored


def _bounded(text: IO[bytes], longest: int) -> Iterator[bytes | None]:
    """Yields the lines of a stream; None for one that is too long."""
    while raw := text.readline(longest):
        if len(raw) < longest or raw.endswith(b"\n"):
            yield raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = text.readline(longest)
        yield None


def _decoded(number: int, raw: bytes | None) -> Line | None:
    """Returns a line as text; None for a blank one."""
    if raw is None:
        return Line(number, None, "the line is too long")
    if number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError:
        return Line(number, None, "the line is not UTF-8")
    return Line(number, text) if text.strip() else None
