"""Imports FHIR R4 / R4B: a Bundle, a resource, ndjson, or a folder of them, plain or gzip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from clinical_data.errors import BadInputError
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import ImportLog
from clinical_data.sources.fhir_build import SOURCE, PatientCases
from clinical_data.sources.fhir_files import list_files, read_file
from clinical_data.sources.fhir_stage import Stage

logger = logging.getLogger(__name__)


class FhirSource:
    """FHIR as a source of cases.

    A case is an Encounter without `partOf` of class IMP, ACUTE, NONAC, OBSENC, SS or EMER, or of any class with
    hospitalization.admitSource; ED and ICU encounters linked to it by `partOf` are its parts. All input is staged in a
    temporary file first, because FHIR gives no order of resources.
    """

    name = SOURCE

    def read(self, path: Path, log: ImportLog) -> Iterator[LabelledCase]:
        """Yields the cases of a file or folder, patient by patient, each patient's in order of start.

        Raises:
            BadInputError: the path is missing, or nothing at it is FHIR.
            StorageError: the temporary file cannot be written.
        """
        return self._read(path, list_files(path), log)

    def _read(self, path: Path, files: list[Path], log: ImportLog) -> Iterator[LabelledCase]:
        with Stage(log) as stage:
            _stage_files(stage, path, files, log)
            if not log.read:
                raise BadInputError("holds no FHIR resource", file=path, hint="expected FHIR R4 JSON or ndjson")
            stage.finish()
            lost = 0
            for patient in stage.patients():
                built = PatientCases(stage, patient)
                lost += built.lost_parts
                yield from built.cases()
        if lost:
            log.unused["Encounter: part of an encounter that is not there"] += lost
        logger.info("staged %d resources of %d files", sum(log.read.values()), len(files))


def _stage_files(stage: Stage, path: Path, files: list[Path], log: ImportLog) -> None:
    folder = path if path.is_dir() else path.parent
    total = sum(f.stat().st_size for f in files)
    done = 0
    for file in files:
        name = file.relative_to(folder).as_posix()
        for raw in read_file(file, _progress(log, done, total)):
            stage.add(name, raw)
        done += file.stat().st_size
        log.progress(done, total)


def _progress(log: ImportLog, before: int, total: int) -> Callable[[int], None]:
    return lambda here: log.progress(before + here, total)
