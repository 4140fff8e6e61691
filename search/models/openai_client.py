"""The line to an OpenAI-compatible server: where prompts may go, retries, timeouts, errors without prompts.

Requests run on an event loop of their own, in a thread that lives from the first request to `close`, so that callers
stay plain functions and an interrupt cancels whatever is in flight.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from clinical_data.errors import ModelError, UsageError

logger = logging.getLogger(__name__)

# The client's debug lines hold whole requests; a prompt belongs in no log.
logging.getLogger("openai").setLevel(logging.INFO)

KEY_VARIABLE = "WARDSTAR_API_KEY"
SPEC_HINT = "openai:MODEL@http://127.0.0.1:8000/v1"
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 10.0

# All that a server is sent besides the body. The client would add its platform, and organisation, project and headers
# from the environment.
HEADERS = {"host", "connection", "content-type", "content-length", "accept", "accept-encoding", "authorization"}

T = TypeVar("T")


class ServerRefused(ModelError):
    """A server that answered with an error status.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Server:
    """Which model on which server.

    Attributes:
        spec: the whole SPEC.
        model: the name that the server gives the model.
        url: address of the API, without a slash at the end (`http://127.0.0.1:8000/v1`).
        host: host and port, for messages.
        loopback: whether it is this machine.
    """

    spec: str
    model: str
    url: str
    host: str
    loopback: bool

    @property
    def root(self) -> str:
        """The address without the API's version, below which servers keep routes of their own."""
        return self.url.removesuffix("/v1")


def parse_server(spec: str, allowed_hosts: Sequence[str] = ()) -> Server:
    """Returns the server that a SPEC `openai:MODEL@URL` names. A URL without a path gets `/v1`.

    Args:
        spec: the SPEC.
        allowed_hosts: hosts besides this machine that may be sent prompts.

    Raises:
        UsageError: not such a SPEC, a URL with a user or query, or a host that is not allowed.
    """
    found = re.fullmatch(r"openai:(?P<model>.+?)@(?P<url>https?://\S+)", spec)
    try:
        parts = urlsplit(found["url"]) if found else None
        host, port = (parts.hostname, parts.port) if parts else (None, None)
    except ValueError:
        host = None
    if found is None or parts is None or not host:
        raise UsageError("a served model is named openai:MODEL@URL", hint=SPEC_HINT)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("the URL of a served model holds no user, query or fragment", hint=f"key: set {KEY_VARIABLE}")
    loopback = is_loopback(host)
    if not loopback and host not in {h.lower() for h in allowed_hosts}:
        raise UsageError(
            f"{host} is not this machine, and prompts hold patient data",
            hint="name the host under allowed_hosts in the configuration if it may receive them",
        )
    if not loopback and parts.scheme == "http":
        logger.warning("prompts go to %s unencrypted", host)
    shown = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path.rstrip('/') or '/v1'}"
    return Server(spec, found["model"], url, f"{shown}:{port}" if port else shown, loopback)


def is_loopback(host: str) -> bool:
    """Says whether a host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ServerClient:
    """Sends requests to one server.

    Args:
        server: where to.
        timeout: seconds one request may take.
        retries: times a request is sent again after a lost connection, a timeout, or status 408, 409, 429 or 5xx; the
            client library waits 0.5 s, then twice as long each time, up to 8 s, minus up to a quarter at random.
        concurrency: most requests in flight.
    """

    def __init__(self, server: Server, *, timeout: float = 600.0, retries: int = 4, concurrency: int = 8) -> None:
        if timeout <= 0 or retries < 0 or concurrency < 1:
            raise UsageError("timeout must be above 0, retries at least 0, concurrency at least 1")
        self.server = server
        self.concurrency = concurrency
        self._timeout, self._retries = timeout, retries
        self._lock = threading.Lock()
        self._session: _Session | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine that uses this client and returns its result; an interrupt cancels it and hangs up."""
        with self._lock:
            if self._session is None:
                self._session = _Session(self)
            session = self._session
        try:
            return asyncio.run_coroutine_threadsafe(work, session.loop).result()
        except BaseException as error:
            if not isinstance(error, Exception):
                self.close()
            raise

    def close(self) -> None:
        """Cancels what is in flight, closes all connections and ends the thread; a later request opens them again."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    async def call(self, path: str, body: dict[str, object] | None = None, *, retries: int | None = None) -> object:
        """Posts a body, or gets where there is none, and returns the decoded answer.

        Args:
            path: below the server's URL, or a whole URL on the server.
            body: what to send.
            retries: instead of the client's own.

        Raises:
            ServerRefused: status 3xx, 4xx or 5xx.
            ModelError: no connection, a timeout, or an answer that is no JSON.
        """
        assert self._session is not None
        api, slots = self._session.api, self._session.slots
        host = self.server.host
        options: Any = {"max_retries": self._retries if retries is None else retries}
        try:
            async with slots:
                if body is None:
                    return await api.get(path, cast_to=object, options=options)
                return await api.post(path, cast_to=object, body=body, options=options)
        # `from None`: the errors of the client library quote the server's answer, which may quote the prompt.
        except openai.APIStatusError as error:
            status = error.status_code
            raise ServerRefused(f"{host} answered with status {status}", status, hint=_hint(status)) from None
        except openai.APITimeoutError:
            raise ModelError(f"{host} did not answer within {self._timeout:g} s") from None
        except openai.APIConnectionError:
            raise ModelError(f"no connection to {host}", hint="is the server running, and at this address?") from None
        except (openai.OpenAIError, ValueError):
            raise ModelError(f"{host} sent an answer that is no JSON") from None

    def open_api(self) -> openai.AsyncOpenAI:
        """Returns a client of the library with this client's key, timeout and retries, and no proxy to this machine."""
        key = os.environ.get(KEY_VARIABLE, "")
        transport = httpx2.AsyncClient(
            timeout=httpx2.Timeout(self._timeout, connect=min(CONNECT_SECONDS, self._timeout)),
            trust_env=not self.server.loopback,
            follow_redirects=False,  # a redirect could lead to another host
            event_hooks={"request": [_bare if key else _anonymous]},
        )
        # An empty key would make the library look for one in its own variables.
        return openai.AsyncOpenAI(
            api_key=key or "none", base_url=self.server.url, max_retries=self._retries, http_client=transport
        )


class _Session:
    """A thread with an event loop, the library's client and its connections."""

    def __init__(self, client: ServerClient) -> None:
        self.api = client.open_api()
        self.slots = asyncio.Semaphore(client.concurrency)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="wardstar-server", daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._ready.set()
        await self._end.wait()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.api.close()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(CLOSE_SECONDS)


async def _bare(request: httpx2.Request) -> None:
    """Drops every header that a server does not need."""
    for name in [n for n in request.headers if n.lower() not in HEADERS]:
        del request.headers[name]


async def _anonymous(request: httpx2.Request) -> None:
    """Drops the stand-in for a key as well."""
    await _bare(request)
    request.headers.pop("authorization", None)


def _hint(status: int) -> str:
    if status in (401, 403):
        return f"set {KEY_VARIABLE} to the server's key"
    if status == 404:
        return "does the server have a model of that name?"
    return "the prompt may be longer than the server's context" if status in (400, 413, 422) else ""
