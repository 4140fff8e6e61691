"""What pages say of the lines of reasoning: the chosen one, its check, and the strongest that was rejected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.record import CandidateRecord, RunRecord, TurnRecord
from evaluation.review import set_data, words
from evaluation.review.language import count, say
from evaluation.review.page_data import Piece, Trail, agreement_text, asked_words, item_words, weight


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn of reasoning; `loose`: it is a claim that names nothing of what the record had shown by then."""

    label: str
    pieces: tuple[Piece, ...]
    loose: bool = False


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


def turn_views(record: RunRecord, turns: Sequence[TurnRecord], trail: Trail, linked: bool) -> Iterator[TurnView]:
    """Yields the turns of a path in words; `linked`: requests and findings link to the timeline of this step."""
    items = item_words(record)
    number = 0
    for turn in turns:
        label = words.kind_text(turn.kind)
        if turn.kind == "request":
            number += 1
            state = words.state_text("imagined" if turn.imagined else turn.state)
            asked = Piece(asked_words(turn.item, items), f"#{trail.prefix}asked-{number}" if linked else "")
            yield TurnView(label, (asked, Piece(f" – {state}")))
            continue
        text = words.clean(turn.text).strip()
        pieces = trail.link(text) if linked else (Piece(words.short(text, 400)),)
        claims = linked and bool(text) and turn.kind != "finish"
        loose = claims and not any(p.href for p in pieces)
        yield TurnView(label, pieces if text else (Piece(say("tree.nothing")),), loose)


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
        answer, verdict = say("tree.no_readable"), say("case.same" if same else "case.different")
        if key is not None and path.chosen:
            answer = words.short(set_data.key_words(key, names), 240)
            verdict = set_data.in_common(path.answer_key, key) or say("case.same")
        elif key is not None:
            answer = words.short(names.get(key, key), 160)
        after = say("case.first_turns", turns=count(cut, "turn")) if cut != 1 else say("case.first_turn")
        found.append(Check(after, answer, same, verdict))
    return tuple(found)


def check_words(record: RunRecord, path: CandidateRecord | None, made: Sequence[Check]) -> str:
    """Returns how the chosen line was checked, and what came of it."""
    if path is None or path.agreement is None:
        return say("case.check.none")
    who = say(f"case.check.{'same_model' if record.peer_is_generator else 'second_model'}")
    if not made:
        return say("case.check.bare", who=who, share=words.percent(path.agreement))
    values = {"who": who, "same": sum(c.same for c in made), "runs": count(len(made), "run")}
    if not path.chosen:
        return say("case.check.one", **values)
    return say("case.check.set", share=words.percent(path.agreement), **values)


def rejected(record: RunRecord, path: CandidateRecord | None, trail: Trail) -> Branch | None:
    """Returns the heaviest branch with another answer than the winner's."""
    others = [c for c in record.candidates if path is not None and c.answer_key not in (None, path.answer_key)]
    best = max(others, key=lambda c: (*weight(c), -c.node), default=None)
    if best is None:
        return None
    form = "set" if best.chosen else "one"
    check = say("case.branch.unchecked")
    if best.agreement is not None:
        check = say("case.branch.check", share=agreement_text(best, best.agreement))
    facts = [
        say("case.branch.ended", n=f"{best.multiplicity:,}", all=count(record.rollouts, "line")),
        say(f"case.branch.share_{form}", share=words.percent(best.probability)),
    ]
    common = set_data.in_common(best.answer_key, path.answer_key) if best.chosen and path else ""
    facts += [say("case.branch.common", common=common)] if common else []
    return Branch(
        best.node,
        words.short(best.answer or str(best.answer_key), 240),
        say("words.list_gap").join(facts) + say("words.full_stop"),
        check,
        tuple(turn_views(record, best.turns, trail, linked=False)),
    )
