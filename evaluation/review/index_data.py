"""What the first page of a report shows: results, who counts, the list of questions, plots, and the run's figures.

A question is one step of one case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation import matching
from evaluation.record import RunRecord
from evaluation.review import page_data as data
from evaluation.review import results, set_compare, words
from evaluation.review.cohort import Cohort
from evaluation.review.cohort_plots import StepPlots, step_plots
from evaluation.review.information_table import InformationTable, information_tables
from evaluation.review.language import look_up, say
from evaluation.review.metric_words import NameOf
from evaluation.review.run_facts import facts, figures, notes
from evaluation.step_rules import step_rules
from evaluation.store.run_store import Run, StoredRecord

_FINEST = (matching.CCSR, matching.GROUP, matching.TERM, matching.CHAPTER, matching.CATEGORY, matching.CODE)
"""Level at which an answer of the list is called right: the first of these that it is compared at."""
STATUSES = ("agreed", "disagreed", "unchecked", "none", "not_applicable", "failed")


@dataclass(frozen=True, slots=True)
class StepCounts:
    """Of the questions of one step: which were left out and why, and how the others ended.

    Attributes:
        unlabelled, scored: asked, without and with a recorded label; None in a blind report.
        outside: of those scored, the label is not among the possible answers; None where that is not known.
    """

    step: str
    total: int
    agreed: int
    disagreed: int
    unchecked: int
    abstained: int
    not_applicable: int
    failed: int
    unlabelled: int | None = None
    scored: int | None = None
    outside: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One question in the list.

    Attributes:
        size: items of its set, else 0.
        state: one of `STATUSES`, and `status` the same in words.
        recorded, match: label and agreement in words; empty in a blind report.
        right: `right`, `wrong`, `partly` (a set) or `unscored`; empty in a blind report.
    """

    href: str
    case_id: str
    vignette: str
    step: str
    step_key: str
    size: int
    answer: str
    share: str
    state: str
    status: str
    recorded: str = ""
    match: str = ""
    right: str = ""


@dataclass(frozen=True, slots=True)
class IndexPage:
    """Everything the first page's template needs.

    Attributes:
        name, pathway: of the run; `sources`: where its cases come from.
        questions: case-steps; `steps`: names of the steps, in order, by their keys.
        reasons: why questions were not asked, each with its number. `again`: a step came more than once in a case.
    """

    name: str
    pathway: str
    sources: str
    cases: int
    questions: int
    headlines: tuple[results.Headline, ...]
    counts: tuple[StepCounts, ...]
    reasons: tuple[str, ...]
    again: bool
    rows: tuple[Row, ...]
    steps: tuple[tuple[str, str], ...]
    states: tuple[tuple[str, str], ...]
    plots: tuple[StepPlots, ...]
    information: tuple[InformationTable, ...]
    results: tuple[results.StepResult, ...]
    sets: bool
    same_weights: bool
    notes: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, list[tuple[str, str]]], ...]


def build(
    run: Run,
    records: Sequence[StoredRecord],
    score: Mapping[str, Any] | None,
    cohort: Cohort | None = None,
    *,
    blind: bool,
) -> IndexPage:
    """Returns the first page.

    Args:
        run: the run.
        records: its case-steps, in the order in which they are listed.
        score: result of `score_run`; None shows no results. Not read when `blind`.
        cohort: what the plots need besides; None draws none. Not read when `blind`.
        blind: leave out everything that comes from recorded labels.
    """
    plain = [s.record for s in records]
    titles = {name: rule.title for name, rule in step_rules(run.config).items()}
    vocabularies = set_compare.vocabularies(run.config)

    def name_of(step: str) -> str:
        return words.step_text(step, title=titles.get(step, ""))

    sets = {r.step for r in plain if r.chosen}
    known = None if blind else score
    shown = None if blind else cohort
    told = {r.case_id: r for r in sorted(plain, key=lambda r: len(r.vignette))}  # of each case the fullest
    rows = tuple(_row(s, told[s.record.case_id], vocabularies, name_of, blind) for s in records)
    states = {r.state for r in rows}
    return IndexPage(
        name=words.short(run.name, 120),
        pathway=words.short(run.pathway, 120),
        sources=", ".join(sorted({words.short(r.source, 40) for r in plain})),
        cases=len({r.case_id for r in plain}),
        questions=len(plain),
        headlines=results.headlines(known, sets, name_of) if known else (),
        counts=tuple(_counts(records, known, name_of, blind)),
        reasons=tuple(_reasons(plain)),
        again=any(r.occurrence != 1 for r in plain),
        rows=rows,
        steps=tuple((step, name_of(step)) for step in dict.fromkeys(r.step for r in plain)),
        states=tuple((state, say(f"index.status.{state}")) for state in STATUSES if state in states),
        plots=step_plots(known, shown, name_of) if known and shown else (),
        information=information_tables(records, shown.judged if shown else None, name_of),
        results=results.results(known, sets, name_of) if known else (),
        sets=bool(sets),
        same_weights=any(r.peer_is_generator for r in plain),
        notes=tuple(notes(plain)),
        figures=tuple(figures(run, plain)),
        facts=facts(run, plain),
    )


