"""Which tokens a constrained sample may say next: its way through a trie of the choices.

A sample that may name several choices can be read in more than one way where a choice contains the separator. All
readings are kept until one is left, so that whatever may be drawn ends as a list of distinct choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from search.models.kv_cache import Ids


@dataclass(eq=False, slots=True)
class Fork:
    """A node of the trie of choices.

    Attributes:
        branches: what may follow, by token.
        choice: index of the choice that ends here, if one does.
        below: indices of the choices that end here or further on.
    """

    branches: dict[int, Fork] = field(default_factory=dict)
    choice: int | None = None
    below: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Menu:
    """A constraint in tokens, shared by all samples under it.

    Attributes:
        root: the trie of its choices.
        separator: tokens between two choices.
        most: most choices of one sample.
        longest: tokens of the longest list that a sample may name.
    """

    root: Fork
    separator: Ids
    most: int
    longest: int


def make_menu(choices: Sequence[Ids], separator: Ids, most: int) -> Menu:
    """Returns the menu of some choices. Of choices with equal tokens the first one counts."""
    root = Fork()
    for index, ids in enumerate(choices):
        path = [root]
        for token in ids:
            path.append(path[-1].branches.setdefault(token, Fork()))
        if path[-1].choice is None:
            path[-1].choice = index
            for fork in path:
                fork.below.add(index)
    lengths = sorted((len(choices[i]) for i in root.below), reverse=True)[: max(most, 0)]
    return Menu(root, separator, most, sum(lengths) + len(separator) * max(len(lengths) - 1, 0))


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read a sample so far.

    Attributes:
        named: choices named in full before the present one.
        fork: where it stands in the present choice; None within a separator.
        said: tokens of the separator said, if within one.
    """

    named: tuple[int, ...]
    fork: Fork | None
    said: int = 0


class ChoiceWalk:
    """The way of one sample through its menu.

    Attributes:
        tokens: tokens that continue a choice or a separator, ascending.
        complete: whether the sample may end here.
        chosen: indices of the choices named in full so far, in order.
    """

    def __init__(self, menu: Menu) -> None:
        self._menu = menu
        self._look([_Reading((), menu.root)] if menu.most > 0 and menu.root.below else [])

    @property
    def over(self) -> bool:
        """Whether nothing but the end may follow."""
        return not self.tokens

    def take(self, token: int) -> None:
        """Goes on by one of `tokens`."""
        self._look(self._after[token])

    def _look(self, readings: list[_Reading]) -> None:
        """Finds what may follow; readings of longer choices stand first."""
        self._after: dict[int, list[_Reading]] = {}
        for reading in readings:
            for token, after in self._steps(reading):
                self._after.setdefault(token, []).append(after)
        ends = [named for reading in readings if (named := self._ended(reading)) is not None]
        self.tokens = sorted(self._after)
        self.complete = bool(ends)
        self.chosen = ends[0] if ends else readings[0].named if readings else ()

    def _ended(self, reading: _Reading) -> tuple[int, ...] | None:
        """Returns the choices named if the present one ends here, else None."""
        choice = reading.fork.choice if reading.fork else None
        return None if choice is None or choice in reading.named else (*reading.named, choice)

    def _steps(self, reading: _Reading) -> Iterator[tuple[int, _Reading]]:
        """Yields the tokens that may follow and the readings they lead to."""
        menu, fork = self._menu, reading.fork
        if fork is None:
            yield self._separating(reading.named, reading.said)
            return
        for token, branch in fork.branches.items():
            if not branch.below.issubset(reading.named):
                yield token, _Reading(reading.named, branch)
        named = self._ended(reading)
        if named is not None and len(named) < min(menu.most, len(menu.root.below)):
            if menu.separator:
                yield self._separating(named, 0)
            else:
                yield from self._steps(_Reading(named, menu.root))

    def _separating(self, named: tuple[int, ...], said: int) -> tuple[int, _Reading]:
        """Returns the next token of the separator and the reading after it."""
        separator = self._menu.separator
        last = said + 1 == len(separator)
        return separator[said], _Reading(named, self._menu.root if last else None, said + 1)
