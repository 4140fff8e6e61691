from __future__ import annotations

import re
from pathlib import Path

import pytest

from clinical_data.errors import BadInputError, UsageError
from workflow.config import check_names
from workflow.pathway import END, known_pathways, load_pathway, parse_pathway


def changed(path: Path, old: str, new: str) -> str:
    text = path.read_text()
    assert old in text
    return text.replace(old, new, 1)


def test_every_bundled_pathway_is_valid() -> None:
    assert "inpatient" in known_pathways()
    for name in known_pathways():
        check_names(load_pathway(name).pathway)


def test_inpatient_asks_at_admission_and_at_discharge() -> None:
    pathway = load_pathway("inpatient").pathway
    assert [s.name for s in pathway.steps] == ["admission_diagnosis", "discharge_diagnosis"]
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
        ("version: 1", "version: 1\nedges: [{from: second, to: first}]", "edges[0].to", "later step"),
        ("version: 1", "version: 1\nedges: [{from: first, to: second, when: tired}]", "edges[0].when", "abstained"),
        ("version: 1", "version: 1\nedges: [{from: first, to: end, when: budget_left}]", "edges[0].when", "not availa"),
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


def test_invalid_yaml_names_the_line(pathway_file: Path) -> None:
    with pytest.raises(BadInputError, match="invalid YAML") as caught:
        parse_pathway(changed(pathway_file, "[chief_complaint]", "[chief_complaint"), file="mine.yaml")
    assert caught.value.line is not None


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list", "steps: []"])
def test_what_is_no_pathway_at_all_is_bad_input(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_pathway(text)


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
