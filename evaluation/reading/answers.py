"""From the fields of a form to what is committed, with a word on every field that cannot be taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clinical_data.catalogue import Catalogue
from clinical_data.vocabulary import Vocabulary
from evaluation.reading.form import HARM_LIKELIHOOD, HARM_SEVERITY, RATING_ANCHORS, Reason, Say, Verdict
from evaluation.reading.state import Part

Fields = Mapping[str, list[str]]
"""Name of a field -> what was entered there."""

MOST_TEXT = 10_000
"""Characters of one field; more is cut off."""

MOST_VALUES = 200
OWN_FIELDS = ("answer", "words", "confidence")
REST_FIELDS = (
    "verdict", "reason", "remark", "corrected", "equivalent", "knowable", "would_ask", "offending", "unsafe",
    "harm_severity", "harm_likelihood", "record_wrong", "may_train",
)  # fmt: skip
_RATING = re.compile(r"rating-(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a form asks for, by which its fields are judged.

    Attributes:
        vocabulary: the permitted answers; None where any words are one.
        most: most answers of a set; 1 where one is asked for.
        catalogue: items that a reader would have asked for.
        turns: number of turns to rate.
        findings: ids of the findings that were shown as the model's evidence.
    """

    vocabulary: Vocabulary | None
    most: int
    catalogue: Catalogue
    turns: int = 0
    findings: frozenset[str] = frozenset()


def known_fields(part: Part, fields: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Returns the fields that belong to a part of the form, without empty ones, as a draft keeps them."""
    found: dict[str, list[str]] = {}
    for name, value in fields:
        own = name in OWN_FIELDS if part is not Part.FINISHED else name in REST_FIELDS or _RATING.fullmatch(name)
        values = found.get(name, ())
        if own and value.strip() and len(values) < MOST_VALUES:
            found.setdefault(name, []).append(_plain(value))
    return dict(sorted(found.items()))


def own_answer(fields: Fields, asked: Asked) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns an own answer `{codes, words, confidence}`, and field -> what is wrong with it."""
    wrong: dict[str, str] = {}
    codes = _codes(fields.get("answer", []), _coder(asked.vocabulary), "answer", wrong)
    words = _first(fields, "words")
    if not codes and not words and "answer" not in wrong:
        wrong["answer"] = "Give an answer from the list, or one in your own words."
    if len(codes) > asked.most:
        wrong["answer"] = f"At most {asked.most}." if asked.most > 1 else "One answer only."
    confidence = _first(fields, "confidence")
    if not re.fullmatch(r"\d{1,3}", confidence) or int(confidence) > 100:
        wrong["confidence"] = "A whole number from 0 to 100."
    return {"codes": codes, "words": words, "confidence": 0 if "confidence" in wrong else int(confidence)}, wrong


def rest_of_form(fields: Fields, asked: Asked) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the rest of the form as `evaluation.reading.form.Review` names it, and field -> what is wrong with it."""
    wrong: dict[str, str] = {}
    verdict, reason, remark = (_first(fields, name) for name in ("verdict", "reason", "remark"))
    overridden = verdict == Verdict.OVERRIDDEN
    corrected = _codes(fields.get("corrected", []), _coder(asked.vocabulary), "corrected", wrong) if overridden else []
    if verdict not in set(Verdict):
        wrong["verdict"] = "Accept the answer or override it."
    if overridden and reason not in set(Reason):
        wrong["reason"] = "Say why you override it."
    if overridden and not corrected and not remark and "corrected" not in wrong:
        wrong["corrected"] = "Give the answer that should stand there, or say it in the remark."
    if len(corrected) > asked.most:
        wrong["corrected"] = f"At most {asked.most}." if asked.most > 1 else "One answer only."
    payload = {
        "verdict": verdict,
        "reason": reason if overridden else "",
        "remark": remark,
        "corrected": corrected,
        "ratings": _ratings(fields, asked.turns),
        "would_ask": _codes(fields.get("would_ask", []), _item_of(asked.catalogue), "would_ask", wrong),
        "offending": [f for f in fields.get("offending", []) if f in asked.findings],
        "unsafe": _first(fields, "unsafe"),
        "harm_severity": _one_of(fields, "harm_severity", HARM_SEVERITY),
        "harm_likelihood": _one_of(fields, "harm_likelihood", HARM_LIKELIHOOD),
        **{
            name: _one_of(fields, name, tuple(Say)) or Say.UNSURE for name in ("equivalent", "knowable", "record_wrong")
        },
        "may_train": _first(fields, "may_train") == "yes",
    }
    return payload, wrong


def _ratings(fields: Fields, turns: int) -> dict[str, int]:
    found = {}
    for turn in range(turns):
        given = _first(fields, f"rating-{turn}")
        if given in {str(rating) for rating in RATING_ANCHORS}:
            found[str(turn)] = int(given)
    return found


def _codes(given: list[str], code_of: Callable[[str], str | None], field: str, wrong: dict[str, str]) -> list[str]:
    found: list[str] = []
    for text in filter(None, map(_plain, given)):
        code = code_of(text)
        if code is None:
            wrong[field] = f"Not on the list: {text[:80]}"
        elif code not in found:
            found.append(code)
    return found


def _coder(vocabulary: Vocabulary | None) -> Callable[[str], str | None]:
    return (lambda _: None) if vocabulary is None else vocabulary.key_of


def _item_of(catalogue: Catalogue) -> Callable[[str], str | None]:
    def find(text: str) -> str | None:
        item = catalogue.item(text) or catalogue.recognise(text)
        return None if item is None else item.item_id

    return find


def _first(fields: Fields, name: str) -> str:
    return _plain((fields.get(name) or [""])[0])


def _one_of(fields: Fields, name: str, allowed: tuple[str, ...]) -> str:
    given = _first(fields, name)
    return given if given in allowed else ""


def _plain(text: str) -> str:
    """Returns a text that any database can hold: cut, without null characters and lone surrogates.

    Browsers count the end of a line as one character and send two.
    """
    return text.replace("\r\n", "\n")[:MOST_TEXT].replace("\x00", "").encode("utf-8", "replace").decode().strip()
