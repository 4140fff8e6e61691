"""Pathways: what is asked, when, and in which order, as data.

A pathway is a YAML file (see `workflow/pathways/inpatient.yaml`). Adding a step takes no Python. Truth selectors and
scorers are plain names here; the runner checks them, because nothing that serves an open case may know the truth.
"""

from __future__ import annotations

import difflib
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clinical_data.catalogue import Catalogue, load_catalogue
from clinical_data.errors import BadInputError, UsageError, WardstarError
from clinical_data.vocabulary import load_vocabulary
from search.settings import SearchSettings

END = "end"
ANCHORS = ("triage", "admission", "ed_arrival", "ed_departure", "end_of_stay")
PREDICATES = ("has_ed_stay", "abstained", "budget_left", "answer_settled", "clock_passed")
NOT_YET = ("budget_left",)  # a run has no budget of its own yet

_NAME = r"^[a-z][a-z0-9_]*$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Clock(_Part):
    """When a step is taken: an anchor of the case, plus minutes; `text` says it in prompts and reports."""

    anchor: Literal["triage", "admission", "ed_arrival", "ed_departure", "end_of_stay"]
    plus_minutes: int = 0
    text: str = Field(min_length=1)


class AnswerForm(_Part):
    """The form of the answer.

    Attributes:
        form: `closed`: one entry of a vocabulary; `set`: several of them; `free`: one answer in the model's own words,
            which are matched to the vocabulary afterwards. Prompts list the vocabulary in any case.
        vocabulary: its name, per source.
        most: most answers of a set.
    """

    form: Literal["closed", "set", "free"]
    vocabulary: dict[str, str]
    most: int | None = Field(default=None, ge=1)


class Step(_Part):
    """One diagnostic step.

    Attributes:
        clock: per source.
        opening: catalogue items answered before the search begins.
        items: catalogue items or groups that may be requested, or `all`.
        truth: name of the recorded labels that the conclusion is compared with.
        scorers: names of the comparisons.
        search: search settings of this step, in place of the run's own.
    """

    name: str = Field(pattern=_NAME)
    title: str
    question: str
    answer_cue: str
    clock: dict[str, Clock]
    opening: tuple[str, ...] = ()
    items: Literal["all"] | tuple[str, ...] = "all"
    answer: AnswerForm
    truth: str = Field(pattern=_NAME)
    scorers: tuple[str, ...] = ()
    search: dict[str, int | float | str] = {}

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value == END:
            raise ValueError(f"{END} is no name for a step")
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
    """From a step to a later one, or to `end`. The first edge of a step whose condition holds is taken."""

    from_: str = Field(alias="from")
    to: str
    when: str | None = None
    unless: str | None = None

    @field_validator("when", "unless")
    @classmethod
    def _known_predicate(cls, value: str | None) -> str | None:
        if value is not None and value not in PREDICATES:
            raise ValueError(f"unknown condition {value!r}; known: {', '.join(PREDICATES)}")
        if value in NOT_YET:
            raise ValueError(f"the condition {value} is not available yet")
        return value

    @model_validator(mode="after")
    def _one_condition(self) -> Edge:
        if self.when and self.unless:
            raise ValueError("name a condition under `when` or under `unless`, not both")
        return self


class Pathway(_Part):
    """Ordered steps and the edges between them. Without edges, each step leads to the next."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: str
    title: str
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
        raise UsageError(f"pathway {self.name} has no step {name}{_suggest(name, names)}", hint=_known("steps", names))

    def edges_from(self, name: str) -> tuple[Edge, ...]:
        """Returns the edges that leave a step, in order; the default one when the file names no edges at all."""
        if self.edges:
            return tuple(e for e in self.edges if e.from_ == name)
        names = [s.name for s in self.steps]
        after = names[names.index(name) + 1 :]
        return (Edge.model_validate({"from": name, "to": after[0]}),) if after else ()

    def to_mermaid(self) -> str:
        """Returns the pathway as a Mermaid flowchart."""
        lines = ["flowchart TD", "    start([case])"]
        for step in self.steps:
            texts = [c.text for c in step.clock.values()]
            clocks = texts[:1] if len(set(texts)) == 1 else [f"{source}: {c.text}" for source, c in step.clock.items()]
            label = "<br/>".join([f"<b>{step.title}</b>", *clocks, step.question]).replace('"', "'")
            lines.append(f'    {step.name}["{label}"]')
        lines += [f"    {END}_([end])", f"    start --> {self.steps[0].name}"]
        for step in self.steps:
            edges = self.edges_from(step.name)
            for edge in edges:
                condition = edge.when or (edge.unless and f"not {edge.unless}")
                arrow = f"-->|{condition.replace('_', ' ')}|" if condition else "-->"
                lines.append(f"    {step.name} {arrow} {f'{END}_' if edge.to == END else edge.to}")
            if all(e.when or e.unless for e in edges):
                lines.append(f"    {step.name} -->{'|otherwise|' if edges else ''} {END}_")
        return "\n".join(lines) + "\n"


class LoadedPathway(_Part):
    """A pathway with the text it was read from, which goes into the run's configuration."""

    pathway: Pathway
    text: str
    sha256: str


