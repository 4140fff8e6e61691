"""Earlier conclusions: none, predicted, or recorded labels, which are an oracle and never the step's own answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ICD, make_case

from clinical_data.case import Coding
from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.store.case_store import CaseStore
from evaluation.review.report import write_report
from evaluation.scoring import score_run
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.supervision.lesson_checks import check_alike
from workflow.config import ReplayOptions
from workflow.oracle import Oracle
from workflow.pathway import load_pathway
from workflow.runner import replay

SETTINGS = {"rollouts": 2}
LINE = "Earlier conclusion: "
APACHE, PATHS = "wardstar:eicu/admissionDx", "wardstar:eicu/diagnosis"


def truth_of(case_id: str, **labels: list[tuple[str, str, str]]) -> dict[str, GroundTruth]:
    """Labels per step from (system, code, display) triples."""
    return {
        step: GroundTruth(
            case_id, step, tuple(Label(Coding(*c), Strength.PROXY, i) for i, c in enumerate(codings, start=1))
        )
        for step, codings in labels.items()
    }


def fill_with(url: str, first: str, second: str, number: int = 1) -> None:
    """A case whose admission and discharge diagnoses are these ICD codes."""
    one = make_case(number)
    truth = truth_of(
        one.case.case_id,
        admission_diagnosis=[(ICD, first, f"CANARY {first}")],
        discharge_diagnosis=[(ICD, second, f"CANARY {second}")],
    )
    engine = open_database(url, create=True)
    CaseStore(engine).put_many([replace(one, truth=truth)])
    engine.dispose()


def prompts(url: str, run: str) -> dict[str, list[str]]:
    """Every prompt of a run, by step."""
    engine = open_database(url, create=False)
    store, found = RunStore(engine), {}
    for _, _, step, _, call in store.calls(store.get(run).run_id):
        found.setdefault(step, []).append(call.text)
    engine.dispose()
    return found


def options(path: Path, predecessors: str, **more: object) -> ReplayOptions:
    return ReplayOptions(
        pathway=str(path), seed=3, generator="random:7", settings=SETTINGS, predecessors=predecessors,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_oracle_tells_recorded_answers_of_earlier_steps_and_says_that_it_is_one(
    pathway_file: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    fill_with(url, "I50.9", "J18.9")
    replay(url, "r", options(pathway_file, "recorded"))
    told = prompts(url, "r")
    assert not any(LINE in text for text in told["first"])
    of_case = [text for text in told["second"] if "Patient: not described" not in text]
    assert of_case
    assert all(f"{LINE}First diagnosis: heart failure" in text for text in of_case)
    engine = open_database(url, create=False)
    store = RunStore(engine)
    run = store.get("r")
    assert run.config["predecessors"] == "recorded"
    assert {s.record.settings["predecessors"] for s in store.records(run.run_id)} == {"recorded"}
    assert score_run(engine, "r", regression=False)["notes"][0].startswith("run r is an oracle")
    page = write_report(engine, "r", tmp_path / "report", blind=True).read_text(encoding="utf-8")
    assert "Oracle: later steps were shown the recorded answers" in page
    engine.dispose()


def test_the_oracle_works_without_the_earlier_step_being_taken(pathway_file: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    fill_with(url, "I50.9", "J18.9")
    replay(url, "r", options(pathway_file, "recorded", steps=("second",)))
    assert any(f"{LINE}First diagnosis: heart failure" in text for text in prompts(url, "r")["second"])


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("J18.9", "J18.9", False),
        ("J18.1", "J18.9", False),  # the same category
        ("J44.1", "J43.9", False),  # the same CCSR group
        ("J18.9", "J44.1", True),  # the same chapter alone
        ("I50.9", "K85.9", True),
    ],
)
def test_a_label_that_is_also_the_answer_is_not_told(
    pathway_file: Path, tmp_path: Path, first: str, second: str, told: bool
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    fill_with(url, first, second)
    replay(url, "r", options(pathway_file, "recorded"))
    assert any(LINE in text for text in prompts(url, "r")["second"]) == told


def test_a_step_with_the_same_labels_is_not_told(pathway_file: Path, tmp_path: Path) -> None:
    pathway_file.write_text(pathway_file.read_text().replace("truth: discharge", "truth: admission"))
    url = f"sqlite:///{tmp_path / 'a.db'}"
    fill_with(url, "I50.9", "K85.9")
    replay(url, "r", options(pathway_file, "recorded"))
    assert not any(LINE in text for texts in prompts(url, "r").values() for text in texts)


@pytest.mark.parametrize("predecessors", ["none", "predicted"])
def test_labels_never_reach_a_prompt_otherwise(
    pathway_file: Path, tmp_path: Path, predecessors: str, fill: Callable[..., str]
) -> None:
    """Whatever the labels are, and whether there are any, every prompt is the same, byte by byte."""
    told = []
    for name, codes in (("a", ("I50.9", "J18.9")), ("b", ("K85.9", "N39.0"))):
        url = f"sqlite:///{tmp_path / f'{name}.db'}"
        fill_with(url, *codes)
        replay(url, "r", options(pathway_file, predecessors))
        told.append(prompts(url, "r"))
    url = fill(2, "c.db")
    engine = open_database(url, create=False)
    CaseStore(engine).put_many([replace(make_case(1), truth={})])
    engine.dispose()
    (tmp_path / "only").write_text("fhir-e001\n")
    replay(url, "r", options(pathway_file, predecessors, cases=str(tmp_path / "only")))
    told.append(prompts(url, "r"))
    assert told[0] == told[1] == told[2]
    text = "\n".join(t for texts in told[0].values() for t in texts)
    assert "CANARY" not in text
    assert (LINE in text) == (predecessors == "predicted")


def test_of_a_set_only_the_labels_that_are_not_the_answer_are_told() -> None:
    """MIMIC's differential holds the principal diagnosis, which must not reach the discharge step."""
    truth = truth_of(
        "c",
        admission_diagnosis=[(ICD, "R07.9", "Chest pain")],
        differential=[(ICD, "R07.9", "Chest pain"), (ICD, "I21.4", "NSTEMI")],
        discharge_diagnosis=[(ICD, "I21.4", "NSTEMI"), (ICD, "E11.9", "Diabetes")],
        treatment=[("wardstar:treatment-class", "diuretics", "diuretics")],
    )
    words = Oracle(load_pathway("inpatient").pathway).words("fhir", truth)
    assert words["admission_diagnosis"] == ()
    assert words["differential"] == ()  # the ED's diagnosis is one of its own labels
    assert words["treatment"] == (
        "Admission diagnosis: non-cardiac chest pain",
        "Differential diagnosis: non-cardiac chest pain; myocardial infarction",
        "Update by new results: myocardial infarction",
    )
    assert words["discharge_diagnosis"] == (
        "Admission diagnosis: non-cardiac chest pain",
        "Differential diagnosis: non-cardiac chest pain",
        "Treatment: diuretics",
    )


