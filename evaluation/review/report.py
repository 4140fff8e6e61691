"""The report of a run: a folder of HTML pages that need neither network nor program to be read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup
from sqlalchemy import Engine

from clinical_data.case import Case
from clinical_data.errors import StorageError, UsageError, WardstarError
from clinical_data.store.case_reader import CaseReader
from evaluation.review import case_page, fhir_export, page_data, pdf, set_compare, tree_page, tree_svg
from evaluation.review.afterwards import CaseOf, Hindsight
from evaluation.review.cohort import Cohort, gather
from evaluation.review.index_page import render_index
from evaluation.review.language import ENGLISH, use
from evaluation.review.rendering import asset, assets, environment
from evaluation.scoring import score_run
from evaluation.step_rules import order_key, step_rules
from evaluation.store.run_store import Run, RunStore, StoredRecord
from evaluation.watching import Watch, unwatched

__all__ = ["render", "write_report"]

logger = logging.getLogger(__name__)

FOLDERS = ("cases", "trees")
"""Folders of a report, beside its first page. Nothing is written to the second any more; what lies there is stale."""

_MARK = '<meta name="generator" content="wardstar report">'


def write_report(
    engine: Engine,
    run_name: str,
    out: Path,
    *,
    blind: bool = False,
    compare: Sequence[str] = (),
    language: str = ENGLISH,
    with_pdf: bool = False,
    fhir: bool = False,
    watch: Watch = unwatched,
) -> Path:
    """Writes the report of a run to a folder and returns the path of its first page.

    One page per case and an index, which link to each other by relative addresses: the folder can be carried and copied
    as a whole. Pages of an earlier report in the same folder that this one does not overwrite are removed, so that a
    blind report never lies beside pages that show labels. Other files are left alone.

    Args:
        engine: the database.
        run_name: name of the run.
        out: folder, made if missing.
        blind: leave out recorded labels, match marks and everything derived from them.
        compare: further runs of the pathway to set beside this one on the first page.
        language: of the fixed words: `en` or `zh`.
        with_pdf: write a PDF beside each page.
        fhir: write a FHIR R4 Bundle per case besides, which never holds any of these.
        watch: told how far it is: what, done, of how many.

    Raises:
        UsageError: no such run or language, no library for PDF, a run that cannot be compared with, a blind report that
            is to compare, or one of a run that was steered by recorded labels.
        StorageError: the folder cannot be written.
        BadInputError: a record holds what FHIR cannot.
    """
    if with_pdf:
        pdf.require()
    if blind and compare:
        raise UsageError("a blind report compares no runs: it shows no result", hint="leave out --blind or --compare")
    store = RunStore(engine)
    run = store.get(run_name)
    score = None if blind else score_run(engine, run_name, watch=watch)  # first: it brings labels and marks up to date
    records = list(store.records(run.run_id))
    cohort = None if score is None else gather(engine, run, records, score, compare, watch)
    pages = _Pages(run, records, score, cohort, blind=blind, language=language, case_of=_reader(engine))
    written = set()
    try:
        (out / "cases").mkdir(parents=True, exist_ok=True)
        for path, html in pages.html():
            (out / path).write_text(html, encoding="utf-8", newline="\n")
            written.add(path)
            watch("writing pages of cases", len(written) - 1, pages.cases)
        if with_pdf:
            for number, (path, html) in enumerate(pages.html(paper=True)):
                pdf.write_pdf(html, out / Path(path).with_suffix(".pdf"))
                written.add(Path(path).with_suffix(".pdf").as_posix())
                watch("writing PDF of cases", number, pages.cases)
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
    cohort: Cohort | None = None,
    *,
    blind: bool = False,
    language: str = ENGLISH,
    case_of: CaseOf = lambda _: None,
    paper: bool = False,
) -> dict[str, str]:
    """Returns the pages of a report: path within the report -> HTML. Equal input gives equal pages.

    Args:
        run: the run.
        records: its case-steps with labels and match marks.
        score: result of `score_run`, or None.
        cohort: what the plots of the first page need besides, or None.
        blind: leave out recorded labels, match marks and everything derived from them.
        language: of the fixed words.
        case_of: returns a recorded case by its id, for what was not known at a clock and what was done after it.
        paper: pages for a printer, with nothing to open and recorded labels on the last sheets.

    Raises:
        UsageError: no such language, or a blind report of a run whose search was steered by recorded labels.
    """
    return dict(_Pages(run, records, score, cohort, blind=blind, language=language, case_of=case_of).html(paper=paper))


class _Pages:
    """The pages of one report, put together one after the other."""

    def __init__(
        self,
        run: Run,
        records: Sequence[StoredRecord],
        score: Mapping[str, Any] | None,
        cohort: Cohort | None,
        *,
        blind: bool,
        language: str,
        case_of: CaseOf,
    ) -> None:
        if blind and any(s.record.settings.get("value") == "ground_truth" for s in records):
            raise UsageError(
                "a run that was valued by recorded labels cannot be reported blind", hint="report it without --blind"
            )
        rules = step_rules(run.config)
        self.run, self.score, self.cohort, self.blind, self.language = run, score, cohort, blind, language
        self.ordered = in_order(records, [*rules])
        self.by_case = [list(own) for _, own in groupby(self.ordered, key=lambda s: s.record.case_id)]
        self.context = case_page.Context(
            run_name=run.name,
            pathway=run.pathway,
            vocabularies=set_compare.vocabularies(run.config),
            hindsight=Hindsight(run.config, case_of),
            titles={name: rule.title for name, rule in rules.items()},
            blind=blind,
        )

    @property
    def cases(self) -> int:
        """Number of cases."""
        return len(self.by_case)

    def html(self, *, paper: bool = False) -> Iterator[tuple[str, str]]:
        """Yields (path within the report, page); `paper`: as for a printer."""
        with use(self.language):
            yield from [self._index(paper)]
        for number in range(self.cases):
            with use(self.language):
                made = self._case(number, paper)
            yield made

    def _index(self, paper: bool) -> tuple[str, str]:
        html = render_index(self.run, self.ordered, self.score, self.cohort, blind=self.blind, mark=_MARK, paper=paper)
        return "index.html", html

    def _case(self, number: int, paper: bool) -> tuple[str, str]:
        own = self.by_case[number]
        page = case_page.build(own, self.context)
        script = asset("tree.js") if not paper and any(s.bench for s in page.steps) else ""
        html = (
            environment()
            .get_template("case.html")
            .render(
                page=page,
                previous=self._file(number - 1),
                following=self._file(number + 1),
                signs=tree_page.SIGNS,
                shades=range(tree_svg.SHADES),
                **self._shared(paper),
                **assets(script, "tree.css", "case.css"),
            )
        )
        return f"cases/{page_data.case_file(own[0].record.case_id)}", html

    def _shared(self, paper: bool) -> dict[str, Any]:
        return {"run_name": self.run.name, "blind": self.blind, "mark": Markup(_MARK), "paper": paper}

    def _file(self, number: int) -> str:
        return page_data.case_file(self.by_case[number][0].record.case_id) if 0 <= number < self.cases else ""


def in_order(records: Sequence[StoredRecord], steps: Sequence[str]) -> list[StoredRecord]:
    """Returns records sorted by `order_key`; a step without a clock stands behind those before it in the pathway.

    Args:
        records: case-steps of one run.
        steps: names in the order of the pathway; steps that are not among them follow as they come.
    """
    position = {name: n for n, name in enumerate(dict.fromkeys([*steps, *(s.record.step for s in records)]))}
    clocks: dict[str, dict[int, float]] = {}
    for record in (s.record for s in records):
        if record.clock is not None and record.occurrence == 1:
            clocks.setdefault(record.case_id, {})[position[record.step]] = record.clock

    def key(stored: StoredRecord) -> tuple[str, float, int, int]:
        record, own = stored.record, position[stored.record.step]
        before = [clock for n, clock in clocks.get(record.case_id, {}).items() if n < own]
        clock = max(before, default=float("-inf")) if record.clock is None else record.clock
        return order_key(record.case_id, clock, record.occurrence, own)

    return sorted(records, key=key)


def _reader(engine: Engine) -> CaseOf:
    reader = CaseReader(engine)

    def case_of(case_id: str) -> Case | None:
        try:
            return reader.get(case_id)
        except WardstarError:  # deleted since, or of another database
            return None

    return case_of


def _remove_stale(out: Path, written: set[str]) -> None:
    """Removes what earlier reports left in the folder and this one did not write."""
    places = [out, *(out / folder for folder in FOLDERS)]
    for path in [p for place in places for end in ("*.html", "*.pdf") for p in place.glob(end)]:
        if path.relative_to(out).as_posix() not in written and path.is_file() and _is_ours(path):
            path.unlink()


def _is_ours(path: Path) -> bool:
    if path.suffix == ".pdf":
        return pdf.is_ours(path)
    with path.open(encoding="utf-8", errors="replace") as file:
        return _MARK in file.read(2_000)
