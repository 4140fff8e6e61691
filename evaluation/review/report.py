"""The report of a run: a folder of HTML pages that need neither network nor program to be read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from sqlalchemy import Engine

from clinical_data.errors import StorageError, UsageError
from evaluation.review import case_page, fhir_export, index_data, page_data, set_compare, tree_page
from evaluation.review.rendering import asset, assets, environment
from evaluation.review.tree_words import LEGEND
from evaluation.scoring import score_run
from evaluation.store.run_store import Run, RunStore, StoredRecord
from evaluation.watching import Watch, unwatched

__all__ = ["render", "write_report"]

logger = logging.getLogger(__name__)

FOLDERS = ("cases", "trees")
"""Folders of a report, beside its first page."""

_MARK = '<meta name="generator" content="wardstar report">'


def write_report(
    engine: Engine,
    run_name: str,
    out: Path,
    *,
    blind: bool = False,
    fhir: bool = False,
    watch: Watch = unwatched,
) -> Path:
    """Writes the report of a run to a folder and returns the path of its first page.

    One page per case-step and one per search tree, which link to each other by relative addresses: the folder can be
    carried and copied as a whole. Pages of an earlier report in the same folder that this one does not overwrite are
    removed, so that a blind report never lies beside pages that show labels. Other files are left alone.

    Args:
        engine: the database.
        run_name: name of the run.
        out: folder, made if missing.
        blind: leave out recorded labels, match marks and everything derived from them.
        fhir: write a FHIR R4 Bundle per case besides, which never holds any of these.
        watch: told how far it is: what, done, of how many.

    Raises:
        UsageError: no such run, or a blind report of a run that was steered by recorded labels.
        StorageError: the folder cannot be written.
        BadInputError: a record holds what FHIR cannot.
    """
    store = RunStore(engine)
    run = store.get(run_name)
    score = None if blind else score_run(engine, run_name, watch=watch)  # first: it brings labels and marks up to date
    records = list(store.records(run.run_id))
    written = set()
    try:
        for folder in FOLDERS:
            (out / folder).mkdir(parents=True, exist_ok=True)
        for path, html in _pages(run, records, score, blind):
            (out / path).write_text(html, encoding="utf-8", newline="\n")
            written.add(path)
            watch("writing pages of case-steps", sum(p.startswith("cases/") for p in written), len(records))
        _remove_stale(out, written)
        bundles = fhir_export.write(out, run, sorted(records, key=_of_case) if fhir else ())
    except OSError as error:
        raise StorageError(f"cannot write the report to {out} ({error.strerror})") from error
    logger.info("report of run %s: %d pages, %d FHIR bundles", run_name, len(written), len(bundles))
    return out / "index.html"


def _of_case(stored: StoredRecord) -> str:
    return stored.record.case_id


def render(
    run: Run,
    records: Sequence[StoredRecord],
    score: Mapping[str, Any] | None,
    *,
    blind: bool = False,
) -> dict[str, str]:
    """Returns the pages of a report: path within the report -> HTML. Equal input gives equal pages.

    Args:
        run: the run.
        records: its case-steps with labels and match marks.
        score: result of `score_run`, or None.
        blind: leave out recorded labels, match marks and everything derived from them.

    Raises:
        UsageError: a blind report of a run whose search was steered by recorded labels.
    """
    return dict(_pages(run, records, score, blind))


def _pages(
    run: Run, records: Sequence[StoredRecord], score: Mapping[str, Any] | None, blind: bool
) -> Iterator[tuple[str, str]]:
    if blind and any(s.record.settings.get("value") == "ground_truth" for s in records):
        raise UsageError(
            "a run that was valued by recorded labels cannot be reported blind", hint="report it without --blind"
        )
    templates = environment()
    steps = list(dict.fromkeys(s.record.step for s in records))
    ordered = sorted(records, key=lambda s: (s.record.case_id, steps.index(s.record.step), s.record.occurrence))
    vocabularies = set_compare.vocabularies(run.config)
    index = index_data.build(run, ordered, score, vocabularies, blind=blind)
    shared = {"run_name": index.name, "blind": blind, "mark": Markup(_MARK)}
    script = "" if blind else asset("toggle.js")
    yield "index.html", templates.get_template("index.html").render(page=index, **shared, **assets(script))
    template, plain = templates.get_template("case_step.html"), assets("")
    for position, stored in enumerate(ordered):
        page = case_page.build(stored, index.name, vocabularies, blind=blind)
        name = f"cases/{page_data.page_name(stored.record)}"
        html = template.render(
            page=page,
            previous=_link(ordered, position - 1),
            following=_link(ordered, position + 1),
            legend=LEGEND,
            **shared,
            **plain,
        )
        yield name, html
        if page.tree_page:
            tree = tree_page.render_tree(stored.record, index.name, case_page=f"../{name}", mark=_MARK)
            yield page_data.tree_address(stored.record), tree


def _link(ordered: Sequence[StoredRecord], position: int) -> str:
    return page_data.page_name(ordered[position].record) if 0 <= position < len(ordered) else ""


def _remove_stale(out: Path, pages: set[str]) -> None:
    for path in [p for folder in FOLDERS for p in (out / folder).glob("*.html")]:
        if f"{path.parent.name}/{path.name}" in pages or not path.is_file():
            continue
        with path.open(encoding="utf-8", errors="replace") as file:
            ours = _MARK in file.read(2_000)
        if ours:
            path.unlink()
