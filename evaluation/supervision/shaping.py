"""Makes a set of the rows of many case-steps: in order, without repetition, not too long, balanced on request.

Every rule works on what is there, in the order of the rows, and draws nothing at random.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median_low
from typing import Any

from evaluation.supervision.traces import ANSWER

Row = dict[str, Any]

SFT, PREFERENCE, STEPWISE, PROMPTS = "sft", "preference", "stepwise", "prompts"
KINDS = (SFT, PREFERENCE, STEPWISE, PROMPTS)

_TEXTS = {
    SFT: ("prompt", "completion"),
    PREFERENCE: ("prompt", "chosen", "rejected"),
    STEPWISE: ("prompt", "completions"),
    PROMPTS: ("prompt",),  # an answer that a peer stood by is read by one training alone, and is no other observation
}
"""Kind -> the columns that a model reads."""


def in_order(rows: Iterable[Row], steps: Sequence[str]) -> list[Row]:
    """Returns rows by step (in the order of the pathway), case, occurrence and run; within one case-step as made."""
    places = {step: at for at, step in enumerate(steps)}
    return sorted(rows, key=lambda r: (places[r["step"]], r["case_id"], r["occurrence"], r["run"]))


def without_repetition(rows: Iterable[Row], kind: str) -> list[Row]:
    """Returns rows without those that say of a case what an earlier one says; two patients may give equal texts.

    Branches share beginnings, and a case may stand in several runs. Equal texts of two cases are two observations.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        texts = (str(row[name]) for name in _TEXTS[kind])
        found.setdefault((row["step"], row["case_id"], row.get("role"), *texts), row)
    return list(found.values())


def short_enough(rows: Iterable[Row], kind: str, characters: int) -> list[Row]:
    """Returns rows whose prompt and longest completion together take at most so many characters; 0: all.

    A longer one is left out, never cut: what is cut is not what the search asks.
    """
    return [row for row in rows if not characters or length(row, kind) <= characters]


def length(row: Row, kind: str) -> int:
    """Returns the characters of a row: those of its prompt and its longest completion."""
    if kind == STEPWISE:
        return len(row["prompt"]) + sum(map(len, row["completions"]))
    return len(row["prompt"]) + max((len(row[name]) for name in _TEXTS[kind][1:]), default=0)


def without_reversed(rows: Sequence[Row], against: Sequence[Row] | None = None) -> list[Row]:
    """Returns pairs without those that stand there the other way round as well: of these neither teaches anything.

    Args:
        rows: the pairs.
        against: where to look for the other way round; None: in `rows`.
    """
    there = {(row["prompt"], row["chosen"], row["rejected"]) for row in (rows if against is None else against)}
    return [row for row in rows if (row["prompt"], row["rejected"], row["chosen"]) not in there]


def contradictions(rows: Iterable[Row], kind: str) -> dict[str, Any]:
    """Returns where one prompt has several answers (sft), or one trajectory several labels (stepwise).

    Such rows stay: they come of different cases whose charts read alike, and their shares are what can be known.

    Returns:
        `{"prompts": ..., "rows": ..., "cases": [ids, at most 20]}`.
    """
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        if kind == SFT and row["turn"] == ANSWER:
            groups[row["step"], row["role"], row["prompt"]].append((row["completion"], row["case_id"]))
        elif kind == STEPWISE:
            text = row["prompt"] + "".join(row["completions"])
            groups[row["step"], row["role"], text].append((str(row["labels"]), row["case_id"]))
    at_odds = [group for group in groups.values() if len({said for said, _ in group}) > 1]
    cases = sorted({case_id for group in at_odds for _, case_id in group})
    return {"prompts": len(at_odds), "rows": sum(map(len, at_odds)), "cases": cases[:20]}


def balanced(rows: Sequence[Row]) -> list[Row]:
    """Returns rows in which no class of a step has more cases than the class of median size.

    Cases of a larger class are kept by the hash of their id, the smallest first; a class below the median stays as it
    is, since nothing is repeated.
    """
    cases: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        cases[row["step"]][row["answer"]].add(row["case_id"])
    kept: set[tuple[str, str]] = set()
    for step, of_class in cases.items():
        most = median_low(map(len, of_class.values()))
        for ids in of_class.values():
            kept |= {(step, case_id) for case_id in sorted(ids, key=_by_hash)[:most]}
    return [row for row in rows if (row["step"], row["case_id"]) in kept]


def counted(
    rows: Sequence[Row], change: Callable[[Sequence[Row]], list[Row]], name: str, into: Counter[str]
) -> list[Row]:
    """Returns what a change leaves of rows, and counts under a name what it took away."""
    left = change(rows)
    if len(left) < len(rows):
        into[name] += len(rows) - len(left)
    return left


def line_of(row: Row) -> str:
    """Returns a row as a line of a file: keys in their order, no spaces, every number as it is."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def is_unicode(row: Row) -> bool:
    """Says whether a row can be written as UTF-8; half of a surrogate pair, which a broken source may hold, cannot."""
    try:
        line_of(row).encode()
    except UnicodeEncodeError:
        return False
    return True


def _by_hash(case_id: str) -> str:
    return hashlib.sha256(f"balance:{case_id}".encode()).hexdigest()
