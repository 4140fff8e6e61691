"""The proof: does what the record later showed teach the models of the admission diagnosis?

On eICU, cohort and endpoint are fixed beforehand (`benchmarks.cohort`; docs/log.md): top-1 over 28 groups at 6 h,
paired by patient, on the 150 held-out stays. `teach` makes cases, sets and the two models, `ttrl` the one that
learned without labels; the other stages replay the arms named on a list of stays, and score them. `bundled` does so
for the adapters that come with the package, on the synthetic cases, which were written by one generator and show that
the way works, not more. What is done stays in the folder, and the same command goes on after a stop; the adapters of
docs/results, copied to FOLDER/models, are not tuned again.

    python -m benchmarks.proof FOLDER teach EICU_DEMO [MODEL ...]
    python -m benchmarks.proof FOLDER ttrl
    python -m benchmarks.proof FOLDER tuning [ARM ...]
    python -m benchmarks.proof FOLDER held-out [ARM ...]     # once per arm: a look is a look
    python -m benchmarks.proof FOLDER bundled [ARM ...]
    python -m benchmarks.proof FOLDER control                # labels exchanged between stays: must fall to the majority
    python -m benchmarks.proof FOLDER counterpart            # the same recipe with the labels of each stay
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import shuffled
from benchmarks.cohort import STEP, write_lists
from clinical_data.demo import bundle_folder
from evaluation.formatting import metric_text
from evaluation.scoring import score_run
from evaluation.store import existing_database
from evaluation.supervision.cards import CARD, read_card
from evaluation.supervision.fine_tune import fine_tune
from evaluation.supervision.fine_tune_settings import TuneSettings
from evaluation.supervision.shaping import PROMPTS, SFT
from evaluation.supervision.training_sets import SetOptions, export_set
from evaluation.supervision.ttrl import train_ttrl
from evaluation.supervision.tuning_output import COMPLETE
from search.desk import GENERATOR, PEER
from workflow.config import ReplayOptions
from workflow.demo import TAUGHT_PROMPT
from workflow.importing import import_cases
from workflow.runner import replay

PROMPT: dict[str, Any] = {**TAUGHT_PROMPT, "actions": "finish, request"}  # short: what two cores can teach in an hour
# The embedded model as it came needs the list and the calibration; the chart answers it in the same words.
ZERO_SHOT = {name: TAUGHT_PROMPT[name] for name in ("answer_values", "answer_chars")}
SEARCH = {
    "rollouts": 6,
    "min_requests": 8,
    "max_requests": 10,
    "request": 2,
    "wave": 6,
    "peer_cuts": 2,
    "temperature": 0.5,
}
SEED = 1  # of the runs of all arms
WORKERS = 2  # take OMP_NUM_THREADS=1 with them
DTYPE = "fp32"  # what every processor computes at a useful speed, and alike
TUNING = TuneSettings(
    rank=8,
    alpha=16,
    lr=1e-3,
    epochs=1,
    batch_size=4,  # two trainings side by side fit into 12 GB
    accumulate=2,
    seed=1,
    by_length=True,
    dtype="auto",  # the four models were taught in bf16, which this takes where the processor multiplies it fast
    save_dtype="bf16",
    patience=0,
)
AGAIN = replace(TUNING, seed=2)
# At 5e-4 with votes of a quarter on, it answered sepsis to everything after 27 steps (docs/log.md).
TTRL = replace(TUNING, method="ttrl", lr=1e-4, epochs=0.06, batch_size=1, accumulate=2, least_share=0.4)
TTRL_MODEL, CONTROL, COUNTERPART = "ttrl", "control", "counterpart"


@dataclass(frozen=True, slots=True)
class Charts:
    """A run over the train stays by the `random` model, which makes charts to learn from.

    Attributes:
        number: of the random model, and seed of the run.
        requests: most items in a chart.
        turns: its requests are taught as well, not its answers alone.
        stays: list of the stays.
    """

    name: str
    strategy: str
    number: int
    requests: int = 20
    turns: bool = False
    stays: str = "train"


@dataclass(frozen=True, slots=True)
class Lesson:
    """One pass of teaching: which charts, from which model on.

    Attributes:
        base: name of an earlier lesson; empty: the embedded model.
    """

    name: str
    base: str
    tuning: TuneSettings
    charts: tuple[Charts, ...]


def _questions(number: int) -> Charts:
    return Charts(f"questions-{number}", "part-information", number, turns=True, stays="search")


def _part(number: int) -> Charts:
    return Charts(f"part-{number}", "part-information", number)


def _unanswered(number: int) -> Charts:
    return Charts(f"unanswered-{number}", "greedy", number, requests=12)


FULL, PART = Charts("full-11", "full-information", 11), _part(12)
# Which kinds of chart was chosen on the tuning stays (docs/log.md). Requests at random mostly find nothing; a model
# that never saw such loses most of its accuracy where half of its own find nothing. Questions are learned from a subset
# of the stays: they have many words, and the loss is a mean over words. The second pass takes other charts.
LESSONS = (
    Lesson("generator-1", "", TUNING, (_questions(11), FULL, _part(12), _unanswered(13))),
    Lesson(GENERATOR, "generator-1", AGAIN, (_questions(14), FULL, _part(15), _unanswered(16))),
    Lesson("peer-1", "", TUNING, (_part(21), FULL, _unanswered(23))),
    Lesson(PEER, "peer-1", AGAIN, (_part(22), FULL, _unanswered(26))),
)
OF_CONTROL = (FULL, PART)  # with the labels of other stays, and, as the counterpart, with their own
UNLABELLED = PART  # the charts that TTRL answers
SHOWN = ("top_5", "brier", "log_score", "failed", "requests", "unanswerable_requests")


@dataclass(frozen=True, slots=True)
class Arm:
    """One configuration that is measured.

    Attributes:
        model: name of the generator below FOLDER/models; empty: the embedded model as it came.
        peer: the tuned peer checks; else the generator itself does, where the settings ask for checks.
    """

    strategy: str
    model: str = GENERATOR
    peer: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


GREEDY = {"max_requests": 10}
ALONE = {**SEARCH, "peer_cuts": 0}  # nobody checks: the vote over all trajectories, weighted by their value
ARMS = {
    "zero-shot-greedy": Arm("greedy", "", settings={**ZERO_SHOT, **GREEDY}),
    "zero-shot-full-information": Arm("full-information", "", settings=ZERO_SHOT),
    "zero-shot-rstar": Arm("rstar", "", settings={**ZERO_SHOT, **SEARCH}),
    # Plain: read as the tuned model is, so that what is left between the two is what its weights learned.
    "zero-shot-plain-greedy": Arm("greedy", "", settings={**PROMPT, **GREEDY}),
    "zero-shot-plain-full-information": Arm("full-information", "", settings=PROMPT),
    "tuned-greedy": Arm("greedy", settings={**PROMPT, **GREEDY}),
    "tuned-full-information": Arm("full-information", settings=PROMPT),
    "tuned-rstar-no-peer": Arm("rstar", settings={**PROMPT, **ALONE}),
    "tuned-rstar-peer": Arm("rstar", peer=True, settings={**PROMPT, **SEARCH}),
    "ttrl-greedy": Arm("greedy", TTRL_MODEL, settings={**PROMPT, **GREEDY}),
    CONTROL: Arm("full-information", CONTROL, settings=PROMPT),
    COUNTERPART: Arm("full-information", COUNTERPART, settings=PROMPT),
}


@dataclass(frozen=True, slots=True)
class Ground:
    """Where arms are measured: a database of cases, and which of them.

    Attributes:
        models: folder whose subfolders are the tuned models, or what stands before their names in a SPEC.
        cases: list of stays; None: all cases.
    """

    url: str
    models: str
    cases: Path | None = None

    def options(self, arm: Arm) -> ReplayOptions:
        """Returns what the run of an arm is."""
        return ReplayOptions(
            strategy=arm.strategy,
            steps=(STEP,),
            cases=str(self.cases) if self.cases else None,
            generator=f"{self.models}{arm.model}" if arm.model else "embedded",
            peer=f"{self.models}{PEER}" if arm.peer else None,
            seed=SEED,
            settings=arm.settings,
            models={"dtype": DTYPE},
        )


def ground(folder: Path, name: str) -> Ground:
    """Returns where a stage measures."""
    if name == "bundled":
        return Ground(database(folder, name), "embedded:")
    url = database(folder, CONTROL if name == CONTROL else "eicu")
    return Ground(url, f"{folder / 'models'}/", folder / "cohort" / f"{'tuning' if name == CONTROL else name}.txt")


def teach(folder: Path, data: Path, names: Sequence[str] = ()) -> None:
    """Imports the cases, writes the lists of stays, and tunes generator and peer, or the models named of them."""
    url = database(folder, "eicu")
    if not (folder / "cohort" / "held-out.txt").is_file():
        import_cases(url, "eicu", data)
        write_lists(url, folder / "cohort")
    for lesson in LESSONS:
        if not names or lesson.name in names:
            teach_one(folder, url, lesson)


def teach_one(folder: Path, url: str, lesson: Lesson) -> None:
    """Makes charts of the train stays, a set of them, and a model, unless the model is there."""
    out, data = folder / "models" / lesson.name, folder / "sets" / lesson.name
    if read_card(out / CARD).get("status") == COMPLETE:
        return
    for chart in lesson.charts:
        replay(url, chart.name, _chart_options(folder, chart))
    taught = [chart.name for chart in lesson.charts if chart.turns]
    answers = [chart.name for chart in lesson.charts if not chart.turns]
    chosen = SetOptions(answers_only=not taught, answers_from=tuple(answers) if taught else ())
    with existing_database(url) as engine:
        card = export_set(engine, SFT, taught or answers, data, chosen)
    print(f"{lesson.name}: {card['splits']['train']['rows']} rows", flush=True)
    base = str(folder / "models" / lesson.base) if lesson.base else "embedded"
    fine_tune(data, out, replace(lesson.tuning, base=base), resume=out.exists())


def _chart_options(folder: Path, chart: Charts) -> ReplayOptions:
    return ReplayOptions(
        strategy=chart.strategy,
        steps=(STEP,),
        cases=str(folder / "cohort" / f"{chart.stays}.txt"),
        generator=f"random:{chart.number}",
        seed=chart.number,
        settings={**PROMPT, "max_requests": chart.requests, "rollouts": 1},
    )


def teach_without_labels(folder: Path) -> None:
    """Lets the tuned generator learn on from the vote of its own answers to train stays, whose labels nobody reads."""
    data, out = folder / "sets" / TTRL_MODEL, folder / "models" / TTRL_MODEL
    url = database(folder, "eicu")
    replay(url, UNLABELLED.name, _chart_options(folder, UNLABELLED))
    with existing_database(url) as engine:
        export_set(engine, PROMPTS, [UNLABELLED.name], data, SetOptions())
    tuning = replace(TTRL, base=str(folder / "models" / GENERATOR))
    card = train_ttrl(data, out, tuning, resume=out.exists())
    print(card["figures"], flush=True)


def measure(folder: Path, where: str, names: list[str]) -> None:
    """Replays arms on one list of stays, and prints their figures beside the baselines'."""
    place = ground(folder, where)
    for name in names:
        run = f"{where}-{name}"
        replay(place.url, run, place.options(ARMS[name]), workers=WORKERS)
        with existing_database(place.url) as engine:
            score = score_run(engine, run, regression=name == names[0])["steps"][STEP]
        _show(run, score["n"], score["metrics"])
        for baseline, figures in score["baselines"].items():
            if figures.get("levels"):
                _show(baseline, score["n"], figures["levels"])


