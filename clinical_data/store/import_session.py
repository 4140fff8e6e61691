"""One import while it runs: cases, their counts and their quarantined rows are stored together, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from sqlalchemy import Engine

from clinical_data.errors import BadInputError
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import Quarantined
from clinical_data.store.case_rows import rows_of
from clinical_data.store.case_store import CaseBatch
from clinical_data.store.case_writer import write_cases
from clinical_data.store.engine import writing
from clinical_data.store.import_ledger import ImportLedger, Share
from clinical_data.store.import_store import ImportState, ImportStore, write_progress, write_quarantine

_MOST_LOOSE = 500  # quarantined rows in memory


class ImportSession:
    """Stores what a source yields, so that a killed import can go on and ends with the counts of an undisturbed one.

    Args:
        engine: the database.
        state: the import, begun.
        ledger: what listened to the source since it was opened.
        path_name: what the import calls its file or folder.
        on_stored: told the number of cases stored so far, after each batch.
    """

    def __init__(
        self,
        engine: Engine,
        state: ImportState,
        ledger: ImportLedger,
        path_name: str,
        on_stored: Callable[[int], None] = lambda cases: None,
    ) -> None:
        self._engine = engine
        self._import_id = state.import_id
        self._imports = ImportStore(engine)
        self._ledger = ledger
        self._path_name = path_name
        self._on_stored = on_stored
        self._batch = CaseBatch()
        self._shares: dict[str, Share] = {}
        self._replayed = Share()  # reported again of cases that count already
        self._before = Share(Counter(state.read), Counter(state.unused))
        self._saved = Share(Counter(state.read), Counter(state.unused))
        self.stored = Counter(state.stored)

    @property
    def read(self) -> Counter[str]:
        """Rows or resources read, as an undisturbed import counts them."""
        return self._before.read + self._ledger.log.read - self._replayed.read

    @property
    def unused(self) -> Counter[str]:
        """Rows or resources of no use by reason, as an undisturbed import counts them."""
        return self._before.unused + self._ledger.log.unused - self._replayed.unused

    def put_all(self, stream: Iterable[LabelledCase]) -> None:
        """Stores all cases of a source. A case that no database can hold is quarantined.

        Raises:
            StorageError: the database failed; batches stored before stay.
        """
        for labelled in stream:
            self._put(labelled)
        self._ledger.release()
        self._flush()

    def _put(self, labelled: LabelledCase) -> None:
        case_id = labelled.case.case_id
        share = self._ledger.take()
        if case_id in self._ledger.confirmed:
            self._replayed.read += share.read
            self._replayed.unused += share.unused
            return
        try:
            rows = rows_of(labelled)
        except BadInputError as error:
            why = error.message.removeprefix(f"case {case_id}: ")
            self._ledger.loose += [*share.quarantined, Quarantined(self._path_name, None, why, case_id)]
            return
        if case_id in self._batch.rows:
            self._flush()
        self._batch.add(rows)
        self._shares[case_id] = share
        if self._batch.is_full():
            self._flush()
        if len(self._ledger.loose) >= _MOST_LOOSE:
            self._write_loose()

    def _flush(self) -> None:
        self._write_loose()
        if not self._batch.rows:
            return
        stored, read, unused = Counter(self.stored), Counter(self._saved.read), Counter(self._saved.unused)
        for share in self._shares.values():
            read += share.read
            unused += share.unused
        held = [(row, case_id) for case_id, share in self._shares.items() for row in share.quarantined]
        with writing(self._engine) as connection:
            stored += Counter(write_cases(connection, list(self._batch.rows.values()), self._import_id))
            write_quarantine(connection, self._import_id, list(held))
            write_progress(connection, self._import_id, stored, read, unused)
        self.stored, self._saved = stored, Share(read, unused)
        self._batch, self._shares = CaseBatch(), {}
        self._on_stored(sum(stored.values()))

    def _write_loose(self) -> None:
        if self._ledger.loose:
            self._imports.quarantine(self._import_id, self._ledger.loose)
            self._ledger.loose = []
