"""What was known of a case at a step's clock, as the text that a full-information prompt shows: no more, no less.

The chart is opened exactly as for a search, so nothing later than the clock and no recorded label can be in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from clinical_data.case import Case
from clinical_data.catalogue import Catalogue, load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.store.case_reader import CaseReader
from clinical_data.vocabulary import Vocabulary
from evaluation.step_rules import StepRule
from search import prompts
from search.problem import SearchProblem

Passage = tuple[str, int]
"""Case id, and how many times the case has come to the step, from 1."""


@dataclass(frozen=True, slots=True)
class VisibleText:
    """The visible record of a case at the clock of a step.

    Attributes:
        text: vignette, opening and every recorded item, as the prompt words them.
        offered, recorded: items that may be requested, and those of them with a recorded answer.
    """

    text: str
    offered: int
    recorded: int


def visible_text(
    case: Case, step: str, rule: StepRule, catalogue: Catalogue, occurrence: int = 1
) -> VisibleText | None:
    """Returns the text of a case at the clock of an occurrence of a step; None where that does not apply to the case.

    Instruction, answers and cue, which are the same for every case, are left out. Earlier conclusions, which a run may
    show to later steps, are no facts of the record and are left out too.
    """
    clock = rule.clock_of(case, occurrence)
    if clock is None:
        return None
    opening = catalogue.named(rule.opening)
    items = catalogue.offered(rule.items, rule.opening)
    problem = SearchProblem(
        case_id=case.case_id,
        step=step,
        question="",
        answer_cue="",
        chart=open_chart(case, clock, catalogue),
        opening=opening,
        items=items,
        vocabulary=_NO_ANSWERS,
        clock_text=rule.clock_text(case.source, occurrence),
    )
    segments = list(prompts.opening(problem, rule.settings)[1:])
    recorded = 0
    for item in items:
        answer = problem.chart.request(item)
        if answer.state is AnswerState.RECORDED:
            recorded += 1
            segments += prompts.request_segments(item.display, answer, rule.settings)
    return VisibleText("".join(s.text for s in segments).lstrip(), len(items), recorded)


def visible_texts(
    engine: Engine, rules: Mapping[str, StepRule], wanted: Mapping[str, Iterable[Passage]]
) -> dict[str, dict[Passage, VisibleText]]:
    """Returns step -> (case id, occurrence) -> text, for those wanted per step that apply. Reads each case once.

    Args:
        engine: the database of the cases.
        rules: step -> rule.
        wanted: step -> (case id, occurrence).
    """
    steps_of: dict[str, list[tuple[str, int]]] = {}
    for step, passages in wanted.items():
        for case_id, occurrence in passages:
            steps_of.setdefault(case_id, []).append((step, occurrence))
    catalogues = {name: load_catalogue(name) for name in sorted({rules[step].catalogue for step in wanted})}
    found: dict[str, dict[Passage, VisibleText]] = {step: {} for step in wanted}
    reader = CaseReader(engine)

    def latest(case: Case) -> int | None:
        clocks = (rules[step].clock_of(case, occurrence) for step, occurrence in steps_of[case.case_id])
        return max((c for c in clocks if c is not None), default=None)

    for case_id in sorted(steps_of):
        case = reader.get(case_id, latest)
        for step, occurrence in steps_of[case_id]:
            rule = rules[step]
            text = visible_text(case, step, rule, catalogues[rule.catalogue], occurrence)
            if text is not None:
                found[step][case_id, occurrence] = text
    return found


_NO_ANSWERS = Vocabulary("", "", "", (), "")
