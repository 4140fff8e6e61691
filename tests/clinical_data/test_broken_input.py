"""Damaged and hostile input of every source: refused by name, or set aside with its place, and all else imported.

Whatever is done to a record, importing it ends in one of two ways. Either a `BadInputError` names the file, and the
database holds no case; or the import succeeds, everything that is not damaged is there as it would be without the
damage, what is damaged stands in the quarantine with file, line (where there are lines) and reason, and no message
holds a value.
"""

from __future__ import annotations

import atexit
import gzip
import io
import json
import os
import resource
import shutil
import sqlite3
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest
from broken_records import SECRET, SMALL, add_lines, keep_catalogue, needs, write_small
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from source_records import NAMES

from clinical_data.case import Case, Finding
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import Quarantined
from clinical_data.store.case_store import CaseStore
from clinical_data.store.engine import open_engine
from clinical_data.store.import_store import ImportStore
from evaluation.store import open_database
from tests.effort import effort
from workflow.importing import import_cases

TEXTS = tuple(name for name in NAMES if name != "meds")  # MEDS is Parquet: damage to text does not apply
JSON = ("fhir", "osce", "ddxplus")


@pytest.fixture(autouse=True)
def _one_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_catalogue(monkeypatch)


@dataclass(frozen=True)
class Outcome:
    """How an import ended: what the database holds, or the error."""

    cases: dict[str, LabelledCase]
    quarantined: list[Quarantined]
    error: BadInputError | None = None


def import_into(name: str, path: Path, database: Path) -> Outcome:
    """Imports into a new database and reads everything back. Any error but BadInputError is a failure of the test."""
    url, failed = f"sqlite:///{database}", None
    try:
        import_cases(url, name, path)
    except BadInputError as error:
        failed = error
    if failed is not None:
        assert failed.exit_code == 3
        assert str(path) in str(failed)
        assert SECRET not in f"{failed} {failed.hint}"
        return Outcome({}, [], failed)
    engine = open_engine(url, create=False)
    store = CaseStore(engine)
    with engine.connect() as connection:
        ids = [row[0] for row in connection.exec_driver_sql("SELECT case_id FROM cases")]
    cases = {i: LabelledCase(store.get(i), store.truth(i)) for i in ids}
    quarantined = ImportStore(engine).quarantined(1, 10_000)
    engine.dispose()
    for row in quarantined:
        assert row.reason
        assert not Path(row.file).is_absolute()
        assert SECRET not in repr(row)
    assert not list(database.parent.glob("*.import-*"))  # nothing half done is left lying about
    return Outcome(cases, quarantined)


@cache
def sound(name: str) -> Outcome:
    """The record as it is."""
    with TemporaryDirectory(prefix="wardstar-broken-") as folder:
        found = import_into(name, write_small(name, Path(folder) / "record"), Path(folder) / "a.db")
    assert len(found.cases) > 1
    return found


def facts(case: Case) -> set[Finding]:
    return set(case.findings)


def check_nothing_invented(name: str, found: Outcome) -> None:
    """What is there is there as it would be without the damage; what is missing is accounted for."""
    before = sound(name)
    assert set(found.cases) <= set(before.cases)
    missing = len(found.cases) < len(before.cases)
    for case_id, labelled in found.cases.items():
        whole = before.cases[case_id]
        assert facts(labelled.case) <= facts(whole.case)
        assert labelled.case.anchors == whole.case.anchors
        missing = missing or labelled != whole
    if missing and found.error is None:
        assert set(found.quarantined) - set(before.quarantined)


def check_untouched(name: str, found: Outcome) -> None:
    """Every case of the record is there and the same."""
    assert found.error is None, found.error
    assert {i: found.cases.get(i) for i in sound(name).cases} == sound(name).cases


@lru_cache(maxsize=1)
def empty_database() -> Path:
    path = Path(mkdtemp(prefix="wardstar-broken-")) / "empty.db"
    open_database(f"sqlite:///{path}", create=True).dispose()
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return path


