"""The label-masked control: a database in which each stay of the cohort has the labels of another stay of its list.

Charts and labels then know nothing of each other. Whatever is taught on such train stays must fall to the majority
class on such tuning or held-out stays; what stays above it was learned from something else than the chart.

    python -m benchmarks.shuffled sqlite:///eicu.db sqlite:///shuffled.db COHORT_FOLDER [SEED]
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clinical_data.ground_truth import GroundTruth, LabelledCase
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.case_store import CaseStore
from clinical_data.store.truth_store import TruthStore
from evaluation.store import existing_database, open_database

LISTS = ("train", "tuning", "held-out")  # labels stay within a list


def exchanged(ids: Sequence[str], seed: int) -> dict[str, str]:
    """Returns for each id the one whose labels it gets: never its own (one random cycle through all)."""
    order = sorted(ids)
    random.Random(f"shuffled:{seed}").shuffle(order)
    return dict(zip(order, [*order[1:], *order[:1]], strict=True))


def _given(case_id: str, truth: dict[str, GroundTruth]) -> dict[str, GroundTruth]:
    return {step: replace(of_step, case_id=case_id) for step, of_step in truth.items()}


def exchange(url: str, target: str, folder: Path, seed: int) -> None:
    """Writes the database; doing so again changes nothing.

    Args:
        url, target: of the database with the true labels, and of the one to make.
        folder: of the lists of stays.
        seed: of the exchange.
    """
    with existing_database(url) as engine:
        reader, truths = CaseReader(engine), TruthStore(engine)
        store = CaseStore(open_database(target, create=True))
        for name in LISTS:
            ids = (folder / f"{name}.txt").read_text(encoding="utf-8").split()
            donors = exchanged(ids, seed)
            store.put_many(LabelledCase(reader.get(i), _given(i, truths.truth(donors[i]))) for i in ids)
            print(f"{name}: {len(ids)} stays, each with the labels of another")


def main() -> None:
    """Writes the database named."""
    exchange(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)


if __name__ == "__main__":
    main()
