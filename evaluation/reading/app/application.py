"""Puts the application together: routes, errors as pages, and the guard around all of it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from sqlalchemy import Engine, event
from starlette.exceptions import HTTPException

from clinical_data.errors import UsageError
from evaluation.reading.app import login, reading
from evaluation.reading.app.guard import App, Guard, Place
from evaluation.reading.app.rendering import STATIC, page, static
from evaluation.reading.desk import Desk
from evaluation.reading.store import NotNowError
from evaluation.store.run_store import Run


def create_app(engine: Engine, run: Run, place: Place | None = None) -> App:
    """Returns the application that serves the readings of a run, as an ASGI application.

    Args:
        engine: the database, which holds cases, run and readings.
        run: the run.
        place: where it is served; this machine alone when left out.
    """
    _make_durable(engine)
    place = place or Place()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="wardstar review")
    app.state.desk, app.state.place, app.state.attempts = Desk(engine, run), place, login.Attempts()
    app.include_router(login.router)
    app.include_router(reading.router)
    app.add_api_route("/static/{name}", _static, methods=["GET"])
    app.add_exception_handler(login.NeedsLoginError, _to_login)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _no_such_page)
    app.add_exception_handler(NotNowError, _not_now)
    app.add_exception_handler(UsageError, _not_now)
    return Guard(app, place)


def _make_durable(engine: Engine) -> None:
    """Makes SQLite write every commit through to the disk: an answer that was taken outlives a loss of power."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _write_through)
        engine.dispose()  # connections that are open already are not asked


def _write_through(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous=FULL")


def _static(name: str) -> Response:
    if name not in STATIC:
        raise HTTPException(404)
    return Response(static(name), media_type=STATIC[name])


def _to_login(request: Request, error: Exception) -> Response:
    if request.method == "GET" and "hx-request" not in request.headers:
        return RedirectResponse("/login", 303)
    return _error(401, "Your session is over. Log in again; what was saved is kept.")


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    usual = {"Not Found": "There is no such page.", "Method Not Allowed": "This cannot be done here."}
    text = usual.get(error.detail, error.detail)
    return _error(error.status_code, text)


def _no_such_page(request: Request, error: Exception) -> Response:
    return _error(404, "There is no such page.")  # its own words would quote what was sent


def _not_now(request: Request, error: Exception) -> Response:
    assert isinstance(error, UsageError)
    return _error(409, f"{error.message[:1].upper()}{error.message[1:]}.")


def _error(status: int, text: str) -> Response:
    return page("error.html", status, text=text, status=status, reader=None, csrf="")
