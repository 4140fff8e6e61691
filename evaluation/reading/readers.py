"""Who may read: readers with a token each, and their sessions in a browser.

A token is shown once, when it is made, and stored as an argon2id hash. A session is a random id in a cookie; the
database holds its sha256 alone, so that a copy of the database opens no session.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Engine, Row, delete, insert, select, update

from clinical_data.errors import UsageError
from clinical_data.store.engine import reading, writing
from evaluation.reading.audit import Event, append
from evaluation.reading.tables import review_sessions, reviewers

SESSION_SECONDS = 12 * 3600
IDLE_SECONDS = 2 * 3600
_SEEN_EVERY = 60  # seconds: a session's last use is noted no more often
_TOKEN_BYTES = 15  # 120 random bits, 24 characters
_NAME = re.compile(r"[\w][\w .'-]{0,59}")

# The least that OWASP's Password Storage Cheat Sheet asks of argon2id; a token is random, and on no list of passwords.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody who reads; `adjudicator`: settles readings that differ, and reads nothing else."""

    reviewer_id: int
    name: str
    role: str
    specialty: str
    years: int
    adjudicator: bool
    disabled: bool


class Readers:
    """The readers of a database and their sessions. Every method raises StorageError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._nobody = _HASHER.hash(secrets.token_hex())  # compared with where there is no such reader

    def add(self, name: str, role: str, specialty: str, years: int, *, adjudicator: bool = False) -> str:
        """Stores a new reader and returns the token.

        Raises:
            UsageError: the name is taken or cannot be one.
        """
        name = name_of(name)
        if not _NAME.fullmatch(name):
            raise UsageError(
                "not a reader's name", hint="letters, digits, spaces and . ' - _; at most 60, a letter or digit first"
            )
        token = new_token()
        values = {"name": name, "role": role, "specialty": specialty, "years": years, "adjudicator": adjudicator}
        with writing(self.engine) as connection:
            if connection.execute(select(reviewers.c.name).where(reviewers.c.name == name)).first() is not None:
                raise UsageError(
                    f"there is a reader named {name}", hint="`--new-token` gives that reader another token"
                )
            created = datetime.now(UTC).isoformat(timespec="seconds")
            row = {**values, "disabled": False, "token_hash": _HASHER.hash(token), "created": created}
            connection.execute(insert(reviewers).values(row))
            append(connection, Event("reader-added", name, payload=values))
        return token

    def renew(self, name: str) -> str:
        """Gives a reader a new token, lets them in again if they were shut out, and ends their sessions.

        Raises:
            UsageError: no such reader.
        """
        token = new_token()
        self._change(name, "reader-renewed", token_hash=_HASHER.hash(token), disabled=False)
        return token

    def disable(self, name: str) -> None:
        """Shuts a reader out and ends their sessions; what they read stays.

        Raises:
            UsageError: no such reader.
        """
        self._change(name, "reader-disabled", disabled=True)

    def all(self) -> list[Reader]:
        """Returns all readers by name."""
        with reading(self.engine) as connection:
            return sorted((_reader(r) for r in connection.execute(select(reviewers))), key=lambda r: r.name)

    def check(self, name: str, token: str) -> Reader | None:
        """Returns the reader whom name and token belong to; takes as long where there is none."""
        with reading(self.engine) as connection:
            row = connection.execute(select(reviewers).where(reviewers.c.name == name_of(name))).one_or_none()
        try:
            _HASHER.verify(self._nobody if row is None else row.token_hash, _normal(token))
        except (VerificationError, InvalidHashError):
            return None
        return None if row is None or row.disabled else _reader(row)

    def start_session(self, reader: Reader) -> str:
        """Begins a session and returns its id; those that are over are removed."""
        raw, now = secrets.token_urlsafe(32), int(time.time())
        s = review_sessions.c
        with writing(self.engine) as connection:
            connection.execute(delete(review_sessions).where((s.expires < now) | (s.seen < now - IDLE_SECONDS)))
            row = {"id_hash": _hash(raw), "reviewer_id": reader.reviewer_id, "expires": now + SESSION_SECONDS}
            connection.execute(insert(review_sessions).values({**row, "seen": now}))
            append(connection, Event("login", reader.name))
        return raw

    def of_session(self, raw: str) -> Reader | None:
        """Returns the reader of a session that is not over; one who was shut out has none."""
        now, s = int(time.time()), review_sessions.c
        query = select(reviewers, s.seen).join(review_sessions).where(s.id_hash == _hash(raw))
        query = query.where(s.expires >= now, s.seen >= now - IDLE_SECONDS, reviewers.c.disabled.is_(False))
        with reading(self.engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if row.seen < now - _SEEN_EVERY:
            with writing(self.engine) as connection:
                connection.execute(update(review_sessions).where(s.id_hash == _hash(raw)).values(seen=now))
        return _reader(row)

    def end_session(self, raw: str, reader: Reader) -> None:
        """Ends a session."""
        with writing(self.engine) as connection:
            connection.execute(delete(review_sessions).where(review_sessions.c.id_hash == _hash(raw)))
            append(connection, Event("logout", reader.name))

    def refused(self, name: str) -> None:
        """Logs that somebody could not log in; a name that is no reader's is not kept."""
        name = name_of(name)
        known = any(r.name == name for r in self.all())
        with writing(self.engine) as connection:
            append(connection, Event("login-refused", name if known else ""))

    def _change(self, name: str, kind: str, **values: Any) -> None:
        with writing(self.engine) as connection:
            found = connection.execute(select(reviewers).where(reviewers.c.name == name)).one_or_none()
            if found is None:
                raise UsageError(f"no reader named {name}", hint="`wardstar review progress` lists them")
            connection.execute(update(reviewers).where(reviewers.c.name == name).values(values))
            own = review_sessions.c.reviewer_id == found.reviewer_id
            connection.execute(delete(review_sessions).where(own))
            append(connection, Event(kind, name))


def name_of(text: str) -> str:
    """Returns a reader's name however it was spaced, as any database can be asked for it."""
    return " ".join(text.replace("\x00", " ").encode("utf-8", "replace").decode().split())


def new_token() -> str:
    """Returns a random token that can be typed: 24 letters and digits in groups of six."""
    text = base64.b32encode(secrets.token_bytes(_TOKEN_BYTES)).decode()
    return "-".join(text[i : i + 6] for i in range(0, len(text), 6))


def csrf_token(cookie: str) -> str:
    """Returns the token that a form must carry besides the cookie of its page; it does not tell the cookie."""
    return hashlib.sha256(f"form:{cookie}".encode()).hexdigest()


def _normal(token: str) -> str:
    """Returns a token as it was made, however it was typed."""
    text = re.sub(r"[^A-Z0-9]", "", token.upper()[:200])
    return "-".join(text[i : i + 6] for i in range(0, len(text), 6))


def _hash(raw: str) -> str:
    return hashlib.sha256(raw.encode("utf-8", "replace")).hexdigest()


def _reader(row: Row[Any]) -> Reader:
    return Reader(
        row.reviewer_id, row.name, row.role, row.specialty, row.years, bool(row.adjudicator), bool(row.disabled)
    )
