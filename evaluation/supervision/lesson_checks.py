"""What runs and records must be to teach: alike, of this program's prompts, and silent of what came after the clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinical_data.errors import BadInputError, UsageError
from clinical_data.splits import PATIENT_SCHEME
from clinical_data.vocabulary import Vocabulary
from evaluation.record import RunRecord
from evaluation.store.run_store import Run
from search.prompts import TEMPLATE_HASH
from search.wording import CHINESE, template_hash


def check_alike(runs: Sequence[Run]) -> None:
    """Raises UsageError where runs cannot share one set: pathway, prompts, catalogue, vocabularies, scheme of splits.

    Their prompts must also be those of this program, or what is tuned on them would not fit the place it is meant for.
    """
    if not runs:
        raise UsageError("no run is named", hint="name one with --run NAME")
    for run in runs:
        if not isinstance(run.config.get("hashes"), dict) or not isinstance(run.config.get("pathway"), dict):
            raise UsageError(f"run {run.name} was configured by another version of wardstar", hint="replay it again")
        if run.config["hashes"].get("prompts") == template_hash(CHINESE):
            raise UsageError(f"run {run.name}: sets are made of English prompts alone, and its own are Chinese")
        if run.config["hashes"].get("prompts") != TEMPLATE_HASH:
            raise UsageError(
                f"run {run.name}: its prompts are not those of this version of wardstar",
                hint="a model tuned on it would be asked in other words; replay it again",
            )
        if run.config.get("predecessors") == "recorded":
            raise UsageError(
                f"run {run.name} is an oracle: its prompts hold recorded labels of earlier steps",
                hint="replay it with --predecessors predicted or none",
            )
    first = _identity(runs[0])
    for run in runs[1:]:
        other = _identity(run)
        if differing := [name for name in {**first, **other} if first.get(name) != other.get(name)]:
            raise UsageError(
                f"runs {runs[0].name} and {run.name} differ in {', '.join(differing)}",
                hint="export them into sets of their own",
            )


def _identity(run: Run) -> dict[str, Any]:
    """Returns what runs of one set must share."""
    pathway = run.config["pathway"]
    return {
        "pathway": f"{pathway.get('name')} {pathway.get('version')}",
        "content of the pathway": pathway.get("sha256"),
        "split scheme": run.config.get("split_scheme", PATIENT_SCHEME),
        **dict(sorted(run.config["hashes"].items())),
    }


def check_hashes(run: Run, record: RunRecord, vocabulary: Vocabulary) -> None:
    """Raises BadInputError where a record was made with other prompts, another pathway or another vocabulary."""
    wanted = {
        "prompts": TEMPLATE_HASH,
        "pathway": run.config["pathway"].get("sha256"),
        "vocabulary": vocabulary.sha256,
    }
    for name, sha256 in wanted.items():
        if record.hashes.get(name) != sha256:
            raise bad_record(run, record, f"hashes.{name}", f"made with another {name} than this set")


def check_clock(run: Run, record: RunRecord) -> None:
    """Raises BadInputError where a record shows a finding that was not available at its clock."""
    if record.clock is None:
        raise bad_record(run, record, "clock", "no clock is recorded")
    shown = [("opening", turn) for turn in record.opening]
    shown += [("candidates.turns", turn) for candidate in record.candidates for turn in candidate.turns]
    for place, turn in shown:
        if any(finding.available > record.clock for finding in turn.findings):
            raise bad_record(run, record, f"{place}.findings.available", "shows what was not known at its clock")


def bad_record(run: Run, record: RunRecord, name: str, message: str) -> BadInputError:
    """Returns the error to raise for a field of a record; it names run, case, step and field."""
    place = f"run {run.name}, case {record.case_id}, step {record.step}"
    hint = "delete the run and replay it"
    return BadInputError(f"{place}, field {name}: {message}", hint=hint)
