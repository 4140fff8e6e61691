"""The whole way on PostgreSQL: import of bundled cases, replay, score; it ends as on SQLite."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinical_data.demo import bundle_folder
from clinical_data.store.case_store import CaseStore
from evaluation.rows import prompt_rows, record_rows
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from workflow.cli import main

CASES = 2


def wardstar(*arguments: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert not left.value.code


def everything(url: str, run: str) -> tuple[Any, ...]:
    engine = open_database(url, create=False)
    cases, store = CaseStore(engine), RunStore(engine)
    row = store.get(run)
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in record_rows(store, row)]
    prompts = list(prompt_rows(store, row, tokens=True))
    ids = cases.case_ids()
    found = [cases.get(i) for i in ids], [cases.truth(i) for i in ids], cases.summaries(), records, prompts, row.status
    engine.dispose()
    return found


def test_a_run_on_postgresql_equals_the_one_on_sqlite(
    postgres_url: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WARDSTAR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = tmp_path / "bundles"
    folder.mkdir()
    for path in sorted(Path(bundle_folder()).glob("*.json.gz"))[:CASES]:
        shutil.copy(path, folder)
    found, said = [], []
    for url, workers in ((f"sqlite:///{tmp_path / 'a.db'}", 1), (postgres_url(), 2)):
        capsys.readouterr()
        wardstar("import", "fhir", folder, "--db", url)
        said.append(re.sub(r"took +│ [^│]*", "", capsys.readouterr().out))
        how = ("--generator", "random:7", "--rollouts", "2", "--seed", "3", "--workers", workers)
        wardstar("replay", "--db", url, "--run", "one", "--pathway", "inpatient", *how)
        wardstar("resume", "--db", url, "--run", "one")
        wardstar("score", "--db", url, "--run", "one", "--json")
        found.append(everything(url, "one"))
    cases, _, _, records, prompts, status = found[0]
    assert len(cases) == CASES
    assert {r["case_id"] for r in records} == {c.case_id for c in cases}
    assert prompts
    assert status == "finished"
    assert found[1] == found[0]
    assert said[1] == said[0] != ""
    assert list((tmp_path / "home" / "imports").iterdir()) == []
