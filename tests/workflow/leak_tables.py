"""The raw records of the sources that come as tables, with the times of their rows told by their own columns.

Which columns may ever be visible is written down here a second time, apart from the importers: what a header holds
besides them is hidden.
"""

from __future__ import annotations

import copy
import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from leak_records import LOUD, NUMBER, Change, Part

Row = dict[str, str]
Tables = dict[str, list[Row]]
Tells = Callable[[Row], bool]
DAY = 24 * 60
CULTURE = 9 * DAY
_WORDS = ("value", "VALUE", "labresulttext", "labothervaluetext", "org_name", "ORG_NAME", "organism")  # of a result


@dataclass(frozen=True)
class Times:
    """When what a row says becomes known.

    Attributes:
        seen: columns of observation, collection or begin; the first that is filled counts. None: see `TableRecord`.
        known: columns of entry or result, likewise.
        lag: minutes that stand in for a missing entry.
        late: columns of the result. A row with such columns is two facts: that something was taken is known before.
        key: column that identifies a row, renewed in rows that are added.
        deeds: what may be done to a row; an entry time that tells of another row too is not moved or taken away.
    """

    seen: tuple[str, ...]
    known: tuple[str, ...] = ()
    lag: int = 0
    late: tuple[str, ...] = ()
    key: str = ""
    deeds: tuple[str, ...] = ("alter", "shift", "delete", "add")


