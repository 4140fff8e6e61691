"""Cuts FHIR files into pieces, unparsed: lines of ndjson, entries of a Bundle, single resources; plain or gzip.

A file of any size is read in bounded memory: ndjson line by line, a Bundle entry by entry, no piece above 64 MiB, and
never more than 4 GiB without a piece to show for it.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from clinical_data.errors import BadInputError

SUFFIXES = (".json", ".ndjson", ".json.gz", ".ndjson.gz")
LARGEST = 1 << 26  # bytes of one piece; a longer line is passed over, a longer Bundle entry ends its file
_CHUNK = 1 << 20  # bytes read at a time from a .json file
_VAIN = 1 << 32  # bytes read in a row that gave no piece; beyond that gzip data is a bomb, not a record
_LEAST_LINE = 1 << 12  # bytes that an empty line counts for: a million of them are no record either
_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
_BOM = b"\xef\xbb\xbf"


class Piece(NamedTuple):
    """One piece of input: the text of a JSON value, or the reason why there is none.

    Attributes:
        file: path relative to the folder imported.
        line: line of ndjson, or entry of a Bundle, from 1; None for a single resource.
        text: UTF-8 JSON, not parsed yet; empty when there is trouble.
        entry: whether `text` is an entry of a Bundle, with the resource inside.
        trouble: why `text` is empty.
    """

    file: str
    line: int | None
    text: bytes = b""
    entry: bool = False
    trouble: str = ""


class _Broken(Exception):
    """The rest of a file cannot be read."""


def list_files(path: Path) -> list[Path]:
    """Returns the FHIR files at a path: itself, or those below a folder, in order of name.

    Raises:
        BadInputError: missing, of another kind, or a folder without such a file.
    """
    if path.is_file():
        if not path.name.lower().endswith(SUFFIXES):
            raise BadInputError("not a FHIR file", file=path, hint=f"expected {', '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise BadInputError("no such file or folder", file=path, hint="check the path")
    found = sorted(f for f in path.rglob("*") if f.name.lower().endswith(SUFFIXES) and f.is_file())
    if not found:
        raise BadInputError("no FHIR file in this folder", file=path, hint=f"expected {', '.join(SUFFIXES)}")
    return found


def read_file(path: Path, name: str, progress: Callable[[int], None]) -> Iterator[Piece]:
    """Yields the pieces of one file; after damage that cannot be passed, one piece that names it, and no more.

    Args:
        path: the file.
        name: what to call it in pieces.
        progress: called now and then with the bytes of the (compressed) file consumed so far.
    """
    line: int | None = None
    try:
        with path.open("rb") as stored:
            text: Any = gzip.GzipFile(fileobj=stored) if path.name.lower().endswith(".gz") else stored
            cut = _lines if ".ndjson" in path.name.lower()[-10:] else _document
            for piece in cut(text, name, lambda: progress(stored.tell())):
                line = piece.line
                yield piece
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield Piece(name, (line or 0) + 1, trouble="gzip data damaged or cut short; what follows is lost")
    except UnicodeDecodeError:
        yield Piece(name, (line or 0) + 1, trouble="not UTF-8; what follows is lost")
    except _Broken as error:
        yield Piece(name, (line or 0) + 1, trouble=str(error))
    except OSError as error:
        yield Piece(name, line, trouble=f"cannot be read ({error.strerror})")


def _lines(text: IO[bytes], name: str, tick: Callable[[], None]) -> Iterator[Piece]:
    number, vain = 0, 0
    while line := text.readline(LARGEST + 1):
        number += 1
        if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise _Broken("not UTF-8; what follows is lost")
        if number % 256 == 0:
            tick()
        vain += max(len(line), _LEAST_LINE)
        if len(line) > LARGEST:
            del line
            vain += _skip_line(text)
            yield Piece(name, number, trouble=f"line longer than {LARGEST >> 20} MiB")
        elif line := line.removeprefix(_BOM).strip():
            vain = 0
            yield Piece(name, number, line)
        if vain > _VAIN:
            raise _Broken("4 GiB without a resource; what follows is lost")


def _skip_line(text: IO[bytes]) -> int:
    """Reads to the end of a line without holding it; returns how many bytes that were."""
    skipped = 0
    while part := text.readline(_CHUNK):
        skipped += len(part)
        if part.endswith(b"\n") or skipped > _VAIN:
            break
    return skipped


def _document(text: IO[bytes], name: str, tick: Callable[[], None]) -> Iterator[Piece]:
    """Yields the entries of a Bundle, or the one resource of a file, without holding the whole Bundle."""
    window = _Window(text, tick)
    if window.next_char() != "{":
        raise _Broken("not a JSON object")
    members: list[bytes] = []
    entries, kind = 0, "Bundle"
    while window.step("{" if not members and not entries else ",", "}"):
        field = window.text()
        if not field.startswith(b'"') or window.next_char() != ":":
            raise _Broken("invalid JSON")
        window.skip(1)
        if field == b'"entry"' and kind == "Bundle" and window.next_char() == "[":
            while window.step("[" if not entries else ",", "]"):
                entries += 1
                yield Piece(name, entries, window.text(), entry=True)
            members.append(b'"entry":[]')
            continue
        value = window.text()
        members.append(field + b":" + value)
        if field == b'"resourceType"':
            kind = value.decode().strip('"')
    if window.next_char():
        raise _Broken("data after the end of the JSON object")
    if kind != "Bundle" and entries:
        yield Piece(name, None, trouble="entries of something that is no Bundle")
    else:
        yield Piece(name, None, b"{" + b",".join(members) + b"}")


def parse(text: bytes) -> tuple[Any, str]:
    """Returns the value of a JSON text, and why there is none, or an empty string."""
    try:
        return orjson.loads(text), ""
    except orjson.JSONDecodeError as error:
        if "UTF-8" in error.msg.upper():
            return None, "not UTF-8"
        return None, "nested too deep" if "recursion" in error.msg.lower() else "invalid JSON"


class _Window:
    """A moving window over the text of a JSON document."""

    def __init__(self, text: IO[bytes], tick: Callable[[], None]) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._tick = tick
        self._held = ""
        self._at = 0
        self._vain = 0

    def next_char(self) -> str:
        """Returns the next character that is no space, without passing it; empty at the end."""
        while True:
            self._at = _SPACE.match(self._held, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                return ""

    def skip(self, number: int) -> None:
        """Passes so many characters."""
        self._at += number

    def step(self, opening: str, closing: str) -> bool:
        """Passes `opening` or a comma before the next element, or `closing`; says whether an element follows."""
        found = self.next_char()
        if found == closing and opening == ",":
            self.skip(1)
            return False
        if found != opening:
            raise _Broken("invalid JSON; what follows is lost")
        self.skip(1)
        if opening != "," and self.next_char() == closing:
            self.skip(1)
            return False
        return True

    def text(self) -> bytes:
        """Passes one JSON value and returns its text.

        Raises:
            _Broken: invalid JSON, or the file ends inside the value.
        """
        self.next_char()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._held, self._at)
            except RecursionError as error:
                raise _Broken("nested too deep; what follows is lost") from error
            except ValueError as error:
                # Decoding may have failed because the chunk ends here, or because the text is broken.
                if len(self._held) - self._at > LARGEST or not self._more():
                    raise _Broken("invalid JSON; what follows is lost") from error
                continue
            if end == len(self._held) and self._more():
                continue  # a number may go on in the next chunk
            text = self._held[self._at : end]
            self._at = end
            self._vain = 0
            return text.encode()

    def _more(self) -> bool:
        """Reads on, at least doubling what is held; says whether there was more."""
        held = self._held[self._at :]
        added = ""
        while not added:
            data = self._text.read(max(_CHUNK, len(held)))
            added = self._decoder.decode(data, final=not data)
            self._vain += len(data)
            if not data:
                break
        if self._vain > _VAIN:
            raise _Broken("4 GiB without a resource; what follows is lost")
        self._tick()
        self._held, self._at = held + added, 0
        return bool(added)
