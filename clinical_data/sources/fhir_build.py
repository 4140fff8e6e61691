"""Builds the cases of one patient from what was staged, with their recorded labels apart.

Source: docs of the clinical rules ("What is one case", "Clock", "Recorded label per step").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from clinical_data.case import (
    Case,
    Coding,
    Encounter,
    Finding,
    FindingKind,
    Patient,
    make_finding_id,
    make_id,
    sort_findings,
)
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources.fhir_reduce import CONDITION_RULES, StagedEncounter, StagedFact
from clinical_data.sources.fhir_stage import Stage
from clinical_data.sources.fhir_times import CaseClock, age_at, parse_moment

SOURCE = "fhir"
DAY = 24 * 60  # minutes

# Minutes from observation to result where the record does not say; 95th percentiles (clinical.md, "Clock"). An imaging
# report has no measured lag: a day.
_LAG = {
    FindingKind.LABORATORY: 240,
    FindingKind.MICROBIOLOGY: 9 * 1440,
    FindingKind.IMAGING: 1440,
}
_LASTING = (FindingKind.ALLERGY, FindingKind.FAMILY)  # stay true after the stay in which they were recorded

Times = tuple[int, int, int | None]  # charted, available, pending_from


@dataclass(frozen=True, slots=True)
class _Stay:
    """One case to be: its own encounter, its parts, its clock.

    Attributes:
        end: minute of the end of stay, None while unknown.
        limit: last minute at which a fact without an encounter may belong to the case: the end of stay, or the start of
            the patient's next case where the end is unknown, or None.
    """

    own: StagedEncounter
    parts: tuple[StagedEncounter, ...]
    clock: CaseClock
    end: int | None
    limit: int | None
    labels: frozenset[str]

    @property
    def first(self) -> int:
        """Returns the first minute of the stay, its parts included."""
        return min([0, *(self.clock.begun_at(parse_moment(p.start).earliest) for p in self.parts)])


class PatientCases:
    """The cases of one patient."""

    def __init__(self, stage: Stage, patient: str) -> None:
        self._stage = stage
        self._key = patient
        self._person = stage.person(patient)
        encounters = {e.key: e for e in stage.encounters(patient)}
        self._root = {key: self._root_of(key, encounters) for key in encounters}
        self._stays = self._make_stays(encounters)

    def cases(self) -> Iterator[LabelledCase]:
        """Yields the patient's cases in order of their start."""
        facts = list(self._stage.facts(self._key)) if self._stays else []
        owners = [self._root.get(self._stage.resolve(f.encounter), "") if f.encounter else "" for f in facts]
        for stay in self._stays.values():
            yield self._case(stay, facts, owners)

    @property
    def lost_parts(self) -> int:
        """Returns how many parts name a parent that is no case."""
        return sum(not root for root in self._root.values())

    def _root_of(self, key: str, encounters: dict[str, StagedEncounter]) -> str:
        """Returns the case that an encounter belongs to: `other` when it is no part of any, empty when lost."""
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

    def _make_stays(self, encounters: dict[str, StagedEncounter]) -> dict[str, _Stay]:
        own = [e for e in encounters.values() if e.is_case]
        own.sort(key=lambda e: (_wall(e.start), e.key))
        stays: dict[str, _Stay] = {}
        for index, one in enumerate(own):
            clock = CaseClock(parse_moment(one.start).earliest)
            parts = [e for e in encounters.values() if e is not one and self._root[e.key] == one.key]
            parts.sort(key=lambda e: (_wall(e.start), e.key))
            end = clock.known_by(parse_moment(one.end).latest) if one.end else None
            after = own[index + 1 : index + 2]
            following = clock.begun_at(parse_moment(after[0].start).earliest) if after else None
            stays[one.key] = _Stay(
                own=one,
                parts=tuple(parts),
                clock=clock,
                end=end,
                limit=end if end is not None else following,
                labels=frozenset(self._stage.resolve(r) for e in (one, *parts) for _, _, r in e.diagnoses),
            )
        return stays

    def _case(self, stay: _Stay, facts: list[StagedFact], owners: list[str]) -> LabelledCase:
        source_id = _id_part(stay.own.key)
        case_id = make_id(SOURCE, source_id)
        person_id = _id_part(self._key)
        findings: dict[str, Finding] = {}
        for fact, owner in zip(facts, owners, strict=True):
            finding = self._finding(stay, fact, owner)
            if finding is not None:
                findings.setdefault(finding.finding_id, finding)
        case = Case(
            case_id=case_id,
            source=SOURCE,
            source_id=source_id,
            patient=Patient(make_id(SOURCE, person_id), SOURCE, person_id, self._person.get("sex") or "unknown"),
            age=age_at(stay.clock.start, self._person.get("birth")),
            encounters=_encounters(stay),
            anchors=_anchors(stay),
            context={"admission_source": stay.own.admit_source} if stay.own.admit_source else {},
            findings=sort_findings(list(findings.values())),
        )
        return LabelledCase(case, {t.step: t for t in self._truth(stay, case_id)})

    def _finding(self, stay: _Stay, fact: StagedFact, owner: str) -> Finding | None:
        if (
            owner in self._stays
            and owner != stay.own.key
            and not (fact.rule in CONDITION_RULES or fact.kind in _LASTING)
        ):
            return None  # of another admission
        times = self._condition_times(stay, fact, owner) if fact.rule in CONDITION_RULES else _times(stay, fact)
        kind = FindingKind(fact.kind)
        if times is not None and kind is FindingKind.MEDICATION_HOME and fact.charted and times[0] >= stay.first:
            kind = FindingKind.TREATMENT  # begun in the stay, whatever the statement calls it
        if times is None or not _belongs(stay, kind, fact, owner, times, self._stays):
            return None
        charted, available, pending = times
        own = owner == stay.own.key
        if fact.rule == "billed" and own:
            if stay.end is None:
                return None
            available = max(available, stay.end)
        if fact.rule in ("billed", "procedure") and not own and available <= 0:
            kind = FindingKind.PROCEDURE
        code = Coding(*fact.code)
        if fact.medication:
            code = self._stage.medication(fact.medication) or code
        if not code.code:
            return None
        return Finding(
            finding_id=make_finding_id(SOURCE, fact.key),
            kind=kind,
            code=code,
            value=fact.value,
            charted=charted,
            available=available,
            unit=fact.unit,
            low=fact.low,
            high=fact.high,
            flag=fact.flag,
            pending_from=pending,
            result_in_source=fact.has_result,
            note=fact.note,
        )

    def _condition_times(self, stay: _Stay, fact: StagedFact, owner: str) -> Times | None:
        """Returns when a Condition becomes visible to a case, None for never.

        Codes of the same case are never visible; codes of an earlier admission from its end. A stay that ended less
        than a day before this one began (an ED visit without `partOf`, a transfer) is the same episode, and a problem
        entered during the stay may be its diagnosis in another dress: neither is ever visible. Without a date of
        entry only an onset long before the stay tells that a problem is an old one.
        Source: clinical.md, "Clock"; stricter where the record is ambiguous.
        """
        if fact.key in stay.labels or owner == stay.own.key:
            return None
        owner = owner if owner in self._stays else next((k for k, s in self._stays.items() if fact.key in s.labels), "")
        times = _times(stay, fact)
        if owner:
            earlier = self._stays[owner].own
            if not earlier.end:
                return None
            ended = stay.clock.known_by(parse_moment(earlier.end).latest)
            if ended > stay.first - DAY:
                return None
            return ended, max(ended, times[1] if times else ended), None
        if fact.rule not in ("problem", "untyped") or times is None:
            return None
        latest = stay.first - 1 if fact.known else stay.first - 30 * DAY
        return times if times[1] <= latest else None

    def _truth(self, stay: _Stay, case_id: str) -> Iterator[GroundTruth]:
        admission = self._labels(stay, ("AD",), Strength.RECORDED_AT_TIME)
        discharge = self._labels(stay, ("DD", "CM"), Strength.RECORDED_LATER)
        for step, (labels, reason) in {"admission_diagnosis": admission, "discharge_diagnosis": discharge}.items():
            yield GroundTruth(case_id, step, labels, reason)

    def _labels(self, stay: _Stay, uses: tuple[str, ...], strength: Strength) -> tuple[tuple[Label, ...], str]:
        """Returns the labels of these uses in order of use and rank, or none and the reason.

        The first use must be there: comorbidities alone name no discharge diagnosis.
        """
        wanted = [
            (uses.index(use), rank if rank is not None else 10**6, place, reference)
            for place, (use, rank, reference) in enumerate(stay.own.diagnoses)
            if use in uses
        ]
        labels: list[Label] = []
        trouble = ""
        for order, _, _, reference in sorted(wanted):
            found = self._stage.condition(reference)
            if found is None or found.code is None:
                what = "is not in the import" if found is None else "has no code"
                trouble = trouble or f"{_shown(reference)} {what}"
                if order == 0 and not labels:
                    trouble = f"{_shown(reference)} {what}"
                continue
            if order and not labels:
                break
            entered = stay.clock.known_by(parse_moment(found.recorded).latest) if found.recorded else None
            labels.append(
                Label(Coding(*found.code), strength, len(labels) + 1, entered, self._stage.resolve(reference))
            )
        if labels:
            return tuple(labels), ""
        return (), trouble or f"Encounter.diagnosis has no use {uses[0]}"


