"""Figures of a section by hospital: is what a model learned true of one hospital, or of its neighbours as well?

Splits are drawn by patient, so that a hospital has stays in several of them. Two looks at that, both exploratory: the
figures of stays from hospitals with few stays in the train split beside those from hospitals with more, and intervals
by bootstrap over hospitals, which are wider than those over patients where stays of one hospital are alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine

from clinical_data.splits import TRAIN
from clinical_data.store.case_reader import CaseReader
from evaluation.formatting import metric_text
from evaluation.metrics import ScoredStep, mean_metric
from evaluation.record_scoring import RecordScorer
from evaluation.store.run_store import RunStore

FEW = 5  # stays of the train split
SEED = 0


def hospital_table(engine: Engine, section: Mapping[str, Any]) -> list[list[str]]:
    """Returns top-1 and log score of each arm by hospital, with a head; every arm has the same stays.

    Args:
        engine: database of the runs and their cases.
        section: of the plan (`benchmarks.results_table`).
    """
    hospitals = hospitals_of(engine)
    trained = Counter(hospitals[i] for i in CaseReader(engine).case_ids(split=TRAIN))
    level = section["key"].removeprefix("accuracy_")
    rows: list[list[str]] = []
    for arm in section["arms"]:
        steps = labelled(engine, arm["run"], section["step"])
        homes = [hospitals[step.case_id] for step in steps]
        few = [trained[home] < FEW for home in homes]
        groups = ([True] * len(steps), few, [not one for one in few])
        rows = rows or [_head(len(set(homes)), few)]
        right = [_cell([float(step.match[level]) for step in steps], homes, kept, share=True) for kept in groups]
        logs = [_cell([float(step.log_score or 0.0) for step in steps], homes, kept) for kept in groups]
        rows.append([arm["label"], *right, *logs])
    return rows


def hospitals_of(engine: Engine) -> dict[str, str]:
    """Returns case id -> hospital, of all cases; those that name none share one."""
    reader = CaseReader(engine)
    cases = reader.without_findings(reader.case_ids(), _damaged)
    return {case.case_id: case.attributes.get("hospital_id", "") for case in cases}


def labelled(engine: Engine, run: str, step: str) -> list[ScoredStep]:
    """Returns the scored case-steps of a run at one step that have a label."""
    store = RunStore(engine)
    found = store.get(run)
    scorer = RecordScorer(engine, found)
    scored = [scorer.scored(stored) for stored in store.records(found.run_id) if stored.record.step == step]
    return [one for one in scored if one.labelled]


def _damaged(case_id: str, error: Exception) -> None:
    raise error


def _head(hospitals: int, few: Sequence[bool]) -> list[str]:
    groups = (
        f"over {hospitals} hospitals",
        f"under {FEW} train stays (n {sum(few)})",
        f"{FEW} or more (n {len(few) - sum(few)})",
    )
    return ["by hospital", *(f"{figure}, {group}" for figure in ("top-1", "log score") for group in groups)]


def _cell(values: Sequence[float], homes: Sequence[str], kept: Sequence[bool], *, share: bool = False) -> str:
    chosen = [(value, home) for value, home, keep in zip(values, homes, kept, strict=True) if keep]
    metric = mean_metric([value for value, _ in chosen], [home for _, home in chosen], SEED, share=share)
    return metric_text(metric.to_json())
