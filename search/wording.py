"""In which language a model is asked: the words of a prompt by language, and the hash by which they are found again.

The words of a language are a module with the names of `Wording`; `search.prompts` is the English one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from clinical_data.chart import Answer, Chart
from search import prompts, prompts_zh
from search.actions import ActionKind
from search.models.language_model import Prompt, Segment
from search.problem import SearchProblem
from search.settings import SearchSettings

ENGLISH, CHINESE = "en", "zh"


class Wording(Protocol):
    """What a language must say, under the names of `search.prompts`."""

    @property
    def CUES(self) -> Mapping[ActionKind, str]:
        """What opens a turn that the model writes."""

    @property
    def REPLY_CUE(self) -> str:
        """Before the reply to a sub-question."""

    @property
    def REASK_CUE(self) -> str:
        """Before a second reply to it."""

    @property
    def PEER_CUE(self) -> str:
        """Where a second model takes over."""

    @property
    def RESULT_CUE(self) -> str:
        """Before what the chart answers."""

    @property
    def EVALUATION_CUE(self) -> str:
        """After a turn that the model is to judge."""

    def opening(self, problem: SearchProblem, settings: SearchSettings) -> Prompt:
        """Returns the prompt before any turn."""

    def without_case(self, opened: Prompt, cue: Segment) -> Prompt:
        """Returns instruction and cue with no case between."""

    def request_segments(self, display: str, answer: Answer, settings: SearchSettings) -> Prompt:
        """Returns what a request adds to a prompt."""

    def vignette(self, chart: Chart) -> str:
        """Returns the patient in one line."""


_WORDINGS: dict[str, Wording] = {ENGLISH: prompts, CHINESE: prompts_zh}
LANGUAGES = tuple(_WORDINGS)
YES_NO = {ENGLISH: (" Yes", " No"), CHINESE: (" 是", " 否")}
"""Language -> the replies to whether a step was useful."""

ABSTAINED = {ENGLISH: "abstained, no answer was clear enough", CHINESE: "弃答，没有足够明确的答案"}
"""Language -> what later steps are told of an earlier one that abstained."""

_CHINESE_HASH = hashlib.sha256(prompts.TEMPLATE_HASH.encode() + Path(prompts_zh.__file__).read_bytes()).hexdigest()
_HASHES = {ENGLISH: prompts.TEMPLATE_HASH, CHINESE: _CHINESE_HASH}


def wording(language: str) -> Wording:
    """Returns the words of a language out of `LANGUAGES`."""
    return _WORDINGS[language]


def template_hash(language: str) -> str:
    """Returns the sha256 of what prompts of a language are made of."""
    return _HASHES[language]
