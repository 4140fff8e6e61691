"""Recorded labels in the store, apart from the cases. Nothing that runs while a case is open may import this module."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict

from sqlalchemy import Connection, Engine, Row, delete, insert, select

from clinical_data.case import Coding
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.store.engine import reading
from clinical_data.store.tables import ground_truth, ground_truth_labels


class TruthStore:
    """Read access to the recorded labels of a store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def truth(self, case_id: str) -> dict[str, GroundTruth]:
        """Returns the truth of a case per step name; empty when none is stored."""
        steps = select(ground_truth).where(ground_truth.c.case_id == case_id).order_by(ground_truth.c.step)
        labels = select(ground_truth_labels).where(ground_truth_labels.c.case_id == case_id)
        with reading(self.engine) as connection:
            found = _assemble(connection.execute(steps).all(), connection.execute(labels).all())
        return {truth.step: truth for truth in found}

    def truth_of_step(self, step: str) -> dict[str, GroundTruth]:
        """Returns the truth of one step per case id, present or absent with its reason."""
        steps = select(ground_truth).where(ground_truth.c.step == step)
        labels = select(ground_truth_labels).where(ground_truth_labels.c.step == step)
        with reading(self.engine) as connection:
            found = _assemble(connection.execute(steps).all(), connection.execute(labels).all())
        return {truth.case_id: truth for truth in sorted(found, key=lambda t: t.case_id)}


def truth_hash(truth: GroundTruth) -> str:
    """Returns the sha256 over one step's truth."""
    text = json.dumps(asdict(truth), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def stored_hashes(connection: Connection, case_id: str) -> dict[str, str]:
    """Returns the stored hash per step of a case."""
    query = select(ground_truth.c.step, ground_truth.c.content_hash).where(ground_truth.c.case_id == case_id)
    return {row.step: row.content_hash for row in connection.execute(query)}


def replace_truth(connection: Connection, case_id: str, truths: Iterable[GroundTruth]) -> None:
    """Writes the truth of a case in place of what was stored, within the caller's transaction."""
    connection.execute(delete(ground_truth).where(ground_truth.c.case_id == case_id))
    steps, labels = [], []
    for truth in truths:
        steps.append(
            {
                "case_id": case_id,
                "step": truth.step,
                "absent_reason": truth.absent_reason or None,
                "content_hash": truth_hash(truth),
            }
        )
        for position, label in enumerate(truth.labels):
            labels.append({"case_id": case_id, "step": truth.step, "position": position, **_label_row(label)})
    if steps:
        connection.execute(insert(ground_truth), steps)
    if labels:
        connection.execute(insert(ground_truth_labels), labels)


def _label_row(label: Label) -> dict[str, object]:
    return {
        "system": label.coding.system,
        "code": label.coding.code,
        "display": label.coding.display,
        "version": label.coding.version,
        "strength": label.strength.value,
        "rank": label.rank,
        "entered": label.entered,
        "source_row": label.source_row,
    }


def _assemble(steps: Iterable[Row[tuple[object, ...]]], labels: Iterable[Row[tuple[object, ...]]]) -> list[GroundTruth]:
    by_step: dict[tuple[str, str], list[tuple[int, Label]]] = {}
    for row in labels:
        coding = Coding(row.system, row.code, row.display, row.version)
        label = Label(coding, Strength(row.strength), row.rank, row.entered, row.source_row)
        by_step.setdefault((row.case_id, row.step), []).append((row.position, label))
    found = []
    for row in steps:
        ordered = sorted(by_step.get((row.case_id, row.step), []), key=lambda pair: pair[0])
        found.append(GroundTruth(row.case_id, row.step, tuple(label for _, label in ordered), row.absent_reason or ""))
    return found