def known_pathways() -> list[str]:
    """Returns the names of the bundled pathways."""
    folder = Path(str(files("workflow.pathways")))
    return sorted(p.stem for p in folder.glob("*.yaml"))


def load_pathway(name: str) -> LoadedPathway:
    """Returns a bundled pathway by name, or the one in a YAML file.

    Raises:
        UsageError: no such pathway.
        BadInputError: the file is no valid pathway; names file, line and field.
    """
    path = Path(name)
    if not name.endswith((".yaml", ".yml")):
        names = known_pathways()
        if name not in names:
            hint = _known("pathways", names) + "; or name a YAML file"
            raise UsageError(f"no pathway named {name}{_suggest(name, names)}", hint=hint)
        path = Path(str(files("workflow.pathways") / f"{name}.yaml"))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError("not UTF-8 text", file=path) from error
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror})", file=path) from error
    return parse_pathway(text, file=str(path))


def parse_pathway(text: str, *, file: str = "pathway") -> LoadedPathway:
    """Returns the pathway written in a YAML text.

    Args:
        text: the YAML.
        file: what errors call it.

    Raises:
        BadInputError: as `load_pathway`.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise BadInputError(f"invalid YAML: {error.problem}", file=file, line=line) from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadInputError(f"invalid YAML: {error}", file=file) from error
    try:
        pathway = Pathway.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise _bad(file, root, place, message) from error
    for place, message in _troubles(pathway):
        raise _bad(file, root, place, message)
    return LoadedPathway(pathway=pathway, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())


def _troubles(pathway: Pathway) -> list[tuple[tuple[str | int, ...], str]]:
    """Returns (place, message) of everything that is well-formed but names what does not exist."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    names = [s.name for s in pathway.steps]
    found += [(("steps", i, "name"), f"step {n} occurs twice") for i, n in enumerate(names) if n in names[:i]]
    try:
        catalogue = load_catalogue(pathway.catalogue)
    except WardstarError as error:
        return [*found, (("catalogue",), error.message)]
    for i, step in enumerate(pathway.steps):
        found += [(("steps", i, *place), message) for place, message in _step_troubles(step, catalogue)]
    for i, edge in enumerate(pathway.edges):
        if edge.from_ not in names:
            found.append((("edges", i, "from"), f"no step named {edge.from_}{_suggest(edge.from_, names)}"))
        elif edge.to not in (*names, END):
            found.append((("edges", i, "to"), f"no step named {edge.to}{_suggest(edge.to, names)}"))
        elif edge.to != END and names.index(edge.to) <= names.index(edge.from_):
            found.append((("edges", i, "to"), "an edge must lead to a later step; loops are not available yet"))
    return found


def _step_troubles(step: Step, catalogue: Catalogue) -> list[tuple[tuple[str | int, ...], str]]:
    found: list[tuple[tuple[str | int, ...], str]] = []
    ids = [i.item_id for i in catalogue.items]
    groups = sorted({i.group for i in catalogue.items})
    for place, wanted, known in (("opening", step.opening, ids), ("items", step.items, ids + groups)):
        for k, name in enumerate(wanted if isinstance(wanted, tuple) else ()):
            if name not in known:
                found.append(((place, k), f"no catalogue item {name!r}{_suggest(name, known)}"))
    if (step.answer.form == "set") != (step.answer.most is not None):
        at = "form" if step.answer.most is None else "most"
        found.append((("answer", at), "`most` is the most answers of a set: a set needs it, no other form has it"))
    if step.answer.form == "free" and step.search.get("vote", "free") != "free":
        found.append((("search", "vote"), "a step with a free answer has the vote `free`"))
    for source, name in step.answer.vocabulary.items():
        try:
            load_vocabulary(name)
        except WardstarError as error:
            found.append((("answer", "vocabulary", source), error.message))
    return found


def _bad(file: str, root: yaml.Node | None, place: tuple[str | int, ...], message: str) -> BadInputError:
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    return BadInputError(message, file=file, line=_line(root, place), field=field or None)


def _line(node: yaml.Node | None, place: tuple[str | int, ...]) -> int | None:
    """Returns the line of a place in a YAML tree, from 1; that of its nearest ancestor when it is not there."""
    if node is None:
        return None
    line = node.start_mark.line + 1
    for part in place:
        inner: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    inner, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            inner = node.value[part]
            line = inner.start_mark.line + 1
        if inner is None:
            break
        node = inner
    return line


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _known(what: str, names: list[str]) -> str:
    return f"known {what}: {', '.join(names)}"
