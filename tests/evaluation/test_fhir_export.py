"""FHIR out: valid R4, no result of a patient, nothing of the recorded label, no date that nobody recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import report_records as made
from fhir.resources.R4B import get_fhir_model_class

from clinical_data.fhir_names import HTEST, REPLAY, plan_url
from evaluation.record import RankedAnswer
from evaluation.review.fhir_export import bundles, write
from evaluation.store.run_store import StoredRecord


def of_types(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def impression(**changes: Any) -> dict[str, Any]:
    (bundle,) = bundles(made.RUN, [StoredRecord(made.pneumonia(**changes), made.truth(), {})])
    get_fhir_model_class("Bundle").model_validate(bundle)
    (found,) = of_types(bundle, "ClinicalImpression")
    return found


@pytest.fixture(scope="module")
def exported() -> list[dict[str, Any]]:
    return list(bundles(made.RUN, made.stored()))


def test_each_case_is_a_valid_bundle_of_impressions_and_what_made_them(exported: list[dict[str, Any]]) -> None:
    assert [b["identifier"]["value"] for b in exported] == ["fhir-demo-07", "fhir-demo-11"]
    for bundle in exported:
        get_fhir_model_class("Bundle").model_validate(bundle)
        assert bundle["type"] == "collection"
        kinds = {e["resource"]["resourceType"] for e in bundle["entry"]}
        assert kinds == {"ClinicalImpression", "Provenance", "Device"}
        for resource in (bundle, *(e["resource"] for e in bundle["entry"])):
            tags = [(t["system"], t["code"]) for t in resource["meta"]["tag"]]
            assert tags == [(HTEST["system"], "HTEST"), (REPLAY["system"], "replay")]
    assert [len(of_types(b, "ClinicalImpression")) for b in exported] == [2, 1]  # what does not apply was not asked


def test_every_reference_within_leads_to_a_resource(exported: list[dict[str, Any]]) -> None:
    for bundle in exported:
        addresses = [e["fullUrl"] for e in bundle["entry"]]
        assert len(set(addresses)) == len(addresses)
        named = re.findall(r'"reference": "([^"]+)"', json.dumps(bundle))
        assert named
        assert set(named) <= set(addresses)
        assert all(e["fullUrl"] == f"urn:uuid:{e['resource']['id']}" for e in bundle["entry"])


def test_an_answer_is_a_finding_with_its_basis(exported: list[dict[str, Any]]) -> None:
    first, second = of_types(exported[0], "ClinicalImpression")
    record = made.pneumonia()
    assert first["status"] == "completed"
    assert "statusReason" not in first
    (finding,) = first["finding"]
    answer = record.ranked[0]
    assert finding["itemCodeableConcept"]["coding"][0]["code"] == answer.code
    assert finding["itemCodeableConcept"]["text"] == answer.display
    assert finding["basis"].startswith("Share of the votes: ")
    assert "Body temperature 38.9 °C (high)" in finding["basis"]
    assert first["protocol"] == [plan_url("inpatient")]
    assert first["subject"]["identifier"]["value"] == record.patient_id.removeprefix("fhir-")
    assert first["encounter"]["identifier"]["value"] == record.source_id
    assert "reference" not in first["subject"]  # of the source, not of this Bundle
    assert "not for care" in first["note"][0]["text"].lower()
    assert not [name for name in first if name.startswith("prognosis")]
    assert "unverified" not in second["summary"]
    assert "did not" in second["summary"]
    shown = {f.finding_id for t in record.opening for f in t.findings}
    assert shown <= {s["identifier"]["value"] for s in first["supportingInfo"]}


def test_a_step_without_an_answer_has_no_finding(exported: list[dict[str, Any]]) -> None:
    (abstained,) = of_types(exported[1], "ClinicalImpression")
    assert "finding" not in abstained
    assert (abstained["status"], abstained["statusReason"]["text"][:10]) == ("completed", "abstained:")
    assert abstained["summary"].startswith("Abstained. ")
    failed = impression(status="failed", reason="ModelError: gone", ranked=(), models={}, candidates=(), winner=None)
    assert "finding" not in failed
    assert (failed["status"], failed["statusReason"]["text"][:7]) == ("in-progress", "failed:")
    assert "entered-in-error" not in json.dumps([abstained, failed])


def test_a_case_of_which_nothing_was_asked_has_no_bundle() -> None:
    assert list(bundles(made.RUN, [made.stored()[-1]])) == []


def test_a_set_is_one_finding_per_item() -> None:
    ranked = tuple(RankedAnswer(system=made.ICD, code=c, display=c, probability=0.5) for c in ("J18.9", "I26.9", "J90"))
    found = impression(ranked=ranked, chosen=("J18.9", "I26.9"))
    codes = [f["itemCodeableConcept"]["coding"][0]["code"] for f in found["finding"]]
    assert codes == ["J18.9", "I26.9"]


def test_provenance_names_models_and_hashes(exported: list[dict[str, Any]]) -> None:
    record = made.pneumonia()
    provenance = of_types(exported[0], "Provenance")[0]
    devices = {d["id"]: d for d in of_types(exported[0], "Device")}
    who = [a["who"] for a in provenance["agent"]]
    assert all(w["type"] == "Device" for w in who)
    named = [devices[w["reference"].removeprefix("urn:uuid:")] for w in who]
    model = record.models["generator"]
    assert named[0]["deviceName"][0]["name"] == model["name"]
    assert named[0]["version"][0]["value"] == model["revision"]
    assert named[-1]["deviceName"][0]["name"] == "wardstar"
    entities = {e["what"]["identifier"]["value"] for e in provenance["entity"]}
    assert {*record.hashes.values(), f"{model['name']}@{model['revision']}"} <= entities
    assert provenance["recorded"] == made.RUN.finished


@pytest.mark.parametrize(
    ("clock", "relation", "minutes"),
    [(360, "after-start", 360), (0, "concurrent-with-start", 0), (-90, "before-start", 90)],
)
def test_the_time_of_an_impression_is_an_offset_and_no_date(clock: int, relation: str, minutes: int) -> None:
    found = impression(clock=clock)
    assert not {"effectiveDateTime", "effectivePeriod", "date"} & set(found)
    parts = {e["url"]: e for e in found["_effectiveDateTime"]["extension"][0]["extension"]}
    assert parts["relationship"]["valueCode"] == relation
    assert parts["offset"]["valueDuration"]["value"] == minutes
    assert parts["target"]["valueReference"] == found["encounter"]
    assert "_effectiveDateTime" not in impression(clock=None)


def test_nothing_of_the_recorded_label_or_of_later_acts_is_in_it(exported: list[dict[str, Any]]) -> None:
    text = json.dumps(exported)
    assert made.CANARY not in text
    assert any(r.done_later for s in made.stored() for r in s.record.requests)  # what must not show is there
    assert "done_later" not in text
    again = [StoredRecord(s.record, made.truth("another label"), {"code": 1}) for s in made.stored()]
    assert list(bundles(made.RUN, again)) == exported


def test_a_search_steered_by_labels_says_so() -> None:
    steered = impression(settings=made.pneumonia().settings | {"value": "ground_truth"})
    assert "steered by recorded labels" in steered["note"][1]["text"]


def test_hostile_text_is_valid_and_harmless() -> None:
    nasty = "\x00\ud800\u202eevil\u00a0<script>\t\n" + "x" * 1_000_000
    ranked = (RankedAnswer(system="no uri at all", code=" \x00 ", display=nasty, probability=0.9),)
    bare = {"source": "my source/../x", "source_id": "\x0b", "question": nasty, "clock_text": "", "vignette": nasty}
    found = impression(ranked=ranked, candidates=(), winner=None, **bare)
    assert "coding" not in found["finding"][0]["itemCodeableConcept"]
    assert found["encounter"]["identifier"]["system"].endswith("/my%20source%2F..%2Fx-case")
    text = json.dumps(found, ensure_ascii=False)
    assert "\u202e" not in text
    assert len(text) < 20_000
    text.encode()


def test_files_are_named_for_their_cases_and_old_ones_go(tmp_path: Path) -> None:
    written = write(tmp_path, made.RUN, made.stored())
    assert sorted(p.name for p in written) == ["fhir-demo-07.json", "fhir-demo-11.json"]
    assert json.loads(written[0].read_text(encoding="utf-8")) == next(bundles(made.RUN, made.stored()))
    own = tmp_path / "fhir" / "mine.json"
    own.write_text("{}")
    (escaped,) = write(tmp_path, made.RUN, [StoredRecord(made.pneumonia(case_id="../../evil"), [], {})])
    assert escaped.parent == tmp_path / "fhir"
    assert sorted(p.name for p in escaped.parent.iterdir()) == sorted(["mine.json", escaped.name])
    assert write(tmp_path, made.RUN, ()) == []
    assert list(own.parent.iterdir()) == [own]
