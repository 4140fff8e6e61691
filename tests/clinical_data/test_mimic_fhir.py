"""MIMIC-IV on FHIR: made-up resources in its profile."""

import gzip
import json

import pytest
from fhir_building import E, P, concept, encounter, observation, patient, without

from clinical_data.catalogue import load_catalogue
from clinical_data.chart import open_chart
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Strength
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.fhir import FhirSource
from clinical_data.sources.fhir_truth import NO_RANK

SYSTEM = "http://mimic.mit.edu/fhir/mimic/CodeSystem/"
ED = {"reference": "Encounter/ed"}
STAY = [
    patient(),
    encounter(meta={"profile": ["http://mimic.mit.edu/fhir/mimic/StructureDefinition/mimic-encounter"]},
              priority=concept("EM")),
    encounter("ed", "2024-01-10T06:00:00+01:00", "2024-01-10T10:20:00+01:00", partOf=E) | {"class": {"code": "EMER"}},
]  # fmt: skip
HEADER = "module,condition_id,encounter_id,hadm_or_stay_id,seq_num,icd_code,icd_version,display\n"


def coded(key, code, revision, stay=E):
    return {
        "resourceType": "Condition",
        "id": key,
        "subject": P,
        "encounter": stay,
        "code": concept(code, f"{SYSTEM}mimic-diagnosis-icd{revision}"),
        "category": [concept("encounter-diagnosis", "http://terminology.hl7.org/CodeSystem/condition-category")],
    }


CODES = [coded("h1", "41401", 9), coded("h2", "V707", 9), coded("h3", "E8503", 9), coded("e1", "J189", 10, ED),
         coded("e2", "R0602", 10, ED)]  # fmt: skip
RANKS = HEADER + "".join(
    f"{module},{key},x,1,{place},x,9,x\n"
    for module, key, place in (
        ("hosp", "h2", 1),
        ("hosp", "h1", 2),
        ("hosp", "h3", 3),
        ("ed", "e2", 2),
        ("ed", "e1", 1),
    )
)


def write(place, *resources):
    place.mkdir(parents=True, exist_ok=True)
    (place / "all.ndjson").write_text("\n".join(map(json.dumps, resources)), encoding="utf-8")
    return place


def one(place, job=None):
    broken = []
    (case,) = FhirSource().read(place, ImportLog(broken.append), job or ImportJob())
    assert broken == []
    return case


@pytest.mark.parametrize("where", ["in/condition_rank.csv", "condition_rank.csv.gz", "elsewhere/ranks.csv"])
def test_ranks_make_labels_of_codes_that_carry_none(tmp_path, where):
    place = write(tmp_path / "in", *STAY, *CODES)
    file = tmp_path / where
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(gzip.compress(RANKS.encode()) if where.endswith(".gz") else RANKS.encode())
    found = one(place, ImportJob(condition_rank=file if "elsewhere" in where else None))
    assert found.case.findings == ()
    said = {
        step: [(x.coding.system[-9:], x.coding.code, x.coding.version, x.strength) for x in found.truth[step].labels]
        for step in ("admission_diagnosis", "differential", "discharge_diagnosis")
    }
    emergency, later = ("icd-10-cm", "J18.9", "10", Strength.PROXY), Strength.RECORDED_LATER
    assert said == {
        "admission_diagnosis": [emergency],
        "differential": [emergency, ("/icd-9-cm", "V70.7", "9", Strength.PROXY)],
        "discharge_diagnosis": [
            ("/icd-9-cm", "V70.7", "9", later),
            ("/icd-9-cm", "414.01", "9", later),
            ("/icd-9-cm", "E850.3", "9", later),
        ],
    }


def test_without_ranks_the_reason_names_the_option(tmp_path):
    truth = one(write(tmp_path / "in", *STAY, *CODES)).truth
    for step in ("admission_diagnosis", "differential", "discharge_diagnosis"):
        assert truth[step].absent_reason == NO_RANK


def test_mimics_priority_is_no_urgency(tmp_path):
    assert one(write(tmp_path / "in", *STAY)).truth["triage"].labels == ()


@pytest.mark.parametrize("content", ["a,b\n1,2\n", HEADER + "hosp,h1,x,1,first,x,9,x\n"])
def test_a_wrong_file_of_ranks_is_one_clear_error(tmp_path, content):
    place = write(tmp_path / "in", *STAY)
    (tmp_path / "r.csv").write_text(content, encoding="utf-8")
    for file in ("r.csv", "none.csv"):
        with pytest.raises(BadInputError, match=file):
            one(place, ImportJob(condition_rank=tmp_path / file))


def micro(key, system, code, **more):
    return without(observation(key), "valueQuantity", "encounter") | {
        "code": concept(code, f"{SYSTEM}mimic-microbiology-{system}"),
        "meta": {"profile": [f"http://mimic.mit.edu/fhir/mimic/StructureDefinition/mimic-observation-micro-{system}"]},
        **more,
    }


def reference(key):
    return {"reference": f"Observation/{key}"}


def culture(**more):
    resistant = {"coding": [{"code": "R", "display": "Resistant"}]}
    return [
        {"resourceType": "Specimen", "id": "s", "subject": P, "type": {"text": "URINE"}},
        micro("t", "test", "90039", specimen={"reference": "Specimen/s"}, hasMember=[reference("g")], encounter=E,
              **more),
        micro("g", "organism", "80002", derivedFrom=[reference("t")], hasMember=[reference("r")], **more),
        micro("r", "antibiotic", "90012", derivedFrom=[reference("g")], valueCodeableConcept=resistant,
              **({"effectiveDateTime": "2024-01-12T11:00:00+01:00"} | more)),
    ]  # fmt: skip


