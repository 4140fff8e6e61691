"""A pathway becomes a FHIR PlanDefinition and the same pathway again; what is no pathway is refused with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from conftest import Run
from effort import effort
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_data.catalogue import load_catalogue
from clinical_data.errors import BadInputError
from clinical_data.fhir_check import check_resource
from workflow.pathway import Pathway, known_pathways, load_pathway, parse_pathway
from workflow.pathway_check import SCORERS
from workflow.pathway_model import Clock
from workflow.plan_definition import CANONICAL, to_plan_definition
from workflow.plan_definition_reader import from_plan_definition, pathway_text, read_plan_definition

ANCHORS = get_args(Clock.model_fields["anchor"].annotation)
WORDS = st.text(max_size=30)
SOURCES = st.one_of(st.sampled_from(["fhir", "eicu", "mimic-iv"]), st.text(max_size=8))
# Items that no step may show too early (`pathway_check`) are left out.
ITEMS = sorted(i.item_id for i in load_catalogue().items if not i.shows_treatment)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,90}", fullmatch=True).filter(lambda n: n not in ("start", "end", "human"))
VOCABULARIES = ["general-ward-icd10", "eicu-admission-groups", "catalogue:v1"]
OF_A_STEP = ["abstained", "answer_settled", "budget_left"]  # conditions that are none at the start
SMALL = """\
name: small
version: "1"
title: Two steps
steps:
  - name: admission_diagnosis
    title: Admission diagnosis
    question: What is the working diagnosis?
    answer_cue: Working diagnosis
    clock:
      fhir: {anchor: admission, plus_minutes: 360, text: 6 hours after admission}
    opening: [chief_complaint]
    items: all
    answer: {form: closed, vocabulary: {fhir: general-ward-icd10}}
    truth: admission_diagnosis
    scorers: [icd]
  - name: discharge_diagnosis
    title: Discharge diagnosis
    question: What is the principal diagnosis?
    answer_cue: Principal diagnosis
    clock:
      fhir: {anchor: end_of_stay, text: at the end of the stay}
    answer: {form: closed, vocabulary: {fhir: general-ward-icd10}}
    truth: discharge_diagnosis
edges:
  - {from: admission_diagnosis, to: discharge_diagnosis}
