"""Reads the shards of a MEDS data set into a duckdb file: the events that mean something, each shard once.

A shard that cannot be read goes to the import log as a whole, an event that cannot be with its number in the shard.
What a code means is decided once per code. In a workspace that outlives a kill, what is loaded stays loaded.

Source: MEDS 0.3 and 0.4, github.com/Medical-Event-Data-Standard/meds, schema.py.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinical_data.case import Coding
from clinical_data.codes import standard
from clinical_data.errors import BadInputError
from clinical_data.sources import ImportJob, ImportLog, Quarantined
from clinical_data.sources.meds_codes import DIAGNOSIS, UNUSED, Meaning, meaning_of
from clinical_data.sources.mimic_common import MACROS
from clinical_data.sources.table_files import UnreadableTable
from clinical_data.sources.tables import Table, TableFolder

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_NUMBERS = (*_WHOLE, "HUGEINT", "FLOAT", "DOUBLE")
_CODES = "metadata/codes.parquet"
_SPLITS = "metadata/subject_splits.parquet"
EVENTS = "events"  # what the import log calls the rows of all shards

_LONGEST = 2_000_000  # bytes of a text, as in a line of a table

# of an event of a shard `e`
_SOUND = "(e.subject_id IS NOT NULL AND coalesce(e.code, '') <> '' AND (e.time IS NULL OR usable(e.time)))"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    subject_id BIGINT, time TIMESTAMP, code VARCHAR, hadm VARCHAR, stay VARCHAR, number DOUBLE, text VARCHAR,
    how VARCHAR, unit VARCHAR, rank BIGINT
);
CREATE TABLE IF NOT EXISTS codes (
    code VARCHAR, use VARCHAR, kind VARCHAR, system VARCHAR, item VARCHAR, display VARCHAR, unit VARCHAR, lag BIGINT,
    day VARCHAR, value VARCHAR, pending BOOLEAN, reason VARCHAR
);
CREATE TABLE IF NOT EXISTS described (code VARCHAR, description VARCHAR, parents VARCHAR[]);
CREATE TABLE IF NOT EXISTS splits (subject_id BIGINT, split VARCHAR);
CREATE TABLE IF NOT EXISTS left_out (unit VARCHAR, reason VARCHAR, n BIGINT);
"""


