"""The language model as a model of the world: it imagines what a request would show, and judges its own turns.

Source: RAP, arXiv 2305.14992, sections 3.1 (language model as world model) and 3.2 (rewards).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from search.actions import Action, ActionKind
from search.answers import softmax
from search.desk import Ask, Part, samples_of, scores_of
from search.models.language_model import ScoreRequest, Segment
from search.settings import SearchSettings
from search.trajectory import Turn
from search.turns import Spot, TurnMaker, agreement, majority
from search.wording import YES_NO

WORLD_MODEL = "world_model"  # the role; the generator's weights, under seeds of its own


def imagine(maker: TurnMaker, spot: Spot) -> Part[list[Turn]]:
    """Chooses distinct items as REQUEST does, and answers each by a text of the world model's own.

    Of `settings.imagine` draws the majority is taken; its share is the turn's confidence. What is imagined is no
    finding: the turn holds no answer of the chart and costs nothing.

    Args:
        maker: the maker of the search's own turns.
        spot: where the items are requested.

    Source: RAP, section 3.1; search.md, "Chart access".
    """
    wanted = yield from maker.choose_items(spot)
    cue = Segment(maker.words.CUES[ActionKind.REQUEST])
    stems = [(cue, Segment(f" {w.item.display}"), Segment(maker.words.RESULT_CUE)) for w in wanted]
    count = maker.settings.imagine
    dreamer = replace(maker, role=WORLD_MODEL)
    drawn = yield [
        dreamer.ask("imagine", (*spot.prompt, *stem), spot.label, w.item.item_id, i)
        for w, stem in zip(wanted, stems, strict=True)
        for i in range(count)
    ]
    samples = samples_of(drawn)
    turns = []
    for at, (w, stem) in enumerate(zip(wanted, stems, strict=True)):
        results = samples[at * count : (at + 1) * count]
        kept = majority(results)
        turns.append(
            Turn(
                Action(ActionKind.REQUEST, w.item.item_id),
                kept.text.strip(),
                (*stem, Segment(kept.text, kept.token_ids)),
                imagined=True,
                logprob=w.logprob,
                tokens=w.tokens,
                confidence=agreement(results),
            )
        )
    return turns


def evaluated(maker: TurnMaker, spot: Spot, turns: Sequence[Turn]) -> Part[list[Turn]]:
    """Returns turns made at a spot with the model's own opinion of each; without a question where nothing reads it.

    The opinion is p("Yes") over p("Yes") + p("No") after the question whether the step was useful; 0.5 where the
    model gives no finite likelihood.

    Source: RAP, section 3.2, "Self-evaluation by the LLM".
    """
    if not judges_itself(maker.settings) or not turns:
        return list(turns)
    cue = Segment(maker.words.EVALUATION_CUE)
    yes_no = YES_NO[maker.problem.language]
    replies = yield [
        Ask(maker.role, "evaluate", ScoreRequest((*spot.prompt, *turn.segments, cue), yes_no)) for turn in turns
    ]
    shares = [softmax(scores_of(reply).logprobs)[0] for reply in replies]
    return [replace(turn, evaluation=share) for turn, share in zip(turns, shares, strict=True)]


def judges_itself(settings: SearchSettings) -> bool:
    """Says whether self-evaluations count in the value of a trajectory."""
    return settings.value == "rap" and settings.evaluation_weight > 0
