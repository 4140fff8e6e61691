"""The work list and the page of a case-step: what is shown at which stage, and what is taken when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from evaluation.reading import form as form_words
from evaluation.reading.answers import Fields, known_fields, own_answer, rest_of_form
from evaluation.reading.app.login import LoggedIn, Sent, csrf_of, desk_of
from evaluation.reading.app.rendering import page
from evaluation.reading.app.shown import Page, Shown, page_hash
from evaluation.reading.desk import Desk
from evaluation.reading.read_steps import record_hash
from evaluation.reading.readers import Reader
from evaluation.reading.state import Part, Reading
from evaluation.reading.store import own_of
from evaluation.reading.work_list import State, Task
from evaluation.review import page_data, reasoning, words

router = APIRouter()

_PAGES = {State.WAITING: Page.WAIT, State.RECORD: Page.RECORD, State.DONE: Page.DONE}
_OVER = (State.DONE, State.CLOSED)
_PARTS = {Page.FIRST: Part.FIRST, Page.AFTER: Part.AFTER, Page.RECORD: Part.FINISHED}
STATES = {
    State.OPEN: "to read",
    State.WAITING: "waits for the later steps",
    State.RECORD: "to finish",
    State.DONE: "finished",
    State.CLOSED: "closed: you know its record",
}


@router.get("/")
def work_list(request: Request, reader: LoggedIn) -> Response:
    """Shows what a reader has to do.

    A later step of a case is not listed before it opens: a loop taken again, or a step passed by, tells that the model
    abstained or that its answer was not confirmed.
    """
    desk = desk_of(request)
    cases = [[t for t in case if t.state is not State.LOCKED] for case in desk.tasks(reader)]
    desk.store.view_list(reader.name)
    todo = [case for case in cases if any(t.state not in _OVER for t in case)]
    return page(
        "work_list.html",
        reader=reader,
        csrf=csrf_of(request),
        run=desk.run.name,
        cases=todo,
        done_cases=[case for case in cases if case not in todo],
        following=next_task(cases),
        finished=len(cases) - len(todo),
        in_all=len(cases),
        states=STATES,
        step_text=words.step_text,
    )


@router.get("/read/{address}")
def case_step(request: Request, address: str, reader: LoggedIn) -> Response:
    """Shows a case-step as far as the reader has come."""
    desk, task = _task(request, reader, address)
    return _show(request, desk, reader, task)


@router.get("/read/{address}/{part}")
def back_to_reading(address: str, part: Part, reader: LoggedIn) -> Response:
    """Leads from the address of a form, which a refused one leaves in the browser, back to the reading."""
    return RedirectResponse(f"/read/{address}", 303)


@router.post("/read/{address}/draft/{part}")
def keep_draft(
    request: Request,
    address: str,
    part: Part,
    reader: LoggedIn,
    form: Sent,
) -> Response:
    """Keeps what is typed."""
    desk, task = _task(request, reader, address)
    _open_page(desk, reader, task, part)
    desk.store.draft(reader.name, task.step.key, part, known_fields(part, _texts(form)))
    return PlainTextResponse(f"Saved at {datetime.now():%H:%M:%S}.")


@router.post("/read/{address}/{part}")
def commit(
    request: Request,
    address: str,
    part: Part,
    reader: LoggedIn,
    form: Sent,
) -> Response:
    """Commits a part of the form, for good."""
    desk, task = _task(request, reader, address)
    _open_page(desk, reader, task, part)
    key, fields = task.step.key, known_fields(part, _texts(form))
    shown = Shown(desk, task.step)
    payload, wrong = (rest_of_form if part is Part.FINISHED else own_answer)(fields, shown.asked)
    if wrong:
        desk.store.draft(reader.name, key, part, fields)
        return _show(request, desk, reader, task, wrong)
    if part is Part.FINISHED:
        others = desk.readings_of(key) if reader.adjudicator else ()
        payload |= {
            "run_hash": desk.run.config_hash,
            "case_hash": shown.case.content_hash,
            "record_hash": record_hash(shown.record),
            "report_hash": page_hash(shown.parts(Page.RECORD, others)),
            "adjudicates": reader.adjudicator,
        }
    desk.store.commit(reader.name, key, part, payload)
    return RedirectResponse("/" if part is Part.FINISHED else f"/read/{address}", 303)


def next_task(cases: list[list[Task]]) -> Task | None:
    """Returns what is to be done next: what is begun before what is not."""
    ready = [t for case in cases for t in case if t.state in (State.OPEN, State.RECORD)]
    return next((t for t in ready if t.begun), ready[0] if ready else None)


def _task(request: Request, reader: Reader, address: str) -> tuple[Desk, Task]:
    """Returns a case-step on the list of this reader; of any other it is not told whether there is one."""
    desk = desk_of(request)
    task = desk.task(reader, address)
    if task is None or task.state is State.LOCKED:
        raise HTTPException(404, "There is no such page on your list.")
    return desk, task


def _page_of(state: Reading, task: Task) -> Page:
    if task.state is State.OPEN:
        return Page.AFTER if Part.FIRST in state.committed else Page.FIRST
    if task.state not in _PAGES:
        raise HTTPException(409, f"This case-step is not open: {STATES[task.state]}.")
    return _PAGES[task.state]


def _open_page(desk: Desk, reader: Reader, task: Task, part: Part) -> None:
    """Makes sure that a part of the form is open.

    Raises:
        HTTPException: 409: it is not.
    """
    current = _page_of(desk.store.reading(reader.name, task.step.key), task)
    if _PARTS.get(current) is not part:
        raise HTTPException(409, "This part of the form is not open. What is committed stays as it is.")


def _show(request: Request, desk: Desk, reader: Reader, task: Task, wrong: Mapping[str, str] | None = None) -> Response:
    state = desk.store.reading(reader.name, task.step.key)
    current, shown = _page_of(state, task), Shown(desk, task.step)
    others = desk.readings_of(task.step.key) if reader.adjudicator and current in (Page.RECORD, Page.DONE) else ()
    parts = shown.parts(current, others)
    desk.store.view(reader.name, task.step.key, current, page_hash(parts))
    part = _PARTS.get(current)
    return page(
        "case_step.html",
        422 if wrong else 200,
        reader=reader,
        csrf=csrf_of(request),
        step=task.step,
        title=words.step_text(task.step.key[1], task.step.key[2]),
        step_text=words.step_text,
        vignette=page_data.vignette(shown.record),
        page=current.value,
        later_steps=task.later_steps,
        parts=parts,
        fields=_prefilled(state, part, shown),
        wrong=wrong or {},
        asked=shown.asked,
        options=_options(shown),
        words=form_words,
        labelled=bool(shown.stored.truth),
        turns=_turn_words(shown) if current is Page.RECORD else (),
        evidence=shown.evidence() if current is Page.RECORD else (),
        own=_own_words(state, shown),
        following=next_task(desk.tasks(reader)) if current in (Page.WAIT, Page.DONE) else None,
    )


def _prefilled(state: Reading, part: Part | None, shown: Shown) -> Fields:
    """Returns what stands in the form: the draft; in the second answer, without one, the first."""
    if part is None:
        return {}
    if part in state.drafts or part is not Part.AFTER:
        return state.drafts.get(part, {})
    first = state.committed[Part.FIRST]
    answers = [shown.code_words([code]) for code in first["codes"]]
    return {"answer": answers, "words": [first["words"]], "confidence": [str(first["confidence"])]}


def _options(shown: Shown) -> list[str]:
    vocabulary = shown.vocabulary
    return [e.display for e in vocabulary.entries] if vocabulary else []


def _turn_words(shown: Shown) -> list[str]:
    path = page_data.path_of(shown.record)
    views = reasoning.turn_views(shown.record, path.turns if path else (), page_data.Trail(), linked=False)
    return [f"{v.label}: {''.join(p.text for p in v.pieces)}" for v in views]


def _own_words(state: Reading, shown: Shown) -> list[dict[str, Any]]:
    """Returns the own answers that are committed: in words, with their confidence."""
    named = ((Part.FIRST, "Your answer before the model’s"), (Part.AFTER, "Your answer after it"))
    found = []
    for part, title in named:
        if part in state.committed:
            own = own_of(state.committed[part], 0.0)
            found.append({"title": title, "answer": shown.answer_words(own), "confidence": own.confidence})
    if Part.FINISHED in state.committed:
        rest = state.committed[Part.FINISHED]
        final = shown.code_words(rest["corrected"]) or rest["verdict"]
        found.append({"title": f"The model’s answer: {rest['verdict']}", "answer": final, "confidence": None})
    return found


def _texts(form: FormData) -> list[tuple[str, str]]:
    return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
