"""Records a case that cannot be taken through its pathway as failed, with the reason, so that the run goes on.

The case itself may be what is broken: of it no more is read than its row's ids.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from sqlalchemy import Engine

from clinical_data.case import Case, Patient
from clinical_data.errors import StorageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation import recording
from evaluation.matching import match, truth_rows
from evaluation.record import RunRecord
from evaluation.store.run_store import Key, Run, RunStore
from search.problem import Models
from search.trajectory import Status
from workflow.config import PreparedRun
from workflow.step import StepPlan

logger = logging.getLogger(__name__)


def fail_open_steps(
    engine: Engine,
    run: Run,
    prepared: PreparedRun,
    case_id: str,
    reason: str,
    *,
    done: Collection[Key],
    models: Models | None = None,
    replace: bool = False,
) -> dict[str, str]:
    """Records every planned step of a case that is not done as failed.

    Args:
        engine, run, prepared: the run.
        case_id: the case.
        reason: why, in words that hold no value of the record.
        done: case-steps that stay as they are stored.
        models: the models of the run, where they are loaded.
        replace: put the records in the place of those that are stored.

    Returns:
        Step -> `failed`, for the steps recorded now.

    Raises:
        StorageError: the database failed.
    """
    logger.warning("%s failed: %s", case_id, reason)
    source, source_id, patient_id = CaseReader(engine).ids_of(case_id)
    case = Case(case_id, source, source_id, Patient(patient_id, source, ""), None, (), {})
    truth = _labels(engine, case_id)
    found = {}
    for name, plan in prepared.plans.items():
        if (case_id, name, 1) in done:
            continue
        record = _record(case, plan, prepared, reason, models)
        rows, marks = _scored(record, truth.get(plan.step.truth), plan)
        RunStore(engine).put(run.run_id, record, rows, marks, calls=[], replace=replace)
        found[name] = Status.FAILED.value
    return found


def _record(case: Case, plan: StepPlan, prepared: PreparedRun, reason: str, models: Models | None) -> RunRecord:
    vocabulary = plan.vocabularies.get(case.source)
    record = recording.failed(
        case=case,
        step=plan.step.name,
        reason=reason,
        question=plan.step.question,
        strategy=prepared.strategy,
        settings=plan.settings,
        seed=prepared.seed,
        models=models,
        hashes={"pathway": prepared.pathway_sha256, "catalogue": plan.catalogue.sha256},
        vocabulary=vocabulary.name if vocabulary else "",
    )
    return record.model_copy(update={"hashes": {k: v for k, v in record.hashes.items() if k != "case"}})


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
