"""The chart as a step may see it: a case cut at a clock.

A `Chart` is built from a case and a minute T and keeps only what was known by T; what came later is dropped when
the chart is built, so that no later code can reach it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from clinical_data.case import Case, Finding
from clinical_data.catalogue import Catalogue, CatalogueItem

ADULT = 16  # years: the National Early Warning Score holds from there on (Royal College of Physicians, NEWS2, 2017)
_KNOWN_ON_ARRIVAL = ("arrival_transport",)  # of the context: what the emergency department knows before an admission


class AnswerState(StrEnum):
    """How the record answers a request. "Not recorded" is never a negative finding."""

    RECORDED = "recorded"
    PENDING = "pending"
    NOT_DONE_BY_NOW = "not_done_by_now"
    DONE_RESULT_NOT_IN_SOURCE = "done_result_not_in_source"
    NOT_IN_SOURCE = "not_in_source"
    UNRECOGNISED = "unrecognised"


@dataclass(frozen=True, slots=True)
class Answer:
    """The chart's answer to one request.

    Attributes:
        item_id: the catalogue item, or the free text that no item was recognised in.
        state: how it is answered.
        findings: oldest first; empty unless `recorded`.
        cost_usd: price of the request.
        adult: whose ranges of vital signs are those of adults.
    """

    item_id: str
    state: AnswerState
    findings: tuple[Finding, ...] = ()
    cost_usd: float = 0.0
    adult: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """What is known of one case at one clock.

    Attributes:
        case_id, source: ids of the case.
        clock: T, minutes from the start of the case.
        age, sex, context: the admission's own facts.
        catalogue: what may be requested.
    """

    case_id: str
    source: str
    clock: int
    age: int | None
    sex: str
    context: dict[str, str]
    catalogue: Catalogue
    _known: tuple[Finding, ...] = field(repr=False)
    _pending: frozenset[str] = field(repr=False)
    # What is known, by the item of the catalogue that it answers; filled with the first request.
    _of_item: dict[str, list[Finding]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def known(self) -> tuple[Finding, ...]:
        """Returns every finding whose value was available by the clock, in canonical order."""
        return self._known

    def request(self, wanted: CatalogueItem | str) -> Answer:
        """Answers a request for a catalogue item, or for a free text that must name one."""
        item = self.catalogue.recognise(wanted) if isinstance(wanted, str) else wanted
        if item is None:
            return Answer(str(wanted), AnswerState.UNRECOGNISED)
        if not item.matches.get(self.source):
            return Answer(item.item_id, AnswerState.NOT_IN_SOURCE, cost_usd=item.cost_usd)
        matching = self._matching(item)
        results = tuple(sorted((f for f in matching if f.result_in_source), key=lambda f: (f.charted, f.finding_id)))
        if results:
            state = AnswerState.RECORDED
        elif matching:
            state = AnswerState.DONE_RESULT_NOT_IN_SOURCE
        elif item.item_id in self._pending:
            state = AnswerState.PENDING
        else:
            state = AnswerState.NOT_DONE_BY_NOW
        adult = self.age is None or self.age >= ADULT
        return Answer(item.item_id, state, results, item.cost_usd, adult)

    def _matching(self, item: CatalogueItem) -> list[Finding]:
        """Returns what is known and answers an item, in canonical order."""
        if self.catalogue.item(item.item_id) is not item:
            return [f for f in self._known if item.accepts(self.source, f)]
        if not self._of_item:
            for finding in self._known:
                for owner in self.catalogue.items_of(self.source, finding):
                    self._of_item.setdefault(owner.item_id, []).append(finding)
        return self._of_item.get(item.item_id, [])


def open_chart(case: Case, clock: int, catalogue: Catalogue) -> Chart:
    """Returns the chart of a case at minute `clock`; everything later is left behind."""
    known = tuple(f for f in case.findings if f.available <= clock)
    collected = [f for f in case.findings if f.pending_from is not None and f.pending_from <= clock < f.available]
    pending = frozenset(i.item_id for f in collected for i in catalogue.items_of(case.source, f))
    return Chart(
        case_id=case.case_id,
        source=case.source,
        clock=clock,
        age=case.age,
        sex=case.patient.sex,
        context=_context_at(case, clock),
        catalogue=catalogue,
        _known=known,
        _pending=pending,
    )


def _context_at(case: Case, clock: int) -> dict[str, str]:
    """Returns the case's context; before the admission, only what was known on arrival."""
    if clock >= case.anchors.get("admission", clock):
        return dict(case.context)
    return {name: text for name, text in case.context.items() if name in _KNOWN_ON_ARRIVAL}


def done_later(case: Case, item: CatalogueItem, clock: int) -> bool:
    """Says whether an item not known at `clock` was recorded afterwards; for records only, never for a prompt."""
    return any(f.available > clock and item.accepts(case.source, f) for f in case.findings)
