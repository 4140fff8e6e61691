"""The cohort of the experiment on eICU: who is in it, and which stays are held out, fixed before any held-out run.

Main cohort (clinical.md): non-operative first unit visits of at least six hours, with a recorded admission diagnosis in
one of the 28 groups. Operative terms are procedures and lie outside the groups. Of each split the stays are ordered by
the hash of their id, so a subset is the first so many: `held-out.txt` 150, `search.txt` 300 of the train split.

    python -m benchmarks.cohort sqlite:///eicu.db FOLDER
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from clinical_data.case import Case
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation.matching import in_vocabulary
from evaluation.store import existing_database
from workflow.config import ReplayOptions, make_config, prepare
from workflow.step import why_not

STEP = "admission_diagnosis"
VISIT = "unitvisitnumber"  # finding: earlier unit stays in this hospital stay
HELD_OUT, SEARCHED = 150, 300


def first_visit(case: Case) -> bool:
    """Says whether no other unit stay of this hospital stay came before."""
    return any(f.code.code == VISIT and f.value == 0 for f in case.findings)


def order(case_id: str) -> str:
    """Returns the key by which stays are ordered: it depends on nothing but their id."""
    return hashlib.sha256(f"cohort:{case_id}".encode()).hexdigest()


def cohort(url: str) -> dict[str, list[str]]:
    """Returns split -> ids of the main cohort, in order of their hash."""
    plan = prepare(make_config(ReplayOptions(steps=(STEP,)))).plans[STEP]
    with existing_database(url) as engine:
        reader, truths = CaseReader(engine), TruthStore(engine)
        found = {}
        for split in ("train", "tuning", "held-out"):
            cases = map(reader.get, reader.case_ids("eicu", split))
            kept = [
                case.case_id
                for case in cases
                if first_visit(case)
                and not why_not(case, plan)
                and in_vocabulary(truths.truth(case.case_id).get(STEP), plan.vocabularies[case.source])
            ]
            found[split] = sorted(kept, key=order)
        return found


def write_lists(url: str, folder: Path) -> None:
    """Writes the lists into a folder, and how many stays each holds to stdout."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = cohort(url)
    lists = {
        "train": splits["train"],
        "search": splits["train"][:SEARCHED],
        "tuning": splits["tuning"],
        "held-out": splits["held-out"][:HELD_OUT],
    }
    for name, ids in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
        print(f"{name} {len(ids)} of {len(splits.get(name, splits['train']))}")


def main() -> None:
    """Writes the lists of a database into a folder."""
    write_lists(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
