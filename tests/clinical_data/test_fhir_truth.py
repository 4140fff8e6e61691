"""The recorded labels of all eight steps of a FHIR case, and what never becomes a finding because it tells them."""

import json
from dataclasses import asdict

import pytest
from fhir_building import (
    CANARY,
    CODED,
    ICD,
    E,
    P,
    concept,
    condition,
    diagnosis,
    encounter,
    loader,
    observation,
    only,
    patient,
    without,
)

from clinical_data.catalogue import ITEM_SYSTEM
from clinical_data.clocks import STEPS
from clinical_data.ground_truth import Strength
from clinical_data.sources.step_truth import DISPOSITION_SYSTEM

DISPOSITION = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
ED = encounter("ed", "2024-01-10T06:00:00+01:00", "2024-01-10T10:20:00+01:00", partOf=E) | {"class": {"code": "EMER"}}


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


def request(key, at, code="24627-2", **more):
    return {
        "resourceType": "ServiceRequest",
        "id": key,
        "status": "completed",
        "intent": "order",
        "authoredOn": at,
        "subject": P,
        "encounter": E,
        "code": concept(code),
        **more,
    }


def drug(key, at, name, **more):
    return {
        "resourceType": "MedicationRequest",
        "id": key,
        "status": "completed",
        "intent": "order",
        "authoredOn": at,
        "subject": P,
        "encounter": E,
        "medicationCodeableConcept": {"text": name},
        **more,
    }


def test_every_step_has_labels_or_a_reason(load):
    truth = only(load(patient(), encounter())).truth
    assert tuple(truth) == STEPS
    assert all(not t.labels and t.absent_reason for t in truth.values())
    assert "needs no label" in truth["result_update"].absent_reason


def acuity(key="a", **more):
    return without(observation(key, "survey"), "valueQuantity") | {
        "code": concept("56839-4"),
        "encounter": {"reference": "Encounter/ed"},
        "effectiveDateTime": "2024-01-10T06:00:00+01:00",
        **more,
    }


@pytest.mark.parametrize(
    "value", [{"valueString": "2"}, {"valueInteger": 2}, {"valueCodeableConcept": {"text": "ESI 2 - emergent"}}]
)
def test_triage_acuity_is_a_label_and_never_a_finding(load, value):
    priority = concept("EM", "http://terminology.hl7.org/CodeSystem/v3-ActPriority")
    one = only(load(patient(), encounter(priority=priority), ED, acuity(**value)))
    (label,) = one.truth["triage"].labels
    assert (label.coding.code, label.strength, label.entered) == ("2", Strength.RECORDED_AT_TIME, -240)
    assert one.case.findings == ()


def test_priority_is_a_proxy_where_no_acuity_is_recorded(load):
    system = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
    none = acuity(dataAbsentReason=concept("unknown"))
    one = only(load(patient(), encounter(priority=concept("EM", system)), ED, none))
    (label,) = one.truth["triage"].labels
    assert (label.coding.system, label.coding.code, label.strength) == (system, "EM", Strength.PROXY)
    assert one.case.findings == ()


def vital(key, at):
    return observation(key, "vital-signs", encounter={"reference": "Encounter/ed"}, effectiveDateTime=at)


def test_the_triage_clock_waits_for_the_first_vital_signs(load):
    late = only(load(patient(), encounter(), ED, vital("v", "2024-01-10T06:25:00+01:00"))).case
    assert late.anchors["triage"] == late.anchors["ed_arrival"] + 25
    none = only(load(patient(), encounter(), ED, vital("v", "2024-01-10T11:25:00+01:00"))).case
    assert none.anchors["triage"] == none.anchors["ed_arrival"]


def test_an_admission_recorded_before_the_arrival_begins_when_the_ed_was_left(load):
    ed = encounter("ed", "2024-01-10T12:00:00+01:00", "2024-01-10T16:00:00+01:00", partOf=E)
    anchors = only(load(patient(), encounter(), ed | {"class": {"code": "EMER"}})).case.anchors
    assert (anchors["ed_arrival"], anchors["ed_departure"], anchors["admission"]) == (120, 360, 360)


def test_an_admission_diagnosis_entered_after_its_clock_is_recorded_later(load):
    for entered, strength in (("10T15:59", Strength.RECORDED_AT_TIME), ("10T16:01", Strength.RECORDED_LATER)):
        late = condition("c", recordedDate=f"2024-01-{entered}:00+01:00", encounter=E)
        truth = only(load(patient(), encounter(diagnosis=[diagnosis("AD", "c", 1)]), late)).truth
        assert truth["admission_diagnosis"].labels[0].strength is strength


def test_differential_and_refuted_conditions_are_the_differential_alone(load):
    verified = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
    said = {"i": "differential", "j": "refuted", "k": "confirmed", "l": "entered-in-error"}
    listed = [
        condition(key, f"{key.upper()}10", encounter=E, verificationStatus=concept(status, verified), **CODED)
        for key, status in said.items()
    ]
    listed[0]["recordedDate"] = "2024-01-10T12:00:00+01:00"
    old = condition("o", "O10", recordedDate="2020-01-01", verificationStatus=concept("differential", verified))
    one = only(load(patient(), encounter(), *listed, old))
    labels = one.truth["differential"].labels
    assert [(x.coding.code, x.strength, x.entered) for x in labels] == [
        ("I10", Strength.RECORDED_AT_TIME, 120),
        ("J10", Strength.RECORDED_LATER, None),
    ]
    assert one.case.findings == ()


