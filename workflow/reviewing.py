"""What clinicians answer to a run that waits for them: what waits, and reading and checking a file of answers.

A file of answers has a row per line: `{"case_id", "step", "answer"}`, with `"occurrence"` for a step that came again.
`answer` is a code of the step's vocabulary or one of its names; of a step that asks for a set, a list of them. A file
is taken whole or not at all, and nothing of it is quoted in an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinical_data.errors import BadInputError
from clinical_data.vocabulary import Vocabulary
from evaluation.record import ReviewRecord, RunRecord
from evaluation.step_rules import step_rules
from evaluation.store.run_store import Key, Run, RunStore
from search.answers import key_of_text, set_key
from search.trajectory import Status
from workflow.config import PreparedRun
from workflow.state import CLINICIAN, StepConclusion
from workflow.step import StepPlan

SKIPPED, AWAITED, ANSWERED = "skipped", "waiting", "answered"


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    case_id: str
    step: str
    occurrence: int = Field(default=1, ge=1)
    answer: str | list[str]


def reviews_of(store: RunStore, run: Run, prepared: PreparedRun, case_id: str | None = None) -> dict[Key, ReviewRecord]:
    """Returns (case, step, occurrence) -> what became of the question to a clinician, where the pathway asks any."""
    steps = {name for name, plan in prepared.plans.items() if plan.step.review}
    return store.reviewed(run.run_id, steps, case_id) if steps else {}


def status_in(key: Key, done: Mapping[Key, str], reviews: Mapping[Key, ReviewRecord]) -> str | None:
    """Returns the status of a case-step as conditions see it: a clinician's answer stands for the search's own.

    Not where the search, taken again beside an answer, failed: a step that failed asks nobody.
    """
    review, status = reviews.get(key), done.get(key)
    answered = review is not None and review.state == ANSWERED
    return CLINICIAN if answered and status not in (None, Status.FAILED) else status


def waiting(reviews: dict[Key, ReviewRecord]) -> list[Key]:
    """Returns the case-steps that wait for a clinician, in order."""
    return [key for key, review in reviews.items() if review.state == AWAITED]


def waiting_rows(store: RunStore, run: Run) -> list[dict[str, Any]]:
    """Returns what waits for a clinician as rows `{case_id, source_id, step, occurrence, question, clock, vocabulary}`.

    The answer of the model is not among them: who reads it first is no second reader.
    """
    steps = [name for name, rule in step_rules(run.config).items() if rule.review]
    rows = []
    for key in waiting(store.reviewed(run.run_id, steps) if steps else {}):
        record = store.record(run.run_id, *key).record
        rows.append(
            {
                "case_id": record.case_id,
                "source_id": record.source_id,
                "step": record.step,
                "occurrence": record.occurrence,
                "question": record.question,
                "clock": record.clock_text,
                "vocabulary": record.vocabulary,
            }
        )
    return rows


def take_answers(store: RunStore, run: Run, prepared: PreparedRun, path: Path) -> int:
    """Stores the answers in a file; returns how many. The next walk through their cases goes on with them.

    Raises:
        BadInputError: the file cannot be read, or a row is not valid, answers what does not wait, or names no answer of
            the step; names file, line and field. Nothing is stored then.
        StorageError: the database failed.
    """
    open_keys = set(waiting(reviews_of(store, run, prepared)))
    found: dict[Key, ReviewRecord] = {}
    for line, row in _rows(path):
        key = (row.case_id, row.step, row.occurrence)
        if key in found:
            raise BadInputError("this case-step is answered twice", file=path, line=line, field="case_id")
        if key not in open_keys:
            hint = f"`wardstar runs show {run.name}` lists what waits"
            raise BadInputError(
                "no such case-step waits for an answer", file=path, line=line, field="case_id", hint=hint
            )
        record = store.record(run.run_id, *key).record
        try:
            found[key] = _answer(row.answer, prepared.plans[row.step], record)
        except ValueError as error:
            raise BadInputError(str(error), file=path, line=line, field="answer") from None
    store.answer(run.run_id, found)
    return len(found)


def conclusion_of(review: ReviewRecord) -> StepConclusion:
    """Returns a clinician's answer as later steps and conditions see it."""
    return {
        "status": CLINICIAN,
        "answer_key": set_key(review.answer),
        "display": review.display,
        "probability": 1.0,
    }


def _rows(path: Path) -> list[tuple[int, _Row]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # no other line break ends a row
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError("cannot be read as JSON lines", file=path) from error
    rows = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            rows.append((number, _Row.model_validate_json(text)))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"][:1]) or None
            raise BadInputError(str(first["msg"]), file=path, line=number, field=field) from None
    if not rows:
        raise BadInputError("holds no answer", file=path)
    return rows


def _answer(given: str | list[str], plan: StepPlan, record: RunRecord) -> ReviewRecord:
    """Returns an answer in the codes and words of the step.

    Raises:
        ValueError: it is none that the step could give.
    """
    vocabulary, form = plan.vocabularies[record.source], plan.step.answer
    texts = [given] if isinstance(given, str) else given
    most = form.most or 1
    if not 1 <= len(set(texts)) <= most:
        raise ValueError(f"must hold 1 to {most} answers" if most > 1 else "must be one answer")
    keys = list(dict.fromkeys(_key(text, vocabulary, form.form == "free") for text in texts))
    words = [entry.display if (entry := vocabulary.entry(key)) else key for key in keys]
    return ReviewRecord(state=ANSWERED, answer=tuple(keys), display="; ".join(words))


def _key(text: str, vocabulary: Vocabulary, free: bool) -> str:
    key = key_of_text(text, vocabulary)
    if key is None or (vocabulary.entry(key) is None and not free):
        raise ValueError(f"is no code or name in the vocabulary {vocabulary.name}")
    return key
