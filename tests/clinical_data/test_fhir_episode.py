"""What belongs to the episode: no diagnosis in another dress, no result of years ago, no test that was done before."""

import json

import pytest
from fhir_building import E, encounter, loader, observation, only, patient, without

from clinical_data.case import FindingKind
from clinical_data.sources import ImportLog
from clinical_data.sources.fhir import FhirSource

ICD = "http://hl7.org/fhir/sid/icd-10-cm"
PATIENT = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1950-01-01"}
CODE = {"coding": [{"system": ICD, "code": "J18.9", "display": "zugzwang"}]}


def stay(name, begun, ended, kind="IMP", **more):
    return {
        "resourceType": "Encounter",
        "id": name,
        "status": "finished",
        "class": {"code": kind},
        "subject": {"reference": "Patient/p"},
        "period": {"start": f"2024-03-{begun}:00+00:00", "end": f"2024-03-{ended}:00+00:00"},
        **more,
    }


def condition(category, **more):
    categories = [{"coding": [{"code": c}]} for c in category]
    return {
        "resourceType": "Condition",
        "id": "c",
        "subject": {"reference": "Patient/p"},
        "category": categories,
        "code": CODE,
        **more,
    }


def shown(tmp_path, *resources):
    path = tmp_path / "all.ndjson"
    path.write_text("\n".join(json.dumps(r) for r in (PATIENT, *resources)), encoding="utf-8")
    cases = {c.case.source_id: c.case for c in FhirSource().read(path, ImportLog(pytest.fail))}
    return [f for f in cases["own"].findings if f.code.display == "zugzwang"]


OWN = stay("own", "10T08:00", "14T08:00")
PROBLEM, DIAGNOSIS = "problem-list-item", "encounter-diagnosis"
HIDDEN = [
    condition([PROBLEM], recordedDate="2024-03-10T09:00:00+00:00"),
    condition([PROBLEM, DIAGNOSIS], recordedDate="2024-03-01T09:00:00+00:00"),
    condition([PROBLEM], onsetDateTime="2024-03-09"),
    condition([], onsetDateTime="2024-03-09"),
    condition([], recordedDate="2024-03-10T09:00:00+00:00"),
    condition([DIAGNOSIS], recordedDate="2024-03-01"),
]
VISIBLE = [
    condition([PROBLEM], recordedDate="2024-03-09T09:00:00+00:00"),
    condition([PROBLEM], onsetDateTime="2019-05-01"),
    condition([], recordedDate="2020-01-01"),
]


@pytest.mark.parametrize("resource", HIDDEN)
def test_what_may_be_the_stays_own_diagnosis_is_never_visible(tmp_path, resource):
    assert shown(tmp_path, OWN, resource) == []


@pytest.mark.parametrize("resource", VISIBLE)
def test_old_problems_are_visible_from_the_start(tmp_path, resource):
    (found,) = shown(tmp_path, OWN, resource)
    assert found.available < 0


@pytest.mark.parametrize(("ended", "visible"), [("10T08:00", 0), ("09T09:00", 0), ("08T08:00", 1)])
def test_a_visit_of_the_same_episode_does_not_tell_its_code(tmp_path, ended, visible):
    before = stay("before", "08T03:00", ended, "EMER")
    told = condition([DIAGNOSIS], encounter={"reference": "Encounter/before"}, recordedDate="2024-03-08T04:00:00+00:00")
    assert len(shown(tmp_path, before, OWN, told)) == visible


DRUG = {
    "resourceType": "MedicationStatement",
    "id": "m",
    "status": "active",
    "subject": {"reference": "Patient/p"},
    "context": {"reference": "Encounter/own"},
    "medicationCodeableConcept": {"coding": [{"system": "x", "code": "1", "display": "zugzwang"}]},
}
DRUGS = [
    ({"effectiveDateTime": "2024-03-10T10:00:00+00:00"}, FindingKind.TREATMENT),
    ({"dateAsserted": "2024-03-14T07:00:00+00:00", "category": {"coding": [{"code": "inpatient"}]}}, "treatment"),
    ({"dateAsserted": "2024-03-10T09:00:00+00:00"}, FindingKind.MEDICATION_HOME),
    ({"effectiveDateTime": "2023-01-01", "dateAsserted": "2024-03-10T09:00:00+00:00"}, FindingKind.MEDICATION_HOME),
]


