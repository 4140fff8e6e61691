"""The whole pathway at once: no step, at any occurrence, can tell what became known after its clock, nor any label.

Where `test_no_leak` looks at one step at a time, a case here goes through the graph with its loops and with the
conclusions of earlier steps in the prompts: what came later must not return through a conclusion, a condition or the
number of times that a step is taken. Traps of clinical.md: 15, 16.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from leak_records import LOUD, RawRecord, carry_out, keep_catalogue, labelled_of, plans
from test_no_leak import RECORDS, open_everything, untouched

import workflow.step
from clinical_data.case import Case, Coding, Finding, FindingKind, sort_findings
from clinical_data.clocks import STEPS
from search.models.toys import RandomModel
from search.problem import Models
from tests.effort import effort
from workflow.config import PreparedRun, ReplayOptions, make_config, prepare
from workflow.graph import CaseContext, compile_pathway, run_case
from workflow.step import StepOutcome, clock_of

TIMED = ("fhir", "mimic-iv", "mimic-iii", "eicu", "meds")
THOROUGH = effort(0, 1)
HIDDEN_UNTIL = STEPS.index("treatment")


@pytest.fixture(autouse=True)
def _one_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_catalogue(monkeypatch)


@cache
def unsettled() -> PreparedRun:
    """The bundled pathway, whose answers never settle: every loop goes on to its bound."""
    settings = {"rollouts": 2, "abstain_below": 1.0}
    return prepare(make_config(ReplayOptions(generator="random:3", settings=settings)))


def passages(case: Case, strategy: str, prepared: PreparedRun) -> dict[tuple[str, int], StepOutcome]:
    """(step, occurrence) -> outcome of a whole walk, with earlier conclusions in the prompts."""
    model, kept = RandomModel(3), {}

    def keep(outcome: StepOutcome) -> None:
        kept[outcome.plan.step.name, outcome.occurrence] = outcome

    context = CaseContext(
        case=case,
        plans=prepared.plans,
        models=Models(model, model),
        strategy=strategy,
        seed=1,
        predecessors="predicted",
        recall=lambda step, occurrence: None,
        keep=keep,
    )
    run_case(compile_pathway(prepared.pathway), context, run_id=1)
    return kept


@cache
def walked(source: str) -> dict[tuple[str, int], StepOutcome]:
    """The walk of the record as it is."""
    return passages(untouched(source).case, "rstar", unsettled())


def prompts(outcome: StepOutcome) -> list[str]:
    return [] if outcome.result is None else [call.text for call in outcome.result.calls]


def until(case: Case, found: dict[tuple[str, int], StepOutcome], minute: int) -> dict[tuple[str, int], list[str]]:
    """The prompts of what was asked at a clock not after a minute."""
    clocks = {key: clock_of(case, o.plan.step, o.occurrence) for key, o in found.items() if o.result is not None}
    return {key: prompts(found[key]) for key, clock in clocks.items() if clock is not None and clock <= minute}


def loops_of(record: RawRecord) -> list[int]:
    """The clocks of all occurrences of the case, worked out from those of the first by hand."""
    every = 240
    first = record.clocks
    return sorted({*first.values(), *(first[s] + k * every for s in ("workup", "result_update") for k in (1, 2))})


@pytest.mark.parametrize("deed", ["alter", "delete", "add"])
@pytest.mark.parametrize("source", TIMED)
def test_nothing_later_changes_a_prompt_of_any_occurrence(source: str, deed: str, tmp_path: Path) -> None:
    record, case, before = RECORDS[source], untouched(source).case, walked(source)
    assert {k for _, k in before} == {1, 2, 3}
    minutes = loops_of(record)
    chosen = minutes if THOROUGH else (record.clocks["result_update"] + 240, record.clocks["treatment"])
    for number, minute in enumerate(chosen):
        parts = [*record.hidden(), *record.later(minute)]
        path = carry_out(record, [(part, deed) for part in parts], tmp_path / str(number))
        changed = labelled_of(record, path).case
        now = passages(changed, "rstar", unsettled())
        expected = until(case, before, minute)
        assert expected or minute < record.clocks["admission_diagnosis"]
        assert until(changed, now, minute) == expected, (source, deed, minute)


def test_control_without_the_clock_check_the_property_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workflow.step, "open_chart", open_everything)
    record, case, minute = RECORDS["fhir"], untouched("fhir").case, RECORDS["fhir"].clocks["workup"]
    path = carry_out(record, [(part, "alter") for part in record.later(minute)], tmp_path / "record")
    changed = labelled_of(record, path).case
    told = [until(c, passages(c, "full-information", unsettled()), minute) for c in (case, changed)]
    assert told[0] != told[1]


def test_the_walk_shows_earlier_conclusions() -> None:
    """So that the property above is not one of prompts without any."""
    told = walked("fhir")
    text = "\n".join(prompts(told["result_update", 2]))
    assert "Earlier conclusion: Work-up:" in text
    assert "Earlier conclusion: Update by new results:" in text


@pytest.mark.parametrize("source", TIMED)
def test_treatment_of_the_stay_is_hidden_until_the_treatment_step(source: str) -> None:
    """Trap 15: however early it was given, and however it is called."""
    case = untouched(source).case
    codes = [Coding(f.code.system, f.code.code, LOUD) for f in case.findings if f.kind is not FindingKind.TREATMENT]
    start = min(case.anchors.values()) - 10
    given = [
        Finding(f"loud{i}", FindingKind.TREATMENT, code, LOUD, start, start, pending_from=start - 5)
        for i, code in enumerate([Coding("wardstar:test", LOUD, LOUD), *codes])
    ]
    loud = replace(case, findings=sort_findings([*case.findings, *given]))
    for strategy in ("rstar", "full-information"):
        seen = passages(loud, strategy, plans())
        plain = passages(case, strategy, plans())
        early = {key for key in seen if STEPS.index(key[0]) < HIDDEN_UNTIL}
        assert len(early) >= 4
        for key in early:
            assert prompts(seen[key]) == prompts(plain[key]), (source, strategy, key)
        assert not any(LOUD in text for key in early for text in prompts(seen[key]))
        if strategy == "full-information":  # the control: from then on it is there
            late = [key for key in seen if key not in early]
            assert all(any(LOUD in text for text in prompts(seen[key])) for key in late)
