"""How long work tells how far it is."""

from collections.abc import Callable

Watch = Callable[[str, int, int], None]
"""Told what is going on, how much is done, and of how much (0: not known)."""


def unwatched(what: str, done: int, total: int) -> None:
    """Hears nothing."""
