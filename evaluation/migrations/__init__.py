"""The chain of database versions (Alembic) over case tables and run tables, run from within the program."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect

from clinical_data.errors import StorageError
from clinical_data.store.engine import name_of, reading, rebuilding

__all__ = ["check", "downgrade", "upgrade"]


def check(engine: Engine, *, allow_empty: bool = True) -> None:
    """Makes sure that this program may use the database; changes nothing.

    Args:
        engine: the database.
        allow_empty: accept a database without any table.

    Raises:
        StorageError: the database is empty (unless allowed), belongs to another program, or has a version that this
            program does not know.
    """
    name = name_of(engine.url)
    with reading(engine) as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        empty = not set(inspect(connection).get_table_names()) - {"alembic_version"}
    if revision is None:
        if not empty:
            raise StorageError(f"{name}: not a wardstar database", hint="name another database with --db")
        if not allow_empty:
            raise StorageError(f"{name}: holds no cases", hint="import cases first, or check --db")
    elif revision not in _known_revisions():
        raise StorageError(
            f"{name}: written by a newer version of wardstar (schema {revision})",
            hint="install that version, or use another database; this one was left as it was",
        )


def upgrade(engine: Engine) -> None:
    """Brings the tables to the newest version, in one transaction.

    Raises:
        StorageError: the database failed; it is left as it was.
    """
    with reading(engine) as connection:
        if MigrationContext.configure(connection).get_current_revision() == _scripts().get_current_head():
            return
    with rebuilding(engine) as connection:
        command.upgrade(_config(connection), "head")


def downgrade(engine: Engine, revision: str) -> None:
    """Takes the tables back to an earlier version (`base`: none at all), in one transaction.

    Raises:
        StorageError: the database failed; it is left as it was.
    """
    with rebuilding(engine) as connection:
        command.downgrade(_config(connection), revision)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _known_revisions() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}
