"""The page of one case: its steps in order, each put together as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.record import RunRecord
from evaluation.review import (
    about,
    answer_data,
    reasoning,
    set_compare,
    tree_page,
    tree_svg,
    tree_view,
    words,
)
from evaluation.review import evidence as weighing
from evaluation.review import page_data as data
from evaluation.review.afterwards import Afterwards, Hindsight, Unknown
from evaluation.review.language import count, say
from evaluation.store.run_store import StoredRecord


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One visited node in the list form of the tree."""

    level: int
    text: str
    best: bool


@dataclass(frozen=True, slots=True)
class StepPage:
    """One step of a case; texts are cleaned but not yet escaped.

    Attributes:
        anchor: its id on the page, with which all its other ids begin.
        unknown: what the record could not answer at the clock; None where the case is not stored any more.
        size: number of items of the set that was asked for; 0 where one answer was.
        leading: the answer that led, given or not.
        dangers: what must not be missed among the answers considered; None where the list says nothing of them.
        first_leaning: which answer led before anything was asked.
        truth: None in a blind report; so are `compared` (also where one answer was asked for) and `afterwards`.
    """

    anchor: str
    title: str
    question: str
    clock: str
    asked: bool
    versions: tuple[tuple[str, str], ...]
    unknown: Unknown | None
    size: int
    answer: str
    share: str
    leading: str
    status: str
    status_words: str
    bars: tuple[answer_data.Bar, ...]
    rest: str
    dangers: answer_data.Dangers | None
    evidence: weighing.Evidence
    negatives: tuple[data.FindingView, ...]
    negatives_more: int
    unanswered: weighing.Unanswered
    opening: tuple[data.RequestView, ...]
    requests: tuple[data.RequestView, ...]
    first_leaning: str
    cost: str
    has_path: bool
    turns: tuple[reasoning.TurnView, ...]
    rejected: reasoning.Branch | None
    checks: tuple[reasoning.Check, ...]
    check_words: str
    bench: tree_page.Bench | None
    tree_rows: tuple[TreeRow, ...]
    truth: data.Truth | None
    compared: set_compare.Comparison | None
    afterwards: Afterwards | None


@dataclass(frozen=True, slots=True)
class CasePage:
    """Everything the template of a case needs.

    Attributes:
        complaint: the chief complaint, where the record gives one at the start.
        length: steps of the case, in words.
    """

    case_id: str
    vignette: str
    complaint: str
    length: str
    steps: tuple[StepPage, ...]
    about: about.About


@dataclass(frozen=True, slots=True)
class Context:
    """What the pages of a run share.

    Attributes:
        vocabularies: gives the possible answers, by which a set is compared with the recorded one.
        hindsight: looks at whole cases.
        titles: step -> title in the pathway.
        blind: leave out labels, marks and what was done after the clock.
    """

    run_name: str
    pathway: str
    vocabularies: set_compare.Lookup
    hindsight: Hindsight
    titles: Mapping[str, str] = field(default_factory=dict)
    blind: bool = False


def build(steps: Sequence[StoredRecord], context: Context) -> CasePage:
    """Returns the page of a case.

    Args:
        steps: its steps in the order in which they were taken, with labels and match marks; at least one.
        context: what all pages of the run share.
    """
    records = [s.record for s in steps]
    told = max(records, key=lambda r: len(r.vignette))  # later steps know more of the admission
    return CasePage(
        case_id=words.short(records[0].case_id, 120),
        vignette=data.vignette(told),
        complaint=next(filter(None, map(_complaint, records)), ""),
        length=count(len(records), "step"),
        steps=tuple(build_step(s, context) for s in steps),
        about=about.about(records, context.run_name, context.titles),
    )


def build_step(stored: StoredRecord, context: Context) -> StepPage:
    """Returns one step of a case."""
    record, path = stored.record, data.path_of(stored.record)
    prefix = f"{data.step_anchor(record)}-"
    trail = data.Trail(prefix)
    turns = path.turns if path else ()
    opening = data.requests_on(record, record.opening, trail, "given")
    first, requests = weighing.with_leanings(record, path, data.requests_on(record, turns, trail))
    said = tuple(reasoning.turn_views(record, turns, trail, linked=True))
    weighed = weighing.evidence(record, path, requests, opening, trail)
    read = (*opening, *requests, *weighed.others)
    negatives, negatives_more = weighing.negatives(read)
    bars, rest = answer_data.bars(record)
    checks, branch = reasoning.checks(record, path), reasoning.rejected(record, path, trail)
    vocabulary, blind = context.vocabularies(record), context.blind
    return StepPage(
        anchor=data.step_anchor(record),
        title=words.step_text(record.step, record.occurrence, context.titles.get(record.step, "")),
        question=words.short(record.question, 300),
        clock=words.short(record.clock_text, 200) or _clock(record),
        asked=record.status not in ("not_applicable", "failed"),
        versions=about.versions(record, context.pathway),
        unknown=context.hindsight.unknown(record),
        size=len(record.chosen),
        answer=data.answer_text(record),
        share=data.share_text(record),
        leading=data.leading_text(record),
        status=data.status_of(record),
        status_words=data.status_text(record)[1],
        bars=bars,
        rest=rest,
        dangers=answer_data.dangers(record, vocabulary),
        evidence=weighed,
        negatives=negatives,
        negatives_more=negatives_more,
        unanswered=weighing.unanswered(record, read),
        opening=tuple(opening),
        requests=tuple(requests),
        first_leaning=first,
        cost=words.money(sum(r.cost for r in record.requests if r.on_path)),
        has_path=path is not None,
        turns=said,
        rejected=branch,
        checks=checks,
        check_words=reasoning.check_words(record, path, checks),
        bench=tree_page.bench_of_step(record, prefix, branch.node if branch else None),
        tree_rows=_tree_rows(record),
        truth=None if blind else data.truth_of(stored),
        compared=None if blind or not record.chosen else set_compare.compare(record, stored.truth, vocabulary),
        afterwards=None if blind else context.hindsight.afterwards(record),
    )


def _complaint(record: RunRecord) -> str:
    found = (f for t in record.opening if t.item == "chief_complaint" for f in t.findings if f.kind == "complaint")
    return words.short(next((f.value for f in found), ""), 160)


def _clock(record: RunRecord) -> str:
    return say("words.time.not_stated") if record.clock is None else words.relative_time(record.clock)


def _tree_rows(record: RunRecord) -> tuple[TreeRow, ...]:
    """Visited nodes, each parent directly before its subtree: the drawing for those who cannot see it."""
    nodes = {int(n["id"]): n for n in tree_view.nodes_of(record)}
    best = set(tree_svg.winning_path(list(nodes.values()), record.winner))
    children: dict[int | None, list[int]] = {}
    for node_id, node in nodes.items():
        children.setdefault(node["parent"], []).append(node_id)
    items, notes, rows = data.item_words(record), tree_view.notes_of(record), []
    stack = [(i, 0) for i in reversed(children.get(None, []))]
    while stack:
        node_id, level = stack.pop()
        node = nodes[node_id]
        if node["visits"]:
            text = tree_svg.tooltip(node, items, node_id in best, notes.get(node_id, ""))
            rows.append(TreeRow(level, words.short(text, 200), node_id in best))
            stack.extend((i, level + 1) for i in reversed(children.get(node_id, [])))
    return tuple(rows)
