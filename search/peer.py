"""Peer verification: a second model completes a concluded trajectory from the middle, without seeing its answer.

Source: rStar, arXiv 2408.06195, section 3.3 (mutual reasoning consistency); cuts as in search.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clinical_data.vocabulary import Vocabulary
from search import answers
from search.actions import ActionKind
from search.desk import PEER, Part, samples_of, together
from search.models.language_model import Segment
from search.trajectory import Conclusion, Trajectory, Turn, Verification
from search.turns import TurnMaker

LOWEST, HIGHEST = 0.2, 0.8  # share of the turns that a prefix keeps


def boundaries(trajectory: Trajectory) -> list[int]:
    """Returns after how many turns a trajectory may be cut: within 20 to 80 % of its turns."""
    turns = len(trajectory.turns)
    return [k for k in range(1, turns) if LOWEST <= k / turns <= HIGHEST]


def answer_keys(conclusion: Conclusion) -> tuple[str, ...]:
    """Returns the keys of an answer: one, or those of the chosen items of a set; none without an answer."""
    return conclusion.chosen or (() if conclusion.answer_key is None else (conclusion.answer_key,))


def cuts(trajectory: Trajectory, most: int, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Returns where to cut: boundaries before the model's own words name the answer, or else (redacted) all.

    At most `most`, evenly spread.
    """
    inside = boundaries(trajectory)
    keys = answer_keys(trajectory.conclusion)
    clean = [k for k in inside if not any(names_answer(t, keys, vocabulary) for t in trajectory.turns[:k])]
    chosen = clean or inside
    if len(chosen) <= most:
        return tuple(chosen)
    if most <= 1:
        return tuple(chosen[len(chosen) // 2 :][:most])
    step = (len(chosen) - 1) / (most - 1)
    return tuple(chosen[round(i * step)] for i in range(most))


def names_answer(turn: Turn, keys: Sequence[str], vocabulary: Vocabulary) -> bool:
    """Says whether the model's own words of a turn name one of some answers; what the chart revealed does not count."""
    own = turn.action.kind is not ActionKind.REQUEST
    return own and any(answers.mentions(s.text, key, vocabulary) for s in turn.segments for key in keys)


def redacted(turn: Turn, keys: Sequence[str], vocabulary: Vocabulary) -> Turn:
    """Returns the turn with the names of some answers blanked out of the model's own words."""
    if not names_answer(turn, keys, vocabulary):
        return turn

    def blank(text: str) -> str:
        for key in keys:
            text = answers.redact(text, key, vocabulary)
        return text

    return replace(turn, text=blank(turn.text), segments=tuple(Segment(blank(s.text)) for s in turn.segments))


def in_words(turn: Turn) -> Turn:
    """Returns the turn without the ids it was sampled as, which mean something else to another tokenizer."""
    return replace(turn, segments=tuple(Segment(s.text) for s in turn.segments))


def verify(
    trajectory: Trajectory, label: str, generator: TurnMaker, *, other_model: bool = False
) -> Part[Verification]:
    """Lets the peer complete each prefix to a conclusion of its own.

    Agreement is the mean over the completions of 1 for the same answer and 0 for another or none; for sets of their
    Jaccard index. A trajectory without an answer, or too short to cut, cannot be verified: its agreement is None.
    Where `actions` hold no thoughts the peer concludes from the prefix at once, in the words in which the generator
    would be asked: models that were tuned without thoughts have learned no others.

    Args:
        trajectory: a concluded trajectory.
        label: its path in the tree; the peer's seeds derive from it.
        generator: the maker of the search's own turns.
        other_model: the peer is not the generator, and may have a tokenizer of its own.
    """
    concluded, vocabulary = trajectory.conclusion, generator.problem.vocabulary
    keys = answer_keys(concluded)
    at = cuts(trajectory, generator.settings.peer_cuts, vocabulary)
    if not keys or not at:
        return Verification(None)
    maker = replace(generator, role=PEER)
    cue = Segment(generator.words.PEER_CUE)
    prefixes = [tuple(redacted(t, keys, vocabulary) for t in trajectory.turns[:k]) for k in at]
    if other_model:
        prefixes = [tuple(map(in_words, turns)) for turns in prefixes]
    spots = [maker.spot(turns, f"{label}|cut{k}") for k, turns in zip(at, prefixes, strict=True)]
    if ActionKind.THINK in maker.settings.kinds:
        drawn = yield [maker.ask("think", (*spot.prompt, cue), spot.label) for spot in spots]
        spots = [
            replace(spot, prompt=(*spot.prompt, cue, Segment(sample.text, sample.token_ids)))
            for spot, sample in zip(spots, samples_of(drawn), strict=True)
        ]
    outcomes = yield from together([maker.vote(spot) for spot in spots])
    reached = [outcome.conclusion for outcome in outcomes]
    agreement = sum(answers.agreement(concluded, own) for own in reached) / len(reached)
    return Verification(agreement, at, tuple(own.answer_key for own in reached))
