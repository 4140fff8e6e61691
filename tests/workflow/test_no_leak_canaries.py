"""A word of its own in every hidden place of every source: none of them ever comes out.

Hidden is every column of a raw header, every field of a FHIR resource and every key that is not on the short list of
what may be shown; the words are planted from those headers, not from a list of suspects. They are looked for in
findings, contexts and charts, in every prompt that `wardstar prompts` exports, in all that the command line says with
--debug, in what it says when the record cannot be read at all, in quarantined rows, the checkpoint file, and every
table of the database but those of the recorded answers.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leak_mimic
import pytest
from leak_consultations import DdxplusRecord, OsceRecord
from leak_eicu import EICU, eicu_tables
from leak_fhir import FhirRecord
from leak_fhir import resources as fhir_resources
from leak_meds import MedsRecord
from leak_meds import events as meds_events
from leak_mimic import MIMIC_III, MIMIC_IV
from leak_records import LOUD, RawRecord, keep_catalogue, load_once

from clinical_data.chart import open_chart
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.engine import open_engine
from clinical_data.store.import_store import ImportStore
from workflow.cli import main

BROKEN = "xylopyrography"  # stands in every field of a row that cannot be read
REPLAY = ("--generator", "random:3", "--rollouts", 1, "--limit", 3)
_ANSWERS = {"ground_truth", "ground_truth_labels"}  # tables that hold recorded answers, and nothing of a prompt
_ANSWER_COLUMNS = {"truth_json", "match_json"}  # of a step's record: written after its conclusion


@pytest.fixture(autouse=True)
def _one_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_catalogue(monkeypatch)


def word(where: str, what: str) -> str:
    """A word for one hidden place, which names it; made of letters alone, so that no writing changes it."""
    return "zq" + re.sub("[^a-z]", "", f"{where}{what}".lower()) + "qz"


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def rest_of_database(path: Path) -> str:
    """Everything in a database, as text, but for the recorded answers."""
    with sqlite3.connect(path) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        told = []
        for name in (n for n in names if n not in _ANSWERS):
            columns = [
                row[1] for row in database.execute(f"PRAGMA table_info({name})") if row[1] not in _ANSWER_COLUMNS
            ]
            told += [f"{name}: {row}" for row in database.execute(f"SELECT {', '.join(columns)} FROM {name}")]
        assert {"cases", "findings", "quarantine"} <= set(names)
    return "\n".join(told)


def answers_of(path: Path) -> str:
    with sqlite3.connect(path) as database:
        return repr(database.execute("SELECT * FROM ground_truth_labels").fetchall())


def check_canaries(record: RawRecord, content: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plants, imports, replays and exports; then looks for every word that was planted."""
    content = record.plant(content, word) or content
    record.broken(content, BROKEN)
    raw = folder / "raw"
    raw.mkdir()
    path = record.write(content, raw)
    planted = set(re.findall(r"zq[a-z]+qz", raw_text(content))) | {BROKEN, LOUD}
    assert len(planted) > 4

    database, url = folder / "a.db", f"sqlite:///{folder / 'a.db'}"
    assert call("--debug", "import", record.source, path, "--db", url) == 0
    clean_charts(url, planted)
    assert any(w in answers_of(database) for w in planted)  # the words do stand where answers are read
    places = {"the database": rest_of_database(database)}
    if record.source != "osce":  # no bundled pathway has a step for it yet
        assert call("--debug", "replay", "--db", url, "--run", "a", *REPLAY) == 0
        assert call("--debug", "prompts", "--db", url, "--run", "a", "--out", folder / "prompts.jsonl") == 0
        prompts = (folder / "prompts.jsonl").read_text(encoding="utf-8")
        assert [json.loads(line)["text"] for line in prompts.splitlines()]
        places |= {"a prompt": prompts, "the database after the run": rest_of_database(database)}
        checkpoints = [p.read_bytes().decode("utf-8", "replace") for p in folder.glob("a.db*") if p != database]
        places["a checkpoint"] = "\n".join(checkpoints)
    said = capsys.readouterr()
    assert "DEBUG" in said.err
    places["what is said"] = said.out + said.err
    for place, text in places.items():
        assert not [w for w in planted if w in text.lower()], place


