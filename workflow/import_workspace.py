"""The private folder in which an import stages what it reads, so that it can go on after a kill.

Beside an SQLite file, else in wardstar's own folder of this user. It is locked while an import runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from clinical_data.errors import BadInputError, StorageError, UsageError
from clinical_data.store.engine import name_of

logger = logging.getLogger(__name__)

_LOCK, _STAGE = "lock", "stage"
_DAMAGED = ("malformed", "not a database", "corrupt")  # in the message of a StorageError: what is staged is of no use


def fingerprint_of(source: str, path: Path, condition_rank: Path | None = None) -> str:
    """Returns a sha256 that is the same only for the same import: source, options, files and version of wardstar.

    Of a file count its name within the folder, size and time of change, not its content.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    rows = [[os.fsdecode(os.fsencode(p.relative_to(path))), *_size_and_time(p)] for p in files]
    options = None if condition_rank is None else [condition_rank.name, *_size_and_time(condition_rank)]
    text = json.dumps([source, version("wardstar"), path.name, options, rows])
    return hashlib.sha256(text.encode()).hexdigest()


def workspace_of(url: str, fingerprint: str) -> Path | None:
    """Returns the folder of an import into a database; None for one in memory, with which the import would be lost.

    Raises:
        StorageError: not a database URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageError("not a database URL", hint="write sqlite:///FILE or postgresql+psycopg://...") from error
    name = name_of(parsed)
    if parsed.get_backend_name() != "sqlite":
        key = hashlib.sha256(f"{name} {fingerprint}".encode()).hexdigest()
        return _home() / "imports" / key[:12]
    if name == ":memory:" or name.startswith("file:"):
        return None
    if not Path(name).parent.is_dir():
        raise StorageError(f"{name}: cannot be created (no such folder)", hint="make the folder first, or check --db")
    return Path(f"{name}.import-{fingerprint[:12]}")


@contextmanager
def workspace(folder: Path | None) -> Iterator[tuple[Path | None, bool]]:
    """Gives (folder for staging, whether an earlier try left it), and keeps other imports out of it.

    The folder is removed at the end. It stays where the import can go on with it: after a kill or an interrupt, and
    when the disk or the database failed.

    Raises:
        UsageError: the same import runs already.
        StorageError: the folder cannot be made.
    """
    if folder is None:
        yield None, False
        return
    stage = folder / _STAGE
    lock, found = _enter(folder, stage)
    keep = False
    try:
        yield stage, found
    except BaseException as error:
        keep = _can_go_on(error)
        if keep:
            logger.info("what was read so far stays in %s; the same command goes on with it", folder)
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _enter(folder: Path, stage: Path) -> tuple[int, bool]:
    """Makes and locks a folder; returns the lock, and whether an earlier try left something to go on with."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(folder / _LOCK)
        found = stage.is_dir()
        stage.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be created ({error.strerror})", hint="check that the folder exists and can be written"
        ) from error
    return lock, found


def _lock(path: Path) -> int:
    """Locks a file that an import which ends just now may be about to remove."""
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        except FileNotFoundError:  # the folder went away under our hands
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise UsageError("this import is running already", hint="wait for it, or stop it first") from None
        os.close(handle)


def _can_go_on(error: BaseException) -> bool:
    if isinstance(error, StorageError):
        return not any(word in str(error).lower() for word in _DAMAGED)
    return not isinstance(error, Exception) or isinstance(error, OSError | MemoryError)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror})", file=path) from error
    return found.st_size, found.st_mtime_ns


def _home() -> Path:
    home = os.environ.get("WARDSTAR_HOME")
    return Path(home) if home else Path.home() / ".local" / "share" / "wardstar"
