"""Which case-steps a case comes to for certain, and which perhaps, while conclusions are not known yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clinical_data.case import Case
from search.trajectory import Status
from workflow.pathway_model import ABSTAINED, ANSWER_SETTLED, END, HUMAN, START, Pathway, Step
from workflow.route import Stand, enters, next_place
from workflow.state import CLINICIAN

Passage = tuple[str, int]
"""A step, and how many times the case has come to it."""

_At = tuple[str, tuple[tuple[str, int], ...], tuple[tuple[str, str], ...]]  # place, visits, statuses that matter


@dataclass(frozen=True, slots=True)
class Ways:
    """All ways that a case may take.

    Attributes:
        sure: passages of every way.
        some: passages of at least one way.
        ends: where the ways end: `end`, `human`.
    """

    sure: frozenset[Passage]
    some: frozenset[Passage]
    ends: frozenset[str]


def ways_of(pathway: Pathway, case: Case, status_of: Callable[[str, int], str | None]) -> Ways:
    """Returns the ways that a case may take, its loops up to their bounds.

    Args:
        pathway: the pathway.
        case: the case; its findings are not looked at.
        status_of: returns the status of a passage where it is known, None where a search will decide it, and an empty
            text for a step that the run passes through.
    """
    found: dict[_At, Ways] = {}
    start: _At = (next_place(pathway, START, case, Stand()), (), ())
    open_places = [start]
    while open_places:
        at = open_places[-1]
        if at[0] in (END, HUMAN):
            found[at] = Ways(frozenset(), frozenset(), frozenset((at[0],)))
        if at in found:
            open_places.pop()
            continue
        own, after = _onwards(pathway, case, at, status_of)
        if ahead := [a for a in after if a not in found]:
            open_places += ahead
            continue
        inner = [found[a] for a in after]
        found[at] = Ways(
            own | frozenset.intersection(*(w.sure for w in inner)),
            own | frozenset().union(*(w.some for w in inner)),
            frozenset().union(*(w.ends for w in inner)),
        )
    return found[start]


def _onwards(
    pathway: Pathway, case: Case, at: _At, status_of: Callable[[str, int], str | None]
) -> tuple[frozenset[Passage], list[_At]]:
    """Returns the passage that a case makes at a place, if any, and where it may go from there."""
    place, visits, statuses = at
    step, stand = pathway.step(place), Stand(dict(visits), dict(statuses))
    own: frozenset[Passage] = frozenset()
    outcomes = [stand]
    if enters(case, step, stand):
        occurrence = stand.visits.get(place, 0) + 1
        status = status_of(place, occurrence)
        if status != "":
            own = frozenset(((place, occurrence),))
        visited = {**stand.visits, place: occurrence}
        kinds = _kinds(pathway, step) if status is None else [_kind(status)]
        outcomes = [Stand(visited, {**stand.statuses, place: kind} if kind else stand.statuses) for kind in kinds]
    after = [
        (next_place(pathway, place, case, one), tuple(sorted(one.visits.items())), tuple(sorted(one.statuses.items())))
        for one in outcomes
    ]
    return own, list(dict.fromkeys(after))


def _kinds(pathway: Pathway, step: Step) -> list[str]:
    """Returns a status for each kind of conclusion that the edges of a step tell apart."""
    conditions = {edge.condition for edge in pathway.edges_from(step.name)}
    kinds = [Status.UNVERIFIED.value] if conditions & {ABSTAINED, ANSWER_SETTLED} else [""]
    if ANSWER_SETTLED in conditions:
        kinds.append(Status.VERIFIED.value)
    if ABSTAINED in conditions:
        kinds.append(Status.ABSTAIN.value)
    return kinds


def _kind(status: str) -> str:
    return Status.VERIFIED.value if status == CLINICIAN else status
