"""What the page of one case-step shows, worked out from its record; no HTML, no database."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.record import CandidateRecord, FindingRecord, RunRecord, TurnRecord
from evaluation.review import set_data, words
from evaluation.store.run_store import StoredRecord

FINDINGS_PER_REQUEST = 40
EVIDENCE_SHOWN = 12
BARS_SHOWN = 5
NOTEWORTHY_WAIT = 15
"""Minutes from which the wait between a finding and its being known is shown."""

OTHER_ITEMS_SHOWN = 3
"""Least number of items shown after those of a set."""

_ANSWERED = "recorded"
_NOT_THE_MOST = "The first answer is not the one with most votes"


@dataclass(frozen=True, slots=True)
class FindingView:
    """One finding as a row; `anchor` is its id on the page."""

    anchor: str
    name: str
    value: str
    range: str
    flag: str
    time: str
    known: str


@dataclass(frozen=True, slots=True)
class RequestView:
    """One item asked for (or given at the start), and what the record answered."""

    anchor: str
    asked: str
    answered: bool
    state: str
    cost: str
    findings: tuple[FindingView, ...]
    more: int = 0
    imagined: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text, with a link or without."""

    text: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn of reasoning."""

    label: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One answer with its share of the votes, or one item with the share of the lists that name it.

    Attributes:
        width: in percent of the bar.
        chosen: the answer given, or an item of the set that was.
    """

    display: str
    coding: str
    share: str
    width: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Check:
    """What the checking model said after one cut; `verdict` in words: same, different, or how much of a set is."""

    after: str
    answer: str
    same: bool
    verdict: str


@dataclass(frozen=True, slots=True)
class Branch:
    """The strongest branch that was not chosen; `node` is its end in the tree."""

    node: int
    answer: str
    ended: str
    check: str
    turns: tuple[TurnView, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """One recorded label."""

    display: str
    coding: str
    strength: str


@dataclass(frozen=True, slots=True)
class Truth:
    """The recorded diagnosis and how the answer compares; absent from a blind report."""

    labels: tuple[Label, ...]
    marks: tuple[tuple[str, bool], ...]
    later: tuple[str, ...]


class Trail:
    """Numbers the findings of a page and links their names wherever a text mentions them."""

    def __init__(self) -> None:
        self._anchors: dict[str, str] = {}
        self._count = 0

    def show(self, finding: FindingRecord) -> FindingView:
        """Returns the row of a finding and remembers its name."""
        self._count += 1
        anchor = f"finding-{self._count}"
        name = words.short(finding.name, 120) or "unnamed finding"
        if len(name) > 2:
            self._anchors.setdefault(name.casefold(), anchor)
        value = " ".join(filter(None, (words.clean(finding.value), words.unit_text(finding.unit))))
        time = words.relative_time(finding.charted)
        wait = finding.available - finding.charted
        known = f"known {words.duration(wait)} later" if wait >= NOTEWORTHY_WAIT else ""
        flag = words.flag_text(finding.flag)
        return FindingView(anchor, name, value, words.range_words(finding.range), flag, time, known)

    def link(self, text: str) -> tuple[Piece, ...]:
        """Returns a text in pieces, the names of findings shown so far linked to their rows."""
        if not self._anchors or not text:
            return (Piece(text),) if text else ()
        names = sorted(self._anchors, key=lambda n: (-len(n), n))
        pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, names))})(?!\w)", re.IGNORECASE)
        pieces: list[Piece] = []
        for index, part in enumerate(pattern.split(text)):
            if part:
                href = self._anchors.get(part.casefold(), "") if index % 2 else ""
                pieces.append(Piece(part, f"#{href}" if href else ""))
        return tuple(pieces)


def page_name(record: RunRecord) -> str:
    """Returns the file name of a case-step's page, safe on any file system and unique within a run."""
    parts = [record.case_id, record.step] + ([str(record.occurrence)] if record.occurrence != 1 else [])
    return f"{safe_name(*parts)}.html"


