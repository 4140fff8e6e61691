"""One file over HTTP: goes on where it stopped, tries again after passing faults, names what went wrong."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx

from clinical_data.errors import BadInputError, StorageError

log = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPTS = 5  # without a byte of progress
LIST_LIMIT = 16 << 20  # bytes: no list of checksums is longer
LONGEST_PAUSE = 60.0  # seconds
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_AGAIN = "run the same command again: it goes on where it stopped"


class _PassingFaultError(Exception):
    """A fault that the next attempt may not meet; `pause` is what the server asks for, in seconds."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass(slots=True)
class Transfer:
    """A connection to a publisher.

    Attributes:
        hosts: the only hosts that may be contacted, redirections included.
        https_only: whether a redirection to plain HTTP is refused.
        attempts: tries without progress before giving up.
        pause: seconds before the second try; doubles each time.
    """

    hosts: frozenset[str]
    https_only: bool = True
    attempts: int = ATTEMPTS
    pause: float = 1.0
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(60.0, connect=20.0),
            headers={"Accept-Encoding": "identity", "User-Agent": "wardstar"},
            event_hooks={"request": [self._allow]},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()

    def text(self, url: str) -> str:
        """Returns a small text file.

        Raises:
            BadInputError: it is not there, cannot be had, or is no text.
        """

        def get() -> str:
            found = bytearray()
            with self.client.stream("GET", url) as response:
                _check(response)
                for chunk in response.iter_raw():
                    found += chunk
                    if len(found) > LIST_LIMIT:
                        raise BadInputError(f"{url}: longer than any list of checksums")
            return found.decode("utf-8")

        try:
            return self._try(url, get)
        except UnicodeDecodeError as error:
            raise BadInputError(f"{url}: not a text") from error

    def size(self, url: str) -> int | None:
        """Returns the size of a file in bytes; None when the server does not tell."""
        try:
            response = self.client.head(url)
        except httpx.HTTPError:
            return None
        length = response.headers.get("Content-Length", "")
        return int(length) if response.status_code == httpx.codes.OK and length.isdecimal() else None

    def download(self, url: str, part: Path, progress: Callable[[int], None]) -> bool:
        """Writes a file to `part`, going on where an earlier attempt stopped; returns whether it went on.

        Args:
            url: address of the file.
            part: where to write; only its owner can read it. It stays after a fault.
            progress: called with the bytes that are there.

        Raises:
            BadInputError: it is not there, or the network gave up.
            StorageError: it cannot be written.
        """
        resumed = part.exists() and part.stat().st_size > 0
        self._try(url, lambda: self._get(url, part, progress), part)
        return resumed

    def _get(self, url: str, part: Path, progress: Callable[[int], None]) -> None:
        have = part.stat().st_size if part.exists() else 0
        with self.client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                # Complete already, or no part of this file: the size tells.
                if _total(response) != have:
                    part.unlink()
                    raise _PassingFaultError("what was there is no part of this file")
                return
            _check(response)
            if response.status_code != httpx.codes.PARTIAL_CONTENT or _start(response) != have:
                have = 0  # no ranges here: from the beginning
            total = _total(response)
            _write(part, have, response.iter_raw(), progress)  # as received: a chunk size would hold bytes back
        if total is not None and part.stat().st_size != total:
            raise _PassingFaultError("the transfer ended early")

    def _try(self, url: str, work: Callable[[], T], part: Path | None = None) -> T:
        """Runs a request; after a passing fault again, as long as it advances or attempts are left."""
        failed, had = 0, -1
        while True:
            try:
                return work()
            except (httpx.TransportError, _PassingFaultError) as error:
                have = part.stat().st_size if part and part.exists() else 0
                failed = 1 if have > had >= 0 else failed + 1
                had = have
                if failed >= self.attempts:
                    host = httpx.URL(url).host
                    hint = (
                        "check the network, HTTPS_PROXY and SSL_CERT_FILE, or name a mirror with --url; then " + _AGAIN
                    )
                    raise BadInputError(f"{url}: {host} cannot be read ({_words(error)})", hint=hint) from error
                asked = error.pause if isinstance(error, _PassingFaultError) else 0.0
                seconds = min(max(asked, self.pause * 2 ** (failed - 1)), LONGEST_PAUSE)
                log.warning("%s: %s; next try in %g s", url, _words(error), seconds)
                time.sleep(seconds)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise BadInputError(f"{url}: cannot be read ({_words(error)})") from error

    def _allow(self, request: httpx.Request) -> None:
        if request.url.host not in self.hosts or (self.https_only and request.url.scheme != "https"):
            raise BadInputError(
                f"the publisher redirects to {request.url.scheme}://{request.url.host}, which it is not known for",
                hint="nothing was sent there; download the set by hand from its page",
            )


def disk_errors(error: OSError, path: Path) -> StorageError:
    """Returns what to raise for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"{path}: the disk is full", hint=f"free some space, or name another --out; then {_AGAIN}")
    return StorageError(f"{path}: cannot be written ({error.strerror})", hint="check --out and its permissions")


def private_file(path: str, flags: int) -> int:
    """Opens a file that only its owner can read; an `opener` of `open`."""
    return os.open(path, flags, 0o600)


def _write(part: Path, have: int, chunks: Iterable[bytes], progress: Callable[[int], None]) -> None:
    try:
        with open(part, "r+b" if have else "wb", opener=private_file) as file:
            file.seek(have)
            for chunk in chunks:
                file.write(chunk)
                have += len(chunk)
                progress(have)
    except OSError as error:
        raise disk_errors(error, part) from error


def _check(response: httpx.Response) -> None:
    """Raises what a status that brings no file means."""
    status = response.status_code
    if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        return
    if status in _PASSING:
        asked = response.headers.get("Retry-After", "")
        raise _PassingFaultError(f"the server answers {status}", float(asked) if asked.isdecimal() else 0.0)
    hint = "the publisher may have moved it: see the set's page, or name a mirror with --url"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        hint = "the publisher refuses: see the set's page for its terms"
    raise BadInputError(f"{response.url}: not there (the server answers {status})", hint=hint)


def _total(response: httpx.Response) -> int | None:
    """Returns the size of the whole file as an answer gives it."""
    _, _, total = response.headers.get("Content-Range", "").rpartition("/")
    if total.isdecimal():
        return int(total)
    length = response.headers.get("Content-Length", "")
    return int(length) if response.status_code == httpx.codes.OK and length.isdecimal() else None


def _start(response: httpx.Response) -> int | None:
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
