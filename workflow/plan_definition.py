"""Pathways as FHIR R4 `PlanDefinition`, the standard form of a computable guideline, and back without loss.

| pathway | PlanDefinition |
|---|---|
| name, version, title | `identifier`, `version`, `title` |
| catalogue | `relatedArtifact`, depends-on |
| step | `action`; its name is a `code`, its question the `description` |
| clock of a source | `relatedAction` with `offsetDuration` to an action that stands for the anchor, such as admission |
| opening, items | `input` |
| answer vocabulary of a source | `output` with a value set |
| truth and scorers | `goal` with `target.measure` |
| edge | an `action` inside that of its step, with `condition` (applicability) and `relatedAction` to the next |

Every other key, those of later versions included, travels by its name in an extension of the part that it belongs to
(`CANONICAL/StructureDefinition/pathway...`). Comments of the YAML file do not travel.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from clinical_data.fhir_check import check_resource
from clinical_data.fhir_names import CANONICAL, CODE_SYSTEM, plan_url
from workflow.pathway import Pathway

RESOURCE = "PlanDefinition"
EXTENSION = f"{CANONICAL}/StructureDefinition/pathway"
SYSTEM = CODE_SYSTEM
VALUE_SET = f"{CANONICAL}/ValueSet/"
CATALOGUE = f"{CANONICAL}/catalogue/"
LANGUAGE = "text/x-wardstar-predicate"
_MINUTES = {"unit": "min", "system": "http://unitsofmeasure.org", "code": "min"}
_TYPES = "http://terminology.hl7.org/CodeSystem/plan-definition-type"
_TEXT, _CODE = re.compile(r"[ \r\n\t\S]+"), re.compile(r"\S+( \S+)*")
_LARGEST = 2**31 - 1
_MOST_ID = 64

Json = dict[str, Any]


def to_plan_definition(pathway: Pathway) -> Json:
    """Returns a pathway as a valid FHIR R4 `PlanDefinition`.

    Raises:
        BadInputError: the pathway holds what FHIR cannot (which no valid pathway does); names the element.
    """
    rest: Json = pathway.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    name = rest.pop("name")
    names = [step["name"] for step in rest["steps"]]
    steps, edges = rest.pop("steps"), rest.pop("edges", [])
    plan: Json = {
        "resourceType": RESOURCE,
        "url": plan_url(name),
        "identifier": [{"system": f"{SYSTEM}/pathway", "value": name}],
        "name": "".join(word.capitalize() for word in re.split("[-_]+", name)),
    }
    _move(rest, "version", plan, "version")
    _move(rest, "title", plan, "title")
    catalogue = rest.pop("catalogue", pathway.catalogue)
    plan |= {
        "type": {"coding": [{"system": _TYPES, "code": "workflow-definition"}]},
        "status": "draft",
        "experimental": True,
        "usage": "Retrospective replay of recorded hospital cases; not for care.",
        "relatedArtifact": [{"type": "depends-on", "resource": CATALOGUE + quote(str(catalogue), safe="")}],
    }
    actions = [_step_action(step, edges, names, catalogue) for step in steps]
    if goals := [action.pop("goal") for action in actions if "goal" in action]:
        plan["goal"] = goals
    plan["action"] = [*_anchors(steps), *_entries(edges, names), *actions, *_exits(edges, names)]
    _keep(plan, "", rest)
    check_resource(plan, RESOURCE)
    return plan


def _step_action(step: Json, edges: list[Json], names: list[str], catalogue: str) -> Json:
    rest = dict(step)
    name = rest.pop("name")
    action: Json = {"id": _id("step", name)}
    _move(rest, "title", action, "title")
    _move(rest, "question", action, "description")
    action["code"] = [_concept("step", name)]
    if rest.get("truth"):
        action["goalId"] = [_id("goal", name)]
        action["goal"] = _goal(rest, name)
    inputs = [
        *(_input(item, "opening", catalogue) for item in _pop_codes(rest, "opening")),
        *(_input(item, "items", catalogue) for item in _pop_codes(rest, "items")),
    ]
    if inputs:
        action["input"] = inputs
    answer = dict(rest.pop("answer"))
    if answer.get("vocabulary"):
        vocabularies = answer.pop("vocabulary")
        action["output"] = [_output(source, vocabulary) for source, vocabulary in vocabularies.items()]
    if rest.get("clock"):
        action["relatedAction"] = [_clock(source, clock) for source, clock in rest.pop("clock").items()]
    action |= _ways(name, edges, names)
    _keep(action, "-answer", answer)
    _keep(action, "-step", rest)
    return action


def _goal(rest: Json, name: str) -> Json:
    goal: Json = {"id": _id("goal", name)}
    text = f"The conclusion is compared with the recorded labels `{rest['truth']}`."
    goal["description"] = {**_concept("truth", rest.pop("truth")), "text": text}
    if scorers := _pop_codes(rest, "scorers"):
        goal["target"] = [{"measure": _concept("scorer", scorer)} for scorer in scorers]
    return goal


def _input(item: str, role: str, catalogue: str) -> Json:
    system = f"{SYSTEM}/catalogue-{quote(catalogue, safe='')}"
    return {
        "extension": [{"url": f"{EXTENSION}-input", "valueCode": role}],
        "type": "Resource",  # results, findings and history alike
        "codeFilter": [{"path": "code", "code": [{"system": system, "code": item}]}],
    }


def _output(source: str, vocabulary: str) -> Json:
    output: Json = {
        "type": "Condition",
        "codeFilter": [{"path": "code", "valueSet": VALUE_SET + quote(vocabulary, safe="")}],
    }
    _keep(output, "-output", {"source": source})
    return output


def _clock(source: str, clock: Json) -> Json:
    rest = {"source": source, **clock}
    minutes = rest.pop("plus_minutes", 0)
    relation = "after-start" if minutes > 0 else "before-start" if minutes < 0 else "concurrent-with-start"
    related: Json = {"actionId": _id("anchor", rest.pop("anchor")), "relationship": relation}
    if minutes:
        related["offsetDuration"] = {"value": abs(minutes), **_MINUTES}
    _keep(related, "-clock", rest)
    return related


def _ways(name: str, edges: Iterable[Json], names: list[str]) -> Json:
    """Returns the elements of an action that say where it leads."""
    ways = [_edge(number, edge, names) for number, edge in enumerate(edges, 1) if edge["from"] == name]
    return {"groupingBehavior": "logical-group", "selectionBehavior": "at-most-one", "action": ways} if ways else {}


def _edge(number: int, edge: Json, names: list[str]) -> Json:
    rest = {key: value for key, value in edge.items() if key != "from"}
    to = rest.pop("to")
    way: Json = {"prefix": str(number)}
    when, unless = rest.pop("when", None), rest.pop("unless", None)
    if when or unless:
        expression = when or f"not {unless}"
        way["condition"] = [
            {"kind": "applicability", "expression": {"language": LANGUAGE, "expression": expression}},
        ]
    way["relatedAction"] = [{"actionId": _id("step" if to in names else "exit", to), "relationship": "before-start"}]
    _keep(way, "-edge", rest)
    return way


def _anchors(steps: Iterable[Json]) -> list[Json]:
    found = dict.fromkeys(clock["anchor"] for step in steps for clock in step["clock"].values())
    return [
        {
            "id": _id("anchor", anchor),
            "title": anchor.replace("_", " ").capitalize(),
            "code": [_concept("anchor", anchor)],
            "trigger": [{"type": "named-event", "name": anchor}],
        }
        for anchor in found
    ]


def _entries(edges: list[Json], names: list[str]) -> list[Json]:
    """Returns actions for what edges leave from besides steps: the start of a case."""
    found = dict.fromkeys(edge["from"] for edge in edges if edge["from"] not in names)
    return [
        {
            "id": _id("entry", name),
            "title": name.capitalize(),
            "code": [_concept("entry", name)],
            **_ways(name, edges, names),
        }
        for name in found
    ]


def _exits(edges: Iterable[Json], names: list[str]) -> list[Json]:
    found = dict.fromkeys(edge["to"] for edge in edges if edge["to"] not in names)
    return [{"id": _id("exit", to), "title": to.capitalize(), "code": [_concept("exit", to)]} for to in found]


def _id(kind: str, name: str) -> str:
    """Returns a FHIR id: letters, digits and hyphens, at most 64; the name itself travels as a code."""
    own = f"{kind}-{name.replace('_', '-')}"
    return own if len(own) <= _MOST_ID else f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _concept(kind: str, code: str) -> Json:
    return {"coding": [{"system": f"{SYSTEM}/{kind}", "code": code}]}


def _move(rest: Json, key: str, part: Json, element: str) -> None:
    """Moves a text to a standard element, if FHIR allows it there; else it stays, for the extension."""
    if _is_text(rest.get(key)):
        part[element] = rest.pop(key)


def _pop_codes(rest: Json, key: str) -> list[str]:
    """Takes a list of words out, if FHIR allows all of them as codes; else they stay, for the extension."""
    values = rest.get(key)
    if not isinstance(values, list) or not values or not all(_CODE.fullmatch(v) for v in values):
        return []
    del rest[key]
    return values


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() == value and _TEXT.fullmatch(value) is not None


def _keep(part: Json, kind: str, rest: Mapping[str, Any]) -> None:
    """Puts keys that no standard element took into an extension of their part."""
    if rest:
        extension = {"url": EXTENSION + kind, "extension": [_valued(key, value) for key, value in rest.items()]}
        part["extension"] = [*part.get("extension", []), extension]


def _valued(key: str, value: object) -> Json:
    if isinstance(value, bool):
        return {"url": key, "valueBoolean": value}
    if isinstance(value, int) and abs(value) <= _LARGEST:
        return {"url": key, "valueInteger": value}
    if isinstance(value, float):
        return {"url": key, "valueDecimal": value}
    if _is_text(value):
        return {"url": key, "valueString": value}
    return {"url": key, "extension": [{"url": "json", "valueString": json.dumps(value)}]}
