"""The fixed words of pages: one folder of tables per language, and the language in which a page is being written.

A table is a YAML file of `languages/CODE/`. Its name is the first part of a key, the names inside it are the rest: the
entry `answer` of `case.yaml` is `case.answer`, and `recorded` under `state` of `words.yaml` is `words.state.recorded`.
A page of its own words adds a file of its own to every language (`index.yaml`); nothing else has to be told.

    with use("zh"):                       # English outside of any `use`
        say("case.answer")                # the words
        say("case.share", share="62 %")   # with {share} filled in
        look_up("words.state", "pending") # an entry by a name from a record; the name itself where there is none
        count(3, "line")                  # `words.count.line: one|many` -> 3 lines

Templates know `say`, `look_up` and `count` too, and `language()` for the attribute `lang`.
Every language holds the same keys with the same placeholders, and a test sees to it. What a record says (findings,
answers, questions of a pathway) stays in the language in which it was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from clinical_data.errors import UsageError, did_you_mean

ENGLISH = "en"
LANGUAGES = (ENGLISH, "zh")

_current: ContextVar[str] = ContextVar("language of pages", default=ENGLISH)


@contextmanager
def use(code: str) -> Iterator[None]:
    """Writes in a language within a `with` block.

    Raises:
        UsageError: no such language.
    """
    if code not in LANGUAGES:
        raise UsageError(
            f"no words in language {code}{did_you_mean(code, LANGUAGES)}", hint=f"known: {', '.join(LANGUAGES)}"
        )
    before = _current.set(code)
    try:
        yield
    finally:
        _current.reset(before)


def language() -> str:
    """Returns the code of the language in use, as HTML's `lang` takes it."""
    return _current.get()


def say(key: str, **values: object) -> str:
    """Returns fixed words in the language in use, `{name}` in them filled in.

    Raises:
        KeyError: no such key, or a placeholder without its value.
    """
    text = table(language())[key]
    return text.format(**values) if values else text


def look_up(section: str, name: str, default: str | None = None) -> str:
    """Returns the words for a name that a record or a file gave; without an entry `default`, or the name itself."""
    return table(language()).get(f"{section}.{name}", name if default is None else default)


def count(number: int, noun: str) -> str:
    """Returns a number with its noun: `1 turn`, `3 turns`; the noun's two forms stand under `words.count`."""
    one, _, many = say(f"words.count.{noun}").partition("|")
    return f"{number:,}{say('words.number_gap')}{one if number == 1 else many or one}"


@cache
def table(code: str) -> Mapping[str, str]:
    """Returns every key of a language with its words."""
    found: dict[str, str] = {}
    for file in sorted((files("evaluation.review") / "languages" / code).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            # The base loader makes no `yes`, `no` or number out of a word.
            data = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
            found.update(_flat(file.name.removesuffix(".yaml"), data))
    return found


def _flat(prefix: str, data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, Mapping):
        for name, inner in data.items():
            yield from _flat(f"{prefix}.{name}", inner)
    else:
        yield prefix, str(data)