def _times(stay: _Stay, fact: StagedFact) -> Times | None:
    """Returns charted, available and pending minutes of a fact, None when the record has no time for it.

    Source: clinical.md, "Clock": issued or entered; if missing, the charted time plus the lag of that kind; if only a
    date is known, the end of that day.
    """
    clock, kind = stay.clock, FindingKind(fact.kind)
    known = parse_moment(fact.known) if fact.known else None
    if not fact.charted:
        if known is None:
            return None
        return clock.begun_at(known.earliest), clock.known_by(known.latest), None
    seen = parse_moment(fact.charted)
    charted = clock.begun_at(seen.earliest)
    collected = clock.known_by(seen.latest)
    over = clock.known_by(parse_moment(fact.until).latest) if fact.until else charted
    if known is not None:
        available = max(charted, over, clock.known_by(known.latest))
    else:
        available = max(collected, over) + _LAG.get(kind, 0)
    pending = collected if kind in _LAG and collected < available else None
    return charted, available, pending


def _belongs(
    stay: _Stay, kind: FindingKind, fact: StagedFact, owner: str, times: Times, stays: dict[str, _Stay]
) -> bool:
    """Says whether a fact is part of a case: by its encounter, else by patient and time."""
    charted, available, pending = times
    if owner == stay.own.key:
        return True
    if fact.rule in CONDITION_RULES:
        return stay.limit is None or available <= stay.limit
    if owner in stays:  # of another admission
        return kind in _LASTING and _wall(stays[owner].own.start) < _wall(stay.own.start) and _by(stay, available)
    if fact.rule == "billed":
        return available <= 0
    if kind is FindingKind.TREATMENT and (fact.rule != "procedure" or available > 0):
        return not fact.encounter and charted >= stay.first and _by(stay, available)
    return _by(stay, available if pending is None else pending)