def safe_name(*parts: str) -> str:
    """Returns parts as one name that is safe on any file system; where it had to be changed, a hash keeps it unique."""
    name = "-".join(parts)
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:120]
    if safe != name:
        safe += "-" + hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:8]
    return safe


def tree_address(record: RunRecord) -> str:
    """Returns the address of the page of a case-step's tree, within a report."""
    return f"trees/{page_name(record)}"


def vignette(record: RunRecord) -> str:
    """Returns the one line that says who the patient is."""
    text = words.short(record.vignette, 240)
    return text[:1].upper() + text[1:] or "Age, sex and context are not recorded."


def item_words(record: RunRecord) -> dict[str, str]:
    """Returns the words for each catalogue item of a record."""
    given = {t.item: words.short(t.text, 80) for t in record.opening if t.item and t.text}
    return given | {r.item: words.short(r.display, 80) for r in record.requests if r.display}


def path_of(record: RunRecord) -> CandidateRecord | None:
    """Returns the winning candidate: the recorded winner, else the heaviest one with the first answer."""
    for candidate in record.candidates:
        if candidate.node == record.winner:
            return candidate
    if record.winner is not None or not record.ranked:
        return None
    first = record.ranked[0]
    if record.chosen:
        fitting = [c for c in record.candidates if set(c.chosen) == set(record.chosen)]
    else:
        fitting = [c for c in record.candidates if c.answer_key == first.code or c.answer == first.display]
    return max(fitting, key=_weight, default=None)


def requests_on(record: RunRecord, turns: Sequence[TurnRecord], trail: Trail, *, opening: bool) -> list[RequestView]:
    """Returns the requests among some turns, in order, with their answers."""
    items = item_words(record)
    costs = {r.item: r.cost for r in record.requests}
    views: list[RequestView] = []
    for turn in turns:
        if turn.kind != "request" and not (opening and turn.item):
            continue
        shown = turn.findings[:FINDINGS_PER_REQUEST]
        views.append(
            RequestView(
                anchor=f"{'given' if opening else 'asked'}-{len(views) + 1}",
                asked=asked_words(turn.item, items),
                answered=turn.state == _ANSWERED,
                state=words.STATES.get(turn.state, words.title_of(turn.state).lower()),
                cost="given at the start" if opening else words.money(costs[turn.item]) if turn.item in costs else "–",
                findings=tuple(trail.show(f) for f in shown),
                more=len(turn.findings) - len(shown),
                imagined=turn.imagined,
            )
        )
    return views


def asked_words(item: str, items: Mapping[str, str]) -> str:
    """Returns an item as a clinician would ask for it, with a capital letter."""
    text = items.get(item) or words.short(item, 80).replace("_", " ") or "unnamed item"
    return text[:1].upper() + text[1:]


def turn_views(record: RunRecord, turns: Sequence[TurnRecord], trail: Trail, linked: bool) -> Iterator[TurnView]:
    """Yields the turns of a path in words; `linked`: requests and findings link to the timeline of this page."""
    items = item_words(record)
    number = 0
    for turn in turns:
        label = words.KINDS.get(turn.kind, words.title_of(turn.kind))
        if turn.kind == "request":
            number += 1
            state = "imagined, not read from the record" if turn.imagined else words.STATES.get(turn.state, turn.state)
            asked = Piece(asked_words(turn.item, items), f"#asked-{number}" if linked else "")
            yield TurnView(label, (asked, Piece(f" – {state}")))
        else:
            text = words.clean(turn.text).strip() or "(nothing written)"
            yield TurnView(label, trail.link(text) if linked else (Piece(words.short(text, 400)),))