def test_workup_is_what_was_ordered_in_the_day_after_the_clock(load):
    one = only(
        load(
            patient(),
            encounter(),
            request("early", "2024-01-10T18:00:00+01:00", "30746-2"),  # at the clock
            request("first", "2024-01-10T18:01:00+01:00", "2823-3"),
            request("again", "2024-01-11T06:00:00+01:00", "2823-3"),
            request("own", "2024-01-11T18:00:00+01:00", "X-1"),
            request("late", "2024-01-11T18:01:00+01:00", "X-2"),
            request("talk", "2024-01-11T06:00:00+01:00", "X-3", category=[concept("409063005")]),
            request("plan", "2024-01-11T06:00:00+01:00", "X-4", intent="plan"),
        )
    )
    labels = one.truth["workup"].labels
    assert [(x.coding.system, x.coding.code, x.source_row) for x in labels] == [
        (ITEM_SYSTEM, "basic_metabolic_panel", "ServiceRequest/first"),
        ("http://loinc.org", "X-1", "ServiceRequest/own"),
    ]


def test_without_any_order_the_workup_is_what_was_first_done(load):
    late = observation("late", effectiveDateTime="2024-01-11T09:00:00+01:00")
    labels = only(load(patient(), encounter(), late)).truth["workup"].labels
    assert [(x.coding.code, x.source_row) for x in labels] == [("basic_metabolic_panel", "Observation/late")]
    early = observation("early")
    assert not only(load(patient(), encounter(), early, late)).truth["workup"].labels


def test_treatment_is_what_was_newly_started_in_the_second_day(load):
    one = only(
        load(
            patient(),
            encounter(),
            drug("old", "2024-01-10T12:00:00+01:00", "Furosemide"),
            drug("new", "2024-01-11T12:00:00+01:00", "Vancomycin", dosageInstruction=[{"route": {"text": "IV"}}]),
            drug("again", "2024-01-11T13:00:00+01:00", "Furosemide"),
        )
    )
    labels = one.truth["treatment"].labels
    assert [x.source_row for x in labels] == ["MedicationRequest/new"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (concept("home", DISPOSITION), "home"),
        (concept("alt-home", DISPOSITION), "home"),
        (concept("snf", DISPOSITION), "facility"),
        (concept("long", DISPOSITION), "facility"),
        (concept("rehab", DISPOSITION), "facility"),
        (concept("other-hcf", DISPOSITION), "facility"),
        (concept("hosp", DISPOSITION), "hospice"),
        (concept("psy", DISPOSITION), "facility"),
        (concept("HOME HEALTH CARE", "mimic"), "home"),
        (concept("ACUTE HOSPITAL", "mimic"), "other_hospital"),
        (concept("06", "http://www.nubc.org/patient-discharge"), "home"),
        ({"text": "Hospice"}, "hospice"),
        (concept("exp", DISPOSITION), "died"),
        (concept("DIED", "mimic"), "died"),
        (concept("aadvice", DISPOSITION), "home"),
        (concept("oth", DISPOSITION), "no kind of place"),
        (None, "missing"),
    ],
)
def test_disposition(load, given, expected):
    more = {"hospitalization": {"dischargeDisposition": given}} if given else {}
    truth = only(load(patient(), encounter(**more))).truth["disposition"]
    if truth.labels:
        assert (truth.labels[0].coding.system, truth.labels[0].coding.code) == (DISPOSITION_SYSTEM, expected)
        assert truth.labels[0].entered == 5760
    else:
        assert expected in truth.absent_reason


HIDDEN = [
    observation(code=concept(code), valueString=CANARY)
    for code in ("11535-2", "29308-4", "18842-5", "8648-8", "10183-2", "46241-6", "42347-5", "44833-2", "52797-8")
]
for one in HIDDEN:
    del one["valueQuantity"]
HIDDEN += [
    without(observation(code={"text": "Discharge diagnosis"}, valueString=CANARY), "valueQuantity"),
    without(observation(valueCodeableConcept=concept(CANARY, "http://hl7.org/fhir/sid/icd-10-cm")), "valueQuantity"),
    without(observation(code=concept("1"), component=[{"code": concept("29308-4"), "valueString": CANARY}]), "value"),
    drug("d1", "2024-01-10T12:00:00+01:00", CANARY, category=[concept("discharge")]),
    drug("d2", "2024-01-10T12:00:00+01:00", CANARY, intent="plan"),
    {
        "resourceType": "DiagnosticReport",
        "id": "r",
        "status": "final",
        "category": [concept("LAB")],
        "code": concept("24323-8"),
        "subject": P,
        "encounter": E,
        "issued": "2024-01-10T12:00:00+01:00",
        "conclusionCode": [concept(CANARY)],
    },
]


