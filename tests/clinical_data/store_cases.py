"""Made-up cases for the tests of the store."""

from __future__ import annotations

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, make_id, sort_findings
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength


def labelled(
    number: int = 1, *, value: float | str | None = 4.2, patient: str = "p1", hospital: str = "7"
) -> LabelledCase:
    case_id = make_id("fhir", f"e{number}")
    facts = [
        Finding(
            "fb",
            FindingKind.LABORATORY,
            Coding("http://loinc.org", "2823-3", "Potassium", "2.77"),
            value,
            -10,
            40,
            unit="mmol/L",
            low=3.5,
            high=5.1,
            flag="H",
            pending_from=-10,
            note="Observation/x",
        ),
        Finding("fa", FindingKind.HISTORY, Coding("s", "c", "高血压 — Größe"), "ja, 是", -600, -600),
        Finding("fc", FindingKind.IMAGING, Coding("s", "ct"), None, 5, 5, result_in_source=False),
    ]
    case = Case(
        case_id=case_id, source="fhir", source_id=f"e{number}",
        patient=Patient(make_id("fhir", patient), "fhir", patient, "female"),
        age=71, encounters=(Encounter(f"e{number}", "inpatient", 0, 5000), Encounter("ed", "emergency", -200, 10)),
        anchors={"admission": 0, "end_of_stay": 5000}, context={"admission_source": "Emergency"},
        findings=sort_findings(facts), attributes={"hospital_id": hospital} if hospital else {},
    )  # fmt: skip
    labels = (
        Label(Coding("icd", "J18.9", "Pneumonia", "2024"), Strength.RECORDED_LATER, 1, 4000, "Condition/1"),
        Label(Coding("icd", "I10"), Strength.PROXY, 2),
    )
    truth = {
        "discharge_diagnosis": GroundTruth(case_id, "discharge_diagnosis", labels),
        "admission_diagnosis": GroundTruth(case_id, "admission_diagnosis", (), "no diagnosis with use AD"),
    }
    return LabelledCase(case, truth)
