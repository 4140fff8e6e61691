"""The stays of one FHIR patient: which encounters are cases, which are their parts, and what clocks start from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from clinical_data.case import Encounter, Finding, FindingKind
from clinical_data.clocks import DAY
from clinical_data.sources.fhir_reduce import StagedEncounter
from clinical_data.sources.fhir_stage import Stage
from clinical_data.sources.fhir_times import CaseClock, parse_moment


@dataclass(frozen=True, slots=True)
class Stay:
    """One case to be: its own encounter, its parts, its clock.

    Attributes:
        own, parts: the case's encounter, and those below it in order of start.
        clock: counts minutes from the start of `own`.
        end: minute of the end of stay, None while unknown.
        limit: last minute at which a fact without an encounter may belong to the case: the end of stay, or the start of
            the patient's next case where the end is unknown, or None.
        labels: keys of the Conditions that the encounters name as diagnoses.
    """

    own: StagedEncounter
    parts: tuple[StagedEncounter, ...]
    clock: CaseClock
    end: int | None
    limit: int | None
    labels: frozenset[str]

    @property
    def first(self) -> int:
        """The first minute of the stay, its parts included."""
        return min([0, *(self.clock.begun_at(parse_moment(p.start).earliest) for p in self.parts)])

    @property
    def kind(self) -> str:
        """What the whole stay was: an emergency that has an ED part, or a service, was admitted."""
        emergency = self.own.kind == "emergency"
        if emergency and (self.own.has_service or any(p.kind == "emergency" for p in self.parts)):
            return "inpatient"
        return self.own.kind

    @property
    def visit_alone(self) -> bool:
        """Whether it was a visit to the emergency department without admission."""
        return self.kind == "emergency"

    def encounters(self) -> tuple[Encounter, ...]:
        """Returns the stay itself and its parts, in minutes."""
        own = Encounter(id_part(self.own.key), self.kind, 0, self.end)
        parts = []
        for part in self.parts:
            end = self.clock.known_by(parse_moment(part.end).latest) if part.end else None
            start = self.clock.begun_at(parse_moment(part.start).earliest)
            parts.append(Encounter(id_part(part.key), part.kind, start, end))
        return (own, *parts)

    def anchors(self, findings: Iterable[Finding]) -> dict[str, int]:
        """Returns the minutes that clocks refer to.

        `triage` is the arrival, or the first set of vital signs of the ED where that came later; `admission` the start
        of the stay, or the departure from the ED where the record lets the stay begin before the arrival.
        Source: clinical.md, "Clock".
        """
        anchors = {"admission": 0}
        own, *parts = self.encounters()
        emergencies = [e for e in parts if e.kind == "emergency"] or [e for e in [own] if e.kind == "emergency"]
        if emergencies:
            arrival = emergencies[0].start
            ends = [e.end for e in emergencies if e.end is not None]
            departure = max(ends) if ends else None
            last = arrival + DAY if departure is None else departure
            vitals = [f for f in findings if f.kind is FindingKind.VITAL and arrival <= f.charted <= last]
            anchors["triage"] = min((f.available for f in vitals), default=arrival)
            anchors["ed_arrival"] = arrival
            if departure is not None:
                anchors["ed_departure"] = departure
            if arrival > 0:
                anchors["admission"] = arrival if departure is None else departure
        if self.end is not None:
            anchors["end_of_stay"] = self.end
        return anchors


class Stays:
    """The stays of one patient, in order of their start.

    Attributes:
        of: key of a case's encounter -> its stay.
        lost: how many parts name a parent that is no case.
    """

    def __init__(self, stage: Stage, patient: str) -> None:
        self._stage = stage
        encounters = {e.key: e for e in stage.encounters(patient)}
        self._root = {key: self._root_of(key, encounters) for key in encounters}
        self.of = self._make(encounters)
        self.lost = sum(not root for root in self._root.values())

    def owner(self, encounter: str) -> str:
        """Returns the case that an encounter belongs to: `other` for one outside any, empty when it is not known."""
        return self._root.get(self._stage.resolve(encounter), "") if encounter else ""

    def _root_of(self, key: str, encounters: dict[str, StagedEncounter]) -> str:
        seen: set[str] = set()
        while key in encounters and key not in seen:
            seen.add(key)
            one = encounters[key]
            if one.is_case:
                return key
            if not one.parent:
                return "other"
            key = self._stage.resolve(one.parent)
        return ""

    def _make(self, encounters: dict[str, StagedEncounter]) -> dict[str, Stay]:
        own = [e for e in encounters.values() if e.is_case]
        own.sort(key=lambda e: (wall(e.start), e.key))
        stays: dict[str, Stay] = {}
        for index, one in enumerate(own):
            start = parse_moment(one.start).earliest
            clock = CaseClock(start.replace(tzinfo=None) if one.wall_clock else start)
            parts = [e for e in encounters.values() if e is not one and self._root[e.key] == one.key]
            parts.sort(key=lambda e: (wall(e.start), e.key))
            end = clock.known_by(parse_moment(one.end).latest) if one.end else None
            after = own[index + 1 : index + 2]
            following = clock.begun_at(parse_moment(after[0].start).earliest) if after else None
            stays[one.key] = Stay(
                own=one,
                parts=tuple(parts),
                clock=clock,
                end=end,
                limit=end if end is not None else following,
                labels=frozenset(self._stage.resolve(r) for e in (one, *parts) for _, _, r in e.diagnoses),
            )
        return stays


def wall(text: str) -> datetime:
    """Returns the wall-clock reading of a time, which orders a patient's stays with and without zone."""
    return parse_moment(text).earliest.replace(tzinfo=None)


def id_part(key: str) -> str:
    """Returns the id of `TYPE/ID` or of a urn."""
    return key.rsplit(":" if key.startswith("urn:") else "/", 1)[-1]
