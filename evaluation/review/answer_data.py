"""What pages say of the answer: the shares of what was considered, and what among it must not be missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinical_data.case import Coding
from clinical_data.ground_truth import Label, Strength
from clinical_data.vocabulary import Vocabulary
from evaluation.clinical_lists import MUST_NOT_MISS, clinical_list
from evaluation.record import RankedAnswer, RunRecord
from evaluation.review import set_data, words
from evaluation.review.language import count, say
from evaluation.review.page_data import GIVEN

BARS_SHOWN = 5
OTHER_ITEMS_SHOWN = 3
"""Least number of items shown after those of a set."""

DANGERS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """One answer with its share of the votes, or one item with the share of the lists that name it.

    Attributes:
        width: in percent of the bar.
        chosen: the answer given, or an item of the set that was.
    """

    display: str
    coding: str
    share: str
    width: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Dangers:
    """What must not be missed among the answers considered.

    Attributes:
        answers: (words, share, whether it is the answer given), largest share first.
        more: how many further ones had a smaller share.
        checked: somebody has held the list against its sources.
    """

    answers: tuple[tuple[str, str, bool], ...]
    more: int
    checked: bool


def bars(record: RunRecord) -> tuple[tuple[Bar, ...], str]:
    """Returns the answer, of a set every item, and those with the largest shares after it, and a line on the rest."""
    given, size = record.status in GIVEN, max(1, len(record.chosen))
    # Ranked by weight, which is not the share alone.
    others = sorted(record.ranked[size:], key=lambda a: -a.probability)
    answers = [*record.ranked[:size], *others]
    most = BARS_SHOWN if not record.chosen else max(BARS_SHOWN, size + OTHER_ITEMS_SHOWN)
    shown = tuple(
        Bar(
            set_data.name_of(a),
            f"{words.system_text(a.system)} {words.short(a.code, 80)}".strip(),
            words.percent(a.probability),
            f"{max(0.0, min(1.0, a.probability)) * 100:.1f}",
            given and index < size,
        )
        for index, a in enumerate(answers[:most])
    )
    lines = [_rest(answers[most:], bool(record.chosen))] if answers[most:] else []
    if others and others[0].probability > min(a.probability for a in answers[:size]):
        lines.append(say(f"case.bars.outweighed_{'set' if record.chosen else 'one'}"))
    if len(answers) > 1 and not record.chosen:
        lines.append(say("case.bars.even", n=len(answers), share=words.percent(1 / len(answers))))
    return shown, say("words.sentence_gap").join(lines)


def _rest(rest: Sequence[RankedAnswer], several: bool) -> str:
    if several:  # shares of items do not add up
        largest = words.percent(max(a.probability for a in rest))
        return say("case.bars.rest_set", others=count(len(rest), "other_item"), share=largest)
    together = words.percent(sum(a.probability for a in rest))
    return say("case.bars.rest_one", others=count(len(rest), "other_answer"), share=together)


def dangers(record: RunRecord, vocabulary: Vocabulary | None) -> Dangers | None:
    """Returns the answers considered that must not be missed; None where the list says nothing of such answers.

    Source: `evaluation/clinical_lists/must-not-miss.yaml`, which cites a paper for each entry.
    """
    known = clinical_list(MUST_NOT_MISS)
    if vocabulary is None or not record.ranked or not known.speaks_of(vocabulary):
        return None
    size = max(1, len(record.chosen))
    given = {a.code for a in record.ranked[:size]} if record.status in GIVEN else set()
    found = [a for a in record.ranked if known.covers(_label(a), vocabulary)]
    found.sort(key=lambda a: -a.probability)
    shown = tuple((set_data.name_of(a), words.percent(a.probability), a.code in given) for a in found[:DANGERS_SHOWN])
    return Dangers(shown, len(found) - len(shown), known.checked)


def _label(answer: RankedAnswer) -> Label:
    coding = Coding(answer.system, answer.code, answer.display)
    return Label(coding, Strength.RECORDED_LATER)  # the strength does not bear on the list
