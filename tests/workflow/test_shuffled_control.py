"""The label-masked control: labels go round among stays, charts stay where they are."""

import sys
from pathlib import Path

import pytest

from benchmarks import shuffled
from clinical_data.demo import bundle_folder
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation.store import existing_database
from workflow.importing import import_cases


def test_nobody_keeps_its_own_labels_and_all_are_given_once() -> None:
    ids = [f"c{i}" for i in range(50)]
    given = shuffled.exchanged(ids, 0)
    assert sorted(given) == sorted(given.values()) == sorted(ids)
    assert all(one != other for one, other in given.items())
    assert given == shuffled.exchanged(list(reversed(ids)), 0) != shuffled.exchanged(ids, 1)


def test_charts_stay_and_labels_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, target = f"sqlite:///{tmp_path / 'own.db'}", f"sqlite:///{tmp_path / 'other.db'}"
    import_cases(url, "fhir", Path(bundle_folder()))
    lists = {"train": range(1, 5), "tuning": range(5, 8), "held-out": range(8, 11)}
    for name, numbers in lists.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"fhir-ward-{n:04d}\n" for n in numbers))
    monkeypatch.setattr(sys, "argv", ["shuffled", url, target, str(tmp_path)])
    shuffled.main()
    with existing_database(url) as own, existing_database(target) as other:
        before, after = TruthStore(own), TruthStore(other)
        for ids in ([f"fhir-ward-{n:04d}" for n in numbers] for numbers in lists.values()):
            given = shuffled.exchanged(ids, 0)
            for one in ids:
                assert CaseReader(other).get(one) == CaseReader(own).get(one)
                labels = {step: t.labels for step, t in after.truth(one).items()}
                assert labels == {step: t.labels for step, t in before.truth(given[one]).items()}
        assert CaseReader(other).count() == 10
