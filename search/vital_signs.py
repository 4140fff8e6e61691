"""Vital signs and the Glasgow Coma Scale as a ward writes them down: in the usual order, in short, high and low said.

A chart holds them as measurements of equal time in any order. An answer that is cut short then told the weight and not
the pulse, and a small model that reads digits one by one does not see that a pulse of 138 is fast.

Words for what is out of range: `slightly` for a score of 1, plain for 2 and `very` for 3 of the National Early Warning
Score (Royal College of Physicians, NEWS2, 2017); blood pressure above 140/90 is high and above 180/120 very high
(Whelton 2018, ACC/AHA guideline, stage 2 and crisis); a Glasgow Coma Scale of 13 or 14 is slightly low, of 9 to 12 low,
of 8 and less very low (Teasdale 2014). For adults; they stand beside the recorded value and never instead of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clinical_data.case import Finding, FindingKind
from clinical_data.naming import unit_text
from search.measurements import latest, notes_text, series_text

Bands = Sequence[tuple[float, str]]  # (highest value, word), ascending; above the last: nothing to say
Found = Mapping[str, Sequence[Finding]]  # of each sign, by its short name; of none: empty
_REST = float("inf")


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign.

    Attributes:
        short: as a ward writes it.
        codes: LOINC.
        names: what sources call it, in small letters.
        bands: words by value, in `unit`.
        unit: as written on a ward, in which the bands hold; empty: any.
    """

    short: str
    codes: frozenset[str]
    names: frozenset[str]
    bands: Bands = ()
    unit: str = ""


def _sign(short: str, codes: str, names: Sequence[str], bands: Bands = (), unit: str = "") -> Sign:
    return Sign(short, frozenset(codes.split()), frozenset(names), bands, unit)


