"""Reads the tables of an eICU folder: only the columns that are used, each as its declared type.

Every table is a `.csv` or `.csv.gz` file. A row that cannot be read goes to the import log with its line; a file that
cannot be read goes there as a whole. The rows lie in a temporary duckdb file and are streamed stay by stay, so that
memory does not grow with the folder.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from clinical_data.errors import BadInputError
from clinical_data.sources import ImportLog, Quarantined

Row = dict[str, Any]

TEXT, WHOLE, NUMBER = "VARCHAR", "BIGINT", "DOUBLE"
STAY = "patientunitstayid"

_REASONS = {
    "CAST": "a value is not of the declared type",
    "MISSING COLUMNS": "the row has too few fields",
    "TOO MANY COLUMNS": "the row has too many fields",
    "UNQUOTED VALUE": "a quotation mark is missing",
    "INVALID ENCODING": "the row is not UTF-8",
    "LINE SIZE OVER MAXIMUM": "the line is too long",
}


@dataclass(frozen=True, slots=True)
class Table:
    """What is read of one table.

    Attributes:
        name: as the source spells it.
        key: column that identifies a row.
        columns: column -> duckdb type. Nothing else of the file is kept.
        needed: columns besides key and stay that no row may leave empty.
    """

    name: str
    key: str
    columns: dict[str, str]
    needed: tuple[str, ...] = ()

    @property
    def never_empty(self) -> tuple[str, ...]:
        """Columns that no row may leave empty."""
        return tuple(dict.fromkeys((self.key, STAY, *self.needed)))


def _table(name: str, key: str, needed: tuple[str, ...] = (), **columns: str) -> Table:
    return Table(name, key, {key: WHOLE, STAY: WHOLE, **columns}, needed)


PATIENT = _table(
    "patient", STAY, ("uniquepid",), uniquepid=TEXT, gender=TEXT, age=TEXT, hospitalid=TEXT, unittype=TEXT,
    unitadmitsource=TEXT, unitvisitnumber=WHOLE, unitdischargeoffset=WHOLE,
)  # fmt: skip

# What may become part of a case. A column that tells the future of its row (activeupondischarge, drugstopoffset,
# drugordercancelled) is not read at all.
CASE_TABLES = (
    _table("pastHistory", "pasthistoryid", ("pasthistoryoffset", "pasthistorypath"), pasthistoryoffset=WHOLE,
           pasthistoryenteredoffset=WHOLE, pasthistorypath=TEXT, pasthistoryvalue=TEXT),
    _table("physicalExam", "physicalexamid", ("physicalexamoffset", "physicalexampath"), physicalexamoffset=WHOLE,
           physicalexampath=TEXT, physicalexamvalue=TEXT, physicalexamtext=TEXT),
    _table("note", "noteid", ("noteoffset", "notepath"), noteoffset=WHOLE, noteenteredoffset=WHOLE, notepath=TEXT,
           notevalue=TEXT),
    _table("lab", "labid", ("labresultoffset", "labname"), labresultoffset=WHOLE, labresultrevisedoffset=WHOLE,
           labname=TEXT, labresult=NUMBER, labresulttext=TEXT, labmeasurenamesystem=TEXT),
    _table("admissiondrug", "admissiondrugid", ("drugoffset",), drugoffset=WHOLE, drugenteredoffset=WHOLE,
           drugname=TEXT, drugdosage=NUMBER, drugunit=TEXT, drugadmitfrequency=TEXT),
    _table("allergy", "allergyid", ("allergyoffset",), allergyoffset=WHOLE, allergyenteredoffset=WHOLE,
           allergytype=TEXT, allergyname=TEXT),
    _table("vitalAperiodic", "vitalaperiodicid", ("observationoffset",), observationoffset=WHOLE,
           noninvasivesystolic=NUMBER, noninvasivediastolic=NUMBER, noninvasivemean=NUMBER),
    _table("respiratoryCharting", "respchartid", ("respchartoffset", "respchartvaluelabel"), respchartoffset=WHOLE,
           respchartentryoffset=WHOLE, respchartvaluelabel=TEXT, respchartvalue=TEXT),
    _table("nurseAssessment", "nurseassessid", ("nurseassessoffset", "cellattributepath"), nurseassessoffset=WHOLE,
           nurseassessentryoffset=WHOLE, cellattributepath=TEXT, cellattributevalue=TEXT),
    _table("microLab", "microlabid", ("culturetakenoffset", "culturesite"), culturetakenoffset=WHOLE, culturesite=TEXT,
           organism=TEXT, antibiotic=TEXT, sensitivitylevel=TEXT),
    _table("treatment", "treatmentid", ("treatmentoffset", "treatmentstring"), treatmentoffset=WHOLE,
           treatmentstring=TEXT),
    _table("infusiondrug", "infusiondrugid", ("infusionoffset",), infusionoffset=WHOLE, drugname=TEXT, drugrate=TEXT),
    _table("medication", "medicationid", ("drugorderoffset",), drugorderoffset=WHOLE, drugstartoffset=WHOLE,
           drugname=TEXT, routeadmin=TEXT, frequency=TEXT),
)  # fmt: skip

# What holds the recorded answers; no row of these reaches a case.
TRUTH_TABLES = (
    _table("admissionDx", "admissiondxid", ("admitdxenteredoffset", "admitdxpath"), admitdxenteredoffset=WHOLE,
           admitdxpath=TEXT),
    _table("diagnosis", "diagnosisid", ("diagnosisoffset", "diagnosisstring"), diagnosisoffset=WHOLE,
           diagnosisstring=TEXT, diagnosispriority=TEXT, activeupondischarge=TEXT),
)  # fmt: skip


class _UnreadableTable(Exception):
    """A table file that is of no use; the text says why, without any value."""


class EicuFolder:
    """The tables of one folder, loaded into a duckdb database.

    Attributes:
        loaded: names of the tables that could be read.
    """

    def __init__(self, folder: Path, scratch: Path, log: ImportLog) -> None:
        self._folder, self._log = folder, log
        self._files = find_tables(folder, log)
        self._database = duckdb.connect(str(scratch / "eicu.duckdb"))
        self._database.execute("SET memory_limit = '2GB'")
        self._database.execute(f"SET temp_directory = '{str(scratch / 'spill').replace(chr(39), chr(39) * 2)}'")
        self.loaded: set[str] = set()

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def load(self) -> None:
        """Loads every table there is.

        Raises:
            BadInputError: the patient table is missing or cannot be read.
        """
        tables = [t for t in (PATIENT, *CASE_TABLES, *TRUTH_TABLES) if t.name.lower() in self._files]
        total = sum(self._files[t.name.lower()].stat().st_size for t in tables)
        done = 0
        if PATIENT not in tables:
            raise BadInputError("no patient table (patient.csv or patient.csv.gz)", file=self._folder)
        for table in (PATIENT, *CASE_TABLES, *TRUTH_TABLES):
            if table not in tables:
                self._log.unused[f"table {table.name} is missing"] += 1
                continue
            path = self._files[table.name.lower()]
            self._load_table(table, path)
            done += path.stat().st_size
            self._log.progress(done, total)

    def _load_table(self, table: Table, path: Path) -> None:
        try:
            header = read_header(path)
            if missing := [c for c in table.columns if c not in header]:
                raise _UnreadableTable(f"column {missing[0]} is missing")
            self._copy(table, path, header)
        except _UnreadableTable as error:
            reason = str(error)
        except (duckdb.Error, OSError, EOFError, csv.Error, zlib.error) as error:
            # duckdb quotes the row at fault in its message; only the kind of error may go on.
            reason = f"the file cannot be read to its end ({type(error).__name__})"
        else:
            self.loaded.add(table.name)
            self._clean(table, path)
            return
        if table is PATIENT:
            raise BadInputError(reason, file=path)
        self._database.execute(f"DROP TABLE IF EXISTS {table.name}")
        self._log.quarantined(Quarantined(path.name, None, reason, f"table {table.name}"))

    def _copy(self, table: Table, path: Path, header: list[str]) -> None:
        """Copies the wanted columns of a file into the database, and hands its broken rows to the log."""
        for name in ("reject_errors", "reject_scans"):
            self._database.execute(f"DROP TABLE IF EXISTS {name}")
        wanted = ", ".join(table.columns)
        # A column that is not wanted gets a name of ours, so that nothing of the file's header enters the query.
        types = {c if c in table.columns else f"unused_{i}": table.columns.get(c, TEXT) for i, c in enumerate(header)}
        self._database.execute(
            f"CREATE TABLE {table.name} AS SELECT {wanted} FROM read_csv($path, columns = {types}, header = true, "
            "auto_detect = false, delim = ',', quote = '\"', escape = '\"', store_rejects = true)",
            {"path": str(path)},
        )
        rejects = self._database.execute(
            "SELECT line, arg_min(CAST(error_type AS VARCHAR), column_idx), arg_min(column_name, column_idx) "
            "FROM reject_errors GROUP BY line ORDER BY line"
        ).fetchall()
        for line, kind, column in rejects:
            reason = _REASONS.get(kind, "the row cannot be read")
            if kind == "CAST":
                reason += f" ({column})"
            self._log.quarantined(Quarantined(path.name, line, reason, f"table {table.name}"))

    def _clean(self, table: Table, path: Path) -> None:
        """Takes out rows without a key, repeated keys, and rows of no known stay."""
        empty = " OR ".join(f"{column} IS NULL" for column in table.never_empty)
        if self._one(f"SELECT count(*) FROM {table.name} WHERE {empty}"):
            for line, column in lines_with_empty(path, table.never_empty):
                self._log.quarantined(Quarantined(path.name, line, f"{column} is empty", f"table {table.name}"))
            self._database.execute(f"DELETE FROM {table.name} WHERE {empty}")
        repeated = self._database.execute(
            f"SELECT {table.key}, count(*) - 1 FROM {table.name} GROUP BY 1 HAVING count(*) > 1 ORDER BY 1"
        ).fetchall()
        for key, extra in repeated:
            reason = f"{table.key} occurs {extra + 1} times; the first row is used"
            self._log.quarantined(Quarantined(path.name, None, reason, f"{table.name} {key}"))
        if repeated:
            first = f"SELECT min(rowid) FROM {table.name} GROUP BY {table.key}"
            self._database.execute(f"DELETE FROM {table.name} WHERE rowid NOT IN ({first})")
        self._log.read[table.name] += self._one(f"SELECT count(*) FROM {table.name}")
        if table is not PATIENT:
            orphans = self._one(f"SELECT count(*) FROM {table.name} ANTI JOIN patient USING ({STAY})")
            if orphans:
                self._log.unused[f"{table.name}: no such stay"] += orphans

    def _one(self, query: str) -> int:
        row = self._database.execute(query).fetchone()
        return int(row[0]) if row else 0

    def rows(self, table: Table) -> Iterator[Row]:
        """Yields the rows of a table in the order of the stay's id as text, then of their key.

        A row of physicalExam has no entry time; it gets that of its note as `enteredoffset` (None where there is none).
        """
        if table.name not in self.loaded:
            return
        names, columns, join = list(table.columns), ", ".join(f"t.{c}" for c in table.columns), ""
        if table.name == "physicalExam":
            names.append("enteredoffset")
            columns += ", n.enteredoffset" if "note" in self.loaded else ", NULL"
        if table.name == "physicalExam" and "note" in self.loaded:
            entered = f"SELECT {STAY}, noteoffset, max(noteenteredoffset) AS enteredoffset FROM note GROUP BY ALL"
            join = f"LEFT JOIN ({entered}) n ON n.{STAY} = t.{STAY} AND n.noteoffset = t.physicalexamoffset"
        cursor = self._database.cursor()
        cursor.execute(
            f"SELECT {columns} FROM {table.name} t {join} WHERE t.{STAY} IN (SELECT {STAY} FROM patient) "
            f"ORDER BY CAST(t.{STAY} AS VARCHAR), t.{table.key}"
        )
        while batch := cursor.fetchmany(4096):
            for values in batch:
                yield dict(zip(names, values, strict=True))


class StayStream:
    """The rows of one table, handed out stay by stay in order."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def take(self, stay: int) -> list[Row]:
        """Returns the rows of a stay; stays must be asked for in the order of their id as text."""
        taken: list[Row] = []
        while self._next is not None and str(self._next[STAY]) <= str(stay):
            if self._next[STAY] == stay:
                taken.append(self._next)
            self._next = next(self._rows, None)
        return taken


