"""What a pathway consists of: steps, clocks, answer forms, and the edges between steps."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clinical_data.clocks import clock_words, minutes_of
from clinical_data.errors import UsageError, did_you_mean
from search.settings import SearchSettings

START, END, HUMAN = "start", "end", "human"
RESERVED = (START, END, HUMAN)
HAS_ED_STAY, ABSTAINED, BUDGET_LEFT = "has_ed_stay", "abstained", "budget_left"
ANSWER_SETTLED, CLOCK_PASSED = "answer_settled", "clock_passed"
PREDICATES = (HAS_ED_STAY, ABSTAINED, BUDGET_LEFT, ANSWER_SETTLED, CLOCK_PASSED)
SET = "set"
REQUIRED = "required"
MOST_MINUTES = 10**12  # of a clock: what can still be told in hours

_NAME = r"^[a-z][a-z0-9_]*$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Clock(_Part):
    """When a step is taken: an anchor of the case, plus minutes.

    `text` says it in prompts and reports; `{hours}` in it stands for the hours from the anchor.
    """

    anchor: Literal["triage", "admission", "ed_arrival", "ed_departure", "end_of_stay"]
    plus_minutes: int = Field(default=0, ge=-MOST_MINUTES, le=MOST_MINUTES)
    text: str = Field(min_length=1)


class Repeat(_Part):
    """The bound of a step that the pathway comes back to.

    Attributes:
        most: most occurrences in one case, the first included.
        every_minutes: how much later than the last the clock of each next occurrence stands.
    """

    most: int = Field(ge=2, le=100)
    every_minutes: int = Field(ge=1, le=MOST_MINUTES)


class AnswerForm(_Part):
    """The form of the answer.

    Attributes:
        form: `closed`: one entry of a vocabulary; `set`: several of them; `free`: one answer in the model's own words,
            which are matched to the vocabulary afterwards. Prompts list the vocabulary in any case.
        vocabulary: its name, per source: a bundled one, a YAML file, or `catalogue:NAME`, what a catalogue lets order.
        most: most answers of a set.
    """

    form: Literal["closed", "set", "free"]
    vocabulary: dict[str, str]
    most: int | None = Field(default=None, ge=1)


class Step(_Part):
    """One diagnostic step.

    Attributes:
        clock: per source.
        repeat: its bound, where the pathway comes back to it.
        opening: catalogue items answered before the search begins.
        items: catalogue items or groups that may be requested, or `all`.
        truth: name of the recorded labels that the conclusion is compared with; a step without is never scored.
        scorers: names of the comparisons.
        review: `required`: a clinician answers before the pathway goes on, where the run waits for one.
        search: search settings of this step, in place of the run's own.
    """

    name: str = Field(pattern=_NAME)
    title: str
    question: str
    answer_cue: str
    clock: dict[str, Clock]
    repeat: Repeat | None = None
    opening: tuple[str, ...] = ()
    items: Literal["all"] | tuple[str, ...] = "all"
    answer: AnswerForm
    truth: str = Field(default="", pattern=r"^([a-z][a-z0-9_]*)?$")
    scorers: tuple[str, ...] = ()
    review: Literal["required"] | None = None
    search: dict[str, int | float | str] = {}

    @property
    def most(self) -> int:
        """Most occurrences in one case."""
        return self.repeat.most if self.repeat else 1

    def minutes(self, source: str, occurrence: int = 1) -> int:
        """Returns the minutes from the clock's anchor at an occurrence; the source must have a clock."""
        every = self.repeat.every_minutes if self.repeat else 0
        return minutes_of(self.clock[source].plus_minutes, every, occurrence)

    def clock_text(self, source: str, occurrence: int = 1) -> str:
        """Returns the clock of an occurrence in words; empty for a source without one."""
        clock = self.clock.get(source)
        return "" if clock is None else clock_words(clock.text, self.minutes(source, occurrence))

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"{value} is no name for a step")
        return value

    @field_validator("search")
    @classmethod
    def _known_options(cls, value: dict[str, int | float | str]) -> dict[str, int | float | str]:
        try:
            SearchSettings().with_options(**value)
        except (UsageError, TypeError) as error:
            raise ValueError(str(error)) from error
        return value


