"""The experiment on eICU: does what the record later showed teach the models of the admission diagnosis?

Cohort and endpoint are fixed beforehand (`benchmarks.cohort`; docs/log.md): top-1 over 28 groups at 6 h, paired by
patient, on the 150 held-out stays. `teach` makes cases, sets and the two models; the other stages replay the arms named
on a list of stays, and score them. What is done stays in the folder, and the same command goes on after a stop; the
generator of docs/results/adapters, copied to FOLDER/models/generator, is not tuned again.

    python -m benchmarks.proof FOLDER teach EICU_DEMO
    python -m benchmarks.proof FOLDER tuning [ARM ...]
    python -m benchmarks.proof FOLDER held-out [ARM ...]     # once per arm: a look is a look
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cohort import STEP, write_lists
from evaluation.formatting import metric_text
from evaluation.scoring import score_run
from evaluation.store import existing_database
from evaluation.supervision.fine_tune import fine_tune
from evaluation.supervision.fine_tune_settings import TuneSettings
from evaluation.supervision.training_sets import SFT, SetOptions, export_set
from search.desk import GENERATOR, PEER
from workflow.config import ReplayOptions
from workflow.importing import import_cases
from workflow.runner import replay

PROMPT: dict[str, Any] = {
    "actions": "finish, request",
    "answer_list": "hidden",
    "answer_values": 1,
    "answer_chars": 60,
    "calibration": "none",
    "likelihood": "sum",
}  # short prompts, no thoughts: what two cores can teach in an hour
ZERO_SHOT: dict[str, Any] = {
    "answer_values": 1,
    "answer_chars": 60,
}  # the embedded model needs the list and the calibration
SEARCH = {"rollouts": 8, "max_requests": 10, "request": 2, "wave": 4, "peer_cuts": 2}
DTYPE = "fp32"  # what every processor computes at a useful speed, and alike
TUNING = TuneSettings(rank=8, alpha=16, epochs=1, seed=1, by_length=True, dtype=DTYPE, save_dtype="bf16", patience=0)


@dataclass(frozen=True, slots=True)
class Charts:
    """A run over the train stays by the `random` model, which makes charts to learn from.

    Attributes:
        number: of the random model, and seed of the run.
        requests: most items in a chart.
        turns: its requests are taught as well, not its answers alone.
    """

    name: str
    strategy: str
    number: int
    requests: int = 20
    turns: bool = False


# Which kinds, and once each, was chosen on the tuning stays: twice of each taught no more (docs/log.md). Requests at
# random mostly find nothing; a model that never saw such loses most of its accuracy where half of its own find nothing.
CHARTS = {
    GENERATOR: (
        Charts("questions-11", "part-information", 11, turns=True),
        Charts("full-11", "full-information", 11),
        Charts("part-12", "part-information", 12),
        Charts("unanswered-13", "greedy", 13, requests=12),
    ),
    PEER: (
        Charts("part-21", "part-information", 21),
        Charts("part-22", "part-information", 22),
        Charts("unanswered-23", "greedy", 23, requests=12),
    ),
}


SHOWN = ("accuracy_group", "top_5", "brier", "requests", "unanswerable_requests")


@dataclass(frozen=True, slots=True)
class Arm:
    """One configuration that is measured."""

    strategy: str
    tuned: bool = True
    peer: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


ARMS = {
    "zero-shot-greedy": Arm("greedy", tuned=False, settings={**ZERO_SHOT, "max_requests": 10}),
    "zero-shot-rstar": Arm("rstar", tuned=False, settings={**ZERO_SHOT, **SEARCH}),
    "tuned-greedy": Arm("greedy", settings={**PROMPT, "max_requests": 10}),
    "tuned-full-information": Arm("full-information", settings=PROMPT),
    "tuned-rstar-no-peer": Arm("rstar", settings={**PROMPT, **SEARCH, "peer_cuts": 0, "selection": "majority"}),
    "tuned-rstar-peer": Arm("rstar", peer=True, settings={**PROMPT, **SEARCH}),
}


def teach(folder: Path, data: Path) -> None:
    """Imports the cases, writes the lists of stays, and tunes generator and peer."""
    url = database(folder)
    import_cases(url, "eicu", data)
    write_lists(url, folder / "cohort")
    for role, charts in CHARTS.items():
        for chart in charts:
            settings = {**PROMPT, "max_requests": chart.requests, "rollouts": 1}
            options = options_of(folder, "train", chart.strategy, f"random:{chart.number}", chart.number, settings)
            replay(url, chart.name, options)
        taught = [chart.name for chart in charts if chart.turns]
        answers = [chart.name for chart in charts if not chart.turns]
        chosen = SetOptions(answers_only=not taught, answers_from=tuple(answers) if taught else ())
        out = folder / "models" / role
        if not (out / "card.json").is_file():
            with existing_database(url) as engine:
                card = export_set(engine, SFT, taught or answers, folder / "sets" / role, chosen)
            print(f"{role}: {card['splits']['train']['rows']} rows", flush=True)
            fine_tune(folder / "sets" / role, out, TUNING, resume=out.exists())


def options_of(
    folder: Path,
    cases: str,
    strategy: str,
    generator: str,
    seed: int,
    settings: dict[str, Any],
    peer: str | None = None,
) -> ReplayOptions:
    """Returns what a run over one list of stays is."""
    return ReplayOptions(
        strategy=strategy,
        steps=(STEP,),
        cases=str(folder / "cohort" / f"{cases}.txt"),
        generator=generator,
        peer=peer,
        seed=seed,
        settings=settings,
        models={} if generator.startswith("random") else {"dtype": DTYPE},
    )


def measure(folder: Path, cases: str, names: list[str]) -> None:
    """Replays arms on one list of stays, and prints their figures."""
    for name in names:
        arm, models = ARMS[name], folder / "models"
        generator = str(models / GENERATOR) if arm.tuned else "embedded"
        peer = str(models / PEER) if arm.peer else None
        run = f"{cases}-{name}"
        replay(database(folder), run, options_of(folder, cases, arm.strategy, generator, 1, arm.settings, peer))
        with existing_database(database(folder)) as engine:
            score = score_run(engine, run, regression=True)["steps"][STEP]
        regression = score["baselines"].get("logistic_regression", {}).get("levels", {})
        for who, figures in ((run, score["metrics"]), ("logistic regression", regression)):
            print(
                who,
                score["n"],
                *(f"{k} {metric_text(figures[k])}" for k in SHOWN if k in figures),
                sep=", ",
                flush=True,
            )


def database(folder: Path) -> str:
    """Returns the URL of the experiment's database."""
    return f"sqlite:///{folder.resolve() / 'eicu.db'}"


def main() -> None:
    """Does one stage."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder, stage, rest = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    folder.mkdir(parents=True, exist_ok=True)
    if stage == "teach":
        teach(folder, Path(rest[0]))
    else:
        measure(folder, stage, rest or list(ARMS))


if __name__ == "__main__":
    main()
