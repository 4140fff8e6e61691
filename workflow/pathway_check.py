"""What is wrong with a pathway that is well-formed: names of nothing, and rules that a case could not follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clinical_data.catalogue import Catalogue, load_catalogue
from clinical_data.clocks import HOURS
from clinical_data.errors import WardstarError, did_you_mean
from clinical_data.vocabulary import Vocabulary, load_vocabulary
from workflow.pathway_model import (
    ABSTAINED,
    ANSWER_SETTLED,
    BUDGET_LEFT,
    CLOCK_PASSED,
    END,
    HUMAN,
    SET,
    START,
    Edge,
    Pathway,
    Step,
)

SCORERS = ("icd", "group", "ordinal", "set", "log_score_change")
TREATMENT = "treatment"  # the name of its recorded labels, and of the catalogue's group

Trouble = tuple[tuple[str | int, ...], str]
"""Place in the file, and message."""


def troubles(pathway: Pathway) -> Iterator[Trouble]:
    """Yields everything that is well-formed but names what does not exist, or that no case could follow."""
    names = [s.name for s in pathway.steps]
    yield from ((("steps", i, "name"), f"step {n} occurs twice") for i, n in enumerate(names) if n in names[:i])
    try:
        catalogue = load_catalogue(pathway.catalogue)
    except WardstarError as error:
        yield ("catalogue",), error.message
        return
    for i, step in enumerate(pathway.steps):
        for place, message in (*_of_step(step, catalogue), *_treatment_too_early(pathway, i, catalogue)):
            yield ("steps", i, *place), message
    sound = True
    for i, edge in enumerate(pathway.edges):
        for field, message in _of_edge(edge, pathway, names):
            sound = False
            yield ("edges", i, field), message
    if sound:
        yield from _of_routes(pathway, names)


def _of_step(step: Step, catalogue: Catalogue) -> Iterator[Trouble]:
    ids = [i.item_id for i in catalogue.items]
    groups = sorted({i.group for i in catalogue.items})
    for part, wanted, there in (("opening", step.opening, ids), ("items", step.items, ids + groups)):
        for k, name in enumerate(wanted if isinstance(wanted, tuple) else ()):
            if name not in there:
                yield (part, k), f"no catalogue item {name!r}{did_you_mean(name, there)}"
    yield from _of_answer(step)
    for source, clock in step.clock.items() if step.repeat else ():
        if clock.anchor == "end_of_stay":
            yield ("clock", source, "anchor"), "nothing is asked again after the end of the stay"
        elif HOURS not in clock.text:
            yield ("clock", source, "text"), f"the clock of a step that repeats moves: its words need {HOURS}"


def _of_answer(step: Step) -> Iterator[Trouble]:
    if (step.answer.form == SET) != (step.answer.most is not None):
        at = "form" if step.answer.most is None else "most"
        yield ("answer", at), "`most` is the most answers of a set: a set needs it, no other form has it"
    if step.answer.form == "free" and step.search.get("vote", "free") != "free":
        yield ("search", "vote"), "a step with a free answer has the vote `free`"
    vocabularies = []
    for source, name in step.answer.vocabulary.items():
        try:
            vocabularies.append(load_vocabulary(name))
        except WardstarError as error:
            yield ("answer", "vocabulary", source), error.message
    for k, scorer in enumerate(step.scorers):
        if message := _misfit(scorer, step, vocabularies):
            yield ("scorers", k), message


def _misfit(scorer: str, step: Step, vocabularies: list[Vocabulary]) -> str:
    """Returns why a scorer has nothing to compare in a step; empty where it has, and for one that does not exist."""
    if scorer in SCORERS and not step.truth:
        return f"the step names no `truth` for the scorer {scorer}"
    if scorer == SET and step.answer.form != SET:
        return "the scorer set is for steps whose answer is a set"
    if scorer == "log_score_change" and not step.repeat:
        return "the scorer log_score_change is for steps that repeat"
    if scorer == "ordinal" and not any(all(e.code.isdigit() for e in v.entries) for v in vocabularies):
        return "the scorer ordinal is for vocabularies whose codes are numbers"
    return ""


def _treatment_too_early(pathway: Pathway, index: int, catalogue: Catalogue) -> Iterator[Trouble]:
    """Yields where a step shows in-hospital treatment before the treatment step, or at an earlier clock.

    Source: clinical.md, leakage trap 15.
    """
    step = pathway.steps[index]
    shown = {i.item_id for i in catalogue.items if i.shows_treatment}
    shown |= {i.group for i in catalogue.items if i.shows_treatment}
    treating = next((s for s in pathway.steps[: index + 1] if s.truth == TREATMENT), None)
    for part, wanted in (("opening", step.opening), ("items", step.items)):
        for k, name in enumerate(wanted if isinstance(wanted, tuple) else ()):
            if name not in shown:
                continue
            if treating is None:
                yield (part, k), f"{name} shows in-hospital treatment, which is hidden until the treatment step"
            elif early := [source for source in step.clock if _earlier(step, treating, source)]:
                yield (part, k), f"{name} shows in-hospital treatment before the clock of {treating.name} ({early[0]})"


def _earlier(step: Step, treating: Step, source: str) -> bool:
    """Says whether a step's clock is not surely at or after that of the treatment step."""
    own, other = step.clock[source], treating.clock.get(source)
    if own.anchor == "end_of_stay":
        return False
    return other is None or own.anchor != other.anchor or own.plus_minutes < other.plus_minutes


