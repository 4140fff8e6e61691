"""What every request passes before the application sees it, and what every response carries."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

MOST_BODY = 512 * 1024
"""Bytes of a request's body; a form with every field full is smaller."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # `no-referrer` would make browsers send `Origin: null` with our own forms
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the application is served.

    Attributes:
        hosts: names under which it may be called, without port.
        secure: cookies travel by https alone.
    """

    hosts: frozenset[str] = frozenset(LOOPBACK)
    secure: bool = False


def is_loopback(host: str) -> bool:
    """Says whether an address or name is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses requests of another host or origin and bodies too large, adds headers, and keeps errors to itself.

    The check of the host stops DNS rebinding: a page elsewhere whose name leads here would else be of our origin.
    """

    def __init__(self, app: App, place: Place) -> None:
        self._app, self._place = app, place

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = _with_headers(message.get("headers", ()), scope["path"])
            await send(message)

        reply = self._refusal(scope)
        if reply is None:
            try:
                await self._app(scope, _Limited(receive), sending)
                return
            except Exception as error:  # its message may quote the record, so only its class is logged
                logger.error("request failed: %s", type(error).__name__)
                reply = (500, "This did not work. What was saved before is kept.")
        if not begun:
            await _plain(sending, *reply)

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if _name_of(host) not in self._place.hosts:
            return 421, "This address is not served here."
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BODY:
            return 413, "This is too large."
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get(b"origin")
            if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host.lower():
                return 403, "This form was sent from another site."
            if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
                return 403, "This form was sent from another site."
        return None


class _Limited:
    """Receives a body up to the limit, whatever its length was said to be."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._left = receive, MOST_BODY

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise HTTPException(413, "This is too large.")
        return message


def _with_headers(given: Any, path: str) -> list[tuple[bytes, bytes]]:
    ours = {name for name, _ in _HEADERS}
    kept = [(name, value) for name, value in given if name.lower() not in (*ours, b"server", b"cache-control")]
    cache = b"public, max-age=3600" if path.startswith("/static/") else b"no-store"
    return [*kept, *_HEADERS, (b"cache-control", cache)]


def _name_of(host: str) -> str:
    """Returns the name of a Host header without its port, in lower case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


async def _plain(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
