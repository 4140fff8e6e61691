"""A tidy layout for a tree that grows from left to right: subtrees lie as close together as they can.

Source: Reingold and Tilford 1981, Tidier Drawings of Trees, IEEE Transactions on Software Engineering 7:223-228.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

Contour = list[tuple[float, float]]
"""Top and bottom of a subtree at each level below its root's, relative to the root."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a node lies: levels below the root, and the middle of its row from the upper edge."""

    level: int
    y: float


def tidy(parents: Mapping[int, int | None], heights: Mapping[int, float], wide: Set[int]) -> dict[int, Spot]:
    """Returns a place for each node: no two rows of a level overlap, a parent lies halfway between its outer children.

    Args:
        parents: node id -> id of the parent (None at a root), each parent before its children.
        heights: node id -> height of its row.
        wide: childless nodes whose label reaches into the next level, which is kept free beside them.
    """
    children: dict[int | None, list[int]] = {}
    for node, parent in parents.items():
        children.setdefault(parent, []).append(node)
    contours: dict[int, Contour] = {}
    offsets: dict[int, float] = {}
    for node in reversed(list(parents)):
        below = children.get(node, [])
        shifts, merged = _stack([contours.pop(child) for child in below])
        middle = (shifts[0] + shifts[-1]) / 2 if shifts else 0.0
        offsets.update((child, shift - middle) for child, shift in zip(below, shifts, strict=True))
        row = (-heights[node] / 2, heights[node] / 2)
        contours[node] = [row, row] if node in wide else [row, *((t - middle, b - middle) for t, b in merged)]
    roots = children.get(None, [])
    shifts, merged = _stack([contours[root] for root in roots])
    top = min((t for t, _ in merged), default=0.0)
    offsets.update((root, shift - top) for root, shift in zip(roots, shifts, strict=True))
    spots: dict[int, Spot] = {}
    for node, parent in parents.items():
        above = Spot(-1, 0.0) if parent is None else spots[parent]
        spots[node] = Spot(above.level + 1, above.y + offsets[node])
    return spots


def _stack(contours: Sequence[Contour]) -> tuple[list[float], Contour]:
    """Returns how far each subtree moves down to lie under those before it, and the contour of all together."""
    shifts: list[float] = []
    merged: Contour = []
    for contour in contours:
        shift = max((m[1] - c[0] for m, c in zip(merged, contour, strict=False)), default=0.0)
        shifts.append(shift)
        moved = [(t + shift, b + shift) for t, b in contour]
        shared = [(min(m[0], c[0]), max(m[1], c[1])) for m, c in zip(merged, moved, strict=False)]
        merged = shared + merged[len(shared) :] + moved[len(shared) :]
    return shifts, merged