def find_tables(folder: Path, log: ImportLog) -> dict[str, Path]:
    """Returns the table files of a folder by lower-case table name; of two files for one table the first counts."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        stem = name.removesuffix(".gz").removesuffix(".csv")
        if not path.is_file() or not name.endswith((".csv", ".csv.gz")):
            continue
        if stem in found:
            log.quarantined(Quarantined(path.name, None, f"{found[stem].name} is used instead", f"table {stem}"))
            continue
        found[stem] = path
    return found


def open_text(path: Path) -> io.TextIOBase:
    """Opens a table file as text, without its byte order mark."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open("r", encoding="utf-8-sig", errors="replace", newline="")


def read_header(path: Path) -> list[str]:
    """Returns the column names of a table file in lower case.

    Raises:
        _UnreadableTable: the file is empty or names a column twice.
    """
    with open_text(path) as file:
        header = [column.strip().lower() for column in next(csv.reader(file), [])]
    if not header:
        raise _UnreadableTable("the file is empty")
    if len(set(header)) != len(header):
        raise _UnreadableTable("a column name occurs twice")
    return header


def lines_with_empty(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yields line and column of every complete row that leaves one of these columns empty."""
    with open_text(path) as file:
        reader = csv.reader(file)
        header = [column.strip().lower() for column in next(reader)]
        places = [(header.index(column), column) for column in columns]
        for row in reader:
            if len(row) != len(header):
                continue  # already rejected for its number of fields
            if empty := next((column for place, column in places if row[place] == ""), None):
                yield reader.line_num, empty
