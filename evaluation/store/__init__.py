"""The run store, in the same database as the cases, and the door to that database."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from clinical_data.store.engine import open_engine
from evaluation import migrations

__all__ = ["existing_database", "open_database"]


def open_database(url: str, create: bool) -> Engine:
    """Opens a database and brings its tables up to date.

    Args:
        url: SQLAlchemy URL (`sqlite:///wardstar.db`, `postgresql+psycopg://...`).
        create: make the SQLite file or the first tables when they are missing.

    Raises:
        StorageError: missing without `create`, unreadable, not a wardstar database, or written by a newer version
            (the database is then left as it was).
    """
    engine = open_engine(url, create=create)
    try:
        migrations.check(engine, allow_empty=create)
        migrations.upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def existing_database(url: str) -> Iterator[Engine]:
    """Opens a database that is there already, and closes it afterwards.

    Raises:
        StorageError: as `open_database`.
    """
    engine = open_database(url, create=False)
    try:
        yield engine
    finally:
        engine.dispose()
