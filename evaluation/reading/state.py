"""How far one reading is: the fold of its entries in the log.

    view-first -> draft* -> first -> view-after -> draft* -> after -> view-record -> draft* -> finished -> view-done

Nothing goes back: what was committed is never asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from evaluation.reading.audit import Entry

LONGEST_PAUSE = 10.0
"""Minutes between two entries that count as reading at most: who leaves the desk reads no longer."""

DRAFT = "draft"


class Part(StrEnum):
    """A part of the form, in its order. Its name is the kind of the entry that commits it."""

    FIRST = "first"
    AFTER = "after"
    FINISHED = "finished"


PARTS = tuple(Part)


@dataclass(slots=True)
class Reading:
    """What one reader did with one case-step.

    Attributes:
        committed: part -> what was committed.
        drafts: part -> what was typed last, by field.
        minutes: part -> minutes of reading from the first view to its commit.
        finished: time of the last commit; empty before.
    """

    committed: dict[Part, dict[str, Any]] = field(default_factory=dict)
    drafts: dict[Part, dict[str, list[str]]] = field(default_factory=dict)
    minutes: dict[Part, float] = field(default_factory=dict)
    finished: str = ""

    @property
    def open_part(self) -> Part | None:
        """The part that is to be filled in next; None when all are."""
        return next((p for p in PARTS if p not in self.committed), None)


def fold(entries: Iterable[Entry]) -> Reading:
    """Returns the state that entries of one reader on one case-step, in their order, lead to."""
    found, spent, last = Reading(), 0.0, None
    for entry in entries:
        now = datetime.fromisoformat(entry.time)
        if last is not None:
            spent += min(max((now - last).total_seconds() / 60, 0.0), LONGEST_PAUSE)
        last = now
        if entry.kind == DRAFT:
            found.drafts[Part(entry.payload["part"])] = entry.payload["fields"]
        elif entry.kind in PARTS:
            part = Part(entry.kind)
            found.committed[part] = entry.payload
            found.minutes[part] = round(spent, 2)
            found.finished = entry.time if part is Part.FINISHED else found.finished
    return found
