"""MIMIC-IV on FHIR: what its profile alone does, and what must agree with the tables."""

import pytest
from fhir_building import E, P, concept, encounter, loader, observation, only, patient, without

SYSTEM = "http://mimic.mit.edu/fhir/mimic/CodeSystem/"
PRESCRIPTION = "http://mimic.mit.edu/fhir/mimic/identifier/medication-request-phid"


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


def of(profile, resource):
    return {**resource, "meta": {"profile": [f"http://mimic.mit.edu/fhir/mimic/StructureDefinition/mimic-{profile}"]}}


def stay(start="2024-01-10T10:00:00-05:00", end="2024-01-14T10:00:00-05:00"):
    return of("encounter", encounter(start=start, end=end))


def lab(key="o", value="4", **more):
    told = {"valueString": value, "effectiveDateTime": "2024-01-10T11:00:00-05:00"}
    return of("observation-labevents", {**without(observation(key), "valueQuantity"), **told, **more})


def micro(key="t", kind="test", at="2024-01-10T11:00:00-05:00", **more):
    code = concept(more.pop("code", "90201"), f"{SYSTEM}mimic-microbiology-{kind}")
    found = without(observation(key), "valueQuantity") | {"code": code, "effectiveDateTime": at, **more}
    return of(f"observation-micro-{kind}", found)


def test_trap_3_a_culture_known_by_its_day_is_pending_from_the_end_of_it(load):
    culture = micro(at="2024-01-10T00:00:00-05:00", valueString="NO MRSA ISOLATED.", code="90189")
    one = only(load(patient(), stay(), culture))
    (found,) = one.case.findings
    assert (found.charted, found.pending_from, found.available) == (840, 840, 840 + 9 * 1440)
    assert [x.coding.code for x in one.truth["workup"].labels] == ["cultures"]
    other = {**culture, "meta": {}, "category": [concept("microbiology")]}  # elsewhere midnight is a time of day
    (found,) = only(load(patient(), stay(), other)).case.findings
    assert found.pending_from == -600


@pytest.mark.parametrize("mimic", [True, False])
def test_summer_time_never_came_in_shifted_dates(load, mimic):
    """The clocks go back on 3 November 2024 at 02:00; read by the zone, the night has an hour more."""
    begun = encounter(start="2024-11-02T22:00:00-04:00", end="2024-11-05T10:00:00-05:00")
    later = lab(effectiveDateTime="2024-11-03T06:00:00-05:00", issued="2024-11-03T07:00:00-05:00")
    one = only(load(patient(), of("encounter", begun) if mimic else begun, later)).case
    (found,) = one.findings
    more = 0 if mimic else 60
    assert (found.charted, found.available, one.anchors["end_of_stay"]) == (480 + more, 540 + more, 3600 + more)


def order(key="a", *, frequency="", **more):
    way = {"route": {"coding": [{"code": "IV"}]}} | ({"timing": {"code": {"text": frequency}}} if frequency else {})
    valid = {"start": "2024-01-11T12:00:00-05:00", "end": "2024-01-12T12:00:00-05:00"}
    return of("medication-request", {
        "resourceType": "MedicationRequest", "id": key, "status": "completed", "intent": "order", "subject": P,
        "encounter": E, "authoredOn": "2024-01-11T11:00:00-05:00", "dosageInstruction": [way],
        "identifier": [{"system": PRESCRIPTION, "value": "1"}], "dispenseRequest": {"validityPeriod": valid},
        "medicationCodeableConcept": {"text": "Haloperidol"}, **more,
    })  # fmt: skip


