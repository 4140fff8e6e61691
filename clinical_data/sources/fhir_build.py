"""Builds the cases of one patient from what was staged, with their recorded labels apart.

Source: docs of the clinical rules ("What is one case", "Clock", "Recorded label per step").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clinical_data.case import (
    Case,
    Coding,
    Finding,
    FindingKind,
    Patient,
    make_finding_id,
    make_id,
    sort_findings,
)
from clinical_data.catalogue import Catalogue
from clinical_data.clocks import CULTURE_LAG, DAY, LAB_LAG, LOOK_BACK, REPORT_LAG
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources.fhir_cultures import join_cultures, name_fluids
from clinical_data.sources.fhir_orders import ORDERED
from clinical_data.sources.fhir_reduce import CONDITION_RULES, TRUTH_RULES, StagedFact
from clinical_data.sources.fhir_stage import Stage
from clinical_data.sources.fhir_stay import Stay, Stays, id_part, wall
from clinical_data.sources.fhir_times import age_at, parse_moment
from clinical_data.sources.fhir_truth import truth_of

SOURCE = "fhir"

# Minutes from observation to result where the record does not say.
_LAG = {
    FindingKind.LABORATORY: LAB_LAG,
    FindingKind.MICROBIOLOGY: CULTURE_LAG,
    FindingKind.IMAGING: REPORT_LAG,
}
_AMENDED_LAG = DAY  # at least, for a value that was changed at a time that the record does not say
_LASTING = (FindingKind.ALLERGY, FindingKind.FAMILY)  # stay true after the stay in which they were recorded

_KINDS = {kind.value: kind for kind in FindingKind}

Times = tuple[int, int, int | None]  # charted, available, pending_from


class PatientCases:
    """The cases of one patient.

    Attributes:
        lost_parts: how many encounters name a parent that is no case.
    """

    def __init__(self, stage: Stage, patient: str, catalogue: Catalogue) -> None:
        self._stage = stage
        self._key = patient
        self._catalogue = catalogue
        self._stays = Stays(stage, patient)
        self.lost_parts = self._stays.lost

    def cases(self, stored: Callable[[str], bool]) -> Iterator[LabelledCase]:
        """Yields the patient's cases in order of their start, but for those that are stored already."""
        wanted = [s for s in self._stays.of.values() if not stored(_case_id(s))]
        if not wanted:
            return
        facts, members = join_cultures(name_fluids(self._stage.facts(self._key), self._stage), self._stage)
        own: dict[str, list[StagedFact]] = {key: [] for key in self._stays.of}
        shared: list[tuple[StagedFact, str]] = []  # what more than one stay may see
        for fact in facts:
            owner = self._stays.owner(fact.encounter)
            if owner in own:
                own[owner].append(fact)
            if owner not in own or fact.rule in CONDITION_RULES or fact.kind in _LASTING:
                shared.append((fact, owner))
        person = self._stage.person(self._key)
        for stay in wanted:
            key = stay.own.key
            of_others = [(fact, owner) for fact, owner in shared if owner != key]
            yield self._case(stay, own[key], of_others, members, person)

    def _case(
        self,
        stay: Stay,
        own: list[StagedFact],
        of_others: list[tuple[StagedFact, str]],
        members: dict[str, list[StagedFact]],
        person: dict[str, str | None],
    ) -> LabelledCase:
        person_id = id_part(self._key)
        owned = [*((fact, stay.own.key) for fact in own), *of_others]
        found = [f for fact, owner in owned if (f := self._finding(stay, fact, owner, members.get(fact.key, [])))]
        found += self._earlier_stays(stay)
        findings = sort_findings(list({f.finding_id: f for f in found}.values()))
        case = Case(
            case_id=_case_id(stay),
            source=SOURCE,
            source_id=id_part(stay.own.key),
            patient=Patient(make_id(SOURCE, person_id), SOURCE, person_id, person.get("sex") or "unknown"),
            age=age_at(stay.clock.start, person.get("birth")),
            encounters=stay.encounters(),
            anchors=stay.anchors(findings),
            context={"admission_source": stay.own.admit_source} if stay.own.admit_source else {},
            findings=findings,
        )
        return LabelledCase(case, truth_of(case, stay, own, self._stage, self._catalogue))

    def _finding(self, stay: Stay, fact: StagedFact, owner: str, members: list[StagedFact]) -> Finding | None:
        if fact.rule in TRUTH_RULES:
            return None
        stays = self._stays.of
        times = self._condition_times(stay, fact, owner) if fact.rule in CONDITION_RULES else _times(stay, fact)
        kind = _KINDS[fact.kind]
        if times is not None and kind is FindingKind.MEDICATION_HOME and fact.charted and times[0] >= stay.first:
            kind = FindingKind.TREATMENT  # begun in the stay, whatever the statement calls it
        if times is not None and members:
            times = _last_result(stay, times, members)
        if times is None or not _belongs(stay, kind, fact, owner, times, stays):
            return None
        charted, available, pending = times
        own = owner == stay.own.key
        if fact.rule == "billed" and own:
            if stay.end is None:
                return None
            available = max(available, stay.end)
        if fact.rule in ("billed", "procedure") and kind is FindingKind.TREATMENT and not own and available <= 0:
            kind = FindingKind.PROCEDURE
        code = self._drug(fact) if fact.medication else Coding(*fact.code)
        if not code.code:
            return None
        return Finding(
            finding_id=make_finding_id(SOURCE, fact.key),
            kind=kind,
            code=code,
            value=self._value(fact),
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

    def _drug(self, fact: StagedFact) -> Coding:
        found = self._stage.medication(fact.medication)
        if found is not None:
            return found
        system, code, display, version = fact.code
        return Coding(system, code, display or code, version)

    def _value(self, fact: StagedFact) -> float | str | None:
        """Returns the value of a fact: of an order whose frequency stands elsewhere, with it."""
        often = self._stage.frequency(fact.frequency) if fact.frequency else ""
        if not often:
            return fact.value
        return often if fact.value == ORDERED else f"{fact.value} {often}"

    def _earlier_stays(self, stay: Stay) -> Iterator[Finding]:
        """Yields the admissions that ended before this one began, without their diagnoses; known from their end."""
        for earlier in self._stays.of.values():
            if earlier is stay or earlier.end is None:
                continue
            begun = stay.clock.begun_at(parse_moment(earlier.own.start).earliest)
            ended = stay.clock.known_by(parse_moment(earlier.own.end).latest)
            if ended > stay.first:
                continue
            days, ago = round((ended - begun) / DAY), (stay.first - ended) // DAY
            lasted = f"{days} day{'s' * (days != 1)}" if days else "less than a day"
            yield Finding(
                finding_id=make_finding_id(SOURCE, "prior_admission", earlier.own.key),
                kind=FindingKind.HISTORY,
                code=Coding("wardstar:fhir/encounter", "prior_admission", "prior admission"),
                value=f"{earlier.kind}, {lasted}, ended {ago} day{'s' * (ago != 1)} before",
                charted=ended,
                available=ended,
                note=earlier.own.key,
            )

    def _condition_times(self, stay: Stay, fact: StagedFact, owner: str) -> Times | None:
        """Returns when a Condition becomes visible to a case, None for never.

        Codes of the same case are never visible; codes of an earlier admission from its end. A stay that ended less
        than a day before this one began (an ED visit without `partOf`, a transfer) is the same episode, and a problem
        entered during the stay may be its diagnosis in another dress: neither is ever visible. Without a date of
        entry only an onset long before the stay tells that a problem is an old one.
        Source: clinical.md, "Clock"; stricter where the record is ambiguous.
        """
        stays = self._stays.of
        if fact.key in stay.labels or owner == stay.own.key:
            return None
        owner = owner if owner in stays else next((k for k, s in stays.items() if fact.key in s.labels), "")
        times = _times(stay, fact)
        if owner:
            earlier = stays[owner].own
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


def _case_id(stay: Stay) -> str:
    return make_id(SOURCE, id_part(stay.own.key))


def _times(stay: Stay, fact: StagedFact) -> Times | None:
    """Returns charted, available and pending minutes of a fact, None when the record has no time for it.

    Source: clinical.md, "Clock": issued or entered; if missing, the charted time plus the lag of that kind; if only a
    date is known, the end of that day.
    """
    clock, kind = stay.clock, _KINDS[fact.kind]
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
        lag = _LAG.get(kind, 0)
        available = max(collected, over) + (max(lag, _AMENDED_LAG) if fact.amended else lag)
    if kind in _LAG and seen.earliest != seen.latest:
        charted = min(collected, available)  # some time that day: it counts as taken at its end
    pending = collected if kind in _LAG and collected < available else None
    return charted, available, pending


def _last_result(stay: Stay, times: Times, members: list[StagedFact]) -> Times:
    """Returns the times of a culture: its value is known when the last organism and susceptibility was.

    One without a time of issue is known nine days after the collection of the culture, or from its own time if later.
    """
    charted, available, pending = times
    collected = charted if pending is None else pending
    for member in members:
        seen = parse_moment(member.known or member.charted) if member.known or member.charted else None
        minute = stay.clock.known_by(seen.latest) if seen else collected
        if not member.known:
            minute = max(minute, collected + CULTURE_LAG)
        available = max(available, minute)
    return charted, available, collected if collected < available else None


def _belongs(stay: Stay, kind: FindingKind, fact: StagedFact, owner: str, times: Times, stays: dict[str, Stay]) -> bool:
    """Says whether a fact is part of a case: by its encounter, else by patient and time."""
    charted, available, pending = times
    if owner == stay.own.key:
        return True
    if fact.rule in CONDITION_RULES:
        return stay.limit is None or available <= stay.limit
    if owner in stays:  # of another admission
        return kind in _LASTING and wall(stays[owner].own.start) < wall(stay.own.start) and _by(stay, available)
    if fact.rule == "billed":
        return available <= 0
    if kind in _LAG and charted < stay.first - LOOK_BACK:
        return False
    if kind is FindingKind.TREATMENT and (fact.rule != "procedure" or available > 0):
        return not fact.encounter and charted >= stay.first and _by(stay, available)
    return _by(stay, available if pending is None else pending)


def _by(stay: Stay, minute: int) -> bool:
    return stay.limit is None or minute <= stay.limit
