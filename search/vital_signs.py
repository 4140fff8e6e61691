"""Vital signs and the Glasgow Coma Scale as a ward writes them down: in the usual order, in short, high and low said.

A chart holds them as measurements of equal time in any order. An answer that is cut short then told the weight and not
the pulse, and a small model that reads digits one by one does not see that a pulse of 138 is fast.

Words for what is out of range: `slightly` for a score of 1, plain for 2 and `very` for 3 of the National Early Warning
Score (Royal College of Physicians, NEWS2, 2017); blood pressure above 140/90 is high and above 180/120 very high
(Whelton 2018, ACC/AHA guideline, stage 2 and crisis); a Glasgow Coma Scale of 13 or 14 is slightly low, of 9 to 12 low,
of 8 and less very low (Teasdale 2014). For adults; they stand beside the recorded value and never instead of it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from clinical_data.case import Finding, FindingKind
from clinical_data.naming import unit_text
from search.measurements import bracketed, latest, notes_text, range_and_flag, series_text

Bands = Sequence[tuple[float, str]]  # (highest value, word), ascending; above the last nothing is said


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign.

    Attributes:
        short: as a ward writes it.
        codes: LOINC.
        names: what sources call it, in small letters.
        bands: words by value, in `unit`.
        group: short name of the sign that it is told with; empty: of its own.
        unit: as written on a ward, in which the bands hold; empty: any.
    """

    short: str
    codes: frozenset[str]
    names: frozenset[str]
    bands: Bands = ()
    unit: str = ""
    group: str = ""


def _sign(short: str, codes: str, names: Sequence[str], bands: Bands = (), unit: str = "", group: str = "") -> Sign:
    return Sign(short, frozenset(codes.split()), frozenset(names), bands, unit, group)


_LOW3, _LOW2, _LOW1, _HIGH1, _HIGH2, _HIGH3 = "very low", "low", "slightly low", "slightly high", "high", "very high"
_HIGHER = ("", _HIGH1, _HIGH2, _HIGH3)
PULSE = _sign(
    "HR",
    "8867-4",
    ("heart rate",),
    ((19, ""), (40, _LOW3), (50, _LOW1), (90, ""), (110, _HIGH1), (130, _HIGH2), (300, _HIGH3)),
)
SYSTOLIC = _sign(
    "systolic BP",
    "8480-6",
    (
        "systolic blood pressure",
        "systolic blood pressure (arterial line)",
        "non invasive blood pressure systolic",
        "nbp [systolic]",
        "arterial bp [systolic]",
        "manual bp [systolic]",
        "arterial blood pressure systolic",
        "art bp systolic",
    ),
    ((19, ""), (90, _LOW3), (100, _LOW2), (110, _LOW1), (140, ""), (180, _HIGH2), (320, _HIGH3)),
    "mmHg",
    "BP",
)
DIASTOLIC = _sign(
    "diastolic BP",
    "8462-4",
    (
        "diastolic blood pressure",
        "diastolic blood pressure (arterial line)",
        "non invasive blood pressure diastolic",
        "nbp [diastolic]",
        "arterial bp [diastolic]",
        "manual bp [diastolic]",
        "arterial blood pressure diastolic",
        "art bp diastolic",
    ),
    ((90, ""), (120, _HIGH2), (250, _HIGH3)),
    "mmHg",
    "BP",
)
CUFF = _sign("BP", "", ("cuff blood pressure",), group="BP")
BREATHS = _sign(
    "RR",
    "9279-1",
    ("respiratory rate",),
    ((0, ""), (8, _LOW3), (11, _LOW1), (20, ""), (24, _HIGH2), (80, _HIGH3)),
)
SATURATION = _sign(
    "SpO2",
    "2708-6 59408-5",
    ("oxygen saturation", "o2 saturation pulseoxymetry", "spo2"),
    ((29, ""), (91, _LOW3), (93, _LOW2), (95, _LOW1)),
    "%",
)
CELSIUS = _sign(
    "temperature",
    "8310-5 8331-1",
    ("temperature", "body temperature", "temperature celsius", "temperature c"),
    ((24.9, ""), (35, _LOW3), (36, _LOW1), (38, ""), (39, _HIGH1), (45, _HIGH2)),
    "°C",
)
FAHRENHEIT = Sign(
    CELSIUS.short,
    CELSIUS.codes,
    CELSIUS.names | {"temperature fahrenheit", "temperature f"},
    tuple((limit * 9 / 5 + 32, word) for limit, word in CELSIUS.bands),
    "°F",
)
COMA = _sign(
    "Glasgow Coma Scale",
    "9269-2",
    ("glasgow coma scale", "gcs", "gcs total"),
    ((2, ""), (8, _LOW3), (12, _LOW2), (14, _LOW1)),
)
EYES = _sign("E", "9267-6", ("glasgow coma scale, eyes", "gcs - eye opening"), group=COMA.short)
VERBAL = _sign("V", "9270-0", ("glasgow coma scale, verbal", "gcs - verbal response"), group=COMA.short)
MOTOR = _sign("M", "9268-4", ("glasgow coma scale, motor", "gcs - motor response"), group=COMA.short)
SIGNS = (PULSE, SYSTOLIC, DIASTOLIC, CUFF, BREATHS, SATURATION, CELSIUS, FAHRENHEIT, COMA, EYES, VERBAL, MOTOR)
_BY_CODE = {code: sign for sign in reversed(SIGNS) for code in sign.codes}
_BY_NAME = {name: sign for sign in reversed(SIGNS) for name in sign.names}
_BEDSIDE = frozenset({FindingKind.VITAL, FindingKind.EXAMINATION})  # not the temperature of a blood gas
_PRESSURE = re.compile(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)(?: \(mean (\d+(?:\.\d+)?)\))?")
_HALF = re.compile(r"\s*\b(?:systolic|diastolic)\b\s*", re.IGNORECASE)
LEAST_MEAN = 65.0  # mmHg of mean arterial pressure (Evans 2021, Surviving Sepsis Campaign)


