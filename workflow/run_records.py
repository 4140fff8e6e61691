"""The records of a run's case-steps, made of what the graph gave, with everything that the run itself says of them."""

from __future__ import annotations

from typing import Any

from clinical_data.case import Case
from evaluation import recording
from evaluation.record import ReviewRecord, RunRecord
from evaluation.store.run_store import Run
from search.problem import Models
from workflow.config import PreparedRun
from workflow.reviewing import AWAITED, SKIPPED
from workflow.step import StepOutcome, StepPlan, clock_of


def record_of(run: Run, prepared: PreparedRun, case: Case, models: Models, outcome: StepOutcome) -> RunRecord:
    """Returns the record of an outcome, without truth."""
    record = of_run(_record(run, prepared, case, models, outcome), prepared)
    if outcome.plan.step.review and outcome.result is not None:
        review = ReviewRecord(state=AWAITED if prepared.waits else SKIPPED)
        record = record.model_copy(update={"review": review})
    return record


def failed_record(
    prepared: PreparedRun, case: Case, plan: StepPlan, occurrence: int, reason: str, models: Models | None
) -> RunRecord:
    """Returns the record of a step that failed with its case, of which no more is known than its ids."""
    vocabulary = plan.vocabularies.get(case.source)
    record = recording.failed(
        case=case,
        step=plan.step.name,
        reason=reason,
        occurrence=occurrence,
        question=plan.step.question,
        strategy=prepared.strategy,
        settings=plan.settings,
        seed=prepared.seed,
        models=models,
        hashes={"pathway": prepared.pathway_sha256, "catalogue": plan.catalogue.sha256},
        vocabulary=vocabulary.name if vocabulary else "",
    )
    hashes = {k: v for k, v in record.hashes.items() if k != "case"}
    return of_run(record.model_copy(update={"hashes": hashes}), prepared)


def of_run(record: RunRecord, prepared: PreparedRun) -> RunRecord:
    """Returns a record with what holds for all records of its run: an oracle's, or one that cannot be repeated."""
    if prepared.predecessors == "recorded":
        record = record.model_copy(update={"settings": {**record.settings, "predecessors": "recorded"}})
    if prepared.batch_across_cases:
        record = record.model_copy(update={"repeatable": False})
    return record


def numbered(step: str, occurrence: int) -> str:
    """Returns the name of a step, with its number where it came again."""
    return step if occurrence == 1 else f"{step} {occurrence}"


def _record(run: Run, prepared: PreparedRun, case: Case, models: Models, outcome: StepOutcome) -> RunRecord:
    plan = outcome.plan
    vocabulary = plan.vocabularies.get(case.source)
    how: dict[str, Any] = {
        "case": case,
        "strategy": prepared.strategy,
        "settings": plan.settings,
        "seed": prepared.seed,
        "models": models,
        "hashes": {
            "configuration": run.config_hash,
            "pathway": prepared.pathway_sha256,
            "catalogue": plan.catalogue.sha256,
        },
    }
    if outcome.problem is not None and outcome.result is not None:
        repeatable = all(getattr(m, "repeatable", True) for m in models.distinct)
        return recording.make_record(
            **how, problem=outcome.problem, result=outcome.result, seconds=outcome.seconds, repeatable=repeatable
        )
    where: dict[str, Any] = {
        "step": plan.step.name,
        "occurrence": outcome.occurrence,
        "reason": outcome.reason,
        "clock": clock_of(case, plan.step, outcome.occurrence),
        "clock_text": plan.step.clock_text(case.source, outcome.occurrence),
        "question": plan.step.question,
        "vocabulary": vocabulary.name if vocabulary else "",
    }
    if outcome.failed:
        return recording.failed(**how, **where, problem=outcome.problem, seconds=outcome.seconds)
    return recording.not_applicable(**how, **where)
