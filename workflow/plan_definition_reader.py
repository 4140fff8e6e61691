"""Reads pathways from FHIR R4 `PlanDefinition`: the way back of `workflow.plan_definition`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml
from pydantic import ValidationError

from clinical_data.errors import BadInputError
from clinical_data.fhir_check import place_of, read_resource
from workflow.pathway import LoadedPathway, Pathway, parse_pathway
from workflow.plan_definition import (
    CATALOGUE,
    EXTENSION,
    LANGUAGE,
    RESOURCE,
    SYSTEM,
    VALUE_SET,
    Json,
    to_plan_definition,
)


def read_plan_definition(path: Path) -> tuple[LoadedPathway, bool]:
    """Returns the pathway in a `PlanDefinition` file as YAML, and whether all that the file says is in it.

    Raises:
        BadInputError: no JSON, no valid `PlanDefinition`, none of a pathway, or one that no pathway can be; names file
            and element.
    """
    plan = read_resource(path, RESOURCE)
    loaded = from_plan_definition(plan, file=str(path))
    return loaded, to_plan_definition(loaded.pathway) == plan


def from_plan_definition(plan: Mapping[str, Any], *, file: str) -> LoadedPathway:
    """Returns the pathway that a valid `PlanDefinition` holds, with YAML to write.

    Raises:
        BadInputError: as `read_plan_definition`.
    """
    data = _Reader(plan, file).pathway()
    try:
        pathway = Pathway.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        raise BadInputError(f"as a pathway: {message}", file=file, field=place_of(first["loc"])) from error
    text = pathway_text(pathway)
    try:
        return parse_pathway(text, file=file)
    except BadInputError as error:  # its line is one of a YAML text that nobody has seen
        message = error.message.removeprefix(f"{file}:{error.line}: {error.field}: ")
        raise BadInputError(f"as a pathway: {message}", file=file, field=error.field) from error


def pathway_text(pathway: Pathway) -> str:
    """Returns a pathway as the YAML text of a pathway file."""
    data = pathway.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
    if yaml.safe_load(text) != data:  # a rare character that YAML reads otherwise when it stands there as itself
        text = yaml.safe_dump(data, sort_keys=False, width=110)
    return text


class _Reader:
    """Reads a valid `PlanDefinition`; every error names file and element."""

    def __init__(self, plan: Mapping[str, Any], file: str) -> None:
        plan = _without_nulls(plan)  # FHIR knows none, but its models let them through
        self._plan, self._file = plan, file
        self._anchors: dict[str, str] = {}  # id of an action -> what it stands for
        self._targets: dict[str, str] = {}
        self._goals = {goal.get("id"): (goal, f"goal[{i}]") for i, goal in enumerate(plan.get("goal", []))}

    def pathway(self) -> Json:
        """Returns the pathway as its YAML would say it."""
        named = [i.get("value") for i in self._plan.get("identifier", []) if i.get("system") == f"{SYSTEM}/pathway"]
        if not named:
            raise self._wrong("identifier", f"no pathway: no identifier of system {SYSTEM}/pathway")
        data: Json = {"name": named[0], **self._kept(self._plan, "", "")}
        data |= {key: self._plan[key] for key in ("version", "title") if key in self._plan}
        for artifact in self._plan.get("relatedArtifact", []):
            if str(artifact.get("resource", "")).startswith(CATALOGUE):
                data["catalogue"] = unquote(artifact["resource"].removeprefix(CATALOGUE))
        steps: list[tuple[Json, str, str]] = []
        leaving: list[tuple[Json, str, str]] = []
        for i, action in enumerate(self._plan.get("action", [])):
            place = f"action[{i}]"
            kind, code = self._kind(action, place)
            if kind == "anchor":
                self._anchors[self._needed(action, "id", place)] = code
            else:
                self._targets[self._needed(action, "id", place)] = code
            if kind == "step":
                steps.append((action, code, place))
            if kind in ("step", "entry"):
                leaving.append((action, code, place))
        if not steps:
            raise self._wrong("action", "no step of a pathway")
        data["steps"] = [self._step(action, name, place) for action, name, place in steps]
        edges = [edge for action, name, place in leaving for edge in self._edges(action, name, place)]
        if edges:
            data["edges"] = [edge for _, edge in sorted(edges, key=lambda pair: pair[0])]
        return data

    def _kind(self, action: Json, place: str) -> tuple[str, str]:
        for concept in action.get("code", []):
            for kind in ("step", "anchor", "entry", "exit"):
                if code := self._code(concept, kind):
                    return kind, code
        raise self._wrong(f"{place}.code", "neither step, anchor, start nor end of a pathway")

    def _step(self, action: Json, name: str, place: str) -> Json:
        step: Json = {"name": name, **self._kept(action, "-step", place)}
        for element, key in (("title", "title"), ("description", "question")):
            if element in action:
                step[key] = action[element]
        clocks = [self._clock(r, f"{place}.relatedAction[{i}]") for i, r in enumerate(action.get("relatedAction", []))]
        if clocks:
            step["clock"] = dict(clocks)
        for i, wanted in enumerate(action.get("input", [])):
            role, item = self._input(wanted, f"{place}.input[{i}]")
            step.setdefault(role, []).append(item)
        outputs = [self._output(o, f"{place}.output[{i}]") for i, o in enumerate(action.get("output", []))]
        step["answer"] = self._kept(action, "-answer", place)
        if outputs:
            step["answer"]["vocabulary"] = dict(outputs)
        for goal_id in action.get("goalId", []):
            if goal_id not in self._goals:
                raise self._wrong(f"{place}.goalId", "no goal of this id")
            goal, where = self._goals[goal_id]
            step["truth"] = self._code(goal["description"], "truth", f"{where}.description")
            for i, target in enumerate(goal.get("target", [])):
                scorer = self._code(target.get("measure", {}), "scorer", f"{where}.target[{i}].measure")
                step.setdefault("scorers", []).append(scorer)
        return step

    def _clock(self, related: Json, place: str) -> tuple[str, Json]:
        rest = self._kept(related, "-clock", place)
        source = self._source(rest, place)
        if related.get("actionId") not in self._anchors:
            raise self._wrong(f"{place}.actionId", "no anchor of this id")
        clock = {"anchor": self._anchors[related["actionId"]], **rest}
        if offset := related.get("offsetDuration"):
            minutes = offset.get("value")
            if offset.get("code") != "min" or isinstance(minutes, bool) or not isinstance(minutes, int):
                raise self._wrong(f"{place}.offsetDuration", "a clock needs whole minutes")
            clock["plus_minutes"] = -minutes if str(related.get("relationship")).startswith("before") else minutes
        return source, clock

    def _input(self, wanted: Json, place: str) -> tuple[str, str]:
        roles = [e.get("valueCode") for e in wanted.get("extension", []) if e.get("url") == f"{EXTENSION}-input"]
        if len(roles) != 1 or roles[0] not in ("opening", "items"):
            raise self._wrong(f"{place}.extension", f"needs {EXTENSION}-input: opening or items")
        codes = [c.get("code") for f in wanted.get("codeFilter", []) for c in f.get("code", [])]
        if len(codes) != 1 or not codes[0]:
            raise self._wrong(f"{place}.codeFilter", "needs the code of one catalogue item")
        return str(roles[0]), str(codes[0])

    def _output(self, output: Json, place: str) -> tuple[str, str]:
        sets = [str(f.get("valueSet", "")) for f in output.get("codeFilter", [])]
        if len(sets) != 1 or not sets[0].startswith(VALUE_SET):
            raise self._wrong(f"{place}.codeFilter", f"needs one value set {VALUE_SET}...")
        return self._source(self._kept(output, "-output", place), place), unquote(sets[0].removeprefix(VALUE_SET))

    def _source(self, rest: Json, place: str) -> str:
        source = rest.pop("source", None)
        if not isinstance(source, str):
            raise self._wrong(f"{place}.extension", "names no source of data")
        return source

    def _edges(self, action: Json, name: str, place: str) -> Iterable[tuple[int, Json]]:
        for i, way in enumerate(action.get("action", [])):
            where = f"{place}.action[{i}]"
            number = str(way.get("prefix", ""))
            if not (number.isascii() and number.isdecimal() and len(number) < 10):
                raise self._wrong(f"{where}.prefix", "must be the number of an edge")
            related = self._needed(way, "relatedAction", where)[0]
            if related.get("actionId") not in self._targets:
                raise self._wrong(f"{where}.relatedAction[0].actionId", "no step or end of this id")
            edge = {"from": name, "to": self._targets[related["actionId"]], **self._kept(way, "-edge", where)}
            for condition in way.get("condition", []):
                expression = condition.get("expression", {})
                if expression.get("language") != LANGUAGE:
                    raise self._wrong(f"{where}.condition", f"needs an expression in {LANGUAGE}")
                text = str(expression.get("expression", ""))
                edge["unless" if text.startswith("not ") else "when"] = text.removeprefix("not ")
            yield int(number), edge

    def _kept(self, part: Mapping[str, Any], kind: str, place: str) -> Json:
        """Returns the keys in the extension of a part."""
        found: Json = {}
        for i, extension in enumerate(part.get("extension", [])):
            if extension.get("url") == EXTENSION + kind:
                at = f"{place}.extension[{i}]".lstrip(".")
                inner = enumerate(extension.get("extension", []))
                found |= {str(one.get("url")): self._value(one, f"{at}.extension[{k}]") for k, one in inner}
        return found

    def _value(self, extension: Json, place: str) -> object:
        values = [value for key, value in extension.items() if key.startswith("value")]
        if values:
            return values[0]
        inner = extension.get("extension", [{}])[0]
        try:
            return json.loads(inner["valueString"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._wrong(place, "needs a value, or `json` with JSON text") from error

    def _code(self, concept: Mapping[str, Any], kind: str, place: str = "") -> str:
        """Returns the code of a kind; without a place, an empty text where there is none."""
        codings = concept.get("coding", [])
        code = next((c.get("code") for c in codings if c.get("system") == f"{SYSTEM}/{kind}"), "")
        if place and not code:
            raise self._wrong(place, f"needs a code of system {SYSTEM}/{kind}")
        return str(code or "")

    def _needed(self, part: Json, key: str, place: str) -> Any:
        if not part.get(key):
            raise self._wrong(f"{place}.{key}", "is missing")
        return part[key]

    def _wrong(self, place: str, message: str) -> BadInputError:
        return BadInputError(message, file=self._file, field=place)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value if inner is not None] if isinstance(value, list) else value