def sign_of(finding: Finding) -> Sign | None:
    """Returns which sign a finding is; None for anything else, for a blood gas, and for a value that is no number."""
    if finding.kind not in _BEDSIDE:
        return None
    code = finding.code
    sign = (_BY_CODE.get(code.code) if code.system == "http://loinc.org" else None) or _BY_NAME.get(_name(finding))
    if sign is CELSIUS and unit_text(finding.unit) == FAHRENHEIT.unit:
        sign = FAHRENHEIT
    if sign is CUFF:
        return CUFF if _PRESSURE.fullmatch(str(finding.value)) else None
    return sign if isinstance(finding.value, float | int) and not isinstance(finding.value, bool) else None


def _name(finding: Finding) -> str:
    return " ".join((finding.code.display or finding.code.code).casefold().split())


def _way(finding: Finding) -> str:
    """Returns how a pressure was taken, as far as its name tells: by line or by cuff."""
    name = _name(finding)
    return _HALF.sub(" ", name) if name in _BY_NAME else ""


def word_for(sign: Sign, value: float, unit: str) -> str:
    """Returns how far a value is out of range, as "very high"; empty within it, and in a unit that is not known.

    It is empty as well for what no living patient has, as an oxygen saturation of 0.97 %: nobody knows what was meant.
    """
    if sign.unit and unit_text(unit) != sign.unit:
        return ""
    return next((word for limit, word in sign.bands if value <= limit), "")