@dataclass(frozen=True)
class TableRecord:
    """A folder of tables.

    Attributes:
        origin: the moment of minute 0; None where the tables count minutes themselves.
        tables: makes the rows; its argument is the word that stands where the importer's own record tells an answer.
        columns: table -> header.
        times: table -> when its rows become known; other tables have no row that becomes known later.
        visible: table -> columns that a step may be shown, or that link rows. Any other column is hidden.
        owners: columns that say whom a row belongs to, in any table.
        future: (table, column) of a time that a visible row tells ahead.
        hidden_rows: table -> which of its rows tell a recorded answer, and in which columns.
        typed: hidden columns that are read as numbers.
        frames: hidden (table, column) -> a text with the form that makes it an answer.
        stays: table of the stays and its key; the row of the stay itself is altered in `told_at_admission` alone.
        own_known: table -> entry time of a row where another table holds it.
        save: writes tables into a folder.
    """

    source: str
    source_id: str
    clocks: dict[str, int]
    origin: datetime | None
    tables: Callable[..., Tables]
    columns: Mapping[str, tuple[str, ...]]
    times: Mapping[str, Times]
    visible: Mapping[str, tuple[str, ...]]
    owners: frozenset[str]
    save: Callable[[Path, Tables], Path]
    future: tuple[tuple[str, str], ...] = ()
    hidden_rows: Mapping[str, tuple[Tells, tuple[str, ...]]] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()
    frames: Mapping[tuple[str, str], str] = field(default_factory=dict)
    stays: tuple[str, str] = ("", "")
    told_at_admission: tuple[str, ...] = ()
    own_known: Mapping[str, Callable[[Row, Tables], str]] = field(default_factory=dict)

    def content(self) -> Tables:
        """A fresh copy of all rows."""
        return copy.deepcopy(self.tables())

    def write(self, content: Tables, folder: Path) -> Path:
        """Writes the tables; returns the folder to import."""
        return self.save(folder, content)

    def minute(self, text: str, *, day: bool = False) -> int | None:
        """A time as minutes from the start of the case, rounded up; with `day`, the end of its day."""
        if not text:
            return None
        if self.origin is None:
            return int(text)
        at = datetime.fromisoformat(text)
        if day:
            at = at.replace(hour=0, minute=0, second=0) + timedelta(days=1)
        return math.ceil((at - self.origin).total_seconds() / 60)

    def moment(self, row: Row, columns: tuple[str, ...]) -> int | None:
        """The first filled of some time columns, as minutes; a column named after a date gives the end of its day."""
        for column in columns:
            if row.get(column):
                return self.minute(row[column], day=column.lower().endswith("date"))
        return None

    def known(self, table: str, row: Row, tables: Tables) -> tuple[int | None, int | None]:
        """When something of a row is known, and when all of it is."""
        times = self.times[table]
        seen = self.moment(row, times.seen)
        if table in self.own_known:
            entered = self.minute(self.own_known[table](row, tables))
        else:
            entered = self.moment(row, times.known)
        if entered is None and seen is not None:
            entered = seen + times.lag
        everything = max((m for m in (seen, entered) if m is not None), default=None)
        return (seen if times.late else everything), everything

    def later(self, minute: int) -> list[Part]:
        """The parts that become known after a minute, in the order of the tables."""
        tables, parts = self.tables(), []
        for table in (t for t in tables if t in self.times):
            for index, row in enumerate(tables[table]):
                first, last = self.known(table, row, tables)
                if last is None or first is None or last <= minute:
                    continue
                name = f"{table} row {index}"
                if table == self.stays[0] and row[self.stays[1]] == self.source_id:
                    admitted = self.moment(row, self.times[table].seen)
                    if admitted is not None and admitted > minute:
                        parts.append(Part(name, {"alter": self._alter(table, index, self.told_at_admission)}))
                    continue
                if first > minute:
                    parts.append(Part(name, self._whole_row(table, index)))
                else:
                    alter = self._alter(table, index, self.times[table].late)
                    shift = self._shift(table, index, self.times[table].known)
                    empty = self._empty(table, index, self.times[table].late)
                    parts.append(Part(f"{name}, its result", {"alter": alter, "shift": shift, "delete": empty}))
        for table, column in self.future:
            for index, row in enumerate(tables[table]):
                at = self.minute(row.get(column, ""))
                if at is not None and at > minute:
                    parts.append(Part(f"{table}.{column}", {"shift": self._shift(table, index, (column,))}))
        return parts

    def _whole_row(self, table: str, index: int) -> dict[str, Change]:
        times = self.times[table]
        wanted = tuple(c for c in self.columns[table] if c not in (*times.seen, *times.known, times.key))

        def delete(tables: Tables) -> None:
            del tables[table][index]

        def add(tables: Tables) -> None:
            row = dict(tables[table][index])
            if times.key:
                row[times.key] = f"9{index}{row[times.key]}"[:9] if row[times.key].isdecimal() else f"x{index}"
            tables[table].append(row)
            self._alter(table, len(tables[table]) - 1, wanted)(tables)

        shifted = self._shift(table, index, (*times.seen, *times.known))
        deeds = {"alter": self._alter(table, index, wanted), "shift": shifted, "delete": delete, "add": add}
        return {name: change for name, change in deeds.items() if name in times.deeds}

    def _alter(self, table: str, index: int, columns: tuple[str, ...]) -> Change:
        """Gives these columns another value; owners keep theirs, and what is empty stays so."""

        def change(tables: Tables) -> None:
            row = tables[table][index]
            for column in columns:
                if column not in self.owners and row.get(column):
                    row[column] = NUMBER if _is_number(row[column]) else f"{LOUD} {LOUD}"

        return change

    def _empty(self, table: str, index: int, columns: tuple[str, ...]) -> Change:
        """Takes the result out of a row: something was taken, and no result ever came."""

        def change(tables: Tables) -> None:
            tables[table][index].update(dict.fromkeys(columns, ""))

        return change

    def _shift(self, table: str, index: int, columns: tuple[str, ...]) -> Change:
        """Moves times of a row five hours further away."""

        def change(tables: Tables) -> None:
            row = tables[table][index]
            for column in columns:
                if text := row.get(column):
                    if self.origin is None:
                        row[column] = str(int(text) + 300)
                    else:
                        row[column] = (datetime.fromisoformat(text) + timedelta(hours=5)).isoformat(sep=" ")

        return change

    def hidden_places(self) -> Iterator[tuple[str, str, Tells]]:
        """Yields (table, column, which rows) of everything that is never visible."""
        for table, header in self.columns.items():
            structure = self.owners | {self.times[table].key if table in self.times else ""}
            tells, telling = self.hidden_rows.get(table, (_every, ()))
            for column in header:
                if column not in self.visible.get(table, ()) and column not in structure:
                    yield table, column, _every
                elif column in telling:
                    yield table, column, tells

    def plant(self, tables: Tables, word: Callable[[str, str], str]) -> None:
        """Puts a word of its own into every hidden place of every row."""
        for table, column, tells in self.hidden_places():
            frame = self.frames.get((table, column), "{}")
            self._fill(table, column, tells, frame.format(word(table, column)))(tables)

    def broken(self, content: Tables, word: str) -> None:
        """Adds to every table with times a row whose time is no time, with a word in every other field."""
        for table, times in self.times.items():
            row = {c: word for c in self.columns[table] if c not in self.owners}
            row |= {c: v for c, v in content[table][0].items() if c in self.owners or c == times.key}
            if times.key and times.key != table:
                row[times.key] = "90000001"
            content[table].append(row)

    def early(self, content: Tables) -> None:
        """Puts LOUD into the rows that every step sees."""
        minute = min(self.clocks.values())
        for table in self.times:
            for index, row in enumerate(content[table]):
                last = self.known(table, row, content)[1]
                if last is not None and last <= minute and self.times[table].late:
                    self._alter(table, index, self.times[table].late)(content)
                    content[table][index].update({c: LOUD for c in self.times[table].late if c in _WORDS})

    def hidden(self) -> list[Part]:
        """The parts that no step sees at any time: each hidden column, and all rows that are hidden as a whole."""
        parts = []
        for table, column, tells in self.hidden_places():
            parts.append(Part(f"{table}.{column}", {"alter": self._fill(table, column, tells, LOUD)}))
            if column not in self.typed:
                parts[-1].deeds["delete"] = self._fill(table, column, tells, "")
        whole = {table: _every for table in self.columns if table not in self.visible}
        for table, tells in {**whole, **{t: tells for t, (tells, _) in self.hidden_rows.items()}}.items():
            deeds = {"delete": self._without(table, tells), "add": self._twice(table, tells)}
            parts.append(Part(f"rows of {table}", deeds))
        return parts

    def _fill(self, table: str, column: str, tells: Tells, text: str) -> Change:
        def change(tables: Tables) -> None:
            for row in tables.get(table, ()):
                if tells(row):
                    row[column] = NUMBER if column in self.typed else text

        return change

    def _without(self, table: str, tells: Tells) -> Change:
        def change(tables: Tables) -> None:
            tables[table] = [row for row in tables.get(table, ()) if not tells(row)]

        return change

    def _twice(self, table: str, tells: Tells) -> Change:
        def change(tables: Tables) -> None:
            rows = tables.get(table, [])
            extra = [dict(row) for row in rows if tells(row)]
            for row in extra:
                row.update({c: f"{v}7" for c, v in row.items() if v.isdecimal() and c not in self.owners})
            rows += extra

        return change


def _every(row: Row) -> bool:
    return True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def csv_text(columns: tuple[str, ...], rows: list[Row]) -> str:
    """A table as text."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(folder: Path, tables: Tables, columns: Mapping[str, tuple[str, ...]]) -> Path:
    """Writes each table as NAME.csv into a folder; returns it."""
    for name, rows in tables.items():
        path = folder / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(csv_text(columns[name], rows), encoding="utf-8")
    return folder