class Record:
    """A record on disk that a test damages and imports."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder / "record"
        self.database = folder / "a.db"
        shutil.copy(empty_database(), self.database)  # to make one takes as long as the import
        self.path = write_small(name, self.folder)
        self.files = {"root": self.folder / SMALL[name].root, "leaf": self.folder / SMALL[name].leaf}

    def replace(self, which: str, data: bytes, suffix: str = "") -> None:
        file = self.files[which]
        file.unlink()
        self.files[which] = file.with_name(file.name + suffix)
        self.files[which].write_bytes(data)
        if self.path == file:
            self.path = self.files[which]

    def done(self) -> Outcome:
        return import_into(self.name, self.path, self.database)


@pytest.fixture
def record(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    yield Record(name, tmp_path)
    assert SECRET not in caplog.text


WHOLE_FILES = {
    "empty": lambda data: b"",
    "utf-16": lambda data: data.decode().encode("utf-16"),
    "cut": lambda data: data[: data.rfind(b"\n", 0, len(data) * 2 // 3) + 4],  # within a line
    "noise": lambda data: bytes(range(256)) * 64,
    "zeros": lambda data: bytes(65_536),
    "html": lambda data: b"<!DOCTYPE html>\n<html><body>Please log in.</body></html>\n",
}


@pytest.mark.parametrize("which", ["root", "leaf"])
@pytest.mark.parametrize("damage", WHOLE_FILES)
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file(record: Record, name: str, damage: str, which: str) -> None:
    if name == "meds" and damage == "utf-16":
        pytest.skip("Parquet is no text")
    if which == "leaf" and SMALL[name].leaf == SMALL[name].root:
        pytest.skip("one file")
    if which == "root" and SMALL[name].leaf != SMALL[name].root and damage in ("html", "zeros"):
        pytest.skip("as noise")
    record.replace(which, WHOLE_FILES[damage](record.files[which].read_bytes()))
    check_nothing_invented(name, record.done())


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_gzip_file(record: Record, name: str, damage: str) -> None:
    packed = bytearray(gzip.compress(record.files["leaf"].read_bytes()))
    if damage == "truncated":
        del packed[len(packed) * 2 // 3 :]
    else:
        packed[len(packed) // 2] ^= 0xFF
    record.replace("leaf", bytes(packed), ".gz")
    found = record.done()
    check_nothing_invented(name, found)
    assert found.error or len(found.quarantined) > len(sound(name).quarantined)


@pytest.mark.parametrize("form", ["byte order mark", "CRLF", "gzip"])
@pytest.mark.parametrize("name", TEXTS)
def test_another_form_of_the_same_text_changes_nothing(record: Record, name: str, form: str) -> None:
    data = record.files["leaf"].read_bytes()
    if form == "gzip":
        record.replace("leaf", gzip.compress(data), ".gz")
    else:
        record.replace("leaf", b"\xef\xbb\xbf" + data if form == "byte order mark" else data.replace(b"\n", b"\r\n"))
    found = record.done()
    check_untouched(name, found)
    assert len(found.quarantined) == len(sound(name).quarantined)


@pytest.mark.parametrize("name", ["mimic-iv", "mimic-iii", "eicu", "fhir", "osce", "ddxplus"])
def test_mixed_case_names_are_found(record: Record, name: str) -> None:
    file = record.files["root"]
    stem, dot, rest = file.name.partition(".")
    mixed = file.with_name(stem.title().swapcase() + dot + rest.upper())
    file.rename(mixed)
    if record.path == file:
        record.path = mixed
    check_untouched(name, record.done())


@pytest.mark.parametrize("name", TEXTS)
def test_a_line_that_is_not_utf_8_is_set_aside(record: Record, name: str) -> None:
    lines = record.files["leaf"].read_bytes().splitlines(keepends=True)
    record.replace("leaf", b"".join([*lines, "Fièvre, très élevée\n".encode("latin-1")]))
    found = record.done()
    check_untouched(name, found)
    extra = [row for row in found.quarantined if row not in sound(name).quarantined]
    assert [row.line for row in extra] == [len(lines) + 1]


@pytest.mark.parametrize("name", TEXTS)
def test_a_line_that_occurs_twice(record: Record, name: str) -> None:
    lines = record.files["leaf"].read_bytes().splitlines(keepends=True)
    record.replace("leaf", b"".join([*lines, lines[-1]]))
    found = record.done()
    check_untouched(name, found)
    if name in ("mimic-iv", "mimic-iii", "eicu", "osce"):
        assert len(found.quarantined) == len(sound(name).quarantined) + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_result_of_nobody_changes_nothing(record: Record, name: str) -> None:
    needs(name, "lab")
    small = SMALL[name]
    assert small.lab is not None
    row = small.lab("987654", "999999", small.moments[0], SECRET)
    add_lines(name, record.folder, "lab", row)
    check_untouched(name, record.done())


@pytest.mark.parametrize("name", NAMES)
def test_times_that_cannot_be(record: Record, name: str) -> None:
    """Year 1, year 9999, month 13, offsets beyond all numbers: of a result and of a stay."""
    needs(name, "lab")
    small = SMALL[name]
    assert small.lab is not None
    assert small.stay is not None
    for n, time in enumerate(small.bad_times):
        if name == "meds" and n == 2:
            continue
        add_lines(name, record.folder, "lab", *([small.lab(f"98765{n}", small.main, time, SECRET)]))
    found = record.done()
    check_untouched(name, found)
    assert len(found.quarantined) > len(sound(name).quarantined) or name in ("mimic-iv", "mimic-iii")


@pytest.mark.parametrize("name", NAMES)
def test_a_stay_that_ends_before_it_begins_is_no_case(record: Record, name: str) -> None:
    needs(name, "stay")
    small = SMALL[name]
    assert small.stay is not None
    begin, end = small.moments if name == "eicu" else reversed(small.moments)
    add_lines(name, record.folder, "stay", small.stay("987654", begin, end))
    found = record.done()
    check_untouched(name, found)
    assert not [case_id for case_id in found.cases if "987654" in case_id]
    assert len(found.quarantined) > len(sound(name).quarantined)


@pytest.mark.parametrize("name", NAMES)
def test_nul_characters_harm_nobody(record: Record, name: str) -> None:
    if SMALL[name].lab is None:
        lines = record.files["leaf"].read_bytes().splitlines(keepends=True)
        record.replace("leaf", b"".join([*lines, lines[-1].replace(b'"', b'"\x00', 3)]))
    else:
        add_lines(
            name, record.folder, "lab", SMALL[name].lab("987654", SMALL[name].main, SMALL[name].moments[0], "a\x00b")
        )
    found = record.done()
    assert found.error is None
    for case_id, labelled in sound(name).cases.items():
        assert facts(labelled.case) <= facts(found.cases[case_id].case)


@pytest.mark.parametrize("name", TEXTS)
def test_a_header_alone(record: Record, name: str) -> None:
    """Of a table or a patients file; of what has no header, white space alone."""
    first = record.files["root"].read_bytes().splitlines(keepends=True)[0]
    record.replace("root", b"\n \n" if name in ("fhir", "osce") else first)
    record.database.unlink()
    found = record.done()
    assert found.error is not None
    with sqlite3.connect(record.database) as database:  # one without tables, where none was made
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        assert "cases" not in tables or not database.execute("SELECT * FROM cases").fetchall()


@pytest.mark.parametrize("which", ["root", "leaf"])
@pytest.mark.parametrize("what", ["folder", "loop", "forbidden", "dangling link"])
@pytest.mark.parametrize("name", NAMES)
def test_something_else_where_a_file_should_be(record: Record, name: str, what: str, which: str) -> None:
    if which == "leaf" and SMALL[name].leaf == SMALL[name].root:
        pytest.skip("one file")
    file = record.files[which]
    if what == "forbidden":
        file.chmod(0)
        if os.access(file, os.R_OK):
            pytest.skip("this user may read everything")
    else:
        file.unlink()
        if what == "folder":
            file.mkdir()
        else:
            file.symlink_to(file.name if what == "loop" else "nowhere")
    found = record.done()
    before = sound(name)
    assert set(found.cases) <= set(before.cases)
    assert found.error or all(facts(c.case) <= facts(before.cases[i].case) for i, c in found.cases.items())
    assert found.error or which == "leaf" or name == "meds"


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_holds_itself(record: Record, name: str) -> None:
    (record.folder / "again").symlink_to(record.folder, target_is_directory=True)
    found = record.done()
    check_untouched(name, found)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_of_70_megabytes_is_passed_over_in_bounded_memory(record: Record, name: str) -> None:
    """Stands for the 2 GB text: every reader has a bound far below."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    big = "x" * (70 << 20)
    if name == "meds":
        add_lines(name, record.folder, "lab", SMALL[name].lab("1", "22", SMALL[name].moments[0], big))
    else:
        with record.files["leaf"].open("ab") as file:
            file.write(b'{"resourceType": "Observation", "note": "' if name in JSON else b"1,")
            file.write(big.encode())
            file.write(b'"}\n' if name in JSON else b"\n")
    del big
    found = record.done()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 500 << 10
    if name == "meds":
        assert found.error is None
        assert set(found.cases) == set(sound(name).cases)
    else:
        check_untouched(name, found)
        assert len(found.quarantined) > len(sound(name).quarantined)


