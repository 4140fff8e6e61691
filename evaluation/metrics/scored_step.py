"""What metrics need to know of one case-step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.metrics.intervals import Metric, mean_metric

Value = Callable[["ScoredStep"], float | None]


@dataclass(frozen=True, slots=True)
class SetAnswer:
    """A set-valued answer (differential, workup, treatment) beside the recorded set.

    Attributes:
        chosen, recorded: level -> classes. A recorded label without a class of the vocabulary stays in the set under
            its own code, where no answer can find it.
        found_5: share of the recorded classes among the first 5 answers, at the level of the answer key.
        likely: classes of the answers with a probability above 0.01, at the level of the answer key.
        cost: US dollars of the chosen items, None where they are no items of the catalogue.
    """

    chosen: Mapping[str, frozenset[str]]
    recorded: Mapping[str, frozenset[str]]
    found_5: float
    likely: frozenset[str] = frozenset()
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class ScoredStep:
    """What metrics need to know of one case-step.

    Attributes:
        match: level -> 0 or 1; empty without a recorded label.
        classes: class of the principal label per level; empty when it is outside the vocabulary.
        labelled: a principal label is recorded and the step was applicable.
        rank: place of the label among the answers, from 1; None when none names it.
        credit: 1, 0.5 for a listed near miss, or 0; None without a label.
        brier: multi-class Brier score in [0, 2]; None without a label, and for a set.
        log_score: ln of the probability given to the label, floored; None without a label, and for a set.
        confidence: probability of the first answer's class, at the level of the answer key; None without an answer.
        right: the first answer is right at that level; None without a label.
        must_not_miss: where a label is on the list of what must not be missed, the shares of such labels that the
            answer names, and that the first 5 answers name; else None.
        urgency: (answered, recorded) level of a scale that begins with the most urgent; answered None without an
            answer. None for other vocabularies.
        answer_set: of a set-valued step with recorded labels.
        required: (fulfilled, all) items that a guideline requires for the recorded label and that the opening does not
            answer; None where there is no such rule.
        outside: no answer of the vocabulary could have been right.
        parseable: there is an answer.
        requests, unanswered: items opened, and those of them not answered by a recorded value.
        states: state of the answer -> items opened.
        cost: US dollars of all items opened.
        draws, unparseable_draws: samples of all votes of the generator, and those that named no answer.
        majority: share of the rollouts that conclude like most of them; None for less than two.
        ceiling: share of the items on offer that are recorded by the clock; None where it was not looked up.
        tokens: logical token counts.
    """

    case_id: str
    step: str
    occurrence: int
    source: str
    patient_id: str
    status: str
    match: dict[str, int] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    labelled: bool = False
    rank: int | None = None
    credit: float | None = None
    brier: float | None = None
    log_score: float | None = None
    confidence: float | None = None
    right: int | None = None
    must_not_miss: tuple[float, float] | None = None
    urgency: tuple[int | None, int] | None = None
    answer_set: SetAnswer | None = None
    required: tuple[int, int] | None = None
    outside: bool = False
    parseable: bool = True
    peer_agreement: float | None = None
    requests: int = 0
    unanswered: int = 0
    states: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0
    draws: int = 0
    unparseable_draws: int = 0
    majority: float | None = None
    ceiling: float | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str, int]:
        """Case, step and occurrence."""
        return self.case_id, self.step, self.occurrence


def mean_of(steps: Sequence[ScoredStep], value: Value, seed: int, *, share: bool = False) -> Metric:
    """Returns the mean over the steps that have a value, with its interval; `share`: see `mean_metric`."""
    pairs = [(v, s.patient_id) for s in steps if (v := value(s)) is not None]
    return mean_metric([v for v, _ in pairs], [p for _, p in pairs], seed, share=share)
