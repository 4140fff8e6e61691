"""Peer verification: a second model completes a concluded trajectory from the middle, without seeing its answer.

Source: rStar, arXiv 2408.06195, section 3.3 (mutual reasoning consistency); cuts as in search.md.
"""

from __future__ import annotations

from dataclasses import replace

from clinical_data.vocabulary import Vocabulary
from search import answers, prompts
from search.actions import ActionKind
from search.desk import PEER, Part
from search.models.language_model import Segment
from search.trajectory import Trajectory, Turn, Verification
from search.turns import TurnMaker, samples_of

LOWEST, HIGHEST = 0.2, 0.8  # share of the turns that a prefix keeps


def boundaries(trajectory: Trajectory) -> list[int]:
    """Returns after how many turns a trajectory may be cut: within 20 to 80 % of its turns."""
    turns = len(trajectory.turns)
    return [k for k in range(1, turns) if LOWEST <= k / turns <= HIGHEST]


def cuts(trajectory: Trajectory, most: int, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Returns where to cut: boundaries before the model's own words name the answer, or else (redacted) all.

    At most `most`, evenly spread.
    """
    inside = boundaries(trajectory)
    key = str(trajectory.conclusion.answer_key)
    clean = [k for k in inside if not any(names_answer(t, key, vocabulary) for t in trajectory.turns[:k])]
    chosen = clean or inside
    if len(chosen) <= most:
        return tuple(chosen)
    if most <= 1:
        return tuple(chosen[len(chosen) // 2 :][:most])
    step = (len(chosen) - 1) / (most - 1)
    return tuple(chosen[round(i * step)] for i in range(most))


def names_answer(turn: Turn, code: str, vocabulary: Vocabulary) -> bool:
    """Says whether the model's own words of a turn name an answer; what the chart revealed does not count."""
    own = turn.action.kind is not ActionKind.REQUEST
    return own and any(answers.mentions(s.text, code, vocabulary) for s in turn.segments)


def redacted(turn: Turn, code: str, vocabulary: Vocabulary) -> Turn:
    """Returns the turn with the answer's names blanked out of the model's own words."""
    if not names_answer(turn, code, vocabulary):
        return turn
    segments = tuple(Segment(answers.redact(s.text, code, vocabulary)) for s in turn.segments)
    return replace(turn, text=answers.redact(turn.text, code, vocabulary), segments=segments)


def verify(trajectory: Trajectory, label: str, generator: TurnMaker) -> Part[Verification]:
    """Lets the peer complete each prefix to a conclusion; agreement is the share that reaches the same answer.

    A trajectory without an answer, or too short to cut, cannot be verified: its agreement is None.

    Args:
        trajectory: a concluded trajectory.
        label: its path in the tree; the peer's seeds derive from it.
        generator: the maker of the search's own turns.
    """
    key = trajectory.conclusion.answer_key
    vocabulary = generator.problem.vocabulary
    at = cuts(trajectory, generator.settings.peer_cuts, vocabulary)
    if key is None or not at:
        return Verification(None)
    maker = replace(generator, role=PEER)
    cue = Segment(prompts.PEER_CUE)
    prefixes = [tuple(redacted(t, key, vocabulary) for t in trajectory.turns[:k]) for k in at]
    spots = [maker.spot(turns, f"{label}|cut{k}") for k, turns in zip(at, prefixes, strict=True)]
    drawn = yield [maker.ask("think", (*spot.prompt, cue), spot.label) for spot in spots]
    done = [
        replace(spot, prompt=(*spot.prompt, cue, Segment(sample.text, sample.token_ids)))
        for spot, sample in zip(spots, samples_of(drawn), strict=True)
    ]
    votes = yield [maker.vote_ask(spot) for spot in done]
    reached = tuple(maker.concluded(spot, reply).answer_key for spot, reply in zip(done, votes, strict=True))
    return Verification(sum(a == key for a in reached) / len(reached), at, reached)
