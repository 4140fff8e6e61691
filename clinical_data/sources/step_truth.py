"""Recorded labels that follow from the record by the same rule in every source: work-up, treatment, disposition.

They are computed while a record is imported, from the whole case, and never kept with it.

Source: clinical.md, "Recorded label per step".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from clinical_data.case import Case, Coding, Finding, FindingKind
from clinical_data.catalogue import ITEM_SYSTEM, ORDERED_GROUPS, Catalogue
from clinical_data.clocks import DAY, STEPS, clock_minute
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.treatment_classes import INTENSIVE_CARE, TREATMENT_SYSTEM, classes_of, display_of

DISPOSITION_SYSTEM = "wardstar:disposition"
ACUITY_SYSTEM = "wardstar:triage-acuity"  # 1 (most urgent) to 5, as the Emergency Severity Index

DISPOSITIONS = {
    "home": "home",
    "facility": "care facility (nursing home, rehabilitation, long-term care)",
    "hospice": "hospice",
    "other_hospital": "another hospital",
    "ward": "general ward",
    "step_down": "step-down unit",
    "other_icu": "another intensive care unit",
    "other": "another place, which the record does not name",
}

_WITHOUT_LABEL = {"result_update": "needs no label of its own: it is scored by what the next results change"}
AFTER_END = "the clock of the step lies after the end of the stay"
NO_CLOCK = "the source fixes no clock for this step"
# What can begin a treatment: orders and administrations, ventilator observations and procedures. Home drugs take part
# because a class that was taken at home is not newly started in the stay.
_TREATING_KINDS = (FindingKind.TREATMENT, FindingKind.MEDICATION_HOME, FindingKind.VITAL, FindingKind.PROCEDURE)


def absent(case_id: str, step: str, reason: str) -> GroundTruth:
    """Returns the truth of a step that has none, with the reason."""
    return GroundTruth(case_id, step, (), reason)


def every_step(case: Case, given: Mapping[str, tuple[Label, ...] | str]) -> dict[str, GroundTruth]:
    """Returns the truth of all eight steps of a case.

    Args:
        case: the case.
        given: step -> its labels, or the reason why there are none. A step left out has no truth in the source.
    """
    found = {}
    for step in STEPS:
        labels = given.get(step, _WITHOUT_LABEL.get(step, "the source records no answer to this step"))
        if isinstance(labels, str):
            found[step] = absent(case.case_id, step, labels)
        else:
            found[step] = GroundTruth(case.case_id, step, labels)
    return found


def window_after(case: Case, step: str) -> tuple[int, int] | str:
    """Returns the day that follows a step's clock, as (minute of the clock, last minute), or why there is none."""
    clock = clock_minute(case, step)
    if clock is None:
        return NO_CLOCK
    end = case.anchors.get("end_of_stay")
    if end is not None and clock > end:
        return AFTER_END
    return clock, clock + DAY


def workup_labels(case: Case, catalogue: Catalogue) -> tuple[Label, ...] | str:
    """Returns the catalogue items first ordered or done in the day after the clock, or why there are none.

    An item counts from the order or collection of its first fact (`pending_from`, else `charted`).
    """
    window = window_after(case, "workup")
    if isinstance(window, str):
        return window
    begun = [
        _Begun(_done(f), f.finding_id, Coding(ITEM_SYSTEM, item.item_id, item.display, catalogue.version), f.note)
        for f in case.findings
        for item in catalogue.items_of(case.source, f)
        if item.group in ORDERED_GROUPS
    ]
    return _first_in(window, begun) or "no test was first done in the day after the clock"


def treatment_labels(
    case: Case, *, more: Sequence[Finding] = (), without: Collection[str] = ()
) -> tuple[Label, ...] | str:
    """Returns drug classes and levels of care newly started in the day after the clock, or why there are none.

    A class counts from its first order or administration (`charted`); one that the patient took at home counts from
    admission, intensive care from the first stay on a unit.

    Args:
        case: the case.
        more: starts of treatment that the source records and the chart does not name; they stay out of the case.
        without: ids of findings that the source later shows never to have taken place. A chart keeps them, because
            nobody at the bedside knew.
    """
    window = window_after(case, "treatment")
    if isinstance(window, str):
        return window
    begun: list[_Begun] = []
    for finding in (*case.findings, *more):
        if finding.kind not in _TREATING_KINDS or finding.finding_id in without:
            continue
        at_home = finding.kind is FindingKind.MEDICATION_HOME
        minute = case.anchors.get("admission", 0) if at_home else finding.charted
        for key in classes_of(case.source, finding):
            begun.append(
                _Begun(minute, finding.finding_id, Coding(TREATMENT_SYSTEM, key, display_of(key)), finding.note)
            )
    care = Coding(TREATMENT_SYSTEM, INTENSIVE_CARE, display_of(INTENSIVE_CARE))
    for stay in (e for e in case.encounters if e.kind == "icu"):
        begun.append(_Begun(stay.start, stay.encounter_id, care, f"encounter {stay.encounter_id}"))
    return _first_in(window, begun) or "no treatment was first started in the day after the clock"


def disposition_label(code: str, source_row: str, entered: int | None) -> tuple[Label, ...]:
    """Returns the label of one destination.

    Args:
        code: key of DISPOSITIONS.
        source_row: table and key that it was read from.
        entered: minute of discharge, where known.
    """
    coding = Coding(DISPOSITION_SYSTEM, code, DISPOSITIONS[code])
    return (Label(coding, Strength.RECORDED_LATER, 1, entered, source_row),)


def acuity_label(level: int, source_row: str, entered: int | None) -> tuple[Label, ...]:
    """Returns the label of a triage acuity, 1 to 5.

    Raises:
        ValueError: another level.
    """
    if level not in range(1, 6):
        raise ValueError("no acuity level")
    coding = Coding(ACUITY_SYSTEM, str(level), f"acuity {level}")
    return (Label(coding, Strength.RECORDED_AT_TIME, 1, entered, source_row),)


def _done(finding: Finding) -> int:
    return finding.charted if finding.pending_from is None else min(finding.charted, finding.pending_from)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Something that began: minute, key that settles equal minutes, what it counts as, and where it is recorded."""

    minute: int
    key: str
    coding: Coding
    source_row: str


def _first_in(window: tuple[int, int], begun: Iterable[_Begun]) -> tuple[Label, ...]:
    """Returns a label for each coding whose first minute lies in the window, in the order of those minutes."""
    clock, last = window
    first: dict[str, _Begun] = {}
    for one in sorted(begun, key=lambda b: (b.minute, b.coding.code, b.key)):
        first.setdefault(one.coding.code, one)
    new = [one for one in first.values() if clock < one.minute <= last]
    return tuple(
        Label(one.coding, Strength.RECORDED_LATER, rank, one.minute, one.source_row)
        for rank, one in enumerate(new, start=1)
    )