def raw_text(content: Any) -> str:
    return json.dumps(content, default=str)


def clean_charts(url: str, planted: set[str]) -> None:
    """Neither a case nor its chart, opened when everything is known, holds a word; broken rows are set aside."""
    engine = open_engine(url, create=False)
    reader = CaseReader(engine)
    for case in map(reader.get, reader.case_ids()):
        chart = open_chart(case, 10**9, load_once())
        text = repr([case, chart, [chart.request(item) for item in load_once().items]]).lower()
        assert not [w for w in planted if w in text], case.case_id
    assert ImportStore(engine).quarantined(1, 1)
    engine.dispose()


# An answer becomes history for a later admission: the records are taken without it here.


def test_canaries_of_fhir(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = [r for r in fhir_resources(LOUD) if not r["id"].startswith("later")]
    check_canaries(FhirRecord(), content, tmp_path, capsys)


def test_canaries_of_mimic_iv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = leak_mimic.mimic_iv_tables(LOUD)
    content["admissions"] = [row for row in content["admissions"] if row["hadm_id"] != leak_mimic.iv.LATER]
    check_canaries(MIMIC_IV, content, tmp_path, capsys)


def test_canaries_of_mimic_iii(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_canaries(MIMIC_III, leak_mimic.mimic_iii_tables(LOUD), tmp_path, capsys)


def test_canaries_of_eicu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_canaries(EICU, eicu_tables(LOUD), tmp_path, capsys)


def test_canaries_of_meds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {name: [e for e in listed if e.get("hadm_id") != 25] for name, listed in meds_events(LOUD).items()}
    check_canaries(MedsRecord(), content, tmp_path, capsys)


def test_canaries_of_osce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_canaries(OsceRecord(), OsceRecord().content(), tmp_path, capsys)


def test_canaries_of_ddxplus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_canaries(DdxplusRecord(), DdxplusRecord().content(), tmp_path, capsys)


RECORDS: dict[str, Callable[[], RawRecord]] = {
    "fhir": FhirRecord, "mimic-iv": lambda: MIMIC_IV, "mimic-iii": lambda: MIMIC_III, "eicu": lambda: EICU,
    "meds": MedsRecord, "osce": OsceRecord, "ddxplus": DdxplusRecord,
}  # fmt: skip


@pytest.mark.parametrize("source", RECORDS)
def test_an_error_names_the_file_and_no_word_of_it(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record of which every file holds something else is refused, without a traceback that quotes it."""
    record = RECORDS[source]()
    path = record.write(record.content(), tmp_path)
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        file.write_text(f"{BROKEN},{BROKEN}\n{BROKEN},{BROKEN},{BROKEN}\n", encoding="utf-8")
    assert call("--debug", "import", source, path, "--db", f"sqlite:///{tmp_path / 'a.db'}") == 3
    said = capsys.readouterr()
    assert str(path) in said.err
    assert BROKEN not in said.out + said.err
    assert not (tmp_path / "a.db").exists()


def test_control_a_word_in_a_visible_fact_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same way, with the word in the chief complaint: it reaches chart, database and prompts."""
    content = fhir_resources("plain")
    next(r for r in content if r["id"] == "complaint")["valueString"] = LOUD
    with pytest.raises(AssertionError):
        check_canaries(FhirRecord(), content, tmp_path, capsys)
    assert LOUD in rest_of_database(tmp_path / "a.db")
    assert call("replay", "--db", f"sqlite:///{tmp_path / 'a.db'}", "--run", "a", "--generator", "random:3",
                "--rollouts", 2) == 0  # fmt: skip
    out = tmp_path / "prompts.jsonl"
    assert call("prompts", "--db", f"sqlite:///{tmp_path / 'a.db'}", "--run", "a", "--out", out) == 0
    assert LOUD in out.read_text(encoding="utf-8")
