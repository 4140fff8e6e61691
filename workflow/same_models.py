"""A run goes on with the models it began with: a folder that was trained anew is another model at the same path."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from clinical_data.errors import UsageError
from evaluation.store.run_store import Run, RunStore
from search.desk import GENERATOR, PEER, VALUE
from search.models.adapters import folder_of
from search.problem import Models
from workflow.config import PreparedRun


def check_loaded(store: RunStore, run: Run, models: Models) -> None:
    """Compares the models of a run, as they are loaded, with those of its stored records.

    Raises:
        UsageError: the revision of one is another; both are named.
    """
    then = _recorded(store, run)
    for role, model in ((GENERATOR, models.generator), (PEER, models.peer), (VALUE, models.value)):
        if model is not None:
            _compare(run, role, then.get(role, {}), model.identity.spec, model.identity.revision)


def check_folders(store: RunStore, run: Run, prepared: PreparedRun) -> None:
    """As `check_loaded`, for the models that are local folders, without loading them.

    Raises:
        UsageError: as there.
        ModelError: such a folder holds no model, no value model where one is asked for, or an adapter whose base is
            not here or another.
    """
    specs = {GENERATOR: prepared.generator, PEER: prepared.peer or prepared.generator, VALUE: prepared.value_model}
    folders = {role: spec for role, spec in specs.items() if spec and folder_of(spec).is_dir()}
    if not folders:
        return
    from search.models.weight_files import find_value_weights, find_weights  # their libraries only when they are needed

    then = _recorded(store, run)
    now = {spec: find_weights(spec).revision for spec in sorted({folders[role] for role in folders if role != VALUE})}
    for role, spec in folders.items():
        revision = now[spec] if role != VALUE else find_value_weights(spec).revision
        _compare(run, role, then.get(role, {}), spec, revision)


def _recorded(store: RunStore, run: Run) -> dict[str, dict[str, Any]]:
    """Returns role -> identity from the first record that holds any; none where no case-step is stored."""
    with closing(store.records(run.run_id)) as records:  # type: ignore[type-var]
        return next((stored.record.models for stored in records if stored.record.models), {})


def _compare(run: Run, role: str, then: dict[str, Any], spec: str, revision: str) -> None:
    before, role = then.get("revision", ""), "value model" if role == VALUE else role
    if before and revision and before != revision:
        raise UsageError(
            f"run {run.name}: the {role} {spec} is another model now: revision {revision[:12]}, "
            f"of the stored records {before[:12]}",
            hint="start a new run with --run, or put the earlier model back",
        )
