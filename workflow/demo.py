"""The demonstration: bundled cases, imported like anyone's, searched, compared with a baseline and reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_data.demo import bundle_folder
from clinical_data.errors import StorageError, UsageError
from search.desk import GENERATOR, PEER
from workflow.config import ReplayOptions
from workflow.importing import ImportSummary, import_cases
from workflow.runner import Listener, Summary, replay

RUN = "demo"
UNTUNED = "demo-untuned"
BASELINE = "demo-full-information"
EMBEDDED = "embedded"

# Minutes on 2 cores: a few cases, a small tree. `--full` takes all cases.
CASES = 3
SEED = 7
STEPS = ("admission_diagnosis", "discharge_diagnosis")
TAUGHT_PROMPT: dict[str, Any] = {
    "actions": "think, finish, request",
    "answer_list": "hidden",
    "answer_values": 1,
    "answer_chars": 100,
    "calibration": "none",
    "likelihood": "sum",
}  # what the bundled adapters were taught on
SETTINGS: dict[str, Any] = {
    "rollouts": 6,
    "depth": 4,
    "think": 2,
    "ask": 1,
    "ask_votes": 2,
    "turn_tokens": 28,
    "wave": 3,
    "peer_cuts": 2,
}


@dataclass(frozen=True, slots=True)
class Demo:
    """Where a demonstration lives."""

    folder: Path

    @property
    def url(self) -> str:
        """URL of its database."""
        return f"sqlite:///{self.folder / 'wardstar.db'}"

    @property
    def report(self) -> Path:
        """Folder of its report."""
        return self.folder / "report"


def prepare_demo(folder: Path) -> tuple[Demo, ImportSummary]:
    """Makes the folder and imports the bundled cases; doing so again changes nothing.

    Raises:
        StorageError: the folder or its database cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error.strerror})") from error
    demo = Demo(folder)
    return demo, import_cases(demo.url, "fhir", Path(bundle_folder()))


@dataclass(frozen=True, slots=True)
class Part:
    """One run of the demonstration; `words` say what it is."""

    run: str
    words: str
    strategy: str
    generator: str
    peer: str | None
    settings: dict[str, Any]


def parts(model: str) -> list[Part]:
    """Returns the runs of a demonstration: of the embedded model before and, where it comes with adapters, after."""
    from search.models.weight_files import bundled_adapters  # its libraries only when they are needed

    baseline = "baseline: all that was known in one prompt, no search"
    if model != EMBEDDED or not {GENERATOR, PEER} <= set(bundled_adapters()):
        search = Part(RUN, "search over the chart (rStar)", "rstar", model, None, SETTINGS)
        return [search, Part(BASELINE, baseline, "full-information", model, None, SETTINGS)]
    tuned, settings = f"{EMBEDDED}:{GENERATOR}", {**SETTINGS, **TAUGHT_PROMPT}
    return [
        Part(UNTUNED, "before: search over the chart (rStar) by the model as it came", "rstar", model, None, SETTINGS),
        Part(RUN, "after: the same by a tuned model and a tuned peer", "rstar", tuned, f"{EMBEDDED}:{PEER}", settings),
        Part(BASELINE, baseline, "full-information", tuned, None, settings),
    ]


def replay_demo(demo: Demo, part: Part, *, cases: int | None, listener: Listener) -> Summary:
    """Replays one run of the demonstration.

    Args:
        demo: a prepared demonstration.
        part: the run.
        cases: how many cases; None means all.
        listener: hears how it goes.

    Raises:
        UsageError: the folder holds a demonstration of another size.
        ModelError, StorageError: as `replay`.
    """
    options = ReplayOptions(
        steps=STEPS,
        strategy=part.strategy,
        limit=cases,
        seed=SEED,
        generator=part.generator,
        peer=part.peer,
        settings=part.settings,
    )
    try:
        return replay(demo.url, part.run, options, listener=listener)
    except UsageError as error:
        hint = "take another --out folder, or remove this one"
        raise UsageError(f"{demo.folder} holds another demonstration ({error.message})", hint=hint) from error