def _show(who: str, n: int, figures: dict[str, Any]) -> None:
    names = [*(k for k in figures if k.startswith("accuracy_") and k.split("_")[1] in ("group", "ccsr")), *SHOWN]
    print(who, n, *(f"{k} {metric_text(figures[k])}" for k in names if k in figures), sep=", ", flush=True)


def control(folder: Path) -> None:
    """Teaches and measures on stays each of which has the labels of another: whatever lies above chance is a leak."""
    url = database(folder, CONTROL)
    shuffled.exchange(database(folder, "eicu"), url, folder / "cohort", seed=0)
    teach_one(folder, url, Lesson(CONTROL, "", TUNING, OF_CONTROL))
    measure(folder, CONTROL, [CONTROL])


def counterpart(folder: Path) -> None:
    """Teaches and measures as `control` does, with each stay's own labels: what this recipe can learn."""
    teach_one(folder, database(folder, "eicu"), Lesson(COUNTERPART, "", TUNING, OF_CONTROL))
    measure(folder, "tuning", [COUNTERPART])


def database(folder: Path, name: str) -> str:
    """Returns the URL of a database of the experiment."""
    return f"sqlite:///{folder.resolve() / name}.db"


def main() -> None:
    """Does one stage."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder, stage, rest = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    folder.mkdir(parents=True, exist_ok=True)
    if stage == "teach":
        teach(folder, Path(rest[0]), rest[1:])
    elif stage == TTRL_MODEL:
        teach_without_labels(folder)
    elif stage == CONTROL:
        control(folder)
    elif stage == COUNTERPART:
        counterpart(folder)
    else:
        if stage == "bundled":
            import_cases(database(folder, stage), "fhir", Path(bundle_folder()))
        models = ("", GENERATOR) if stage == "bundled" else ("", GENERATOR, TTRL_MODEL)
        measure(folder, stage, rest or [name for name, arm in ARMS.items() if arm.model in models])


if __name__ == "__main__":
    main()
