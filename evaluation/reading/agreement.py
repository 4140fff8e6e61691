"""How far clinicians agree who read the same case-steps of a run independently of each other.

The overlap are the case-steps with two and more readings that are no adjudication. Each question of the form is
compared by the coefficients of `coefficients`, step by step, and answers by code at every level at which
`evaluation.matching` compares them. docs/agreement.md defines every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from evaluation import matching
from evaluation.reading.bias import bias_figures, reader_rows
from evaluation.reading.coefficients import (
    LINEAR,
    QUADRATIC,
    Unit,
    alpha,
    cohen,
    fleiss,
    pairs_of,
    raw_agreement,
)
from evaluation.reading.form import HARM_LIKELIHOOD, HARM_SEVERITY, RATING_ANCHORS, Key, Review, Verdict
from evaluation.reading.read_steps import ReadStep, independent, is_of, read_steps
from evaluation.store.run_store import RunStore
from evaluation.watching import Watch, unwatched

NONE_FITS = "none of them"
ALL_STEPS = "all steps"
_AND = " + "  # between the classes of a set, and between two readers


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the form.

    Attributes:
        name: as reports show it.
        said: what a review answers; None where it was left open.
        scale: the answers in order; empty where they have none.
    """

    name: str
    said: Callable[[Review], str | None]
    scale: tuple[str, ...] = ()


QUESTIONS = (
    Question("verdict", lambda r: r.verdict.value),
    Question("equivalent", lambda r: r.equivalent.value),
    Question("knowable", lambda r: r.knowable.value),
    Question("record_wrong", lambda r: r.record_wrong.value),
    Question("harm_severity", lambda r: r.harm_severity or None, HARM_SEVERITY),
    Question("harm_likelihood", lambda r: r.harm_likelihood or None, HARM_LIKELIHOOD),
)
"""Questions that are the same at every step."""

RATINGS = tuple(str(rating) for rating in sorted(RATING_ANCHORS))


def settled(review: Review, step: ReadStep) -> tuple[str, ...]:
    """Returns the answer that should stand there by a reader: the model's where it was accepted, else the corrected."""
    return step.model if review.verdict is Verdict.ACCEPTED else review.corrected


def agreement_of(
    engine: Engine, run_name: str, reviews: Sequence[Review], *, seed: int = 0, watch: Watch = unwatched
) -> dict[str, Any]:
    """Returns the figures of the readings of a run, as plain data.

    Args:
        engine: the database of cases and runs.
        run_name: the run.
        reviews: its finished readings, in order of finish.
        seed: of the bootstrap intervals.
        watch: told how far it is: what, done, of how many (groups of case-steps).

    Raises:
        UsageError: no such run, or a vocabulary that is not there.
        StorageError: a record cannot be read.
    """
    run = RunStore(engine).get(run_name)
    steps = read_steps(engine, run, (review.key for review in reviews))
    return {"run": run_name, **compare(reviews, steps, seed=seed, watch=watch)}


def compare(
    reviews: Sequence[Review], steps: Mapping[Key, ReadStep], *, seed: int = 0, watch: Watch = unwatched
) -> dict[str, Any]:
    """Returns the figures of readings whose case-steps are known; others are counted as `unknown`.

    So are readings of what a search found before its case-step was taken again.
    """
    known = [r for r in reviews if r.key in steps and is_of(r, steps[r.key].record_hash)]
    own = independent(known)
    by_key: dict[Key, list[Review]] = {}
    for review in own:
        by_key.setdefault(review.key, []).append(review)
    overlap = {key: of_key for key, of_key in by_key.items() if len(of_key) > 1}
    names = list(dict.fromkeys(key[1] for key in by_key))
    groups = {name: {key: r for key, r in overlap.items() if key[1] == name} for name in names}
    if len(names) > 1:
        groups[ALL_STEPS] = overlap
    found = {}
    for done, (name, of_step) in enumerate(groups.items(), 1):
        found[name] = _of_step(of_step, steps, seed, answers=name != ALL_STEPS)
        watch("comparing readings", done, len(groups))
    return {
        "seed": seed,
        "readings": len(own),
        "adjudications": sum(review.adjudicates for review in known),
        "unknown": len(reviews) - len(known),
        "readers": reader_rows(own, steps),
        "case_steps": len(by_key),
        "overlap": len(overlap),
        "steps": found,
        "bias": {name: metric.to_json() for name, metric in bias_figures(own, steps, seed).items()},
    }


