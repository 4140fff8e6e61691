"""One question to a search: the chart at its clock, what may be asked, and the form of the answer."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from clinical_data.catalogue import CatalogueItem
from clinical_data.chart import Chart
from clinical_data.errors import UsageError
from clinical_data.vocabulary import Vocabulary
from search.models.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class SearchProblem:
    """A step of a case as the search sees it. Holds nothing later than the clock and no ground truth.

    Attributes:
        case_id, step, occurrence: what is being worked on; seeds derive from them.
        question: what is asked ("What is the working diagnosis?").
        answer_cue: word before the answer ("Working diagnosis").
        chart: the chart cut at the clock.
        opening: items answered in the prompt before the search begins (chief complaint).
        items: what may be requested; the same for every patient.
        vocabulary: the closed list of answers.
        clock_text: the clock in words ("6 hours after unit admission").
        earlier: conclusions of earlier steps, in words (predicted, recorded or none).
    """

    case_id: str
    step: str
    question: str
    answer_cue: str
    chart: Chart
    opening: tuple[CatalogueItem, ...]
    items: tuple[CatalogueItem, ...]
    vocabulary: Vocabulary
    clock_text: str
    earlier: tuple[str, ...] = ()
    occurrence: int = 1


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Every choice of a search. Defaults as in search.md.

    Attributes:
        rollouts: rollouts of one search.
        depth: turns on a path, requests not counted.
        max_requests: requests on a path.
        exploration: c of UCT.
        think, ask, request: children per slot of that kind.
        votes: draws of one FINISH where the vote is not exact.
        ask_votes: draws of one ASK answer.
        temperature, top_p: sampling.
        turn_tokens: most new tokens of one turn.
        wave: rollouts in flight at once.
        peer_cuts: most cuts of a trajectory that the peer completes.
        abstain_below: margin under which the step abstains.
        cost_weight: lambda of the cost term; 0 turns it off.
        calibration: `contextual` divides each answer's likelihood by its likelihood without a case, `none` does not.
        value: name of the value source.
        selection: name of the final selection rule.
    """

    rollouts: int = 16
    depth: int = 5
    max_requests: int = 4
    exploration: float = 1.4
    think: int = 3
    ask: int = 3
    request: int = 3
    votes: int = 16
    ask_votes: int = 5
    temperature: float = 0.8
    top_p: float = 0.95
    turn_tokens: int = 40
    wave: int = 1
    peer_cuts: int = 4
    abstain_below: float = 0.02
    cost_weight: float = 0.0
    calibration: str = "contextual"
    value: str = "self_consistency"
    selection: str = "verified"

    def with_options(self, **options: Any) -> SearchSettings:
        """Returns settings with some options changed.

        Raises:
            UsageError: an option that does not exist, or a value out of range.
        """
        known = {f.name for f in fields(self)}
        if unknown := sorted(set(options) - known):
            raise UsageError(f"unknown search option {unknown[0]}", hint=f"known: {', '.join(sorted(known))}")
        for name, value in options.items():
            _check_type(name, value, getattr(self, name))
        changed = replace(self, **options)
        for name in ("rollouts", "depth", "think", "ask", "request", "votes", "ask_votes", "turn_tokens", "wave"):
            if getattr(changed, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        if changed.temperature < 0 or not 0 < changed.top_p <= 1:
            raise UsageError("temperature must not be negative, top_p must lie above 0 and at most at 1")
        if min(changed.exploration, changed.abstain_below, changed.cost_weight) < 0:
            raise UsageError("exploration, abstain_below and cost_weight must not be negative")
        if changed.calibration not in ("contextual", "none"):
            raise UsageError("calibration must be contextual or none")
        if changed.max_requests < 0 or changed.peer_cuts < 0:
            raise UsageError("max_requests and peer_cuts must not be negative")
        return changed


def _check_type(name: str, value: Any, default: Any) -> None:
    wanted = {int: "a whole number", float: "a number", str: "a word"}[type(default)]
    fits = isinstance(value, int | float) if isinstance(default, float) else isinstance(value, type(default))
    if not fits or isinstance(value, bool):
        raise UsageError(f"{name} must be {wanted}")


@dataclass(frozen=True, slots=True)
class Models:
    """The language models of a search. `peer` may be the generator itself, under other seeds and another prompt."""

    generator: LanguageModel
    peer: LanguageModel

    @property
    def peer_is_generator(self) -> bool:
        """Says whether both roles share one set of weights."""
        return self.peer is self.generator
