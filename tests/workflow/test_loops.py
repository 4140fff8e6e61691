"""Loops with a bound, the start of a pathway, the human end, and steps that the pathway leads past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_graph import Kept, context_of

from clinical_data.case import Encounter
from clinical_data.ground_truth import LabelledCase
from evaluation.store import open_database
from evaluation.store.run_store import RunStore, StoredRecord
from workflow.config import ReplayOptions
from workflow.graph import compile_pathway, run_case
from workflow.pathway import Pathway, parse_pathway
from workflow.route import PASSED_BY, went_to_human
from workflow.runner import replay, resume
from workflow.state import StepConclusion, no_answer

AGAIN = "first, when: budget_left}"


def looped(path: Path, *, most: int = 3, every: int = 600, edges: str = "") -> str:
    """The two-step pathway, whose first step comes again: at 6 hours, 16 hours, 26 hours ..."""
    text = path.read_text().replace("text: 6 hours after admission}", 'text: "{hours} hours after admission"}')
    text = text.replace("opening: [chief", f"repeat: {{most: {most}, every_minutes: {every}}}\n    opening: [chief")
    return text + (
        edges
        or """\
edges:
  - {from: first, to: second, when: answer_settled}
  - {from: first, to: first, when: budget_left}
  - {from: first, to: second}