@pytest.mark.parametrize(("fields", "kind"), DRUGS)
def test_only_drugs_from_before_the_stay_are_home_drugs(tmp_path, fields, kind):
    (found,) = shown(tmp_path, OWN, {**DRUG, **fields})
    assert found.kind == kind


def test_the_last_version_of_an_encounter_holds(tmp_path):
    label = condition([PROBLEM], recordedDate="2024-03-01")
    with_label = {**OWN, "diagnosis": [{"condition": {"reference": "Condition/c"}, "rank": 1}]}
    assert shown(tmp_path, OWN, with_label, label) == []


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


def loose(key, at, category="laboratory", **more):
    return without(observation(key, category, effectiveDateTime=at, **more), "encounter")


@pytest.mark.parametrize("category", ["laboratory", "microbiology", "imaging"])
@pytest.mark.parametrize(
    ("at", "shown"),
    [("2024-01-09T06:00", True), ("2024-01-09T05:59", False), ("2021-05-05T05:59", False), ("2024-01-12T12:00", True)],
)
def test_a_result_without_an_encounter_is_of_this_episode_or_of_none(load, category, at, shown):
    ed = encounter("ed", "2024-01-10T06:00:00+01:00", "2024-01-10T10:20:00+01:00", partOf=E) | {
        "class": {"code": "EMER"}
    }
    findings = only(load(patient(), encounter(), ed, loose("o", f"{at}:00+01:00", category))).case.findings
    assert len(findings) == shown


def test_a_result_of_an_outpatient_visit_years_ago_answers_no_request(load):
    visit = encounter("visit", "2021-05-05T08:00:00+02:00", "2021-05-05T09:00:00+02:00") | {"class": {"code": "AMB"}}
    measured = observation(
        "o", encounter={"reference": "Encounter/visit"}, effectiveDateTime="2021-05-05T08:30:00+02:00"
    )
    assert only(load(patient(), visit, encounter(), measured)).case.findings == ()


def test_what_the_stay_owns_and_old_vital_signs_stay_in_it(load):
    own = observation("own", effectiveDateTime="2023-12-01T10:00:00+01:00")
    weight = loose("weight", "2023-12-01T10:00:00+01:00", "vital-signs")
    found = only(load(patient(), encounter(), own, weight)).case.findings
    assert {f.note for f in found} == {"Observation/own", "Observation/weight"}


@pytest.mark.parametrize(("before", "new"), [("10T03:00", False), ("09T10:00", False), ("08T10:00", True)])
def test_a_test_of_an_unlinked_ed_is_not_new_in_the_stay(load, before, new):
    """The ED visit has no Encounter, and what was taken there names the admission."""
    early = observation("early", effectiveDateTime=f"2024-01-{before}:00+01:00")
    again = observation("again", effectiveDateTime="2024-01-11T09:00:00+01:00")
    labels = only(load(patient(), encounter(), early, again)).truth["workup"].labels
    assert [x.coding.code for x in labels] == (["basic_metabolic_panel"] if new else [])


def test_a_result_known_by_its_day_counts_as_taken_at_the_end_of_it(load):
    (found,) = only(load(patient(), encounter(), observation(effectiveDateTime="2024-01-10"))).case.findings
    assert (found.charted, found.available, found.pending_from) == (840, 1080, 840)
    issued = observation(effectiveDateTime="2024-01-10", issued="2024-01-10T13:00:00+01:00")
    (found,) = only(load(patient(), encounter(), issued)).case.findings
    assert (found.charted, found.available, found.pending_from) == (180, 180, None)