class Edge(_Part):
    """From a step, or `start`, to a step, `end` or `human`. The first edge whose condition holds is taken.

    An edge that leads back is taken only within the bound of the step that it leads to, whatever its condition.
    """

    from_: str = Field(alias="from")
    to: str
    when: str | None = None
    unless: str | None = None

    @property
    def condition(self) -> str | None:
        """The predicate, asked for or ruled out; None for none."""
        return self.when or self.unless

    @field_validator("when", "unless")
    @classmethod
    def _known_predicate(cls, value: str | None) -> str | None:
        if value is not None and value not in PREDICATES:
            raise ValueError(f"unknown condition {value!r}; known: {', '.join(PREDICATES)}")
        return value

    @model_validator(mode="after")
    def _one_condition(self) -> Edge:
        if self.when and self.unless:
            raise ValueError("name a condition under `when` or under `unless`, not both")
        return self


class Pathway(_Part):
    """Ordered steps and the edges between them. Without edges, each step leads to the next.

    Attributes:
        language: in which the model is asked (`search.wording`); questions, cues and titles are the pathway's own.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: str
    title: str
    language: Literal["en", "zh"] = "en"
    catalogue: str = "v1"
    steps: tuple[Step, ...] = Field(min_length=1)
    edges: tuple[Edge, ...] = ()

    @field_validator("version", mode="before")
    @classmethod
    def _version_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    def step(self, name: str) -> Step:
        """Returns the step of that name.

        Raises:
            UsageError: no such step.
        """
        for step in self.steps:
            if step.name == name:
                return step
        names = [s.name for s in self.steps]
        raise UsageError(
            f"pathway {self.name} has no step {name}{did_you_mean(name, names)}", hint=known("steps", names)
        )

    def edges_from(self, name: str) -> tuple[Edge, ...]:
        """Returns the edges that leave a step or `start`, in order.

        Where the file names no edges at all, each step leads to the next; where none leaves `start`, the first step is
        where a case begins.
        """
        names = [s.name for s in self.steps]
        own = tuple(e for e in self.edges if e.from_ == name)
        if own or (self.edges and name != START):
            return own
        after = names if name == START else names[names.index(name) + 1 :]
        return (Edge.model_validate({"from": name, "to": after[0]}),) if after else ()

    def leads_back(self, edge: Edge) -> bool:
        """Says whether an edge leads to its own step or to an earlier one."""
        names = [s.name for s in self.steps]
        inner = edge.from_ in names and edge.to in names
        return inner and names.index(edge.to) <= names.index(edge.from_)

    @property
    def loops(self) -> bool:
        """Says whether some edge leads back."""
        return any(self.leads_back(e) for e in self.edges)

    def to_mermaid(self) -> str:
        """Returns the pathway as a Mermaid flowchart: loops dotted, with their bound; the human end if there is one."""
        lines = ["flowchart TD", f"    {START}([case])"]
        lines += [f'    {step.name}["{_label(step)}"]' for step in self.steps]
        lines.append(f"    {END}_([end])")
        arrows = self._arrows(START)
        for step in self.steps:
            arrows += self._arrows(step.name)
        if any(e.to == HUMAN for e in self.edges):
            lines.append(f"    {HUMAN}_([goes to a human])")
        return "\n".join([*lines, *arrows]) + "\n"

    def _arrows(self, name: str) -> list[str]:
        arrows, edges, otherwise = [], self.edges_from(name), True
        for edge in edges:
            said = edge.when or (edge.unless and f"not {edge.unless}") or ""
            back = self.leads_back(edge)
            words = [said.replace("_", " ")] if said else []
            if back:
                words.append(f"at most {self.step(edge.to).most} times")
            arrow = "-.->" if back else "-->"
            label = f"|{', '.join(words)}|" if words else ""
            target = f"{edge.to}_" if edge.to in (END, HUMAN) else edge.to
            arrows.append(f"    {name} {arrow}{label} {target}")
            otherwise = otherwise and (back or bool(edge.condition))
        if otherwise:
            arrows.append(f"    {name} -->{'|otherwise|' if edges else ''} {END}_")
        return arrows


def known(what: str, names: list[str]) -> str:
    """Returns a hint that lists what there is."""
    return f"known {what}: {', '.join(names)}"


def _label(step: Step) -> str:
    texts = [step.clock_text(source) for source in step.clock]
    clocks = texts[:1] if len(set(texts)) == 1 else [f"{s}: {t}" for s, t in zip(step.clock, texts, strict=True)]
    lines = [f"<b>{step.title}</b>", *clocks, step.question]
    if step.repeat:
        lines.append(f"again every {step.repeat.every_minutes / 60:g} h, at most {step.most} times")
    if step.review:
        lines.append("a clinician answers as well")
    return "<br/>".join(lines).replace('"', "'")
