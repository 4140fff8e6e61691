"""Runs and what each case-step of them gave. This store alone decides what of a run is done."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, delete, insert, select, update

from clinical_data.errors import StorageError, UsageError
from clinical_data.store.engine import reading, writing
from evaluation.record import RECORD_VERSION, ReviewRecord, RunRecord
from evaluation.store.calls import pack, unpack
from evaluation.store.generations import put_changes
from evaluation.store.tables import case_steps, runs
from search.generation_cache import CacheChanges
from search.trajectory import ModelCall

logger = logging.getLogger(__name__)

Key = tuple[str, str, int]
RUNNING = "running"
_MISSING = object()
_CASES = "began_with"  # lies beside the configuration in its column, and is none of it


@dataclass(frozen=True, slots=True)
class Run:
    """One run: a pathway over cases under one configuration.

    Attributes:
        created, finished: UTC, ISO 8601; `finished`: when its last session ended, None while none has.
        config: what decides its results.
        config_hash: sha256 of the canonical JSON of `config`.
        versions: of the program and its libraries when it began.
        status: `running`, or what `RunStore.finish` was told.
        work: token positions really worked on, over all its sessions; empty until told.
        cases: ids of the cases that it began with, where its configuration takes only so many of what there was; no
            part of the configuration, since an import decides it. None where it takes all, and of older runs.
    """

    run_id: int
    name: str
    created: str
    pathway: str
    config: dict[str, Any]
    config_hash: str
    versions: dict[str, Any] = field(default_factory=dict)
    status: str = RUNNING
    finished: str | None = None
    work: dict[str, Any] = field(default_factory=dict)
    cases: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record, and beside it the recorded labels and marks: rows `{system, code, display, strength}`; level -> 0 or 1.

    Neither ever becomes part of the record.
    """

    record: RunRecord
    truth: list[dict[str, Any]]
    match: dict[str, int]


