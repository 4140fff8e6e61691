"""Texts as a database can hold them: PostgreSQL refuses the NUL character, which a record may contain.

NUL is written as two noncharacters of Unicode, which exist for such private use; a text that already holds the first of
them has it doubled, so that every text comes back exactly.
"""

from __future__ import annotations

NUL = "\x00"
_ESCAPE, _ZERO = "\ufdd0", "\ufdd1"


def to_stored(text: str) -> str:
    """Returns a text without NUL from which `from_stored` makes the same text again."""
    if NUL in text or _ESCAPE in text:
        return text.replace(_ESCAPE, _ESCAPE * 2).replace(NUL, _ESCAPE + _ZERO)
    return text


def from_stored(text: str) -> str:
    """Returns the text that `to_stored` was given."""
    if _ESCAPE not in text:
        return text
    return _ESCAPE.join(part.replace(_ESCAPE + _ZERO, NUL) for part in text.split(_ESCAPE * 2))


def file_name(name: str) -> str:
    """Returns the name of a file as text, with the bytes that are no Unicode written as escapes."""
    return to_stored(name.encode("utf-8", "backslashreplace").decode())