def _counts(
    records: Sequence[StoredRecord], score: Mapping[str, Any] | None, name_of: NameOf, blind: bool
) -> list[StepCounts]:
    counts = []
    for step in dict.fromkeys(s.record.step for s in records):
        own = [s for s in records if s.record.step == step]
        ended = Counter(_state(s.record) for s in own)
        row = StepCounts(
            name_of(step),
            len(own),
            ended["agreed"],
            ended["disagreed"],
            ended["unchecked"],
            ended["none"],
            ended["not_applicable"],
            ended["failed"],
        )
        if not blind:
            scored = sum(bool(s.match) for s in own)
            outside = _outside(score, step)
            unlabelled = len(own) - ended["not_applicable"] - scored
            row = replace(row, unlabelled=unlabelled, scored=scored, outside=outside)
        counts.append(row)
    return counts


def _outside(score: Mapping[str, Any] | None, step: str) -> int | None:
    metric = ((score or {}).get("steps", {}).get(step) or {}).get("metrics", {}).get("truth_outside_vocabulary")
    return round(metric["value"] * metric["n"]) if metric and metric.get("value") is not None else None


def _state(record: RunRecord) -> str:
    """Returns how a question ended, one of `STATUSES`."""
    if record.status in ("failed", "not_applicable"):
        return record.status
    if record.status == "verified":
        return "agreed"
    if record.status == "abstain" or not record.ranked:
        return "none"
    return "unchecked" if record.peer_agreement is None else "disagreed"


def _row(stored: StoredRecord, told: RunRecord, vocabularies: set_compare.Lookup, name_of: NameOf, blind: bool) -> Row:
    record = stored.record
    answer = data.answer_text(record)
    name = name_of(record.step)
    again = say("words.step_again", step=name, n=record.occurrence)
    state = _state(record)
    row = Row(
        href=data.case_address(record),
        case_id=words.short(record.case_id, 60),
        vignette=words.short(data.vignette(record if record.vignette else told), 90),
        step=name if record.occurrence == 1 else again,
        step_key=words.short(record.step, 80),
        size=len(record.chosen),
        answer=answer,
        share=data.share_text(record) if answer else "–",
        state=state,
        status=say(f"index.status.{state}"),
    )
    if blind:
        return row
    truth = data.truth_of(stored)
    if record.chosen:
        names = words.short("; ".join(label.display for label in truth.labels), 300) or say("index.none_recorded")
        compared = set_compare.compare(record, stored.truth, vocabularies(record))
        return replace(row, recorded=names, match=compared.short, right="partly" if stored.match else "unscored")
    same = [name for name, agrees in truth.marks if agrees]
    match = say("index.not_scored") if not truth.marks else same[0] if same else say("index.different")
    level = next((level for level in _FINEST if level in stored.match), None)
    right = "unscored" if level is None else "right" if stored.match[level] else "wrong"
    recorded = truth.labels[0].display if truth.labels else say("index.none_recorded")
    return replace(row, recorded=recorded, match=match, right=right)


def _reasons(records: Sequence[RunRecord]) -> list[str]:
    """Returns why questions were not asked, the commonest first, with their numbers."""
    late = Counter(r.reason for r in records if r.status == "not_applicable")
    return [
        say("index.reason", n=n, reason=words.sentence(look_up("index.reasons", reason, reason)) or "–")
        for reason, n in sorted(late.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
