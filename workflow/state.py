"""The state that a case carries through its pathway: plain JSON, and nothing that the record showed later."""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict


class StepConclusion(TypedDict):
    """What one step concluded.

    Attributes:
        status: `verified`, `unverified`, `abstain`, `failed` or `not_applicable`.
        answer_key, display, probability: first answer; key None and an empty display when there is none.
    """

    status: str
    answer_key: str | None
    display: str
    probability: float


class CaseState(TypedDict):
    """State of one case: its id, and the conclusions so far by step name, in the order in which they were drawn."""

    case_id: str
    conclusions: Annotated[dict[str, StepConclusion], operator.or_]


def new_state(case_id: str) -> CaseState:
    """Returns the state of a case before its first step."""
    return {"case_id": case_id, "conclusions": {}}


def no_answer(status: str) -> StepConclusion:
    """Returns the conclusion of a step that gave no answer."""
    return {"status": status, "answer_key": None, "display": "", "probability": 0.0}
