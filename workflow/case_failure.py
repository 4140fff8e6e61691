"""Records a case that cannot be taken through its pathway as failed, with the reason, so that the run goes on.

The case itself may be what is broken: of it no more is read than its row, and in the record stand its ids alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Engine

from clinical_data.case import Case, Patient
from clinical_data.clocks import labels_hold
from clinical_data.errors import StorageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation.matching import match, truth_rows
from evaluation.record import RunRecord
from evaluation.store.run_store import Key, Run, RunStore
from search.problem import Models
from search.trajectory import Status
from workflow.config import PreparedRun
from workflow.reviewing import reviews_of, status_in
from workflow.route import open_place
from workflow.run_records import failed_record, numbered
from workflow.step import StepPlan

logger = logging.getLogger(__name__)


def fail_open_steps(
    engine: Engine,
    run: Run,
    prepared: PreparedRun,
    case_id: str,
    reason: str,
    *,
    done: Mapping[Key, str],
    models: Models | None = None,
    replace: bool = False,
) -> dict[str, str]:
    """Records every planned step of a case that is not done as failed, and where a loop leads back, all that follows.

    Args:
        engine, run, prepared: the run.
        case_id: the case.
        reason: why, in words that hold no value of the record.
        done: case-steps that stay as they are stored, with their status.
        models: the models of the run, where they are loaded.
        replace: put the records in the place of those that are stored.

    Returns:
        Step (with its number, where it came again) -> `failed`, for the steps recorded now.

    Raises:
        StorageError: the database failed.
    """
    logger.warning("%s failed: %s", case_id, reason)
    source, source_id, patient_id = CaseReader(engine).ids_of(case_id)
    case = Case(case_id, source, source_id, Patient(patient_id, source, ""), None, (), {})
    truth = _labels(engine, case_id)
    store = RunStore(engine)
    known = dict(done)
    found = {}
    for key in _open_places(engine, run, prepared, case_id, known):
        _, name, occurrence = key
        plan = prepared.plans[name]
        record = failed_record(run, prepared, case, plan, occurrence, reason, models)
        labels = truth.get(plan.step.truth) if labels_hold(plan.step.truth, occurrence) else None
        rows, marks = _scored(record, labels, plan)
        store.put(run.run_id, record, rows, marks, calls=[], replace=replace)
        known[key] = Status.FAILED.value
        found[numbered(name, occurrence)] = Status.FAILED.value
    return found


def _open_places(engine: Engine, run: Run, prepared: PreparedRun, case_id: str, known: dict[Key, str]) -> Iterator[Key]:
    """Yields what is not known, on the way of the case as far as that can be told, then the steps beside it.

    `known` grows while this goes on. A step beside the way would be recorded without a search; that it fails instead
    says that nobody could tell.
    """
    bare = bare_case(engine, case_id)
    if bare is not None and prepared.pathway.loops:
        reviews = reviews_of(RunStore(engine), run, prepared, case_id)

        def status_of(step: str, occurrence: int) -> str | None:
            return status_in((case_id, step, occurrence), known, reviews)

        while (place := open_place(prepared.pathway, bare, status_of, prepared.plans)) is not None:
            yield (case_id, *place)
    for name in prepared.plans:
        if (case_id, name, 1) not in known:
            yield case_id, name, 1


def bare_case(engine: Engine, case_id: str) -> Case | None:
    """Returns the case without findings; None where it cannot be read, so that its way cannot be told.

    Raises:
        StorageError: the database failed.
    """
    try:
        return CaseReader(engine).get(case_id, lambda _: None)
    except StorageError:
        raise
    except Exception:
        return None


def _labels(engine: Engine, case_id: str) -> dict[str, GroundTruth]:
    """Returns the recorded labels; none where they cannot be read either (`wardstar score` marks the run again)."""
    try:
        return TruthStore(engine).truth(case_id)
    except StorageError:
        raise
    except Exception:
        return {}


def _scored(
    record: RunRecord, truth: GroundTruth | None, plan: StepPlan
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    vocabulary = plan.vocabularies.get(record.source)
    try:
        return truth_rows(truth), {} if vocabulary is None else match(record, truth, vocabulary)
    except Exception:
        return [], {}
