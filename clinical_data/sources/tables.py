"""Reads a folder of tables (`.csv`, `.csv.gz`): only listed columns, each as its declared type, case by case.

A row that cannot be read goes to the import log with its line; a file that cannot be read goes there as a whole. The
rows lie in a duckdb file and are handed out in portions of a few hundred cases, so that memory does not grow with the
folder. In a workspace that outlives a kill, what is loaded stays loaded.

Three phases: `load` copies the listed columns, `arrange` sorts them by case with queries that the source supplies,
`cases` hands out the rows.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from clinical_data.errors import BadInputError, StorageError
from clinical_data.sources import ImportJob, ImportLog, Quarantined
from clinical_data.sources.table_files import (
    UnreadableTable,
    find_tables,
    lines_too_long,
    lines_with_empty,
    read_header,
)

Row = dict[str, Any]

TEXT, WHOLE, NUMBER, TIME, DATE = "VARCHAR", "BIGINT", "DOUBLE", "TIMESTAMP", "DATE"

_REASONS = {
    "CAST": "a value is not of the declared type",
    "MISSING COLUMNS": "the row has too few fields",
    "TOO MANY COLUMNS": "the row has too many fields",
    "UNQUOTED VALUE": "a quotation mark is missing",
    "INVALID ENCODING": "the row is not UTF-8",
    "LINE SIZE OVER MAXIMUM": "the line is too long",
}
_MEMORY = "256MB"  # of duckdb; it spills to disk beyond
_PORTION = 400  # cases handed out at once
_BATCH = 4096  # rows
_LEAST_FREE = 64 << 20  # bytes; a failure with less than that left is one of the disk, not of the file

_SCHEMA = """
CREATE TABLE IF NOT EXISTS wardstar_done (unit VARCHAR PRIMARY KEY, total BIGINT, orphans BIGINT);
CREATE TABLE IF NOT EXISTS wardstar_trouble (
    unit VARCHAR, file VARCHAR, line BIGINT, reason VARCHAR, resource VARCHAR
);
"""


@dataclass(frozen=True, slots=True)
class Table:
    """What is read of one table.

    Attributes:
        name: as the source spells it; a file is found by it whatever its case.
        key: columns that identify a row; a repeated key is quarantined. Empty: the table has no key.
        columns: column -> duckdb type. Nothing else of the file is kept.
        needed: columns besides the key that no row may leave empty.
        optional: columns that a file may lack; they then read NULL.
        only: a column and the values of it that are wanted; other rows are not kept.
    """

    name: str
    key: tuple[str, ...]
    columns: dict[str, str]
    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    only: tuple[str, frozenset[int]] | None = None

    @property
    def never_empty(self) -> tuple[str, ...]:
        """Columns that no row may leave empty."""
        return tuple(dict.fromkeys((*self.key, *self.needed)))


class TableFolder:
    """The tables of one folder, in a duckdb database; a context manager.

    Attributes:
        loaded: names of the tables that could be read.
        database: the duckdb connection, for queries of the source's own.
    """

    def __init__(self, folder: Path, tables: Sequence[Table], log: ImportLog, job: ImportJob) -> None:
        """Opens the database and finds the files; reads none of them yet.

        Raises:
            BadInputError: no such folder.
        """
        if not folder.is_dir():
            raise BadInputError("no such folder", file=folder, hint="name the folder that holds the tables")
        self._folder, self._tables, self._log, self._job = folder, tuple(tables), log, job
        self._own = tempfile.TemporaryDirectory(prefix="wardstar-tables-") if job.workspace is None else None
        self._scratch = Path(self._own.name) if self._own else job.workspace or folder
        self._files = find_tables(folder, {t.name.lower() for t in tables})
        self._size = sum(f[0].stat().st_size for f in self._files.values())
        self._names: dict[str, list[str]] = {}
        self.loaded: set[str] = set()
        self.database = self._connect()

    def __enter__(self) -> TableFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()
        if self._own:
            self._own.cleanup()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        path = self._scratch / "tables.duckdb"
        try:
            database = duckdb.connect(str(path))
        except duckdb.Error:  # damaged by a kill in the wrong moment: start again
            for left in self._scratch.glob("tables.duckdb*"):
                left.unlink()
            database = duckdb.connect(str(path))
        database.execute("SET enable_progress_bar = false")  # it would go to stdout
        database.execute(f"SET memory_limit = '{_MEMORY}'")
        database.execute(f"SET threads = {min(4, os.cpu_count() or 1)}")
        database.execute(f"SET temp_directory = {quoted(str(self._scratch / 'spill'))}")
        database.execute(_SCHEMA)
        return database

    def load(self, root: str) -> None:
        """Loads every table there is; one that was loaded in an earlier try is only reported again.

        Args:
            root: name of the table without which there is no case.

        Raises:
            BadInputError: the root table is missing or cannot be read.
            StorageError: the working files cannot be written.
        """
        done = 0
        if root.lower() not in self._files:
            raise BadInputError(f"no {root} table ({root}.csv or {root}.csv.gz)", file=self._folder)
        for table in self._tables:
            found = self._files.get(table.name.lower(), [])
            if not found:
                self._log.unused[f"table {table.name} is missing"] += 1
                continue
            for second in found[1:]:
                reason = f"{found[0].name} is used instead"
                self._log.quarantined(Quarantined(self._shown(second), None, reason, f"table {table.name}"))
            with _working_files(self._scratch):
                reason = self._load_once(table, found[0])
            if reason and table.name == root:
                raise BadInputError(reason, file=found[0])
            if not reason:
                self.loaded.add(table.name)
            done += found[0].stat().st_size
            self._log.progress(done, 2 * self._size)

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _load_once(self, table: Table, path: Path) -> str:
        """Loads a table in one transaction, unless that was done before; returns why it cannot be read, or nothing."""
        known = self.database.execute("SELECT total FROM wardstar_done WHERE unit = ?", [table.name]).fetchone()
        reason = ""
        if known is None:
            self.database.execute("BEGIN")
            try:
                total: int | None = self._load(table, path)
            except (UnreadableTable, duckdb.Error, OSError, EOFError, csv.Error, zlib.error) as error:
                self._rollback()
                if isinstance(error, duckdb.OutOfMemoryException) or _disk_full(self._scratch):
                    raise
                # duckdb quotes the row at fault in its message; only the kind of error may go on.
                reason = f"the file cannot be read to its end ({type(error).__name__})"
                if isinstance(error, UnreadableTable):
                    reason = str(error)
                self.database.execute("BEGIN")
                self._trouble(table.name, [(self._shown(path), None, reason, f"table {table.name}")])
                total = None
            self.database.execute("INSERT INTO wardstar_done VALUES (?, ?, 0)", [table.name, total])
            self.database.execute("COMMIT")
        else:
            total = known[0]
        self._report(table.name)
        if total is None:
            return reason or "the file could not be read"
        self._log.read[table.name] += total
        return ""

    def _rollback(self) -> None:
        with contextlib.suppress(duckdb.Error):  # an error may have ended the transaction already
            self.database.execute("ROLLBACK")

    def _trouble(self, unit: str, rows: Iterable[tuple[str, int | None, str, str]]) -> None:
        for file, line, reason, resource in rows:
            values = [unit, file, line, reason, resource]
            self.database.execute("INSERT INTO wardstar_trouble VALUES (?, ?, ?, ?, ?)", values)

    def _report(self, unit: str) -> None:
        """Hands the troubles of a unit to the import log."""
        query = "SELECT file, line, reason, resource FROM wardstar_trouble WHERE unit = ? ORDER BY rowid"
        for row in _fetch(self.database.cursor().execute(query, [unit])):
            self._log.quarantined(Quarantined(*row))

    def _load(self, table: Table, path: Path) -> int:
        """Copies a table into the database and takes out what cannot be used; returns the number of rows kept."""
        header = read_header(path)
        absent = [c for c in table.columns if c not in header]
        if missing := [c for c in absent if c not in table.optional]:
            raise UnreadableTable(f"column {missing[0]} is missing")
        with ThreadPoolExecutor(1) as beside:  # both release the interpreter
            too_long = beside.submit(lines_too_long, path)
            self._copy(table, path, header, absent)
        self._report_too_long(table, path, too_long.result())
        empty = " OR ".join(f"{column} IS NULL" for column in table.never_empty)
        if empty and self._one(f"SELECT count(*) FROM {table.name} WHERE {empty}"):
            places = lines_with_empty(path, table.never_empty)
            file, resource = self._shown(path), f"table {table.name}"
            self._trouble(table.name, ((file, line, f"{column} is empty", resource) for line, column in places))
            self.database.execute(f"DELETE FROM {table.name} WHERE {empty}")
        if table.key:
            self._drop_repeated(table, path)
        return self._one(f"SELECT count(*) FROM {table.name}")

    def _copy(self, table: Table, path: Path, header: list[str], absent: list[str]) -> None:
        """Copies the wanted columns of a file into the database, and its broken rows to the troubles."""
        for name in ("reject_errors", "reject_scans"):
            self.database.execute(f"DROP TABLE IF EXISTS {name}")
        wanted = ", ".join(f"CAST(NULL AS {t}) AS {c}" if c in absent else c for c, t in table.columns.items())
        # A column that is not wanted gets a name of ours, so that nothing of the file's header enters the query.
        types = {c if c in table.columns else f"unused_{i}": table.columns.get(c, TEXT) for i, c in enumerate(header)}
        listed = ", ".join(map(str, sorted(table.only[1]))) if table.only else ""
        self.database.execute(
            f"CREATE TABLE {table.name} AS SELECT {wanted} FROM read_csv($path, columns = {types}, header = true, "
            "auto_detect = false, delim = ',', quote = '\"', escape = '\"', store_rejects = true)"
            + (f" WHERE {table.only[0]} IN ({listed})" if table.only else ""),
            {"path": str(path)},
        )
        reasons = " ".join(f"WHEN {quoted(kind)} THEN {quoted(text)}" for kind, text in _REASONS.items())
        self.database.execute(
            f"""INSERT INTO wardstar_trouble
            SELECT $unit, $file, line, CASE kind {reasons} ELSE 'the row cannot be read' END
                || CASE WHEN kind = 'CAST' THEN ' (' || name || ')' ELSE '' END, 'table ' || $unit
            FROM (SELECT line, arg_min(CAST(error_type AS VARCHAR), coalesce(column_idx, 0)) AS kind,
                         arg_min(column_name, coalesce(column_idx, 0)) AS name FROM reject_errors GROUP BY line)
            ORDER BY line""",
            {"unit": table.name, "file": self._shown(path)},
        )

    def _report_too_long(self, table: Table, path: Path, lines: Sequence[int]) -> None:
        query = "SELECT line FROM wardstar_trouble WHERE unit = ?"
        known = {row[0] for row in self.database.execute(query, [table.name]).fetchall()} if lines else set()
        reason, resource = _REASONS["LINE SIZE OVER MAXIMUM"], f"table {table.name}"
        self._trouble(table.name, ((self._shown(path), n, reason, resource) for n in lines if n not in known))

    def _drop_repeated(self, table: Table, path: Path) -> None:
        keys = ", ".join(table.key)
        twice = (
            f"SELECT {keys}, count(*) AS times, min(rowid) AS first FROM {table.name} GROUP BY {keys} HAVING times > 1"
        )
        if not self._one(f"SELECT count(*) FROM ({twice})"):
            return
        named = " || ' ' || ".join(f"CAST({k} AS VARCHAR)" for k in table.key)
        self.database.execute(
            f"INSERT INTO wardstar_trouble SELECT $unit, $file, NULL, {quoted('+'.join(table.key))} || ' occurs ' || "
            f"times || ' times; the first row is used', $unit || ' ' || {named} FROM ({twice}) ORDER BY ALL",
            {"unit": table.name, "file": self._shown(path)},
        )
        same = " AND ".join(f"t.{k} = d.{k}" for k in table.key)
        self.database.execute(f"DELETE FROM {table.name} t USING ({twice}) d WHERE {same} AND t.rowid <> d.first")

    def _one(self, query: str) -> int:
        row = self.database.execute(query).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def arrange(self, root: str, feeds: Mapping[str, str]) -> None:
        """Sorts what is to be handed out by case; a feed that was sorted in an earlier try is left as it is.

        Args:
            root: query of one row per case, with its key as text in the column `case_key`; the order of cases.
            feeds: name -> query of the rows that belong to a case, with `case_key` (NULL: to none) and `row_key`, which
                orders the rows of a case. A row may belong to several cases.

        Raises:
            StorageError: the working files cannot be written.
        """
        with _working_files(self._scratch):
            self._sort_once("root", f"SELECT *, row_number() OVER (ORDER BY case_key) AS case_number FROM ({root})")
            for name, query in feeds.items():
                joined = f"SELECT f.*, r.case_number FROM ({query}) f JOIN case_root r USING (case_key)"
                self._sort_once(name, f"{joined} ORDER BY case_number, row_key", query)
                orphans = self._one(f"SELECT orphans FROM wardstar_done WHERE unit = {quoted('case ' + name)}")
                if orphans:
                    self._log.unused[f"{name}: belongs to no case"] += orphans
        for name in ("root", *feeds):
            described = self.database.execute(f"DESCRIBE case_{name}").fetchall()
            self._names[name] = [str(column[0]) for column in described]

    def _sort_once(self, name: str, query: str, source: str = "") -> None:
        unit = f"case {name}"
        if self.database.execute("SELECT 1 FROM wardstar_done WHERE unit = ?", [unit]).fetchone():
            return
        self.database.execute("BEGIN")
        self.database.execute(f"CREATE TABLE case_{name} AS {query}")
        orphans = 0
        if source:
            orphans = self._one(
                f"SELECT count(*) FROM ({source}) f WHERE case_key IS NULL OR case_key NOT IN "
                "(SELECT case_key FROM case_root)"
            )
        total = self._one(f"SELECT count(*) FROM case_{name}")
        self.database.execute("INSERT INTO wardstar_done VALUES (?, ?, ?)", [unit, total, orphans])
        self.database.execute("COMMIT")

    def cases(self, skip: Callable[[str], bool] = lambda key: False) -> Iterator[tuple[Row, dict[str, list[Row]]]]:
        """Yields each case's root row and its rows per feed, in order of `case_key`; those to skip are left out."""
        total = self._one("SELECT count(*) FROM case_root")
        feeds = [name for name in self._names if name != "root"]
        for first in range(1, total + 1, _PORTION):
            last = first + _PORTION - 1
            roots = [r for r in self._portion("root", first, last) if not skip(r["case_key"])]
            rows: dict[int, dict[str, list[Row]]] = {r["case_number"]: {f: [] for f in feeds} for r in roots}
            for feed in feeds if roots else ():
                for row in self._portion(feed, first, last):
                    if row["case_number"] in rows:
                        rows[row["case_number"]][feed].append(row)
            for root in roots:
                yield root, rows.pop(root["case_number"])
            self._log.progress(self._size + self._size * min(last, total) // max(1, total), 2 * self._size)

    def _portion(self, name: str, first: int, last: int) -> Iterator[Row]:
        order = "case_number" if name == "root" else "case_number, row_key"
        cursor = self.database.cursor()
        cursor.execute(f"SELECT * FROM case_{name} WHERE case_number BETWEEN {first} AND {last} ORDER BY {order}")
        names = self._names[name]
        for values in _fetch(cursor):
            yield dict(zip(names, values, strict=True))


def _fetch(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while batch := cursor.fetchmany(_BATCH):
        yield from batch


def quoted(text: str) -> str:
    """Returns a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _disk_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _LEAST_FREE


@contextlib.contextmanager
def _working_files(scratch: Path) -> Iterator[None]:
    """Turns a failure of duckdb's own files into a StorageError without the values that its message may quote."""
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        hint = "free some disk space, then run the same command again"
        raise StorageError(f"{scratch}: working files cannot be written ({type(error).__name__})", hint=hint) from error