class MedsFolder(TableFolder):
    """A MEDS data set, in a duckdb database; a context manager.

    Attributes:
        dataset: name and version of the data set, as its `dataset.json` says; empty where it does not.
    """

    def __init__(self, folder: Path, log: ImportLog, job: ImportJob) -> None:
        """Opens the database and finds the shards; reads none of them yet.

        Raises:
            BadInputError: no such folder, or no shard in it.
        """
        if not folder.is_dir():
            raise BadInputError("no such folder", file=folder, hint="name the folder that holds data and metadata")
        found = sorted((folder / "data").rglob("*.parquet"))
        self._shards = [path for path in found if path.is_file()]
        if not self._shards:
            raise BadInputError("no shard (data/**/*.parquet)", file=folder)
        super().__init__(folder, (), log, job)
        self._size = max(1, sum(shard.stat().st_size for shard in self._shards))
        self.database.execute(_SCHEMA)
        self.database.execute(MACROS)
        self.dataset = self._dataset()
        for path in found:
            if path not in self._shards:  # a folder, or a link that leads nowhere
                log.quarantined(Quarantined(self._shown(path), None, "no file that can be read", "shard"))

    def __enter__(self) -> MedsFolder:
        return self

    def load_shards(self) -> None:
        """Loads the metadata and every shard; what was loaded in an earlier try is only reported again.

        Raises:
            BadInputError: no shard can be read.
            StorageError: the working files cannot be written.
        """
        for name in (_CODES, _SPLITS):
            if (self._folder / name).is_file():
                self._load_once(Table(name, (), {}), self._folder / name)
                self._log.read.pop(name, None)
        done = usable = 0
        for shard in self._shards:
            unit = self._shown(shard)
            usable += not self._load_shard(unit, shard)
            self._log.read[EVENTS] += self._log.read.pop(unit, 0)
            done += shard.stat().st_size
            self._log.progress(done, 2 * self._size)
        if not usable:
            raise BadInputError("no shard can be read", file=self._folder)
        query = "SELECT reason, sum(n) FROM left_out GROUP BY reason ORDER BY reason"
        for reason, n in self.database.execute(query).fetchall():
            self._log.unused[f"events: {reason}"] += int(n)

    def _load_shard(self, unit: str, shard: Path) -> str:
        return self._load_once(Table(unit, (), {}), shard)

    def _load(self, table: Table, path: Path) -> int:
        """Copies one file into the database; returns the number of its rows."""
        source = f"read_parquet({_literal(str(path))}, file_row_number = true)"
        described = self.database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        columns = {str(row[0]): str(row[1]) for row in described}
        if table.name == _CODES:
            return self._load_codes(source, columns)
        if table.name == _SPLITS:
            _need(columns, {"subject_id": _WHOLE, "split": ("VARCHAR",)})
            self.database.execute(f"INSERT INTO splits SELECT subject_id, split FROM {source}")
            return 0
        _need(columns, {"subject_id": _WHOLE, "time": ("TIMESTAMP",), "code": ("VARCHAR", "ENUM")})
        for name, kinds in {"numeric_value": _NUMBERS, "text_value": ("VARCHAR", "ENUM")}.items():
            if name in columns:
                _need(columns, {name: kinds})
        self._learn(source)
        if "text_value" in columns:
            self._drop_long(table.name, source)
            source = f"(SELECT * FROM {source} WHERE coalesce(strlen(CAST(text_value AS VARCHAR)), 0) <= {_LONGEST})"
        self._broken(table.name, source)
        return self._copy_events(table.name, source, columns)

    def _load_codes(self, source: str, columns: dict[str, str]) -> int:
        _need(columns, {"code": ("VARCHAR", "ENUM")})
        told = "description" if columns.get("description") == "VARCHAR" else "NULL"
        above = "parent_codes" if columns.get("parent_codes") == "VARCHAR[]" else "NULL"
        self.database.execute(
            f"INSERT INTO described SELECT code, {told}, {above} FROM {source} WHERE code IS NOT NULL"
        )
        return 0

    def _learn(self, source: str) -> None:
        """Decides what the codes of a shard mean that no shard before had."""
        rows = self.database.execute(
            f"""SELECT e.code, coalesce(any_value(d.description), ''), coalesce(any_value(d.parents), [])
            FROM (SELECT DISTINCT CAST(code AS VARCHAR) AS code FROM {source} WHERE code IS NOT NULL) e
                LEFT JOIN described d USING (code) WHERE e.code NOT IN (SELECT code FROM codes)
            GROUP BY e.code ORDER BY e.code"""
        ).fetchall()
        if not rows:
            return
        learned = [_row(code, meaning_of(code, text, [p for p in parents if p])) for code, text, parents in rows]
        columns = ", ".join(f"unnest(${i})" for i in range(1, len(learned[0]) + 1))
        self.database.execute(f"INSERT INTO codes SELECT {columns}", [list(c) for c in zip(*learned, strict=True)])

    def _drop_long(self, unit: str, source: str) -> None:
        self.database.execute(
            f"""INSERT INTO wardstar_trouble
            SELECT $unit, $unit, e.file_row_number + 1, 'text_value is too long', 'event' FROM {source} e
            WHERE strlen(CAST(e.text_value AS VARCHAR)) > {_LONGEST} ORDER BY e.file_row_number""",
            {"unit": unit},
        )

    def _broken(self, unit: str, source: str) -> None:
        self.database.execute(
            f"""INSERT INTO wardstar_trouble
            SELECT $unit, $unit, e.file_row_number + 1, CASE WHEN e.subject_id IS NULL THEN 'subject_id is empty'
                WHEN coalesce(e.code, '') = '' THEN 'code is empty' ELSE 'time is no time that can be' END, 'event'
            FROM {source} e WHERE NOT {_SOUND} ORDER BY e.file_row_number""",
            {"unit": unit},
        )

    def _copy_events(self, unit: str, source: str, columns: dict[str, str]) -> int:
        number = "NULL"
        if "numeric_value" in columns:
            # A 32-bit number reads as it was written (4.2), not as the nearest 64-bit one (4.19999980926514).
            number = "TRY_CAST(CAST(e.numeric_value AS VARCHAR) AS DOUBLE)"
            number = f"CASE WHEN isfinite({number}) THEN {number} END"
        how = [f"CAST(e.{name} AS VARCHAR)" for name in ("route", "frequency") if name in columns]
        ranks = [f"TRY_CAST(e.{name} AS BIGINT)" for name in ("seq_num", "priority") if name in columns]
        self.database.execute(
            f"""INSERT INTO events SELECT e.subject_id, CAST(e.time AS TIMESTAMP), e.code, {_key(columns, "hadm_id")},
                {_key(columns, "icustay_id")}, {number}, {_text(columns, "text_value")},
                {f"concat_ws(' ', {', '.join(how)})" if how else "NULL"}, {_text(columns, "unit")},
                {f"CASE WHEN c.use = '{DIAGNOSIS}' THEN coalesce({', '.join(ranks)}) END" if ranks else "NULL"}
            FROM {source} e JOIN codes c ON c.code = e.code WHERE c.use <> '{UNUSED}' AND {_SOUND}"""
        )
        self.database.execute(
            f"""INSERT INTO left_out SELECT ?, c.reason, count(*) FROM {source} e JOIN codes c ON c.code = e.code
            WHERE c.use = '{UNUSED}' AND {_SOUND} GROUP BY c.reason""",
            [unit],
        )
        return self._one(f"SELECT count(*) FROM {source} e WHERE {_SOUND}")

    def _dataset(self) -> str:
        for path in (self._folder / "metadata" / "dataset.json", self._folder / "metadata" / "dataset.json.gz"):
            if not path.is_file():
                continue
            try:
                raw = path.read_bytes()
                told = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
                return " ".join(str(told[k]) for k in ("dataset_name", "dataset_version") if told.get(k))
            except (OSError, ValueError, EOFError, zlib.error, AttributeError, KeyError, RecursionError):
                self._log.quarantined(
                    Quarantined(self._shown(path), None, "the file is no JSON object", "dataset.json")
                )
        return ""


