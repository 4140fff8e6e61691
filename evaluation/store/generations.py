"""Generations of models as they are kept, for all runs together: the `GenerationCache` of the search.

They belong to no run: deleting one leaves them, so that the same configuration can be replayed at no cost. What no run
has used for some days is removed by `prune` (`wardstar runs prune`). A generation may quote the record of a patient
and is as confidential as the cases beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from clinical_data.store.engine import reading, writing
from evaluation.store.tables import generations
from search.generation_cache import CacheChanges

KEYS_AT_ONCE = 500  # keys of one query


class GenerationStore:
    """Reads the generations of one database, and removes them. Raises StorageError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns key -> value of those keys that are stored."""
        if not keys:
            return {}
        c = generations.c
        with reading(self.engine) as connection:
            queries = (select(c.key, c.value).where(c.key.in_(some)) for some in _portions(keys))
            return {row.key: row.value for query in queries for row in connection.execute(query)}

    def prune(self, days: int) -> int:
        """Removes the generations that no run has used for `days` days (0: all), and returns their number."""
        last = _day(datetime.now(UTC) - timedelta(days=days))
        with writing(self.engine) as connection:
            return connection.execute(delete(generations).where(generations.c.last_used <= last)).rowcount


def put_changes(connection: Connection, changes: CacheChanges) -> None:
    """Stores what a case-step computed and marks what it used, within the caller's transaction.

    A key that is there already, because another process was faster or its value was damaged, takes the new value.
    """
    today, c = _day(datetime.now(UTC)), generations.c
    for some in _portions(sorted(changes.used)):
        connection.execute(update(generations).where(c.key.in_(some), c.last_used < today).values(last_used=today))
    if changes.new:
        dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(generations)
        taken = {"value": statement.excluded.value, "last_used": statement.excluded.last_used}
        rows = [{"key": k, "value": v, "last_used": today} for k, v in sorted(changes.new.items())]
        connection.execute(statement.on_conflict_do_update(index_elements=[c.key], set_=taken), rows)


def _portions(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(keys)
    while some := list(islice(remaining, KEYS_AT_ONCE)):
        yield some


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
