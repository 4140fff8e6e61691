"""The bundled pathways ask at the clocks from which the recorded labels are measured."""

import pytest

from clinical_data.case import Case, Encounter, Patient
from clinical_data.clocks import CLOCKS, STEPS, WINDOWED, FixedClock, clock_minute
from workflow.importing import SOURCES
from workflow.pathway import known_pathways, load_pathway


@pytest.mark.parametrize("name", known_pathways())
def test_pathway_clocks_are_the_fixed_ones(name: str) -> None:
    """Trap 16: a clock is fixed by step and source; a label window that another clock cut would be another question."""
    compared = 0
    for step in load_pathway(name).pathway.steps:
        # A step of another name may ask for the same label at a time of its own, unless the label is that of a window.
        fixed = step.name if step.name in STEPS else step.truth if step.truth in WINDOWED else None
        for source, clock in step.clock.items() if fixed else ():
            assert CLOCKS[source][fixed] == FixedClock(clock.anchor, clock.plus_minutes), (step.name, source)
            compared += 1
    assert compared >= 7


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
