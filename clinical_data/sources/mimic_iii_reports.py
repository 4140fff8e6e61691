"""Reduces a report of MIMIC-III to what the examination showed.

A radiology report of MIMIC-III opens with a block that the order filled in: "Admitting Diagnosis", the reason for the
examination, the underlying condition. The first is the recorded label of the admission step itself; the others are what
the ordering clinician thought. None of them is a result. They are cut off, as are sections of the same kind below, and
in echocardiography the indication.

Source: clinical_data.md, C (procedure indications are never shown).
"""

from __future__ import annotations

import re

_MASKED = re.compile(r"\[\*\*.*?\*\*\]", re.DOTALL)  # what the publisher took out; may hold a shifted date
_BODY = re.compile(r"^.*?\bFINAL REPORT\b", re.DOTALL | re.IGNORECASE)
_RULE = re.compile(r"_{20,}")
_INTERPRETATION = re.compile(r"^.*?\bINTERPRETATION\s*:", re.DOTALL)
_ORDERED = (
    r"(?:(?:BRIEF |PERTINENT |RELEVANT |PATIENT |PAST |MEDICAL |CLINICAL )*"
    r"(?:HISTORY|INDICATIONS?|INFORMATION|CONTEXT|QUESTION|DIAGNOS[IE]S|DETAILS?)(?:[ /&]+(?:AND )?[A-Z]+)*"
    r"|(?:ADMITTING|ADMISSION|PROVISIONAL|WORKING|PRE-?OPERATIVE|POST-?OPERATIVE) DIAGNOS[IE]S"
    r"|REASON(?: FOR)?(?: THIS| THE)?(?: EXAM\w*| STUDY| TEST)?"
    r"|UNDERLYING MEDICAL CONDITION|MEDICAL CONDITION)"
)
# A section ends at an empty line or at the next heading.
_SECTION = re.compile(
    rf"^[ \t]*(?i:{_ORDERED})[ \t]*:.*?(?=^[ \t]*$|^[ \t]*[A-Z][A-Z0-9 ,/&()'-]{{2,70}}:|\Z)", re.DOTALL | re.MULTILINE
)
_SPACES = re.compile(r"[ \t]+")
_GAPS = re.compile(r"\s*\n\s*\n\s*")


def findings_of(category: str, text: str) -> str:
    """Returns the part of a report that tells what was seen; empty where none can be told from what was ordered.

    Args:
        category: `Radiology`, `ECG` or `Echo`.
        text: the whole report.
    """
    if category == "Radiology":
        body = _BODY.sub("", text, count=1)
        if body == text:  # no mark: the result follows the last rule
            body = _RULE.split(text)[-1] if _RULE.search(text) else ""
    elif category == "Echo":
        body = _INTERPRETATION.sub("", text, count=1)
    else:
        body = text
    body = _MASKED.sub("___", _SECTION.sub("", body))
    lines = _SPACES.sub(" ", _RULE.sub("", body)).strip()
    return _GAPS.sub("\n", "\n".join(line.strip() for line in lines.splitlines()))
