"""How many tokens a case-step had to compute at the least: the lower bound of `tokens_computed_over_distinct`.

The distinct tokens of one model in one case-step are the nodes of a trie (root not counted), grown row by row:

1. A prompt walks down from the root along tokens that are there already, and adds the rest. It may walk along earlier
   prompts, scored choices and draws: a later prompt that goes on from a draw shares that draw's nodes.
2. A draw (a sampled completion) adds a branch of its own under the end of its prompt, one node per token, even where
   another draw or an earlier prompt reads the same there.
3. Scored choices walk and add like prompts, from the end of their prompt: those of one call form a trie, and the same
   choices after the same prompt are the same nodes.

Where equal branches stand side by side, a walk takes the one that leads furthest. So a walk of tokens `s` adds
`len(s) - m` nodes, where `m` is the longest prefix that `s` shares with any path so far.

Source: search.md, "Speed: where it goes".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from search.desk import PrefixCount


def distinct_tokens(rows: Iterable[Mapping[str, Any]]) -> int:
    """Returns the number of distinct tokens over rows of `wardstar prompts --tokens`.

    Args:
        rows: in stored order, with `prompt_ids` and `completion_ids` (one list per completion). A row is a draw if
            its `seed` is a number, and scored choices if that is None; a row without `seed` is a draw if it has one
            completion. Rows of several models, cases, steps or occurrences are counted apart and summed.
    """
    tries: dict[tuple[object, ...], PrefixCount] = {}
    total = 0
    for row in rows:
        owner = tuple(row.get(name) for name in ("model", "case_id", "step", "occurrence"))
        trie = tries.setdefault(owner, PrefixCount())
        prompt = tuple(row["prompt_ids"])
        completions = [tuple(ids) for ids in row["completion_ids"]]
        drawn = row["seed"] is not None if "seed" in row else len(completions) == 1
        total += trie.add(prompt)
        for ids in completions:
            new = trie.add(prompt + ids)
            total += len(ids) if drawn else new
    return total
