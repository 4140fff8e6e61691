"""What pages show of one case-step, worked out from its record; no HTML, no database."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.record import CandidateRecord, FindingRecord, RunRecord, TurnRecord
from evaluation.review import set_data, words
from evaluation.review.language import count, say
from evaluation.store.run_store import StoredRecord

FINDINGS_PER_REQUEST = 40
EARLIER_SHOWN = 4
"""Most earlier values shown beside the last one of the same name."""

_GROUPED = 40
"""Most characters of a value that is set beside others of its name; a longer text has a row of its own."""

_ANSWERED = "recorded"
GIVEN = ("verified", "unverified")


@dataclass(frozen=True, slots=True)
class FindingView:
    """The last finding of a name as a row; `anchor` is its id on the page.

    Attributes:
        time: when it was taken; `known`: how much later its value could be seen.
        earlier: values of the same name before it, with their times.
        available: minute from which it was known.
    """

    anchor: str
    name: str
    value: str
    range: str
    flag: str
    time: str
    known: str
    earlier: tuple[str, ...] = ()
    available: int = 0


@dataclass(frozen=True, slots=True)
class RequestView:
    """One item asked for (or given at the start), and what the record answered.

    Attributes:
        item: its id in the catalogue.
        state: the answer in words; `answered`: findings were given.
        more: findings that are left out.
        leaning: which answer led after it; `spent`: the price up to then. Both only along the chosen line.
    """

    anchor: str
    item: str
    asked: str
    answered: bool
    state: str
    cost: str
    findings: tuple[FindingView, ...]
    more: int = 0
    imagined: bool = False
    leaning: str = ""
    spent: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text, with a link or without; `note` says value and time of what it links to."""

    text: str
    href: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """One recorded label."""

    display: str
    coding: str
    strength: str


@dataclass(frozen=True, slots=True)
class Truth:
    """The recorded label and how the answer compares; absent from a blind report."""

    labels: tuple[Label, ...]
    marks: tuple[tuple[str, bool], ...]
    later: tuple[str, ...]


class Trail:
    """Numbers the findings of a step and links their names wherever a text mentions them.

    Args:
        prefix: goes before every anchor, so that a page can hold several steps.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._anchors: dict[str, tuple[str, str]] = {}
        self._count = 0

    def show(self, finding: FindingRecord, earlier: Sequence[FindingRecord] = ()) -> FindingView:
        """Returns the row of a finding, with those of its name before it, and remembers its name."""
        self._count += 1
        anchor = f"{self.prefix}finding-{self._count}"
        name = words.short(finding.name, 120) or say("words.unnamed_finding")
        value, flag = _value(finding), words.flag_text(finding.flag)
        since = words.relative_time(finding.available)
        self.remember(name, anchor, say("case.cited", value=words.short(f"{value} {flag}".strip(), 60), time=since))
        return FindingView(
            anchor=anchor,
            name=name,
            value=value,
            range=words.range_words(finding.range),
            flag=flag,
            time=words.relative_time(finding.charted),
            known=words.known_text(finding.charted, finding.available),
            earlier=tuple(_earlier(f) for f in earlier[-EARLIER_SHOWN:]),
            available=finding.available,
        )

    def show_all(self, findings: Sequence[FindingRecord]) -> list[FindingView]:
        """Returns a row for each name of short values, the last one with those before it, and for each long text."""
        rows: dict[str, list[FindingRecord]] = {}
        for number, finding in enumerate(findings):
            long = len(finding.value) > _GROUPED
            rows.setdefault(f"{number}" if long else f"={finding.name.casefold()}", []).append(finding)
        ordered = (sorted(row, key=lambda f: (f.charted, f.available)) for row in rows.values())
        return [self.show(row[-1], row[:-1]) for row in ordered]

    def remember(self, name: str, anchor: str, note: str = "") -> None:
        """Links a name to an anchor from now on; a name of one or two letters would link by chance."""
        if len(name) > 2:
            self._anchors.setdefault(name.casefold(), (anchor, note))

    def link(self, text: str) -> tuple[Piece, ...]:
        """Returns a text in pieces, the names shown so far linked to their rows, each with its note once."""
        if not self._anchors or not text:
            return (Piece(text),) if text else ()
        names = sorted(self._anchors, key=lambda n: (-len(n), n))
        pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, names))})(?!\w)", re.IGNORECASE)
        pieces: list[Piece] = []
        noted: set[str] = set()
        for index, part in enumerate(pattern.split(text)):
            anchor, note = self._anchors.get(part.casefold(), ("", "")) if index % 2 else ("", "")
            if part:
                pieces.append(Piece(part, f"#{anchor}" if anchor else "", "" if anchor in noted else note))
                noted.add(anchor)
        return tuple(pieces)


def _value(finding: FindingRecord) -> str:
    return " ".join(filter(None, (words.clean(finding.value), words.unit_text(finding.unit))))


def _earlier(finding: FindingRecord) -> str:
    shown = " ".join(filter(None, (_value(finding), words.flag_text(finding.flag))))
    return say("case.earlier_value", value=words.short(shown, 60), time=words.relative_time(finding.charted))


def case_file(case_id: str) -> str:
    """Returns the file name of a case's page, safe on any file system and unique within a run."""
    return f"{safe_name(case_id)}.html"


