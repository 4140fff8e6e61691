"""The eight steps, the fixed clock of each per source, and the lags of results without a time of their own.

A clock is an anchor of the case plus minutes, fixed by step and source and never read from a truth row. A pathway names
its clocks itself; a test holds the bundled pathways to these.

A lag is how many minutes after it was taken a result counts as known, where the record does not say when it was: the
95th percentile of its kind, so that nothing is shown before it can be expected.

A step that a pathway comes back to has a clock for each occurrence: the first is the fixed one, and every next one
stands a stated number of minutes later.

Source: clinical.md, "Clock"; clinical_data.md B, "Fixed clocks".
"""

from __future__ import annotations

from dataclasses import dataclass

from clinical_data.case import Case

STEPS = (
    "triage",
    "admission_diagnosis",
    "differential",
    "workup",
    "result_update",
    "treatment",
    "disposition",
    "discharge_diagnosis",
)
"""The steps that every source answers for, with labels or with a reason for their absence (clinical.md)."""

DAY = 24 * 60  # minutes
HOURS = "{hours}"  # in the words of a clock: the hours after its anchor

WINDOWED = ("workup", "treatment")
"""Steps whose labels are what began in the day after the fixed clock: they answer no later occurrence."""

LAB_LAG = 4 * 60
CULTURE_LAG = 9 * DAY
REPORT_LAG = DAY  # of imaging; not measured in any source at hand, a day is a cautious guess

LOOK_BACK = DAY
"""Minutes before a stay from which laboratory and microbiology results of no encounter belong to it.

Blood is often taken in the clinic or the ambulance hours before the registration, and the ward reads it; one day is the
longest for which a result still describes the illness at hand. An outpatient result of months or years before would
answer a request with a state that is long past: without this bound such values alone answered a third of all panels.
"""


@dataclass(frozen=True, slots=True)
class FixedClock:
    """An anchor of the case, and minutes after it."""

    anchor: str
    plus_minutes: int = 0


_MIMIC = {
    "triage": FixedClock("triage"),  # ED arrival, or the first triage set where that came later
    "admission_diagnosis": FixedClock("admission"),
    "differential": FixedClock("admission", 8 * 60),
    "workup": FixedClock("admission", 8 * 60),
    "result_update": FixedClock("admission", 12 * 60),  # the results of the work-up: LAB_LAG after it
    "treatment": FixedClock("admission", DAY),
    "disposition": FixedClock("admission", DAY),
    "discharge_diagnosis": FixedClock("end_of_stay"),
}
_EICU = {
    "admission_diagnosis": FixedClock("admission", 6 * 60),
    "differential": FixedClock("admission", 6 * 60),
    "workup": FixedClock("admission", 6 * 60),
    "result_update": FixedClock("admission", 10 * 60),
    "treatment": FixedClock("admission", DAY),
    "disposition": FixedClock("admission", DAY),
    "discharge_diagnosis": FixedClock("end_of_stay"),
}
_FHIR = {**_MIMIC, "admission_diagnosis": FixedClock("admission", 6 * 60)}
_WHOLE = {"discharge_diagnosis": FixedClock("end_of_stay")}  # one consultation: everything is known at once

CLOCKS: dict[str, dict[str, FixedClock]] = {
    "fhir": _FHIR,
    "mimic-iv": _MIMIC,
    "mimic-iii": {**_MIMIC, "triage": FixedClock("ed_arrival")},
    "meds": {**_MIMIC, "triage": FixedClock("ed_arrival")},
    "eicu": _EICU,
    "osce": _WHOLE,
    "ddxplus": {**_WHOLE, "differential": FixedClock("end_of_stay")},
}


def clock_minute(case: Case, step: str) -> int | None:
    """Returns the minute of a step's fixed clock in a case; None when its source or its record has none."""
    clock = CLOCKS.get(case.source, {}).get(step)
    if clock is None or clock.anchor not in case.anchors:
        return None
    return case.anchors[clock.anchor] + clock.plus_minutes


def minutes_of(plus_minutes: int, every_minutes: int, occurrence: int) -> int:
    """Returns the minutes from the anchor to the clock of an occurrence, counted from 1."""
    return plus_minutes + (occurrence - 1) * every_minutes


def clock_words(text: str, minutes: int) -> str:
    """Returns the words of a clock; `{hours}` in them stands for the hours from its anchor."""
    return text.replace(HOURS, f"{minutes / 60:g}")


def labels_hold(truth: str, occurrence: int) -> bool:
    """Says whether the recorded labels of a name answer this occurrence of a step; see `WINDOWED`."""
    return occurrence == 1 or truth not in WINDOWED
