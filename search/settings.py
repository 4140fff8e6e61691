"""Every choice of a search, in one place: numbers, rules by name, and presets of the papers.

docs/search.md says where each choice comes from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from clinical_data.errors import UsageError, did_you_mean
from search.actions import ActionKind

# Rules that are chosen by one of several words; value sources and selection rules have tables of their own.
WORDS: dict[str, tuple[str, ...]] = {
    "calibration": ("contextual", "none"),
    "likelihood": ("mean", "sum"),
    "vote": ("exact", "drawn", "free"),
    "vote_stop": ("settled", "never"),
    "expansion": ("slot", "node"),
    "merge": ("equal", "never"),
    "stop": ("settled", "never"),
    "answer_list": ("shown", "hidden"),
    "chart_access": ("hindsight", "prospective"),
}


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Every choice of a search. Defaults as in search.md.

    Attributes:
        actions: kinds of turn that the search may take, by name, with commas between; `finish` is always among them.
            The peer takes over with a thought where they hold `think`, and concludes at once where they do not.
        rollouts: rollouts of one search; with prospective chart access, of each commit.
        depth: turns on a path, requests not counted.
        max_requests: requests on a path.
        min_requests: requests before a path may conclude, as long as there is something left to request.
        exploration: c of UCT.
        think, ask, request: children per slot of that kind.
        votes: most draws of one FINISH where the vote is not exact.
        ask_votes: draws of one ASK answer.
        imagine: draws of one imagined result, whose agreement is the state confidence of RAP.
        temperature, top_p: sampling.
        turn_tokens: most new tokens of one turn.
        wave: rollouts in flight at once.
        peer_cuts: most cuts of a trajectory that the peer completes.
        abstain_below: margin under which the step abstains.
        cost_weight: lambda of the cost term; 0 turns it off.
        likelihood_weight, confidence_weight, evaluation_weight: weights of the three rewards of RAP.
        max_tokens, max_cost_usd, max_seconds: budgets of one search: token positions of its prompts and samples,
            price of what was requested, wall time (which does not repeat); 0 means none.
        calibration: `contextual` divides each answer's likelihood by its likelihood without a case, `none` does not.
        likelihood: of an answer or item in several tokens: `mean` over them (small models favour short answers), or the
            `sum`, which is the probability that a tuned model has learned.
        vote: `exact` (likelihood of every answer), `drawn` (samples that can only name an answer), or `free` (free
            text, matched by names afterwards). A set of answers is drawn in any case, see `search.votes`.
        vote_stop: a drawn vote ends when it is `settled`, or `never` before all draws are in.
        expansion: `slot` generates the children of one slot when it is first taken, `node` those of all slots at once.
        merge: siblings of `equal` key become one node, or `never`.
        stop: the search ends when its answer is `settled`, or `never` before all rollouts are done.
        answer_list: the answers possible are `shown` in the prompt, or `hidden`: a model tuned on its vocabulary knows
            them, and every prompt is shorter by them.
        answer_values: most numbers of one measurement in an answer of the chart: the latest.
        answer_chars: most characters of one answer of the chart.
        chart_access: `hindsight` reads the chart in every branch, `prospective` imagines it and opens it on commit.
        value: name of the value source, or `model:SPEC` of a value model.
        selection: name of the final selection rule.
    """

    actions: str = "think, finish, ask, reask, rephrase, request"
    rollouts: int = 16
    depth: int = 5
    max_requests: int = 4
    min_requests: int = 0
    exploration: float = 1.4
    think: int = 3
    ask: int = 3
    request: int = 3
    votes: int = 16
    ask_votes: int = 5
    imagine: int = 3
    temperature: float = 0.8
    top_p: float = 0.95
    turn_tokens: int = 40
    wave: int = 1
    peer_cuts: int = 4
    abstain_below: float = 0.02
    cost_weight: float = 0.0
    likelihood_weight: float = 1.0
    confidence_weight: float = 1.0
    evaluation_weight: float = 1.0
    max_tokens: int = 0
    max_cost_usd: float = 0.0
    max_seconds: float = 0.0
    calibration: str = "contextual"
    likelihood: str = "mean"
    vote: str = "exact"
    vote_stop: str = "settled"
    expansion: str = "slot"
    merge: str = "equal"
    stop: str = "settled"
    answer_list: str = "shown"
    answer_values: int = 3
    answer_chars: int = 700
    chart_access: str = "hindsight"
    value: str = "self_consistency"
    selection: str = "verified"

    @property
    def kinds(self) -> tuple[ActionKind, ...]:
        """The kinds of turn that `actions` names."""
        return _kinds(self.actions)

    def with_options(self, **options: Any) -> SearchSettings:
        """Returns settings with some options changed.

        Raises:
            UsageError: an option that does not exist, or a value out of range.
        """
        known = {f.name for f in fields(self)}
        if unknown := sorted(set(options) - known):
            near = did_you_mean(unknown[0], sorted(known))
            raise UsageError(f"unknown search option {unknown[0]}{near}", hint=f"known: {', '.join(sorted(known))}")
        for name, value in options.items():
            _check_type(name, value, getattr(self, name))
        changed = replace(self, **options)
        changed = replace(changed, actions=", ".join(_kinds(changed.actions)))
        for name in _AT_LEAST_ONE:
            if getattr(changed, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        for name in _NOT_NEGATIVE:
            if getattr(changed, name) < 0:
                raise UsageError(f"{name} must not be negative")
        for name, words in WORDS.items():
            if getattr(changed, name) not in words:
                raise UsageError(f"{name} must be {' or '.join(words)}")
        if changed.min_requests > changed.max_requests:
            raise UsageError("min_requests must not exceed max_requests")
        if changed.temperature < 0 or not 0 < changed.top_p <= 1:
            raise UsageError("temperature must not be negative, top_p must lie above 0 and at most at 1")
        return changed


@cache
def _kinds(actions: str) -> tuple[ActionKind, ...]:
    """Returns kinds of turn named with commas between, each once, in fixed order."""
    named = {name.strip() for name in actions.split(",")}
    if unknown := sorted(named - {*ActionKind}):
        raise UsageError(f"unknown action {unknown[0] or '(empty)'}", hint=f"known: {', '.join(ActionKind)}")
    if ActionKind.FINISH not in named:
        raise UsageError("actions must hold finish: without it no search ends")
    if ActionKind.REASK in named and ActionKind.ASK not in named:
        raise UsageError("actions hold reask without ask: there is no question to answer again")
    return tuple(kind for kind in ActionKind if kind in named)


def _check_type(name: str, value: Any, default: Any) -> None:
    wanted = {int: "a whole number", float: "a number", str: "a word"}[type(default)]
    fits = isinstance(value, int | float) if isinstance(default, float) else isinstance(value, type(default))
    if not fits or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{name} must be {wanted}")


_AT_LEAST_ONE = (
    "rollouts", "depth", "think", "ask", "request", "votes", "ask_votes", "imagine", "turn_tokens", "wave",
    "answer_values", "answer_chars",
)  # fmt: skip
_NOT_NEGATIVE = (
    "exploration", "abstain_below", "cost_weight", "likelihood_weight", "confidence_weight", "evaluation_weight",
    "max_requests", "min_requests", "peer_cuts", "max_tokens", "max_cost_usd", "max_seconds",
)  # fmt: skip

# `paper`: 32 rollouts, depth 5, c 2, and nothing that the reference code lacks: eager expansion, no merging of equal
# siblings, drawn votes, no early end. Source: rStar, arXiv 2408.06195, and its code; depth 8 is its setting for MATH.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "rollouts": 32, "depth": 5, "exploration": 2.0, "expansion": "node", "merge": "never", "vote": "drawn",
        "vote_stop": "never", "stop": "never", "calibration": "none",
    },
    "paper-8": {
        "rollouts": 32, "depth": 8, "exploration": 2.0, "expansion": "node", "merge": "never", "vote": "drawn",
        "vote_stop": "never", "stop": "never", "calibration": "none",
    },
}  # fmt: skip


def preset(name: str) -> dict[str, Any]:
    """Returns the options of a preset.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset named {name}", hint=f"known: {', '.join(PRESETS)}")
    return dict(PRESETS[name])
