"""The generic folder of tables: what is read, what is set aside with its line and reason, what outlives a kill."""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest

from clinical_data.errors import BadInputError, StorageError
from clinical_data.sources import ImportJob, ImportLog, tables
from clinical_data.sources.tables import DATE, NUMBER, TEXT, TIME, WHOLE, Table, TableFolder

STAY = Table("stay", ("id",), {"id": WHOLE, "sex": TEXT, "entered": TIME, "born": DATE}, optional=("born",))
LAB = Table("lab", ("lab_id",), {"lab_id": WHOLE, "id": WHOLE, "name": TEXT, "value": NUMBER}, needed=("id", "name"))
ROOT = "SELECT CAST(id AS VARCHAR) AS case_key, * FROM stay"
FEEDS = {"lab": "SELECT CAST(id AS VARCHAR) AS case_key, lab_id AS row_key, name, value FROM lab"}

STAYS = "id,sex,entered,hidden\n1,F,2020-01-01 10:00:00,x\n10,M,2020-01-02 10:00:00,x\n2,F,,x\n"
LABS = "lab_id,id,name,value\n5,1,sodium,140\n4,1,potassium,4.5\n6,2,sodium,\n7,99,sodium,1\n"


def write(folder, **files):
    """Writes files named NAME_csv or NAME_csv_gz, of text or bytes."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        path = folder / name.replace("_csv", ".csv").replace("_gz", ".gz").replace("__", "/")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" and not data.startswith(b"\x1f\x8b") else data)
    return folder


def read(folder, job=ImportJob(), skip=lambda key: False, listed=(STAY, LAB)):  # noqa: B008
    """Returns {case: [(row key, name, value)]}, what was quarantined as (file, line, reason, resource), and the log."""
    quarantined = []
    log = ImportLog(lambda q: quarantined.append((q.file, q.line, q.reason, q.resource)))
    with TableFolder(folder, listed, log, job) as opened:
        opened.load("stay")
        opened.arrange(ROOT, FEEDS if "lab" in opened.loaded else {})
        found = {
            root["case_key"]: [(r["row_key"], r["name"], r["value"]) for r in rows.get("lab", [])]
            for root, rows in opened.cases(skip)
        }
    return found, quarantined, log


WHOLE_RESULT = {"1": [(4, "potassium", 4.5), (5, "sodium", 140.0)], "10": [], "2": [(6, "sodium", None)]}


def test_rows_come_case_by_case_in_the_order_of_their_keys(tmp_path):
    found, quarantined, log = read(write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS))
    assert found == WHOLE_RESULT
    assert list(found) == ["1", "10", "2"]
    assert quarantined == []
    assert log.read == {"stay": 3, "lab": 4}
    assert log.unused == {"lab: belongs to no case": 1}


def test_only_listed_columns_are_kept(tmp_path):
    with TableFolder(write(tmp_path / "a", stay_csv=STAYS), (STAY,), ImportLog(print), ImportJob()) as opened:
        opened.load("stay")
        columns = [row[0] for row in opened.database.execute("DESCRIBE stay").fetchall()]
    assert columns == ["id", "sex", "entered", "born"]


@pytest.mark.parametrize(
    "files",
    [
        {"stay_csv_gz": STAYS, "lab_csv_gz": LABS},
        {"STAY_csv": STAYS, "Lab_csv_gz": LABS.replace("lab_id,id", "LAB_ID,Id")},
        {"stay_csv": b"\xef\xbb\xbf" + STAYS.encode(), "lab_csv": LABS.replace("\n", "\r\n")},
        {"hosp__stay_csv": STAYS, "icu__deep__lab_csv_gz": LABS},
        {"stay_csv": STAYS, "lab_csv": LABS.replace("sodium", '"sodium"').replace("lab_id,", '"lab_id",')},
    ],
    ids=["gzip", "upper case", "byte order mark and CRLF", "subfolders", "quoted"],
)
def test_the_same_tables_in_another_dress(tmp_path, files):
    found, quarantined, _ = read(write(tmp_path / "a", **files))
    assert found == WHOLE_RESULT
    assert quarantined == []


def test_of_two_files_for_one_table_the_first_counts(tmp_path):
    folder = write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS, lab_csv_gz="lab_id,id,name,value\n1,1,x,1\n")
    found, quarantined, _ = read(folder)
    assert found == WHOLE_RESULT
    assert quarantined == [("lab.csv.gz", None, "lab.csv is used instead", "table lab")]


def test_broken_rows_are_set_aside_with_their_line_and_no_value(tmp_path):
    lines = [
        "lab_id,id,name,value",
        "x,1,sodium,1",  # 2
        "2,1,sodium",  # 3
        "3,1,sodium,1,more",  # 4
        "4,,sodium,1",  # 5
        "5,1,SECRET,secret",  # 6
        ",1,sodium,1",  # 7
        '6,1,"two\nlines",1',  # 8 and 9
        "7,1,,1",  # 10
    ]
    folder = write(tmp_path / "a", stay_csv=STAYS, lab_csv="\n".join(lines) + "\n")
    found, quarantined, log = read(folder)
    assert found["1"] == [(6, "two\nlines", 1.0)]
    assert log.read["lab"] == 1
    assert sorted(quarantined) == [
        ("lab.csv", 2, "a value is not of the declared type (lab_id)", "table lab"),
        ("lab.csv", 3, "the row has too few fields", "table lab"),
        ("lab.csv", 4, "the row has too many fields", "table lab"),
        ("lab.csv", 5, "id is empty", "table lab"),
        ("lab.csv", 6, "a value is not of the declared type (value)", "table lab"),
        ("lab.csv", 7, "lab_id is empty", "table lab"),
        ("lab.csv", 10, "name is empty", "table lab"),
    ]
    assert "secret" not in repr(quarantined).lower()


def test_of_a_repeated_key_the_first_row_is_used(tmp_path):
    labs = "lab_id,id,name,value\n1,1,first,1\n2,1,other,2\n1,1,second,3\n1,2,third,4\n"
    found, quarantined, _ = read(write(tmp_path / "a", stay_csv=STAYS, lab_csv=labs))
    assert found["1"] == [(1, "first", 1.0), (2, "other", 2.0)]
    assert found["2"] == []
    assert quarantined == [("lab.csv", None, "lab_id occurs 3 times; the first row is used", "lab 1")]


@pytest.mark.parametrize("bad", [b"\xff\xfe", "é".encode("latin-1"), b"\x80"])
def test_a_row_that_is_not_utf8_is_set_aside(tmp_path, bad):
    labs = b"lab_id,id,name,value\n1,1," + bad + b",1\n2,1,fine,2\n"
    found, quarantined, _ = read(write(tmp_path / "a", stay_csv=STAYS, lab_csv=labs))
    assert found["1"] == [(2, "fine", 2.0)]
    assert [(q[0], q[1], q[2]) for q in quarantined] == [("lab.csv", 2, "the row is not UTF-8")]


def test_a_file_in_utf16_is_set_aside_as_a_whole(tmp_path):
    found, quarantined, _ = read(write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS.encode("utf-16")))
    assert set(found) == {"1", "10", "2"}
    assert [(q[0], q[1]) for q in quarantined] == [("lab.csv", None)]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("megabytes", [2.5, 60], ids=["beyond a line", "beyond a buffer"])
def test_a_line_that_is_too_long_is_set_aside(tmp_path, megabytes, packed):
    """duckdb passes over a line beyond its buffer without a word."""
    labs = f"lab_id,id,name,value\n3,1,before,3\n1,1,{'x' * int(megabytes * 1e6)},1\n2,1,behind,2\n"
    folder = write(tmp_path / "a", stay_csv=STAYS, **{"lab_csv_gz" if packed else "lab_csv": labs})
    found, quarantined, _ = read(folder)
    assert found["1"] == [(2, "behind", 2.0), (3, "before", 3.0)]
    name = "lab.csv.gz" if packed else "lab.csv"
    assert quarantined == [(name, 3, "the line is too long", "table lab")]


@pytest.mark.parametrize("kept", [20, 0.5, 0.98])
def test_a_truncated_gzip_is_set_aside_as_a_whole(tmp_path, kept):
    labs = "lab_id,id,name,value\n" + "".join(f"{i},1,n{i * 7919 % 1013},{i}\n" for i in range(20_000))
    data = gzip.compress(labs.encode())
    data = data[: kept if isinstance(kept, int) else int(len(data) * kept)]
    found, quarantined, log = read(write(tmp_path / "a", stay_csv=STAYS, lab_csv_gz=data))
    assert found == {"1": [], "10": [], "2": []}
    assert [(q[0], q[1], q[3]) for q in quarantined] == [("lab.csv.gz", None, "table lab")]
    assert "lab" not in log.read


def test_a_gzip_bomb_of_one_line_does_not_fill_memory(tmp_path):
    labs = b"lab_id,id,name,value\n1,1," + b"0" * 300_000_000  # 300 kB packed
    folder = write(tmp_path / "a", stay_csv=STAYS, lab_csv_gz=gzip.compress(labs, compresslevel=1))
    del labs
    program = """
        import json, resource, sys
        from pathlib import Path
        sys.path[:0] = [{root!r}, {here!r}]
        from test_tables import read
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found, quarantined, _ = read(Path({folder!r}))
        print(json.dumps([found["1"], quarantined, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
    """
    here = Path(__file__).parent
    names = {"folder": str(folder), "here": str(here), "root": str(here.parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(program).format(**names)]
    done = subprocess.run(command, capture_output=True, check=True)
    rows, quarantined, more = json.loads(done.stdout)
    assert rows == []
    assert quarantined == [["lab.csv.gz", 2, "the line is too long", "table lab"]]
    assert more < 250_000  # kB


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        ("lab_id,id,name\n1,1,x\n", "column value is missing"),
        ("lab_id,id,name,value,ID\n", "a column name occurs twice"),
        ("x" * 2_000_100, "the first line is too long"),
    ],
)
def test_an_unusable_file_is_set_aside_with_the_reason(tmp_path, content, reason):
    found, quarantined, _ = read(write(tmp_path / "a", stay_csv=STAYS, lab_csv=content))
    assert len(found) == 3
    assert quarantined == [("lab.csv", None, reason, "table lab")]


def test_without_the_root_table_there_is_one_clear_error(tmp_path):
    with pytest.raises(BadInputError, match="no such folder"):
        read(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="no stay table"):
        read(write(tmp_path / "a", lab_csv=LABS))
    with pytest.raises(BadInputError, match="column entered is missing"):
        read(write(tmp_path / "b", stay_csv="id,sex\n1,F\n"))


def test_cases_to_skip_are_left_out(tmp_path):
    folder = write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS)
    assert list(read(folder, skip=lambda key: key in ("1", "2"))[0]) == ["10"]


def test_a_workspace_keeps_what_was_loaded_and_reports_it_again(tmp_path):
    labs = LABS + "8,,sodium,1\n4,1,again,1\n"
    folder, job = write(tmp_path / "a", stay_csv=STAYS, lab_csv=labs), ImportJob(workspace=tmp_path / "work")
    job.workspace.mkdir()
    first = read(folder, job)
    before = (job.workspace / "tables.duckdb").stat().st_mtime_ns
    (folder / "lab.csv").write_bytes(b"lab_id,id,name,value\n")  # not looked into again
    second = read(folder, job)
    assert second[0] == first[0]
    assert second[1] == first[1]
    assert len(first[1]) == 2
    assert (second[2].read, second[2].unused) == (first[2].read, first[2].unused)
    assert before


def test_a_damaged_workspace_is_begun_again(tmp_path):
    folder, job = write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS), ImportJob(workspace=tmp_path / "work")
    job.workspace.mkdir()
    read(folder, job)
    path = job.workspace / "tables.duckdb"
    path.write_bytes(b"garbage" * 1000)
    assert read(folder, job)[0] == WHOLE_RESULT
    path.write_bytes(path.read_bytes()[:5000])
    assert read(folder, job)[0] == WHOLE_RESULT


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = [{root!r}, {here!r}]
    from clinical_data.sources import ImportJob, ImportLog, tables
    from test_tables import FEEDS, LAB, ROOT, STAY
    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
    log = ImportLog(lambda q: None)
    opened = tables.TableFolder(Path({folder!r}), (STAY, LAB), log, ImportJob(workspace=Path({work!r})))
    if {when!r} == "loading":
        opened._drop_repeated = lambda table, path: die() if table.name == "lab" else None
    opened.load("stay")
    if {when!r} == "sorting":
        opened._one = die
    opened.arrange(ROOT, FEEDS)
    next(opened.cases())
    die()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("when", ["loading", "sorting", "handing out"])
def test_a_kill_leaves_a_workspace_to_go_on_from(tmp_path, when):
    folder, work = write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS), tmp_path / "work"
    work.mkdir()
    here = Path(__file__).parent
    names = {"folder": str(folder), "work": str(work), "when": when, "here": str(here), "root": str(here.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED).format(**names)], env={**os.environ}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with duckdb.connect(str(work / "tables.duckdb")) as database:
        kept = {row[0] for row in database.execute("SELECT unit FROM wardstar_done").fetchall()}
    assert kept >= {"loading": {"stay"}, "sorting": {"stay", "lab"}}.get(when, {"stay", "lab", "case root", "case lab"})
    found, quarantined, log = read(folder, ImportJob(workspace=work))
    assert found == WHOLE_RESULT
    assert quarantined == []
    assert log.read == {"stay": 3, "lab": 4}


def test_a_full_disk_is_a_storage_error_that_names_no_value(tmp_path, monkeypatch):
    folder = write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS)

    def fail(self, table, path):
        raise duckdb.IOException("Could not write file: No space left on device; row 1,SECRET")

    monkeypatch.setattr(TableFolder, "_load", fail)
    monkeypatch.setattr(tables, "_disk_full", lambda folder: True)
    with pytest.raises(StorageError, match="working files cannot be written") as caught:
        read(folder)
    assert "SECRET" not in str(caught.value)
    assert "disk space" in caught.value.hint


def test_a_failing_read_with_room_on_the_disk_is_one_of_the_file(tmp_path, monkeypatch):
    folder = write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS)
    copy = TableFolder._copy

    def fail(self, table, path, header, absent):
        if table.name == "lab":
            raise duckdb.IOException("row 1,SECRET")
        copy(self, table, path, header, absent)

    monkeypatch.setattr(TableFolder, "_copy", fail)
    found, quarantined, _ = read(folder)
    assert len(found) == 3
    assert quarantined == [
        ("lab.csv", None, "the file cannot be read to its end (IOException)", "table lab"),
    ]


def test_a_feed_may_hand_one_row_to_several_cases_and_count_those_of_none(tmp_path):
    folder = write(tmp_path / "a", stay_csv=STAYS, lab_csv=LABS)
    log = ImportLog(lambda q: None)
    both = "SELECT unnest(['1', '2', NULL]) AS case_key, lab_id AS row_key FROM lab WHERE lab_id = 5"
    with TableFolder(folder, (STAY, LAB), log, ImportJob()) as opened:
        opened.load("stay")
        opened.arrange(ROOT, {"shared": both})
        found = {root["case_key"]: [r["row_key"] for r in rows["shared"]] for root, rows in opened.cases()}
    assert found == {"1": [5], "10": [], "2": [5]}
    assert log.unused["shared: belongs to no case"] == 1


def test_many_cases_come_in_portions_with_progress_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_PORTION", 7)
    stays = "id,sex,entered\n" + "".join(f"{i},F,\n" for i in range(100))
    labs = "lab_id,id,name,value\n" + "".join(f"{i},{i % 100},n,{i}\n" for i in range(1000))
    seen = []
    log = ImportLog(lambda q: None, progress=lambda done, total: seen.append((done, total)))
    with TableFolder(write(tmp_path / "a", stay_csv=stays, lab_csv=labs), (STAY, LAB), log, ImportJob()) as opened:
        opened.load("stay")
        opened.arrange(ROOT, FEEDS)
        found = [(root["case_key"], len(rows["lab"])) for root, rows in opened.cases()]
    assert found == [(key, 10) for key in sorted(str(i) for i in range(100))]
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_names_with_quotation_marks_and_keywords_do_no_harm(tmp_path):
    labs = LABS.replace("value\n", 'value,"select; ""x"\n', 1)
    folder = write(tmp_path / "it's odd", stay_csv=STAYS, lab_csv=labs)
    found, quarantined, _ = read(folder)
    assert len(found) == 3
    assert len(quarantined) == 4  # every row has a field too few
