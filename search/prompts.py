"""All text that a model is sent. Static text first, the growing path last, so that a path shares its prefix.

The hash of this file and of those that word measurements and vital signs goes into every record: a prompt can be found
again.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from itertools import accumulate
from pathlib import Path

from clinical_data.case import PRESENT, Finding
from clinical_data.chart import Answer, AnswerState, Chart
from clinical_data.naming import short_name
from search import measurements, vital_signs
from search.actions import ActionKind
from search.measurements import flat, notes_text, series_text, with_units
from search.models.language_model import Prompt, Segment
from search.problem import SearchProblem
from search.settings import SearchSettings
from search.trajectory import Turn

_SOURCES = (__file__, measurements.__file__, vital_signs.__file__)
TEMPLATE_HASH = hashlib.sha256(b"".join(Path(f).read_bytes() for f in _SOURCES)).hexdigest()

MOST_TEXTS = 3  # of one name: choices ticked together are findings of their own
BETWEEN = "; "  # measurements of one answer
DEFAULTS = SearchSettings()

# White space opens a segment and never ends one: a prompt then has the tokens of its whole text, on which sets train.
HEADER = "A doctor reviews a hospital record as it was known {clock}. {question}"
ANSWERS = "\nPossible answers: {answers}."
CASE = "\n\nPatient: {vignette}."
CUES = {
    ActionKind.THINK: "\nThought:",
    ActionKind.ASK: "\nQuestion:",
    ActionKind.REPHRASE: "\nIn other words:",
    ActionKind.REQUEST: "\nRequest:",
}
NO_CASE = CASE.format(vignette="not described")
REPLY_CUE = "\nReply:"
REASK_CUE = "\nReply, thinking again:"
PEER_CUE = "\nA second doctor takes over here, without knowing the first one's answer.\nThought:"
RESULT_CUE = "\nResult:"
EVALUATION_CUE = "\nWas this last step useful for the answer? Reply Yes or No:"
UNANSWERED = {
    AnswerState.PENDING: "taken, result pending",
    AnswerState.NOT_DONE_BY_NOW: "nothing recorded by now",
    AnswerState.DONE_RESULT_NOT_IN_SOURCE: "done, but the result is not in this record",
    AnswerState.NOT_IN_SOURCE: "this kind of information is not in this record",
    AnswerState.UNRECOGNISED: "not understood",
}
PERSON = {"female": "woman", "male": "man"}


def opening(problem: SearchProblem, settings: SearchSettings = DEFAULTS) -> Prompt:
    """Returns the prompt before any turn: instruction and answers (the same for all cases), then the case."""
    header = HEADER.format(clock=problem.clock_text, question=problem.question)
    if settings.answer_list == "shown":
        header += ANSWERS.format(answers="; ".join(e.display for e in problem.vocabulary.entries))
    lines = [CASE.format(vignette=vignette(problem.chart))]
    lines += [f"Earlier conclusion: {flat(text)}" for text in problem.earlier]
    for item in problem.opening:
        answer = problem.chart.request(item)
        if answer.state is AnswerState.RECORDED:
            lines.append(f"{item.display.capitalize()}: {answer_text(answer, settings)}")
    return (Segment(header), Segment("\n".join(lines)))


def without_case(opened: Prompt, cue: Segment) -> Prompt:
    """Returns the instruction and the cue with no case between: what a model answers before it has read anything."""
    return (opened[0], Segment(NO_CASE), cue)


def extend(prompt: Prompt, turns: tuple[Turn, ...]) -> Prompt:
    """Returns the prompt with turns appended."""
    return prompt + tuple(s for t in turns for s in t.segments)


def request_segments(display: str, answer: Answer, settings: SearchSettings = DEFAULTS) -> Prompt:
    """Returns what a REQUEST adds to a prompt: the item and the chart's answer."""
    result = f"{RESULT_CUE} {answer_text(answer, settings)}"
    return (Segment(CUES[ActionKind.REQUEST]), Segment(f" {display}"), Segment(result))


def answer_cue(problem: SearchProblem) -> Segment:
    """Returns the cue after which the answer stands."""
    return Segment(f"\n{problem.answer_cue}:")


def vignette(chart: Chart) -> str:
    """Returns age, sex and way of admission in one line: "woman, 67 years, admitted from ... to ..."."""
    person = PERSON.get(chart.sex, "patient")
    age = "age unknown" if chart.age is None else "90 years or older" if chart.age >= 90 else f"{chart.age} years"
    text = f"{person}, {age}"
    if source := chart.context.get("admission_source"):
        text += f", admitted from: {flat(source)}"
    if unit := chart.context.get("unit_type"):
        text += f", unit: {flat(unit)}"
    return text


def answer_text(answer: Answer, settings: SearchSettings = DEFAULTS) -> str:
    """Returns a chart's answer in words; what is not recorded is said to be so, never called normal.

    Vital signs come first, then what the source flags as out of range. It is cut after the last measurement that fits
    into `answer_chars`; a first one that does not fit is kept whole.
    """
    if answer.state is not AnswerState.RECORDED:
        return UNANSWERED[answer.state]
    signs, others = vital_signs.Bedside(settings.answer_values, answer.adult).parts(answer.findings)
    by_name: dict[str, list[Finding]] = defaultdict(list)
    for finding in others:
        by_name[short_name(finding.code)].append(finding)
    ordered = sorted(by_name.items(), key=lambda named: not named[1][-1].flag)  # what is out of range is not cut away
    series = (_series(name, own, settings.answer_values) for name, own in ordered)
    parts = list(dict.fromkeys((*signs, *series)))
    ends = accumulate(len(part) + len(BETWEEN) for part in parts)
    fit = max(sum(end - len(BETWEEN) <= settings.answer_chars for end in ends), 1)
    return BETWEEN.join([*parts[:fit], "..."] if fit < len(parts) else parts)


def _series(name: str, findings: list[Finding], most: int) -> str:
    """Returns one measurement with its latest values, at most so many, oldest first; range and flag of the last."""
    last = findings[-1]
    if last.value is None or last.value == PRESENT:
        return name
    notes = notes_text("", last)
    if isinstance(last.value, str) and not last.unit:
        distinct = list(dict.fromkeys(reversed(with_units(findings))))[:MOST_TEXTS]
        texts = BETWEEN.join(reversed(distinct))
        named = last.kind == "complaint" or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", texts, re.IGNORECASE)
        return f"{texts}{notes}" if named else f"{name}: {texts}{notes}"
    return f"{name} {series_text(findings, most)}{notes}"
