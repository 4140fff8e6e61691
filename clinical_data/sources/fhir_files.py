"""Reads FHIR JSON from disk piece by piece: Bundle, single resource, ndjson; plain or gzip.

A file of any size is read in bounded memory: ndjson line by line, a Bundle entry by entry.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from clinical_data.errors import BadInputError

SUFFIXES = (".json", ".ndjson", ".json.gz", ".ndjson.gz")
_CHUNK = 1 << 20  # bytes read at a time from a .json file
_LARGEST = 1 << 26  # characters of one resource; beyond that the file is taken for broken
_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Raw:
    """One piece of input: a JSON object, or the reason why there is none.

    Attributes:
        line: line of ndjson, or entry of a Bundle, from 1; None for a single resource.
        data: the object, or None.
        full_url: `fullUrl` of the Bundle entry.
        trouble: why `data` is None.
    """

    line: int | None
    data: dict[str, Any] | None = None
    full_url: str = ""
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


def read_file(path: Path, progress: Callable[[int], None]) -> Iterator[Raw]:
    """Yields the pieces of one file; after damage that cannot be passed, one piece that names it, and no more.

    Args:
        path: the file.
        progress: called now and then with the bytes of the (compressed) file consumed so far.
    """
    line: int | None = None
    try:
        with path.open("rb") as stored:
            text: Any = gzip.GzipFile(fileobj=stored) if path.name.lower().endswith(".gz") else stored
            read = _lines if ".ndjson" in path.name.lower()[-10:] else _document
            for raw in read(text, lambda: progress(stored.tell())):
                line = raw.line
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield Raw((line or 0) + 1, trouble="gzip data damaged or cut short; what follows is lost")
    except UnicodeDecodeError:
        yield Raw((line or 0) + 1, trouble="not UTF-8; what follows is lost")
    except _Broken as error:
        yield Raw((line or 0) + 1, trouble=str(error))
    except OSError as error:
        yield Raw(line, trouble=f"cannot be read ({error.strerror})")


def _lines(text: IO[bytes], tick: Callable[[], None]) -> Iterator[Raw]:
    for number, line in enumerate(text, start=1):
        if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise _Broken("not UTF-8; what follows is lost")
        if number % 256 == 0:
            tick()
        line = line.removeprefix(b"\xef\xbb\xbf").strip()
        if line:
            yield from _unpack(number, *_load(line))


def _document(text: IO[bytes], tick: Callable[[], None]) -> Iterator[Raw]:
    """Yields the entries of a Bundle, or the one resource of a file, without holding the whole Bundle."""
    window = _Window(text, tick)
    if window.next_char() != "{":
        raise _Broken("not a JSON object")
    rest: dict[str, Any] = {}
    entries, broken = 0, ""
    while window.step("{" if not rest and not entries else ",", "}"):
        name, _ = window.value()
        if not isinstance(name, str) or window.next_char() != ":":
            raise _Broken("invalid JSON")
        window.skip(1)
        if name == "entry" and rest.get("resourceType", "Bundle") == "Bundle" and window.next_char() == "[":
            while window.step("[" if not entries else ",", "]"):
                entries += 1
                entry, trouble = window.value()
                yield from [Raw(entries, trouble=trouble)] if trouble else _entry(entries, entry)
            rest["entry"] = []
        else:
            rest[name], trouble = window.value()
            broken = broken or trouble
    if window.next_char():
        raise _Broken("data after the end of the JSON object")
    if broken:
        yield Raw(None, trouble=broken)
    elif rest.get("resourceType") == "Bundle":
        if not isinstance(rest.get("entry", []), list):
            yield Raw(None, trouble="entry: not a list")
    elif entries:
        yield Raw(None, trouble="entries of something that is no Bundle")
    else:
        yield Raw(None, rest)


def _entry(number: int, entry: object) -> Iterator[Raw]:
    if not isinstance(entry, dict):
        yield Raw(number, trouble="entry: not an object")
        return
    full_url = entry.get("fullUrl", "")
    resource = entry.get("resource")
    if resource is None:
        yield Raw(number, {"resourceType": "Bundle entry without resource"})
    elif not isinstance(resource, dict):
        yield Raw(number, trouble="entry.resource: not an object")
    else:
        yield from _unpack(number, resource, "", full_url if isinstance(full_url, str) else "")


def _unpack(number: int, data: dict[str, Any] | None, trouble: str, full_url: str = "") -> Iterator[Raw]:
    """Yields a resource, or the entries of a Bundle that stands where a resource is expected."""
    if data is not None and data.get("resourceType") == "Bundle" and isinstance(data.get("entry"), list):
        for entry in data["entry"]:
            yield from _entry(number, entry)
    else:
        yield Raw(number, data, full_url, trouble)


def _load(line: bytes) -> tuple[dict[str, Any] | None, str]:
    data, trouble = _parse(line)
    if trouble or isinstance(data, dict):
        return data, trouble
    return None, "not a JSON object"


def _parse(text: bytes | str) -> tuple[Any, str]:
    try:
        return orjson.loads(text), ""
    except orjson.JSONDecodeError as error:
        return None, "not UTF-8" if "UTF-8" in error.msg.upper() else "invalid JSON"


class _Window:
    """A moving window over the text of a JSON document."""

    def __init__(self, text: IO[bytes], tick: Callable[[], None]) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._tick = tick
        self._held = ""
        self._at = 0

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

    def value(self) -> tuple[Any, str]:
        """Reads one JSON value; returns it, and why it cannot be used (a lone surrogate, NaN), or an empty string.

        Raises:
            _Broken: invalid JSON, or the file ends inside the value.
        """
        self.next_char()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._held, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                # Decoding may have failed because the chunk ends here, or because the text is broken.
                if len(self._held) - self._at > _LARGEST or not self._more():
                    raise _Broken("invalid JSON; what follows is lost") from error
                continue
            text = self._held[self._at : end]
            if end == len(self._held) and self._more():
                continue  # a number may go on in the next chunk
            self._at += len(text)
            return _parse(text)

    def _more(self) -> bool:
        """Reads on, at least doubling what is held; says whether there was more."""
        held = self._held[self._at :]
        added = ""
        while not added:
            data = self._text.read(max(_CHUNK, len(held)))
            added = self._decoder.decode(data, final=not data)
            if not data:
                break
        self._tick()
        self._held, self._at = held + added, 0
        return bool(added)
