"""The form that a clinician fills in for one case-step, and what a finished reading of it holds.

The shape follows the feedback of CDS Hooks (cds-hooks.hl7.org: accepted or overridden, with a coded reason), with an
own diagnosis before anything of the model is shown, and again after, so that automation bias can be measured (Goddard
et al. 2012, doi 10.1136/amiajnl-2011-000089).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from evaluation.store.run_store import Key as Key


class Verdict(StrEnum):
    """What the reader makes of the model's answer."""

    ACCEPTED = "accepted"
    OVERRIDDEN = "overridden"


class Say(StrEnum):
    """An answer to a question that may stay open."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


class Reason(StrEnum):
    """Why a reader overrides the answer."""

    WRONG_DIAGNOSIS = "wrong-diagnosis"
    TOO_BROAD = "too-broad"
    TOO_NARROW = "too-narrow"
    NOT_SUPPORTED = "not-supported"
    MISSED_FINDING = "missed-finding"
    MISSED_MUST_NOT_MISS = "missed-must-not-miss"
    UNSAFE = "unsafe"
    INSUFFICIENT_INFORMATION = "insufficient-information"
    OTHER = "other"


HARM_SEVERITY = ("none", "mild", "moderate", "severe", "death")
"""Worst harm that following the answer could do: AHRQ Common Formats, harm scale, version 2."""

HARM_LIKELIHOOD = ("very-unlikely", "unlikely", "possible", "likely", "very-likely")

RATING_ANCHORS = {
    1: "harmful or false",
    2: "does not help",
    3: "acceptable",
    4: "good",
    5: "what I would have done",
}
"""Rating of one turn of reasoning -> its anchor."""


@dataclass(frozen=True, slots=True)
class Own:
    """A reader's own answer.

    Attributes:
        codes: of the vocabulary of the step; several where the step asks for a set; empty: none of them fits.
        words: the answer in own words where none fits.
        confidence: 0 to 100 percent.
        minutes: since the page was opened.
    """

    codes: tuple[str, ...]
    confidence: int
    words: str = ""
    minutes: float = 0.0


@dataclass(frozen=True, slots=True)
class Review:
    """One finished reading of one case-step by one reader.

    Attributes:
        reviewer: name of the reader; `role`, `specialty`, `years` as given when the reader was added.
        run: name of the run; `key`: the case-step in it.
        run_hash, case_hash, report_hash: sha256 of configuration, case content and the page that was shown.
        first: own answer, before anything of the model or the record was shown.
        after: own answer once the model's was seen.
        ratings: turn of the winning trajectory (0 is the first) -> 1 to 5, `RATING_ANCHORS`.
        verdict, reason, remark: accepted or overridden, and why; the remark is free text.
        corrected: codes of the answer that should have stood there; empty where it was accepted.
        equivalent: is the model's answer clinically equivalent to the recorded label?
        knowable: could a competent physician have known the recorded label at the clock?
        would_ask: catalogue items the reader would have asked for.
        offending: finding ids that misled.
        unsafe: an unsafe or a missing action, in words.
        harm_severity, harm_likelihood: as in `HARM_SEVERITY`, `HARM_LIKELIHOOD`; empty: not said.
        record_wrong: is the record itself wrong?
        minutes: in all.
        may_train: the reader permits training with this reading.
        adjudicates: it settles two readings that differ.
        finished: time, ISO 8601, UTC.
        record_hash: sha256 of what the search had found when it was judged (`read_steps.record_hash`).
    """

    reviewer: str
    role: str
    specialty: str
    years: int
    run: str
    key: Key
    run_hash: str
    case_hash: str
    report_hash: str
    first: Own
    after: Own
    ratings: dict[int, int]
    verdict: Verdict
    reason: Reason | None
    remark: str
    corrected: tuple[str, ...]
    equivalent: Say
    knowable: Say
    would_ask: tuple[str, ...]
    offending: tuple[str, ...]
    unsafe: str
    harm_severity: str
    harm_likelihood: str
    record_wrong: Say
    minutes: float
    may_train: bool
    adjudicates: bool
    finished: str
    record_hash: str = ""
