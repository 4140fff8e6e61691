"""What a page of a case-step shows at each stage: nothing of the model before the own answer is committed, nothing of
the record before the own answer to what the model said is.

Each stage is built from what it may show alone, so that a template cannot let slip what it was never given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from markupsafe import Markup

from clinical_data.case import Case
from clinical_data.catalogue import Catalogue, load_catalogue
from clinical_data.errors import UsageError
from clinical_data.store.case_reader import CaseReader
from clinical_data.vocabulary import Vocabulary
from evaluation.reading.answers import Asked
from evaluation.reading.app.chart_view import chart_view, later_view
from evaluation.reading.app.rendering import environment
from evaluation.reading.desk import Desk
from evaluation.reading.form import Own, Review
from evaluation.reading.work_list import CaseStep
from evaluation.record import RunRecord
from evaluation.review import answer_data, page_data, reasoning
from evaluation.review import words as plain_words
from evaluation.review.afterwards import deeds_after
from evaluation.step_rules import StepRule
from evaluation.store.run_store import StoredRecord

MOST_INPUTS = 8


class Page(StrEnum):
    """A stage of a reading."""

    FIRST = "first"
    AFTER = "after"
    WAIT = "wait"
    RECORD = "record"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A finding that was shown to the model."""

    finding_id: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """What the model answered and how it got there; as in `evaluation.review.page_data`."""

    answer: str
    share: str
    leading: str
    size: int
    status: str
    status_words: str
    bars: tuple[answer_data.Bar, ...]
    rest: str
    requests: tuple[page_data.RequestView, ...]
    cost: str
    turns: tuple[reasoning.TurnView, ...]
    checks: tuple[reasoning.Check, ...]


class Shown:
    """The parts of the pages of one case-step."""

    def __init__(self, desk: Desk, step: CaseStep) -> None:
        self.desk, self.step = desk, step
        self.stored: StoredRecord = desk.shelf.store.record(desk.run.run_id, *step.key)
        self.record: RunRecord = self.stored.record
        self.rule: StepRule = desk.shelf.rules.get(self.record.step) or StepRule("")
        self.catalogue: Catalogue = load_catalogue(self.rule.catalogue)
        self.case: Case = CaseReader(desk.engine).get(self.record.case_id)
        if self.case.content_hash != self.record.hashes.get("case"):
            raise UsageError(f"case {self.record.case_id}: it was imported anew since the run, with another content")

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The permitted answers; None where any words are one."""
        if self.rule.form == "free":
            return None
        return self.desk.shelf.vocabulary_of(self.record)

    @property
    def asked(self) -> Asked:
        """What the form of this case-step asks for."""
        path = page_data.path_of(self.record)
        return Asked(
            self.vocabulary,
            min(self.rule.most, MOST_INPUTS) if self.rule.form == "set" else 1,
            self.catalogue,
            turns=len(path.turns) if path else 0,
            findings=frozenset(e.finding_id for e in self.evidence()),
        )

    def evidence(self) -> list[Evidence]:
        """Returns the findings that the model was shown on its way, in order."""
        path = page_data.path_of(self.record)
        found: dict[str, Evidence] = {}
        for turn in (*self.record.opening, *(path.turns if path else ())):
            for f in turn.findings:
                value = " ".join(filter(None, (plain_words.short(f.value, 80), plain_words.unit_text(f.unit))))
                found.setdefault(f.finding_id, Evidence(f.finding_id, plain_words.short(f.name, 80), value))
        return list(found.values())

    def parts(self, page: Page, others: Sequence[Review] = ()) -> dict[str, Markup]:
        """Returns the parts that a page may show: name -> HTML.

        Args:
            page: the stage.
            others: readings that differ, for who settles them.
        """
        found = {"chart": self._chart()}
        if page is not Page.FIRST:
            found["model"] = self._model()
        if page in (Page.RECORD, Page.DONE):
            found["recorded"] = self._recorded()
            if others:
                found["others"] = self._others(others)
        return found

    def answer_words(self, own: Own) -> str:
        """Returns an own answer in words."""
        return "; ".join(filter(None, (self.code_words(own.codes), own.words)))

    def code_words(self, codes: Sequence[str]) -> str:
        """Returns answers in words."""
        vocabulary = self.vocabulary
        entries = {c: vocabulary.entry(c) if vocabulary else None for c in codes}
        return "; ".join(plain_words.short(e.display if e else code, 160) for code, e in entries.items())

    def _chart(self) -> Markup:
        view = chart_view(self.case, self.step.clock, self.rule, self.catalogue)
        return _part("chart.html", chart=view)

    def _model(self) -> Markup:
        record, trail, path = self.record, page_data.Trail(), page_data.path_of(self.record)
        turns = path.turns if path else ()
        opening = page_data.requests_on(record, record.opening, trail, "given")
        requests = page_data.requests_on(record, turns, trail)
        status, status_words = page_data.status_text(record)
        bars, rest = answer_data.bars(record)
        view = ModelView(
            answer=page_data.answer_text(record),
            share=page_data.share_text(record),
            leading=page_data.leading_text(record),
            size=len(record.chosen),
            status=status,
            status_words=status_words,
            bars=bars,
            rest=rest,
            requests=(*opening, *requests),
            cost=plain_words.money(sum(r.cost for r in record.requests if r.on_path)),
            turns=tuple(reasoning.turn_views(record, turns, trail, linked=True)),
            checks=reasoning.checks(record, path),
        )
        return _part("model.html", model=view)

    def _recorded(self) -> Markup:
        later = later_view(deeds_after(self.case, self.step.clock, self.catalogue))
        return _part(
            "recorded.html", truth=page_data.truth_of(self.stored), later=later, is_set=self.rule.form == "set"
        )

    def _others(self, others: Sequence[Review]) -> Markup:
        rows = [
            {
                "who": f"Reader {number}",
                "first": self.answer_words(r.first),
                "after": self.answer_words(r.after),
                "verdict": r.verdict.value,
                "reason": r.reason.value.replace("-", " ") if r.reason else "",
                "final": self.code_words(r.corrected),
                "remark": plain_words.clean(r.remark),
            }
            for number, r in enumerate(others, 1)
        ]
        return _part("others.html", rows=rows)


def page_hash(parts: dict[str, Markup]) -> str:
    """Returns the sha256 of what a page showed."""
    return hashlib.sha256("\x1f".join(parts.values()).encode("utf-8", "replace")).hexdigest()


def _part(template: str, **content: object) -> Markup:
    return Markup(environment().get_template(template).render(**content))