def _row(code: str, meaning: Meaning) -> tuple[Any, ...]:
    item, system = meaning.code, meaning.system
    if meaning.use == DIAGNOSIS:
        item = standard(Coding(system, item)).code
    return (
        code, meaning.use, str(meaning.kind), system, item, meaning.display, meaning.unit, meaning.lag, meaning.day,
        meaning.value, meaning.pending, meaning.reason,
    )  # fmt: skip


def _need(columns: dict[str, str], wanted: dict[str, Sequence[str]]) -> None:
    """Raises UnreadableTable where a column is missing or of another type."""
    for name, kinds in wanted.items():
        if name not in columns:
            raise UnreadableTable(f"column {name} is missing")
        if not columns[name].startswith(tuple(kinds)) or columns[name].endswith("]"):
            raise UnreadableTable(f"column {name} is not of its type")


def _key(columns: dict[str, str], name: str) -> str:
    """Returns an expression of an id as text, whatever number type it was written as."""
    if name not in columns:
        return "NULL"
    if columns[name].startswith(_NUMBERS):
        return f"CAST(TRY_CAST(e.{name} AS BIGINT) AS VARCHAR)"
    return f"nullif(trim(CAST(e.{name} AS VARCHAR)), '')"


def _text(columns: dict[str, str], name: str) -> str:
    return f"CAST(e.{name} AS VARCHAR)" if name in columns else "NULL"


def _literal(text: str) -> str:
    """Returns a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
