"""The state that a case carries through its pathway: plain JSON, and nothing that the record showed later."""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

CLINICIAN = "clinician"
"""Status of a conclusion that a clinician gave in place of the search."""

WAITING = "waiting"
"""How far a case came that waits for a clinician; see `CaseState.ended`."""


class StepConclusion(TypedDict):
    """What one step concluded.

    Attributes:
        status: `verified`, `unverified`, `abstain`, `failed`, `not_applicable` or `clinician`.
        answer_key, display, probability: first answer; key None and an empty display when there is none.
    """

    status: str
    answer_key: str | None
    display: str
    probability: float


class CaseState(TypedDict):
    """State of one case.

    Attributes:
        case_id: the case.
        conclusions: the latest of each step, in the order in which the steps were first taken.
        history: step -> its conclusions, one per occurrence.
        visits: step -> how many times the case has come to it.
        ended: `end`, `human` (it goes to a human), `waiting` (for a clinician's answer), or empty while it is open.
    """

    case_id: str
    conclusions: Annotated[dict[str, StepConclusion], operator.or_]
    history: Annotated[dict[str, list[StepConclusion]], operator.or_]
    visits: Annotated[dict[str, int], operator.or_]
    ended: str


def new_state(case_id: str) -> CaseState:
    """Returns the state of a case before its first step."""
    return {"case_id": case_id, "conclusions": {}, "history": {}, "visits": {}, "ended": ""}


def no_answer(status: str) -> StepConclusion:
    """Returns the conclusion of a step that gave no answer."""
    return {"status": status, "answer_key": None, "display": "", "probability": 0.0}