"""
    )


def known(status: str) -> StepConclusion:
    return {"status": status, "answer_key": "I50.9", "display": "heart failure", "probability": 0.6}


class Remembering(Kept):
    """A run store that already holds the first occurrences of a step."""

    def __init__(self, statuses: list[str]) -> None:
        super().__init__()
        self.statuses = statuses

    def recall(self, step: str, occurrence: int) -> StepConclusion | None:
        stored = step == "first" and occurrence <= len(self.statuses)
        return no_answer(self.statuses[occurrence - 1]) if stored else None

    @property
    def passages(self) -> list[tuple[str, int]]:
        return [(o.plan.step.name, o.occurrence) for o in self.outcomes]


def walk(one: LabelledCase, pathway: Pathway, kept: Kept, **more: object) -> dict[str, int]:
    state = run_case(compile_pathway(pathway), context_of(one, pathway, kept, **more), run_id=1)  # type: ignore[arg-type]
    return state["visits"]


@pytest.mark.parametrize(
    ("stay", "statuses", "visits"),
    [
        (4000, ["unverified", "unverified", "unverified"], 3),  # the bound
        (4000, ["unverified", "verified"], 2),  # settled
        (4000, ["verified"], 1),
        (1000, ["unverified", "unverified", "unverified"], 2),  # 26 hours lie after the end of the stay
        (960, ["unverified", "unverified"], 2),  # 16 hours are its last minute
        (959, ["unverified", "unverified"], 1),
        (300, ["not_applicable"], 1),
    ],
)
def test_a_loop_ends_with_its_bound_the_stay_or_a_settled_answer(
    labelled: Callable[..., LabelledCase], pathway_file: Path, stay: int, statuses: list[str], visits: int
) -> None:
    pathway, kept = parse_pathway(looped(pathway_file)).pathway, Remembering(statuses)
    assert walk(labelled(1, stay=stay), pathway, kept) == {"first": visits, "second": 1}
    assert kept.passages == [("second", 1)]


def test_the_clock_moves_on_and_says_so(labelled: Callable[..., LabelledCase], pathway_file: Path) -> None:
    pathway, kept = parse_pathway(looped(pathway_file, every=1000)).pathway, Remembering([])
    edges = pathway.edges[1:]  # never settled
    pathway = pathway.model_copy(update={"edges": edges})
    walk(labelled(1), pathway, kept)
    assert kept.passages == [("first", 1), ("first", 2), ("first", 3), ("second", 1)]
    problems = [o.problem for o in kept.outcomes[:3] if o.problem]
    assert [p.chart.clock for p in problems] == [360, 1360, 2360]
    assert [p.clock_text for p in problems] == [
        "6 hours after admission", "22.6667 hours after admission", "39.3333 hours after admission",
    ]  # fmt: skip
    seen = [{f.code.display for f in p.chart.known()} for p in problems]
    assert ["Sodium" in names for names in seen] == [False, False, True]  # it comes at minute 2000


def test_two_occurrences_have_seeds_of_their_own(labelled: Callable[..., LabelledCase], pathway_file: Path) -> None:
    pathway, kept = parse_pathway(looped(pathway_file, most=2, every=1)).pathway, Remembering([])
    pathway = pathway.model_copy(update={"edges": pathway.edges[1:]})
    walk(labelled(1), pathway, kept)
    first, second = (o.result for o in kept.outcomes[:2])
    assert first
    assert second
    assert [c.seed for c in first.calls] != [c.seed for c in second.calls]


def test_a_loop_over_two_steps_takes_both_again(labelled: Callable[..., LabelledCase], pathway_file: Path) -> None:
    third = pathway_file.read_text().split("  - name: second")[1].replace("Second", "Third")
    text = looped(pathway_file, most=3, every=600, edges="x")[:-1]
    text = text.replace(
        "fhir: {anchor: end_of_stay, text: at the end of the stay}",
        'fhir: {anchor: admission, plus_minutes: 600, text: "{hours} h"}\n    repeat: {most: 2, every_minutes: 600}',
    )
    text += (
        f"  - name: third{third}edges:\n  - {{from: first, to: second}}\n"
        "  - {from: second, to: first, when: budget_left}\n  - {from: second, to: third}\n"
    )
    pathway, kept = parse_pathway(text).pathway, Remembering([])
    assert walk(labelled(1), pathway, kept) == {"first": 3, "second": 2, "third": 1}
    assert kept.passages == [("first", 1), ("second", 1), ("first", 2), ("second", 2), ("first", 3), ("third", 1)]


def test_a_conclusion_of_a_later_clock_is_not_shown_to_an_earlier_one(
    labelled: Callable[..., LabelledCase], pathway_file: Path
) -> None:
    """`first` is concluded at 6, 16 and 26 hours; `second`, here at 16 hours, reads that of 16 hours."""
    text = looped(pathway_file).replace(
        "{anchor: end_of_stay, text: at the end of the stay}", "{anchor: admission, plus_minutes: 960, text: soon}"
    )
    pathway, kept = parse_pathway(text).pathway, Remembering([])
    words = ["heart failure", "pneumonia", "acute pancreatitis"]
    kept.recall = lambda step, k: {**known("unverified"), "display": words[k - 1]} if step == "first" else None  # type: ignore[method-assign]
    assert walk(labelled(1), pathway, kept, predecessors="predicted") == {"first": 3, "second": 1}
    (problem,) = [o.problem for o in kept.outcomes]
    assert problem is not None
    assert problem.earlier == ("First diagnosis: pneumonia",)


@pytest.mark.parametrize(("ed", "steps"), [(True, ["first", "second"]), (False, ["second"])])
def test_a_condition_may_stand_before_the_first_step(
    labelled: Callable[..., LabelledCase], pathway_file: Path, ed: bool, steps: list[str]
) -> None:
    edges = "edges: [{from: start, to: first, when: has_ed_stay}, {from: start, to: second}, {from: first, to: second}]"
    pathway, kept, one = parse_pathway(pathway_file.read_text() + edges).pathway, Kept(), labelled(1)
    more = (Encounter("ed", "emergency", 0, 60),) if ed else ()
    one = replace(one, case=replace(one.case, encounters=(*one.case.encounters, *more)))
    walk(one, pathway, kept)
    assert kept.steps == steps


def stored(url: str, run: str) -> list[StoredRecord]:
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found = list(store.records(store.get(run).run_id))
    engine.dispose()
    return found


def options(path: Path, **more: object) -> ReplayOptions:
    settings = {"rollouts": 2, **more.pop("settings", {})}  # type: ignore[dict-item]
    return ReplayOptions(pathway=str(path), seed=3, generator="random:7", settings=settings, **more)  # type: ignore[arg-type]


def test_what_the_pathway_leads_past_is_recorded_as_not_applicable(
    pathway_file: Path, fill: Callable[..., str]
) -> None:
    edges = "edges: [{from: start, to: first, when: has_ed_stay}, {from: start, to: second}, {from: first, to: second}]"
    pathway_file.write_text(pathway_file.read_text() + edges)
    url = fill(2)
    assert replay(url, "r", options(pathway_file)).statuses["not_applicable"] == 2
    first = [s.record for s in stored(url, "r") if s.record.step == "first"]
    assert [(r.status, r.reason) for r in first] == [("not_applicable", PASSED_BY)] * 2
    again = replay(url, "r", options(pathway_file))
    assert (again.skipped, again.statuses.total()) == (2, 0)


def test_what_is_not_answered_goes_to_a_human(pathway_file: Path, fill: Callable[..., str]) -> None:
    edges = "edges: [{from: first, to: human, when: abstained}, {from: first, to: second}]"
    pathway_file.write_text(
        pathway_file.read_text().replace("search: {depth: 3}", "search: {abstain_below: 0.5}") + edges
    )
    url = fill(3)
    replay(url, "r", options(pathway_file))
    rows = {(s.record.case_id, s.record.step): s.record for s in stored(url, "r")}
    left = [case_id for case_id, step in rows if step == "first" and rows[case_id, step].status == "abstain"]
    assert left
    for (case_id, step), record in rows.items():
        if step == "second":
            assert went_to_human(record.reason) == (case_id in left)
            assert case_id not in left or "First diagnosis" in record.reason


def test_a_killed_loop_goes_on_where_it_was_and_gives_the_same_records(
    pathway_file: Path, fill: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is the last thing of the pathway: that its first occurrence is stored must not count as done."""
    edges = "edges:\n  - {from: first, to: second}\n  - {from: second, to: second, when: budget_left}\n"
    text = (
        looped(pathway_file, edges="x")[:-1]
        .replace('text: "{hours} hours after', "text: 6 hours after")
        .replace('admission"}', "admission}")
    )
    text = text.replace("repeat: {most: 3, every_minutes: 600}\n    ", "").replace(
        "fhir: {anchor: end_of_stay, text: at the end of the stay}",
        'fhir: {anchor: admission, plus_minutes: 600, text: "{hours} h"}\n    repeat: {most: 3, every_minutes: 600}',
    )
    pathway_file.write_text(text + edges)
    url = fill(2)
    replay(url, "whole", options(pathway_file))
    whole = stored(url, "whole")
    assert [(s.record.step, s.record.occurrence) for s in whole[:4]] == [
        ("first", 1), ("second", 1), ("second", 2), ("second", 3),
    ]  # fmt: skip
    put = RunStore.put

    def stop(self: RunStore, run_id: int, record: object, *rest: object, **more: object) -> None:
        if (record.step, record.occurrence) == ("second", 3) and record.case_id == "fhir-e001":  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        put(self, run_id, record, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(RunStore, "put", stop)
    with pytest.raises(KeyboardInterrupt):
        replay(url, "halved", options(pathway_file))
    monkeypatch.undo()
    assert len(stored(url, "halved")) == len(whole) - 1
    summary = resume(url, "halved")
    assert (summary.skipped, summary.statuses.total()) == (1, 1)
    timeless = [[s.record.model_copy(update={"seconds": 0.0}) for s in stored(url, run)] for run in ("whole", "halved")]
    assert timeless[0] == timeless[1]
    assert resume(url, "halved").skipped == 2


def test_a_step_may_be_called_like_a_part_of_the_state(
    labelled: Callable[..., LabelledCase], pathway_file: Path
) -> None:
    text = pathway_file.read_text().replace("name: first", "name: history").replace("name: second", "name: visits")
    kept = Kept()
    assert walk(labelled(1), parse_pathway(text).pathway, kept) == {"history": 1, "visits": 1}
