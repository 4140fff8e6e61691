"""Logging in and out: cookies, tokens of forms, and how often somebody may try."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from evaluation.reading.app.guard import Place
from evaluation.reading.app.rendering import page
from evaluation.reading.desk import Desk
from evaluation.reading.readers import SESSION_SECONDS, Reader, csrf_token, name_of

SESSION, VISIT = "wardstar_session", "wardstar_visit"
"""Cookies: of a reader's session; of a visit before the log-in."""

PER_NAME = RateLimitItemPerMinute(8, 15)
PER_ADDRESS = RateLimitItemPerMinute(40, 15)
"""Failed log-ins: so many in 15 minutes."""

MOST_FIELDS = 1000

_RETRY = {"Retry-After": "900"}


class Attempts:
    """Counts failed log-ins per name and per address; two are compared at a time, so that no burst slips through."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self.turn = threading.BoundedSemaphore(2)

    def allowed(self, name: str, address: str) -> bool:
        """Says whether another attempt may be made."""
        known = self._limiter.test(PER_NAME, "name", name.casefold())
        return known and self._limiter.test(PER_ADDRESS, "address", address)

    def failed(self, name: str, address: str) -> None:
        """Counts a failed attempt."""
        self._limiter.hit(PER_NAME, "name", name.casefold())
        self._limiter.hit(PER_ADDRESS, "address", address)


async def form_of(request: Request) -> FormData:
    """Returns the fields of a form; files are no part of any."""
    return await request.form(max_files=0, max_fields=MOST_FIELDS, max_part_size=64 * 1024)


def desk_of(request: Request) -> Desk:
    """Returns the desk that the application serves."""
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk


class NeedsLoginError(Exception):
    """Nobody is logged in."""


def reader_of(request: Request) -> Reader:
    """Returns who is logged in.

    Raises:
        NeedsLoginError: nobody, or the session is over.
    """
    raw = request.cookies.get(SESSION, "")
    reader = desk_of(request).readers.of_session(raw) if raw else None
    if reader is None:
        raise NeedsLoginError
    return reader


def checked_form(request: Request, form: Annotated[FormData, Depends(form_of)]) -> FormData:
    """Returns the fields of a form that was sent by a page of ours.

    Raises:
        HTTPException: 403: the token is missing or another one.
    """
    cookie = request.cookies.get(SESSION) or request.cookies.get(VISIT) or ""
    given = form.get("csrf")
    if not cookie or not isinstance(given, str) or not _same(given, csrf_token(cookie)):
        raise HTTPException(403, "This form is out of date. Load its page again.")
    return form


def _same(given: str, token: str) -> bool:
    """Compares in constant time; the standard library does that with bytes alone, where a text may hold any letter."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def csrf_of(request: Request) -> str:
    """Returns the token for forms of a logged-in reader."""
    return csrf_token(request.cookies.get(SESSION, ""))


LoggedIn = Annotated[Reader, Depends(reader_of)]
Sent = Annotated[FormData, Depends(checked_form)]

router = APIRouter()


@router.get("/login")
def login_page(request: Request) -> Response:
    """Shows the log-in."""
    return _login(request)


@router.post("/login")
def log_in(request: Request, form: Sent) -> Response:
    """Begins a session, with an id of its own."""
    name, token = name_of(str(form.get("name", ""))[:200]), str(form.get("token", ""))[:200]
    attempts, desk = request.app.state.attempts, desk_of(request)
    address = request.client.host if request.client else ""
    with attempts.turn:
        if not attempts.allowed(name, address):
            return _login(request, name, "Too many attempts. Wait a quarter of an hour.", 429, _RETRY)
        reader = desk.readers.check(name, token)
        if reader is None:
            attempts.failed(name, address)
    if reader is None:
        desk.readers.refused(name)
        return _login(request, name, "Name and token do not fit.", 401)
    before = request.cookies.get(SESSION, "")
    if (earlier := desk.readers.of_session(before) if before else None) is not None:
        desk.readers.end_session(before, earlier)
    response = RedirectResponse("/", 303)
    _set(response, request, SESSION, desk.readers.start_session(reader), SESSION_SECONDS)
    response.delete_cookie(VISIT)
    return response


@router.post("/logout")
def log_out(request: Request, reader: LoggedIn, _: Sent) -> Response:
    """Ends the session."""
    desk_of(request).readers.end_session(request.cookies[SESSION], reader)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(SESSION)
    return response


def _login(
    request: Request, name: str = "", error: str = "", status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    visit = request.cookies.get(VISIT) or secrets.token_urlsafe(32)
    cookie = request.cookies.get(SESSION) or visit
    response = page("login.html", status, csrf=csrf_token(cookie), name=name, error=error, reader=None)
    response.headers.update(headers or {})
    if VISIT not in request.cookies:
        _set(response, request, VISIT, visit, 3600)
    return response


def _set(response: Response, request: Request, name: str, value: str, seconds: int) -> None:
    place = request.app.state.place
    assert isinstance(place, Place)
    response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict", secure=place.secure)
