from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from clinical_data.clocks import STEPS
from clinical_data.errors import BadInputError, UsageError
from workflow.config import check_names
from workflow.pathway import END, known_pathways, load_pathway, parse_pathway

REPEAT = "repeat: {most: 3, every_minutes: 60}"


def changed(path: Path, old: str, new: str) -> str:
    text = path.read_text()
    assert old in text
    return text.replace(old, new, 1)


def test_every_bundled_pathway_is_valid() -> None:
    assert "inpatient" in known_pathways()
    for name in known_pathways():
        check_names(load_pathway(name).pathway)


def test_inpatient_asks_the_eight_steps() -> None:
    pathway = load_pathway("inpatient").pathway
    assert tuple(s.name for s in pathway.steps) == STEPS
    first = pathway.step("admission_diagnosis")
    at = {source: (c.anchor, c.plus_minutes) for source, c in first.clock.items()}
    assert (at["fhir"], at["eicu"], at["mimic-iv"]) == (("admission", 360), ("admission", 360), ("admission", 0))
    assert all(c.anchor == "end_of_stay" for c in pathway.step("discharge_diagnosis").clock.values())


def test_the_hash_is_that_of_the_text(pathway_file: Path) -> None:
    one, other = load_pathway(str(pathway_file)), parse_pathway(pathway_file.read_text() + "\n# a remark\n")
    assert one.pathway == other.pathway
    assert one.sha256 != other.sha256


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean inpatient") as caught:
        load_pathway("inpatiant")
    assert "inpatient" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("title: First diagnosis", "titel: First diagnosis", "steps[0].title", "required"),
        ("anchor: admission", "anchor: admision", "steps[0].clock.fhir.anchor", "admission"),
        ("plus_minutes: 360", "plus_minutes: soon", "steps[0].clock.fhir.plus_minutes", "integer"),
        ("[chief_complaint]", "[cheif_complaint]", "steps[0].opening[0]", "did you mean chief_complaint"),
        ("form: closed", "form: open", "steps[0].answer.form", "closed"),
        ("form: closed", "form: set", "steps[0].answer.form", "a set needs it"),
        ("form: closed", "most: 3\n      form: free", "steps[0].answer.most", "no other form"),
        ("form: closed", "most: 0\n      form: set", "steps[0].answer.most", "greater than or equal to 1"),
        ("{depth: 3}", "{vote: never}", "steps[0].search", "vote must be exact"),
        ("{depth: 3}", "{dept: 3}", "steps[0].search", "unknown search option dept"),
        ("{depth: 3}", "{depth: 0}", "steps[0].search", "at least 1"),
        ("{depth: 3}", "{depth: deep}", "steps[0].search", "whole number"),
        ("name: second", "name: first", "steps[1].name", "twice"),
        ("version: 1", "version: 1\ncatalogue: v0", "catalogue", "no catalogue"),
        ("version: 1", "version: 1\nedges: [{from: first, to: third}]", "edges[0].to", "no step named third"),
        ("version: 1", "version: 1\nedges: [{from: second, to: first}]", "edges[0].to", "a loop needs a bound"),
        ("version: 1", "version: 1\nedges: [{from: first, to: first}]", "edges[0].to", "a loop needs a bound"),
        ("version: 1", "version: 1\nedges: [{from: begin, to: first}]", "edges[0].from", "no step named begin"),
        ("version: 1", "version: 1\nedges: [{from: first, to: start}]", "edges[0].to", "no step named start"),
        ("version: 1", "version: 1\nedges: [{from: end, to: first}]", "edges[0].from", "no step named end"),
        (
            "version: 1",
            "version: 1\nedges: [{from: first, to: second}, {from: first, to: end, when: abstained}]",
            "edges[1]",
            "never taken",
        ),
        (
            "version: 1",
            "version: 1\nedges: [{from: start, to: first, when: abstained}]",
            "edges[0].when",
            "there is none",
        ),
        ("version: 1", "version: 1\nedges: [{from: first, to: human, when: clock_passed}]", "edges[0].when", "is none"),
        (
            "version: 1",
            "version: 1\nedges: [{from: first, to: second, when: budget_left}]",
            "edges[0].when",
            "`repeat`",
        ),
        ("name: second", "name: human", "steps[1].name", "no name for a step"),
        (
            "opening: [chief",
            "repeat: {most: 1, every_minutes: 60}\n    opening: [chief",
            "steps[0].repeat.most",
            "equal to 2",
        ),
        ("opening: [chief", "review: maybe\n    opening: [chief", "steps[0].review", "required"),
        (
            "opening: [chief",
            "items: [treatment]\n    opening: [chief",
            "steps[0].items[0]",
            "hidden until the treatment",
        ),
        (
            "opening: [chief_complaint]",
            "opening: [treatment_so_far]",
            "steps[0].opening[0]",
            "hidden until the treatment",
        ),
        ("scorers: [icd]", "scorers: [set]", "steps[0].scorers[0]", "whose answer is a set"),
        ("scorers: [icd]", "scorers: [ordinal]", "steps[0].scorers[0]", "codes are numbers"),
        ("scorers: [icd]", "scorers: [log_score_change]", "steps[0].scorers[0]", "steps that repeat"),
        ("    truth: admission_diagnosis\n", "", "steps[0].scorers[0]", "no `truth`"),
        ("version: 1", "version: 1\nedges: [{from: first, to: second, when: tired}]", "edges[0].when", "abstained"),
    ],
)
def test_a_fault_is_named_with_line_and_field(pathway_file: Path, old: str, new: str, field: str, message: str) -> None:
    text = changed(pathway_file, old, new)
    with pytest.raises(BadInputError, match=re.escape(message)) as caught:
        parse_pathway(text, file="mine.yaml")
    error = caught.value
    assert (error.file, error.field) == ("mine.yaml", field)
    lines = text.splitlines()
    first_changed = next(
        i for i, (a, b) in enumerate(zip(lines, pathway_file.read_text().splitlines(), strict=False), 1) if a != b
    )
    if message != "required":  # what is missing is placed at the start of what it is missing from
        assert error.line == first_changed
    assert f"mine.yaml:{error.line}" in str(error)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("version: 1", "version: 1\nversion: 2", "version"),
        (
            "    opening: [chief_complaint]",
            "    question: Another?\n    opening: [chief_complaint]",
            "steps[0].question",
        ),
        ("{depth: 3}", "{depth: 3, rollouts: 4, depth: 5}", "steps[0].search.depth"),
        ("version: 1", 'version: 1\nedges:\n  - {from: first, to: second}\n"edges": []', "edges"),
        ("version: 1", "version: 1\nedges: [{from: first, to: second, to: end}]", "edges[0].to"),
    ],
)
def test_a_key_that_stands_twice_is_a_fault(pathway_file: Path, old: str, new: str, field: str) -> None:
    text = changed(pathway_file, old, new)
    with pytest.raises(BadInputError, match="stands there twice") as caught:
        parse_pathway(text, file="mine.yaml")
    assert (caught.value.file, caught.value.field) == ("mine.yaml", field)
    assert field.rpartition(".")[2] in text.splitlines()[int(caught.value.line or 0) - 1]