"""


def small() -> Pathway:
    return parse_pathway(SMALL).pathway


@st.composite
def steps(draw: st.DrawFn, name: str, repeats: bool) -> dict[str, Any]:
    form = draw(st.sampled_from(["closed", "set", "free"]))
    anchors = [a for a in ANCHORS if a != "end_of_stay"] if repeats else ANCHORS
    words = st.text(max_size=9).map(lambda w: w + "{hours} h") if repeats else st.text(min_size=1, max_size=20)
    clock = st.fixed_dictionaries(
        {"anchor": st.sampled_from(anchors), "text": words},
        optional={"plus_minutes": st.integers(-(10**12), 10**12)},
    )
    most = {"most": draw(st.integers(1, 10**10))} if form == "set" else {}
    vocabularies = draw(st.dictionaries(SOURCES, st.sampled_from(VOCABULARIES), max_size=3))
    found: dict[str, Any] = {
        "name": name,
        "title": draw(WORDS),
        "question": draw(WORDS),
        "answer_cue": draw(WORDS),
        "clock": draw(st.dictionaries(SOURCES, clock, max_size=3)),
        "answer": {"form": form, "vocabulary": vocabularies, **most},
    }
    if repeats:
        found["repeat"] = {"most": draw(st.integers(2, 100)), "every_minutes": draw(st.integers(1, 10**10))}
    if draw(st.booleans()):
        found["review"] = "required"
    scorers = WORDS.filter(lambda w: w not in SCORERS)
    if draw(st.booleans()):
        found["truth"] = draw(NAMES)
        scorers = st.one_of(st.just("icd"), scorers)
    if draw(st.booleans()):
        found["opening"] = draw(st.lists(st.sampled_from(ITEMS), max_size=3))
        found["items"] = draw(st.one_of(st.just("all"), st.lists(st.sampled_from(ITEMS), max_size=4)))
        found["scorers"] = draw(st.lists(scorers, max_size=3))
        found["search"] = draw(
            st.fixed_dictionaries({}, optional={"rollouts": st.integers(1, 99), "temperature": st.floats(0, 2)})
        )
    return found


@st.composite
def edges(draw: st.DrawFn, names: list[str], repeats: list[bool]) -> list[dict[str, str]]:
    """Edges by which every step can be come to, with loops over steps that repeat, and a way to a human."""
    found: list[dict[str, str]] = []

    def add(start: str, to: str, conditions: list[str]) -> None:
        condition = draw(st.sampled_from(conditions))
        found.append({"from": start, "to": to, draw(st.sampled_from(["when", "unless"])): condition})

    for place, name in enumerate(["start", *names]):
        inner = [] if name == "start" else OF_A_STEP[:2]
        bound = [] if name == "start" else OF_A_STEP[2:]
        if name != "start" and repeats[place - 1]:  # steps that repeat stand side by side, so that all loop
            first = place - 1
            while first and repeats[first - 1]:
                first -= 1
            add(name, names[draw(st.integers(first, place - 1))], [*inner, *bound, "has_ed_stay", "clock_passed"])
        if draw(st.booleans()):
            add(name, draw(st.sampled_from(["human", "end"])), [*inner, "has_ed_stay"])
        for later in range(place, len(names)):
            if later > place and draw(st.booleans()):
                more = bound if repeats[later] else []
                add(name, names[later], [*inner, *more, "has_ed_stay", "clock_passed"])
        if place < len(names):
            found.append({"from": name, "to": names[place]})
    order = draw(st.permutations(["start", *names]))  # edges of different steps stand in any order
    return [edge for name in order for edge in found if edge["from"] == name]


@st.composite
def pathways(draw: st.DrawFn) -> Pathway:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    with_edges = draw(st.booleans())
    repeats = [with_edges and draw(st.booleans()) for _ in names]
    ways = draw(edges(names, repeats)) if with_edges else []
    back = {e["from"] for e in ways if e["to"] == e["from"]}
    data: dict[str, Any] = {
        "name": draw(st.from_regex(r"[a-z][a-z0-9_-]{0,40}", fullmatch=True)),
        "version": draw(WORDS),
        "title": draw(WORDS),
        "steps": [draw(steps(name, repeats[i])) for i, name in enumerate(names)],
    }
    # A loop to itself for each step that repeats and has none, so that every bound is one of a loop.
    own = [
        {"from": n, "to": n, "when": "budget_left"} for n, r in zip(names, repeats, strict=True) if r and n not in back
    ]
    if ways:
        data["edges"] = [*own, *ways]
    return parse_pathway(yaml.safe_dump(data)).pathway


@settings(max_examples=effort(60, 2000), deadline=None)
@given(pathways())
def test_any_pathway_comes_back_equal(pathway: Pathway) -> None:
    plan = json.loads(json.dumps(to_plan_definition(pathway)))
    check_resource(plan, "PlanDefinition")
    loaded = from_plan_definition(plan, file="plan.json")
    assert loaded.pathway == pathway
    assert loaded.pathway.model_dump() == pathway.model_dump()
    assert to_plan_definition(loaded.pathway) == plan


@pytest.mark.parametrize("name", known_pathways())
def test_every_bundled_pathway_comes_back_through_files(run: Run, name: str, tmp_path: Path) -> None:
    assert run("pathway", "export-fhir", name, "--out", "plan.json")[:2] == (0, "plan.json\n")
    code, out, error = run("pathway", "import-fhir", "plan.json", "--out", "again.yaml")
    assert (code, out, error) == (0, "again.yaml\n", "")
    assert load_pathway(str(tmp_path / "again.yaml")).pathway == load_pathway(name).pathway
    assert run("pathway", "validate", "again.yaml")[0] == 0
    run("pathway", "export-fhir", "again.yaml", "--out", "second.json")
    assert (tmp_path / "second.json").read_bytes() == (tmp_path / "plan.json").read_bytes()


def test_standard_elements_carry_what_fhir_has_a_field_for() -> None:
    plan = to_plan_definition(small())
    actions = {a["id"]: a for a in plan["action"]}
    step = actions["step-admission-diagnosis"]
    assert (step["title"], step["description"]) == ("Admission diagnosis", "What is the working diagnosis?")
    clock = next(r for r in step["relatedAction"] if r.get("offsetDuration"))
    assert clock["actionId"] in actions
    assert (clock["relationship"], clock["offsetDuration"]["value"], clock["offsetDuration"]["code"]) == (
        "after-start",
        360,
        "min",
    )
    assert step["input"][0]["codeFilter"][0]["code"][0]["code"] == "chief_complaint"
    assert {o["codeFilter"][0]["valueSet"].rsplit("/", 1)[1] for o in step["output"]} >= {"general-ward-icd10"}
    goals = {g["id"]: g for g in plan["goal"]}
    assert goals[step["goalId"][0]]["target"][0]["measure"]["coding"][0]["code"] == "icd"
    assert step["action"][0]["relatedAction"][0]["actionId"] == "step-discharge-diagnosis"
    urls = {e["url"] for a in plan["action"] for e in a.get("extension", [])}
    assert urls
    assert all(url.startswith(f"{CANONICAL}/StructureDefinition/") for url in urls)


def plan_reader(plan: dict[str, Any]) -> Any:
    from workflow.plan_definition_reader import _Reader

    return _Reader(plan, "plan.json")


def test_a_condition_is_an_applicability_condition(pathway_file: Path) -> None:
    text = pathway_file.read_text().replace(
        "version: 1", "version: 1\nedges: [{from: first, to: end, when: abstained}, {from: first, to: second}]", 1
    )
    plan = to_plan_definition(parse_pathway(text).pathway)
    first = next(a for a in plan["action"] if a["id"] == "step-first")
    assert [w.get("condition", [{}])[0].get("kind") for w in first["action"]] == ["applicability", None]
    assert first["action"][0]["relatedAction"][0]["actionId"] == "exit-end"


def test_keys_that_a_later_version_adds_travel_without_new_code(pathway_file: Path) -> None:
    """The extension is written and read by the names of the keys, whatever they are."""
    from workflow import plan_definition

    part: dict[str, Any] = {}
    later = {"review": "required", "at_most": 3, "strict": True, "share": 0.5, "who": ["a", ""], "empty": {}}
    plan_definition._keep(part, "-step", later)
    assert plan_reader({})._kept(part, "-step", "action[0]") == later


def test_a_start_and_a_human_end_travel_as_actions(pathway_file: Path) -> None:
    """Names that edges lead from and to besides steps, whichever a later version knows."""
    pathway = load_pathway(str(pathway_file)).pathway
    data = pathway.model_dump(by_alias=True)
    edges = [
        {"from": "start", "to": "second", "when": "has_ed_stay"},
        {"from": "first", "to": "human", "when": "abstained"},
        {"from": "start", "to": "first"},
        {"from": "second", "to": "first", "unless": "answer_settled"},
    ]
    plan = to_plan_definition(Pathway.model_validate({**data, "edges": edges}))
    check_resource(plan, "PlanDefinition")
    actions = {a["id"]: a for a in plan["action"]}
    assert [w["prefix"] for w in actions["entry-start"]["action"]] == ["1", "3"]
    assert actions["step-first"]["action"][0]["relatedAction"][0]["actionId"] == "exit-human"
    again = plan_reader(plan).pathway()
    assert again["edges"] == edges


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    plan = to_plan_definition(small())
    change(plan)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    return path


def step_of(plan: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(a for a in plan["action"] if a["id"] == "step-admission-diagnosis")
    return found


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda p: p.update(resourceType="Bundle"), "resourceType", "not a Bundle"),
        (lambda p: p.update(resourceType="<script>"), "resourceType", "a PlanDefinition is needed"),
        (lambda p: p.pop("identifier"), "identifier", "no pathway"),
        (lambda p: p.update(status=7), "status", "FHIR"),
        (lambda p: p.update(nonsense="x"), "nonsense", "no element of FHIR"),
        (lambda p: p.pop("action"), "action", "no step"),
        (lambda p: p["action"].append({"title": "Give a drug"}), "action[4].code", "neither step"),
        (lambda p: step_of(p).pop("extension"), "steps[0].answer_cue", "required"),
        (lambda p: step_of(p).pop("id"), "action[2].id", "missing"),
        (lambda p: step_of(p).update(goalId=["nowhere"]), "action[2].goalId", "no goal"),
        (
            lambda p: step_of(p)["relatedAction"][0].update(actionId="x"),
            "action[2].relatedAction[0].actionId",
            "anchor",
        ),
        (
            lambda p: step_of(p)["relatedAction"][0]["offsetDuration"].update(code="h"),
            "action[2].relatedAction[0].offsetDuration",
            "whole minutes",
        ),
        (lambda p: step_of(p)["relatedAction"][0].pop("extension"), "action[2].relatedAction[0].extension", "source"),
        (lambda p: step_of(p)["input"][0].pop("extension"), "action[2].input[0].extension", "opening or items"),
        (lambda p: step_of(p).update(extension=None), "steps[0].answer_cue", "required"),
        (lambda p: step_of(p)["input"][0].update(codeFilter=None), "action[2].input[0].codeFilter", "one catalogue"),
        (lambda p: step_of(p)["output"][0].pop("codeFilter"), "action[2].output[0].codeFilter", "value set"),
        (lambda p: step_of(p)["action"][0].update(prefix="x"), "action[2].action[0].prefix", "number of an edge"),
        (
            lambda p: step_of(p)["action"][0]["relatedAction"][0].update(actionId="y"),
            "action[2].action[0].relatedAction[0].actionId",
            "no step or end",
        ),
        (
            lambda p: step_of(p)["input"][0]["codeFilter"][0]["code"][0].update(code="x_ray_of_soul"),
            "steps[0].opening[0]",
            "item",
        ),
        (lambda p: p["goal"][0].update(description={"text": "to be well"}), "goal[0].description", "needs a code"),
    ],
)  # fmt: skip
def test_a_hostile_plan_is_refused_with_file_and_element(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], field: str, words: str
) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(BadInputError, match=words) as caught:
        read_plan_definition(path)
    assert (caught.value.file, caught.value.field) == (str(path), field)
    assert caught.value.message.startswith(f"{path}: {field}: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "invalid JSON"),
        (b"[1]", "JSON object"),
        (b'{"resourceType": "PlanDefinition",\n "status": }', "invalid JSON"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"resourceType": "PlanDefinition", "version": NaN}', "a number that is none"),
        (b'{"resourceType": "PlanDefinition", "title": "' + b"x" * 10_000_000 + b'"}', "larger than a PlanDefinition"),
    ],
)
def test_a_file_that_is_none_is_refused(run: Run, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "hostile.json"
    path.write_bytes(content)
    code, out, error = run("pathway", "import-fhir", path, "--out", "new.yaml")
    assert (code, out) == (3, "")
    assert words in error
    assert "hostile.json" in error
    assert not (tmp_path / "new.yaml").exists()


def test_what_a_pathway_has_no_key_for_is_left_out_and_said(run: Run, tmp_path: Path) -> None:
    path = changed(tmp_path, lambda p: p.update(publisher="A hospital"))
    code, _, error = run("pathway", "import-fhir", path, "--out", "new.yaml")
    assert code == 0
    assert "left out" in error


def test_the_yaml_keeps_odd_characters() -> None:
    data = load_pathway("inpatient").pathway.model_dump(by_alias=True)
    data["title"] = "a\x85b\u2028c\ufeffd: 'e' \"f\" # g\n\th\x00"
    pathway = Pathway.model_validate(data)
    assert parse_pathway(pathway_text(pathway)).pathway == pathway
