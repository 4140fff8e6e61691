"""The calls of a case-step as they are kept: JSON lines, compressed by zlib.

Prompts of one search share their beginnings, so 32 kB of window already shrink them about twentyfold.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields

from search.trajectory import ModelCall

_FIELDS = tuple(f.name for f in fields(ModelCall))


def pack(calls: Sequence[ModelCall]) -> bytes:
    """Returns the calls as compressed JSON lines, one call each."""
    lines = (json.dumps({f: getattr(call, f) for f in _FIELDS}) for call in calls)
    return zlib.compress("\n".join(lines).encode("ascii"))


def unpack(blob: bytes | None) -> Iterator[ModelCall]:
    """Yields the calls again, in order and equal to those packed; none for None."""
    if not blob:
        return
    for line in zlib.decompress(blob).decode().splitlines():
        if line:
            row = json.loads(line)
            for name in ("prompt_ids", "completions", "logprobs"):
                row[name] = tuple(row[name])
            row["completion_ids"] = tuple(tuple(ids) for ids in row["completion_ids"])
            yield ModelCall(**row)