def test_the_second_of_two_equal_keys_is_the_one_named(pathway_file: Path) -> None:
    text = changed(pathway_file, "version: 1", "version: 1\nversion: 2")
    with pytest.raises(BadInputError) as caught:
        parse_pathway(text)
    assert text.splitlines()[int(caught.value.line or 0) - 1] == "version: 2"


def test_an_anchor_that_is_used_twice_is_no_repetition(pathway_file: Path) -> None:
    clock = "{anchor: admission, plus_minutes: 360, text: 6 hours after admission}"
    text = changed(pathway_file, f"fhir: {clock}", f"fhir: &six {clock}\n      eicu: *six\n      mimic-iv: *six")
    assert set(parse_pathway(text).pathway.steps[0].clock) == {"fhir", "eicu", "mimic-iv"}


def test_invalid_yaml_names_the_line(pathway_file: Path) -> None:
    with pytest.raises(BadInputError, match="invalid YAML") as caught:
        parse_pathway(changed(pathway_file, "[chief_complaint]", "[chief_complaint"), file="mine.yaml")
    assert caught.value.line is not None


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list", "steps: []", "name: " + "[" * 5000 + "]" * 5000])
def test_what_is_no_pathway_at_all_is_bad_input(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_pathway(text)


def test_a_clock_that_no_hours_can_tell_is_a_fault(pathway_file: Path) -> None:
    with pytest.raises(BadInputError, match="less than or equal") as caught:
        parse_pathway(changed(pathway_file, "plus_minutes: 360", f"plus_minutes: {'9' * 400}"), file="mine.yaml")
    assert caught.value.field == "steps[0].clock.fhir.plus_minutes"


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        load_pathway(str(tmp_path / "none.yaml"))


def test_unknown_truth_and_scorer_are_refused(pathway_file: Path) -> None:
    with pytest.raises(UsageError, match="no recorded labels named horoscope"):
        check_names(parse_pathway(changed(pathway_file, "truth: admission_diagnosis", "truth: horoscope")).pathway)
    with pytest.raises(UsageError, match="no scorer named dice"):
        check_names(parse_pathway(changed(pathway_file, "scorers: [icd]", "scorers: [dice]")).pathway)


def test_without_edges_each_step_leads_to_the_next(pathway_file: Path) -> None:
    pathway = load_pathway(str(pathway_file)).pathway
    assert [e.to for e in pathway.edges_from("first")] == ["second"]
    assert pathway.edges_from("second") == ()


@pytest.mark.parametrize(
    ("old", "new", "field", "line"),
    [
        ("version: 1", "version: 1\nedges: [{from: first, to: end}]", "steps[1].name", "  - name: second"),
        ("opening: [chief", f"{REPEAT}\n    opening: [chief", "steps[0].clock.fhir.text", "fhir"),
        ("opening: [basic", f"{REPEAT}\n    opening: [basic", "steps[1].clock.fhir.anchor", "end_of"),
    ],
)
def test_a_fault_is_named_where_it_must_be_mended(
    pathway_file: Path, old: str, new: str, field: str, line: str
) -> None:
    text = changed(pathway_file, old, new)
    with pytest.raises(BadInputError) as caught:
        parse_pathway(text)
    assert caught.value.field == field
    assert caught.value.line is not None
    assert line in text.splitlines()[caught.value.line - 1]


def test_a_bound_without_a_loop_is_a_fault(pathway_file: Path) -> None:
    text = changed(pathway_file, "opening: [chief", "repeat: {most: 2, every_minutes: 60}\n    opening: [chief")
    text = text.replace("text: 6 hours", 'text: "{hours} hours').replace("after admission}", 'after admission"}')
    with pytest.raises(BadInputError, match="never repeats") as caught:
        parse_pathway(text)
    assert caught.value.field == "steps[0].repeat"


def test_treatment_is_shown_from_the_treatment_step_on_and_at_no_earlier_clock() -> None:
    """Trap 15."""
    text = Path(str(files("workflow.pathways") / "inpatient.yaml")).read_text()
    shown = {s.name for s in parse_pathway(text).pathway.steps if "treatment" in s.items}
    assert shown == {"treatment", "disposition", "discharge_diagnosis"}
    with pytest.raises(BadInputError, match="hidden until the treatment step") as caught:
        parse_pathway(text.replace("items: all", "items: [treatment]", 1))
    assert caught.value.field == "steps[1].items[0]"
    early = text.replace("      fhir: *day\n", "      fhir: *order\n", 1)
    with pytest.raises(BadInputError, match="in-hospital treatment before the clock of treatment") as caught:
        parse_pathway(early)
    assert caught.value.field == "steps[6].items[7]"


def test_mermaid_shows_steps_and_conditions(pathway_file: Path) -> None:
    text = changed(
        pathway_file,
        "version: 1",
        "version: 1\nedges: [{from: first, to: end, when: abstained}, {from: first, to: second}]",
    )
    drawn = parse_pathway(text).pathway.to_mermaid()
    assert drawn.startswith("flowchart TD\n")
    assert f"first -->|abstained| {END}_" in drawn
    assert "first --> second" in drawn
    assert f"second --> {END}_" in drawn
    assert "6 hours after admission" in drawn


def test_mermaid_draws_loops_the_human_end_and_the_start(pathway_file: Path) -> None:
    drawn = load_pathway("inpatient").pathway.to_mermaid()
    assert "start -->|has ed stay| triage" in drawn
    assert "start --> admission_diagnosis" in drawn
    assert "result_update -.->|budget left, at most 3 times| workup" in drawn
    assert "again every 4 h, at most 3 times" in drawn
    assert "human" not in drawn
    drawn = load_pathway("emergency").pathway.to_mermaid()
    assert "admission_diagnosis -->|abstained| human_" in drawn
    assert "human_([goes to a human])" in drawn
    assert "a clinician answers as well" in drawn