def test_labels_of_two_lists_are_compared_by_their_words() -> None:
    """eICU: the admission term is of another list than the discharge path."""
    same = truth_of(
        "c",
        admission_diagnosis=[(APACHE, "Non-operative|Cardiovascular|Cardiac arrest", "Cardiac arrest")],
        discharge_diagnosis=[(PATHS, "cardiovascular|cardiac arrest", "cardiac arrest")],
    )
    other = truth_of(
        "c",
        admission_diagnosis=[(APACHE, "Non-operative|Cardiovascular|Sepsis, pulmonary", "Sepsis, pulmonary")],
        discharge_diagnosis=[(PATHS, "cardiovascular|cardiac arrest", "cardiac arrest")],
    )
    oracle = Oracle(load_pathway("icu").pathway)
    assert oracle.words("eicu", same)["discharge_diagnosis"] == ()
    assert oracle.words("eicu", other)["discharge_diagnosis"] == ("Admission diagnosis: sepsis",)


def test_no_training_set_is_made_of_an_oracle(pathway_file: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    fill_with(url, "I50.9", "J18.9")
    replay(url, "r", options(pathway_file, "recorded"))
    engine = open_database(url, create=False)
    with pytest.raises(UsageError, match="run r is an oracle"):
        check_alike([RunStore(engine).get("r")])
    engine.dispose()


@pytest.mark.parametrize(("language", "told"), [("en", "abstained, no answer was clear enough"), ("zh", "弃答")])
def test_of_a_step_that_abstained_later_ones_hear_no_answer(
    pathway_file: Path, tmp_path: Path, language: str, told: str
) -> None:
    text = pathway_file.read_text().replace("version: 1", f"version: 1\nlanguage: {language}")
    pathway_file.write_text(text.replace("search: {depth: 3}", "search: {abstain_below: 1.0}"))
    url = f"sqlite:///{tmp_path / 'a.db'}"
    fill_with(url, "I50.9", "J18.9")
    replay(url, "r", replace(options(pathway_file, "predicted"), settings={"rollouts": 12}))
    engine = open_database(url, create=False)
    store = RunStore(engine)
    first = store.record(store.get("r").run_id, "fhir-e001", "first").record
    engine.dispose()
    assert (first.status, bool(first.ranked)) == ("abstain", True)
    earlier = {
        line
        for text in prompts(url, "r")["second"]
        for line in text.split("\n")
        if line.startswith((LINE, "此前结论: "))
    }
    (line,) = earlier
    assert line.split(": ", 2)[1] == "First diagnosis"
    assert told in line
    assert first.ranked[0].display not in line