def _of_edge(edge: Edge, pathway: Pathway, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (field, message) of an edge."""
    if edge.from_ not in (*names, START):
        yield "from", f"no step named {edge.from_}{did_you_mean(edge.from_, names)}"
    elif edge.to not in (*names, END, HUMAN):
        yield "to", f"no step named {edge.to}{did_you_mean(edge.to, names)}"
    else:
        field = "when" if edge.when else "unless"
        if edge.from_ == START and edge.condition in (ABSTAINED, ANSWER_SETTLED, BUDGET_LEFT):
            yield field, f"{edge.condition} speaks of the step just taken; at the start there is none"
        if edge.to in (END, HUMAN) and edge.condition in (BUDGET_LEFT, CLOCK_PASSED):
            yield field, f"{edge.condition} speaks of the step that the edge leads to; {edge.to} is none"
        elif edge.condition == BUDGET_LEFT and pathway.step(edge.to).repeat is None:
            yield field, f"{BUDGET_LEFT} needs a bound: step {edge.to} states no `repeat`"
        if pathway.leads_back(edge):
            between = names[names.index(edge.to) : names.index(edge.from_) + 1]
            inside = [n for n in between if n == edge.to or _on_way(pathway, n, edge)]
            if unbound := [n for n in inside if pathway.step(n).repeat is None]:
                yield "to", f"the edge leads back, and step {unbound[0]} states no `repeat`: a loop needs a bound"


def _on_way(pathway: Pathway, name: str, edge: Edge) -> bool:
    """Says whether a step lies on some way from the target of an edge that leads back to its source."""
    return edge.from_ in _reached(pathway, name) and name in _reached(pathway, edge.to)


def _reached(pathway: Pathway, name: str) -> set[str]:
    """Returns a step and all to which its edges lead forwards."""
    found, open_names = {name}, [name]
    while open_names:
        for edge in pathway.edges_from(open_names.pop()):
            if edge.to not in (END, HUMAN, *found) and not pathway.leads_back(edge):
                found.add(edge.to)
                open_names.append(edge.to)
    return found


def _of_routes(pathway: Pathway, names: list[str]) -> Iterator[Trouble]:
    """Yields edges that are never taken, steps that no edge leads to, and bounds of no loop."""
    closed: set[str] = set()
    for i, edge in enumerate(pathway.edges):
        if edge.from_ in closed:
            yield ("edges", i), f"never taken: an edge from {edge.from_} before it has no condition"
        if edge.condition is None and not pathway.leads_back(edge):
            closed.add(edge.from_)
    reached = _reached(pathway, START) if pathway.edges else set(names)
    for i, name in enumerate(names):
        if name not in reached:
            yield ("steps", i, "name"), f"no edge leads to step {name}"
    looped: set[str] = set()
    for edge in (e for e in pathway.edges if pathway.leads_back(e)):
        looped |= {n for n in names if _on_way(pathway, n, edge)}
    places: list[tuple[Any, ...]] = [
        ("steps", i, "repeat") for i, s in enumerate(pathway.steps) if s.repeat and s.name not in looped
    ]
    yield from ((place, "no edge leads back to this step, so that it never repeats") for place in places)
