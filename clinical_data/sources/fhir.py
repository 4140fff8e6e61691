"""Imports FHIR R4 / R4B: a Bundle, a resource, ndjson, or a folder of them, plain or gzip.

fhir_files.py     cuts files into pieces            fhir_stage.py     stages them, with the place reached
fhir_pool.py      spreads the work over processes   fhir_stay.py      which encounters are one case
fhir_validate.py  validates and reduces a piece     fhir_build.py     findings of a case, and when known
fhir_models.py, fhir_reduce.py, _orders, _results   fhir_truth.py     recorded labels of the eight steps
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from clinical_data.catalogue import load_catalogue
from clinical_data.errors import BadInputError, StorageError
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.fhir_build import SOURCE, PatientCases
from clinical_data.sources.fhir_files import Piece, list_files, read_file
from clinical_data.sources.fhir_pool import MOST_WORKERS, Place, reduce_chunks, usable_processors
from clinical_data.sources.fhir_stage import Stage
from clinical_data.sources.fhir_truth import find_ranks, read_ranks

logger = logging.getLogger(__name__)

_CHUNK_PIECES, _CHUNK_BYTES = 250, 1 << 20
_COMMIT_PIECES = 4000
_ALONE = 8000  # pieces that one process reads before others would have started


class FhirSource:
    """FHIR as a source of cases.

    A case is an Encounter without `partOf` of class IMP, ACUTE, NONAC, OBSENC, SS or EMER, or of any class with
    hospitalization.admitSource; ED and ICU encounters linked to it by `partOf` are its parts. All input is staged
    first, because FHIR gives no order of resources.
    """

    name = SOURCE
    stages = True

    def __init__(self, workers: int | None = None) -> None:
        """Makes a source.

        Args:
            workers: processes that validate; 0 or 1: this one alone; None: as many as there are processors, at most 4.
                Small input is read before others would have started. Results do not depend on it.
        """
        self._workers = min(usable_processors(), MOST_WORKERS) if workers is None else workers

    def read(self, path: Path, log: ImportLog, job: ImportJob = ImportJob()) -> Iterator[LabelledCase]:  # noqa: B008
        """Yields the cases of a file or folder, patient by patient, each patient's in order of start.

        Raises:
            BadInputError: the path is missing, or nothing at it is FHIR; the file of ranks is none.
            StorageError: the staging file cannot be written, or a worker process was lost.
        """
        return self._read(path, list_files(path), find_ranks(path, job.condition_rank), log, job)

    def _read(
        self, path: Path, files: list[Path], ranks: Path | None, log: ImportLog, job: ImportJob
    ) -> Iterator[LabelledCase]:
        catalogue = load_catalogue()
        with ExitStack() as stack:
            folder = job.workspace
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wardstar-import-")))
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                print_of_input = _fingerprint(path, [*files, ranks] if ranks else files)
            except OSError as error:
                raise StorageError(f"{error.filename}: {error.strerror}") from error
            stage = stack.enter_context(Stage(folder, print_of_input, log))
            if not stage.finished:
                self._stage_files(stage, path, files, log)
                if not log.read:
                    raise BadInputError("holds no FHIR resource", file=path, hint="expected FHIR R4 JSON or ndjson")
                stage.finish(read_ranks(ranks))
            lost = 0
            for patient in stage.patients():
                built = PatientCases(stage, patient, catalogue)
                lost += built.lost_parts
                yield from built.cases(job.stored)
        if lost:
            log.unused["Encounter: part of an encounter that is not there"] += lost
        logger.info("staged %d resources of %d files", sum(log.read.values()), len(files))

    def _stage_files(self, stage: Stage, path: Path, files: list[Path], log: ImportLog) -> None:
        since = 0
        chunks = _chunks(path, files, stage.done, log)
        for (file, pieces), reduced in reduce_chunks(chunks, self._workers, _ALONE // _CHUNK_PIECES):
            stage.add(reduced)
            since += _CHUNK_PIECES
            if since >= _COMMIT_PIECES:
                stage.commit(file, pieces)
                since = 0
            place = file, pieces
        if since:
            stage.commit(*place)


def _chunks(path: Path, files: list[Path], done: Place, log: ImportLog) -> Iterator[tuple[Place, list[Piece]]]:
    """Yields pieces in chunks, each with the place that the input has come to with it; begins after a place."""
    total = sum(f.stat().st_size for f in files)
    chunk: list[Piece] = []
    size, place = 0, done
    reached = not done[0]
    before = 0
    for file in files:
        name = file.relative_to(path if path.is_dir() else path.parent).as_posix()
        here = name == done[0]
        if reached or here:
            reached = True
            for number, piece in enumerate(read_file(file, name, _progress(log, before, total)), start=1):
                if here and number <= done[1]:
                    continue
                chunk.append(piece)
                size, place = size + len(piece.text), (name, number)
                if len(chunk) >= _CHUNK_PIECES or size >= _CHUNK_BYTES:
                    yield place, chunk
                    chunk, size = [], 0
        before += file.stat().st_size
        log.progress(before, total)
    if chunk:
        yield place, chunk


def _progress(log: ImportLog, before: int, total: int) -> Callable[[int], None]:
    return lambda here: log.progress(before + here, total)


def _fingerprint(path: Path, files: list[Path]) -> str:
    """Returns what tells one input from another: names, sizes and times of change."""
    told = hashlib.sha256(str(path.resolve()).encode())
    for file in files:
        about = file.stat()
        told.update(f"\n{file.name} {about.st_size} {about.st_mtime_ns}".encode())
    return told.hexdigest()
