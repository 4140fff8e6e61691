"""Stages what a case needs of FHIR resources in an SQLite file, to be read patient by patient.

The file keeps memory flat however large the input is. It is committed now and then together with the place in the input
that it has come to, so that a staging that was killed goes on from there.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from clinical_data.case import Coding
from clinical_data.sources import ImportLog, Quarantined
from clinical_data.sources.fhir_reduce import StagedEncounter, StagedFact
from clinical_data.sources.fhir_validate import ConditionLabel, Kept, Reduced
from clinical_data.store.engine import storage_errors

logger = logging.getLogger(__name__)

FILE = "fhir-stage.db"
_FORMAT = 3  # of the file; another one is staged anew
_WHAT = "the import's staging file"

_SCHEMA = """
CREATE TABLE state (fingerprint TEXT, format INTEGER, file TEXT, pieces INTEGER, finished INTEGER);
CREATE TABLE counted (what TEXT, name TEXT, number INTEGER, PRIMARY KEY (what, name)) WITHOUT ROWID;
CREATE TABLE quarantined (number INTEGER PRIMARY KEY, file TEXT, line INTEGER, reason TEXT, resource TEXT);
CREATE TABLE patient (key TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
CREATE TABLE encounter (key TEXT PRIMARY KEY, patient TEXT, body BLOB) WITHOUT ROWID;
CREATE TABLE target (key TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
CREATE TABLE alias (ref TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID;
CREATE TABLE fact (number INTEGER PRIMARY KEY, patient TEXT, encounter TEXT, body BLOB);
CREATE TABLE ranked (key TEXT PRIMARY KEY, module TEXT, place INTEGER) WITHOUT ROWID;
"""

_FINISH = (
    "CREATE INDEX alias_key ON alias (key)",
    "UPDATE encounter SET patient = coalesce((SELECT key FROM alias WHERE ref = patient), patient)",
    """UPDATE fact SET patient = coalesce((
        SELECT e.patient FROM encounter AS e
        WHERE e.key = coalesce((SELECT a.key FROM alias AS a WHERE a.ref = fact.encounter), fact.encounter)
    ), '') WHERE patient = ''""",
    """UPDATE fact SET patient = (SELECT key FROM alias WHERE ref = fact.patient)
    WHERE patient IN (SELECT ref FROM alias WHERE ref <> key)""",
    "CREATE INDEX fact_patient ON fact (patient)",
    "CREATE INDEX encounter_patient ON encounter (patient)",
    "UPDATE state SET finished = 1",
)


class Stage:
    """Staged resources of one import; a context manager that closes its file.

    Attributes:
        done: file and number of pieces of it that are staged, as in the last commit; ("", 0) at the beginning.
        finished: whether everything is staged.
    """

    def __init__(self, folder: Path, fingerprint: str, log: ImportLog) -> None:
        """Opens the file in a folder, and goes on with it if it was begun on the same input.

        Args:
            folder: where the file lies.
            fingerprint: says what input it belongs to; with another one it is staged anew.
            log: gets what was staged before, and what is added.

        Raises:
            StorageError: the file cannot be written.
        """
        self._log = log
        self.done = ("", 0)
        self.finished = False
        self._counts: dict[str, Counter[str]] = {"read": Counter(), "unused": Counter()}
        with storage_errors(_WHAT):
            self._db = _open(folder / FILE, fingerprint)
            self._resume()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def _resume(self) -> None:
        file, pieces, finished = self._db.execute("SELECT file, pieces, finished FROM state").fetchone()
        self.done, self.finished = (file, pieces), bool(finished)
        for what, name, number in self._db.execute("SELECT what, name, number FROM counted"):
            (self._log.read if what == "read" else self._log.unused)[name] += number
        for row in self._db.execute("SELECT file, line, reason, resource FROM quarantined ORDER BY number"):
            self._log.quarantined(Quarantined(*row))
        if file:
            logger.info("going on with what an earlier try has staged: up to piece %d of %s", pieces, file)

    def add(self, found: Reduced) -> None:
        """Stages what some pieces came to, and reports it to the log."""
        with storage_errors(_WHAT):
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            for kept in found.kept:
                self._keep(kept, found.unused)
            self._db.executemany("INSERT INTO fact (patient, encounter, body) VALUES (?, ?, ?)", found.facts)
            self._db.executemany(
                "INSERT INTO quarantined (file, line, reason, resource) VALUES (?, ?, ?, ?)",
                [(q.file, q.line, q.reason, q.resource) for q in found.quarantined],
            )
        self._counts["read"].update(found.read)
        self._counts["unused"].update(found.unused)
        self._log.read.update(found.read)
        self._log.unused.update(found.unused)
        for row in found.quarantined:
            self._log.quarantined(row)

    def _keep(self, kept: Kept, unused: Counter[str]) -> None:
        columns = (kept.key, kept.patient, kept.body) if kept.table == "encounter" else (kept.key, kept.body)
        marks = ", ".join("?" * len(columns))
        if self._db.execute(f"INSERT OR IGNORE INTO {kept.table} VALUES ({marks})", columns).rowcount == 0:
            self._db.execute(f"REPLACE INTO {kept.table} VALUES ({marks})", columns)  # the last version holds
            if "|" not in kept.key:
                unused[f"{kept.key.split('/')[0]}: same id again"] += 1
        names = (kept.key, *kept.aliases) if kept.aliases else ()
        self._db.executemany("INSERT OR IGNORE INTO alias VALUES (?, ?)", [(name, kept.key) for name in names])

    def commit(self, file: str, pieces: int) -> None:
        """Makes what was added lasting, together with the place in the input: so many pieces of a file."""
        with storage_errors(_WHAT):
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            rows = [(what, name, n) for what, counts in self._counts.items() for name, n in counts.items()]
            add = "ON CONFLICT (what, name) DO UPDATE SET number = number + excluded.number"
            self._db.executemany(f"INSERT INTO counted VALUES (?, ?, ?) {add}", rows)
            self._db.execute("UPDATE state SET file = ?, pieces = ?", (file, pieces))
            self._db.execute("COMMIT")
        self._counts = {"read": Counter(), "unused": Counter()}
        self.done = (file, pieces)

    def finish(self, ranks: Iterator[tuple[str, str, int]]) -> None:
        """Resolves the references between what was staged and takes the ranks; call once, after the last commit.

        Args:
            ranks: key of the Condition, module (`hosp`, `ed`), rank from 1.
        """
        with storage_errors(_WHAT):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("REPLACE INTO ranked VALUES (?, ?, ?)", ranks)
            for statement in _FINISH:
                self._db.execute(statement)
            self._db.execute("COMMIT")
        self.finished = True

    def count(self, resource_type: str) -> int:
        """Returns how many resources of a type were read."""
        query = "SELECT number FROM counted WHERE what = 'read' AND name = ?"
        row = self._db.execute(query, (resource_type,)).fetchone()
        return int(row[0]) if row else 0

    def patients(self) -> list[str]:
        """Returns the keys of the patients who have an Encounter, in order."""
        rows = self._db.execute("SELECT DISTINCT patient FROM encounter WHERE patient <> '' ORDER BY patient")
        return [key for (key,) in rows]

    def person(self, patient: str) -> dict[str, str | None]:
        """Returns `sex` and `birth` of a patient, empty when the Patient itself is not in the input."""
        row = self._db.execute("SELECT body FROM patient WHERE key = ?", (patient,)).fetchone()
        return dict(orjson.loads(row[0])) if row else {}

    def encounters(self, patient: str) -> list[StagedEncounter]:
        """Returns the patient's encounters in order of key."""
        rows = self._db.execute("SELECT body FROM encounter WHERE patient = ? ORDER BY key", (patient,))
        return [StagedEncounter(**orjson.loads(body)) for (body,) in rows]

    def facts(self, patient: str) -> list[StagedFact]:
        """Returns the patient's facts in the order of the input; of one that occurs twice the last version."""
        rows = self._db.execute("SELECT body FROM fact WHERE patient = ? ORDER BY number", (patient,))
        found = (StagedFact(*orjson.loads(body)) for (body,) in rows)
        return list({fact.key: fact for fact in found}.values())

    def resolve(self, reference: str) -> str:
        """Returns the key of what a reference names; the reference itself when no other name is known for it."""
        row = self._db.execute("SELECT key FROM alias WHERE ref = ?", (reference,)).fetchone()
        return row[0] if row else reference

    def rank(self, condition: str) -> tuple[str, int] | None:
        """Returns module and rank of a Condition, or None."""
        row = self._db.execute("SELECT module, place FROM ranked WHERE key = ?", (condition,)).fetchone()
        return (row[0], row[1]) if row else None

    @property
    def has_ranks(self) -> bool:
        """Says whether ranks of Conditions are at hand."""
        return self._db.execute("SELECT 1 FROM ranked LIMIT 1").fetchone() is not None

    def medication(self, reference: str) -> Coding | None:
        """Returns the code of a Medication, a mixture under the names of its parts, or None."""
        found = self._target(reference)
        if not isinstance(found, dict):
            return None
        parts = [part for p in found["parts"] if isinstance(part := self._target(p), dict) and part["drug"]]
        if parts and (not found["drug"] or not found["drug"][2]):
            first = parts[0]["drug"]
            return Coding(first[0], first[1], " + ".join(p["drug"][2] for p in parts), first[3])
        return Coding(*found["drug"]) if found["drug"] else None

    def specimen(self, reference: str) -> str:
        """Returns what a Specimen is, or an empty string."""
        found = self._target(reference)
        return found if isinstance(found, str) else ""

    def frequency(self, key: str) -> str:
        """Returns the frequency staged under a key (`fhir_orders.frequency_key`), or an empty string."""
        found = self._target(key)
        return found if isinstance(found, str) else ""

    def condition(self, reference: str) -> ConditionLabel | None:
        """Returns what a Condition says as a label, or None when the reference leads nowhere."""
        found = self._target(reference)
        return ConditionLabel(*found) if isinstance(found, list) else None

    def _target(self, reference: str) -> Any:
        row = self._db.execute("SELECT body FROM target WHERE key = ?", (self.resolve(reference),)).fetchone()
        return orjson.loads(row[0]) if row else None


def _open(path: Path, fingerprint: str) -> sqlite3.Connection:
    """Returns a connection to the staging file, made anew unless it was begun on the same input in the same format."""
    if path.is_file():
        database = _connect(path)
        try:
            row = database.execute("SELECT fingerprint, format FROM state").fetchone()
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                raise
            row = None
        if row == (fingerprint, _FORMAT):
            return database
        database.close()
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
    database = _connect(path)
    database.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";"):
        database.execute(statement)
    database.execute("INSERT INTO state VALUES (?, ?, '', 0, 0)", (fingerprint, _FORMAT))
    database.execute("COMMIT")
    return database


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA cache_size=-32768")  # KiB
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.DatabaseError:  # no database at all: the first query says so
        logger.warning("%s is no database and is made anew", path.name)
    return database
