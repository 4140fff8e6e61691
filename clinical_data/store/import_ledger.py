"""Which counts and quarantined rows belong to which case, so that a resumed import counts nothing twice.

A source asks `ImportJob.stored` before it builds a case, and yields the case afterwards; what it reports in between
belongs to that case, and is stored with it, because a resumed import does not build the case again. All else (what it
reports while it reads files, or of a case that it gives up) it reports again at the next try.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from clinical_data.sources import ImportLog, Quarantined


@dataclass(slots=True)
class Share:
    """What was reported of some cases: rows read and unused by name, and rows that could not be used."""

    read: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    quarantined: list[Quarantined] = field(default_factory=list)


class ImportLedger:
    """Listens to a source while it is read.

    Attributes:
        log: what the source reports to.
        confirmed: ids of cases that an earlier try of the same import stored.
        loose: quarantined rows that belong to no stored case, until somebody takes them away.
    """

    def __init__(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        self.log = ImportLog(quarantined=self._note, progress=progress)
        self.confirmed: set[str] = set()
        self.loose: list[Quarantined] = []
        self._since: list[Quarantined] = []
        self._mark: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    def stored(self, case_id: str) -> bool:
        """Says whether a case is stored by this very import; whatever comes next belongs to the next case."""
        self.release()
        return case_id in self.confirmed

    def release(self) -> None:
        """Lets what was reported since the last case belong to no case."""
        self.loose += self._since
        self._set_mark()

    def take(self) -> Share:
        """Returns what belongs to the case that was just yielded."""
        read, unused = self._mark
        share = Share(self.log.read - read, self.log.unused - unused, self._since)
        self._set_mark()
        return share

    def _note(self, row: Quarantined) -> None:
        self._since.append(row)

    def _set_mark(self) -> None:
        self._mark = Counter(self.log.read), Counter(self.log.unused)
        self._since = []
