"""The records of a run's case-steps, made of what the graph gave, with everything that the run itself says of them."""

from __future__ import annotations

from typing import Any

from clinical_data.case import Case
from evaluation import recording
from evaluation.record import ReviewRecord, RunRecord
from evaluation.store.run_store import Run
from search.problem import Models
from search.wording import template_hash
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
    run: Run, prepared: PreparedRun, case: Case, plan: StepPlan, occurrence: int, reason: str, models: Models | None
) -> RunRecord:
    """Returns the record of a step that failed with its case, of which no more is known than its ids."""
    how = _how(run, prepared, case, plan, models)
    where = _where(case, plan, occurrence)
    record = recording.failed(**how, **where, reason=reason)
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
    how = _how(run, prepared, case, plan, models)
    if outcome.problem is not None and outcome.result is not None:
        repeatable = all(getattr(m, "repeatable", True) for m in models.distinct)
        return recording.make_record(
            **how, problem=outcome.problem, result=outcome.result, seconds=outcome.seconds, repeatable=repeatable
        )
    where = {
        **_where(case, plan, outcome.occurrence),
        "reason": outcome.reason,
        "clock": clock_of(case, plan.step, outcome.occurrence),
        "clock_text": plan.step.clock_text(case.source, outcome.occurrence),
    }
    if outcome.failed:
        return recording.failed(**how, **where, problem=outcome.problem, seconds=outcome.seconds)
    return recording.not_applicable(**how, **where)


def _how(run: Run, prepared: PreparedRun, case: Case, plan: StepPlan, models: Models | None) -> dict[str, Any]:
    """Returns what every record says of how it came about."""
    return {
        "case": case,
        "strategy": prepared.strategy,
        "settings": plan.settings,
        "seed": prepared.seed,
        "models": models,
        "hashes": {
            "configuration": run.config_hash,
            "pathway": prepared.pathway_sha256,
            "prompts": template_hash(plan.language),
            "catalogue": plan.catalogue.sha256,
        },
    }


def _where(case: Case, plan: StepPlan, occurrence: int) -> dict[str, Any]:
    """Returns what a record says of its step where there is no conclusion to tell it."""
    vocabulary = plan.vocabularies.get(case.source)
    return {
        "step": plan.step.name,
        "occurrence": occurrence,
        "question": plan.step.question,
        "vocabulary": vocabulary.name if vocabulary else "",
    }
