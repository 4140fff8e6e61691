"""No step can tell what became known after its clock, nor any recorded answer: property tests over every source.

A raw record is altered in its own format: rows and resources that become known after a clock are altered, moved
further away, deleted and added, results are taken out, and so is everything that tells an answer. Then every answer
of the chart with its state, all that is known, vignette, context and every prompt must be the same, byte by byte.
Traps of clinical.md: 1, 4, 7, 12, 14, 16, 17.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import leak_records
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from leak_consultations import DdxplusRecord, OsceRecord
from leak_eicu import EICU
from leak_fhir import FhirRecord
from leak_meds import MedsRecord
from leak_mimic import MIMIC_III, MIMIC_IV
from leak_records import (
    DEEDS,
    LOUD,
    RawRecord,
    carry_out,
    check_clocks,
    first_difference,
    keep_catalogue,
    labelled_of,
    seen_by,
    source_records,
    steps_until,
)

import workflow.step
from clinical_data.case import Case
from clinical_data.catalogue import Catalogue
from clinical_data.chart import Chart, open_chart
from clinical_data.ground_truth import LabelledCase
from tests.effort import effort

RECORDS: dict[str, RawRecord] = {
    r.source: r for r in (FhirRecord(), MIMIC_IV, MIMIC_III, EICU, MedsRecord(), OsceRecord(), DdxplusRecord())
}
TIMED = ("fhir", "mimic-iv", "mimic-iii", "eicu", "meds")  # the others have one moment at which everything is known
EXAMPLES = effort(3, 100)  # per source


@pytest.fixture(autouse=True)
def _one_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_catalogue(monkeypatch)


Importer = Callable[[LabelledCase], Case]  # stands for an importer: what it would have made of a case


def careful(labelled: LabelledCase) -> Case:
    """The importer as it is."""
    return labelled.case


def everything_seen(record: RawRecord, case: Case) -> dict[str, str]:
    return {step: seen_by(case, step) for step in record.clocks}


@cache
def untouched(source: str) -> LabelledCase:
    """The case of the record as it is. Its clocks are the ones that were worked out by hand."""
    record = RECORDS[source]
    with TemporaryDirectory(prefix="wardstar-leak-") as folder:
        labelled = labelled_of(record, record.write(record.content(), Path(folder)))
    check_clocks(record, labelled.case)
    return labelled


@cache
def seen_before(source: str) -> dict[str, str]:
    return everything_seen(RECORDS[source], untouched(source).case)


def check_no_leak(
    record: RawRecord, minute: int, deeds: list[str], before: dict[str, str], importer: Importer = careful
) -> None:
    """The property: what is hidden, and what becomes known after a minute, is free to change."""
    parts = [*record.hidden(), *record.later(minute)]
    chosen = [(part, deeds[i % len(deeds)]) for i, part in enumerate(parts)]
    with TemporaryDirectory(prefix="wardstar-leak-") as folder:
        case = importer(labelled_of(record, carry_out(record, chosen, Path(folder) / "record")))
    for step in steps_until(record, minute):
        now = seen_by(case, step)
        assert now == before[step], f"{record.source}, {step}: {first_difference(before[step], now)}"


@pytest.mark.parametrize("source", RECORDS)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_what_is_hidden_or_known_later_changes_no_byte(source: str, data: st.DataObject) -> None:
    minute = data.draw(st.sampled_from(sorted(set(RECORDS[source].clocks.values()))), label="clock")
    deeds = data.draw(st.lists(st.sampled_from(DEEDS), min_size=1, max_size=400), label="deeds")
    check_no_leak(RECORDS[source], minute, deeds, seen_before(source))


@pytest.mark.parametrize("deed", ["add", "delete"])
@pytest.mark.parametrize("source", RECORDS)
def test_all_at_once_changes_no_byte(source: str, deed: str) -> None:
    """All that is hidden or comes after the first clock is added to, or taken away."""
    check_no_leak(RECORDS[source], min(RECORDS[source].clocks.values()), [deed], seen_before(source))


@pytest.mark.parametrize("source", RECORDS)
def test_a_record_has_something_to_hide_at_every_clock(source: str) -> None:
    """The property is not empty: facts lie before, across and after each clock, and answers are recorded."""
    record = RECORDS[source]
    assert record.hidden()
    for minute in set(record.clocks.values()):
        names = [part.name for part in record.later(minute)]
        assert source not in TIMED or (len(names) > 5 and any(n.endswith("its result") for n in names))


# Tests of the tests: each guard is taken away, and the property must fail.


@pytest.mark.parametrize("source", RECORDS)
def test_control_an_early_fact_is_seen(source: str, tmp_path: Path) -> None:
    """A word in a visible fact does arrive, so that its absence elsewhere means something."""
    record = RECORDS[source]
    content = record.content()
    record.early(content)
    cases, _, _ = source_records.import_all(source, record.write(content, tmp_path))
    known = [c.case for c in cases if LOUD in repr(c.case)]
    case = next((c for c in known if c.source_id == record.source_id), known[0])  # the id of a scenario moves with it
    assert all(LOUD in text for text in everything_seen(record, case).values())


def open_everything(case: Case, clock: int, catalogue: Catalogue) -> Chart:
    """`open_chart` without its filter."""
    return replace(open_chart(case, 10**9, catalogue), clock=clock)


@pytest.mark.parametrize("source", TIMED)
def test_control_without_the_clock_check_the_property_fails(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leak_records, "open_chart", open_everything)
    monkeypatch.setattr(workflow.step, "open_chart", open_everything)
    record = RECORDS[source]
    before = everything_seen(record, untouched(source).case)
    with pytest.raises(AssertionError, match=f"^{source}, "):
        check_no_leak(record, min(record.clocks.values()), ["alter"], before)


def known_when_charted(labelled: LabelledCase) -> Case:
    """An importer that takes the time of observation for the time of the result (trap 4)."""
    case = labelled.case
    return replace(case, findings=tuple(replace(f, available=f.charted, pending_from=None) for f in case.findings))


@pytest.mark.parametrize("source", TIMED)
def test_control_with_the_charted_time_as_that_of_the_result_the_property_fails(source: str) -> None:
    record = RECORDS[source]
    before = everything_seen(record, known_when_charted(untouched(source)))
    with pytest.raises(AssertionError, match=f"^{source}, "):
        check_no_leak(record, sorted(record.clocks.values())[-2], ["alter"], before, known_when_charted)


def telling(labelled: LabelledCase) -> Case:
    """An importer that lets the recorded answers into the case."""
    return replace(labelled.case, context={"admission_source": repr(labelled.truth)})


@pytest.mark.parametrize("source", RECORDS)
def test_control_with_an_answer_in_the_case_the_property_fails(source: str) -> None:
    record = RECORDS[source]
    before = everything_seen(record, telling(untouched(source)))
    with pytest.raises(AssertionError, match=f"^{source}, "):
        check_no_leak(record, max(record.clocks.values()), ["delete"], before, telling)
