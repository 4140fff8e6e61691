"""What every eICU finding has in common: its id, its code system, and from when it could be known."""

from __future__ import annotations

from functools import lru_cache

from clinical_data.case import Coding, Finding, FindingKind, make_finding_id

SOURCE = "eicu"

# Above this no temperature is one in degrees Celsius: the sender wrote Fahrenheit under the other unit.
_HOTTEST = 45.0


def later(observed: int, entered: int | None, lag: int = 0) -> int:
    """Returns the minute from which a row could be known: the later of observation and entry.

    Args:
        observed: minute of observation.
        entered: minute of entry, None where the row has none.
        lag: minutes that stand in for a missing entry.
    """
    return max(observed, entered if entered is not None else observed + lag)


@lru_cache(maxsize=65536)
def _coding(table: str, code: str, display: str) -> Coding:
    return Coding(f"wardstar:{SOURCE}/{table}", code, display)


def make(
    table: str,
    key: object,
    kind: FindingKind,
    code: str,
    display: str,
    value: float | str | None,
    charted: int,
    available: int,
    *,
    unit: str = "",
    pending_from: int | None = None,
    suffix: str = "",
) -> Finding:
    """Returns the finding of a row.

    Args:
        table: table that it was read from.
        key: the row's own key.
        kind, code, display, value, unit: what was found; value None: it was done, the result is not in the source. A
            number that can be no temperature in degrees Celsius loses that unit.
        charted, available: minutes of observation, and from which it could be known.
        pending_from: minute from which it was known to be under way.
        suffix: marks a second finding of the same row.
    """
    if unit in ("Cel", "°C") and isinstance(value, float) and value > _HOTTEST:
        unit = ""
    return Finding(
        finding_id=make_finding_id(SOURCE, table + suffix, str(key)),
        kind=kind,
        code=_coding(table + suffix, code, display),
        value=value,
        charted=charted,
        available=available,
        unit=unit,
        pending_from=pending_from,
        result_in_source=value is not None,
        note=f"{table} {key}",
    )
