"""`make adapters`: the two adapters of the embedded model that come with the package, made anew.

They are taught on synthetic cases of the bundled generator alone, but of another seed and other patients than the
bundled ones: the generator on one half of those patients, the peer on the other. What is taught are charts of every
length (`part-information`, by the `random` model): which items a record answers, and the label that it later showed.
No sentence of reasoning is taught.

    python -m benchmarks.adapters FOLDER     # what is made on the way lies there; the same command goes on after a stop
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from clinical_data.demo.generator import CASES, SEED, write_bundles
from evaluation.store import existing_database
from evaluation.supervision.fine_tune import fine_tune
from evaluation.supervision.fine_tune_settings import TuneSettings
from evaluation.supervision.training_sets import SFT, SetOptions, export_set
from search.desk import GENERATOR, PEER
from search.models.adapters import BUNDLED, CARD, CONFIG, WEIGHTS
from workflow.config import ReplayOptions
from workflow.demo import STEPS, TAUGHT_PROMPT
from workflow.importing import import_cases
from workflow.runner import replay

TAUGHT = 300  # synthetic cases, of which seven in ten are of the train split
FIRST = CASES + 69  # number of the first of them: no patient is a bundled one
RUN = "part-information"
SETS = {GENERATOR: SetOptions(half=0, role=GENERATOR), PEER: SetOptions(half=1, role=PEER)}
TUNING = TuneSettings(rank=4, alpha=8, epochs=2, lr=1e-3, by_length=True, seed=1, save_dtype="bf16", patience=0)


def teach(folder: Path, cases: int = TAUGHT, tuning: TuneSettings = TUNING) -> dict[str, Path]:
    """Makes cases, sets and adapters below a folder.

    Returns:
        role -> folder of its adapter.
    """
    url = f"sqlite:///{folder / 'cases.db'}"
    folder.mkdir(parents=True, exist_ok=True)
    write_bundles(folder / "bundles", SEED + 1, cases, FIRST)
    import_cases(url, "fhir", folder / "bundles")
    options = ReplayOptions(
        strategy=RUN,
        split="train",
        steps=STEPS,
        generator="random:1",
        seed=1,
        settings={**TAUGHT_PROMPT, "max_requests": 8, "rollouts": 1},
    )
    replay(url, RUN, options)
    found = {}
    for role, chosen in SETS.items():
        data, out = folder / f"{role}-set", folder / role
        with existing_database(url) as engine:
            figures = export_set(engine, SFT, [RUN], data, chosen)["splits"]["train"]
        print(f"{role}: {figures['rows']} rows of {figures['cases']} cases", flush=True)
        fine_tune(data, out, tuning, resume=out.exists())
        found[role] = out
    return found


def install(made: dict[str, Path], target: Path = BUNDLED) -> None:
    """Copies what a search reads of the adapters, and their cards, to where `embedded:NAME` finds them."""
    for role, folder in made.items():
        (target / role).mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CONFIG, CARD):
            shutil.copyfile(folder / name, target / role / name)


def main() -> None:
    """Makes the adapters in the folder named, and puts them into the package."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    install(teach(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
