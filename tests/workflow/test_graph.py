from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from clinical_data.catalogue import load_catalogue
from clinical_data.ground_truth import LabelledCase
from search.models.registry import load_model
from search.problem import Models
from search.settings import SearchSettings
from workflow.graph import CaseContext, checkpoint_path, compile_pathway, open_checkpoints, run_case
from workflow.pathway import Pathway, load_pathway, parse_pathway
from workflow.state import StepConclusion, no_answer
from workflow.step import StepOutcome, plan_step, problem_of, run_step, why_not

SETTINGS = SearchSettings(rollouts=2, max_requests=1)


class Kept:
    """A run store of one case, in memory."""

    def __init__(self, known: dict[str, StepConclusion] | None = None) -> None:
        self.outcomes: list[StepOutcome] = []
        self.known = known or {}

    def recall(self, step: str, occurrence: int) -> StepConclusion | None:
        return self.known.get(step)

    def keep(self, outcome: StepOutcome) -> None:
        self.outcomes.append(outcome)

    @property
    def steps(self) -> list[str]:
        return [o.plan.step.name for o in self.outcomes]


def context_of(
    one: LabelledCase, pathway: Pathway, kept: Kept, *, predecessors: str = "none", steps: tuple[str, ...] = ()
) -> CaseContext:
    model = load_model("random:7")
    catalogue = load_catalogue()
    return CaseContext(
        case=one.case,
        plans={s.name: plan_step(s, catalogue, SETTINGS) for s in pathway.steps if not steps or s.name in steps},
        models=Models(model, model),
        strategy="rstar",
        seed=1,
        predecessors=predecessors,
        recall=kept.recall,
        keep=kept.keep,
    )


def with_edges(path: Path, edges: str) -> Pathway:
    return parse_pathway(path.read_text() + f"edges: {edges}\n").pathway


def test_a_case_goes_through_its_steps_in_order(labelled: Callable[..., LabelledCase], pathway_file: Path) -> None:
    pathway, kept = load_pathway(str(pathway_file)).pathway, Kept()
    state = run_case(compile_pathway(pathway), context_of(labelled(1), pathway, kept), run_id=1)
    assert kept.steps == ["first", "second"]
    assert list(state["conclusions"]) == ["first", "second"]
    assert state["conclusions"]["first"]["answer_key"] in {"J18.9", "I50.9", "N39.0", "K85.9"}


def test_the_state_is_plain_json_without_truth(labelled: Callable[..., LabelledCase], pathway_file: Path) -> None:
    pathway, kept = load_pathway(str(pathway_file)).pathway, Kept()
    state = run_case(compile_pathway(pathway), context_of(labelled(1), pathway, kept), run_id=1)
    assert json.loads(json.dumps(state)) == state
    assert "CANARY" not in json.dumps(state)


def test_the_chart_is_cut_at_the_clock_of_each_step(labelled: Callable[..., LabelledCase], pathway_file: Path) -> None:
    pathway, kept = load_pathway(str(pathway_file)).pathway, Kept()
    run_case(compile_pathway(pathway), context_of(labelled(1), pathway, kept), run_id=1)
    known = [{f.code.display for f in o.problem.chart.known()} for o in kept.outcomes if o.problem]
    assert known == [{"Chief complaint", "Potassium"}, {"Chief complaint", "Potassium", "Sodium"}]


def test_nothing_later_than_the_clock_changes_the_question(
    labelled: Callable[..., LabelledCase], pathway_file: Path
) -> None:
    pathway = load_pathway(str(pathway_file)).pathway
    plan = plan_step(pathway.step("first"), load_catalogue(), SETTINGS)
    long, short = labelled(1).case, labelled(1, stay=3000).case
    assert problem_of(long, plan, 360) == problem_of(short, plan, 360)


def test_a_clock_after_the_end_of_the_stay_is_not_applicable(
    labelled: Callable[..., LabelledCase], pathway_file: Path
) -> None:
    pathway, kept = load_pathway(str(pathway_file)).pathway, Kept()
    state = run_case(compile_pathway(pathway), context_of(labelled(1, stay=300), pathway, kept), run_id=1)
    assert [o.reason for o in kept.outcomes] == ["the clock lies after the end of the stay", ""]
    assert state["conclusions"]["first"] == no_answer("not_applicable")


def test_a_source_without_clock_or_vocabulary_is_not_applicable(
    labelled: Callable[..., LabelledCase], pathway_file: Path
) -> None:
    text = pathway_file.read_text()
    case = labelled(1).case
    for old, reason in (("clock:\n      fhir", "no clock"), ("vocabulary: {fhir", "no answer vocabulary")):
        pathway = parse_pathway(text.replace(old, old.replace("fhir", "osce"))).pathway
        assert reason in why_not(case, plan_step(pathway.step("first"), load_catalogue(), SETTINGS))


