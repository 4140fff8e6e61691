"""Importer of AgentClinic OSCE scenarios (`agentclinic_medqa.jsonl`): one case per scenario, one scenario per line.

A scenario is one consultation: everything in it is known at minute 0, and only the final diagnosis is recorded. Of a
line, `Patient_Actor`, `Physical_Examination_Findings` and `Test_Results` become findings; `Correct_Diagnosis` is read
for the recorded label alone, and `Objective_for_Doctor`, which names the task, is not read at all.

The data set gives no ids. The id of a scenario is the beginning of a hash over those three parts, so that it outlives
a reordered or extended file and does not move with the diagnosis.

Source: AgentClinic, Schmidgall et al., arXiv:2405.07960.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from clinical_data.case import Case, Coding, Encounter, Patient, make_id
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources import ImportJob, ImportLog, Quarantined
from clinical_data.sources.osce_findings import PARTS, SOURCE, TOO_DEEP, TooDeep, clean, findings_of, person_of, says
from clinical_data.sources.step_truth import every_step
from clinical_data.sources.text_lines import Line, read_lines

log = logging.getLogger(__name__)

DIAGNOSIS_SYSTEM = "wardstar:osce/diagnosis"
SUFFIXES = (".jsonl", ".jsonl.gz")

_ROOT, _ACTOR, _ANSWER, _TASK = "OSCE_Examination", "Patient_Actor", "Correct_Diagnosis", "Objective_for_Doctor"
_NO_TRUTH = "a scenario of one consultation; it records the final diagnosis alone"


class _Unusable(Exception):
    """A line that is no scenario; the text says why, without any value of it."""


class OsceSource:
    """A file of OSCE scenarios, or a folder of such files."""

    name = SOURCE
    stages = False

    def read(self, path: Path, log: ImportLog, job: ImportJob = ImportJob()) -> Iterator[LabelledCase]:  # noqa: B008
        """Yields the scenarios in the order of their lines, each with its diagnosis apart.

        `log.read` counts the scenarios, and among them those whose record names the diagnosis.

        Raises:
            BadInputError: the path is missing, or holds no scenario (as the NEJM variant of AgentClinic).
        """
        return _cases(_files(path), path, log, job)


def _files(path: Path) -> list[Path]:
    hint = "expected agentclinic_medqa.jsonl, plain or .gz"
    if path.is_file():
        if not path.name.lower().endswith(SUFFIXES):
            raise BadInputError("not a file of scenarios", file=path, hint=hint)
        return [path]
    if not path.is_dir():
        raise BadInputError("no such file or folder", file=path, hint=hint)
    found = sorted(f for f in path.iterdir() if f.name.lower().endswith(SUFFIXES) and f.is_file())
    if not found:
        raise BadInputError("no .jsonl file in this folder", file=path, hint=hint)
    return found


def _cases(files: list[Path], path: Path, import_log: ImportLog, job: ImportJob) -> Iterator[LabelledCase]:
    total, done = sum(f.stat().st_size for f in files), 0
    first_lines: dict[str, str] = {}
    trouble: Quarantined | None = None
    for file in files:
        for line in read_lines(file, _progress(import_log, done, total)):
            try:
                scenario = _scenario(line)
                source_id = scenario_id(scenario)
                if source_id in first_lines:
                    raise _Unusable(f"the same scenario as {first_lines[source_id]}, which is used")
                labelled = _labelled(source_id, scenario, import_log)
            except (_Unusable, TooDeep) as error:
                quarantined = Quarantined(file.name, line.number, str(error), "scenario")
                import_log.quarantined(quarantined)
                trouble = trouble or quarantined
                continue
            first_lines[source_id] = f"{file.name}:{line.number}"
            import_log.read["scenario"] += 1
            import_log.read["scenario that names its diagnosis"] += (
                labelled.case.attributes.get("answer_in_record") == "yes"
            )
            if not job.stored(labelled.case.case_id):
                yield labelled
        done += file.stat().st_size
        import_log.progress(done, total)
    if not first_lines:
        raise BadInputError(
            f"holds no OSCE scenario; first trouble: {trouble.reason}" if trouble else "the file is empty",
            file=path,
            line=trouble.line if trouble and len(files) == 1 else None,
            hint="only scenarios with OSCE_Examination can be imported, not the question-and-answers variants (NEJM)",
        )
    log.info("read %d scenarios of %d files", len(first_lines), len(files))


def _progress(import_log: ImportLog, before: int, total: int) -> Callable[[int], None]:
    return lambda here: import_log.progress(before + here, total)


def scenario_id(scenario: dict[str, Any]) -> str:
    """Returns the id of a scenario: 12 hex digits of sha256 over the canonical JSON of what a step may see of it.

    Raises:
        TooDeep: keys are nested deeper than any text needs.
    """
    seen = {part: scenario.get(part) for part in PARTS}
    try:
        text = json.dumps(seen, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise TooDeep(TOO_DEEP) from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _scenario(line: Line) -> dict[str, Any]:
    """Returns the scenario of a line."""
    if line.text is None:
        raise _Unusable(line.trouble)
    try:
        data = orjson.loads(line.text)
    except orjson.JSONDecodeError as error:
        raise _Unusable("not valid JSON") from error
    scenario = data.get(_ROOT) if isinstance(data, dict) else None
    if not isinstance(scenario, dict):
        raise _Unusable(f"{_ROOT} is missing")
    if not isinstance(scenario.get(_ACTOR), dict) or not scenario[_ACTOR]:
        raise _Unusable(f"{_ROOT}.{_ACTOR} is missing")
    return scenario


def _labelled(source_id: str, scenario: dict[str, Any], import_log: ImportLog) -> LabelledCase:
    """Returns the case of a scenario, and its diagnosis apart."""
    findings = findings_of(source_id, scenario, import_log)
    if extra := set(scenario) - {*PARTS, _ANSWER, _TASK}:
        import_log.unused["part of a scenario that is not read"] += len(extra)
    age, sex = person_of(scenario[_ACTOR].get("Demographics"))
    answer = scenario.get(_ANSWER)
    answer = clean(answer) if isinstance(answer, str) else ""
    case = Case(
        case_id=make_id(SOURCE, source_id),
        source=SOURCE,
        source_id=source_id,
        patient=Patient(make_id(SOURCE, source_id), SOURCE, source_id, sex),  # one scenario, one made-up person
        age=age,
        encounters=(Encounter(source_id, "consultation", 0, 0),),
        anchors={"admission": 0, "end_of_stay": 0},
        findings=findings,
        attributes={"answer_in_record": "yes" if says(findings, answer) else "no"} if answer else {},
    )
    return LabelledCase(case, _truth(case, answer))


def _truth(case: Case, answer: str) -> dict[str, GroundTruth]:
    label = Label(
        coding=Coding(DIAGNOSIS_SYSTEM, answer, answer),
        strength=Strength.TEXT_EXTRACTED,
        source_row=f"{_ROOT}.{_ANSWER} of {case.source_id}",
    )
    given: dict[str, tuple[Label, ...] | str] = dict.fromkeys(
        ("triage", "admission_diagnosis", "differential", "workup", "result_update", "treatment", "disposition"),
        _NO_TRUTH,
    )
    given["discharge_diagnosis"] = (label,) if answer else f"{_ANSWER} is missing or no text"
    return every_step(case, given)
