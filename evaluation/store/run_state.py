"""How far the runs of a database are: state, case-steps, failures, seconds and tokens. No record is read whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Engine, Integer, case, cast, func, select, type_coerce

from clinical_data.splits import PATIENT_SCHEME
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.engine import reading
from evaluation.store.run_store import RUNNING, Run, RunStore
from evaluation.store.tables import case_steps

STOPPED, FINISHED, FAILED, INTERRUPTED = "stopped", "finished", "failed", "interrupted"
WAITING = "waiting"  # of a run whose cases are done but for those that wait for a clinician, and of such a question
SILENT = timedelta(minutes=30)
"""A run that never said that it ended, and stored nothing for so long, was killed or lost its machine."""


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run is.

    Attributes:
        state: `running`, `stopped` (`resume` goes on), `waiting` (for answers of clinicians), `finished` or `failed`
            (ended by an error).
        cases, done: cases of the run, as the database has them now; those that need nothing more. While a run goes on,
            a case counts whose steps are all stored, those included that its pathway leads past; of a last step that
            comes again, the first time.
        case_steps, failed_steps: stored ones; those of them that failed.
        seconds: spent on the stored case-steps, in all workers together.
        prefilled, sampled: tokens of the stored case-steps, as if none had been cached.
        last: when the last case-step was stored; empty before the first.
    """

    run: Run
    state: str
    cases: int
    done: int
    case_steps: int
    failed_steps: int
    seconds: float
    prefilled: int
    sampled: int
    last: str

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name, without the run."""
        names = ("state", "cases", "done", "case_steps", "failed_steps", "seconds", "prefilled", "sampled", "last")
        return {name: getattr(self, name) for name in names}


def run_states(engine: Engine, runs: Sequence[Run] | None = None, *, now: datetime | None = None) -> list[RunState]:
    """Returns how far runs are.

    Args:
        engine: the database.
        runs: which; None: all, oldest first.
        now: the time that decides whether a run has fallen silent.

    Raises:
        StorageError: the database failed.
    """
    now = now or datetime.now(UTC)
    sums = _sums(engine)
    sizes: dict[tuple[Any, ...], int] = {}
    found = []
    for run in RunStore(engine).runs() if runs is None else runs:
        own = sums.get(run.run_id)
        key = (run.config.get("split"), run.config.get("split_scheme", PATIENT_SCHEME), run.config.get("limit"))
        alone = "cases" in run.config or run.cases is not None
        if alone or key not in sizes:
            sizes[key] = _cases(engine, run)
        cases = sizes.pop(key) if alone else sizes[key]
        last = "" if own is None else str(own.last)
        state = _state(run, last, now)
        done = cases if state == FINISHED else _done(engine, run, cases, state)
        found.append(
            RunState(
                run,
                state,
                cases,
                done,
                case_steps=0 if own is None else int(own.case_steps),
                failed_steps=0 if own is None else int(own.failed),
                seconds=0.0 if own is None else round(float(own.seconds or 0), 3),
                prefilled=0 if own is None else int(own.prefilled or 0),
                sampled=0 if own is None else int(own.sampled or 0),
                last=last,
            )
        )
    return found


def _state(run: Run, last: str, now: datetime) -> str:
    if run.status == RUNNING:
        heard = max(run.created, last, run.finished or "")
        return RUNNING if now - datetime.fromisoformat(heard) < SILENT else STOPPED
    return STOPPED if run.status == INTERRUPTED else run.status


def _sums(engine: Engine) -> dict[int, Any]:
    c, record = case_steps.c, _record(engine)
    query = select(
        c.run_id,
        func.count().label("case_steps"),
        func.sum(case((c.status == FAILED, 1), else_=0)).label("failed"),
        func.sum(record["seconds"].as_float()).label("seconds"),
        func.sum(cast(record["tokens"]["prefilled"].as_integer(), Integer)).label("prefilled"),
        func.sum(cast(record["tokens"]["sampled"].as_integer(), Integer)).label("sampled"),
        func.max(c.created).label("last"),
    ).group_by(c.run_id)
    with reading(engine) as connection:
        return {row.run_id: row for row in connection.execute(query)}


def _cases(engine: Engine, run: Run) -> int:
    if run.cases is not None:
        return len(run.cases)
    config = run.config
    ids = CaseReader(engine).case_ids(split=config.get("split"), scheme=config.get("split_scheme", PATIENT_SCHEME))
    if "cases" in config:
        ids = sorted(set(ids) & set(config["cases"]))
    return len(ids[: config.get("limit")])


def _done(engine: Engine, run: Run, cases: int, state: str) -> int:
    """Returns the cases of which every step is stored and none waits for a clinician: a resumed run leaves them alone.

    Of a run that waits, these are all but those that wait.
    """
    c, wanted = case_steps.c, len(run.config.get("steps", ()))
    own = select(c.case_id).where(c.run_id == run.run_id)
    asked = own.where(_record(engine)["review"]["state"].as_string() == WAITING).distinct()
    whole = own.group_by(c.case_id).having(func.count(c.step.distinct()) >= wanted)
    with reading(engine) as connection:
        waiting = set(connection.scalars(asked))
        if state == WAITING:
            return max(cases - len(waiting), 0)
        return min(len(set(connection.scalars(whole)) - waiting), cases)


def _record(engine: Engine) -> Any:
    """Returns the stored record as JSON, of which a query can take parts."""
    # PostgreSQL reads text as JSON only when it is cast; SQLite's functions take the text as it is.
    postgresql = engine.dialect.name == "postgresql"
    return cast(case_steps.c.record_json, JSON) if postgresql else type_coerce(case_steps.c.record_json, JSON)