def bars(record: RunRecord) -> tuple[tuple[Bar, ...], str]:
    """Returns the answer, of a set every item, and those with the largest shares after it, and a line on the rest."""
    given, size = record.status in ("verified", "unverified"), max(1, len(record.chosen))
    # Ranked by weight, which is not the share alone.
    others = sorted(record.ranked[size:], key=lambda a: -a.probability)
    answers = [*record.ranked[:size], *others]
    most = BARS_SHOWN if not record.chosen else max(BARS_SHOWN, size + OTHER_ITEMS_SHOWN)
    shown = tuple(
        Bar(
            set_data.name_of(a),
            f"{words.system_text(a.system)} {words.short(a.code, 80)}".strip(),
            words.percent(a.probability),
            f"{max(0.0, min(1.0, a.probability)) * 100:.1f}",
            given and index < size,
        )
        for index, a in enumerate(answers[:most])
    )
    lines = []
    if rest := answers[most:]:
        if record.chosen:  # shares of items do not add up
            largest = words.percent(max(a.probability for a in rest))
            lines.append(f"{words.count(len(rest), 'other item')}: none in more than {largest} of the lists.")
        else:
            together = words.percent(sum(a.probability for a in rest))
            lines.append(f"{words.count(len(rest), 'other answer')} together: {together} of the votes.")
    if others and others[0].probability > min(a.probability for a in answers[:size]):
        lines.append(
            ("An item outside the set has a larger share than one in it" if record.chosen else _NOT_THE_MOST)
            + ": the choice weighs each line of reasoning by its value and by the check."
        )
    return shown, " ".join(lines)


def draws_words(record: RunRecord, path: CandidateRecord | None) -> str:
    """Returns how the votes were drawn and how many of them could be read; empty where every vote was exact."""
    whole = words.draws_text(record.draws, record.unparseable)
    if not whole:
        return ""
    own = words.draws_text(path.draws, path.unparseable) if path and len(record.candidates) > 1 else ""
    where = " over all lines of reasoning" if own else ""
    text = f"The votes were drawn one by one: {whole}{where}{f', {own} on the one chosen' if own else ''}."
    return text + (" A draw that names none counts for no answer." if record.unparseable else "")


def status_text(record: RunRecord) -> tuple[str, str]:
    """Returns how the case-step ended, as a short name and as plain sentences."""
    who = "the same model under other seeds" if record.peer_is_generator else "a second model"
    weak = " This is a weak check." if record.peer_is_generator else ""
    reason = words.sentence(record.reason)
    agreed = "" if record.peer_agreement is None else f" {_agreement_words(record, record.peer_agreement)}"
    match record.status:
        case "verified":
            run = "the same model under other seeds" if record.peer_is_generator else "a second model run"
            same = "reached the same answer" if not record.chosen else "came to the same set"
            reached = same if record.peer_agreement == 1 or not record.chosen else "came to much the same set"
            text = f"{run[0].upper()}{run[1:]} {reached}.{agreed}{weak} It is no clinical verification."
            return "check agreed", text
        case "unverified" if record.peer_agreement is None:
            return "not checked", f"No second run checked this answer. Read it with more doubt. {reason}".strip()
        case "unverified":
            reach = "reach this answer often enough" if not record.chosen else "come near enough to this set"
            return "check disagreed", f"The check by {who} did not {reach}.{agreed} Read it with more doubt."
        case "abstain":
            why = reason or "The leading answers lie too close together."
            return "no answer", f"The model gives no answer; the case is one for a person to decide. {why}"
        case "not_applicable":
            return "not applicable", f"Nothing was asked. {reason}".strip()
        case _:
            return "failed", f"This step failed and has no answer. {reason}".strip()


def _agreement_words(record: RunRecord, agreement: float) -> str:
    share = words.percent(agreement)
    if not record.chosen:
        return f"Agreement: {share}."
    return f"Agreement: {share} (items in both sets, of those in either; on average)."


def answer_text(record: RunRecord) -> str:
    """Returns the answer given, the items of a set with semicolons between, or an empty string without one."""
    if record.status not in ("verified", "unverified") or not record.ranked:
        return ""
    return leading_text(record)


def leading_text(record: RunRecord) -> str:
    """Returns the answer that leads, given or not; the items of a set with semicolons between."""
    if record.chosen:
        return set_data.names_of(record)
    return set_data.name_of(record.ranked[0]) if record.ranked else ""


def share_text(record: RunRecord) -> str:
    """Returns the share of the leading answer, of a set the mean share of its items; empty without an answer."""
    if record.chosen:
        return words.percent(set_data.mean_share(record))
    return words.percent(record.ranked[0].probability) if record.ranked else ""