def _by(stay: _Stay, minute: int) -> bool:
    return stay.limit is None or minute <= stay.limit


def _encounters(stay: _Stay) -> tuple[Encounter, ...]:
    own = Encounter(_id_part(stay.own.key), _own_kind(stay), 0, stay.end)
    parts = []
    for part in stay.parts:
        end = stay.clock.known_by(parse_moment(part.end).latest) if part.end else None
        start = stay.clock.begun_at(parse_moment(part.start).earliest)
        parts.append(Encounter(_id_part(part.key), part.kind, start, end))
    return (own, *parts)


def _own_kind(stay: _Stay) -> str:
    """Returns the kind of the whole stay: an emergency that has an ED part, or a service, was admitted."""
    if stay.own.kind == "emergency" and (stay.own.has_service or any(p.kind == "emergency" for p in stay.parts)):
        return "inpatient"
    return stay.own.kind


def _anchors(stay: _Stay) -> dict[str, int]:
    anchors = {"admission": 0}
    encounters = _encounters(stay)
    emergency = next((e for e in (*encounters[1:], encounters[0]) if e.kind == "emergency"), None)
    if emergency is not None:
        anchors["ed_arrival"] = emergency.start
        if emergency.end is not None:
            anchors["ed_departure"] = emergency.end
    if stay.end is not None:
        anchors["end_of_stay"] = stay.end
    return anchors


def _wall(text: str) -> datetime:
    """Returns the wall-clock reading of a time, which orders a patient's stays with and without zone."""
    return parse_moment(text).earliest.replace(tzinfo=None)


def _id_part(key: str) -> str:
    return key.rsplit(":" if key.startswith("urn:") else "/", 1)[-1]


def _shown(reference: str) -> str:
    return reference or "a diagnosis without reference"
