"""What clinicians' readings of a case-step may teach: an answer, and ratings of turns.

An adjudication decides; without one readings that differ teach nothing. Every reading counts where it is asked whether
they differ, but only one whose reader permits training is taught.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from clinical_data.vocabulary import Vocabulary
from evaluation import matching
from evaluation.reading.form import Key, Review, Verdict
from evaluation.reading.read_steps import answer_of, independent, is_of, record_hash
from evaluation.record import RunRecord
from evaluation.store.run_store import Run

NONE, WITH, ONLY = "none", "with", "only"
READINGS = (NONE, WITH, ONLY)
"""Of sft and preference sets: the record's word alone; with readers' beside it; case-steps with a reader's alone."""

GOOD = 3
"""Rating from which a turn is worth learning: `form.RATING_ANCHORS`, acceptable."""
LOWEST, HIGHEST = 1, 5

ReviewsOf = Callable[[Engine, int], Sequence[Review]]
"""Returns the finished readings of a run by its id, in order of finish."""

UNPERMITTED = "reading without permission to train"
DIFFERING = "reading that differs from another of its case-step, without an adjudication"
ADJUDICATED = "reading in whose place an adjudication stands"
STALE = "reading of another state of the run or of the case"
ABSENT = "reading of a case-step that the run does not hold"
TURN_DIFFERING = "turn that readers rated differently, without an adjudication"


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """What stands for the readings of a case-step.

    Attributes:
        codes: the corrected answer, or the model's where it was accepted; empty: overridden without another one, or an
            accepted abstention.
        overridden: the model's answer was.
    """

    codes: tuple[str, ...]
    overridden: bool


@dataclass(slots=True)
class RunReadings:
    """The readings of one run, by case-step.

    Args:
        run: the run.
        reviews: its finished readings, in order of finish.
    """

    run: Run
    reviews: Sequence[Review]
    _by_key: dict[Key, list[Review]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for review in self.reviews:
            self._by_key.setdefault(review.key, []).append(review)

    def take(self, record: RunRecord, dropped: Counter[str]) -> list[Review]:
        """Returns the readings of a record, and forgets them; those of another state of it are counted instead."""
        found = self._by_key.pop((record.case_id, record.step, record.occurrence), [])
        case_hash, outcome = record.hashes.get("case"), record_hash(record)
        fresh = [
            r
            for r in found
            if r.run_hash == self.run.config_hash and case_hash in (None, r.case_hash) and is_of(r, outcome)
        ]  # a record that names no case content cannot tell
        _count(dropped, STALE, len(found) - len(fresh))
        return fresh

    def count_rest(self, dropped: Counter[str]) -> None:
        """Counts the readings that belong to no record."""
        _count(dropped, ABSENT, sum(map(len, self._by_key.values())))


def read_answer(
    reviews: Sequence[Review], record: RunRecord, vocabulary: Vocabulary, dropped: Counter[str]
) -> ReadAnswer | None:
    """Returns the answer that readings of a case-step may teach; None where there is none, with the reason counted."""
    own, judge = independent(reviews), _adjudication(reviews)
    deciding = own if judge is None else [judge]
    said = {_classes(_codes(review, record), vocabulary) for review in deciding}
    if len(said) > 1:
        _count(dropped, DIFFERING, len(own))
        return None
    if judge is not None:
        _count(dropped, ADJUDICATED, len(own))
    permitted = [review for review in deciding if review.may_train]
    _count(dropped, UNPERMITTED, len(deciding) - len(permitted))
    if not permitted:
        return None
    codes = _codes(permitted[-1], record)
    differs = _classes(codes, vocabulary) != _classes(answer_of(record), vocabulary)
    return ReadAnswer(codes, differs or (not codes and permitted[-1].verdict is Verdict.OVERRIDDEN))


def read_ratings(reviews: Sequence[Review], dropped: Counter[str]) -> dict[int, float]:
    """Returns turn of the winning trajectory -> mean rating by those who permit training, 1 to 5.

    Of an adjudication the turns that it rates are its own. Two readers differ on a turn where one finds it worth
    learning and the other does not (`GOOD`).
    """
    own, judge = independent(reviews), _adjudication(reviews)
    rated: dict[int, float] = {}
    for turn in sorted({turn for review in reviews for turn in review.ratings}):
        judged = judge is not None and turn in judge.ratings
        deciding = [judge] if judge is not None and judged else [r for r in own if turn in r.ratings]
        if len({review.ratings[turn] >= GOOD for review in deciding}) > 1:
            _count(dropped, TURN_DIFFERING, 1)
            continue
        permitted = [review.ratings[turn] for review in deciding if review.may_train]
        if permitted:
            rated[turn] = sum(permitted) / len(permitted)
    _count(dropped, UNPERMITTED, sum(bool(r.ratings) and not r.may_train for r in reviews))
    return rated


def value_of(rating: float) -> float:
    """Returns a rating of 1 to 5 as a value of 0 to 1."""
    return (rating - LOWEST) / (HIGHEST - LOWEST)


def _adjudication(reviews: Sequence[Review]) -> Review | None:
    return next((review for review in reversed(reviews) if review.adjudicates), None)


def _codes(review: Review, record: RunRecord) -> tuple[str, ...]:
    return answer_of(record) if review.verdict is Verdict.ACCEPTED else review.corrected


def _classes(codes: Sequence[str], vocabulary: Vocabulary) -> frozenset[str]:
    return frozenset(matching.answer_class(code, vocabulary) or code for code in codes)


def _count(dropped: Counter[str], reason: str, number: int) -> None:
    if number:
        dropped[reason] += number
