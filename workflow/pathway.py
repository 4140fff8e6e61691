"""Pathways: what is asked, when, and in which order, as data.

A pathway is a YAML file (see `workflow/pathways/inpatient.yaml` and docs/pathways.md). Adding a step takes no Python.
Truth selectors and scorers are plain names here; the runner checks them, because nothing that serves an open case may
know the truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from clinical_data.errors import BadInputError, UsageError, did_you_mean
from workflow.pathway_check import troubles
from workflow.pathway_model import END, HUMAN, PREDICATES, START, Clock, Edge, Pathway, Step, known

__all__ = [
    "END",
    "HUMAN",
    "PREDICATES",
    "START",
    "Clock",
    "Edge",
    "LoadedPathway",
    "Pathway",
    "Step",
    "known_pathways",
    "load_pathway",
    "parse_pathway",
]


class LoadedPathway(BaseModel):
    """A pathway with the text it was read from, which goes into the run's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
            hint = known("pathways", names) + "; or name a YAML file"
            raise UsageError(f"no pathway named {name}{did_you_mean(name, names)}", hint=hint)
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
    except RecursionError as error:
        raise BadInputError("nested too deeply", file=file) from error
    for key, field in _repeated(root):
        raise BadInputError("this key stands there twice", file=file, line=key.start_mark.line + 1, field=field)
    try:
        pathway = Pathway.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise _bad(file, root, place, message) from error
    for place, message in troubles(pathway):
        raise _bad(file, root, place, message)
    return LoadedPathway(pathway=pathway, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())


def _repeated(root: yaml.Node | None) -> Iterator[tuple[yaml.Node, str]]:
    """Yields each key that stands twice in a mapping, of which YAML takes the last, and the field it is."""
    waiting: list[tuple[yaml.Node | None, str]] = [(root, "")]
    met = set()  # what an alias names is one node
    while waiting:
        node, place = waiting.pop()
        if id(node) in met:
            continue
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(inner, f"{place}[{i}]") for i, inner in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            known = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # no pathway has such a key; the model refuses it
                field = f"{place}.{key.value}".lstrip(".")
                if (key.tag, key.value) in known:
                    yield key, field
                known.add((key.tag, key.value))
                waiting.append((value, field))


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
