"""Which choices lead, found without scoring them all: best first, with bounds.

ln p of a choice is a sum of terms that are at most 0, so its first tokens bound it from above. First tokens of all
choices cost nothing once the prompt is known; then only choices whose bound exceeds what the leaders have are scored.
The leaders are those that scoring everything would find: with Gumbel noise, a draw without replacement.

Source: branch and bound; drawing as Kool et al. 2019 (arXiv 1903.06059), with noise given per choice.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence

from search.models.kv_cache import Ids
from search.models.language_model import Leaders

AT_ONCE = 4  # choices of the first round: a pass of a dozen rows takes hardly longer than one of a single row
GROWTH = 4  # each round may take so many times the choices of the one before: where bounds tell little, few rounds


class Race:
    """The choices of one request that wants leaders.

    Args:
        prompt_ids: the prompt, which all choices follow.
        choices: ids of each.
        leaders: how they are ranked.

    Attributes:
        logprobs: ln p of each choice scored so far, by index.
    """

    def __init__(self, prompt_ids: Ids, choices: Sequence[Ids], leaders: Leaders) -> None:
        self.prompt_ids, self.choices, self.leaders = prompt_ids, choices, leaders
        self.restart()

    def restart(self) -> None:
        """Forgets what was found."""
        self.logprobs: dict[int, float] = {}
        self._bounds: list[tuple[float, int]] | None = None  # (minus bound, index) of those not scored, best last
        self._asked: list[int] = []  # what the round under way scores
        self._size = max(AT_ONCE, self.leaders.count)  # of the next round

    @property
    def new_tokens(self) -> int:
        """Most tokens it may add."""
        return sum(map(len, self.choices))

    def round(self) -> set[Ids]:
        """Returns what to score next: first tokens, then the choices that may lead; nothing at the end."""
        if self._bounds is None:
            return {ids[:1] for ids in self.choices}
        merits = [self._merit(i, logprob) for i, logprob in self.logprobs.items()]
        leading = heapq.nlargest(self.leaders.count, merits)
        floor = leading[-1] if len(leading) == self.leaders.count else -math.inf
        best = self._bounds[-self._size :]
        self._asked = [i for bound, i in best if -bound >= floor]
        return {self.choices[i] for i in self._asked}

    def take(self, scores: Mapping[Ids, float]) -> None:
        """Takes ln p of what the round wanted."""
        if self._bounds is None:
            bounds = (self._merit(i, scores[ids[:1]]) for i, ids in enumerate(self.choices))
            self._bounds = sorted(((-bound, i) for i, bound in enumerate(bounds)), reverse=True)
            return
        for index in self._asked:
            self.logprobs[index] = scores[self.choices[index]]
        del self._bounds[len(self._bounds) - len(self._asked) :]
        self._size *= GROWTH

    def scores(self) -> tuple[float, ...]:
        """Returns ln p of each choice, -inf for those left out."""
        return tuple(self.logprobs.get(i, -math.inf) for i in range(len(self.choices)))

    def _merit(self, at: int, logprob: float) -> float:
        return self.leaders.merit(at, logprob, len(self.choices[at]))