def step_anchor(record: RunRecord) -> str:
    """Returns the anchor of a step on the page of its case: `workup`, and `workup-2` when the pathway came back."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", record.step)[:80]
    return safe if record.occurrence == 1 else f"{safe}-{record.occurrence}"


def page_name(record: RunRecord) -> str:
    """Returns where a case-step is shown, seen from the folder of cases: `ID.html#STEP`."""
    return f"{case_file(record.case_id)}#{step_anchor(record)}"


def case_address(record: RunRecord) -> str:
    """Returns where a case-step is shown, within a report: `cases/ID.html#STEP`."""
    return f"cases/{page_name(record)}"


def file_stem(record: RunRecord) -> str:
    """Returns a name for a file of one case-step, safe on any file system and unique within a run."""
    return safe_name(record.case_id, record.step, *([str(record.occurrence)] if record.occurrence != 1 else []))


def safe_name(*parts: str) -> str:
    """Returns parts as one name that is safe on any file system; where it had to be changed, a hash keeps it unique."""
    name = "-".join(parts)
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:120]
    if safe != name:
        safe += "-" + hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:8]
    return safe


def vignette(record: RunRecord) -> str:
    """Returns the one line that says who the patient is."""
    text = words.short(record.vignette, 240)
    return text[:1].upper() + text[1:] or say("words.not_recorded_vignette")


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
    return max(fitting, key=weight, default=None)


def weight(candidate: CandidateRecord) -> tuple[float, int]:
    """Returns what a candidate weighs in the choice: visits times value, then visits."""
    return candidate.multiplicity * candidate.value, candidate.multiplicity


def requests_on(record: RunRecord, turns: Sequence[TurnRecord], trail: Trail, kind: str = "asked") -> list[RequestView]:
    """Returns the requests among some turns, in order, with their answers.

    Args:
        record: the record.
        turns: of a line of reasoning, or the opening.
        trail: numbers the findings.
        kind: `asked` along the chosen line, `given` of the opening, `other` of other lines; begins the anchors.
    """
    items = item_words(record)
    costs = {r.item: r.cost for r in record.requests}
    views: list[RequestView] = []
    for turn in turns:
        if turn.kind != "request" and not (kind == "given" and turn.item):
            continue
        rows = trail.show_all(turn.findings[:FINDINGS_PER_REQUEST])
        price = words.money(costs[turn.item]) if turn.item in costs else "–"
        views.append(
            RequestView(
                anchor=f"{trail.prefix}{kind}-{len(views) + 1}",
                item=turn.item,
                asked=asked_words(turn.item, items),
                answered=turn.state == _ANSWERED and not turn.imagined,
                state=words.state_text("imagined" if turn.imagined else turn.state),
                cost=say("case.given") if kind == "given" else price,
                findings=tuple(rows),
                more=max(0, len(turn.findings) - FINDINGS_PER_REQUEST),
                imagined=turn.imagined,
            )
        )
        trail.remember(items.get(turn.item, ""), views[-1].anchor)
    return views


def asked_words(item: str, items: Mapping[str, str]) -> str:
    """Returns an item as a clinician would ask for it, with a capital letter."""
    text = items.get(item) or words.short(item, 80).replace("_", " ") or say("words.unnamed_item")
    return text[:1].upper() + text[1:]


def status_of(record: RunRecord) -> str:
    """Returns how a case-step ended: agreed, disagreed, unchecked, none (no answer), not_applicable or failed."""
    match record.status:
        case "verified":
            return "agreed"
        case "unverified":
            return "unchecked" if record.peer_agreement is None else "disagreed"
        case "abstain":
            return "none"
        case "not_applicable":
            return "not_applicable"
        case _:
            return "failed"


def agreement_text(path: CandidateRecord | None, agreement: float) -> str:
    """Returns the agreement of the check, and of how many of its runs where they are known: `75 %, in 3 of 4 runs`."""
    share = words.percent(agreement)
    if path is None or not path.peer_answers:
        return share
    runs = count(len(path.peer_answers), "run")
    if path.chosen:
        return say("words.agreement_set", share=share, runs=runs)
    return say("words.agreement_one", share=share, runs=runs, same=path.peer_answers.count(path.answer_key))


def status_text(record: RunRecord) -> tuple[str, str]:
    """Returns how the case-step ended, as a short name and as plain sentences."""
    status = status_of(record)
    who = "same_model" if record.peer_is_generator else "second_model"
    form = "one" if not record.chosen else "set" if record.peer_agreement == 1 or status != "agreed" else "near_set"
    parts = []
    if status in ("agreed", "disagreed"):
        parts.append(say(f"case.status.{status}_{form}", who=say(f"case.status.{who}")))
        if record.peer_agreement is not None:
            share = agreement_text(path_of(record), record.peer_agreement)
            parts.append(say(f"case.status.agreement_{'set' if record.chosen else 'one'}", share=share))
        if status == "disagreed":
            parts.append(say("case.status.doubt"))
        elif record.peer_is_generator:
            parts.append(say("case.status.weak"))
    else:
        parts.append(say(f"case.status.{status}"))
        reason = words.sentence(record.reason)
        parts.append(reason or (say("case.status.close") if status == "none" else ""))
    return say(f"words.status.{status}"), say("words.sentence_gap").join(filter(None, parts))


def answer_text(record: RunRecord) -> str:
    """Returns the answer given, the items of a set with semicolons between, or an empty string without one."""
    if record.status not in GIVEN or not record.ranked:
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


def truth_of(stored: StoredRecord) -> Truth:
    """Returns the recorded labels, the match marks, and what of the items asked for was recorded after the clock."""
    labels = tuple(
        Label(
            words.short(str(t.get("display") or t.get("code") or ""), 300),
            f"{words.system_text(str(t.get('system') or ''))} {words.short(str(t.get('code') or ''), 80)}".strip(),
            words.strength_text(str(t.get("strength") or "")),
        )
        for t in stored.truth
    )
    order = words.LEVELS
    levels = sorted(stored.match, key=lambda level: (order.index(level) if level in order else len(order), level))
    items = item_words(stored.record)
    later = tuple(asked_words(r.item, items) for r in stored.record.requests if r.done_later)
    marks = tuple((words.level_text(level, stored.record.step), bool(stored.match[level])) for level in levels)
    return Truth(labels, marks, later)


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
            rows.append((words.short(name, 120), say("case.yes" if value else "case.no")))
        elif isinstance(value, (list, tuple)):
            rows.append((words.short(name, 120), words.short(", ".join(map(str, value)), 400) or "–"))
        else:
            rows.append((words.short(name, 120), "–" if value in (None, "") else words.short(str(value), 400)))
    return rows
