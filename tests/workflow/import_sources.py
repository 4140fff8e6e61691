"""A made-up source for the tests of resumed imports: it stages, refuses rows, gives up cases and takes its time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, make_id
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources import ImportJob, ImportLog, Quarantined
from clinical_data.sources.step_truth import every_step
from clinical_data.store import case_store
from workflow import importing

PAUSE = 0.01  # seconds per case
ALONE = ImportJob()


class SlowSource:
    """Reads a text file with one case number per line.

    Line 3 is broken. Every seventh case is given up, every fifth has a broken row and is imported all the same; every
    ninth is one that no database can hold.
    """

    name = "slow"
    stages = True

    def read(self, path: Path, log: ImportLog, job: ImportJob = ALONE) -> Iterator[LabelledCase]:
        if not path.is_file():
            raise BadInputError("no such file", file=path)
        staged = None if job.workspace is None else job.workspace / "staged.json"
        if staged is None or not staged.exists():
            numbers = [int(line) for line in path.read_text().split()]
            time.sleep(20 * PAUSE)
            if staged is not None:
                part = staged.with_suffix(".part")
                part.write_text(json.dumps(numbers))
                part.rename(staged)
        else:
            numbers = json.loads(staged.read_text())
        log.read["line"] += len(numbers)
        log.quarantined(Quarantined(path.name, 3, "broken line"))
        for number in numbers:
            case_id = make_id("slow", str(number))
            if job.stored(case_id):
                continue
            wait_for_the_kill(path, number)
            time.sleep(PAUSE)
            log.unused["row of no use"] += number
            if number % 7 == 0:
                log.quarantined(Quarantined(path.name, number, "gives no case", case_id))
                continue
            if number % 5 == 0:
                log.quarantined(Quarantined(path.name, number, "broken row", case_id))
            log.read["row"] += 2
            yield make(number)
            log.progress(number, len(numbers))


def wait_for_the_kill(path: Path, number: int) -> None:
    """Stops at the number that a file beside the input names, and says so with another file."""
    stop = path.with_suffix(".stop")
    if stop.exists() and int(stop.read_text()) == number:
        path.with_suffix(".stopped").touch()
        time.sleep(120)


class PlainSource(SlowSource):
    """As SlowSource, but it stages nothing and takes no notice of what is stored."""

    name = "plain"
    stages = False

    def read(self, path: Path, log: ImportLog, job: ImportJob = ALONE) -> Iterator[LabelledCase]:
        return super().read(path, log)


def make(number: int) -> LabelledCase:
    case_id = make_id("slow", str(number))
    value = float("inf") if number % 9 == 0 else float(number)
    finding = Finding(f"f{number}", FindingKind.VITAL, Coding("s", "pulse"), value, number, number)
    person = Patient(f"slow-p{number % 8}", "slow", f"p{number % 8}")
    case = Case(
        case_id, "slow", str(number), person, 60, (Encounter(str(number), "inpatient", 0),), {"admission": 0},
        findings=(finding,), attributes={"hospital_id": str(number % 3)},
    )  # fmt: skip
    label = Label(Coding("icd", "I10"), Strength.PROXY)
    given: dict[str, tuple[Label, ...] | str] = {"discharge_diagnosis": (label,) if number % 2 else "none recorded"}
    truth: dict[str, GroundTruth] = every_step(case, given)
    return LabelledCase(case, truth)


def main(url: str, source: str, path: str) -> None:
    """Imports in batches of three cases and writes the summary to stdout."""
    case_store.BATCH_CASES = 3
    importing.SOURCES |= {
        "slow": ("import_sources", "SlowSource"),
        "plain": ("import_sources", "PlainSource"),
    }
    summary = importing.import_cases(url, source, Path(path))
    found = {f.name: getattr(summary, f.name) for f in fields(summary)}  # asdict cannot copy a Counter
    sys.stdout.write(json.dumps(found, default=asdict))


if __name__ == "__main__":
    main(*sys.argv[1:])