def test_a_culture_is_one_finding_with_organisms_and_susceptibilities(tmp_path):
    (found,) = one(write(tmp_path / "in", *STAY, *culture())).case.findings
    assert found.code.display == "name of 90039, urine"
    assert found.value == "name of 80002: name of 90012 Resistant"
    assert (found.charted, found.available, found.pending_from) == (60, 60 + 9 * 1440, 60)
    issued = {"issued": "2024-01-11T10:00:00+01:00"}
    (found,) = one(write(tmp_path / "in", *STAY, *culture(**issued))).case.findings
    assert (found.charted, found.available, found.pending_from) == (60, 1440, 60)


def test_a_culture_waits_for_its_last_result(tmp_path):
    parts = culture(issued="2024-01-11T10:00:00+01:00")
    parts[3]["issued"] = "2024-01-13T10:00:00+01:00"
    (found,) = one(write(tmp_path / "in", *STAY, *parts)).case.findings
    assert found.available == 3 * 1440
    del parts[3]["issued"]
    (found,) = one(write(tmp_path / "in", *STAY, *parts)).case.findings
    assert found.available == 60 + 9 * 1440


def test_trap_4_a_culture_says_nothing_before_it_is_known(tmp_path):
    case = one(write(tmp_path / "in", *STAY, *culture())).case
    for clock in (0, 60, 8 * 60, 9 * 1440):
        assert open_chart(case, clock, load_catalogue()).known() == ()


def test_trap_6_labs_without_an_admission_belong_by_patient_and_time(tmp_path):
    loose = without(observation("loose", code=concept("50971", f"{SYSTEM}mimic-d-labitems")), "encounter")
    (found,) = one(write(tmp_path / "in", *STAY, loose)).case.findings
    assert (found.code.system, found.code.code) == (f"{SYSTEM}mimic-d-labitems", "50971")


def test_drugs_are_called_by_their_names(tmp_path):
    names = [{"system": f"{SYSTEM}mimic-medication-formulary-drug-cd", "value": "VANC1F"},
             {"system": f"{SYSTEM}mimic-medication-name", "value": "Vancomycin"}]  # fmt: skip
    bare = {"coding": [{"system": f"{SYSTEM}mimic-medication-ndc", "code": "1"}]}
    formulary = {"coding": [{"system": f"{SYSTEM}mimic-medication-formulary-drug-cd", "code": "VANC1F"}]}
    order = {"resourceType": "MedicationRequest", "status": "completed", "intent": "order", "subject": P,
             "encounter": E, "authoredOn": "2024-01-10T12:00:00+01:00"}  # fmt: skip
    part = {"itemReference": {"reference": "Medication/m"}}
    drugs = [
        {"resourceType": "Medication", "id": "m", "code": bare, "identifier": names},
        {"resourceType": "Medication", "id": "mix", "ingredient": [part, part]},
        {**order, "id": "a", "medicationReference": {"reference": "Medication/m"}},
        {**order, "id": "b", "medicationReference": {"reference": "Medication/mix"}},
        {"resourceType": "MedicationAdministration", "id": "c", "status": "completed", "subject": P, "context": E,
         "effectiveDateTime": "2024-01-10T13:00:00+01:00", "medicationCodeableConcept": formulary},
    ]  # fmt: skip
    findings = one(write(tmp_path / "in", *STAY, *drugs)).case.findings
    assert {f.note[-1]: f.code.display for f in findings} == {
        "a": "Vancomycin",
        "b": "Vancomycin + Vancomycin",
        "c": "Vancomycin",
    }


def test_what_was_not_given_is_no_treatment_and_icu_drugs_are_icu_items(tmp_path):
    given = {"resourceType": "MedicationAdministration", "status": "completed", "subject": P, "context": E,
             "effectiveDateTime": "2024-01-10T13:00:00+01:00"}  # fmt: skip
    methods = ("Continuous Med", "Not Given", "Hold Dose")
    rows = [
        {**given, "id": str(n), "dosage": {"text": "x", "method": {"text": method}},
         "medicationCodeableConcept": concept("221906", f"{SYSTEM}mimic-medication-icu")}
        for n, method in enumerate(methods)
    ]  # fmt: skip
    (found,) = one(write(tmp_path / "in", *STAY, *rows)).case.findings
    assert (found.code.system, found.code.code) == (f"{SYSTEM}mimic-d-items", "221906")
    assert found.value == "Continuous Med"


def test_icu_items_that_leave_no_result_are_done_only(tmp_path):
    done = {"resourceType": "Procedure", "status": "completed", "subject": P, "encounter": E,
            "performedPeriod": {"start": "2024-01-10T12:00:00+01:00", "end": "2024-01-11T12:00:00+01:00"}}  # fmt: skip
    items = [{**done, "id": code, "code": concept(code, f"{SYSTEM}mimic-d-items")} for code in ("225459", "225792")]
    xray, ventilation = one(write(tmp_path / "in", *STAY, *items)).case.findings
    if xray.code.code != "225459":
        xray, ventilation = ventilation, xray
    assert (xray.kind.value, xray.value, xray.result_in_source, xray.available) == ("imaging", None, False, 120)
    assert (ventilation.kind.value, ventilation.available) == ("treatment", 120)
