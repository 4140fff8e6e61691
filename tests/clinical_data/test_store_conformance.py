"""What every database must do alike: one suite, run on SQLite and on PostgreSQL."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, select
from store_cases import labelled

from clinical_data.case import Coding, Finding, FindingKind, make_id, sort_findings
from clinical_data.errors import BadInputError, StorageError, UsageError
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.sources import Quarantined
from clinical_data.splits import SPLITS, hospital_split_of, split_of
from clinical_data.store import tables
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine, reading, writing
from clinical_data.store.import_store import ImportStore
from clinical_data.store.metadata import metadata
from clinical_data.store.truth_store import TruthStore


@pytest.fixture
def store(database_url):
    engine = open_engine(database_url, create=True)
    metadata.create_all(engine)
    yield CaseStore(engine)
    engine.dispose()


def test_a_case_and_its_truth_come_back_exactly(store):
    one = labelled()
    assert store.put(one) == "added"
    back = store.get(one.case.case_id)
    assert back == one.case
    assert back.content_hash == one.case.content_hash
    assert store.truth(one.case.case_id) == one.truth
    assert list(store.truth(one.case.case_id)) == sorted(one.truth)
    assert store.truth_of_step("admission_diagnosis") == {one.case.case_id: one.truth["admission_diagnosis"]}


# U+FDD0 and U+FDD1 are what NUL is written as, backslash and tab what PostgreSQL's COPY treats specially.
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x00\ufdd0\ufdd1\\\t\n\r"), max_size=20)
numbers = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**9), 10**9)
    | st.sampled_from([-0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, 2**53 + 1, -(2**63) - 1, 10**300])
)
minutes = st.integers(-(10**9), 10**9)
values = st.lists(st.tuples(texts, st.one_of(st.none(), numbers, texts), minutes, st.integers(0, 10**6)), max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values, texts)
def test_any_values_come_back_exactly(store, rows, words):
    facts = [
        Finding(
            f"f{i}", FindingKind.VITAL, Coding(text, text, text, text), value, at, at + lag, unit=text, flag=text,
            note=text,
        )
        for i, (text, value, at, lag) in enumerate(rows)
    ]  # fmt: skip
    one = labelled()
    case = replace(one.case, findings=sort_findings(facts), context={"unit_type": words}, attributes={words: words})
    label = Label(Coding(words, words, words, words), Strength.PROXY, 1, None, words)
    truth = {
        "workup": GroundTruth(case.case_id, "workup", (label,)),
        "triage": GroundTruth(case.case_id, "triage", (), words + "x"),
    }
    store.put(replace(one, case=case, truth=truth))
    back = store.get(case.case_id)
    assert back == case
    assert [repr(f.value) for f in back.findings] == [
        repr(f.value) for f in case.findings
    ]  # -0.0 is not 0.0, nor 1 1.0
    assert back.content_hash == case.content_hash
    assert store.truth(case.case_id) == truth
    assert store.put(replace(one, case=case, truth=truth)) == "unchanged"


def test_putting_again_changes_nothing_and_a_change_replaces_the_whole_case(store):
    assert store.put(labelled()) == "added"
    assert store.put(labelled()) == "unchanged"
    assert store.put(labelled(value=9.9)) == "changed"
    assert store.get("fhir-e1") == labelled(value=9.9).case
    relabelled = replace(labelled(value=9.9), truth={})
    assert store.put(relabelled) == "changed"
    assert store.truth("fhir-e1") == {}
    assert store.put(relabelled) == "unchanged"
    assert store.count() == 1


def test_a_patient_who_changes_is_written_again(store):
    store.put(labelled())
    one = labelled()
    other = replace(one, case=replace(one.case, patient=replace(one.case.patient, sex="male")))
    assert store.put(other) == "changed"
    assert store.get("fhir-e1").patient.sex == "male"
    moved = replace(one, case=replace(one.case, patient=labelled(patient="p2").case.patient))
    assert store.put(moved) == "changed"
    assert store.get("fhir-e1").patient.source_id == "p2"


def test_put_many_counts_and_commits_in_batches(store):
    seen = []

    def stream():
        for number in range(450):
            seen.append(store.count())  # what another reader sees while the stream runs
            yield labelled(number)

    assert store.put_many(stream()) == Counter(added=450)
    assert set(seen) == {0, 200, 400}
    assert store.put_many(labelled(n) for n in range(451)) == Counter(unchanged=450, added=1)


def test_a_case_that_comes_twice_in_one_stream_is_stored_as_it_came_last(store):
    assert store.put_many([labelled(), labelled(value=9.9), labelled(2)]) == Counter(added=2, changed=1)
    assert store.get("fhir-e1") == labelled(value=9.9).case


def test_a_failing_batch_leaves_no_partial_case(store):
    store.put(labelled(1))
    clash = replace(labelled(9), case=replace(labelled(9).case, source_id="e1"))  # the key of another case
    with pytest.raises(StorageError):
        store.put_many([labelled(7), clash])
    assert store.case_ids() == ["fhir-e1"]
    with reading(store.engine) as connection:
        assert len(connection.execute(select(tables.findings)).all()) == 3


BROKEN = {
    "a finding id": {"finding_id": "fa"},
    "not finite": {"value": float("nan")},
    "is not finite": {"value": 10**400},
    "that is not finite": {"low": float("-inf")},
    "out of range": {"available": 2**31},
    "no Unicode": {"note": "\ud800"},
}


@pytest.mark.parametrize(("reason", "change"), BROKEN.items())
def test_what_no_database_can_hold_is_refused_by_id_alone(store, reason, change):
    one = labelled(value="SECRET")
    facts = [replace(f, **change) if f.finding_id == "fb" else f for f in one.case.findings]
    with pytest.raises(BadInputError, match=f"fhir-e1.*{reason}") as raised:
        store.put_many([labelled(2), replace(one, case=replace(one.case, findings=tuple(facts)))])
    assert "SECRET" not in str(raised.value)
    assert store.count() == 0


def test_an_id_with_nul_is_refused(store):
    one = labelled()
    with pytest.raises(BadInputError, match="NUL"):
        store.put(replace(one, case=replace(one.case, patient=replace(one.case.patient, patient_id="a\x00"))))


def test_listing_is_ordered_and_filtered_the_same_everywhere(store):
    people = {split_of("fhir", f"p{n}"): f"p{n}" for n in range(200)}
    assert set(people) == set(SPLITS)
    for number, patient in enumerate(people.values()):
        store.put(labelled(number, patient=patient))
    assert store.case_ids() == ["fhir-e0", "fhir-e1", "fhir-e2"]
    assert store.case_ids(limit=2) == ["fhir-e0", "fhir-e1"]
    assert store.case_ids(source="eicu") == []
    for number, split in enumerate(people):
        assert store.case_ids(split=split) == [f"fhir-e{number}"]
        assert store.split(f"fhir-e{number}") == split
    assert store.sources() == ["fhir"]
    assert store.split_counts() == dict.fromkeys(sorted(SPLITS), 1)
    row = store.summaries()[0]
    assert row == {
        "case_id": "fhir-e0", "source": "fhir", "source_id": "e0",
        "patient_id": make_id("fhir", next(iter(people.values()))),
        "split": next(iter(people)), "age": 71, "sex": "female", "findings": 3,
    }  # fmt: skip


def test_ids_are_in_the_order_of_their_characters_whatever_the_collation(store):
    names = ["B", "a", "_", "ä", "a-", "10", "9"]
    for name in names:
        store.put(labelled(name))
    assert store.case_ids() == sorted(f"fhir-e{name}" for name in names)
    assert [row["case_id"] for row in store.summaries()] == store.case_ids()
    assert list(store.truth_of_step("admission_diagnosis")) == store.case_ids()


def test_unknown_case_and_scheme_are_usage_errors(store):
    for call in (store.get, store.split):
        with pytest.raises(UsageError, match="fhir-none"):
            call("fhir-none")
    for wrong in (store.case_ids, store.summaries):
        with pytest.raises(UsageError, match="no split scheme named ward"):
            wrong(scheme="ward")


def test_a_patient_cannot_be_in_two_splits_of_a_scheme(store):
    store.put(labelled())
    statement = "INSERT INTO patient_splits (scheme, patient_id, split) VALUES ('{}', 'fhir-p1', '{}')"
    for scheme in ("patient", "hospital"):
        for split in SPLITS:  # a second row of a scheme, be it the same split
            with pytest.raises(StorageError), writing(store.engine) as connection:
                connection.exec_driver_sql(statement.format(scheme, split))
    for command in (
        statement.format("third", "both"),
        "UPDATE patient_splits SET split = 'both'",
        "UPDATE patient_splits SET split = NULL",
        statement.format("third", "train").replace("fhir-p1", "nobody"),
    ):
        with pytest.raises(StorageError), writing(store.engine) as connection:
            connection.exec_driver_sql(command)
    assert store.split("fhir-e1") == split_of("fhir", "p1")


def test_the_hospital_split_follows_the_hospital_of_the_first_case(store):
    hospitals = {hospital_split_of("fhir", f"h{n}"): f"h{n}" for n in range(200)}
    train, held_out = hospitals["train"], hospitals["held-out"]
    store.put(labelled(2, hospital=train))
    assert store.split("fhir-e2", scheme="hospital") == "train"
    store.put(labelled(1, hospital=held_out))  # the same patient, an earlier id
    assert [store.split(c, scheme="hospital") for c in ("fhir-e1", "fhir-e2")] == ["held-out"] * 2
    assert store.case_ids(split="held-out", scheme="hospital") == ["fhir-e1", "fhir-e2"]
    assert store.case_ids(split="train", scheme="hospital") == []
    store.put(labelled(1, hospital=""))
    assert store.split("fhir-e2", scheme="hospital") == "train"
    store.put(labelled(2, hospital=""))
    with pytest.raises(UsageError, match="no split in the scheme hospital"):
        store.split("fhir-e2", scheme="hospital")
    assert store.case_ids(scheme="hospital") == ["fhir-e1", "fhir-e2"]
    assert {row["split"] for row in store.summaries(scheme="hospital")} == {""}
    assert store.split_counts("hospital") == {}
    assert store.split("fhir-e2") == split_of("fhir", "p1")  # the other scheme knows no hospital


def test_a_case_that_goes_to_another_patient_takes_its_hospital_along(store):
    store.put(labelled(1, hospital="h1"))
    store.put(labelled(1, patient="p2", hospital="h1"))
    with reading(store.engine) as connection:
        splits = tables.patient_splits
        rows = connection.execute(select(splits.c.patient_id).where(splits.c.scheme == "hospital")).scalars().all()
    assert rows == ["fhir-p2"]


def test_reading_a_case_never_touches_a_truth_table(store):
    store.put(labelled())
    statements: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda c, cur, sql, *rest: statements.append(sql))
    reader = CaseReader(store.engine)
    reader.get("fhir-e1")
    reader.summaries()
    reader.split("fhir-e1")
    assert statements
    assert not any("truth" in sql for sql in statements)
    TruthStore(store.engine).truth("fhir-e1")
    assert any("truth" in sql for sql in statements)


def test_a_reader_sees_one_moment_and_cannot_write(store):
    store.put(labelled(1))
    with reading(store.engine) as connection:
        count = select(tables.cases.c.case_id)
        assert len(connection.execute(count).all()) == 1
        CaseStore(store.engine).put(labelled(2))
        assert len(connection.execute(count).all()) == 1
    assert store.count() == 2
    if store.engine.dialect.name == "postgresql":
        with pytest.raises(StorageError, match="read-only"), reading(store.engine) as connection:
            connection.execute(insert(tables.imports).values(source="x", path_name="x", started="x"))


def test_imports_and_quarantine(store):
    imports = ImportStore(store.engine)
    key = imports.begin("fhir", "folder\udcff\x00").import_id
    rows = [Quarantined("a.ndjson", n, "invalid JSON", "Observation/1") for n in range(1200)]
    imports.quarantine(key, rows)
    imports.quarantine(key, [Quarantined("\udcff\x00.json", None, "no", "")])
    imports.finish(key, {"added": 3})
    assert imports.quarantined(key) == [*rows, Quarantined("\\udcff\x00.json", None, "no", "")]
    assert imports.quarantined(key, 2) == rows[:2]
    assert imports.quarantined(key + 1) == []
    assert imports.begin("fhir", "folder").import_id > key


def test_only_an_unfinished_import_of_the_same_fingerprint_goes_on(store):
    imports = ImportStore(store.engine)
    first = imports.begin("fhir", "a", "print-1")
    assert not first.resumed
    again = imports.begin("fhir", "a", "print-1")
    assert (again.import_id, again.resumed) == (first.import_id, True)
    other = imports.begin("fhir", "a", "print-2")
    assert other.import_id != first.import_id
    imports.finish(first.import_id)
    assert not imports.begin("fhir", "a", "print-1").resumed
