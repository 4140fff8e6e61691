"""From the text of a prompt back to the pieces it was made of, each of which is tokenised on its own.

A stored row holds text. A tokenizer may make other tokens of the whole than of its pieces (one that puts a space before
each text does), so whoever trains on the text cuts it first.
"""

from __future__ import annotations

import re

from search import prompts
from search.models.language_model import Prompt, Segment

HEADER_END = "\n\n"  # opens the piece after the header
_ALONE = (*prompts.CUES.values(), prompts.REPLY_CUE, prompts.REASK_CUE, prompts.PEER_CUE, prompts.EVALUATION_CUE)
_CUES = "|".join(re.escape(cue) for cue in sorted(_ALONE, key=len, reverse=True))
_CUT = re.compile(f"({_CUES})|(?={re.escape(prompts.RESULT_CUE)})")


def turn_pieces(text: str) -> Prompt:
    """Returns the segments of one turn, cue included, as `prompt_pieces` would within a prompt.

    The cue of an answer is known by its place alone: it ends with the first colon.
    """
    parts = [part for part in _CUT.split(text) if part]
    if len(parts) == 1 and parts[0] not in _ALONE:
        cue, colon, words = text.partition(":")
        parts = [part for part in (cue + colon, words) if part]
    return tuple(Segment(part) for part in parts)


def prompt_pieces(text: str) -> Prompt:
    """Returns the segments of a prompt of this version of `search.prompts`.

    The text that follows a cue is a piece of its own; a result of the chart is one with its cue. The cue of the answer,
    which each step names for itself, is the last line of a prompt that ends with a colon.
    """
    head, end, rest = text.partition(HEADER_END)
    parts = [head] if end and head else []
    parts += [part for part in _CUT.split(end + rest if end else text) if part]
    last = parts[-1] if parts else ""
    if last.endswith(":") and last not in _ALONE and (at := last.rfind("\n")) > 0:
        parts[-1:] = [last[:at], last[at:]]
    return tuple(Segment(part) for part in parts)
