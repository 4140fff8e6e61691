"""How a pathway asks, teaches and scores a step, read from the text that a run's configuration holds.

The run may be older than the pathways of this program, so its own text decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from clinical_data.case import Case
from clinical_data.clocks import clock_words, minutes_of
from search.settings import SearchSettings

SET = "set"
_WORDING = ("answer_values", "answer_chars")


@dataclass(frozen=True, slots=True)
class StepRule:
    """What scoring and teaching need to know of one step.

    Attributes:
        truth: name under which its labels are stored.
        vocabularies: source -> name of a bundled vocabulary, or a YAML file.
        form: `closed`, `set` or `free`.
        most: most answers of a set.
        clocks: source -> (anchor of the case, minutes after it, the clock in words), of the first occurrence.
        every_minutes: how much later the clock of each next occurrence stands; 0 where the step does not repeat.
        opening: catalogue items answered before the search begins.
        items: catalogue items or groups on offer, or `all`.
        catalogue: name of the catalogue.
        answer_cue: word before the answer in prompts.
        review: a clinician answers as well.
        title: what the pathway calls the step.
        settings: search settings as far as they decide how the record is worded.
    """

    truth: str
    vocabularies: dict[str, str] = field(default_factory=dict)
    form: str = "closed"
    most: int = 1
    clocks: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    every_minutes: int = 0
    opening: tuple[str, ...] = ()
    items: str | tuple[str, ...] = "all"
    catalogue: str = "v1"
    answer_cue: str = ""
    review: bool = False
    title: str = ""
    settings: SearchSettings = field(default_factory=SearchSettings)

    def clock_of(self, case: Case, occurrence: int = 1) -> int | None:
        """Returns the minute of the clock of an occurrence; None where the case fixes none, or ended before it.

        Source: clinical.md, "Clock": a step whose clock lies after the end of the stay is not applicable.
        """
        rule = self.clocks.get(case.source)
        if rule is None or rule[0] not in case.anchors:
            return None
        clock = case.anchors[rule[0]] + minutes_of(rule[1], self.every_minutes, occurrence)
        end = case.anchors.get("end_of_stay")
        return None if end is not None and clock > end else clock

    def clock_text(self, source: str, occurrence: int = 1) -> str:
        """Returns the clock of an occurrence in words, of a source that has one."""
        _, minutes, text = self.clocks[source]
        return clock_words(text, minutes_of(minutes, self.every_minutes, occurrence))


def order_key(case_id: str, clock: float, occurrence: int, position: int) -> tuple[str, float, int, int]:
    """Returns by what the case-steps of a run are sorted; `position`: place of the step in its pathway.

    Where two clocks are equal, the loop that was begun first is ended first: the results of the first tests are read
    before the second tests are ordered.
    """
    return case_id, clock, occurrence, position


def step_rules(config: Mapping[str, Any]) -> dict[str, StepRule]:
    """Returns step name -> rule from the text of the pathway that a run's configuration holds; empty without one."""
    pathway = config.get("pathway")
    text = pathway.get("text") if isinstance(pathway, Mapping) else None
    if not text:
        return {}
    data = yaml.safe_load(text)
    catalogue, given = str(data.get("catalogue", "v1")), config.get("settings") or {}
    return {step["name"]: _rule(step, catalogue, given) for step in data.get("steps", ())}


def _rule(step: Mapping[str, Any], catalogue: str, given: Mapping[str, Any]) -> StepRule:
    own = {**given, **(step.get("search") or {})}
    answer, items = step.get("answer") or {}, step.get("items", "all")
    clocks = {
        source: (clock["anchor"], int(clock.get("plus_minutes", 0)), str(clock.get("text", "")))
        for source, clock in (step.get("clock") or {}).items()
    }
    return StepRule(
        truth=step.get("truth", ""),
        answer_cue=step.get("answer_cue", ""),
        review=bool(step.get("review")),
        title=str(step.get("title") or ""),
        vocabularies=dict(answer.get("vocabulary") or {}),
        form=answer.get("form", "closed"),
        most=int(answer.get("most") or 1),
        clocks=clocks,
        every_minutes=int((step.get("repeat") or {}).get("every_minutes", 0)),
        opening=tuple(step.get("opening", ())),
        items=items if items == "all" else tuple(items),
        catalogue=catalogue,
        settings=SearchSettings().with_options(**{name: own[name] for name in _WORDING if name in own}),
    )
