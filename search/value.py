"""Where the value of a concluded trajectory comes from, chosen by name; every record says which."""

from __future__ import annotations

import math
from collections.abc import Callable

from clinical_data.errors import UsageError
from search.actions import ActionKind
from search.answers import softmax
from search.desk import VALUE, Ask, Part, scores_of
from search.models.language_model import ScoreRequest, Segment
from search.settings import SearchSettings
from search.trajectory import Conclusion, Trajectory, Turn
from search.turns import TurnMaker

ValueSource = Callable[[Trajectory, SearchSettings], float]
Judge = Callable[[Conclusion], float]
"""Says how right a conclusion is, in [0, 1]; made outside of the search, which knows no recorded label."""

GROUND_TRUTH = "ground_truth"
MODEL = "model:"  # before the SPEC of a value model
ENDINGS = (" well", " badly")
"""How a trajectory may end. A value model gives ln p of either at the end of its text; it never reads these words."""


def self_consistency(trajectory: Trajectory, settings: SearchSettings) -> float:
    """Returns the share of the vote for the leading answer, minus the cost term, kept within [0, 1].

    An unparseable draw counts only below the line; a trajectory without an answer is worth 0.

    Source: rStar, arXiv 2408.06195, section 3.2; Wang et al. 2022 (arXiv 2203.11171).
    """
    return _after_cost(trajectory.conclusion.share, trajectory, settings)


def rap(trajectory: Trajectory, settings: SearchSettings) -> float:
    """Returns the value of a trajectory by the rewards of its turns, minus the cost term, kept within [0, 1].

    sqrt(mean reward of the turns x share of the vote for the answer); 0 without an answer. The geometric mean keeps
    the value on the scale of a share, which UCT's constant is made for; a product would shrink it. Every turn has a
    reward, FINISH too, so that a short path is not ahead merely because it did little.

    Source: RAP, arXiv 2305.14992, section 3.2 (rewards) and 3.3 (mean over the steps of a path).
    """
    rewards = [reward(turn, trajectory.conclusion, settings) for turn in trajectory.turns]
    mean = sum(rewards) / len(rewards) if rewards else 0.0
    return _after_cost(math.sqrt(mean * trajectory.conclusion.share), trajectory, settings)


def reward(turn: Turn, conclusion: Conclusion, settings: SearchSettings) -> float:
    """Returns the reward of one turn, in [0, 1]: the weighted geometric mean of the three of RAP.

    Action likelihood: exp(mean ln p) of what the model wrote (of a REQUEST the item's name, of an ASK the reply it
    kept); of FINISH the share of the vote for its answer. State confidence: `Turn.confidence`. Self-evaluation:
    `Turn.evaluation`, left out where it was not asked. A weight of 0 leaves its reward out; with none left it is 1.

    Source: RAP, arXiv 2305.14992, section 3.2.
    """
    weighted = [
        (settings.likelihood_weight, likelihood(turn, conclusion)),
        (settings.confidence_weight, turn.confidence),
    ]
    if turn.evaluation is not None:
        weighted.append((settings.evaluation_weight, turn.evaluation))
    counted = [(weight, part) for weight, part in weighted if weight > 0]
    if any(part <= 0 for _, part in counted):
        return 0.0
    total = sum(weight for weight, _ in counted)
    return math.exp(sum(weight * math.log(part) for weight, part in counted) / total) if total else 1.0


def likelihood(turn: Turn, conclusion: Conclusion) -> float:
    """Returns the action likelihood of a turn, in [0, 1]; 0 where the model gave no finite number."""
    if turn.action.kind is ActionKind.FINISH:
        return conclusion.share
    mean = turn.logprob / max(turn.tokens, 1)
    return min(math.exp(mean), 1.0) if mean < math.inf else 0.0


def judged_by(judge: Judge) -> ValueSource:
    """Returns the value source that asks a judge: for training data, where the recorded labels steer the search."""

    def ground_truth(trajectory: Trajectory, settings: SearchSettings) -> float:
        return _after_cost(judge(trajectory.conclusion), trajectory, settings)

    return ground_truth


def _after_cost(value: float, trajectory: Trajectory, settings: SearchSettings) -> float:
    """Returns a value minus lambda x price of the path's requests, within [0, 1]. Source: search.md."""
    cost = sum(t.answer.cost_usd for t in trajectory.turns if t.answer is not None)
    return min(max(value - settings.cost_weight * cost, 0.0), 1.0)


VALUE_SOURCES: dict[str, ValueSource] = {"self_consistency": self_consistency, "rap": rap}
VALUE_NAMES = (*VALUE_SOURCES, GROUND_TRUTH)


def value_model(name: str) -> str:
    """Returns the SPEC of the model that a value source asks; empty where it asks none."""
    return name.removeprefix(MODEL) if name.startswith(MODEL) else ""


def check_value(name: str) -> None:
    """Raises UsageError where there is no value source of that name."""
    if name not in VALUE_NAMES and not value_model(name):
        known = f"{', '.join(VALUE_NAMES)}, {MODEL}FOLDER (`wardstar train stepwise` makes one)"
        raise UsageError(f"no value source named {name}", hint=f"known: {known}")


def appraised(trajectory: Trajectory, maker: TurnMaker, judge: Judge | None = None) -> Part[float]:
    """Returns the value of a concluded trajectory, in [0, 1], by the source that the settings name.

    A value model is asked at the end of the trajectory, answer included, and the cost term is taken off; a trajectory
    without an answer is worth 0, and nothing is asked. Where the model gives no finite number the value is 0.5.

    Args:
        trajectory: what to value.
        maker: the maker of its turns.
        judge: as `value_source`.
    """
    settings = maker.settings
    if not value_model(settings.value):
        return value_source(settings.value, judge)(trajectory, settings)
    if trajectory.conclusion.answer_key is None:
        return 0.0
    # as text: it learned from text, and may have another tokenizer than whoever sampled the turns
    prompt = tuple(Segment(s.text) for s in maker.spot(trajectory.turns, VALUE).prompt)
    (reply,) = yield [Ask(VALUE, VALUE, ScoreRequest(prompt, ENDINGS))]
    return _after_cost(softmax(scores_of(reply).logprobs)[0], trajectory, settings)


def value_source(name: str, judge: Judge | None = None) -> ValueSource:
    """Returns the value source of that name.

    Raises:
        UsageError: no such source, or `ground_truth` without a judge.
    """
    check_value(name)
    if value_model(name):
        raise UsageError(f"value {name} asks a model: see `appraised`")
    if name != GROUND_TRUTH:
        return VALUE_SOURCES[name]
    if judge is None:
        raise UsageError(f"value {GROUND_TRUTH} needs recorded labels, and none were given")
    return judged_by(judge)
