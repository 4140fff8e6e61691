"""What the recorded case says beyond a step's record: what was not known at the clock, and what was done after it.

The second is never shown before the reader asks for it, and left out of a blind report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clinical_data.case import Case, Finding
from clinical_data.catalogue import Catalogue, CatalogueItem, load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.errors import WardstarError
from clinical_data.naming import short_name
from evaluation.record import RunRecord
from evaluation.review import words
from evaluation.review.language import say
from evaluation.step_rules import StepRule, step_rules

WINDOW = 1440
"""Minutes after the clock within which what clinicians did is told."""

NAMES_SHOWN = 8
_DONE = ("laboratory", "microbiology", "imaging", "procedure", "consultation", "treatment")
"""Groups of items that somebody orders or does; history and bedside examination are not."""

CaseOf = Callable[[str], Case | None]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Items on offer at the step that the record could not answer at the clock, in words, each list apart."""

    pending: tuple[str, ...]
    not_done: tuple[str, ...]
    not_in_source: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deed:
    """Something first done, or a result first known, after the clock: what, when, and what was recorded, by name."""

    what: str
    when: str
    names: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Afterwards:
    """What happened within a day after the clock, as recorded, in order of time."""

    done: tuple[Deed, ...]
    results: tuple[Deed, ...]


class Hindsight:
    """Looks at whole cases for the pages of one run.

    Args:
        config: configuration of the run, with the text of its pathway.
        case_of: returns a case by its id, None where it is not stored any more.
    """

    def __init__(self, config: Mapping[str, Any], case_of: CaseOf) -> None:
        self._rules = step_rules(config)
        self._case_of = case_of
        self._last: tuple[str, Case | None, str] = ("", None, "")

    def unknown(self, record: RunRecord) -> Unknown | None:
        """Returns what was not known at the clock of a step; None where the case, as it was, is not known any more."""
        found = self._look_up(record)
        if found is None:
            return None
        case, clock, rule, catalogue = found
        chart = open_chart(case, clock, catalogue)
        states: dict[AnswerState, list[str]] = {}
        for item in (*catalogue.named(rule.opening), *catalogue.offered(rule.items, rule.opening)):
            states.setdefault(chart.request(item).state, []).append(item.display)
        missing = (AnswerState.NOT_IN_SOURCE, AnswerState.DONE_RESULT_NOT_IN_SOURCE)
        return Unknown(
            tuple(states.get(AnswerState.PENDING, ())),
            tuple(states.get(AnswerState.NOT_DONE_BY_NOW, ())),
            tuple(name for state in missing for name in states.get(state, ())),
        )

    def afterwards(self, record: RunRecord) -> Afterwards | None:
        """Returns what clinicians did in the day after the clock; None where the case, as it was, is not known."""
        found = self._look_up(record)
        if found is None:
            return None
        case, clock, _, catalogue = found
        return deeds_after(case, clock, catalogue)

    def _look_up(self, record: RunRecord) -> tuple[Case, int, StepRule, Catalogue] | None:
        rule = self._rules.get(record.step)
        if record.clock is None or rule is None:
            return None
        if self._last[0] != record.case_id:
            case = self._case_of(record.case_id)
            self._last = (record.case_id, case, "" if case is None else case.content_hash)
        _, case, content = self._last
        if case is None or content != record.hashes.get("case", content):  # another import has changed it
            return None
        try:
            return case, record.clock, rule, load_catalogue(rule.catalogue)
        except WardstarError:  # a catalogue of one's own that is gone
            return None


def deeds_after(case: Case, clock: int, catalogue: Catalogue) -> Afterwards:
    """Returns what clinicians did in the day after a clock, as the report and the review application both tell it.

    What counts is newly recorded: an item of which there was nothing at the clock, another drug than before, or a
    result that was awaited. A treatment that was under way already, charted later, is no result.
    """
    by_item: dict[str, list[Finding]] = {}
    for finding in case.findings:
        for item in catalogue.items_of(case.source, finding):
            by_item.setdefault(item.item_id, []).append(finding)
    done: list[tuple[int, Deed]] = []
    results: list[tuple[int, Deed]] = []
    for item in (i for i in catalogue.items if i.group in _DONE):
        findings = sorted(by_item.get(item.item_id, ()), key=lambda f: (f.charted, f.finding_id))
        before = {short_name(f.code) for f in findings if f.charted <= clock}
        new = [f for f in findings if clock < f.charted <= clock + WINDOW and short_name(f.code) not in before]
        if new and (item.shows_treatment or not before):
            done.append((new[0].charted, _deed(item, new, new[0].charted)))
        late = [f for f in findings if f.charted <= clock < f.available <= clock + WINDOW]
        if late and not item.shows_treatment:
            first = min(f.available for f in late)
            results.append((first, _deed(item, late, first)))
    return Afterwards(*(tuple(d for _, d in sorted(rows, key=lambda row: row[0])) for rows in (done, results)))


def _deed(item: CatalogueItem, findings: list[Finding], minute: int) -> Deed:
    names = list(dict.fromkeys(words.short(short_name(f.code), 60) for f in findings))
    shown = say("words.list_gap").join(names[:NAMES_SHOWN])
    if len(names) > NAMES_SHOWN:
        shown += say("case.and_more", n=len(names) - NAMES_SHOWN)
    what = say("case.after_treatment") if item.shows_treatment else item.display[:1].upper() + item.display[1:]
    return Deed(what, words.relative_time(minute), shown, tuple(findings))