class RunStore:
    """Reads and writes the runs of one database. Every method raises StorageError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def begin(
        self,
        name: str,
        pathway: str,
        config: dict[str, Any],
        versions: dict[str, Any],
        cases: Sequence[str] | None = None,
    ) -> Run:
        """Stores a new run and commits it, or returns the one of that name to go on with, with the cases it began with.

        Raises:
            UsageError: a run of that name exists under another configuration; the message names what differs.
        """
        row = {
            "name": name,
            "created": _now(),
            "pathway": pathway,
            "config_json": canonical_json(config if cases is None else {**config, _CASES: list(cases)}),
            "config_hash": config_hash(config),
            "versions_json": canonical_json(versions),
            "status": RUNNING,
        }
        with writing(self.engine) as connection:
            found = connection.execute(select(runs).where(runs.c.name == name)).one_or_none()
            if found is None:
                connection.execute(insert(runs).values(row))
                found = connection.execute(select(runs).where(runs.c.name == name)).one()
        run = _run(found)
        differing = differing_keys({"pathway name": run.pathway, **run.config}, {"pathway name": pathway, **config})
        if differing:
            raise UsageError(
                f"run {name} exists with another configuration: {', '.join(differing)}",
                hint="take another --run name, or delete that run",
            )
        if run.versions != json.loads(row["versions_json"]):
            logger.warning("run %s began under other versions of the program or its libraries", name)
        return run

    def get(self, name: str) -> Run:
        """Returns a run by name.

        Raises:
            UsageError: no such run; the hint lists those there are.
        """
        with reading(self.engine) as connection:
            found = connection.execute(select(runs).where(runs.c.name == name)).one_or_none()
        if found is None:
            known = ", ".join(r.name for r in self.runs())
            raise UsageError(f"no run named {name}", hint=f"known: {known}" if known else "no run is stored yet")
        return _run(found)

    def runs(self) -> list[Run]:
        """Returns all runs, oldest first."""
        with reading(self.engine) as connection:
            return [_run(row) for row in connection.execute(select(runs).order_by(runs.c.run_id))]

    def done(self, run_id: int, case_id: str | None = None) -> dict[Key, str]:
        """Returns (case_id, step, occurrence) -> status of every case-step that is stored, of a case or of all."""
        c = case_steps.c
        query = select(c.case_id, c.step, c.occurrence, c.status).where(c.run_id == run_id)
        if case_id is not None:
            query = query.where(c.case_id == case_id)
        with reading(self.engine) as connection:
            return {(r.case_id, r.step, r.occurrence): r.status for r in connection.execute(query)}

    def put(
        self,
        run_id: int,
        record: RunRecord,
        truth: list[dict[str, Any]],
        match: dict[str, int],
        calls: Sequence[ModelCall],
        *,
        replace: bool = False,
        changes: Sequence[CacheChanges] = (),
    ) -> None:
        """Stores a case-step with everything that belongs to it, in one transaction.

        Args:
            run_id: the run.
            record: what happened, without truth.
            truth: recorded labels as rows.
            match: marks of the first answer.
            calls: every call to a model, in canonical order.
            replace: put it in the place of one that is stored (a failed step taken again).
            changes: generations to be kept for other runs, of each model.

        Raises:
            StorageError: the case-step is stored already and `replace` is not set.
        """
        key = (record.case_id, record.step, record.occurrence)
        values = {
            "source_id": record.source_id,
            "status": str(record.status),
            "record_json": record.model_dump_json(),
            "truth_json": canonical_json(truth),
            "match_json": canonical_json(match),
            "calls": pack(calls),
        }
        where = _where(run_id, key)
        with writing(self.engine) as connection:
            exists = connection.execute(select(case_steps.c.step).where(*where)).first() is not None
            if exists and not replace:
                raise StorageError(f"{_words(key)}: stored already in this run")
            if exists:  # keeps its time of creation, hence its place in the order
                connection.execute(update(case_steps).where(*where).values(values))
            else:
                case_id, step, occurrence = key
                own = {"run_id": run_id, "case_id": case_id, "step": step, "occurrence": occurrence, "created": _now()}
                connection.execute(insert(case_steps).values({**own, **values}))
            for changed in changes:
                put_changes(connection, changed)

    def records(self, run_id: int) -> Iterator[StoredRecord]:
        """Yields the records of a run by case id, and within a case in the order in which its steps were stored.

        Raises:
            StorageError: a record that this program cannot read.
        """
        c = case_steps.c
        columns = (c.case_id, c.step, c.occurrence, c.record_json, c.truth_json, c.match_json)
        for row in self._rows(run_id, *columns):
            yield _stored(row)

    def record(self, run_id: int, case_id: str, step: str, occurrence: int = 1) -> StoredRecord:
        """Returns the record of one case-step.

        Raises:
            UsageError: no such case-step in this run.
            StorageError: a record that this program cannot read.
        """
        c, key = case_steps.c, (case_id, step, occurrence)
        columns = (c.case_id, c.step, c.occurrence, c.record_json, c.truth_json, c.match_json)
        with reading(self.engine) as connection:
            row = connection.execute(select(*columns).where(*_where(run_id, key))).one_or_none()
        if row is None:
            raise UsageError(f"{_words(key)}: not in this run")
        return _stored(row)

    def calls(self, run_id: int) -> Iterator[tuple[str, str, str, int, ModelCall]]:
        """Yields (case_id, source_id, step, occurrence, call) for every call to a model, in the order of `records`."""
        c = case_steps.c
        for row in self._rows(run_id, c.case_id, c.source_id, c.step, c.occurrence, c.calls):
            for call in unpack(row.calls):
                yield row.case_id, row.source_id, row.step, row.occurrence, call

    def calls_of(self, run_id: int, key: Key) -> list[ModelCall]:
        """Returns the calls of one case-step, in order; none where none were made.

        Raises:
            StorageError: calls that this program cannot read.
        """
        with reading(self.engine) as connection:
            blob = connection.execute(select(case_steps.c.calls).where(*_where(run_id, key))).scalar()
        try:
            return list(unpack(blob))
        except (zlib.error, ValueError, KeyError, TypeError):
            hint = "delete the run and replay it"
            raise StorageError(f"{_words(key)}: its stored calls cannot be read (calls)", hint=hint) from None

    def rescore(self, run_id: int, key: Key, truth: list[dict[str, Any]], match: dict[str, int]) -> None:
        """Replaces labels and marks of a stored case-step; the record stays as it is."""
        values = {"truth_json": canonical_json(truth), "match_json": canonical_json(match)}
        with writing(self.engine) as connection:
            connection.execute(update(case_steps).where(*_where(run_id, key)).values(values))

    def reviewed(self, run_id: int, steps: Collection[str], case_id: str | None = None) -> dict[Key, ReviewRecord]:
        """Returns case-step -> what became of the question to a clinician, of these steps in a case or in all.

        Raises:
            StorageError: a record that this program cannot read.
        """
        c = case_steps.c
        query = select(c.case_id, c.step, c.occurrence, c.record_json)
        query = query.where(c.run_id == run_id, c.step.in_(sorted(steps)))
        if case_id is not None:
            query = query.where(c.case_id == case_id)
        found = {}
        with reading(self.engine) as connection:
            for row in connection.execute(query):
                review = _record(row).review
                if review is not None:
                    found[row.case_id, row.step, row.occurrence] = review
        return dict(sorted(found.items()))

    def answer(self, run_id: int, answers: Mapping[Key, ReviewRecord]) -> None:
        """Stores what clinicians answered, all or nothing; the rest of a record stays as it is.

        Raises:
            UsageError: no such case-step in this run.
            StorageError: a record that this program cannot read.
        """
        with writing(self.engine) as connection:
            for key, review in answers.items():
                where = _where(run_id, key)
                c = case_steps.c
                query = select(c.case_id, c.step, c.occurrence, c.record_json).where(*where)
                row = connection.execute(query).one_or_none()
                if row is None:
                    raise UsageError(f"{_words(key)}: not in this run")
                record = _record(row).model_copy(update={"review": review})
                connection.execute(update(case_steps).where(*where).values(record_json=record.model_dump_json()))

    def drop(self, run_id: int, keys: Sequence[Key]) -> None:
        """Removes case-steps."""
        with writing(self.engine) as connection:
            for key in keys:
                connection.execute(delete(case_steps).where(*_where(run_id, key)))

    def set_running(self, run_id: int) -> None:
        """Notes that a session of a run is at work, so that a kill does not leave how the last one ended."""
        with writing(self.engine) as connection:
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(status=RUNNING))

    def finish(self, run_id: int, status: str, work: Mapping[str, Any]) -> None:
        """Notes how a session of a run ended, and the work done over all sessions."""
        values = {"status": status, "finished": _now(), "work_json": canonical_json(dict(work))}
        with writing(self.engine) as connection:
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(values))

    def delete(self, name: str, before: Callable[[Connection], None] | None = None) -> None:
        """Deletes a run with all its case-steps.

        Args:
            name: the run.
            before: what is done first, in the same transaction; whatever it raises keeps the run.

        Raises:
            UsageError: no such run.
        """
        run = self.get(name)
        with writing(self.engine) as connection:
            if before is not None:
                before(connection)
            connection.execute(delete(case_steps).where(case_steps.c.run_id == run.run_id))
            connection.execute(delete(runs).where(runs.c.run_id == run.run_id))

    def _rows(self, run_id: int, *columns: Any) -> Iterator[Any]:
        """Yields the case-steps of a run in their order, one case in memory at a time and no transaction held open.

        Ids are sorted here, because databases differ in collation.
        """
        c = case_steps.c
        with reading(self.engine) as connection:
            case_ids = sorted(connection.scalars(select(c.case_id).where(c.run_id == run_id).distinct()))
        for case_id in case_ids:
            query = select(*columns, c.created).where(c.run_id == run_id, c.case_id == case_id)
            with reading(self.engine) as connection:
                rows = connection.execute(query).all()
            yield from sorted(rows, key=lambda r: (r.created, r.step, r.occurrence))


def canonical_json(value: object) -> str:
    """Returns JSON with sorted keys and no spaces, so that equal values give equal text.

    Raises:
        ValueError: a number that is not finite.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def config_hash(config: Mapping[str, Any]) -> str:
    """Returns the hash of a run's configuration, which the run and each of its records hold."""
    return hashlib.sha256(canonical_json(dict(config)).encode()).hexdigest()