@pytest.mark.parametrize("resource", HIDDEN)
def test_documents_diagnoses_and_discharge_orders_never_become_findings(load, resource):
    loaded = load(patient(), encounter(), resource)
    one = only(loaded)
    assert CANARY not in json.dumps(asdict(one.case), default=str)
    assert CANARY not in str(loaded[2].unused)


@pytest.mark.parametrize(("category", "lag"), [("laboratory", 1440), ("vital-signs", 1440), ("microbiology", 9 * 1440)])
def test_an_amended_value_without_its_time_is_not_known_from_when_it_was_charted(load, category, lag):
    (found,) = only(load(patient(), encounter(), observation(category=category, status="amended"))).case.findings
    assert found.available == found.charted + lag
    assert "amended" in found.note
    (known,) = only(
        load(patient(), encounter(), observation(status="amended", issued="2024-01-10T13:00:00+01:00"))
    ).case.findings
    assert (known.available, known.note) == (180, "Observation/o")


def test_an_earlier_admission_is_told_without_its_diagnosis(load):
    before = encounter("before", "2023-12-01T10:00:00+01:00", "2023-12-06T10:00:00+01:00")
    later = encounter("later", "2024-02-01T10:00:00+01:00", "2024-02-06T10:00:00+01:00")
    cases = {c.case.source_id: c.case for c in load(patient(), before, encounter(), later)[0]}
    (told,) = [f for f in cases["e"].findings if f.code.code == "prior_admission"]
    assert (told.value, told.kind.value) == ("inpatient, 5 days, ended 35 days before", "history")
    assert told.charted == told.available == -35 * 1440
    assert (told.code.system, cases["before"].findings) == ("wardstar:fhir/encounter", ())


def test_an_order_is_charted_at_its_start_and_known_from_the_later_of_both(load):
    way = [
        {
            "route": {"text": "PO"},
            "timing": {"code": {"text": "BID"}},
            "asNeededBoolean": True,
            "doseAndRate": [{"doseQuantity": {"value": 7777}}],
        }
    ]
    starts = {"validityPeriod": {"start": "2024-01-10T14:00:00+01:00", "end": "2024-01-13T14:00:00+01:00"}}
    order = drug("d", "2024-01-10T12:00:00+01:00", "Aspirin", dosageInstruction=way, dispenseRequest=starts)
    (found,) = only(load(patient(), encounter(), order)).case.findings
    assert (found.charted, found.available, found.value) == (240, 240, "PO BID PRN")
    assert found.code.display == "Aspirin"
    later = order | {"authoredOn": "2024-01-10T15:00:00+01:00"}
    (found,) = only(load(patient(), encounter(), later)).case.findings
    assert (found.charted, found.available) == (240, 300)


def test_truth_in_order_of_use_and_rank(load):
    uses = [
        diagnosis("CM", "cm", 1),
        diagnosis("DD", "dd2", 2),
        diagnosis("DD", "dd1", 1),
        diagnosis("billing", "bill", 1),
        diagnosis("AD", "ad2"),
        diagnosis("AD", "ad1", 3),
    ]
    conditions = [condition(k, f"X{n}", encounter=E) for n, k in enumerate(("cm", "dd2", "dd1", "bill", "ad2", "ad1"))]
    conditions[2]["code"]["coding"].insert(0, {"system": "http://snomed.info/sct", "code": "233604007"})
    conditions[5]["recordedDate"] = "2024-01-10T12:00:00+01:00"
    one = only(load(patient(), encounter(diagnosis=uses), *conditions))
    assert one.case.findings == ()
    admission, discharge = one.truth["admission_diagnosis"], one.truth["discharge_diagnosis"]
    assert [(x.coding.code, x.rank, x.entered) for x in admission.labels] == [("X5", 1, 120), ("X4", 2, None)]
    assert [(x.coding.code, x.rank, x.source_row) for x in discharge.labels] == [
        ("X2", 1, "Condition/dd1"),
        ("X1", 2, "Condition/dd2"),
        ("X0", 3, "Condition/cm"),
    ]
    assert {x.coding.system for x in discharge.labels} == {ICD}
    assert {x.strength for x in admission.labels} == {Strength.RECORDED_AT_TIME}
    assert {x.strength for x in discharge.labels} == {Strength.RECORDED_LATER}


def test_absent_truth_says_why(load):
    text_only = {"resourceType": "Condition", "id": "t", "subject": P, "code": {"text": "CANARY"}}
    uses = [diagnosis("AD", "gone", 1), diagnosis("DD", "t", 1), diagnosis("CM", "cm", 1)]
    truth = only(load(patient(), encounter(diagnosis=uses), text_only, condition("cm"))).truth
    assert truth["admission_diagnosis"].absent_reason == "Condition/gone is not in the import"
    assert truth["discharge_diagnosis"].absent_reason == "Condition/t has no code"
    truth = only(load(patient(), encounter(diagnosis=[diagnosis("CM", "cm", 1)]), condition("cm"))).truth
    assert truth["discharge_diagnosis"].absent_reason == "Encounter.diagnosis has no use DD"
