"""The report's plain words: times, units, states and figures as a clinician reads them, and text made safe to show."""

from __future__ import annotations

import re

from clinical_data import naming
from evaluation.review import language
from evaluation.review.language import look_up, say

TEXT_LIMIT = 4_000
"""Most characters shown of one text of a record."""

LEVELS = ("term", "code", "category", "block", "ccsr", "chapter", "group")
"""Levels of a match, from the finest."""

_NBSP = "\u00a0"
_EMBEDDING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_MARKS = re.compile("[\u061c\u200e\u200f\ufeff]")
# What XML 1.0 forbids, line and paragraph separators, and the C1 controls.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

_SYSTEMS = {
    "http://loinc.org": "LOINC",
    "http://snomed.info/sct": "SNOMED CT",
    "http://hl7.org/fhir/sid/icd-10-cm": "ICD-10-CM",
    "http://hl7.org/fhir/sid/icd-10": "ICD-10",
    "http://hl7.org/fhir/sid/icd-9-cm": "ICD-9-CM",
}
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    """Returns a text of a record fit to show: controls neutralised, cut at `limit` characters with a note.

    Characters that reorder a line (bidirectional embeddings, overrides, isolates) are shown by number instead of
    obeyed. Escaping for HTML is the templates' part.
    """
    shown = text[:limit]
    shown = _EMBEDDING.sub(lambda m: f"[U+{ord(m[0]):04X}]", _MARKS.sub("", shown))
    shown = _CONTROL.sub("\ufffd", shown.replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) > limit:
        shown += f" {say('words.cut', shown=f'{limit:,}', all=f'{len(text):,}')}"
    return shown


