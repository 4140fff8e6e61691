"""Small records, truths and vocabularies for the tests of evaluation."""

from __future__ import annotations

from clinical_data.case import Case, Coding, Encounter, Patient, make_id
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.vocabulary import Entry, Vocabulary
from evaluation.record import RankedAnswer, RequestRecord, RunRecord

ICD = "http://hl7.org/fhir/sid/icd-10-cm"
GROUPS = "wardstar:test/group"
STEP = "admission_diagnosis"

WARD = Vocabulary(
    "general-ward-icd10",
    "1",
    ICD,
    tuple(Entry(c, d) for c, d in (("J18", "pneumonia"), ("I50", "heart failure"), ("A41", "sepsis"), ("N17", "aki"))),
    "1" * 64,
)
GROUPED = Vocabulary(
    "groups",
    "1",
    GROUPS,
    (Entry("sepsis", "sepsis", ("septic shock",)), Entry("pneumonia", "pneumonia"), Entry("mi", "heart attack")),
    "2" * 64,
    members={"Non-operative|Sepsis, pulmonary": "sepsis", "Non-operative|Pneumonia, bacterial": "pneumonia"},
    half_credit=frozenset({frozenset({"sepsis", "pneumonia"})}),
)
TERMS = Vocabulary(
    "terms", "1", "wardstar:test/term", (Entry("stemi", "ST elevation MI", ("heart attack",)),), "3" * 64
)


def truth_of(*codes, system=ICD, case_id="fhir-1", step=STEP, ranks=None):
    ranks = ranks or range(1, len(codes) + 1)
    labels = [Label(Coding(system, c, c), Strength.RECORDED_LATER, r) for c, r in zip(codes, ranks, strict=True)]
    return GroundTruth(case_id, step, tuple(labels), "" if labels else "none recorded")


def record_of(*codes, system=ICD, status="verified", case_id="fhir-1", patient="fhir-p1", step=STEP, **more):
    """A record whose answers share the probability: 0.5, 0.25, ..., the last twice its due."""
    shares = [0.5 ** (i + 1) for i in range(len(codes))]
    if shares:
        shares[-1] += 1 - sum(shares)
    ranked = tuple(
        RankedAnswer(system=system, code=c, display=c, probability=p) for c, p in zip(codes, shares, strict=True)
    )
    more.setdefault("strategy", "rstar")
    more.setdefault("vocabulary", "general-ward-icd10")
    source, source_id = case_id.split("-", 1)
    return RunRecord(
        case_id=case_id, source=source, source_id=source_id, patient_id=patient, step=step, status=status,
        ranked=ranked, **more,
    )  # fmt: skip


def request_of(item, state="recorded", cost=0.0, on_path=False):
    return RequestRecord(item=item, state=state, cost=cost, on_path=on_path)


def case_of(number, patient, *codes, step=STEP, source="fhir", system=ICD):
    """A case without findings, labelled with codes (none: absent)."""
    case_id = make_id(source, str(number))
    case = Case(
        case_id=case_id, source=source, source_id=str(number),
        patient=Patient(make_id(source, patient), source, patient, "female"), age=60,
        encounters=(Encounter(str(number), "inpatient", 0, 5000),), anchors={"admission": 0, "end_of_stay": 5000},
    )  # fmt: skip
    return LabelledCase(case, {step: truth_of(*codes, case_id=case_id, step=step, system=system)})
