"""Imports recorded cases into a database: reads a source, stores what is sound, keeps account of the rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from pathlib import Path

from sqlalchemy import Engine

from clinical_data.errors import BadInputError, UsageError
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import ImportJob, Quarantined, Source
from clinical_data.store.import_ledger import ImportLedger
from clinical_data.store.import_session import ImportSession
from clinical_data.store.import_store import ImportState, ImportStore
from evaluation.store import open_database
from workflow.import_workspace import fingerprint_of, workspace, workspace_of

SOURCES = {
    "fhir": ("clinical_data.sources.fhir", "FhirSource"),
    "mimic-iv": ("clinical_data.sources.mimic_iv", "MimicIvSource"),
    "mimic-iii": ("clinical_data.sources.mimic_iii", "MimicIiiSource"),
    "eicu": ("clinical_data.sources.eicu", "EicuSource"),
    "meds": ("clinical_data.sources.meds", "MedsSource"),
    "osce": ("clinical_data.sources.osce", "OsceSource"),
    "ddxplus": ("clinical_data.sources.ddxplus", "DdxplusSource"),
}
MOST_SHOWN = 5  # quarantined rows that a summary names


@dataclass(slots=True)
class ImportSummary:
    """What an import found; that of a resumed import equals that of an undisturbed one, but for the last two fields.

    Attributes:
        cases, patients: sound ones in the source.
        stored: cases added, changed and unchanged.
        labels: step -> cases with a recorded label.
        absent: step -> reason why there is none -> cases.
        read, unused: rows or resources by kind, and by reason.
        quarantined: rows that could not be used, and the first of them.
        hospital_conflicts: patients with stays at several hospitals; in the split by hospital each follows the hospital
            of the first case, by id.
        seconds: wall time of this try.
        resumed: whether it went on with an import that was interrupted.
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
    hospital_conflicts: int = 0
    seconds: float = 0.0
    resumed: bool = False


def find_source(name: str) -> Source:
    """Returns an importer by name.

    Raises:
        UsageError: unknown.
    """
    if name not in SOURCES:
        raise UsageError(f"no importer named {name}", hint=f"available: {', '.join(SOURCES)}")
    module, attribute = SOURCES[name]
    source: Source = getattr(import_module(module), attribute)()
    return source


def import_cases(
    url: str,
    source_name: str,
    path: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    condition_rank: Path | None = None,
    on_stored: Callable[[int], None] = lambda cases: None,
) -> ImportSummary:
    """Imports a file or folder. Importing the same again changes nothing; one that was killed goes on where it was.

    Args:
        url: database; made when it is missing, but not before the source has shown to be readable.
        source_name: key of `SOURCES`.
        path: what to import.
        progress: told (done, total) bytes now and then.
        condition_rank: file with the ranks of FHIR Conditions.
        on_stored: told the number of cases stored so far, after each batch.

    Raises:
        UsageError: no such source, or the same import runs already.
        BadInputError: the path is missing, of another kind, or holds no case.
        StorageError: the database failed; batches stored before stay.
    """
    began = time.perf_counter()
    source = find_source(source_name)
    if not path.exists():
        raise BadInputError("no such file or folder", file=path)
    fingerprint = fingerprint_of(source_name, path, condition_rank)
    with workspace(workspace_of(url, fingerprint)) as (folder, found), ExitStack() as stack:
        ledger = ImportLedger(progress)
        job = ImportJob(workspace=folder, stored=ledger.stored, condition_rank=condition_rank)
        opened = _Database(stack, url, source_name, path.name, fingerprint, ledger)
        if found:  # an earlier try got so far that the source is known to be readable
            opened.open()
        stream = source.read(path, ledger.log, job)
        if hasattr(stream, "close"):
            stack.enter_context(closing(stream))  # type: ignore[type-var]
        summary = opened.store(stream, on_stored)
        if not summary.cases:
            hint = "an Encounter of class inpatient, observation or emergency makes a case" * (source_name == "fhir")
            raise BadInputError(
                f"no hospital case in it ({summary.quarantined} rows quarantined)", file=path, hint=hint
            )
    summary.seconds = time.perf_counter() - began
    summary.resumed = summary.resumed or found
    return summary


class _Database:
    """Where an import goes; opened late, so that a wrong path leaves no database behind."""

    def __init__(
        self, stack: ExitStack, url: str, source: str, path_name: str, fingerprint: str, ledger: ImportLedger
    ) -> None:
        self._stack, self._url = stack, url
        self._source, self._path_name, self._fingerprint = source, path_name, fingerprint
        self._ledger = ledger
        self._opened: tuple[Engine, ImportState] | None = None

    def open(self) -> tuple[Engine, ImportState]:
        """Opens the database and begins the import, or goes on with the unfinished one."""
        if self._opened is None:
            engine = open_database(self._url, create=True)
            self._stack.callback(engine.dispose)
            state = ImportStore(engine).begin(self._source, self._path_name, self._fingerprint)
            self._ledger.confirmed |= state.confirmed
            self._opened = engine, state
        return self._opened

    def store(self, stream: Iterator[LabelledCase], on_stored: Callable[[int], None]) -> ImportSummary:
        """Stores what a source yields, and returns what the database then holds of the import."""
        first = next(stream, None)  # a wrong folder fails here, before a database is made
        engine, state = self.open()
        session = ImportSession(engine, state, self._ledger, self._path_name, on_stored)
        session.put_all(() if first is None else chain([first], stream))
        imports = ImportStore(engine)
        tally = imports.tally(state.import_id)
        counts = {"cases": tally.cases, "quarantined": tally.quarantined, **session.stored}
        imports.finish(state.import_id, counts)
        return ImportSummary(
            cases=tally.cases,
            patients=tally.patients,
            stored=session.stored,
            labels=tally.labels,
            absent=tally.absent,
            read=session.read,
            unused=session.unused,
            quarantined=tally.quarantined,
            first_quarantined=imports.quarantined(state.import_id, MOST_SHOWN),
            hospital_conflicts=tally.hospital_conflicts,
            resumed=state.resumed,
        )