def test_a_done_step_is_recalled_and_not_run(labelled: Callable[..., LabelledCase], pathway_file: Path) -> None:
    known: StepConclusion = {
        "status": "verified",
        "answer_key": "I50.9",
        "display": "heart failure",
        "probability": 0.6,
    }
    pathway, kept = load_pathway(str(pathway_file)).pathway, Kept({"first": known})
    state = run_case(compile_pathway(pathway), context_of(labelled(1), pathway, kept), run_id=1)
    assert kept.steps == ["second"]
    assert state["conclusions"]["first"] == known


def test_earlier_conclusions_are_shown_only_when_predicted(
    labelled: Callable[..., LabelledCase], pathway_file: Path
) -> None:
    known: StepConclusion = {
        "status": "verified",
        "answer_key": "I50.9",
        "display": "heart failure",
        "probability": 0.6,
    }
    pathway = load_pathway(str(pathway_file)).pathway
    for predecessors, earlier in (("none", ()), ("predicted", ("First diagnosis: heart failure",))):
        kept = Kept({"first": known})
        context = context_of(labelled(1), pathway, kept, predecessors=predecessors)
        run_case(compile_pathway(pathway), context, run_id=1)
        assert kept.outcomes[0].problem is not None
        assert kept.outcomes[0].problem.earlier == earlier


def test_steps_that_were_not_asked_for_are_passed_through(
    labelled: Callable[..., LabelledCase], pathway_file: Path
) -> None:
    pathway, kept = load_pathway(str(pathway_file)).pathway, Kept()
    run_case(compile_pathway(pathway), context_of(labelled(1), pathway, kept, steps=("second",)), run_id=1)
    assert kept.steps == ["second"]


@pytest.mark.parametrize(
    ("edges", "status", "stay", "expected"),
    [
        ("[{from: first, to: end, when: abstained}, {from: first, to: second}]", "abstain", 4000, []),
        ("[{from: first, to: end, when: abstained}, {from: first, to: second}]", "verified", 4000, ["second"]),
        ("[{from: first, to: second, when: answer_settled}]", "unverified", 4000, []),
        ("[{from: first, to: second, when: answer_settled}]", "verified", 4000, ["second"]),
        ("[{from: first, to: second, unless: answer_settled}]", "verified", 4000, []),
        ("[{from: first, to: second, when: has_ed_stay}]", "verified", 4000, []),
        ("[{from: first, to: second, when: clock_passed}]", "verified", 4000, ["second"]),
    ],
)
def test_edges_follow_their_conditions(
    labelled: Callable[..., LabelledCase],
    pathway_file: Path,
    edges: str,
    status: str,
    stay: int,
    expected: list[str],
) -> None:
    pathway, kept = with_edges(pathway_file, edges), Kept({"first": no_answer(status)})
    run_case(compile_pathway(pathway), context_of(labelled(1, stay=stay), pathway, kept), run_id=1)
    assert kept.steps == expected


def test_a_broken_search_fails_its_step_without_quoting_the_record(
    labelled: Callable[..., LabelledCase], pathway_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise KeyError("cough for 1 days")

    monkeypatch.setattr("workflow.step.run_search", broken)
    pathway = load_pathway(str(pathway_file)).pathway
    plan = plan_step(pathway.step("first"), load_catalogue(), SETTINGS)
    model = load_model("random:7")
    outcome = run_step(labelled(1).case, plan, strategy="rstar", models=Models(model, model), seed=1)
    assert outcome.failed
    assert outcome.reason.startswith("KeyError at test_graph.py:")
    assert "cough" not in outcome.reason


def test_checkpoints_lie_in_a_private_file_of_their_own_and_leave_no_thread(
    labelled: Callable[..., LabelledCase], pathway_file: Path, tmp_path: Path
) -> None:
    url = make_url(f"sqlite:///{tmp_path / 'cases.db'}")
    pathway, kept = load_pathway(str(pathway_file)).pathway, Kept()
    with open_checkpoints(url) as saver:
        graph = compile_pathway(pathway, saver)
        run_case(graph, context_of(labelled(1), pathway, kept), run_id=1)
        assert list(saver.list(None)) == []
    path = tmp_path / "cases.db.checkpoints"
    assert checkpoint_path(url) == path
    assert path.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "cases.db").exists()


def test_a_thread_left_by_a_killed_run_is_not_gone_on_with(
    labelled: Callable[..., LabelledCase], pathway_file: Path, tmp_path: Path
) -> None:
    url = make_url(f"sqlite:///{tmp_path / 'cases.db'}")
    pathway = load_pathway(str(pathway_file)).pathway

    class Killed(Kept):
        def keep(self, outcome: StepOutcome) -> None:
            if outcome.plan.step.name == "second":
                raise KeyboardInterrupt
            super().keep(outcome)

    with open_checkpoints(url) as saver, pytest.raises(KeyboardInterrupt):
        run_case(compile_pathway(pathway, saver), context_of(labelled(1), pathway, Killed()), run_id=1)
    kept = Kept()
    with open_checkpoints(url) as saver:
        run_case(compile_pathway(pathway, saver), context_of(labelled(1), pathway, kept), run_id=1)
    assert kept.steps == ["first", "second"]
    with sqlite3.connect(checkpoint_path(url)) as connection:
        assert connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)
    connection.close()
