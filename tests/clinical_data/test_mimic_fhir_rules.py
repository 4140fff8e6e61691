"""MIMIC-IV on FHIR: what its profile alone does, and what must agree with the tables."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from fhir_building import E, P, concept, encounter, loader, observation, only, patient, read, without

from clinical_data.clocks import LOOK_BACK

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mimic-iv-demo" / "fhir"
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


@pytest.fixture(scope="module")
def demo():
    if not SHARED.is_dir():
        pytest.skip("acceptance data mimic-iv-demo is not beside the project")
    return read(SHARED)


def raw(name):
    with gzip.open(SHARED / f"Mimic{name}.ndjson.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def stays_of(demo):
    """Case by the id that the hospital gave the stay."""
    names = {r["id"]: r["identifier"][0]["value"] for r in raw("Encounter")}
    return {names[c.case.source_id]: c for c in demo[0] if c.case.source_id in names}


def labels(case, step):
    return {x.coding.code for x in case.truth[step].labels}


@pytest.mark.shared_data
def test_every_result_of_the_demo_is_of_its_episode(demo):
    late = ("laboratory", "microbiology", "imaging")
    unowned = {f"Observation/{r['id']}" for r in raw("ObservationLabevents") if "encounter" not in r}
    checked = 0
    for one in demo[0]:
        first = min(e.start for e in one.case.encounters)
        found = [f for f in one.case.findings if f.kind in late and f.note in unowned]
        assert all(f.charted >= first - LOOK_BACK for f in found)
        checked += len(found)
    assert checked > 5000


@pytest.mark.shared_data
def test_no_value_of_the_demo_is_masked_held_or_cancelled(demo):
    texts = [f.value for c in demo[0] for f in c.case.findings if isinstance(f.value, str)]
    wrong = [t for t in texts if not t.strip("_. ") or "(___)" in t or t.upper().startswith(("HOLD.", "TEST CANCEL"))]
    assert texts
    assert not wrong
    fluids = Counter(f.code.display for c in demo[0] for f in c.case.findings if f.code.code == "51492")
    assert set(fluids) == {"Protein, urine"}


@pytest.mark.shared_data
def test_dates_of_cultures_against_the_raw_rows(demo):
    by_day = {f"Observation/{r['id']}" for r in raw("ObservationMicroTest") if "T00:00:00" in r["effectiveDateTime"]}
    assert len(by_day) == 56
    found = stays_of(demo)["22429197"]
    screens = [f for f in found.case.findings if f.note in by_day]
    assert [f.pending_from for f in screens] == [920]
    assert "cultures" in labels(found, "workup")


@pytest.mark.shared_data
def test_orders_as_needed_and_never_begun_label_nothing(demo):
    stays = stays_of(demo)
    told = {d["authorizingPrescription"][0]["reference"]: d for d in raw("MedicationDispense")}
    needed = {k for k, d in told.items() if "PRN" in json.dumps(d.get("dosageInstruction", ""))}
    orders = [f for c in demo[0] for f in c.case.findings if f.note in needed]
    assert len(orders) > 2000
    assert all("PRN" in str(f.value) for f in orders)
    for key in ("27996267", "23300884"):
        assert "antipsychotics" not in labels(stays[key], "treatment")
    assert "diuretics" not in labels(stays["23559586"], "treatment")
    assert "antiplatelets" in labels(stays["24745425"], "treatment")  # what was cancelled does not come first


@pytest.mark.shared_data
def test_tests_of_an_unlinked_ed_are_not_new(demo):
    stays = stays_of(demo)
    for key in ("20291550", "25797028", "26275841", "27672872", "25177949"):
        first = min(e.start for e in stays[key].case.encounters)
        before = [f for f in stays[key].case.findings if f.kind == "laboratory" and f.charted < first]
        assert before
        assert not labels(stays[key], "workup") & {"blood_count", "basic_metabolic_panel"}
