"""Importers: one file per source, all behind one protocol.

A source reads a file or folder and yields labelled cases, one at a time. What it cannot use it hands to the
`ImportLog` with file, line and reason, and goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from clinical_data.ground_truth import LabelledCase


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row or resource that could not be used.

    Attributes:
        file: path relative to the folder imported.
        line: line, or entry of a Bundle, from 1; None when the whole file is meant.
        reason: why, without any value of the record.
        resource: type and id, or table and key, where known.
    """

    file: str
    line: int | None
    reason: str
    resource: str = ""


@dataclass(slots=True)
class ImportLog:
    """What an import found, used and could not use.

    Attributes:
        read: rows or resources read, by table or resource type.
        unused: rows or resources read but of no use, by reason.
        quarantined: called once per broken row; the first argument of every importer's trouble.
        progress: called with (done, total) in bytes now and then; total 0 while unknown.
    """

    quarantined: Callable[[Quarantined], None]
    progress: Callable[[int, int], None] = lambda done, total: None
    read: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)


def _nothing_stored(case_id: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class ImportJob:
    """How a source is to be read.

    Attributes:
        workspace: private folder that outlives a kill, in which a source stages what it reads and from which it goes
            on at the next try; None: a temporary folder.
        stored: says whether a case of this id is stored already by this very import; a source skips it unbuilt.
        condition_rank: file with the ranks of FHIR Conditions.
    """

    workspace: Path | None = None
    stored: Callable[[str], bool] = _nothing_stored
    condition_rank: Path | None = None


class Source(Protocol):
    """A kind of record that can be imported.

    Attributes:
        name: the source's name in case ids and on the command line.
        stages: whether it reads everything into the job's workspace before it yields the first case. One that does not
            simply starts again after a kill; storing a case twice changes nothing.
    """

    name: str
    stages: bool

    def read(self, path: Path, log: ImportLog, job: ImportJob = ImportJob()) -> Iterator[LabelledCase]:
        """Yields the cases of a file or folder, in an order that the content alone decides.

        What was staged in an earlier try is not read again, but reported to the log again, as if it had been.

        Raises:
            BadInputError: the path is missing or is no data of this source.
        """
