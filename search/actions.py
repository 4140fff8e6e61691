"""The six actions of the search and what may follow what (search.md, "Legality")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class ActionKind(StrEnum):
    """What a turn does. A1 to A5 are rStar's; REQUEST opens the chart.

    Source: rStar, arXiv 2408.06195, section 3.1.
    """

    THINK = "think"  # A1: one step of reasoning
    FINISH = "finish"  # A2: answer at once
    ASK = "ask"  # A3: a sub-question and its answer
    REASK = "reask"  # A4: answer the last sub-question again
    REPHRASE = "rephrase"  # A5: restate the presentation
    REQUEST = "request"  # obtain one catalogue item from the chart


@dataclass(frozen=True, slots=True)
class Action:
    """One action. `item_id` names the catalogue item of a REQUEST and is empty otherwise."""

    kind: ActionKind
    item_id: str = ""


_ALL = (ActionKind.THINK, ActionKind.FINISH, ActionKind.ASK, ActionKind.REASK, ActionKind.REPHRASE, ActionKind.REQUEST)


def _but(*left_out: ActionKind) -> tuple[ActionKind, ...]:
    return tuple(kind for kind in _ALL if kind not in left_out)


_AFTER: dict[ActionKind | None, tuple[ActionKind, ...]] = {
    None: _but(ActionKind.REASK),
    ActionKind.REPHRASE: _but(ActionKind.REASK, ActionKind.REPHRASE),
    ActionKind.ASK: _but(ActionKind.REPHRASE),
    ActionKind.REASK: _but(ActionKind.REASK, ActionKind.REPHRASE),
    ActionKind.THINK: (ActionKind.THINK, ActionKind.FINISH, ActionKind.REQUEST),
    ActionKind.FINISH: (),
}
# What its parent allowed -> what a REQUEST allows; a second one in a row drops nothing more.
_AFTER_REQUEST = {
    allowed: tuple(k for k in allowed if k not in (ActionKind.REASK, ActionKind.REPHRASE))
    for allowed in _AFTER.values()
}
_AFTER_REQUEST.update({allowed: allowed for allowed in _AFTER_REQUEST.values()})


def legal_kinds(path: Sequence[ActionKind]) -> tuple[ActionKind, ...]:
    """Returns the kinds that may follow a path of kinds from the root, in fixed order.

    After REQUEST stands whatever its parent allowed, minus REASK and REPHRASE.
    """
    allowed = _AFTER[None]
    for kind in path:
        allowed = _AFTER_REQUEST[allowed] if kind is ActionKind.REQUEST else _AFTER[kind]
    return allowed


def depth_of(path: Sequence[ActionKind]) -> int:
    """Returns the depth of a path: turns, requests not counted."""
    return len(path) - path.count(ActionKind.REQUEST)
