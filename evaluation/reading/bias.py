"""What seeing the model's answer did to the readers: automation bias, and their own answers against the record.

Source: Goddard, Roudsari and Wyatt 2012, Automation bias: a systematic review, doi 10.1136/amiajnl-2011-000089: advice
that turns a right answer into a wrong one (error of commission), or a wrong one into a right one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from evaluation.metrics.intervals import Metric, difference, mean_metric
from evaluation.reading.form import Key, Review, Verdict
from evaluation.reading.read_steps import ReadStep


@dataclass(frozen=True, slots=True)
class _Change:
    """One reading beside a recorded label.

    Attributes:
        before, after, model: the own answers and the model's agree with the record.
        differed: the own answer before was not the model's; `followed`: the one after is.
        accepted: the model's answer was.
    """

    patient_id: str
    before: bool
    after: bool
    model: bool
    differed: bool
    followed: bool
    accepted: bool


_Share = tuple[Callable[[_Change], bool], Callable[[_Change], bool]]
SHARES: dict[str, _Share] = {
    "moved_to_wrong_model": (lambda c: c.differed and not c.model, lambda c: c.followed),
    "moved_to_right_model": (lambda c: c.differed and c.model, lambda c: c.followed),
    "commission": (lambda c: c.before and not c.model, lambda c: not c.after),
    "rescue": (lambda c: not c.before and c.model, lambda c: c.after),
    "accepted_wrong_model": (lambda c: not c.model, lambda c: c.accepted),
    "accepted_right_model": (lambda c: c.model, lambda c: c.accepted),
}
"""Name -> of which readings it is a share, and what is counted among them."""


def bias_figures(reviews: Sequence[Review], steps: Mapping[Key, ReadStep], seed: int) -> dict[str, Metric]:
    """Returns the figures of readings of case-steps that have a recorded label and an answer of the model.

    `n` counts the readings behind each; patients are resampled, so that the intervals speak of other patients, not of
    other readers.
    """
    changes = [change for review in reviews if (change := _change(review, steps[review.key])) is not None]
    patients = [change.patient_id for change in changes]
    before, after = ([float(getattr(c, name)) for c in changes] for name in ("before", "after"))
    found = {
        "accuracy_before": mean_metric(before, patients, seed, share=True),
        "accuracy_after": mean_metric(after, patients, seed, share=True),
        "accuracy_change": difference(after, before, patients, seed),
        "accuracy_model": mean_metric([float(c.model) for c in changes], patients, seed, share=True),
    }
    for name, (among, counted) in SHARES.items():
        chosen = [change for change in changes if among(change)]
        values = [float(counted(change)) for change in chosen]
        found[name] = mean_metric(values, [change.patient_id for change in chosen], seed, share=True)
    return found


def reader_rows(reviews: Sequence[Review], steps: Mapping[Key, ReadStep]) -> list[dict[str, Any]]:
    """Returns one row per reader: how much was read and with what result; without intervals."""
    rows = []
    for name in sorted({review.reviewer for review in reviews}):
        own = [review for review in reviews if review.reviewer == name]
        changes = [change for review in own if (change := _change(review, steps[review.key])) is not None]
        rows.append(
            {
                "reader": name,
                "readings": len(own),
                "with_label": len(changes),
                "right_before": sum(change.before for change in changes),
                "right_after": sum(change.after for change in changes),
                "overridden": sum(review.verdict is Verdict.OVERRIDDEN for review in own),
                "median_minutes": round(median(review.minutes for review in own), 1),
            }
        )
    return rows


def _change(review: Review, step: ReadStep) -> _Change | None:
    """Returns a reading beside the record; None without a recorded label or an answer of the model."""
    before, after = step.right(review.first.codes), step.right(review.after.codes)
    model = step.right(step.model) if step.model else None
    if before is None or after is None or model is None:
        return None
    return _Change(
        patient_id=step.patient_id,
        before=before,
        after=after,
        model=model,
        differed=not step.same(review.first.codes, step.model),
        followed=step.same(review.after.codes, step.model),
        accepted=review.verdict is Verdict.ACCEPTED,
    )
