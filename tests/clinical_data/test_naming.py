import pytest

from clinical_data.case import Coding
from clinical_data.naming import short_name, unit_text

LOINC = "http://loinc.org"
NAMES = [
    (LOINC, "2951-2", "Sodium [Moles/volume] in Serum or Plasma", "Sodium"),
    (LOINC, "2955-3", "Sodium [Moles/volume] in Urine", "Urine sodium"),
    (LOINC, "718-7", "Hemoglobin [Mass/volume] in Blood", "Hemoglobin"),
    (LOINC, "6690-2", "Leukocytes [#/volume] in Blood by Automated count", "White cells"),
    (LOINC, "2744-1", "pH of Arterial blood", "pH"),
    (LOINC, "6301-6", "INR in Platelet poor plasma by Coagulation assay", "INR"),
    (LOINC, "10207-9", "Physical findings of Thorax and Lungs", "Thorax and Lungs"),
    (LOINC, "36643-5", "XR Chest 2 Views", "XR Chest 2 Views"),
    (LOINC, "x", "", "x"),
    ("wardstar:eicu/lab", "BUN", "Sodium [odd]  in Serum", "Sodium [odd] in Serum"),
]


@pytest.mark.parametrize(("system", "code", "display", "short"), NAMES)
def test_names_lose_the_scaffolding_of_loinc_only(system, code, display, short):
    assert short_name(Coding(system, code, display)) == short


@pytest.mark.parametrize(
    ("ucum", "written"),
    [("mm[Hg]", "mmHg"), ("Cel", "°C"), ("{score}", ""), ("ng/mL{FEU}", "ng/mL"), ("mmol/L", "mmol/L"), ("", "")],
)
def test_units_as_they_are_written(ucum, written):
    assert unit_text(ucum) == written
