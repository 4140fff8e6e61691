"""DataFrames from a store and from cases in memory: columns, dtypes, the clock, and the example of the manual."""

import textwrap
from pathlib import Path

import pandas as pd
import pytest

from clinical_data import frames
from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, sort_findings
from clinical_data.clocks import STEPS
from clinical_data.errors import StorageError, UsageError
from clinical_data.frames import cases_frame, findings_frame, labels_frame, open_store
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.splits import split_of
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine
from clinical_data.store.metadata import metadata

ICD9 = "http://hl7.org/fhir/sid/icd-9-cm"
ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
LOINC = "http://loinc.org"


def labelled(number: int) -> LabelledCase:
    case_id = f"mimic-iv-{number}"
    facts = [
        Finding(
            "f1", FindingKind.LABORATORY, Coding(LOINC, "2823-3", "potassium", "2.77"), 4.5, 60, 120, "mmol/L", 3.5, 5.1
        ),
        Finding("f2", FindingKind.MICROBIOLOGY, Coding("s", "culture"), "no growth", 60, 4000, pending_from=60),
        Finding("f3", FindingKind.IMAGING, Coding("s", "ct"), None, -30, -30, result_in_source=False),
    ]
    case = Case(
        case_id, "mimic-iv", str(number), Patient(f"mimic-iv-p{number}", "mimic-iv", f"p{number}", "female"), 71,
        (Encounter(str(number), "inpatient", 0, 5000),), {"ed_arrival": -200, "admission": 0, "end_of_stay": 5000},
        {"admission_source": "Emergency"}, sort_findings(facts), {"hospital_id": "7", "unit_visit_number": "2"},
    )  # fmt: skip
    labels = (
        Label(Coding(ICD9, "486", "pneumonia"), Strength.RECORDED_LATER, 1, None, "diagnoses_icd 1"),
        Label(Coding(ICD10, "I50.9"), Strength.RECORDED_LATER, 2, 4000),
        Label(Coding("wardstar:x", "other"), Strength.PROXY, 3),
    )
    truth = {step: GroundTruth(case_id, step, (), "not recorded") for step in STEPS}
    return LabelledCase(case, truth | {"discharge_diagnosis": GroundTruth(case_id, "discharge_diagnosis", labels)})


CASES = [labelled(n) for n in range(1, 21)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'wardstar.db'}"
    engine = open_engine(found, create=True)
    metadata.create_all(engine)
    CaseStore(engine).put_many(CASES)
    engine.dispose()
    return found


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def test_a_case_is_a_row():
    frame = cases_frame(CASES[:2])
    assert dtypes(frame) == frames.CASE_COLUMNS
    row = frame.iloc[0].to_dict()
    assert row["case_id"] == "mimic-iv-1"
    assert row["split"] == split_of("mimic-iv", "p1")
    assert (row["age"], row["ed_arrival"], row["end_of_stay"], row["findings"]) == (71, -200, 5000, 3)
    assert (row["hospital_id"], row["unit_visit_number"]) == ("7", 2)
    assert frame["triage"].array[0] is pd.NA
    assert frame["unit_type"].isna().all()


def test_a_finding_is_a_row():
    frame = findings_frame(CASES[:1]).set_index("finding_id")
    assert dtypes(frame.reset_index())["available"] == "Int64"
    potassium = frame.loc["f1"]
    assert (potassium["value_number"], potassium["value_text"], potassium["unit"]) == (4.5, pd.NA, "mmol/L")
    assert (potassium["low"], potassium["high"], potassium["charted"], potassium["available"]) == (3.5, 5.1, 60, 120)
    assert (frame.loc["f2", "value_text"], frame.loc["f2", "value_number"]) == ("no growth", pd.NA)
    assert not frame.loc["f3", "result_in_source"]
    assert frame.loc["f3", ["value_number", "value_text", "pending_from"]].isna().all()


@pytest.mark.parametrize(
    ("as_of", "known"),
    [(None, {"f1", "f2", "f3"}), (4000, {"f1", "f2", "f3"}), (3999, {"f1", "f3"}), (119, {"f3"}), (-31, set())],
)
def test_the_clock_hides_what_came_later(as_of, known):
    frame = findings_frame(CASES[:1], as_of=as_of)
    assert set(frame["finding_id"]) == known
    assert dtypes(frame) == frames.FINDING_COLUMNS  # an empty frame too


def test_kinds_and_ids_choose():
    assert set(findings_frame(CASES, kinds=["imaging", "laboratory"])["finding_id"]) == {"f1", "f3"}
    assert findings_frame(CASES, ids=["mimic-iv-7"])["case_id"].unique().tolist() == ["mimic-iv-7"]


def test_labels_absences_and_icd_classes():
    plain = labels_frame(CASES[:2])
    assert dtypes(plain) == frames.LABEL_COLUMNS
    assert plain["rank"].tolist() == [1, 2, 3] * 2
    full = labels_frame(CASES[:1], steps=["triage", "discharge_diagnosis"], absent=True, icd=True)
    assert dtypes(full) == frames.LABEL_COLUMNS | frames.ICD_COLUMNS
    assert full["absent_reason"].fillna("").tolist() == ["not recorded", "", "", ""]
    assert full["category"].fillna("").tolist() == ["", "J18", "I50", ""]
    assert full["ccsr"].fillna("").tolist() == ["", "RSP002", "CIR019", ""]
    assert full["mapped_to"].fillna("").tolist() == ["", "J18.9", "", ""]
    assert full.loc[0, "rank"] is pd.NA
    with pytest.raises(UsageError, match="no step named diagnosis"):
        labels_frame(CASES, steps=["diagnosis"])


def test_a_store_gives_the_same_frames_as_the_cases_in_it(url):
    in_order = sorted(CASES, key=lambda one: one.case.case_id)
    with open_store(url) as store:
        for make in (cases_frame, findings_frame, labels_frame):
            pd.testing.assert_frame_equal(make(store), make(in_order))
        some = store.case_ids(limit=3)
        pd.testing.assert_frame_equal(findings_frame(store, ids=some), findings_frame(in_order, ids=some))


def test_batches_change_nothing(monkeypatch):
    whole = findings_frame(CASES)
    monkeypatch.setattr(frames, "BATCH_ROWS", 7)
    pd.testing.assert_frame_equal(findings_frame(CASES), whole)
    pd.testing.assert_frame_equal(findings_frame(iter(CASES)), whole)
    assert len(whole) == 60


def test_a_missing_database_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"none\.db"), open_store(f"sqlite:///{tmp_path / 'none.db'}"):
        pass


def test_the_example_of_the_manual_works(url, tmp_path, monkeypatch, capsys):
    example = textwrap.dedent(frames.__doc__.split("Example:\n")[1].split("\nAll times")[0])
    monkeypatch.chdir(tmp_path)
    found: dict[str, pd.DataFrame] = {}
    exec(compile(example, "example", "exec"), found)
    assert found["principal"]["chapter"].tolist() == ["10"] * 20
    assert set(found["known"]["finding_id"]) == {"f1", "f3"}
    assert set(found["known"]["case_id"]) == {
        c.case.case_id for c in CASES if split_of("mimic-iv", c.case.patient.source_id) == "train"
    }
    assert "potassium" in capsys.readouterr().out