@dataclass(frozen=True, slots=True)
class Bedside:
    """Puts the signs of one answer into words.

    Attributes:
        most: values of one sign: the latest.
        adult: the bands hold for the patient.
    """

    most: int
    adult: bool = True

    def parts(self, findings: Sequence[Finding]) -> tuple[list[str], list[Finding]]:
        """Returns the signs, each in words, in the usual order; and the findings that are none.

        Args:
            findings: of an answer, oldest first.
        """
        found: dict[str, list[Finding]] = defaultdict(list)
        others = []
        for finding in findings:
            if (sign := sign_of(finding)) is None:
                others.append(finding)
            else:
                found[sign.group or sign.short].append(finding)
        parts = [
            self.series(PULSE, found[PULSE.short]),
            *self.pressures(found[CUFF.short]),
            self.series(BREATHS, found[BREATHS.short]),
            self.series(SATURATION, found[SATURATION.short]),
            self.series(CELSIUS, found[CELSIUS.short]),
            self.coma(found[COMA.short]),
        ]
        return [part for part in parts if part], others

    def word(self, sign: Sign, value: float, unit: str) -> str:
        """Returns how far a value is out of range, of an adult."""
        return word_for(sign, value, unit) if self.adult else ""

    def series(self, sign: Sign, findings: Sequence[Finding]) -> str:
        """Returns one sign with its latest values, oldest first, and how far the last is out of range."""
        if not findings:
            return ""
        last = findings[-1]
        word = self.word(sign_of(last) or sign, _number(last), last.unit)
        return f"{sign.short} {series_text(findings, self.most)}{notes_text(word, last)}"

    def pressures(self, findings: Sequence[Finding]) -> list[str]:
        """Returns the latest pairs of pressures, and after them what was measured of one half since.

        Halves are a pair where they were charted at one time in one way: by cuff, or by line.
        """
        waiting: dict[tuple[int, str], list[Finding]] = defaultdict(list)
        told: list[tuple[int, str, str]] = []  # minute, pair, and how far it is out of range
        for finding in findings:
            if (sign := sign_of(finding)) is CUFF:
                told.append((finding.charted, *self._cuff(finding)))
                continue
            half = waiting[finding.charted, _way(finding)]
            if half and sign_of(half[0]) is not sign and unit_text(half[0].unit) == unit_text(finding.unit) == "mmHg":
                first = half.pop(0)
                pair = (finding, first) if sign is SYSTOLIC else (first, finding)
                told.append((finding.charted, *self._pair(*pair)))
            else:
                half.append(finding)
        told.sort(key=lambda one: one[0])
        last, text = -math.inf, []
        if told:
            last, _, notes = told[-1]
            text = [f"{CUFF.short} {', '.join(latest((pair for _, pair, _ in told), self.most))} mmHg{notes}"]
        alone = [f for half in waiting.values() for f in half if f.charted > last]
        return text + [self.series(sign, [f for f in alone if sign_of(f) is sign]) for sign in (SYSTOLIC, DIASTOLIC)]

    def _cuff(self, finding: Finding) -> tuple[str, str]:
        """Returns a pair that is one text, "110/40 (mean 60)", and its notes: a low mean that the pair hides."""
        match = _PRESSURE.fullmatch(str(finding.value))
        high, low = (float(match[1]), float(match[2])) if match else (math.nan, math.nan)
        mean = float(match[3]) if match and match[3] else math.inf
        word = self.pressure_word(high, low)
        low_mean = self.adult and mean < LEAST_MEAN and word not in (_LOW2, _LOW3)
        note = f"low mean {mean:g}" if low_mean else ""
        return f"{high:g}/{low:g}", bracketed([range_and_flag(finding), word, note])

    def _pair(self, high: Finding, low: Finding) -> tuple[str, str]:
        """Returns a pair, and its notes: those of the source are told of which half they are."""
        halves = ((SYSTOLIC, high), (DIASTOLIC, low))
        notes = [f"{sign.short} {note}" for sign, finding in halves if (note := range_and_flag(finding))]
        word = self.pressure_word(_number(high), _number(low))
        return f"{_number(high):g}/{_number(low):g}", bracketed([*notes, word])

    def pressure_word(self, high: float, low: float) -> str:
        """Returns the word for a pair: of a low systolic pressure, else of the half that is higher."""
        upper, lower = self.word(SYSTOLIC, high, SYSTOLIC.unit), self.word(DIASTOLIC, low, DIASTOLIC.unit)
        if upper.endswith("low"):
            return upper
        return max(upper, lower, key=_HIGHER.index)

    def coma(self, findings: Sequence[Finding]) -> str:
        """Returns the Glasgow Coma Scale, as recorded or summed: "Glasgow Coma Scale 15, 12 (low; E3 V4 M5)".

        Parts are summed only where all three were charted at one time, each once; a recorded sum stands for itself.
        After the last sum come the parts that were charted since.
        """
        sums, parts = [f for f in findings if sign_of(f) is COMA], [f for f in findings if sign_of(f) is not COMA]
        totals: dict[int, list[str]] = defaultdict(list)
        for finding in sums:
            totals[finding.charted].append(f"{_number(finding):g}")
        for at in {f.charted for f in parts} - totals.keys():
            own = [f for f in parts if f.charted == at]
            if len(own) == 3 == len({sign_of(f) for f in own}):
                totals[at].append(f"{sum(map(_number, own)):g}")
        last = max(totals, default=-1)
        since = _scores([f for f in parts if f.charted > last])
        if not totals:
            return f"{COMA.short} {since}" if since else ""
        values = ", ".join(latest((value for at in sorted(totals) for value in totals[at]), self.most))
        beside = _scores([f for f in parts if f.charted == last])
        source = range_and_flag(sums[-1]) if sums and sums[-1].charted == last else ""
        notes = bracketed([source, self.word(COMA, float(totals[last][-1]), ""), beside])
        return f"{COMA.short} {values}{notes}" + (f", then {since}" if since else "")


def _number(finding: Finding) -> float:
    return float(str(finding.value))


def _scores(findings: Sequence[Finding]) -> str:
    """Returns parts of the Glasgow Coma Scale, the latest of each: "E3 V4 M5"; those of one time together: "E4/1"."""
    shown = []
    for sign in (EYES, VERBAL, MOTOR):
        own = [f for f in findings if sign_of(f) is sign]
        values = [f"{_number(f):g}" for f in own if f.charted == own[-1].charted]
        shown += [f"{sign.short}{'/'.join(dict.fromkeys(values))}"] if values else []
    return " ".join(shown)
