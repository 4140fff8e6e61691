"""Where a case goes from a step: a pure function of the pathway, the case without its labels, and what was concluded.

The graph and the runner ask the same function, so that the runner can tell from stored records alone whether a case is
done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from clinical_data.case import Case
from search.trajectory import Status
from workflow.pathway_model import (
    ABSTAINED,
    ANSWER_SETTLED,
    BUDGET_LEFT,
    CLOCK_PASSED,
    END,
    HAS_ED_STAY,
    HUMAN,
    START,
    Edge,
    Pathway,
    Step,
)
from workflow.state import CLINICIAN
from workflow.step import clock_of

PASSED_BY = "the pathway leads past this step"
_TO_HUMAN = "the case went to a human after "


@dataclass(frozen=True, slots=True)
class Stand:
    """How far a case has come.

    Attributes:
        visits: step -> how many times it was come to.
        statuses: step -> status of its latest conclusion.
    """

    visits: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)


def next_place(pathway: Pathway, name: str, case: Case, stand: Stand) -> str:
    """Returns the step that follows a step or `start`, or `end`, or `human`.

    The first edge that may be taken and whose condition holds is taken; where there is none, the case has ended.
    """
    for edge in pathway.edges_from(name):
        if pathway.leads_back(edge) and not may_repeat(case, pathway.step(edge.to), stand):
            continue
        if edge.condition is None or holds(edge, name, pathway, case, stand) == bool(edge.when):
            return edge.to
    return END


def may_repeat(case: Case, step: Step, stand: Stand) -> bool:
    """Says whether a step may be taken once more: within its bound, at a clock within the stay."""
    occurrence = stand.visits.get(step.name, 0) + 1
    return occurrence <= step.most and reached(case, step, occurrence)


def enters(case: Case, step: Step, stand: Stand) -> bool:
    """Says whether a step that the case comes to is taken: the first time always, then as long as it may repeat."""
    return not stand.visits.get(step.name) or may_repeat(case, step, stand)


def reached(case: Case, step: Step, occurrence: int) -> bool:
    """Says whether the stay reached the clock of a step at an occurrence."""
    clock, end = clock_of(case, step, occurrence), case.anchors.get("end_of_stay")
    return clock is not None and (end is None or clock <= end)


def holds(edge: Edge, name: str, pathway: Pathway, case: Case, stand: Stand) -> bool:
    """Says whether the condition of an edge holds.

    has_ed_stay: the case has a part in the emergency department. abstained: the step just taken handed the case to a
    human. answer_settled: its answer was verified by the peer, or given by a clinician. budget_left: the step that the
    edge leads to may be taken once more. clock_passed: the stay reached the next clock of that step.
    """
    status = stand.statuses.get(name, "")
    if edge.condition == HAS_ED_STAY:
        return any(e.kind == "emergency" for e in case.encounters)
    if edge.condition == ABSTAINED:
        return status == Status.ABSTAIN
    if edge.condition == ANSWER_SETTLED:
        return status in (Status.VERIFIED, CLINICIAN)
    if edge.to in (END, HUMAN):
        return False
    step = pathway.step(edge.to)
    if edge.condition == BUDGET_LEFT:
        return may_repeat(case, step, stand)
    if edge.condition == CLOCK_PASSED:
        return reached(case, step, stand.visits.get(step.name, 0) + 1)
    raise ValueError(f"condition {edge.condition} is not available")


def open_place(
    pathway: Pathway, case: Case, status_of: Callable[[str, int], str | None], planned: Collection[str]
) -> tuple[str, int] | None:
    """Returns the step, with its occurrence, that a case comes to next; None when all that it is led to is done.

    Args:
        pathway: the pathway.
        case: the case; its findings are not looked at.
        status_of: returns the status of an occurrence of a step that is done, else None.
        planned: steps that the run takes; the others are passed through.
    """
    visits: dict[str, int] = {}
    statuses: dict[str, str] = {}
    place = next_place(pathway, START, case, Stand())
    while place not in (END, HUMAN):
        stand = Stand(visits, statuses)
        if enters(case, pathway.step(place), stand):
            visits[place] = visits.get(place, 0) + 1
            if place in planned:
                status = status_of(place, visits[place])
                if status is None:
                    return place, visits[place]
                statuses[place] = status
        place = next_place(pathway, place, case, stand)
    return None


def passed_by(pathway: Pathway, ended: str, visits: Mapping[str, int]) -> str:
    """Returns why a step was not taken in a case that has ended."""
    if ended != HUMAN:
        return PASSED_BY
    leaving = [e.from_ for e in pathway.edges if e.to == HUMAN and visits.get(e.from_)]
    last = [s.title for s in pathway.steps if s.name in leaving][-1:]
    return f"{_TO_HUMAN}{last[0]}" if last else PASSED_BY


def was_passed_by(reason: str) -> bool:
    """Says whether a record's reason is one of `passed_by`."""
    return reason == PASSED_BY or went_to_human(reason)


def went_to_human(reason: str) -> bool:
    """Says whether a record's reason tells that the case went to a human before its step."""
    return reason.startswith(_TO_HUMAN)
