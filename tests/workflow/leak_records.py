"""What the leak tests share: raw records that can be changed, and everything that a step at its clock can see.

A raw record says, by its own columns and without the importer, which of its parts become known after a moment, and
which parts no step may ever see. `leak_tables` and `leak_fhir` hold those of the table sources and of FHIR.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pytest

from clinical_data.case import Case
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import Chart, open_chart
from clinical_data.clocks import CLOCKS, clock_minute
from clinical_data.ground_truth import LabelledCase
from search.models.toys import RandomModel
from search.problem import Models
from search.prompts import vignette
from search.strategies import run_search
from workflow.config import PreparedRun, ReplayOptions, make_config, prepare
from workflow.step import clock_of, problem_of, why_not

RECORDS_FOLDER = Path(__file__).resolve().parents[1] / "clinical_data"
if str(RECORDS_FOLDER) not in sys.path:
    sys.path.append(str(RECORDS_FOLDER))  # the small records of every source lie beside the importers' own tests
source_records = import_module("source_records")

DEEDS = ("alter", "delete", "add", "shift", "keep")
LOUD = "zugzwang"  # stands in altered texts; no record holds it
NUMBER = "31337"  # stands in altered numbers

Change = Callable[[Any], None]  # alters the content of a raw record in place


@dataclass(frozen=True)
class Part:
    """A part of a raw record that a step at some clock must not see, with what may be done to it.

    Attributes:
        name: where it is, for the message of a failing test.
        deeds: name of a deed -> the change; only those that leave what is visible as it is.
    """

    name: str
    deeds: dict[str, Change]


class RawRecord(Protocol):
    """A record in its source's own format.

    Attributes:
        source: name of the source.
        source_id: the case that is looked at.
        clocks: step -> minute of its clock from the start of that case, worked out by hand.
    """

    source: str
    source_id: str
    clocks: dict[str, int]

    def content(self) -> Any:
        """A fresh copy of the whole record."""

    def later(self, minute: int) -> list[Part]:
        """The parts that become known after a minute."""

    def hidden(self) -> list[Part]:
        """The parts that no step sees at any time: recorded answers, and what tells them."""

    def early(self, content: Any) -> None:
        """Puts LOUD into a fact that every step sees, for the tests of the tests."""

    def plant(self, content: Any, word: Callable[[str, str], str]) -> Any:
        """Puts word(where, what) into every hidden place; returns the content where that makes a new one."""

    def broken(self, content: Any, word: str) -> None:
        """Adds what cannot be read, with a word in all of its fields."""

    def write(self, content: Any, folder: Path) -> Path:
        """Writes content below a folder that exists; returns the path to import."""


@lru_cache(maxsize=1)
def plans() -> PreparedRun:
    """The bundled pathway, made ready for a search of two rollouts."""
    return prepare(make_config(ReplayOptions(generator="random:3", settings={"rollouts": 2})))


def labelled_of(record: RawRecord, path: Path) -> LabelledCase:
    """Imports a record and returns the case that is looked at, with its recorded labels."""
    cases, _, _ = source_records.import_all(record.source, path)
    (found,) = [c for c in cases if c.case.source_id == record.source_id]
    return found


def chart_text(chart: Chart) -> str:
    """Everything that a chart shows, as text: every answer with its state, all that is known, vignette and context."""
    answers = [asdict(chart.request(item)) for item in chart.catalogue.items]
    known = [asdict(f) for f in chart.known()]
    shown = {"age": chart.age, "sex": chart.sex, "context": chart.context, "vignette": vignette(chart)}
    return json.dumps([chart.clock, shown, answers, known], indent=0, sort_keys=True)


def prompts_of(case: Case, steps: Sequence[str], strategies: Sequence[str] = ("rstar", "full-information")) -> str:
    """Every prompt of the searches at these steps of the bundled pathway, as one text."""
    model, sent = RandomModel(3), []
    for name in steps:
        plan = plans().plans.get(name)
        if plan is None or why_not(case, plan):
            continue
        clock = clock_of(case, plan.step)
        assert clock is not None
        problem = problem_of(case, plan, clock)
        for strategy in strategies:
            sent += [c.text for c in run_search(strategy, problem, Models(model, model), plan.settings, 1).calls]
    return "\n".join(sent)


def seen_by(case: Case, step: str) -> str:
    """Everything that a step of a case can see, with its prompts, as text. Empty where the step has no clock."""
    minute = clock_minute(case, step)
    if minute is None:
        return ""
    return chart_text(open_chart(case, minute, load_once())) + "\n" + prompts_of(case, [step])


@lru_cache(maxsize=1)
def load_once() -> Any:
    """The bundled catalogue."""
    return load_catalogue()


def keep_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets importers share one catalogue: to read it anew takes a fifth of a small import."""
    for name in ("fhir", "mimic_iv", "mimic_iii", "eicu", "meds"):
        monkeypatch.setattr(f"clinical_data.sources.{name}.load_catalogue", load_once)


def steps_until(record: RawRecord, minute: int) -> list[str]:
    """The steps whose clock is not after a minute: none of them may notice what becomes known later."""
    return [step for step, at in record.clocks.items() if at <= minute]


def check_clocks(record: RawRecord, case: Case) -> None:
    """The importer's clocks are those worked out by hand; a step without one has none in the source."""
    assert {s: clock_minute(case, s) for s in CLOCKS[record.source]} == {
        s: record.clocks.get(s) for s in CLOCKS[record.source]
    }


def carry_out(record: RawRecord, chosen: Sequence[tuple[Part, str]], folder: Path) -> Path:
    """Writes the record with the chosen deeds done; later places first, so that deletions move no other place."""
    content = record.content()
    for part, deed in reversed(chosen):
        if deed in part.deeds:
            part.deeds[deed](content)
    folder.mkdir()
    return record.write(content, folder)


def first_difference(before: str, after: str) -> str:
    """The first lines in which two texts differ, for the message of a failing test."""
    for one, other in zip(before.splitlines(), after.splitlines(), strict=False):
        if one != other:
            return f"{one[:300]!r} became {other[:300]!r}"
    return f"{len(before)} characters became {len(after)}"
