"""What holds for every source: one protocol, stable ids, eight answered steps, and nothing of the answer in a case."""

import gzip
import inspect
import shutil
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from source_records import CANARY, NAMES, PLANTED, RECORDS, import_all, source_of

from clinical_data.case import FindingKind, make_id, sort_findings
from clinical_data.clocks import STEPS
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Strength
from clinical_data.sources import ImportJob, ImportLog, Source
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine
from clinical_data.store.metadata import metadata
from tests.effort import effort

pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def record(name, tmp_path):
    source_of(name)  # skips first while there is no importer
    folder = tmp_path / "record"
    folder.mkdir()
    return RECORDS[name](folder)


def moved(path: Path, folder: Path, *, packed: bool) -> Path:
    """Copies a record under another name; with `packed`, every text file as gzip."""
    into = folder / "elsewhere"
    if path.is_file():
        into.mkdir()
        copy = into / f"renamed{''.join(path.suffixes)}"
        shutil.copy(path, copy)
    else:
        shutil.copytree(path, into)
        copy = into
    if packed:
        for file in [f for f in into.rglob("*") if f.suffix in (".csv", ".json", ".jsonl", ".ndjson")]:
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        copy = copy if copy.is_dir() else copy.with_name(copy.name + ".gz")
    return copy


def test_the_protocol_holds(name):
    source = source_of(name)
    assert source.name == name
    assert isinstance(source.stages, bool)
    wanted = inspect.signature(Source.read).parameters.values()
    assert [(p.name, p.default) for p in inspect.signature(type(source).read).parameters.values()] == [
        (p.name, p.default) for p in wanted
    ]


def test_ids_derive_from_source_and_source_id(name, record):
    cases, _, _ = import_all(name, record)
    assert cases
    for case in (labelled.case for labelled in cases):
        assert case.source == case.patient.source == name
        assert case.case_id == make_id(name, case.source_id)
        assert case.patient.patient_id == make_id(name, case.patient.source_id)
    assert len({labelled.case.case_id for labelled in cases}) == len(cases)


@pytest.mark.parametrize("packed", effort([True], [False, True]), ids=effort(["gzip"], ["plain", "gzip"]))
def test_two_imports_agree_whatever_the_files_are_called(name, record, tmp_path, packed):
    first, _, _ = import_all(name, record)
    again, _, _ = import_all(name, record)
    assert again == first
    elsewhere, _, _ = import_all(name, moved(record, tmp_path, packed=packed))
    assert [labelled.case for labelled in elsewhere] == [labelled.case for labelled in first]
    assert [labelled.truth for labelled in elsewhere] == [labelled.truth for labelled in first]


def test_every_step_has_labels_or_a_reason(name, record):
    cases, _, _ = import_all(name, record)
    for labelled in cases:
        assert tuple(labelled.truth) == STEPS
        for step, truth in labelled.truth.items():
            assert (truth.case_id, truth.step) == (labelled.case.case_id, step)
            assert bool(truth.labels) != bool(truth.absent_reason)
            assert [label.rank for label in truth.labels] == sorted(label.rank for label in truth.labels)
            for label in truth.labels:
                assert label.coding.system
                assert label.coding.code
                assert isinstance(label.strength, Strength)
                assert label.source_row
    assert any(t.labels for labelled in cases for t in labelled.truth.values())


def test_findings_are_sorted_unique_and_of_their_time(name, record):
    cases, _, _ = import_all(name, record)
    assert any(labelled.case.findings for labelled in cases)
    for findings in (labelled.case.findings for labelled in cases):
        assert findings == sort_findings(list(findings))
        assert len({f.finding_id for f in findings}) == len(findings)
        for finding in findings:
            assert finding.available >= finding.charted
            assert isinstance(finding.kind, FindingKind)
            assert finding.code.system
            assert finding.code.code
            assert finding.note
            assert finding.result_in_source == (finding.value is not None)


def test_what_is_yielded_cannot_be_altered(name, record):
    cases, _, _ = import_all(name, record)
    labelled = next(c for c in cases if c.case.findings)
    label = next(label for truth in labelled.truth.values() for label in truth.labels)
    for thing, field in ((labelled, "case"), (labelled.case, "age"), (labelled.case.findings[0], "value")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, field, None)
    with pytest.raises(FrozenInstanceError):
        label.rank = 7


def test_a_recorded_answer_never_becomes_part_of_a_case(name, record):
    """Traps 1, 12, 14: the canary stands in every place that tells an answer, and in no other."""
    cases, _, _ = import_all(name, record)
    assert any(CANARY in repr(labelled.truth) for labelled in cases)
    assert CANARY not in repr([labelled.case for labelled in cases])


def test_no_case_changes_with_its_recorded_answer(name, record, tmp_path):
    """Trap 16: neither ids nor findings nor anchors move with the truth. Attributes, which no prompt sees, may."""
    other = tmp_path / "other"
    other.mkdir()
    cases, _, _ = import_all(name, record)
    changed, _, _ = import_all(name, RECORDS[name](other, "quincunx"))
    assert [replace(c.case, attributes={}) for c in changed] == [replace(c.case, attributes={}) for c in cases]
    assert [c.truth for c in changed] != [c.truth for c in cases]


def test_a_broken_row_is_quarantined_without_its_values(name, record, caplog):
    cases, quarantined, _ = import_all(name, record)
    assert cases
    assert quarantined
    for row in quarantined:
        assert row.reason
        assert not Path(row.file).is_absolute()
    told = repr(quarantined) + caplog.text
    assert PLANTED not in told
    assert CANARY not in told
    assert PLANTED not in repr(cases)


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty folder"])
def test_a_path_without_data_is_refused(name, tmp_path, there):
    path = tmp_path / "nothing"
    if there:
        path.mkdir()
    with pytest.raises(BadInputError) as caught:
        import_all(name, path)
    assert str(path) in str(caught.value)
    assert caught.value.hint or there


def test_cases_are_handed_out_one_at_a_time(name, record):
    told = []
    stream = source_of(name).read(record, ImportLog(lambda row: None))
    assert inspect.isgenerator(stream)
    assert next(stream).case.source == name
    stream.close()
    log = ImportLog(lambda row: None, lambda done, total: told.append((done, total)))
    assert list(source_of(name).read(record, log))
    assert told
    assert all(0 <= done <= total or not total for done, total in told)


def test_what_is_stored_already_is_passed_over(name, record):
    cases, quarantined, log = import_all(name, record)
    first = cases[0].case.case_id
    rest, again, log_again = import_all(name, record, job=ImportJob(stored=lambda case_id: case_id == first))
    assert rest == cases[1:]
    assert again == quarantined
    assert log_again.read == log.read


def test_a_case_survives_the_store(name, record, tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'cases.db'}", create=True)
    metadata.create_all(engine)
    store = CaseStore(engine)
    cases, _, _ = import_all(name, record)
    for labelled in cases:
        assert store.put(labelled) == "added"
        assert store.get(labelled.case.case_id) == labelled.case
        assert store.truth(labelled.case.case_id) == labelled.truth
    assert store.put_many(iter(cases)) == {"unchanged": len(cases)}
    engine.dispose()
