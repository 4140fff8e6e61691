"""What the record later showed, kept apart from the case.

Nothing that runs while a case is open may import this module (checked by import-linter).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from clinical_data.case import Case, Coding


class Strength(StrEnum):
    """How far a label may be trusted, strongest first (clinical.md, "Recorded label per step")."""

    RECORDED_AT_TIME = "recorded-at-time"
    RECORDED_LATER = "recorded-later"
    TEXT_EXTRACTED = "text-extracted"
    PROXY = "proxy"
    GUIDELINE = "guideline"


@dataclass(frozen=True, slots=True)
class Label:
    """One recorded answer to a step.

    Attributes:
        coding: code, system and text as recorded.
        strength: how far to trust it.
        rank: 1 is the principal answer; others follow.
        entered: minute at which it was entered, None when the source does not say.
        source_row: table or resource and key that it was read from.
    """

    coding: Coding
    strength: Strength
    rank: int = 1
    entered: int | None = None
    source_row: str = ""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The recorded labels of one step of one case.

    Attributes:
        case_id, step: what it belongs to.
        labels: in order of rank; empty when absent.
        absent_reason: why there is none; empty exactly when `labels` is not.
    """

    case_id: str
    step: str
    labels: tuple[Label, ...] = ()
    absent_reason: str = ""

    def __post_init__(self) -> None:
        if bool(self.labels) == bool(self.absent_reason):
            raise ValueError(f"{self.case_id}/{self.step}: labels or a reason for their absence, not both")


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """What an importer yields: a case, and apart from it the truth per step name."""

    case: Case
    truth: dict[str, GroundTruth] = field(default_factory=dict)
