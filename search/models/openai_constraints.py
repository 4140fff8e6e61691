"""A `Constraint` as each server wants it, and which choices a text names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from clinical_data.vocabulary import normalise
from search.models.language_model import Constraint

_SPECIAL = re.compile(r"([\\.^$*+?{}\[\]()|])")


def to_regex(constraint: Constraint, end: str = "") -> str:
    """Returns a regular expression for what a sample may say; `end` may follow it."""
    choice = "|".join(_escape(c) for c in constraint.choices)
    more = f"(?:{_escape(constraint.separator)}(?:{choice})){{0,{constraint.most - 1}}}" if constraint.most > 1 else ""
    return f"(?:{choice}){more}" + (f"(?:{_escape(end)})?" if end else "")


def _escape(text: str) -> str:
    # re.escape also escapes spaces, which not every engine reads
    return _SPECIAL.sub(r"\\\1", text).replace("\n", r"\n")


def to_grammar(constraint: Constraint, end: str = "") -> str:
    """Returns the same as a GBNF grammar, the form of llama.cpp."""
    more = ""
    for _ in range(constraint.most - 1):
        more = f" ({_literal(constraint.separator)} choice{more})?"
    last = f" {_literal(end)}?" if end else ""
    return f"root ::= choice{more}{last}\nchoice ::= {' | '.join(map(_literal, constraint.choices))}\n"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# Name of the parameter -> what is sent. vLLM from 0.11; vLLM before; SGLang; llama.cpp.
DIALECTS: dict[str, Callable[[Constraint, str], dict[str, object]]] = {
    "structured_outputs": lambda c, end: {"structured_outputs": {"regex": to_regex(c, end)}},
    "guided_regex": lambda c, end: {"guided_regex": to_regex(c, end)},
    "regex": lambda c, end: {"regex": to_regex(c, end)},
    "grammar": lambda c, end: {"grammar": to_grammar(c, end)},
}


def named_choices(text: str, constraint: Constraint) -> tuple[int, ...]:
    """Returns the indices of the choices that a text names in full, in order, each once, at most `most`.

    A choice is named by its own words, or by its words in other case and punctuation; of a free text only what comes
    before the first comma, full stop, semicolon or bracket counts then.
    """
    parts = text.split(constraint.separator) if constraint.most > 1 else [text]
    found = [_named(part, constraint.choices) for part in parts]
    return tuple(dict.fromkeys(i for i in found if i is not None))[: constraint.most]


def _named(text: str, choices: tuple[str, ...]) -> int | None:
    by_text = {c.strip(): i for i, c in reversed(list(enumerate(choices)))}
    by_name = {normalise(c): i for i, c in reversed(list(enumerate(choices)))}
    text = text.strip()
    if text in by_text:
        return by_text[text]
    first = re.split(r"[.,;(\n]", text, maxsplit=1)[0]
    return next((by_name[name] for name in map(normalise, (text, first)) if name in by_name), None)
