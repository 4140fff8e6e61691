"""Stand-in for the store of readings, until that one is merged."""

from __future__ import annotations

from sqlalchemy import Engine

from evaluation.reading.form import Review


def reviews_of(engine: Engine, run_id: int) -> list[Review]:
    """Returns the finished readings of a run, in order of finish."""
    return []
