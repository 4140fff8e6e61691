"""`wardstar report --fhir`, and what becomes of its Bundles when they lie beside the patient's own record."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Run

from clinical_data.demo import bundle_folder
from clinical_data.fhir_names import HTEST, REPLAY, plan_url
from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database

REASON = "made by a replay, no record of the patient"


def stored(url: str) -> list[bytes]:
    """Cases and recorded labels, byte for byte."""
    engine = open_database(url, create=False)
    store = CaseStore(engine)
    found = [orjson.dumps((store.get(i), store.truth(i))) for i in store.case_ids()]
    engine.dispose()
    return found


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A folder with the records of two patients."""
    bundles = sorted(bundle_folder().glob("*.json.gz"))[:2]
    if not bundles:
        pytest.skip("the bundled cases are not generated")
    folder = tmp_path / "record"
    folder.mkdir()
    for bundle in bundles:
        shutil.copy(bundle, folder)
    return folder


@pytest.fixture
def exported(run: Run, record: Path, tmp_path: Path) -> Path:
    """Two cases imported, replayed and reported with FHIR; the folder of the Bundles."""
    assert run("import", "fhir", record, "--db", "sqlite:///one.db")[0] == 0
    common = ("--db", "sqlite:///one.db", "--run", "r")
    code, _, error = run("replay", *common, "--pathway", "inpatient", "--generator", "random:1", "--rollouts", "2")
    assert code == 0, error
    assert run("report", *common, "--out", tmp_path / "report", "--fhir", "--blind")[0] == 0
    return tmp_path / "report" / "fhir"


def import_again(run: Run, folder: Path) -> dict[str, Any]:
    code, out, error = run("import", "fhir", folder, "--db", "sqlite:///two.db", "--json")
    assert code == 0, error
    summary: dict[str, Any] = json.loads(out)
    return summary


def test_the_bundles_of_a_report_change_no_case_when_imported(run: Run, record: Path, exported: Path) -> None:
    files = sorted(exported.iterdir())
    assert [f.name for f in files] == ["fhir-ward-0001.json", "fhir-ward-0002.json"]
    resources = [e["resource"] for f in files for e in json.loads(f.read_text(encoding="utf-8"))["entry"]]
    impressions = [r for r in resources if r["resourceType"] == "ClinicalImpression"]
    assert len(impressions) >= 10
    plan = run("pathway", "export-fhir", "inpatient", "--out", "-")[1]
    assert impressions[0]["protocol"] == [plan_url("inpatient")] == [json.loads(plan)["url"]]

    shutil.copytree(exported, record / "fhir")
    summary = import_again(run, record)
    left_out = {kind: n for kind, n in summary["unused"].items() if kind.endswith(REASON)}
    assert sum(left_out.values()) == len(resources)
    assert left_out[f"ClinicalImpression: {REASON}"] == len(impressions)
    assert summary["quarantined"] == 0
    assert stored("sqlite:///two.db") == stored("sqlite:///one.db")


def test_whatever_bears_the_mark_is_left_out_and_test_data_alone_is_not(run: Run, record: Path, exported: Path) -> None:
    bundle = json.loads(gzip.decompress((record / "ward-0001.json.gz").read_bytes()))
    known = [r for r in (e["resource"] for e in bundle["entry"]) if r["resourceType"] in ("Condition", "Observation")]
    assert {t["code"] for r in known for t in r["meta"]["security"]} == {"HTEST"}  # the bundled cases are test data too
    marked = [r | {"id": f"copy-{i}", "meta": {"tag": [HTEST, REPLAY]}} for i, r in enumerate(known)]
    copy = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in marked]}
    (record / "marked.json").write_text(json.dumps(copy))
    summary = import_again(run, record)
    assert sum(n for kind, n in summary["unused"].items() if kind.endswith(REASON)) == len(known) > 20
    assert stored("sqlite:///two.db") == stored("sqlite:///one.db")

    only_test = [r | {"meta": {"tag": [HTEST]}} for r in marked]
    (record / "marked.json").write_text(json.dumps(copy | {"entry": [{"resource": r} for r in only_test]}))
    assert not [k for k in import_again(run, record)["unused"] if k.endswith(REASON)]
    assert stored("sqlite:///two.db") != stored("sqlite:///one.db")


def test_a_report_without_fhir_leaves_no_bundle_of_an_earlier_one(run: Run, exported: Path) -> None:
    assert run("report", "--db", "sqlite:///one.db", "--run", "r", "--out", exported.parent)[0] == 0
    assert list(exported.iterdir()) == []
