"""The run record: everything that is kept of one case-step, and enough to redo it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

RECORD_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RankedAnswer(_Part):
    """One hypothesis of the conclusion, most probable first."""

    system: str
    code: str
    display: str
    probability: float


class RequestRecord(_Part):
    """One item opened in any branch. `on_path` marks those of the winning trajectory.

    `done_later` says whether an item not known at the clock was recorded afterwards; no model ever saw it.
    """

    item: str
    display: str = ""
    state: str
    cost: float
    on_path: bool
    done_later: bool = False


class FindingRecord(_Part):
    """One finding as it was shown: minutes from the start of the case."""

    finding_id: str
    name: str
    value: str
    unit: str = ""
    range: str = ""
    flag: str = ""
    charted: int
    available: int
    kind: str


class TurnRecord(_Part):
    """One turn of a stored trajectory."""

    kind: str
    text: str
    item: str = ""
    state: str = ""
    findings: tuple[FindingRecord, ...] = ()
    imagined: bool = False
    logprob: float = 0.0


class CandidateRecord(_Part):
    """One distinct concluded trajectory with its value and the peer's word.

    Attributes:
        chosen: keys of the items of a set; empty where one answer is asked for.
        draws, unparseable: samples of its vote, 0 when that was exact; those of them that named no answer.
    """

    node: int
    turns: tuple[TurnRecord, ...]
    answer_key: str | None
    answer: str = ""
    probability: float = 0.0
    multiplicity: int
    value: float
    agreement: float | None
    peer_answers: tuple[str | None, ...] = ()
    cuts: tuple[int, ...] = ()
    chosen: tuple[str, ...] = ()
    draws: int = 0
    unparseable: int = 0


class ReviewRecord(_Part):
    """What became of the question to a clinician that a step asks.

    Attributes:
        state: `skipped` (nobody was there: an offline replay), `waiting`, or `answered`.
        answer: codes of the clinician's answer; `display` says them in words.
        outdated: an earlier step, of which this one is told, was taken again since; so is its own search, beside which
            the answer stays.
    """

    state: str
    answer: tuple[str, ...] = ()
    display: str = ""
    outdated: bool = False


class RunRecord(_Part):
    """One case-step of a run. Truth and match are stored beside it, never in it.

    Attributes:
        clock: T in minutes from the start of the case; None when the step is not applicable.
        clock_text: T in words.
        opening: findings given in the prompt before any request, and unanswered opening items.
        chosen: codes of the items of a set, which `ranked` begins with; empty where one answer is asked for.
        draws, unparseable: samples of all votes of the generator; those of them that named no answer.
        vignette: age, sex and context as they were shown.
        tree: `search.tree` as plain data.
        hashes: sha256 of prompt templates, pathway, catalogue, vocabulary, case content.
        models: role -> identity (spec, name, revision, dtype, back-end, device).
        settings: the search settings, and strategy, value, chart access, seed.
        imagined_requests: distinct requests that a world model answered; they are no `requests`.
        review: of a step that asks a clinician as well; None of any other.
    """

    version: int = RECORD_VERSION
    case_id: str
    source: str
    source_id: str
    patient_id: str
    step: str
    occurrence: int = 1
    status: str
    reason: str = ""
    strategy: str
    clock: int | None = None
    clock_text: str = ""
    question: str = ""
    vignette: str = ""
    opening: tuple[TurnRecord, ...] = ()
    ranked: tuple[RankedAnswer, ...] = ()
    chosen: tuple[str, ...] = ()
    draws: int = 0
    unparseable: int = 0
    requests: tuple[RequestRecord, ...] = ()
    peer_agreement: float | None = None
    peer_is_generator: bool = True
    margin: float | None = None
    rollouts: int = 0
    imagined_requests: int = 0
    winner: int | None = None
    candidates: tuple[CandidateRecord, ...] = ()
    tree: dict[str, Any] | None = None
    tokens: dict[str, int] = {}
    seconds: float = 0.0
    repeatable: bool = True
    seed: int = 0
    settings: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    hashes: dict[str, str] = {}
    vocabulary: str = ""
    review: ReviewRecord | None = None