def short(text: str, limit: int) -> str:
    """Returns the first line of a text, cleaned and cut at `limit` characters with an ellipsis."""
    line = " ".join(clean(text[: limit * 4], limit * 4).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def title_of(name: str) -> str:
    """Returns an identifier as words: `admission_diagnosis` -> `Admission diagnosis`."""
    words = " ".join(clean(name, 200).replace("_", " ").split())
    return words[:1].upper() + words[1:]


def percent(share: float | None) -> str:
    """Returns a share in [0, 1] as whole percent, or an en dash."""
    if share is None:
        return "–"
    if 0 < share < 0.005:
        return say("words.under_one_percent")
    return f"{_half_up(share * 100)}{_NBSP}%"


def count(number: int, one: str, many: str = "") -> str:
    """Returns a number with its noun: `1 turn`, `3 turns`."""
    return f"{number:,}{_NBSP}{one if number == 1 else many or one + 's'}"


def duration(minutes: int) -> str:
    """Returns a span of minutes (not negative) in the largest units that matter: `2 h 10 min`, `3 days`, `5 years`."""
    hours, rest = divmod(minutes, 60)
    if minutes < 48 * 60:
        parts = [language.count(hours, "hour")] if hours else []
        if rest or not parts:
            parts.append(language.count(rest, "minute"))
        return " ".join(parts)
    days = minutes // 1440
    if days < 60:
        return language.count(days, "day")
    return language.count(days // 30, "month") if days < 730 else language.count(days // 365, "year")


def relative_time(minutes: int) -> str:
    """Returns a time, in minutes from the start of the case, as words: the span from admission.

    A record with shifted dates has no time of day. Hours count up to two days, as clinicians say `30 h`; then days.
    """
    if minutes < 0:
        return say("words.time.before", span=duration(-minutes))
    if minutes == 0:
        return say("words.time.at")
    if minutes < 48 * 60:
        return say("words.time.after", span=duration(minutes))
    days, rest = divmod(minutes, 1440)
    span = language.count(days, "day")
    return say("words.time.after", span=f"{span} {duration(rest)}" if rest else span)


def known_text(charted: int, available: int) -> str:
    """Returns when a finding was known, seen from when it was taken; both in minutes from the start of the case."""
    wait = available - charted
    return say("words.time.known_later", span=duration(wait)) if wait > 0 else say("words.time.known_at_once")


def seconds_text(seconds: float) -> str:
    """Returns a span in seconds: `4.2 s`, `3 min 05 s`, `2 h 04 min`."""
    if seconds < 60:
        return f"{seconds:.1f}{_NBSP}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{_NBSP}min {whole % 60:02d}{_NBSP}s"
    return f"{whole // 3600:,}{_NBSP}h {whole % 3600 // 60:02d}{_NBSP}min"


def money(dollars: float) -> str:
    """Returns a price in US dollars; what is free reads as such."""
    if dollars == 0:
        return say("words.free")
    return f"${dollars:,.0f}" if dollars == int(dollars) else f"${dollars:,.2f}"


def unit_text(unit: str) -> str:
    """Returns a UCUM unit as clinicians write and print it; other units stay as recorded."""
    text = naming.unit_text(clean(unit, 40))
    text = re.sub(r"\^(\d+)", lambda power: power[1].translate(_SUPERSCRIPT), text)
    return re.sub(r"\bu(?=(g|mol|L|mo)\b)", "µ", text)


def range_words(limits: str) -> str:
    """Returns a reference range with proper signs: `3.5-5` -> `3.5–5`, `>= 3.5` -> `≥ 3.5`."""
    limits = clean(limits, 80).strip().replace(">=", "≥").replace("<=", "≤")
    return re.sub(r"(?<=[\d.])\s*-\s*(?=[\d.])", "–", limits)


def sentence(text: str) -> str:
    """Returns a reason as a sentence: capital letter, full stop; an empty text stays empty."""
    line = short(text, 300)
    return f"{line[:1].upper()}{line[1:].rstrip('.')}." if line else ""


def flag_text(flag: str) -> str:
    """Returns an abnormality flag in words; an unknown flag stays as recorded."""
    flag = clean(flag, 40).strip()
    return look_up("words.flag", flag.upper(), flag)


def state_text(state: str) -> str:
    """Returns in words how a request was answered."""
    return look_up("words.state", state, title_of(state).lower())


def kind_text(kind: str) -> str:
    """Returns the kind of a turn in words."""
    return look_up("words.kind", kind, title_of(kind))


def step_text(name: str, occurrence: int = 1, title: str = "") -> str:
    """Returns the name of a step as clinicians say it.

    Args:
        name: its name in the pathway.
        occurrence: how often the pathway has come to it.
        title: the title that the pathway gives it. It goes before the table of words where it is in the language in
            use: an English page takes every title, a Chinese one those in Chinese.
    """
    shown = short(title, 120)
    if language.language() != language.ENGLISH and shown.isascii():
        shown = look_up("words.step", name, shown)
    shown = shown or look_up("words.step", name, title_of(name))
    return shown if occurrence == 1 else say("words.step_again", step=shown, n=occurrence)


def system_text(system: str) -> str:
    """Returns a code system by its usual name; the project's own lists read as such."""
    if system in _SYSTEMS:
        return _SYSTEMS[system]
    if system.startswith("wardstar:"):
        return say("words.own_list", name=clean(system.removeprefix("wardstar:"), 100))
    return clean(system, 200).removeprefix("http://").removeprefix("https://")


def level_text(level: str, step: str = "") -> str:
    """Returns a match level in words; a class of answers by what the answers of the step are, where that is named."""
    of_step = look_up("words.level_of", step, "") if level == "group" and step else ""
    return of_step or look_up("words.level", level, title_of(level).lower())


def strength_text(strength: str) -> str:
    """Returns in words how far a recorded label can be trusted."""
    return look_up("words.strength", strength, short(strength, 80) or say("words.strength_unknown"))


def draws_text(draws: int, unparseable: int) -> str:
    """Returns `12 of 16 draws named an answer`; an empty text where no vote was drawn."""
    return say("words.draws", named=f"{draws - unparseable:,}", draws=language.count(draws, "draw")) if draws else ""


def _half_up(value: float) -> int:
    return int(value + 0.5)
