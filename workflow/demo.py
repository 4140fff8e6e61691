"""The demonstration: bundled cases, imported like anyone's, searched, compared with a baseline and reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_data.demo import bundle_folder
from clinical_data.errors import StorageError, UsageError
from workflow.config import ReplayOptions
from workflow.importing import ImportSummary, import_cases
from workflow.runner import Listener, Summary, replay

RUN = "demo"
BASELINE = "demo-full-information"
STEPS = ("admission_diagnosis", "discharge_diagnosis")

# Minutes on 2 cores (8 were measured on busy ones): a few cases, a small tree. `--full` takes all cases.
CASES = 4
SEED = 7
STEPS = ("admission_diagnosis", "discharge_diagnosis")
TAUGHT_PROMPT: dict[str, Any] = {
    "actions": "think, finish, request",
    "answer_list": "hidden",
    "answer_values": 1,
    "answer_chars": 60,
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


def replay_demo(demo: Demo, *, cases: int | None, model: str, baseline: bool, listener: Listener) -> Summary:
    """Replays the demonstration's cases with rStar, or with the baseline: everything known in the prompt, no search.

    Args:
        demo: a prepared demonstration.
        cases: how many cases; None means all.
        model: model SPEC.
        baseline: run the baseline.
        listener: hears how it goes.

    Raises:
        UsageError: the folder holds a demonstration of another size.
        ModelError, StorageError: as `replay`.
    """
    options = ReplayOptions(
        steps=STEPS,
        strategy="full-information" if baseline else "rstar",
        limit=cases,
        seed=SEED,
        generator=model,
        settings=SETTINGS,
    )
    try:
        return replay(demo.url, BASELINE if baseline else RUN, options, listener=listener)
    except UsageError as error:
        hint = "take another --out folder, or remove this one"
        raise UsageError(f"{demo.folder} holds another demonstration ({error.message})", hint=hint) from error
