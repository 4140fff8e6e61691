"""Importer of DDXPlus: one case per synthetic patient, from the folder of a release.

A release holds `release_evidences.json`, `release_conditions.json` and the patients of three splits,
`release_{train,validate,test}_patients` as .csv, .csv.gz or the published .zip. Both the English and the French
release are read. A patient is one consultation: everything told is known at minute 0.

Nobody recorded these answers: a knowledge base made the patients, and a rule-based system their differential. Both
labels are therefore proxies. PATHOLOGY and DIFFERENTIAL_DIAGNOSIS never become part of a case.

Source: DDXPlus, Fansi Tchango et al., NeurIPS 2022 Datasets and Benchmarks, arXiv:2205.09148, CC-BY 4.0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from clinical_data.case import Case, Encounter, Finding, Patient, make_finding_id, make_id, sort_findings
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources import ImportJob, ImportLog, Quarantined
from clinical_data.sources.ddxplus_release import (
    SOURCE,
    BadRow,
    PatientRow,
    Release,
    Told,
    find_patients,
    patient_rows,
    read_release,
)
from clinical_data.sources.step_truth import every_step

log = logging.getLogger(__name__)

_NO_TRUTH = "a made-up consultation; it has a differential and a final diagnosis alone"
_SEX = {"F": "female", "M": "male"}
_OLDEST = 90  # ages above 89 read 90


class DdxplusSource:
    """The folder of a DDXPlus release."""

    name = SOURCE
    stages = False

    def read(self, path: Path, log: ImportLog, job: ImportJob = ImportJob()) -> Iterator[LabelledCase]:  # noqa: B008
        """Yields the patients of train, validate and test, each in the order of its file, with their truth apart.

        Raises:
            BadInputError: the folder, its evidences, its conditions or all of its patients are missing or unreadable.
        """
        release = read_release(path)
        return _cases(path, release, find_patients(path, log), log, job)


def _cases(
    folder: Path, release: Release, files: dict[str, Path], import_log: ImportLog, job: ImportJob
) -> Iterator[LabelledCase]:
    total, done, found = sum(f.stat().st_size for f in files.values()), 0, 0
    for split, file in files.items():
        for row in patient_rows(file, _progress(import_log, done, total)):
            import_log.read[f"patients ({split})"] += 1
            source_id = f"{split}-{row.number}"
            try:
                if row.trouble:
                    raise BadRow(row.trouble)
                if job.stored(make_id(SOURCE, source_id)):
                    found += 1
                    continue
                labelled = _labelled(split, source_id, row, release, import_log)
            except BadRow as error:
                import_log.quarantined(Quarantined(file.name, row.line, str(error), f"patient {source_id}"))
                continue
            found += 1
            yield labelled
        done += file.stat().st_size
        import_log.progress(done, total)
    if not found:
        raise BadInputError("no patient in it can be used", file=folder)
    log.info("read %d patients of %d files", found, len(files))


def _progress(import_log: ImportLog, before: int, total: int) -> Callable[[int], None]:
    return lambda here: import_log.progress(before + here, total)


def _labelled(split: str, source_id: str, row: PatientRow, release: Release, import_log: ImportLog) -> LabelledCase:
    """Returns the case of a row, and its truth apart.

    Raises:
        BadRow: a field is not what the release says it is.
    """
    case = Case(
        case_id=make_id(SOURCE, source_id),
        source=SOURCE,
        source_id=source_id,
        patient=Patient(make_id(SOURCE, source_id), SOURCE, source_id, _SEX.get(row["SEX"].strip(), "unknown")),
        age=_age(row["AGE"]),
        encounters=(Encounter(source_id, "consultation", 0, 0),),
        anchors={"admission": 0, "end_of_stay": 0},
        findings=_findings(source_id, row, release, import_log),
        attributes={"release_split": split},
    )
    return LabelledCase(case, _truth(case, row, release))


def _age(text: str) -> int | None:
    text = text.strip()
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 3):
        raise BadRow("AGE is no age in whole years")
    return min(int(text), _OLDEST) if text else None


def _findings(source_id: str, row: PatientRow, release: Release, import_log: ImportLog) -> tuple[Finding, ...]:
    """Returns what the patient tells: the chief complaint, then every evidence. What was not asked is not there."""
    found = []
    initial = row["INITIAL_EVIDENCE"].strip()
    if initial:
        told = release.told(initial, "INITIAL_EVIDENCE")
        found.append(_finding(source_id, "INITIAL_EVIDENCE", initial, told.as_complaint()))
    for token in dict.fromkeys(row.evidences()):
        told = release.told(token, "EVIDENCES")
        if told.default:
            import_log.unused["evidence at its default value, which means not given"] += 1
        else:
            found.append(_finding(source_id, "EVIDENCES", token, told))
    return sort_findings(found)


def _finding(source_id: str, column: str, token: str, told: Told) -> Finding:
    return Finding(
        finding_id=make_finding_id(SOURCE, source_id, column, token),
        kind=told.kind,
        code=told.coding,
        value=told.value,
        charted=0,
        available=0,
        unit=told.unit,
        note=f"{column} {token}",
    )


def _truth(case: Case, row: PatientRow, release: Release) -> dict[str, GroundTruth]:
    def label(column: str, condition: str, rank: int) -> Label:
        coding = release.condition(condition, column)
        return Label(coding, Strength.PROXY, rank, source_row=f"{column} of {case.source_id}")

    given: dict[str, tuple[Label, ...] | str] = dict.fromkeys(
        ("triage", "admission_diagnosis", "workup", "result_update", "treatment", "disposition"), _NO_TRUTH
    )
    # The release gives probabilities; the rank keeps their order.
    names = list(dict.fromkeys(row.differential()))
    column = "DIFFERENTIAL_DIAGNOSIS"
    labels = tuple(label(column, name, rank) for rank, name in enumerate(names, start=1))
    given["differential"] = labels or f"{column} is empty"
    pathology = row["PATHOLOGY"].strip()
    given["discharge_diagnosis"] = (label("PATHOLOGY", pathology, 1),) if pathology else "PATHOLOGY is empty"
    return every_step(case, given)
