"""Rows of one trajectory in one pass: every distinct token is computed once, as in the search.

A trajectory of six turns makes six rows, each of which begins with the whole of the one before. A causal model gives a
token the same likelihood whatever follows it, so one sequence with six taught spans says what six sequences say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""Where taught tokens begin, and where they end."""


@dataclass(frozen=True, slots=True)
class Taught:
    """A sequence of tokens, of which some spans are to be learned.

    Attributes:
        ids: its tokens.
        spans: sorted, without overlap.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...]


def nested(rows: Sequence[Mapping[str, tuple[int, ...]]]) -> list[Taught]:
    """Returns the rows as sequences; a row that another one begins with is a span of that one.

    A row that is there twice is taught twice, in two sequences.

    Args:
        rows: tokens of `prompt` and `completion`.

    Returns:
        Sequences in the order of the longest row in each.
    """
    whole = [(*row["prompt"], *row["completion"]) for row in rows]
    spans: dict[int, list[Span]] = {}
    hosts: list[int] = []  # rows of their own that may begin with the next one, the nearest last
    # In order of their tokens a beginning stands right before all that goes on from it; so backwards, longest first.
    for at in sorted(range(len(rows)), key=lambda i: (whole[i], i), reverse=True):
        span = (len(rows[at]["prompt"]), len(whole[at]))
        hosts = [host for host in hosts if whole[host][: span[1]] == whole[at]]
        free = (h for h in reversed(hosts) if all(span[1] <= begin or end <= span[0] for begin, end in spans[h]))
        host = next(free, None)
        if host is None:
            spans[at] = [span]
            hosts.append(at)
        else:
            spans[host].append(span)
    return [Taught(whole[at], tuple(sorted(spans[at]))) for at in sorted(spans)]