_LOW3, _LOW2, _LOW1, _HIGH1, _HIGH2, _HIGH3 = "very low", "low", "slightly low", "slightly high", "high", "very high"
PULSE = _sign(
    "HR",
    "8867-4",
    ("heart rate",),
    ((40, _LOW3), (50, _LOW1), (90, ""), (110, _HIGH1), (130, _HIGH2), (_REST, _HIGH3)),
)
SYSTOLIC = _sign(
    "systolic BP",
    "8480-6",
    (
        "systolic blood pressure",
        "systolic blood pressure (arterial line)",
        "non invasive blood pressure systolic",
        "arterial blood pressure systolic",
        "art bp systolic",
    ),
    ((90, _LOW3), (100, _LOW2), (110, _LOW1), (140, ""), (180, _HIGH2), (_REST, _HIGH3)),
    "mmHg",
)
DIASTOLIC = _sign(
    "diastolic BP",
    "8462-4",
    (
        "diastolic blood pressure",
        "diastolic blood pressure (arterial line)",
        "non invasive blood pressure diastolic",
        "arterial blood pressure diastolic",
        "art bp diastolic",
    ),
    ((90, ""), (120, _HIGH2), (_REST, _HIGH3)),
    "mmHg",
)
CUFF = _sign("BP", "", ("cuff blood pressure",))
BREATHS = _sign(
    "RR",
    "9279-1",
    ("respiratory rate",),
    ((8, _LOW3), (11, _LOW1), (20, ""), (24, _HIGH2), (_REST, _HIGH3)),
)
SATURATION = _sign(
    "SpO2",
    "2708-6 59408-5",
    ("oxygen saturation", "o2 saturation pulseoxymetry"),
    ((91, _LOW3), (93, _LOW2), (95, _LOW1)),
    "%",
)
CELSIUS = _sign(
    "temperature",
    "8310-5 8331-1",
    ("temperature", "body temperature", "temperature celsius"),
    ((35, _LOW3), (36, _LOW1), (38, ""), (39, _HIGH1), (_REST, _HIGH2)),
    "°C",
)
FAHRENHEIT = Sign(
    CELSIUS.short,
    CELSIUS.codes,
    CELSIUS.names | {"temperature fahrenheit"},
    tuple((limit * 9 / 5 + 32, word) for limit, word in CELSIUS.bands),
    "°F",
)
COMA = _sign(
    "Glasgow Coma Scale",
    "9269-2",
    ("glasgow coma scale", "gcs"),
    ((8, _LOW3), (12, _LOW2), (14, _LOW1)),
)
EYES = _sign("E", "9267-6", ("glasgow coma scale, eyes", "gcs - eye opening"))
VERBAL = _sign("V", "9270-0", ("glasgow coma scale, verbal", "gcs - verbal response"))
MOTOR = _sign("M", "9268-4", ("glasgow coma scale, motor", "gcs - motor response"))
SIGNS = (PULSE, SYSTOLIC, DIASTOLIC, CUFF, BREATHS, SATURATION, CELSIUS, FAHRENHEIT, COMA, EYES, VERBAL, MOTOR)
_BY_CODE = {code: sign for sign in reversed(SIGNS) for code in sign.codes}
_BY_NAME = {name: sign for sign in reversed(SIGNS) for name in sign.names}
_PRESSURE = re.compile(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")


def sign_of(finding: Finding) -> Sign | None:
    """Returns which sign a finding is; None for anything else, for a blood gas, and for a value that is no number."""
    if finding.kind is FindingKind.LABORATORY:
        return None
    code = finding.code
    name = " ".join((code.display or code.code).casefold().split())
    sign = (_BY_CODE.get(code.code) if code.system == "http://loinc.org" else None) or _BY_NAME.get(name)
    if sign is CELSIUS and unit_text(finding.unit) == FAHRENHEIT.unit:
        sign = FAHRENHEIT
    if sign is CUFF:
        return CUFF if _PRESSURE.match(str(finding.value)) else None
    return sign if isinstance(finding.value, float | int) else None


def word_for(sign: Sign, value: float, unit: str) -> str:
    """Returns how far a value is out of range, as "very high"; empty within it, and in a unit that is not known."""
    if sign.unit and unit_text(unit) != sign.unit:
        return ""
    return next((word for limit, word in sign.bands if value <= limit), "")


def sign_parts(findings: Sequence[Finding], most: int) -> tuple[list[str], list[Finding]]:
    """Puts the signs among findings into words.

    Args:
        findings: of an answer, oldest first.
        most: values of one sign: the latest.

    Returns:
        The signs, each in words, in the usual order; and the findings that are none.
    """
    found: dict[str, list[Finding]] = defaultdict(list)
    others = []
    for finding in findings:
        if (sign := sign_of(finding)) is None:
            others.append(finding)
        else:
            found[sign.short].append(finding)
    parts = [
        _series(PULSE, found[PULSE.short], most),
        *_pressures(found, most),
        _series(BREATHS, found[BREATHS.short], most),
        _series(SATURATION, found[SATURATION.short], most),
        _series(CELSIUS, found[CELSIUS.short], most),
        _coma(found, most),
    ]
    return [part for part in parts if part], others


def _series(sign: Sign, findings: Sequence[Finding], most: int) -> str:
    """Returns one sign with its latest values, oldest first, and how far the last is out of range; empty for none."""
    if not findings:
        return ""
    last = findings[-1]
    word = word_for(sign_of(last) or sign, _number(last), last.unit)
    return f"{sign.short} {series_text(findings, most)}{notes_text(word, last)}"


def _number(finding: Finding) -> float:
    return float(str(finding.value))


def _pressures(found: Found, most: int) -> list[str]:
    """Returns the latest pairs of pressures, by cuff or line, and after them what was measured of one half since."""
    told: dict[int, tuple[str, str]] = {}  # minute: the pair; how far it is out of range, with the source's own notes
    lower = {f.charted: f for f in found[DIASTOLIC.short]}
    for high in found[SYSTOLIC.short]:
        low = lower.get(high.charted)
        if low is not None and unit_text(high.unit) == unit_text(low.unit) == SYSTOLIC.unit:
            pair = _number(high), _number(low)
            told[high.charted] = _pair(*pair), notes_text(_pressure_word(*pair), high, low)
    for cuff in found[CUFF.short]:
        if match := _PRESSURE.match(str(cuff.value)):
            pair = float(match[1]), float(match[2])
            told[cuff.charted] = _pair(*pair), notes_text(_pressure_word(*pair), cuff)
    last = max(told, default=None)
    since = ([f for f in found[sign.short] if last is None or f.charted > last] for sign in (SYSTOLIC, DIASTOLIC))
    halves = [_series(sign, own, most) for sign, own in zip((SYSTOLIC, DIASTOLIC), since, strict=True)]
    if last is None:
        return halves
    values = ", ".join(latest((told[at][0] for at in sorted(told)), most))
    return [f"{CUFF.short} {values} {SYSTOLIC.unit}{told[last][1]}", *halves]


def _pair(high: float, low: float) -> str:
    return f"{high:g}/{low:g}"


def _pressure_word(high: float, low: float) -> str:
    """Returns the word for a pair: of a low systolic pressure, else the higher of both."""
    upper, lower = word_for(SYSTOLIC, high, SYSTOLIC.unit), word_for(DIASTOLIC, low, DIASTOLIC.unit)
    if upper.endswith("low"):
        return upper
    return max(upper, lower, key=len)


def _coma(found: Found, most: int) -> str:
    """Returns the Glasgow Coma Scale, as recorded or summed: "Glasgow Coma Scale 15, 12 (low; E3 V4 M5)".

    Parts are summed only where all three were charted at one time, and stand beside the sum of their time alone.
    """
    parts: dict[int, dict[str, float]] = defaultdict(dict)
    for sign in (EYES, VERBAL, MOTOR):
        for finding in found[sign.short]:
            parts[finding.charted][sign.short] = _number(finding)
    totals = {at: sum(of_time.values()) for at, of_time in parts.items() if len(of_time) == 3}
    totals |= {f.charted: _number(f) for f in found[COMA.short]}
    last = max([*totals, *parts], default=0)
    shown = " ".join(f"{name}{value:g}" for name, value in parts.get(last, {}).items())
    values = ", ".join(latest((f"{totals[at]:g}" for at in sorted(totals)), most))
    if not values:
        return f"{COMA.short} {shown}" if shown else ""
    if last not in totals:
        return f"{COMA.short} {values}, then {shown}"
    notes = "; ".join(note for note in (word_for(COMA, totals[last], ""), shown) if note)
    return f"{COMA.short} {values}" + (f" ({notes})" if notes else "")