@pytest.mark.parametrize("name", JSON)
def test_nesting_of_100_000_levels_is_set_aside(record: Record, name: str) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    lines = record.files["leaf"].read_text(encoding="utf-8").splitlines()
    if name == "ddxplus":
        lines.append(f'40,"{"[" * 50_000}",F,x,[],E_53')
    elif name == "fhir":
        lines.append('{"resourceType": "Observation", "status": "final", "code": ' + deep + "}")
    else:
        lines.append('{"OSCE_Examination": {"Patient_Actor": {"History": ' + deep + "}}}")
    record.replace("leaf", ("\n".join(lines) + "\n").encode())
    found = record.done()
    check_untouched(name, found)
    (extra,) = [row for row in found.quarantined if row not in sound(name).quarantined]
    assert extra.line == len(lines)


def test_a_release_nested_too_deep_is_refused(tmp_path: Path) -> None:
    record = Record("ddxplus", tmp_path)
    (record.folder / "release_evidences.json").write_text('{"E_1": ' + "[" * 100_000, encoding="utf-8")
    assert record.done().error is not None


@cache
def bomb(line: bytes) -> bytes:
    """A gzip file of about a megabyte that unpacks to a gigabyte: one line without end, or one line again and again."""
    member = io.BytesIO()
    with gzip.GzipFile(fileobj=member, mode="wb", compresslevel=9) as file:
        file.write(line * ((16 << 20) // len(line)))
    return member.getvalue() * 64


@pytest.mark.parametrize("filling", effort(["blank lines"], ["zeros", "blank lines"]))
@pytest.mark.parametrize("name", TEXTS)
def test_a_gzip_bomb_of_a_gigabyte_is_given_up_in_bounded_memory(record: Record, name: str, filling: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record.replace("leaf", bomb(b"\x00" if filling == "zeros" else b"\n"), ".gz")
    check_nothing_invented(name, record.done())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10  # KiB


@pytest.mark.parametrize(("version", "field"), [("R5", "actualPeriod"), ("STU3", "incomingReferral")])
def test_a_bundle_of_another_fhir_version_is_named_as_such(tmp_path: Path, version: str, field: str) -> None:
    record = Record("fhir", tmp_path)
    stay = {"resourceType": "Encounter", "id": "x", "status": "finished", field: [{"text": SECRET}]}
    other = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": stay}]}
    (record.folder / "other.json").write_text(json.dumps(other), encoding="utf-8")
    found = record.done()
    check_untouched("fhir", found)
    (row,) = found.quarantined
    assert (row.file, row.line) == ("other.json", 1)
    assert version in row.reason


def check_fuzzed(name: str, data: st.DataObject) -> None:
    with TemporaryDirectory(prefix="wardstar-fuzz-") as folder:
        record = Record(name, Path(folder))
        which = data.draw(st.sampled_from(["leaf", "root"]))
        raw = bytearray(record.files[which].read_bytes())
        for _ in range(data.draw(st.integers(1, 12))):
            place = data.draw(st.integers(0, len(raw) - 1))
            deed = data.draw(st.sampled_from(["flip", "cut", "insert"]))
            if deed == "flip":
                raw[place] ^= data.draw(st.integers(1, 255))
            elif deed == "cut" and len(raw) > 30:
                del raw[place : place + data.draw(st.integers(1, 20))]
            else:
                raw[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        record.replace(which, bytes(raw))
        found = record.done()
        if which == "leaf" and SMALL[name].leaf != SMALL[name].root and name != "meds":
            assert found.error is None
            assert set(found.cases) == set(sound(name).cases)


FUZZ = settings(deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", JSON)
@given(data=st.data())
@settings(FUZZ, max_examples=30)
def test_flipped_and_lost_bytes_end_in_one_of_the_two_ways(name: str, data: st.DataObject) -> None:
    """Whatever bytes are changed, the import ends well or with a clear error, and other files are read as before."""
    check_fuzzed(name, data)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in JSON])
@given(data=st.data())
@settings(FUZZ, max_examples=effort(4, 100))
def test_flipped_and_lost_bytes_of_tables_end_in_one_of_the_two_ways(name: str, data: st.DataObject) -> None:
    """The same, of sources that stage their tables; many examples with `make test-thorough`."""
    check_fuzzed(name, data)
