"""Figures in words: the names of metrics and baselines, their values, intervals and levels, in the language in use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from evaluation.review import words
from evaluation.review.language import look_up, say
from evaluation.review.words import money, percent, seconds_text, title_of

NameOf = Callable[[str], str]
"""From a step to its name in words."""

_PLAIN = frozenset(
    {
        "mrr",
        "brier",
        "log_score",
        "log_score_change",
        "expected_calibration_error",
        "area_under_risk_coverage",
        "quadratic_weighted_kappa",
        "requests",
    }
)


def level_text(level: str, step: str = "") -> str:
    """Returns what it means that two answers of a step agree at a level."""
    own = look_up("index.level_of", step, look_up("words.level_of", step, "")) if level in ("term", "group") else ""
    return own or words.level_text(level)


def baseline_text(name: str) -> str:
    """Returns the name of a baseline in words."""
    return look_up("index.baseline", name, title_of(name))


def metric_text(name: str, step: str = "") -> str:
    """Returns the name of a metric (`evaluation.metrics.summarise`) of a step in words."""
    if found := re.fullmatch(r"accuracy_(ccsr|chapter|group|term|block|category|code)", name):
        return say("index.metric.accuracy", level=level_text(found[1], step))
    if found := re.fullmatch(r"top_(\d+)", name):
        return say("index.metric.top", number=found[1])
    if found := re.fullmatch(r"set_(precision|recall|f1)_(\w+)", name):
        return say(f"index.metric.set_{found[1]}", level=level_text(found[2], step))
    if found := re.fullmatch(r"recall_at_(\d+)", name):
        return say("index.metric.recall_at", number=found[1])
    if found := re.fullmatch(r"gain_over_(\w+?)(?:_(ccsr|chapter))?", name):
        gain = say("index.metric.gain", baseline=baseline_text(found[1]))
        return f"{gain}{say('words.colon')}{level_text(found[2])}" if found[2] else gain
    return look_up("index.metric", name, title_of(name))


def metric_value(name: str, value: float | None) -> str:
    """Returns the value of a metric: a share in percent, a gain in percentage points, else a plain number."""
    if value is None:
        return ""
    if name.startswith("gain_"):
        return points(value)
    if name.endswith("_usd"):
        return money(round(value, 2))
    if name.startswith("tokens"):
        return f"{value:,.0f}"
    if name == "seconds":
        return seconds_text(value)
    return f"{value:.2f}".replace("-", "−") if name in _PLAIN else percent(value)


def points(share: float, *, sign: bool = True, unit: bool = True) -> str:
    """Returns a difference of shares in percentage points, with its sign unless it is told in words."""
    whole = int(abs(share) * 100 + 0.5)
    before = ("+" if share > 0 else "−") if sign and whole else ""
    number = f"{before}{whole}"
    return say("index.point" if whole == 1 else "index.points", number=number) if unit else number


def interval_text(name: str, metric: Mapping[str, Any]) -> str:
    """Returns the limits of a metric's interval in words; empty where it has none."""
    if metric.get("low") is None or metric.get("high") is None:
        return ""
    if name.startswith("gain_") and metric["low"] == metric["high"]:  # no patient differs: every resample is the same
        return say("index.too_few")
    low = points(metric["low"], unit=False) if name.startswith("gain_") else metric_value(name, metric["low"])
    return say("index.interval", low=low, high=metric_value(name, metric["high"]))
