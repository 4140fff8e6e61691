"""Writes cases with their truth, and reads them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import Engine

from clinical_data.ground_truth import GroundTruth, LabelledCase
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.case_rows import CaseRows, rows_of
from clinical_data.store.case_writer import write_cases
from clinical_data.store.engine import writing
from clinical_data.store.truth_store import TruthStore

# A batch is one transaction. The second bound keeps memory flat when single cases are large.
BATCH_CASES = 200
BATCH_ROWS = 50_000


class CaseBatch:
    """Cases that wait to be written in one transaction."""

    def __init__(self) -> None:
        self.rows: dict[str, CaseRows] = {}
        self._size = 0

    def add(self, rows: CaseRows) -> None:
        """Adds a case whose id is not among them."""
        self.rows[rows.case_id] = rows
        self._size += rows.size

    def is_full(self) -> bool:
        """Says whether it is time to write."""
        return len(self.rows) >= BATCH_CASES or self._size >= BATCH_ROWS


class CaseStore(CaseReader):
    """Cases and truth of one database.

    Putting is idempotent: a case whose content is stored already is left alone. A case is visible whole or not at
    all, because it is written in one transaction.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._truth = TruthStore(engine)

    def put(self, labelled: LabelledCase) -> str:
        """Stores one case with its truth; returns `added`, `changed` or `unchanged`.

        Raises:
            BadInputError: a finding id occurs twice, or the case holds what no database can (see `rows_of`).
            StorageError: the database failed; nothing of the case is stored.
        """
        rows = rows_of(labelled)
        with writing(self.engine) as connection:
            return write_cases(connection, [rows])[0]

    def put_many(self, labelled: Iterable[LabelledCase]) -> Counter[str]:
        """Stores cases in batches of one transaction each; returns how many were added, changed, unchanged.

        Raises:
            BadInputError, StorageError: as `put`; earlier batches stay, the failing one leaves nothing.
        """
        done: Counter[str] = Counter()
        batch = CaseBatch()
        for one in labelled:
            rows = rows_of(one)
            if rows.case_id in batch.rows:
                done += self._write(batch)
                batch = CaseBatch()
            batch.add(rows)
            if batch.is_full():
                done += self._write(batch)
                batch = CaseBatch()
        return done + self._write(batch)

    def truth(self, case_id: str) -> dict[str, GroundTruth]:
        """Returns the truth of a case per step name."""
        return self._truth.truth(case_id)

    def truth_of_step(self, step: str) -> dict[str, GroundTruth]:
        """Returns the truth of one step per case id."""
        return self._truth.truth_of_step(step)

    def _write(self, batch: CaseBatch) -> Counter[str]:
        if not batch.rows:
            return Counter()
        with writing(self.engine) as connection:
            return Counter(write_cases(connection, list(batch.rows.values())))
