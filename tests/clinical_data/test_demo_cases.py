"""The bundled synthetic cases: reproducible, valid FHIR, plausible in time, and not giving their answer away."""

from __future__ import annotations

import gzip
import json
import re
import warnings
from collections import Counter
from datetime import datetime
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from clinical_data.catalogue import load_catalogue
from clinical_data.demo import bundle_folder
from clinical_data.demo.content import load_content, merged
from clinical_data.demo.generator import generate, to_bytes, write_bundles
from clinical_data.demo.record import coded_comorbidities
from clinical_data.demo.resources import flag
from clinical_data.errors import BadInputError, UsageError
from clinical_data.vocabulary import load_vocabulary

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it reads its tables in a deprecated way when imported
    import simple_icd_10_cm

LOINC = "http://loinc.org"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"


class View:
    """One bundle, opened up."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.by_url = {e["fullUrl"]: e["resource"] for e in bundle["entry"]}
        self.all = list(self.by_url.values())
        self.patient = self.of("Patient")[0]
        self.stay = next(e for e in self.of("Encounter") if "partOf" not in e)
        self.ed = next((e for e in self.of("Encounter") if "partOf" in e), None)
        self.admitted = when(self.stay["period"]["start"])
        self.end = when(self.stay["period"]["end"])

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in self.all if r["resourceType"] == kind]

    def diagnoses(self, role: str) -> list[dict[str, Any]]:
        found = [d for d in self.stay["diagnosis"] if d["use"]["coding"][0]["code"] == role]
        found.sort(key=lambda d: d["rank"])
        return [self.by_url[d["condition"]["reference"]] for d in found]

    def label(self, role: str) -> dict[str, str]:
        return self.diagnoses(role)[0]["code"]["coding"][0]

    def problems(self) -> list[dict[str, Any]]:
        return [c for c in self.of("Condition") if "encounter" not in c]

    def texts(self) -> list[tuple[datetime, str]]:
        """Every free text with the time from which it can be read."""
        found = [(when(r["issued"]), r["conclusion"]) for r in self.of("DiagnosticReport")]
        found += [(when(o["issued"]), o["valueString"]) for o in self.of("Observation") if "valueString" in o]
        return found

    def values(self, loinc: str) -> list[float]:
        rows = [o for o in self.of("Observation") if o["code"]["coding"][0]["code"] == loinc and "valueQuantity" in o]
        rows.sort(key=lambda o: o["effectiveDateTime"])
        return [o["valueQuantity"]["value"] for o in rows]


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture(scope="module")
def views() -> list[View]:
    paths = sorted(bundle_folder().glob("*.json.gz"))
    return [View(json.loads(gzip.decompress(path.read_bytes()))) for path in paths]


def test_bundled_files_are_what_the_generator_writes(tmp_path):
    written = write_bundles(tmp_path / "a")
    shipped = sorted(bundle_folder().glob("*.json.gz"))
    assert [p.name for p in written] == [p.name for p in shipped]
    for new, old in zip(written, shipped, strict=True):
        # compared unpacked: another build of zlib may pack the same content otherwise
        assert gzip.decompress(new.read_bytes()) == gzip.decompress(old.read_bytes()), new.name
        assert old.read_bytes()[4:8] == b"\0\0\0\0", "gzip header carries a time"
    again = write_bundles(tmp_path / "b")
    assert [p.read_bytes() for p in written] == [p.read_bytes() for p in again]
    assert sum(p.stat().st_size for p in shipped) < 1_500_000


def test_another_seed_gives_other_cases():
    first = [to_bytes(b) for b in generate(seed=1, cases=3)]
    assert first == [to_bytes(b) for b in generate(seed=1, cases=3)]
    assert first != [to_bytes(b) for b in generate(seed=2, cases=3)]


@pytest.mark.parametrize("cases", [0, -1, 10_000])
def test_a_senseless_number_of_cases_is_refused(cases):
    with pytest.raises(UsageError):
        next(generate(cases=cases))


def test_cases_and_diagnoses_are_varied(views):
    assert len(views) == 32
    principal = Counter(v.label("DD")["code"][:3] for v in views)
    assert len(principal) >= 14
    assert max(principal.values()) <= 5
    assert len({v.patient["id"] for v in views}) == len(views)
    sexes = Counter(v.patient["gender"] for v in views)
    assert min(sexes["male"], sexes["female"]) >= 8


def test_a_quarter_to_a_third_leave_with_another_diagnosis(views):
    changed = sum(v.label("AD")["code"][:3] != v.label("DD")["code"][:3] for v in views)
    assert 0.22 <= changed / len(views) <= 0.33


def test_routes_and_outcomes(views):
    assert sum(v.ed is None for v in views) >= 2
    assert sum(v.ed is not None for v in views) >= 20
    died = [v for v in views if "deceasedDateTime" in v.patient]
    assert len(died) == 1
    assert died[0].stay["hospitalization"]["dischargeDisposition"]["coding"][0]["code"] == "exp"
    assert sum(v.stay["class"]["code"] == "OBSENC" for v in views) == 1
    for view in views:
        hours = (view.end - view.admitted).total_seconds() / 3600
        assert 18 <= hours <= 24 * 10
        if view.ed:
            assert view.by_url[view.ed["partOf"]["reference"]] is view.stay
            assert 3 * 60 <= (view.admitted - when(view.ed["period"]["start"])).total_seconds() / 60 <= 6 * 60


def test_every_resource_is_valid_r4b_and_marked_as_test_data(views):
    for path in sorted(bundle_folder().glob("*.json.gz")):
        bundle = json.loads(gzip.decompress(path.read_bytes()))
        get_fhir_model_class("Bundle").model_validate(bundle)
        for entry in bundle["entry"]:
            resource = entry["resource"]
            assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", resource["id"])
            assert resource["meta"]["security"][0]["code"] == "HTEST"
            assert "name" not in resource


def test_references_resolve_and_ids_are_unique(views):
    for view in views:
        ids = [(r["resourceType"], r["id"]) for r in view.all]
        assert len(set(ids)) == len(ids)
        for resource in view.all:
            for reference in re.findall(r'"reference": "([^"]+)"', json.dumps(resource)):
                assert reference in view.by_url


def test_times_are_sane(views):
    for view in views:
        for resource in view.all:
            begun = resource.get("effectiveDateTime") or resource.get("authoredOn") or resource.get("performedDateTime")
            if begun:
                assert when(begun) <= view.end, resource["id"]
            if "issued" in resource:
                assert when(begun) <= when(resource["issued"]) <= view.end, resource["id"]
        for problem in view.problems():
            assert problem["recordedDate"] < view.stay["period"]["start"]
            assert problem["recordedDate"] > view.patient["birthDate"]
        assert all(when(c["recordedDate"]) == view.end for role in ("DD", "CM") for c in view.diagnoses(role))
        assert when(view.diagnoses("AD")[0]["recordedDate"]) > view.admitted


def test_emergency_patients_are_measured_and_tested_before_admission(views):
    for view in views:
        if view.ed is None:
            continue
        arrival = when(view.ed["period"]["start"])
        minutes = {"8867-4": (5, 15), "2160-0": (18, 32)}
        for loinc, (low, high) in minutes.items():
            times = [when(o["effectiveDateTime"]) for o in view.of("Observation") if _loinc(o) == loinc]
            assert low <= (min(times) - arrival).total_seconds() / 60 <= high
        known = {_loinc(o) for o in view.of("Observation") if when(o["issued"]) <= view.admitted}
        assert {"8661-1", "10164-2", "10210-3", "10207-9", "2951-2", "718-7"} <= known


def test_labels_are_in_the_answer_vocabulary_and_are_real_codes(views):
    vocabulary = load_vocabulary("general-ward-icd10")
    assert 45 <= len(vocabulary.entries) <= 60
    assert all(simple_icd_10_cm.is_valid_item(e.code) for e in vocabulary.entries)
    names = [n for e in vocabulary.entries for n in (e.display, *e.synonyms)]
    assert len(set(names)) == len(names)
    for view in views:
        for role in ("AD", "DD"):
            assert vocabulary.entry(view.label(role)["code"][:3])
        for condition in view.of("Condition"):
            for coding in condition["code"]["coding"]:
                if coding["system"] == ICD:
                    assert simple_icd_10_cm.get_description(coding["code"]) == coding["display"]
                    assert simple_icd_10_cm.is_leaf(coding["code"])


def test_every_code_in_the_content_is_a_billable_code_with_its_official_name():
    content = load_content()
    pairs = {(f["icd"], f["icd_name"]) for f in content.common["comorbidities"].values()}
    pairs |= {(r["icd"], r["icd_name"]) for r in content.common["combined_codes"]}
    vocabulary = load_vocabulary("general-ward-icd10")
    for disease in content.diseases.values():
        for index in range(len(disease["presentations"])):
            profile = merged(disease, index)
            labels = [*profile["final"], *([profile["admitted_as"]] if "admitted_as" in profile else [])]
            assert all(vocabulary.entry(e["code"][:3]) for e in labels)
            labels += [profile["working"]] if "working" in profile else []
            assert all(vocabulary.entry(e["code"][:3]) for e in labels)
            labels += [e[1] for e in profile.get("secondary", [])]
            pairs |= {(e["code"], e["display"]) for e in labels}
    for code, name in pairs:
        assert simple_icd_10_cm.is_leaf(code), code
        assert simple_icd_10_cm.get_description(code) == name


def test_what_is_known_at_admission_does_not_name_the_answer(views):
    """Neither the coded name nor a vocabulary name of the final diagnosis; known chronic illness excepted."""
    vocabulary = load_vocabulary("general-ward-icd10")
    named = []
    for view in views:
        label = view.label("DD")
        entry = vocabulary.entry(label["code"][:3])
        chronic = {c["code"] for p in view.problems() for c in p["code"]["coding"]}
        words = [label["display"], entry.display, *entry.synonyms]
        for available, text in view.texts():
            if available <= view.admitted and not any(c[:3] == label["code"][:3] for c in chronic):
                named += [f"{view.stay['id']}: {w}" for w in words if re.search(rf"\b{re.escape(w)}\b", text.lower())]
        assert all(label["display"] not in text for available, text in view.texts() if available <= view.admitted)
        early = [c for c in view.of("Condition") if c["recordedDate"][:10] < view.stay["period"]["start"][:10]]
        assert early == view.problems()
    assert named == []


def test_presentations_overlap(views):
    """Most abnormal results known at admission occur with three diagnoses or more."""
    seen: dict[str, set[str]] = {}
    abnormal_results: list[str] = []
    for view in views:
        for resource in view.of("Observation") + view.of("DiagnosticReport"):
            if when(resource["issued"]) <= view.admitted:
                abnormal = resource.get("interpretation", [{}])[0].get("coding", [{}])[0].get("code", "N")
                key = f"{_loinc(resource)} {abnormal[0]}"
                seen.setdefault(key, set()).add(view.label("DD")["code"][:3])
                abnormal_results += [key] if abnormal != "N" else []
    assert sum(len(seen[key]) >= 3 for key in abnormal_results) / len(abnormal_results) > 0.75
    for key in ("6690-2 H", "1988-5 H", "89579-7 H", "48065-7 H"):
        assert len(seen[key]) >= 4, key


def test_final_diagnoses_share_the_complaint_clusters():
    content = load_content()
    sharing: dict[str, set[str]] = {}
    for name, disease in content.diseases.items():
        for presentation in disease["presentations"]:
            sharing.setdefault(presentation["cluster"], set()).add(name)
    assert {k: len(v) for k, v in sharing.items() if k != "bleeding"}
    assert all(len(names) >= 2 for cluster, names in sharing.items() if cluster != "bleeding")


def test_values_that_depend_on_each_other_fit_together(views):
    for view in views:
        first: dict[str, float] = {}
        for code in ("2951-2", "2075-0", "2028-9", "718-7", "4544-3", "2744-1", "2019-8", "1960-4"):
            if values := view.values(code):
                first[code] = values[0]
        gap = first["2951-2"] - first["2075-0"] - first["2028-9"]
        assert 8 <= gap <= 34, view.stay["id"]
        assert 2.6 <= first["4544-3"] / first["718-7"] <= 3.4
        for found in (o for o in view.of("Observation") if "component" in o):
            systolic, diastolic = (c["valueQuantity"]["value"] for c in found["component"])
            assert systolic - diastolic >= 15


def test_illness_gets_better_except_in_the_one_who_dies(views):
    for view in views:
        if view.label("DD")["code"] == "E10.10":
            glucose, bicarbonate = view.values("2345-7"), view.values("2028-9")
            assert glucose[0] > 250 > glucose[-1]
            assert bicarbonate[0] < 18 < bicarbonate[-1]
        if "deceasedDateTime" in view.patient:
            pressure = [c["valueQuantity"]["value"] for o in view.of("Observation") for c in o.get("component", [])[:1]]
            assert pressure[-1] <= pressure[0]


def test_reference_ranges_and_flags():
    assert [flag(v, 3.5, 5.1, [2.8, 6.2]) for v in (2.5, 3.0, 4.0, 5.5, 6.5)] == ["LL", "L", "N", "H", "HH"]
    assert flag(400, None, 500) == "N"


def test_comorbidities_are_coded_together(views):
    content = load_content()
    for view in views:
        codes = {c["code"]["coding"][0]["code"] for c in view.diagnoses("CM")}
        assert not {"I10", "N18.30"} <= codes
        assert not {"E11.9", "N18.30"} <= codes
    person = type("P", (), {"comorbidities": ("hypertension", "heart_failure", "ckd", "diabetes2")})()
    assert [c for c, _ in coded_comorbidities(content, person)] == ["I13.0", "I50.22", "N18.30", "E11.22"]


def test_every_finding_can_be_requested(views):
    """Each code outside treatment is listed in the catalogue's FHIR matchers."""
    matchers = [m for item in load_catalogue().items for m in item.matches.get("fhir", ())]

    def listed(system: str, code: str) -> bool:
        return any(m.system == system and (code in m.codes or code.startswith(m.prefixes)) for m in matchers)

    missing = set()
    for view in views:
        for resource in view.of("Observation") + view.of("DiagnosticReport"):
            missing |= {(_loinc(resource), resource["code"]["text"])} if not listed(LOINC, _loinc(resource)) else set()
        for problem in view.problems():
            first = problem["code"]["coding"][0]
            if not listed(first["system"], first["code"]):
                missing.add((first["code"], first["display"]))
    assert missing == set()


def test_an_unknown_name_in_the_content_is_an_error(tmp_path, monkeypatch):
    from clinical_data.demo import content

    (tmp_path / "diseases").mkdir()
    (tmp_path / "common.yaml").write_text((bundle_folder().parent / "common.yaml").read_text())
    (tmp_path / "diseases" / "x.yaml").write_text("x: {presentations: [{cluster: dyspnoea, must: [crystal_ball]}]}\n")
    monkeypatch.setattr(content, "files", lambda _: tmp_path)
    with pytest.raises(BadInputError, match="crystal_ball"):
        content.load_content.__wrapped__()


def test_oxygen_is_titrated_in_chronic_obstructive_disease(views):
    for view in views:
        if "13645005" not in {c["code"] for p in view.problems() for c in p["code"]["coding"]}:
            continue
        flows = {o["effectiveDateTime"] for o in view.of("Observation") if _loinc(o) == "3151-8"}
        for found in (o for o in view.of("Observation") if _loinc(o) == "59408-5"):
            if found["effectiveDateTime"] in flows:
                assert 86 <= found["valueQuantity"]["value"] <= 92


def _loinc(resource: dict[str, Any]) -> str:
    return str(resource["code"]["coding"][0]["code"])