def _of_step(
    overlap: Mapping[Key, Sequence[Review]], steps: Mapping[Key, ReadStep], seed: int, *, answers: bool = True
) -> dict[str, Any]:
    """Returns the figures of the case-steps that several read; `answers`: compare the codes as well."""
    figures: dict[str, Any] = {}
    alike: dict[Hashable, dict[str, Any]] = {}
    questions = [*_answer_questions(overlap, steps)] if answers else []
    for name, units, scale in (*questions, *_form_questions(overlap, steps)):
        if units:
            pattern = _pattern(units, scale)
            if pattern not in alike:
                alike[pattern] = _figures(units, scale, seed)
            figures[name] = alike[pattern]
    return {"overlap": len(overlap), "figures": figures}


def _pattern(units: Sequence[Unit], scale: tuple[str, ...]) -> Hashable:
    """Returns who said the same of what: no figure depends on more, and levels often differ in names alone."""
    numbers: dict[str, int] = {}
    named = tuple(
        (unit.patient_id, tuple((reader, numbers.setdefault(text, len(numbers))) for reader, text in unit.said.items()))
        for unit in units
    )
    return (named, tuple(numbers), scale) if scale else named


_Asked = tuple[str, list[Unit], tuple[str, ...]]


def _answer_questions(overlap: Mapping[Key, Sequence[Review]], steps: Mapping[Key, ReadStep]) -> Iterator[_Asked]:
    """Yields own answer before and after, and corrected answer, at each level: name, what was said, order."""
    levels = [level for level in matching.LEVELS if any(level in steps[key].levels for key in overlap)]
    scales = {steps[key].scale for key in overlap}
    scale = scales.pop() if len(scales) == 1 else ()
    sayings: tuple[tuple[str, Callable[[Review, ReadStep], Sequence[str] | None]], ...] = (
        ("own answer before", lambda review, _: review.first.codes),
        ("own answer after", lambda review, _: review.after.codes),
        ("corrected answer", lambda review, step: settled(review, step) or None),
    )
    for name, said in sayings:
        for level in levels:
            units = []
            for key, reviews in overlap.items():
                step = steps[key]
                if level in step.levels:
                    codes = {review.reviewer: said(review, step) for review in reviews}
                    texts = {reader: _answer_text(c, step, level) for reader, c in codes.items() if c is not None}
                    if step.scale:  # "none of them" has no place in the order
                        texts = {reader: text for reader, text in texts.items() if text in step.scale}
                    units.append(Unit(step.patient_id, texts))
            yield f"{name}, {level}", _judged(units), scale


def _answer_text(codes: Sequence[str], step: ReadStep, level: str) -> str:
    return _AND.join(sorted(step.classes(codes, level))) or NONE_FITS


def _form_questions(overlap: Mapping[Key, Sequence[Review]], steps: Mapping[Key, ReadStep]) -> Iterator[_Asked]:
    for question in QUESTIONS:
        units = []
        for key, reviews in overlap.items():
            said = {review.reviewer: question.said(review) for review in reviews}
            units.append(Unit(steps[key].patient_id, {r: text for r, text in said.items() if text is not None}))
        yield question.name.replace("_", " "), _judged(units), question.scale
    turns = []
    for key, reviews in overlap.items():
        for turn in sorted({turn for review in reviews for turn in review.ratings}):
            rated = {review.reviewer: str(review.ratings[turn]) for review in reviews if turn in review.ratings}
            turns.append(Unit(steps[key].patient_id, rated))
    yield "rating of a turn", _judged(turns), RATINGS


def _judged(units: Sequence[Unit]) -> list[Unit]:
    return [unit for unit in units if len(unit.said) > 1]


def _figures(units: Sequence[Unit], scale: tuple[str, ...], seed: int) -> dict[str, Any]:
    """Returns every coefficient of one question; the weighted and ordinal ones where its answers have an order."""
    domain = scale or tuple(sorted({answer for unit in units for answer in unit.said.values()}))
    readers = {reader for unit in units for reader in unit.said}
    found: dict[str, Any] = {"n": len(units), "raw": raw_agreement(units, seed).to_json()}
    weights = (None, LINEAR, QUADRATIC) if scale else (None,)
    for weight in weights:
        of_pairs = {_AND.join(pair): cohen(units, pair, domain, seed, weight).to_json() for pair in pairs_of(units)}
        found["cohen" if weight is None else f"cohen_{weight}"] = of_pairs
    if len(readers) > 2:
        found["fleiss"] = fleiss(units, domain, seed).to_json()
    found["alpha_nominal"] = alpha(units, domain, seed, "nominal").to_json()
    if scale:
        found["alpha_ordinal"] = alpha(units, domain, seed, "ordinal").to_json()
    return found
