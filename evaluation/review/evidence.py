"""What spoke for and against the answer, as far as a search can tell, and what led after each request.

A model of this size does not say which finding moved it, so nothing here is its own word. What can be counted is how
its lines of reasoning ended with an item in hand, and how without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluation.record import CandidateRecord, RunRecord, TurnRecord
from evaluation.review import set_data, words
from evaluation.review.language import count, say
from evaluation.review.page_data import FindingView, RequestView, Trail, asked_words, item_words, requests_on
from search.answers import jaccard

FINDINGS_SHOWN = 3
WEIGHED_SHOWN = 6
"""Most items said to speak for the answer, and against it."""

LEAST_LINES = 2
"""Lines of reasoning with an item, and without it, below which it tells nothing."""

LISTED = 12
"""Most entries of a list of findings or items."""

_ABSENT = re.compile(
    r"(?:no|none|nil|negative|neg|absent|denies|denied|normal|unremarkable|within normal|clear|without"
    r"|not (?:detected|seen|present|found))\b|阴性|无|未见|正常",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_RANGE = re.compile(r"([≥≤]?)\s*(-?\d+(?:\.\d+)?)(?:–(-?\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Weighed:
    """One item that some lines of reasoning had read and others not.

    Attributes:
        counted: how often the answer was reached with it and without it, in words.
        findings: what the record said, the abnormal first.
        more: how many of its findings are not named here.
    """

    asked: str
    anchor: str
    counted: str
    findings: tuple[FindingView, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the weight of the evidence.

    Attributes:
        against: items after which the answer was reached less often; `pro`: more often.
        even: items that made no difference, or that every line had read, or too few: (words, anchor).
        others: what other lines of reasoning asked for and read, with its findings.
    """

    pro: tuple[Weighed, ...]
    against: tuple[Weighed, ...]
    even: tuple[tuple[str, str], ...]
    others: tuple[RequestView, ...]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Items without an answer, each list apart: (words, anchor or empty)."""

    pending: tuple[tuple[str, str], ...]
    not_done: tuple[tuple[str, str], ...]
    not_in_source: tuple[tuple[str, str], ...]
    not_understood: tuple[tuple[str, str], ...]


def evidence(
    record: RunRecord,
    path: CandidateRecord | None,
    requests: Sequence[RequestView],
    opening: Sequence[RequestView],
    trail: Trail,
) -> Evidence:
    """Returns the items read in any line of reasoning, by how often the answer followed with and without them.

    Args:
        record: the record.
        path: the chosen line.
        requests: what was asked along it; `opening`: what was given at the start.
        trail: numbers the findings that only other lines read.
    """
    on_path = {r.item for r in requests}
    elsewhere: dict[str, TurnRecord] = {}
    for candidate in record.candidates:
        for turn in candidate.turns:
            if turn.kind == "request" and not turn.imagined and turn.item not in on_path:
                elsewhere.setdefault(turn.item, turn)
    others = requests_on(record, list(elsewhere.values()), trail, "other")
    lists: dict[int, list[tuple[float, Weighed]]] = {1: [], -1: [], 0: []}
    lists[0] += [(0.0, _weighed(r, say("case.weight.given"))) for r in opening if r.answered]
    for view in (*requests, *others):
        if view.answered and path is not None:
            change, text = _compare(record, path, view.item)
            lists[(change > 0) - (change < 0)].append((-abs(change), _weighed(view, text)))
    pro, against = ([w for _, w in sorted(lists[k], key=lambda pair: pair[0])][:WEIGHED_SHOWN] for k in (1, -1))
    even = tuple((say("case.even_item", item=w.asked, why=w.counted), w.anchor) for _, w in lists[0])
    return Evidence(tuple(pro), tuple(against), even, tuple(others))


def _weighed(view: RequestView, text: str) -> Weighed:
    shown = sorted(view.findings, key=lambda f: not f.flag)[:FINDINGS_SHOWN]
    return Weighed(view.asked, view.anchor, text, tuple(shown), len(view.findings) - len(shown) + view.more)


def _compare(record: RunRecord, path: CandidateRecord, item: str) -> tuple[float, str]:
    """Returns by how much an item changes the share of lines that reach the answer, and both shares in words."""
    sides: dict[bool, list[tuple[int, float]]] = {True: [], False: []}
    for candidate in record.candidates:
        if candidate.answer_key is not None:
            sides[_has(candidate, item)].append((candidate.multiplicity, _likeness(candidate, path)))
    n = {side: sum(m for m, _ in rows) for side, rows in sides.items()}
    reached = {side: sum(m * like for m, like in rows) for side, rows in sides.items()}
    if not n[False]:
        return 0.0, say("case.weight.all", all=count(n[True], "line"))
    if min(n.values()) < LEAST_LINES:
        return 0.0, say("case.weight.few", n=n[True], all=count(sum(n.values()), "line"))
    change = reached[True] / n[True] - reached[False] / n[False]
    if path.chosen:
        shares = {"a": words.percent(reached[True] / n[True]), "b": words.percent(reached[False] / n[False])}
        return change, say("case.weight.set", n=count(n[True], "line"), m=n[False], **shares)
    counts = {"a": round(reached[True]), "b": round(reached[False])}
    return change, say("case.weight.one", n=count(n[True], "line"), m=n[False], **counts)


def _has(candidate: CandidateRecord, item: str) -> bool:
    return any(t.kind == "request" and t.item == item and not t.imagined for t in candidate.turns)


def _likeness(candidate: CandidateRecord, path: CandidateRecord) -> float:
    if path.chosen:
        return jaccard(set_data.keys_of(candidate.answer_key), set_data.keys_of(path.answer_key))
    return float(candidate.answer_key == path.answer_key)


def with_leanings(
    record: RunRecord, path: CandidateRecord | None, requests: Sequence[RequestView]
) -> tuple[str, list[RequestView]]:
    """Returns which answer led at the start, and the requests of the chosen line with what led after each.

    What leads after a turn is the answer in which most lines of reasoning end that share all turns up to it.
    """
    if path is None:
        return "", list(requests)
    costs, spent, views = {r.item: r.cost for r in record.requests}, 0.0, []
    left = list(requests)
    for index, turn in enumerate(path.turns, start=1):
        if turn.kind != "request":
            continue
        spent += 0.0 if turn.imagined else costs.get(turn.item, 0.0)
        leaning = _leaning(record, path.turns[:index])
        views.append(replace(left.pop(0), leaning=leaning, spent=words.money(spent)))
    return _leaning(record, ()), views


def _leaning(record: RunRecord, turns: Sequence[TurnRecord]) -> str:
    begin = [_mark(t) for t in turns]
    ends: dict[str, int] = {}
    names: dict[str, str] = {}
    for candidate in record.candidates:
        if candidate.answer_key is None or [_mark(t) for t in candidate.turns[: len(begin)]] != begin:
            continue
        ends[candidate.answer_key] = ends.get(candidate.answer_key, 0) + candidate.multiplicity
        names.setdefault(candidate.answer_key, words.short(candidate.answer or candidate.answer_key, 120))
    if not ends:
        return ""
    if sum(ends.values()) == 1:
        return say("case.leaning_alone", answer=next(iter(names.values())))
    most = max(ends, key=lambda key: (ends[key], names[key]))
    return say("case.leaning", answer=names[most], n=ends[most], all=count(sum(ends.values()), "line"))


def _mark(turn: TurnRecord) -> tuple[str, str, str]:
    return turn.kind, turn.item, turn.text


def negatives(views: Sequence[RequestView]) -> tuple[tuple[FindingView, ...], int]:
    """Returns findings recorded as normal or absent, and how many more there are.

    Normal is a number inside its recorded range, or a text that begins in such words, and no flag. What was not
    recorded is never among them.
    """
    found = [f for v in views if v.answered for f in v.findings if not f.flag and _is_negative(f)]
    return tuple(found[:LISTED]), max(0, len(found) - LISTED)


def _is_negative(finding: FindingView) -> bool:
    number, limits = _NUMBER.match(finding.value), _RANGE.fullmatch(finding.range)
    if number is None or limits is None:
        return bool(_ABSENT.match(finding.value))
    value, first = float(number[0]), float(limits[2])
    if limits[1]:
        return value >= first if limits[1] == "≥" else value <= first
    return limits[3] is not None and first <= value <= float(limits[3])


def unanswered(record: RunRecord, views: Sequence[RequestView]) -> Unanswered:
    """Returns what was asked in any line of reasoning, or to be given at the start, and had no answer by the clock."""
    items, anchors = item_words(record), {v.item: v.anchor for v in reversed(views)}
    states = {t.item: t.state for t in record.opening} | {r.item: r.state for r in record.requests}
    imagined = {v.item for v in views if v.imagined}

    def of(*wanted: str) -> tuple[tuple[str, str], ...]:
        asked = [i for i, state in states.items() if state in wanted and i not in imagined]
        return tuple((asked_words(i, items), anchors.get(i, "")) for i in asked)

    return Unanswered(
        of("pending"), of("not_done_by_now"), of("not_in_source", "done_result_not_in_source"), of("unrecognised")
    )
