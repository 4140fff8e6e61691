"""The chart that a reader sees: all that was known of the case at the clock, in the order of a chart.

It is cut from the case, and is not what the model asked for: what was asked for would tell about the model's thoughts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clinical_data.case import PRESENT, Case, Finding, FindingKind
from clinical_data.catalogue import Catalogue
from clinical_data.chart import AnswerState, Chart, open_chart
from evaluation.recording import finding_record
from evaluation.review import words
from evaluation.review.afterwards import Afterwards
from evaluation.review.language import say
from evaluation.step_rules import StepRule

LONG_TEXT = 1_200
"""Characters from which a text is folded."""

MOST_TEXT = 20_000
"""Characters shown of one text; a note says so where it is longer."""

MOST_EARLIER = 30
NOTEWORTHY_WAIT = 15
"""Minutes from which the wait between a finding and its being known is shown."""

OLD = -2 * 1440
"""Minute before which it does not matter how long that took."""

_OTHER = "other"
_UNANSWERED = {
    AnswerState.PENDING: "Taken, result not yet known",
    AnswerState.DONE_RESULT_NOT_IN_SOURCE: "Done, result not in this record",
    AnswerState.NOT_DONE_BY_NOW: "Not done or not recorded by then (this is not: negative)",
    AnswerState.NOT_IN_SOURCE: "Never recorded in this source",
}


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the chart: cleaned text, not yet escaped; `folded`: too long to stand open."""

    text: str
    flag: str
    time: str
    known: str
    folded: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of finding: its last value, and those before it, newest first; `more` are not shown."""

    name: str
    range: str
    last: Value
    earlier: tuple[Value, ...]
    more: int

    @property
    def bare(self) -> bool:
        """Says whether all there is to tell is that it was recorded, and when: a condition, say."""
        return self.last.text == PRESENT and not (self.range or self.earlier or self.last.flag)


@dataclass(frozen=True, slots=True)
class Group:
    """A part of the chart: history, examination, laboratory ..."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ChartView:
    """The whole chart; `unanswered`: (why, items) of what the record does not answer by the clock."""

    groups: tuple[Group, ...]
    unanswered: tuple[tuple[str, tuple[str, ...]], ...]


def chart_view(case: Case, clock: int, rule: StepRule, catalogue: Catalogue) -> ChartView:
    """Returns the chart of a case at the clock of a step.

    In-hospital treatment is left out before the step that offers it to the model as well (clinical.md, trap 15).
    """
    chart = open_chart(case, clock, catalogue)
    opening = catalogue.named(rule.opening)
    items = [*opening, *catalogue.offered(rule.items, rule.opening)]
    treated = any(item.shows_treatment for item in items)
    shown: dict[str, dict[str, Finding]] = {}
    unanswered: dict[AnswerState, list[str]] = {}
    for item in sorted(items, key=catalogue.items.index):
        answer = chart.request(item)
        if answer.state in _UNANSWERED:
            unanswered.setdefault(answer.state, []).append(words.short(item.display, 80))
        shown.setdefault(item.group, {}).update({f.finding_id: f for f in answer.findings})
    seen = {finding_id for group in shown.values() for finding_id in group}
    rest = [f for f in _others(chart, treated) if f.finding_id not in seen]
    shown[_OTHER] = {f.finding_id: f for f in rest}
    groups = tuple(Group(words.title_of(name), _rows(found.values())) for name, found in shown.items() if found)
    missing = tuple((text, tuple(unanswered[state])) for state, text in _UNANSWERED.items() if state in unanswered)
    return ChartView(groups, missing)


def later_view(later: Afterwards) -> tuple[Group, ...]:
    """Returns what clinicians did after a clock, with the values recorded."""
    found = []
    for title, deeds in (("case.after_done", later.done), ("case.after_results", later.results)):
        findings = {f.finding_id: f for deed in deeds for f in deed.findings}  # two items may share one
        if findings:
            found.append(Group(say(title), _rows(findings.values())))
    return tuple(found)


def _others(chart: Chart, treated: bool) -> Sequence[Finding]:
    """Returns what is known and no request leads to."""
    known = (f for f in chart.known() if f.result_in_source)
    return [f for f in known if treated or f.kind is not FindingKind.TREATMENT]


def _rows(findings: Iterable[Finding]) -> tuple[Row, ...]:
    series: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        series.setdefault((finding_record(finding).name, finding.unit), []).append(finding)
    return tuple(_row(sorted(own, key=lambda f: (f.charted, f.finding_id))) for own in series.values())


def _row(series: list[Finding]) -> Row:
    *before, last = series
    shown = before[::-1][:MOST_EARLIER]
    record = finding_record(last)
    return Row(
        words.short(record.name, 120) or "unnamed finding",
        words.range_words(record.range),
        _value(last),
        tuple(_value(f) for f in shown),
        len(before) - len(shown),
    )


def _value(finding: Finding) -> Value:
    record = finding_record(finding)
    text = " ".join(filter(None, (words.clean(record.value, MOST_TEXT), words.unit_text(record.unit))))
    wait = record.available - record.charted
    recent = wait >= NOTEWORTHY_WAIT and record.charted > OLD
    known = f"known {words.duration(wait)} later" if recent else ""
    return Value(text, words.flag_text(record.flag), words.relative_time(record.charted), known, len(text) > LONG_TEXT)
