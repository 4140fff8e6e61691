"""Values of measurements in words: the latest of a series, with unit, reference range and the source's own flag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from clinical_data.case import PRESENT, Finding
from clinical_data.naming import unit_text

MOST_TEXT = 320  # characters of one text finding
FLAGS = {
    "H": "high",
    "L": "low",
    "A": "abnormal",
    "HH": "very high",
    "LL": "very low",
    "AA": "very abnormal",
    "POS": "positive",
    "NEG": "negative",
}  # HL7 ObservationInterpretation


def number_text(value: float) -> str:
    """Returns a number as a person writes it: six digits, and of large ones all before the point."""
    return f"{value:g}" if abs(value) < 1e5 else f"{value:.0f}"


def value_text(finding: Finding) -> str:
    """Returns a value as a person writes it, without unit; long texts are cut."""
    if finding.value is None:
        return PRESENT
    if isinstance(finding.value, float | int):
        return number_text(finding.value)
    text = flat(finding.value)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT].rsplit(" ", 1)[0] + " ..."


def unit_of(finding: Finding) -> str:
    """Returns the unit as it is written on a ward."""
    return flat(unit_text(finding.unit))


def flat(text: str) -> str:
    """Returns a text on one line: a line break ends a turn, so no recorded text may hold one."""
    return " ".join(text.split())


def latest(values: Iterable[str], most: int) -> list[str]:
    """Returns the last values, at most so many, oldest first; equal neighbours are one, so 120, 110, 120 stays."""
    return [value for value, _ in groupby(values)][-most:]


def with_units(findings: Sequence[Finding]) -> list[str]:
    """Returns the values of some findings, each with its unit."""
    return [f"{value_text(f)} {unit_of(f)}".rstrip() for f in findings]


def series_text(findings: Sequence[Finding], most: int) -> str:
    """Returns the latest values of one measurement, oldest first: "120, 110 mmHg", or "5.5 mmol/L, 120 mg/dL"."""
    if len({unit_of(f) for f in findings}) > 1:
        return ", ".join(latest(with_units(findings), most))
    return f"{', '.join(latest(map(value_text, findings), most))} {unit_of(findings[-1])}".rstrip()


def range_text(finding: Finding) -> str:
    """Returns the reference range, which may be open to one side: "60-100", "<0.04", ">60"; empty without one."""
    if finding.low is not None and finding.high is not None:
        return f"{number_text(finding.low)}{' to ' if finding.low < 0 else '-'}{number_text(finding.high)}"
    if finding.high is not None:
        return f"<{number_text(finding.high)}"
    return "" if finding.low is None else f">{number_text(finding.low)}"


def range_and_flag(finding: Finding, word: str = "") -> str:
    """Returns reference range and flag of the source; a flag that a word of ours ends with is left out."""
    flag = FLAGS.get(finding.flag, flat(finding.flag))
    return ", ".join(note for note in (range_text(finding), "" if word.endswith(flag) else flag) if note)


def notes_text(word: str, finding: Finding) -> str:
    """Returns reference range and flag of the source, and a word of ours: " (60-100, very high)"; empty for none."""
    return bracketed([", ".join(note for note in (range_and_flag(finding, word), word) if note)])


def bracketed(notes: Sequence[str]) -> str:
    """Returns notes that are not empty, in brackets, with a space before; empty for none."""
    told = "; ".join(note for note in notes if note)
    return f" ({told})" if told else ""
