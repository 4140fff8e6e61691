"""Values of measurements in words: the latest of a series, with unit, reference range and the source's own flag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from clinical_data.case import PRESENT, Finding
from clinical_data.naming import unit_text

MOST_TEXT = 320  # characters of one text finding
FLAGS = {"H": "high", "L": "low", "A": "abnormal"}


def value_text(finding: Finding) -> str:
    """Returns a value as a person writes it, without unit; long texts are cut."""
    if finding.value is None:
        return PRESENT
    if isinstance(finding.value, float | int):
        return f"{finding.value:g}"
    text = flat(finding.value)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT].rsplit(" ", 1)[0] + " ..."


def flat(text: str) -> str:
    """Returns a text on one line: a line break ends a turn, so no recorded text may hold one."""
    return " ".join(text.split())


def latest(values: Iterable[str], most: int) -> list[str]:
    """Returns the last values, at most so many, oldest first; equal neighbours are one, so 120, 110, 120 stays."""
    return [value for value, _ in groupby(values)][-most:]


def series_text(findings: Sequence[Finding], most: int) -> str:
    """Returns the latest values of one measurement, oldest first: "120, 110 mmHg", or "5.5 mmol/L, 120 mg/dL"."""
    units = [unit_text(f.unit) for f in findings]
    values = [value_text(f) for f in findings]
    if len(set(units)) > 1:
        return ", ".join(latest((f"{v} {u}".rstrip() for v, u in zip(values, units, strict=True)), most))
    return f"{', '.join(latest(values, most))} {units[-1]}".rstrip()


def notes_text(word: str, *findings: Finding) -> str:
    """Returns reference range and flag of the source, and a word of ours: " (60-100, very high)"; empty for none.

    A flag that stands in our word is not repeated. A pair of findings has ranges as it has values: "90-140/60-90".
    """
    limits = [f"{f.low:g}-{f.high:g}" for f in findings if f.low is not None and f.high is not None]
    flags = dict.fromkeys(FLAGS.get(f.flag, f.flag) for f in findings)
    told = ["/".join(limits) if len(limits) == len(findings) else ""]
    told += [flag for flag in flags if flag not in word.split()]
    notes = ", ".join(note for note in (*told, word) if note)
    return f" ({notes})" if notes else ""
