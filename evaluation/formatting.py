"""Values in words, for records and result tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinical_data.case import Finding


def value_text(finding: Finding) -> str:
    """Returns a finding's value without unit, on one line; "yes" for a fact that has no value."""
    if finding.value is None:
        return "yes"
    return number_text(finding.value) if isinstance(finding.value, float | int) else " ".join(finding.value.split())


def range_text(finding: Finding) -> str:
    """Returns the reference range, in the finding's unit: `3.5-5`, `>= 3.5`, `<= 5`, or nothing."""
    if finding.low is not None and finding.high is not None:
        return f"{number_text(finding.low)}-{number_text(finding.high)}"
    if finding.low is not None:
        return f">= {number_text(finding.low)}"
    return f"<= {number_text(finding.high)}" if finding.high is not None else ""


def number_text(number: float) -> str:
    """Returns a number with at most six significant digits and no needless zeros."""
    return f"{number:g}" if abs(number) < 1e6 else f"{number:.0f}"


def metric_text(metric: Mapping[str, Any], digits: int = 2) -> str:
    """Returns a metric with its 95 % interval: `0.42 (0.31 to 0.55)`, or `-` where there is none."""
    if metric["value"] is None:
        return "-"
    text = _fixed(metric["value"], digits)
    if metric["low"] is None or metric["high"] is None:
        return text
    return f"{text} ({_fixed(metric['low'], digits)} to {_fixed(metric['high'], digits)})"


def _fixed(number: float, digits: int) -> str:
    """Returns a number with so many decimals, and no minus before a zero."""
    text = f"{number:.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text
