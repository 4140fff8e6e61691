"""The table "which information decided": `evaluation.metrics.information_value` in words, per step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.metrics.information_value import UNANSWERED, ItemValue, Searched, information_value
from evaluation.metrics.intervals import Metric
from evaluation.review import words
from evaluation.review.cohort import SEED, Judged
from evaluation.review.language import say
from evaluation.review.metric_words import NameOf, points
from evaluation.review.page_data import item_words
from evaluation.store.run_store import Key, StoredRecord

SHOWN = 8
"""Items shown at once; the others, and those with too few patients, lie in a fold."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure with its interval below it."""

    value: str = "–"
    interval: str = ""


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item: how often it was asked for and answered, what it changed, and its price.

    Attributes:
        recorded: change of the chance that a rollout ends at the recorded answer; empty where no label is shown.
        per_price: leading answers changed per 100 US dollars.
        few: too few patients for figures, which are left out.
    """

    item: str
    asked: str
    compared: str
    changed: Cell
    value: Cell
    recorded: Cell | None
    price: str
    per_price: Cell
    few: bool


@dataclass(frozen=True, slots=True)
class InformationTable:
    """One step: the rows shown at once, those in the fold, and the pool of unanswered requests if there were any."""

    step: str
    searches: int
    labels: bool
    first: tuple[ItemRow, ...]
    rest: tuple[ItemRow, ...]
    unanswered: ItemRow | None


def information_tables(
    records: Sequence[StoredRecord], judged: Mapping[Key, Judged] | None, name_of: NameOf
) -> tuple[InformationTable, ...]:
    """Returns the table of every step whose searches asked the record for anything.

    Args:
        records: case-steps of a run.
        name_of: from a step to its name.
        judged: its labelled case-steps; None in a blind report, which has no figure that derives from a label.
    """
    steps: dict[str, list[Searched]] = {}
    names: dict[str, str] = {}
    prices: dict[str, float] = {}
    for stored in records:
        record = stored.record
        if not record.tree or not record.tree.get("nodes"):
            continue
        names |= item_words(record)
        prices |= {r.item: r.cost for r in record.requests}
        found = (judged or {}).get((record.case_id, record.step, record.occurrence))
        one_answer = found is not None and found.scored.answer_set is None and found.level in found.scored.match
        judge = found.right.__getitem__ if found is not None and one_answer else None
        steps.setdefault(record.step, []).append(Searched(record.patient_id, record.tree, judge))
    tables = []
    for step, searches in steps.items():
        labels = any(s.judge is not None for s in searches)
        if items := information_value(searches, SEED):
            rows = {i.item: _row(i, names, prices, labels) for i in items}
            unanswered = rows.pop(UNANSWERED, None)
            enough = [row for row in rows.values() if not row.few]
            few = [row for row in rows.values() if row.few]
            first, rest = (*enough[:SHOWN],), (*enough[SHOWN:], *few)
            tables.append(InformationTable(name_of(step), len(searches), labels, first, rest, unanswered))
    return tuple(tables)


def _row(item: ItemValue, names: Mapping[str, str], prices: Mapping[str, float], labels: bool) -> ItemRow:
    pooled = item.item == UNANSWERED
    name = say("index.info.unanswered") if pooled else names.get(item.item) or words.title_of(item.item).lower()
    price = None if pooled else prices.get(item.item)
    shown = not item.few
    return ItemRow(
        item=name,
        asked=say("index.info.asked", asked=item.asked, answered=item.answered),
        compared=str(item.changed.n),
        changed=_share(item.changed) if shown else Cell(),
        value=_points(item.value) if shown else Cell(),
        recorded=(_points(item.recorded) if shown else Cell()) if labels else None,
        price="–" if price is None else words.money(price),
        per_price=_per_price(item.changed, price) if shown else Cell(),
        few=item.few,
    )


def _share(metric: Metric) -> Cell:
    return _cell(metric, words.percent)


def _points(metric: Metric) -> Cell:
    return _cell(metric, points)


def _per_price(metric: Metric, price: float | None) -> Cell:
    """Returns the leading answers changed per 100 US dollars spent on the item; nothing for what is free."""
    return _cell(metric, lambda share: f"{share * 100 / price:.1f}") if price else Cell()


def _cell(metric: Metric, text: Callable[[float], str]) -> Cell:
    if metric.value is None:
        return Cell()
    if metric.low is None or metric.high is None:
        return Cell(text(metric.value))
    return Cell(
        text(metric.value), say("index.interval", low=text(metric.low).split("\u00a0")[0], high=text(metric.high))
    )