def dispense(frequency, **more):
    return of("medication-dispense", {
        "resourceType": "MedicationDispense", "id": "d", "status": "completed", "subject": P, "context": E,
        "medicationCodeableConcept": {"text": "Haloperidol"},
        "dosageInstruction": [{"timing": {"code": {"coding": [{"code": frequency}]}}}],
        "authorizingPrescription": [{"reference": "MedicationRequest/a"}], **more,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("frequency", "said", "labels"),
    [("MRX1:PRN", "IV MRX1 PRN", []), ("ONCE:PRN", "IV ONCE PRN", []), ("BID", "IV BID", ["antipsychotics"])],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_pharmacys_row_tells_how_often_and_that_it_is_as_needed(load, frequency, said, labels, first):
    rows = (dispense(frequency), order()) if first else (order(), dispense(frequency))
    loaded = load(patient(), stay(), *rows)
    (found,) = only(loaded).case.findings
    assert (found.value, found.note) == (said, "MedicationRequest/a")
    assert [x.coding.code for x in only(loaded).truth["treatment"].labels] == labels
    assert not loaded[2].unused


def test_only_mimics_dispense_without_a_time_speaks_for_its_order(load):
    handed = dispense("BID:PRN", whenHandedOver="2024-01-13T11:00:00-05:00")
    of_order = [f for f in only(load(patient(), stay(), order(), handed)).case.findings if f.note[-1] == "a"]
    assert [f.value for f in of_order] == ["IV"]
    loaded = load(patient(), stay(), {**order(), "meta": {}}, {**dispense("BID:PRN"), "meta": {}})
    assert [f.value for f in only(loaded).case.findings] == ["IV"]
    assert loaded[2].unused["MedicationDispense: no time"] == 1
    (own,) = only(load(patient(), stay(), order(frequency="Q6H:PRN"), dispense("BID"))).case.findings
    assert own.value == "IV Q6H PRN"


ENDS_FIRST = {"validityPeriod": {"start": "2024-01-11T12:00:00-05:00", "end": "2024-01-11T12:00:00-05:00"}}


@pytest.mark.parametrize(
    ("more", "labels"),
    [
        ({}, 1),
        ({"dispenseRequest": {}}, 0),
        ({"dispenseRequest": {}, "status": "stopped"}, 0),
        ({"dispenseRequest": ENDS_FIRST}, 0),
        ({"dispenseRequest": {}, "status": "unknown"}, 1),  # only the end is not recorded
        ({"dispenseRequest": {}, "identifier": [{"system": "x/medication-request-poe", "value": "1"}]}, 1),
        ({"dispenseRequest": {}, "meta": {}}, 1),
    ],
)
def test_an_order_cancelled_before_its_start_begins_no_treatment(load, more, labels):
    one = only(load(patient(), stay(), order() | more))
    assert len(one.truth["treatment"].labels) == labels
    assert len(one.case.findings) == 1  # it was given, and the chart shows that


@pytest.mark.parametrize("masked", ["___", " ___. ", "_", "  "])
def test_a_masked_value_is_no_result(load, masked):
    for row in (lab(value=masked), micro(valueString=masked)):
        (found,) = only(load(patient(), stay(), row)).case.findings
        assert (found.value, found.result_in_source) == (None, False)


def test_a_masked_organism_keeps_its_name_alone(load):
    grown = micro("g", "organism", code="80002", derivedFrom=[{"reference": "Observation/t"}], valueString="___")
    test = micro(hasMember=[{"reference": "Observation/g"}])
    (found,) = only(load(patient(), stay(), test, grown)).case.findings
    assert found.value == "name of 80002"


@pytest.mark.parametrize(
    "said", ["TEST CANCELLED, PATIENT CREDITED.  ", "Test cancelled by laboratory.  PATIENT CREDITED.", "CANCELLED"]
)
def test_a_cancelled_test_has_no_result(load, said):
    (found,) = only(load(patient(), stay(), micro(valueString=said))).case.findings
    assert (found.value, found.result_in_source) == (None, False)
    grown = micro("g", "organism", derivedFrom=[{"reference": "Observation/t"}]) | {"code": {"text": said.strip()}}
    (found,) = only(load(patient(), stay(), micro(), grown)).case.findings
    assert (found.value, found.result_in_source) == (None, False)


@pytest.mark.parametrize(
    ("fluid", "name"),
    [("Urine", "Protein, urine"), ("Blood", "Protein"), ("Venous blood specimen", "Protein"), ("Protein", "Protein")],
)
def test_a_laboratory_value_is_named_by_its_fluid(load, fluid, name):
    kept = {"resourceType": "Specimen", "id": "s", "subject": P, "type": {"coding": [{"code": fluid}]}}
    row = lab(code={"coding": [{"code": "51492", "display": "Protein"}]}, specimen={"reference": "Specimen/s"})
    (found,) = only(load(patient(), stay(), row, kept)).case.findings
    assert found.code.display == name


@pytest.mark.parametrize(("value", "unit"), [("<0.01", "ng/mL"), (">182*", "ng/mL"), ("NEG", "")])
def test_a_value_beyond_the_range_has_the_unit_of_the_range(load, value, unit):
    limits = [{"low": {"value": 0, "unit": "ng/mL"}, "high": {"value": 0.01, "unit": "ng/mL"}}]
    (found,) = only(load(patient(), stay(), lab(value=value, referenceRange=limits))).case.findings
    assert (found.value, found.unit) == (value, unit)


def test_a_specimen_that_was_only_kept_is_no_result(load):
    loaded = load(patient(), stay(), lab(value="HOLD.  DISCARD GREATER THAN 4 HOURS OLD."))
    assert only(loaded).case.findings == ()
    assert loaded[2].unused["Observation: a specimen kept without a test"] == 1
