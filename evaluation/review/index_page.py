"""The first page of a report as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from evaluation.record import RunRecord
from evaluation.review import index_data, set_compare
from evaluation.review.cohort import Cohort
from evaluation.review.rendering import asset, assets, environment
from evaluation.store.run_store import Run, StoredRecord


def render_index(
    run: Run,
    records: Sequence[StoredRecord],
    score: Mapping[str, Any] | None,
    vocabularies: set_compare.Lookup,
    address: Callable[[RunRecord], str],
    *,
    cohort: Cohort | None = None,
    blind: bool,
    mark: str = "",
) -> str:
    """Returns the first page; arguments as of `index_data.build`, and a mark by which the report knows its pages."""
    page = index_data.build(run, records, score, vocabularies, address, cohort=cohort, blind=blind)
    shared = assets(asset("index.js"), "plots.css", "index.css")
    return environment().get_template("index.html").render(page=page, blind=blind, mark=Markup(mark), **shared)