def differing_keys(one: Any, other: Any, prefix: str = "") -> list[str]:
    """Returns the dotted names under which two configurations differ, in order."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        same = one is not _MISSING and other is not _MISSING and canonical_json(one) == canonical_json(other)
        return [] if same else [prefix]
    names = sorted({*one, *other})
    dotted = {name: f"{prefix}.{name}" if prefix else str(name) for name in names}
    return [
        key
        for name in names
        for key in differing_keys(one.get(name, _MISSING), other.get(name, _MISSING), dotted[name])
    ]


def _where(run_id: int, key: Key) -> tuple[Any, ...]:
    c, (case_id, step, occurrence) = case_steps.c, key
    return c.run_id == run_id, c.case_id == case_id, c.step == step, c.occurrence == occurrence


def _run(row: Any) -> Run:
    config = json.loads(row.config_json)
    cases = config.pop(_CASES, None)
    return Run(
        run_id=row.run_id,
        name=row.name,
        created=row.created,
        pathway=row.pathway,
        config=config,
        config_hash=row.config_hash,
        versions=json.loads(row.versions_json),
        status=row.status,
        finished=row.finished,
        work=json.loads(row.work_json or "{}"),
        cases=None if cases is None else tuple(cases),
    )


def _stored(row: Any) -> StoredRecord:
    return StoredRecord(_record(row), json.loads(row.truth_json or "[]"), json.loads(row.match_json or "{}"))


def _record(row: Any) -> RunRecord:
    try:
        return RunRecord.model_validate_json(row.record_json)
    except ValidationError as error:
        place = _words((row.case_id, row.step, row.occurrence))
        written = _version_of(row.record_json)
        hint = "install that version of wardstar" if written > RECORD_VERSION else "delete the run and replay it"
        field_name = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"]) or "not JSON"
        raise StorageError(f"{place}: a record of version {written} cannot be read ({field_name})", hint=hint) from None


def _version_of(text: str) -> int:
    """Returns the version that a record says it has; 0 where it says none."""
    try:
        version = json.loads(text).get("version", 0)
    except (ValueError, AttributeError):
        return 0
    return version if isinstance(version, int) else 0


def _words(key: Key) -> str:
    case_id, step, occurrence = key
    return f"case {case_id}, step {step}" + (f", occurrence {occurrence}" if occurrence != 1 else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
