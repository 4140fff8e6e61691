"""Imports recorded cases into a database: reads a source, stores what is sound, keeps account of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from pathlib import Path

from clinical_data.errors import BadInputError, UsageError
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import ImportLog, Quarantined, Source
from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database

SOURCES = {"fhir": ("clinical_data.sources.fhir", "FhirSource"), "eicu": ("clinical_data.sources.eicu", "EicuSource")}
LATER = ("mimic-iv", "mimic-iii", "meds", "osce", "ddxplus")
MOST_SHOWN = 5  # quarantined rows that a summary names


@dataclass(slots=True)
class ImportSummary:
    """What an import found.

    Attributes:
        cases, patients: sound ones in the source.
        stored: cases added, changed and unchanged.
        labels: step -> cases with a recorded label.
        absent: step -> reason why there is none -> cases.
        read, unused: rows or resources by kind, and by reason.
        quarantined: rows that could not be used, and the first of them.
    """

    cases: int = 0
    patients: int = 0
    stored: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    absent: dict[str, Counter[str]] = field(default_factory=dict)
    read: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    first_quarantined: list[Quarantined] = field(default_factory=list)


def find_source(name: str) -> Source:
    """Returns an importer by name.

    Raises:
        UsageError: unknown, or not available yet.
    """
    if name in LATER:
        raise UsageError(f"import {name} is not available yet", hint=f"available: {', '.join(SOURCES)}")
    if name not in SOURCES:
        raise UsageError(f"no importer named {name}", hint=f"available: {', '.join(SOURCES)}")
    module, attribute = SOURCES[name]
    source: Source = getattr(import_module(module), attribute)()
    return source


def import_cases(
    url: str, source_name: str, path: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> ImportSummary:
    """Imports a file or folder. Importing the same again changes nothing.

    Args:
        url: database; made when it is missing, but not before the source has shown to be readable.
        source_name: `fhir` or `eicu`.
        path: what to import.
        progress: told (done, total) bytes now and then.

    Raises:
        UsageError: no such source.
        BadInputError: the path is missing, of another kind, or holds no case.
        StorageError: the database failed; batches stored before stay.
    """
    source = find_source(source_name)
    summary = ImportSummary()
    waiting: list[Quarantined] = []
    log = ImportLog(quarantined=waiting.append, progress=progress)
    stream = source.read(path, log)
    first = next(stream, None)  # a wrong folder fails here, before a database is made
    engine = open_database(url, create=True)
    try:
        store = CaseStore(engine)
        import_id = store.begin_import(source_name, path.name)

        def quarantine(row: Quarantined) -> None:
            summary.quarantined += 1
            if len(summary.first_quarantined) < MOST_SHOWN:
                summary.first_quarantined.append(row)
            store.quarantine(import_id, row)

        for row in waiting:
            quarantine(row)
        log.quarantined = quarantine
        if first is not None:
            summary.stored = store.put_many(_counted(chain([first], stream), summary))
        summary.read, summary.unused = log.read, log.unused
        counts = {"cases": summary.cases, "quarantined": summary.quarantined, **summary.stored}
        store.finish_import(import_id, counts)
    finally:
        engine.dispose()
    if not summary.cases:
        hint = "an Encounter of class inpatient, observation or emergency makes a case" if source_name == "fhir" else ""
        raise BadInputError(f"no hospital case in it ({summary.quarantined} rows quarantined)", file=path, hint=hint)
    return summary


def _counted(stream: Iterator[LabelledCase], summary: ImportSummary) -> Iterator[LabelledCase]:
    patients: set[str] = set()
    for one in stream:
        summary.cases += 1
        patients.add(one.case.patient.patient_id)
        summary.patients = len(patients)
        for step, truth in one.truth.items():
            summary.labels[step] += bool(truth.labels)
            if truth.absent_reason:
                summary.absent.setdefault(step, Counter())[truth.absent_reason] += 1
        yield one
