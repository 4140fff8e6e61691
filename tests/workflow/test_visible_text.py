"""The text that the regression reads is that of a full-information prompt, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clinical_data.case import Coding, Finding, FindingKind, sort_findings
from clinical_data.catalogue import load_catalogue
from clinical_data.store.case_store import CaseStore
from evaluation.rows import prompt_rows
from evaluation.step_rules import StepRule, step_rules
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.visible_text import visible_text, visible_texts
from workflow.config import ReplayOptions
from workflow.runner import replay


@pytest.fixture
def replayed(fill: Callable[..., str], pathway_file: Path) -> tuple[RunStore, dict[str, StepRule]]:
    url = fill(3)
    options = ReplayOptions(pathway=str(pathway_file), generator="random:7", strategy="full-information")
    replay(url, "full", options)
    store = RunStore(open_database(url, create=False))
    return store, step_rules(store.get("full").config)


def test_it_is_the_prompt_of_full_information_without_instruction_and_cue(replayed) -> None:
    store, rules = replayed
    wanted = {step: [(f"fhir-e{i:03d}", 1) for i in range(3)] for step in rules}
    texts = visible_texts(store.engine, rules, wanted)
    cues = {"first": "\nWorking diagnosis:", "second": "\nPrincipal diagnosis:"}
    rows = [r for r in prompt_rows(store, store.get("full")) if "not described" not in r["text"]]
    assert len(rows) == 6
    for row in rows:
        text = texts[row["step"]][row["case_id"], row["occurrence"]].text
        instruction, _, rest = row["text"].partition("\n\n")
        assert instruction.startswith("A doctor reviews")
        assert rest.lstrip() == text + cues[row["step"]]
    first, second = (texts[step]["fhir-e001", 1] for step in ("first", "second"))
    assert "Potassium" in first.text
    assert "Sodium" not in first.text
    assert "Sodium" in second.text
    assert (first.recorded, second.recorded) == (1, 1)  # the panel; and the complaint, since the panel opens this step
    assert first.offered > 1


def test_the_wording_is_that_of_the_run(replayed) -> None:
    store, _ = replayed
    config = {**store.get("full").config, "settings": {"answer_values": 1, "answer_chars": 99}}
    assert {(r.settings.answer_values, r.settings.answer_chars) for r in step_rules(config).values()} == {(1, 99)}


def test_nothing_later_than_the_clock_changes_it(replayed) -> None:
    store, rules = replayed
    catalogue = load_catalogue()
    case = CaseStore(store.engine).get("fhir-e001")
    late = Finding(
        "late", FindingKind.LABORATORY, Coding("http://loinc.org", "2823-3", "CANARY"), 9.9, 0, 361, "mmol/L", flag="H"
    )  # fmt: skip
    changed = [
        replace(case, findings=sort_findings([*case.findings, late])),
        replace(case, findings=tuple(f for f in case.findings if f.available <= 360)),
    ]
    plain = visible_text(case, "first", rules["first"], catalogue)
    assert plain is not None
    assert [visible_text(c, "first", rules["first"], catalogue) for c in changed] == [plain, plain]


def test_a_step_after_the_end_of_the_stay_has_none(replayed) -> None:
    store, rules = replayed
    case = CaseStore(store.engine).get("fhir-e001")
    short = replace(case, anchors={**case.anchors, "end_of_stay": 359})
    assert visible_text(short, "first", rules["first"], load_catalogue()) is None
    assert visible_text(replace(case, source="osce"), "first", rules["first"], load_catalogue()) is None
