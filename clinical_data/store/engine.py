"""Opens a database, runs transactions on it, and turns every foreign error into a StorageError.

SQLite: a file of mode 0600, WAL journal, foreign keys on, 30 s of patience with a lock. A writing transaction takes
its lock at the start (BEGIN IMMEDIATE), so that it waits for its turn instead of failing in the middle.

PostgreSQL behaves alike: a writing transaction begins with an advisory lock of the schema, waits 30 s for it, and then
sees all that was committed before it; a reading one sees one moment of the database (REPEATABLE READ).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from clinical_data.errors import StorageError

BUSY_SECONDS = 30
CONNECT_SECONDS = 10
_WRITE_OPTION = "wardstar_write"
_URL_HINT = "write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"

# What an SQLite or PostgreSQL message starts or contains -> what to do about it.
_HINTS = {
    "database is locked": "another wardstar process is writing; wait for it, or use PostgreSQL for many writers",
    "disk is full": "free some disk space, then run the same command again",
    "disk i/o error": "check the disk and its free space, then run the same command again",
    "no space left": "free some disk space on the server, then run the same command again",
    "not a database": "the file is no SQLite database; check --db",
    "malformed": "the database is damaged; restore it from a copy, or import again into a new file",
    "readonly": "the database or its folder cannot be written; check their permissions",
    "read-only": "the database or its folder cannot be written; check their permissions",
    "unable to open": "check that the folder exists and that you may read and write there",
    "no such table": "the database was not made by this program; check --db",
    "no such column": "the database was not made by this program; check --db",
    "lock timeout": "another wardstar process is writing; wait for it",
    "does not exist": "check --db; `createdb` makes an empty database",
    "permission denied": "give this user the right to make tables in the database (GRANT CREATE ON SCHEMA ...)",
    "too many clients": "take fewer --workers, or let the server take more connections (max_connections)",
    "connection slots": "take fewer --workers, or let the server take more connections (max_connections)",
    "connection refused": "check that the database server runs, and its host and port",
    "password authentication": "check user name and password in --db",
}


@contextmanager
def storage_errors(what: str = "database") -> Iterator[None]:
    """Turns every database error inside the block into a StorageError.

    The message holds the driver's first line only: what follows may quote row values.

    Args:
        what: what the message calls the database.

    Raises:
        StorageError: in place of any SQLAlchemy or sqlite3 error.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _storage_error(error, what) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Gives a connection in a transaction that only reads.

    Raises:
        StorageError: the database failed.
    """
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with storage_errors(name_of(engine.url)), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Gives a connection in a writing transaction: committed at the end, rolled back at any error.

    Raises:
        StorageError: the database failed, or stayed locked for 30 s.
    """
    with storage_errors(name_of(engine.url)), engine.execution_options(**{_WRITE_OPTION: True}).begin() as connection:
        _take_turn(connection)
        yield connection


@contextmanager
def rebuilding(engine: Engine) -> Iterator[Connection]:
    """Gives a connection in a writing transaction in which tables may be rebuilt, as SQLite needs to alter them.

    SQLite: foreign keys are off until the end, and then checked as a whole.

    Raises:
        StorageError: the database failed, or a row would refer to one that is not there; nothing is changed.

    Source: sqlite.org/lang_altertable.html, section 7, "Making Other Kinds Of Table Schema Changes".
    """
    name = name_of(engine.url)
    if engine.dialect.name != "sqlite":
        with writing(engine) as connection:
            yield connection
        return
    with storage_errors(name), engine.execution_options(**{_WRITE_OPTION: True}).connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")  # changes nothing inside a transaction, hence before it
        try:
            with connection.begin():
                yield connection
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise StorageError(f"{name}: a row refers to one that is missing", hint=_HINTS["malformed"])
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def open_engine(url: str, *, create: bool) -> Engine:
    """Opens a database; makes no tables (see `evaluation.store.open_database`).

    Args:
        url: SQLAlchemy URL: `sqlite:///FILE` or `postgresql+psycopg://USER@HOST/NAME`.
        create: make the SQLite file (mode 0600) when it is missing.

    Raises:
        StorageError: bad URL, missing or unreadable file, not a database, driver missing, server unreachable.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageError("not a database URL", hint=_URL_HINT) from error
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, create)
    name = name_of(parsed)
    if parsed.get_backend_name() != "postgresql":
        raise StorageError(f"{name}: unknown kind of database", hint=_URL_HINT)
    if "connect_timeout" not in parsed.query:
        parsed = parsed.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})
    try:
        with storage_errors(name):
            engine = create_engine(parsed, hide_parameters=True, pool_pre_ping=True)
            with engine.connect() as connection:
                encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    except ModuleNotFoundError as error:
        raise StorageError(
            f"{name}: the driver {error.name} is not installed", hint="pip install 'wardstar[postgresql]'"
        ) from error
    if encoding != "UTF8":
        engine.dispose()
        raise StorageError(f"{name}: encoding {encoding}", hint="make the database with `createdb --encoding=UTF8`")
    return engine


def name_of(url: URL) -> str:
    """Returns a name for messages: the file of an SQLite URL, else the URL without its password."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return url.render_as_string(hide_password=True)


def _open_sqlite(url: URL, create: bool) -> Engine:
    name = name_of(url)
    path = None if name == ":memory:" or name.startswith("file:") else Path(name)
    made = path is None
    if path is not None and not path.exists():
        if not create:
            raise StorageError(f"{name}: no such database", hint="import cases first, or check --db")
        _make_private(path)
        made = True
    with storage_errors(name):
        engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare_connection)
        event.listen(engine, "begin", _begin)
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    # The journal mode is a lasting property of the file: set at its birth, so that opening changes nothing.
    if made and path is not None:
        with storage_errors(name):
            _set_wal(path)
    return engine


def _make_private(path: Path) -> None:
    """Creates an empty file that only its owner can read; SQLite gives its -wal and -shm files the same mode."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be created ({error.strerror})", hint="check that the folder exists and can be written"
        ) from error
    try:
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


def _set_wal(path: Path) -> None:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _prepare_connection(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # sqlite3 must not begin transactions itself; `_begin` does
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=NORMAL")  # safe with WAL: a power cut may lose the last commit, never tear


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _take_turn(connection: Connection) -> None:
    """Waits until no other writing transaction of this schema is open; SQLite's BEGIN IMMEDIATE has done so already."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = '{int(BUSY_SECONDS * 1000)}ms';"
            "SELECT pg_advisory_xact_lock(hashtextextended('wardstar:' || coalesce(current_schema(), ''), 0))"
        )


def _storage_error(error: Exception, what: str) -> StorageError:
    if isinstance(error, NoSuchModuleError):
        return StorageError(f"{what}: unknown kind of database", hint=_URL_HINT)
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(error, DataError):  # PostgreSQL quotes the value that it refuses
        return StorageError(f"{what}: holds no such value ({type(origin).__name__})")
    lines = str(origin).strip().splitlines()
    text = lines[0] if lines else type(origin).__name__
    hint = next((h for part, h in _HINTS.items() if part in str(origin).lower()), "")
    return StorageError(f"{what}: {text}", hint=hint)
