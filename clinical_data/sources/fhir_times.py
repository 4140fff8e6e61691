"""FHIR dates and times, as minutes from the start of a case.

A FHIR time may be a year, a month, a day or an instant, with or without a zone. A moment therefore has an earliest and
a latest reading; what was known "on that day" was known at its end (clinical.md, "Clock").
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

_PARTIAL = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?$")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(:\d\d)?(\.\d+)?(Z|[+-]\d\d:\d\d)?$")


@dataclass(frozen=True, slots=True)
class Moment:
    """A recorded time: between `earliest` and `latest`, which are equal when the time of day is known."""

    earliest: datetime
    latest: datetime


@lru_cache(maxsize=1 << 14)  # one panel, one time: most are asked for again
def parse_moment(text: str) -> Moment:
    """Returns the moment that a FHIR date, dateTime or instant means.

    Raises:
        ValueError: not a FHIR time, or outside the years 1800 to 2999 (the message holds no value).
    """
    partial = _PARTIAL.match(text)
    if partial:
        year, month, day = (int(part or 0) for part in partial.groups())
        return _whole(year, month, day)
    found = _INSTANT.match(text)
    if found is None:
        raise ValueError("not a FHIR time")
    seconds = ":59" if found[2] == ":60" else (found[2] or ":00")  # datetime has no leap seconds
    fraction = (found[3] or "")[:7]
    try:
        at = datetime.fromisoformat(f"{found[1]}{seconds}{fraction.ljust(7, '0') if fraction else ''}{found[4] or ''}")
    except ValueError as error:
        raise ValueError("not a FHIR time") from error
    return _plausible(Moment(at, at))


def _whole(year: int, month: int, day: int) -> Moment:
    """Returns the moment of a whole year, month or day (0: not given); its latest reading is the start of the next."""
    try:
        first = datetime(year, month or 1, day or 1)
        if day:
            after = first + timedelta(days=1)
        elif month:
            after = datetime(year + month // 12, month % 12 + 1, 1)
        else:
            after = datetime(year + 1, 1, 1)
    except (ValueError, OverflowError) as error:
        raise ValueError("not a FHIR time") from error
    return _plausible(Moment(first, after))


def _plausible(moment: Moment) -> Moment:
    if not 1800 <= moment.earliest.year < 3000:
        raise ValueError("not a plausible year")
    return moment


@dataclass(frozen=True, slots=True)
class CaseClock:
    """Counts minutes from the start of a case.

    Attributes:
        start: minute 0. A time without a zone is read in the zone of `start`; if `start` itself has none, every time is
            read by its wall clock.
    """

    start: datetime

    def known_by(self, at: datetime) -> int:
        """Returns the first whole minute at which what happened at `at` had happened."""
        return math.ceil(self._minutes(at))

    def begun_at(self, at: datetime) -> int:
        """Returns the whole minute in which `at` lies."""
        return math.floor(self._minutes(at))

    def _minutes(self, at: datetime) -> float:
        if self.start.tzinfo is None:
            at = at.replace(tzinfo=None)
        elif at.tzinfo is None:
            at = at.replace(tzinfo=self.start.tzinfo)
        return (at - self.start) / timedelta(minutes=1)


def age_at(start: datetime, birth: str | None) -> int | None:
    """Returns whole years from a FHIR birth date to a start; 90 above 89, None when unknown or not yet born.

    Source: HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C).
    """
    if not birth:
        return None
    born = parse_moment(birth).earliest
    years = start.year - born.year - ((start.month, start.day) < (born.month, born.day))
    return None if years < 0 else min(years, 90)
