"""The first page of a report as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from evaluation.review import index_data
from evaluation.review.cohort import Cohort
from evaluation.review.rendering import asset, assets, environment
from evaluation.store.run_store import Run, StoredRecord


def render_index(
    run: Run,
    records: Sequence[StoredRecord],
    score: Mapping[str, Any] | None,
    cohort: Cohort | None = None,
    *,
    blind: bool,
    mark: str = "",
    paper: bool = False,
) -> str:
    """Returns the first page.

    Arguments as of `index_data.build`, and a mark by which the report knows its pages; `paper`: no script.
    """
    page = index_data.build(run, records, score, cohort, blind=blind)
    shared = assets("" if paper else asset("index.js"), "plots.css", "index.css")
    return environment().get_template("index.html").render(page=page, blind=blind, mark=Markup(mark), **shared)
