"""Validates FHIR resources and stages what a case needs in a temporary SQLite file, to be read patient by patient.

The file keeps memory flat however large the input is. It lies in a private temporary folder that is removed at the end.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from clinical_data.case import Coding
from clinical_data.sources import ImportLog, Quarantined
from clinical_data.sources.fhir_files import Raw
from clinical_data.sources.fhir_reduce import (
    CONDITION_RULES,
    ICD10CM,
    Json,
    StagedEncounter,
    StagedFact,
    Unusable,
    Unused,
    codes,
    pick,
    reduce_administration,
    reduce_allergy,
    reduce_condition,
    reduce_encounter,
    reduce_family,
    reduce_procedure,
    reduce_request,
    reduce_statement,
    reference_key,
)
from clinical_data.sources.fhir_results import reduce_observation, reduce_report
from clinical_data.sources.fhir_times import parse_moment
from clinical_data.store.engine import storage_errors

_FACTS: dict[str, Callable[[Json, str], Iterator[StagedFact]]] = {
    "Observation": reduce_observation,
    "DiagnosticReport": reduce_report,
    "Condition": reduce_condition,
    "AllergyIntolerance": reduce_allergy,
    "FamilyMemberHistory": reduce_family,
    "MedicationStatement": reduce_statement,
    "MedicationRequest": reduce_request,
    "ServiceRequest": reduce_request,
    "MedicationAdministration": reduce_administration,
    "Procedure": reduce_procedure,
}
USED_TYPES = frozenset(_FACTS) | {"Patient", "Encounter", "Medication"}

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}$")
_NAME = re.compile(r"[A-Za-z_]\w{0,40}$")
_ROWS_AT_ONCE = 2000

_SCHEMA = """
CREATE TABLE patient (key TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
CREATE TABLE encounter (key TEXT PRIMARY KEY, patient TEXT, body BLOB) WITHOUT ROWID;
CREATE TABLE target (key TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
CREATE TABLE alias (ref TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID;
CREATE TABLE fact (number INTEGER PRIMARY KEY, patient TEXT, encounter TEXT, body BLOB);
"""

_FINISH = """
CREATE INDEX alias_key ON alias (key);
UPDATE encounter SET patient = coalesce((SELECT key FROM alias WHERE ref = patient), patient);
UPDATE fact SET patient = (
    SELECT e.patient FROM alias AS a JOIN encounter AS e ON e.key = a.key WHERE a.ref = fact.encounter
) WHERE patient = '';
UPDATE fact SET patient = (SELECT key FROM alias WHERE ref = fact.patient)
WHERE patient IN (SELECT ref FROM alias WHERE ref <> key);
CREATE INDEX fact_patient ON fact (patient);
CREATE INDEX encounter_patient ON encounter (patient);
"""


@lru_cache(maxsize=512)
def model_of(resource_type: str) -> Any:
    """Returns the fhir.resources R4B model of a resource type, or None when there is no such type."""
    try:
        model = get_fhir_model_class(resource_type)
    except (ValueError, ImportError, AttributeError, KeyError):
        return None
    return model if model.has_resource_base() else None


def why_invalid(error: ValidationError) -> str:
    """Returns where a resource fails and by which rule. pydantic's own message quotes the value; this one cannot."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(p) if isinstance(p, int) or _NAME.match(p) else "?" for p in first["loc"])
    more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"not valid FHIR R4: {place or 'resource'}: {first['type']}{more}"


@dataclass(frozen=True, slots=True)
class ConditionLabel:
    """What a Condition would say as a recorded label; `code` is None when it has no coding."""

    code: tuple[str, str, str, str | None] | None
    recorded: str


class Stage:
    """Staged resources of one import; a context manager that removes its file at the end."""

    def __init__(self, log: ImportLog) -> None:
        self._log = log
        self._folder = tempfile.TemporaryDirectory(prefix="wardstar-import-")
        self._db = sqlite3.connect(Path(self._folder.name) / "stage.db", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;" + _SCHEMA)
        self._db.execute("BEGIN")
        self._facts: list[tuple[str, str, bytes]] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._folder.cleanup()

    def add(self, file: str, raw: Raw) -> None:
        """Validates and stages one piece of input; hands what is broken to the log."""
        kind, name = "", ""
        try:
            if raw.data is None:
                raise Unusable(raw.trouble)
            given = raw.data.get("resourceType")
            kind = given if isinstance(given, str) and (given.startswith("Bundle entry") or _NAME.match(given)) else ""
            name = _printable_id(raw.data)
            with storage_errors("temporary import file"):
                self._stage(kind, raw)
        except Unused as reason:
            self._log.unused[f"{kind}: {reason}"] += 1
        except Unusable as reason:
            self._quarantine(file, raw.line, str(reason), kind, name)
        except ValidationError as error:
            self._quarantine(file, raw.line, why_invalid(error), kind, name)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            # A shape that FHIR allows and wardstar did not foresee: lose the resource, not the import. Our own
            # ValueErrors hold no value, those of Python may.
            text = str(error) if type(error) is ValueError and str(error).startswith("not a") else type(error).__name__
            self._quarantine(file, raw.line, f"cannot be used: {text}", kind, name)

    def _quarantine(self, file: str, line: int | None, reason: str, kind: str, name: str) -> None:
        resource = f"{kind}/{name}" if kind and name else kind
        self._log.quarantined(Quarantined(file, line, reason, resource))

    def _stage(self, kind: str, raw: Raw) -> None:
        data = raw.data or {}
        if kind.startswith("Bundle entry"):
            raise Unused("skipped")
        if not kind:
            raise Unusable("resourceType: missing")
        model = model_of(kind)
        if model is None:
            raise Unusable("resourceType: unknown")
        self._log.read[kind] += 1
        if kind not in USED_TYPES:
            raise Unused("type of no use")
        model(**data)
        key = f"{kind}/{_own_id(data, raw.full_url)}"
        if kind == "Patient":
            self._keep("patient", key, raw.full_url, {"sex": data.get("gender"), "birth": data.get("birthDate")})
        elif kind == "Encounter":
            encounter = reduce_encounter(data, key)
            self._keep("encounter", key, raw.full_url, encounter, encounter.patient)
        else:
            if kind in ("Condition", "Medication"):
                self._keep_target(kind, key, raw.full_url, data)
            if kind != "Medication":
                self._keep_facts(_FACTS[kind](data, key))
        for inner in data.get("contained") or ():
            if inner.get("resourceType") in ("Condition", "Medication") and inner.get("id"):
                self._keep_target(inner["resourceType"], f"{key}#{inner['id']}", "", inner)

    def _keep_target(self, kind: str, key: str, full_url: str, data: Json) -> None:
        """Stages what other resources refer to: the drug of an order, the Condition of a diagnosis."""
        if kind == "Medication":
            drug = pick(data.get("code"))
            self._keep("target", key, full_url, _tuple(drug))
            return
        if "entered-in-error" in codes(data.get("verificationStatus")):
            return
        has_code = any(c.get("code") for c in (data.get("code") or {}).get("coding", ()))
        coding = pick(data.get("code"), (ICD10CM,)) if has_code else None
        self._keep("target", key, full_url, ConditionLabel(_tuple(coding), data.get("recordedDate") or ""))

    def _keep(self, table: str, key: str, full_url: str, body: object, patient: str = "") -> None:
        columns = (key, patient, orjson.dumps(body)) if table == "encounter" else (key, orjson.dumps(body))
        marks = ", ".join("?" * len(columns))
        known = self._db.execute(f"SELECT 1 FROM {table} WHERE key = ?", (key,)).fetchone()
        self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", columns)  # the last version holds
        if known:
            self._log.unused[f"{key.split('/')[0]}: same id again"] += 1
        aliases = {key, reference_key(full_url, key)} if full_url else {key}
        self._db.executemany("INSERT OR IGNORE INTO alias VALUES (?, ?)", [(a, key) for a in sorted(aliases)])

    def _keep_facts(self, facts: Iterator[StagedFact]) -> None:
        rows = []
        for fact in facts:
            if not (fact.charted or fact.known or fact.rule in CONDITION_RULES):
                raise Unused("no time")  # a Condition may still be known from the end of its stay
            for text in (fact.charted, fact.until, fact.known):
                if text:
                    parse_moment(text)
            if not (fact.patient or fact.encounter):
                raise Unusable("subject: missing")
            rows.append((fact.patient, fact.encounter, orjson.dumps(tuple(fact))))
        self._facts += rows
        if len(self._facts) >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._db.executemany("INSERT INTO fact (patient, encounter, body) VALUES (?, ?, ?)", self._facts)
        self._facts = []

    def finish(self) -> None:
        """Resolves the references between what was staged; call once, after the last `add`."""
        with storage_errors("temporary import file"):
            self._flush()
            self._db.execute("COMMIT")
            self._db.executescript(_FINISH)

    def patients(self) -> list[str]:
        """Returns the keys of the patients who have an Encounter, in order."""
        with storage_errors("temporary import file"):
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

    def facts(self, patient: str) -> Iterator[StagedFact]:
        """Yields the patient's facts in the order of the input."""
        for (body,) in self._db.execute("SELECT body FROM fact WHERE patient = ? ORDER BY number", (patient,)):
            yield StagedFact(*orjson.loads(body))

    def resolve(self, reference: str) -> str:
        """Returns the key of what a reference names; the reference itself when that is not in the input."""
        row = self._db.execute("SELECT key FROM alias WHERE ref = ?", (reference,)).fetchone()
        return row[0] if row else reference

    def medication(self, reference: str) -> Coding | None:
        """Returns the code of a Medication, or None."""
        found = self._target(reference)
        return Coding(*found) if isinstance(found, list) else None

    def condition(self, reference: str) -> ConditionLabel | None:
        """Returns what a Condition says as a label, or None when the reference leads nowhere."""
        found = self._target(reference)
        return ConditionLabel(**found) if isinstance(found, dict) else None

    def _target(self, reference: str) -> Any:
        row = self._db.execute("SELECT body FROM target WHERE key = ?", (self.resolve(reference),)).fetchone()
        return orjson.loads(row[0]) if row else None


def _own_id(data: Json, full_url: str) -> str:
    """Returns the id of a resource: its own, that of its fullUrl, or a hash of its content."""
    if found := data.get("id"):
        return str(found)
    if full_url:
        return full_url.rsplit(":" if full_url.startswith("urn:") else "/", 1)[-1]
    return hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _printable_id(data: Json) -> str:
    found = data.get("id")
    return found if isinstance(found, str) and _ID.match(found) else ""


def _tuple(coding: Coding | None) -> tuple[str, str, str, str | None] | None:
    return None if coding is None else (coding.system, coding.code, coding.display, coding.version)
