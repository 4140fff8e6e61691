"""The bundled pathways ask at the clocks from which the recorded labels are measured."""

import pytest

from clinical_data.case import Case, Encounter, Patient
from clinical_data.clocks import CLOCKS, STEPS, FixedClock, clock_minute
from workflow.importing import SOURCES
from workflow.pathway import known_pathways, load_pathway


@pytest.mark.parametrize("name", known_pathways())
def test_pathway_clocks_are_the_fixed_ones(name: str) -> None:
    """Trap 16: a clock is fixed by step and source; a label window that another clock cut would be another question."""
    compared = 0
    for step in load_pathway(name).pathway.steps:
        for source, clock in step.clock.items():
            assert CLOCKS[source][step.name] == FixedClock(clock.anchor, clock.plus_minutes), (step.name, source)
            compared += 1
    assert compared >= 10


def test_every_importer_has_clocks_and_only_known_steps() -> None:
    assert set(CLOCKS) == set(SOURCES)
    for steps in CLOCKS.values():
        assert set(steps) <= set(STEPS)


def test_a_clock_without_its_anchor_is_none() -> None:
    patient = Patient("eicu-p", "eicu", "p")
    case = Case("eicu-1", "eicu", "1", patient, 60, (Encounter("1", "icu", 0, None),), {"admission": 5})
    assert clock_minute(case, "admission_diagnosis") == 365
    assert clock_minute(case, "discharge_diagnosis") is None
    assert clock_minute(case, "triage") is None