def checks(record: RunRecord, path: CandidateRecord | None) -> tuple[Check, ...]:
    """Returns what the check answered after each cut of the winning path."""
    if path is None:
        return ()
    # An answer key is a code or, for ICD, its category: what stands before the point.
    names = {a.code.split(".")[0]: a.display for a in reversed(record.ranked)}
    names |= {a.code: a.display for a in record.ranked}
    names |= {c.answer_key: c.answer for c in record.candidates if c.answer_key and c.answer}
    found = []
    for cut, key in zip(path.cuts, path.peer_answers, strict=False):
        same = key is not None and key == path.answer_key
        answer, verdict = "no readable answer", "same" if same else "different"
        if key is not None and path.chosen:
            answer = words.short(set_data.key_words(key, names), 240)
            verdict = set_data.in_common(path.answer_key, key) or "same"
        elif key is not None:
            answer = words.short(names.get(key, key), 160)
        after = f"the first {words.count(cut, 'turn')}" if cut != 1 else "the first turn"
        found.append(Check(after, answer, same, verdict))
    return tuple(found)


def rejected(record: RunRecord, path: CandidateRecord | None, trail: Trail) -> Branch | None:
    """Returns the heaviest branch with another answer than the winner's."""
    others = [c for c in record.candidates if path is not None and c.answer_key not in (None, path.answer_key)]
    best = max(others, key=lambda c: (*_weight(c), -c.node), default=None)
    if best is None:
        return None
    if best.agreement is None:
        check = "It could not be checked."
    elif best.chosen:
        check = f"Agreement of the check with it: {words.percent(best.agreement)}."
    else:
        check = f"The check agreed with it in {words.percent(best.agreement)} of its runs."
    ended = f"{best.multiplicity:,} of {words.count(record.rollouts, 'rollout')} ended here"
    share = "share of votes there" if not best.chosen else "mean share of its items there"
    drawn = words.draws_text(best.draws, best.unparseable)
    common = set_data.in_common(best.answer_key, path.answer_key) if best.chosen and path else ""
    facts = [f"{ended}; {share} {words.percent(best.probability)}", drawn, common and f"{common} with the set above"]
    return Branch(
        best.node,
        words.short(best.answer or str(best.answer_key), 240),
        "; ".join(filter(None, facts)) + ".",
        check,
        tuple(turn_views(record, best.turns, trail, linked=False)),
    )


def truth_of(stored: StoredRecord) -> Truth:
    """Returns the recorded labels, the match marks, and what was done after the clock."""
    labels = tuple(
        Label(
            words.short(str(t.get("display") or t.get("code") or ""), 300),
            f"{words.system_text(str(t.get('system') or ''))} {words.short(str(t.get('code') or ''), 80)}".strip(),
            words.strength_text(str(t.get("strength") or "")),
        )
        for t in stored.truth
    )
    order = list(words.LEVELS)
    levels = sorted(stored.match, key=lambda level: (order.index(level) if level in order else len(order), level))
    items = item_words(stored.record)
    later = tuple(asked_words(r.item, items) for r in stored.record.requests if r.done_later)
    return Truth(labels, tuple((words.level_text(level), bool(stored.match[level])) for level in levels), later)


def flatten(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns nested settings as (name, text) rows, sorted by name."""
    rows: list[tuple[str, str]] = []
    for key in sorted(data, key=str):
        value, name = data[key], f"{prefix}{key}"
        if key == "text":
            continue  # the whole text of a pathway; its hash is shown
        if isinstance(value, Mapping):
            rows += flatten(value, f"{name}.")
        elif isinstance(value, bool):
            rows.append((words.short(name, 120), "yes" if value else "no"))
        elif isinstance(value, (list, tuple)):
            rows.append((words.short(name, 120), words.short(", ".join(map(str, value)), 400) or "–"))
        else:
            rows.append((words.short(name, 120), "–" if value in (None, "") else words.short(str(value), 400)))
    return rows


def _weight(candidate: CandidateRecord) -> tuple[float, int]:
    return candidate.multiplicity * candidate.value, candidate.multiplicity
