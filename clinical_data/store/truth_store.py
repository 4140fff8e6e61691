"""Recorded labels in the store, apart from the cases. Nothing that runs while a case is open may import this module."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Engine, Row, select

from clinical_data.case import Coding
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.store.engine import reading
from clinical_data.store.tables import ground_truth, ground_truth_labels
from clinical_data.store.texts import from_stored


class TruthStore:
    """Read access to the recorded labels of a store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def truth(self, case_id: str) -> dict[str, GroundTruth]:
        """Returns the truth of a case per step name; empty when none is stored."""
        steps = select(ground_truth).where(ground_truth.c.case_id == case_id)
        labels = select(ground_truth_labels).where(ground_truth_labels.c.case_id == case_id)
        with reading(self.engine) as connection:
            found = _assemble(connection.execute(steps).all(), connection.execute(labels).all())
        return {truth.step: truth for truth in sorted(found, key=lambda t: t.step)}  # databases differ in collation

    def truth_of_step(self, step: str) -> dict[str, GroundTruth]:
        """Returns the truth of one step per case id, present or absent with its reason."""
        steps = select(ground_truth).where(ground_truth.c.step == step)
        labels = select(ground_truth_labels).where(ground_truth_labels.c.step == step)
        with reading(self.engine) as connection:
            found = _assemble(connection.execute(steps).all(), connection.execute(labels).all())
        return {truth.case_id: truth for truth in sorted(found, key=lambda t: t.case_id)}


def _assemble(steps: Iterable[Row[tuple[object, ...]]], labels: Iterable[Row[tuple[object, ...]]]) -> list[GroundTruth]:
    by_step: dict[tuple[str, str], list[tuple[int, Label]]] = {}
    for row in labels:
        version = None if row.version is None else from_stored(row.version)
        coding = Coding(from_stored(row.system), from_stored(row.code), from_stored(row.display), version)
        label = Label(coding, Strength(row.strength), row.rank, row.entered, from_stored(row.source_row))
        by_step.setdefault((row.case_id, row.step), []).append((row.position, label))
    found = []
    for row in steps:
        ordered = sorted(by_step.get((row.case_id, row.step), []), key=lambda pair: pair[0])
        reason = from_stored(row.absent_reason or "")
        found.append(GroundTruth(row.case_id, row.step, tuple(label for _, label in ordered), reason))
    return found
