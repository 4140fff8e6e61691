"""Text to tokens and back, for the search and for the training that must see the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Returns the tokens of a piece of text: nothing is put before or after it, and a record that spells a control
    token stays text."""
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)


def ids_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """Returns the text of some tokens, verbatim."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def bos_ids(tokenizer: Any) -> tuple[int, ...]:
    """Returns the token that the tokenizer puts before a text of its own accord, if it does."""
    with_special, bare = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    bos = tokenizer.bos_token_id
    return (bos,) if with_special[:1] == [bos] and bare[:1] != [bos] else ()
