"""What one search may use up: token positions, money, time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from search.settings import SearchSettings
from search.trajectory import Tokens, Turn


@dataclass(frozen=True, slots=True)
class Budget:
    """The budgets of one search, which begin with it; 0 in the settings means none.

    Attributes:
        settings: holds `max_tokens`, `max_cost_usd` and `max_seconds`.
        started: when the search began, by the monotonic clock.
    """

    settings: SearchSettings
    started: float = field(default_factory=lambda: time.monotonic())

    @property
    def limited(self) -> bool:
        """Says whether there is any budget."""
        return bool(self.settings.max_tokens or self.settings.max_cost_usd or self.settings.max_seconds)

    def spent(self, tokens: Tokens, turns: Iterable[Turn]) -> str:
        """Returns which budget is spent, in words; empty while none is.

        Tokens are the logical counts of the case-step, so that a budget of tokens or money ends a search at the same
        rollout under cache, resume and workers. A budget of seconds does not repeat.

        Args:
            tokens: what was used so far.
            turns: turns of all branches.
        """
        if self.settings.max_tokens and tokens.prefilled + tokens.sampled >= self.settings.max_tokens:
            return f"the budget of {self.settings.max_tokens} tokens is spent"
        if self.settings.max_cost_usd and cost_usd(turns) >= self.settings.max_cost_usd:
            return f"the budget of {self.settings.max_cost_usd:g} USD for requests is spent"
        if self.settings.max_seconds and time.monotonic() - self.started >= self.settings.max_seconds:
            return f"the budget of {self.settings.max_seconds:g} seconds is spent"
        return ""


def cost_usd(turns: Iterable[Turn]) -> float:
    """Returns the price of the items that turns opened in the chart, each item once."""
    return sum({t.action.item_id: t.answer.cost_usd for t in turns if t.answer is not None}.values())
