"""The security checklist of docs/review.md: each line has its test here."""

from __future__ import annotations

import json
import logging
import re

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type
from reading_runs import Visitor, add_reader, member, one_step, path_of
from sqlalchemy import select, update

from clinical_data.store.engine import writing
from evaluation.reading.app import login, rendering
from evaluation.reading.app.guard import MOST_BODY, Guard, Place, is_loopback
from evaluation.reading.app.login import SESSION, VISIT
from evaluation.reading.audit import verify
from evaluation.reading.readers import IDLE_SECONDS, SESSION_SECONDS, Readers
from evaluation.reading.tables import reading_log, review_sessions, reviewers

stored = one_step

ONE = path_of(1)
OWN = {"answer": "pneumonia", "confidence": "70"}


def rows(engine, table):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


def test_tokens_are_stored_as_argon2id_hashes(stored):
    token = add_reader(stored[0], "Ann")
    (row,) = rows(stored[0], reviewers)
    found = extract_parameters(row.token_hash)
    assert (found.type, found.time_cost, found.memory_cost) == (Type.ID, 2, 19 * 1024)
    assert token not in repr(rows(stored[0], reviewers) + rows(stored[0], reading_log))
    assert len(token.replace("-", "")) == 24


def test_a_token_is_taken_however_it_is_typed_and_no_other_is(stored):
    readers, token = Readers(stored[0]), add_reader(stored[0], "Ann")
    assert readers.check("Ann", token.lower().replace("-", " ")) is not None
    assert readers.check("Ann", token[:-1]) is None
    assert readers.check("Ann", "") is None
    assert readers.check("Ben", token) is None


def test_a_session_id_is_stored_hashed_and_is_another_after_the_log_in(stored):
    visitor = Visitor(*stored)
    visitor.client.cookies.set(SESSION, "planted")
    visitor.login("Ann", add_reader(stored[0], "Ann"))
    raw = [c.value for c in visitor.client.cookies.jar if c.name == SESSION and c.value != "planted"]
    assert len(raw) == 1
    assert raw[0] not in repr(rows(stored[0], review_sessions))


def test_a_session_ends_by_log_out(stored):
    visitor = member(*stored, "Ann")
    old = visitor.client.cookies[SESSION]
    assert visitor.post("/logout").url.path == "/login"
    visitor.client.cookies.set(SESSION, old)
    assert visitor.get("/").url.path == "/login"


@pytest.mark.parametrize("back", [{"expires": SESSION_SECONDS + 1}, {"seen": IDLE_SECONDS + 1}])
def test_a_session_ends_by_age_and_by_idleness(stored, back):
    visitor = member(*stored, "Ann")
    with writing(stored[0]) as connection:
        moved = {name: getattr(review_sessions.c, name) - by for name, by in back.items()}
        connection.execute(update(review_sessions).values(moved))
    assert visitor.get("/").url.path == "/login"
    assert visitor.post(f"{ONE}/first", OWN).status_code == 401


def test_a_reader_who_is_shut_out_is_out_at_once(stored):
    visitor = member(*stored, "Ann")
    Readers(stored[0]).disable("Ann")
    assert visitor.get("/").url.path == "/login"
    token = Readers(stored[0]).renew("Ann")
    assert visitor.get("/").url.path == "/login"  # the old session stays ended
    assert Visitor(*stored).login("Ann", token).url.path == "/"


@pytest.mark.parametrize("secure", [False, True])
def test_cookies_are_out_of_reach_of_scripts_and_other_sites(stored, secure):
    token = add_reader(stored[0], "Ann")
    visitor = Visitor(*stored, Place(secure=secure), base="https://localhost" if secure else "http://localhost")
    visitor.get("/login")
    answer = visitor.client.post(
        "/login", data={"name": "Ann", "token": token, "csrf": visitor.csrf()}, follow_redirects=False
    )
    cookies = [c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION)]
    assert len(cookies) == 1
    parts = {part.strip().lower() for part in cookies[0].split(";")}
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert ("secure" in parts) is secure


def test_every_form_needs_its_token(stored):
    token = add_reader(stored[0], "Ann")
    visitor = Visitor(*stored)
    assert visitor.post("/login", {"name": "Ann", "token": token}, csrf="").status_code == 403
    visitor.login("Ann", token)
    before = verify(stored[0]).entries
    for path in (f"{ONE}/first", f"{ONE}/after", f"{ONE}/finished", f"{ONE}/draft/first", "/logout"):
        for wrong in ("", "0" * 64, visitor.client.cookies[SESSION]):
            assert visitor.post(path, OWN, csrf=wrong).status_code == 403, path
    assert verify(stored[0]).entries == before
    posts = {r.path for r in _routes(visitor) if "POST" in (r.methods or ())}
    assert posts == {"/login", "/logout", "/read/{address}/{part}", "/read/{address}/draft/{part}"}


def _app(visitor):
    guard = visitor.client.app
    assert isinstance(guard, Guard)
    return guard._app


def _routes(visitor):
    found, todo = [], list(_app(visitor).routes)
    while todo:
        route = todo.pop()
        inner = getattr(getattr(route, "original_router", None), "routes", None) or getattr(route, "routes", None)
        todo += inner or []
        found += [route] if getattr(route, "methods", None) else []
    return found


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://127.0.0.1:99"},
])  # fmt: skip
def test_a_form_from_elsewhere_is_refused(stored, headers):
    visitor = member(*stored, "Ann")
    before = verify(stored[0]).entries
    assert visitor.post(f"{ONE}/first", OWN, headers=headers).status_code == 403
    assert verify(stored[0]).entries == before
    own = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert visitor.post(f"{ONE}/first", OWN, headers=own).status_code == 200


def test_log_in_is_limited_by_name(stored):
    token = add_reader(stored[0], "Ann")
    visitor = Visitor(*stored)
    for _ in range(login.PER_NAME.amount):
        assert visitor.login("Ann", "wrong").status_code == 401
    refused = visitor.login("Ann", token)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "900")
    assert visitor.login("ANN", token).status_code == 429
    assert visitor.login("Ben", "wrong").status_code == 401


def test_the_limit_by_name_does_not_look_at_spaces(stored):
    token = add_reader(stored[0], "Dr Chen")
    visitor = Visitor(*stored)
    for number in range(login.PER_NAME.amount):
        assert visitor.login(f"Dr{' ' * (number + 1)}Chen{' ' * number}", "wrong").status_code == 401
    assert visitor.login("Dr Chen", token).status_code == 429
    assert visitor.login("Dr   Chen ", token).status_code == 429


def test_names_and_tokens_of_forms_may_hold_any_letter(stored):
    visitor = Visitor(*stored)
    assert visitor.login("Ann\x00", "\x00").status_code == 401
    assert visitor.post("/login", {"name": "Ann", "token": "x"}, csrf="é").status_code == 403


def test_log_in_is_limited_by_address(stored, monkeypatch):
    monkeypatch.setattr(login, "PER_ADDRESS", login.RateLimitItemPerMinute(3, 15))
    token = add_reader(stored[0], "Ann")
    visitor = Visitor(*stored)
    for number in range(3):
        assert visitor.login(f"Nobody {number}", "wrong").status_code == 401
    assert visitor.login("Ann", token).status_code == 429


def test_a_log_in_does_not_tell_who_there_is(stored, monkeypatch):
    """Word for word the same answer, and as many hashes are worked out."""
    add_reader(stored[0], "Ann")
    visitor, worked = Visitor(*stored), []
    hasher = Readers.check.__globals__["_HASHER"]

    class Counting:
        def verify(self, *given):
            worked.append(1)
            return hasher.verify(*given)

        def hash(self, *given):
            return hasher.hash(*given)

    monkeypatch.setitem(Readers.check.__globals__, "_HASHER", Counting())
    known, unknown = visitor.login("Ann", "wrong"), visitor.login("Bob", "wrong")
    Readers(stored[0]).disable("Ann")
    shut_out = visitor.login("Ann", "wrong")
    assert known.status_code == unknown.status_code == shut_out.status_code == 401
    assert known.text.replace("Ann", "Bob") == unknown.text
    assert len(worked) == 3
    assert [r.reviewer for r in rows(stored[0], reading_log) if r.kind == "login-refused"] == ["Ann", "", "Ann"]


def test_headers_of_every_response(stored):
    visitor = member(*stored, "Ann")
    answers = [visitor.client.get(p) for p in ("/", "/login", ONE, "/no-such-page", "/static/review.js")]
    answers.append(visitor.client.get("/", headers={"Host": "evil.example"}))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        cached = "public, max-age=3600" if "/static/" in str(answer.url) else "no-store"
        assert answer.headers["cache-control"] == cached
        assert "server" not in answer.headers


def test_pages_hold_no_inline_script_or_style(stored):
    visitor = member(*stored, "Ann")
    visitor.get(ONE)
    visitor.read(ONE)
    visitor.finish(ONE)
    visitor.get(ONE)
    for body in visitor.bodies:
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|hx-on|hx-vals=.js", body)
        assert set(re.findall(r'(?:src|href)="(?!#|/read/|/static/|/")[^"]*"', body)) == set()


def test_another_host_is_not_answered(stored):
    visitor = member(*stored, "Ann")
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1", "127.0.0.1@evil.example"):
        answer = visitor.client.get("/", headers={"Host": host})
        assert (answer.status_code, "fhir-r1" in answer.text) == (421, False), host
    for host in ("localhost:8765", "[::1]:8765", "LOCALHOST"):
        assert visitor.client.get("/login", headers={"Host": host}).status_code == 200, host


def test_loopback_is_told_from_other_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.3.2.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "ward.example")))


def test_large_bodies_are_refused(stored):
    visitor = member(*stored, "Ann")
    large = "x" * (MOST_BODY + 1)
    assert visitor.post(f"{ONE}/draft/first", {"words": large}).status_code == 413

    def stream():
        for _ in range(12):
            yield b"x" * (MOST_BODY // 10)

    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert visitor.client.post(f"{ONE}/draft/first", content=stream(), headers=kind).status_code == 413
    many = "&".join(f"answer={i}" for i in range(2000))
    assert visitor.client.post(f"{ONE}/draft/first", content=many, headers=kind).status_code == 400
    assert [r for r in rows(stored[0], reading_log) if r.kind == "draft"] == []


def test_only_what_is_on_the_own_list_is_shown_or_taken(stored):
    engine, run = stored
    ann = member(engine, run, "Ann")
    for reader in (Visitor(engine, run), member(engine, run, "Judge", adjudicator=True)):
        strange = reader.get("/").url.path == "/login"
        for path in (ONE, path_of(2)):
            assert reader.get(path).url.path == "/login" if strange else reader.get(path).status_code == 404
            for part in ("first", "after", "finished", "draft/first"):
                answer = reader.post(f"{path}/{part}", OWN, csrf=None if not strange else "0" * 64)
                assert answer.status_code == (403 if strange else 404) or answer.status_code == 401
    ann.client.cookies.clear()
    assert "fhir-r1" not in ann.get(ONE).text


def test_there_is_no_description_of_the_interface(stored):
    visitor = member(*stored, "Ann")
    for path in ("/docs", "/redoc", "/openapi.json", "/static/../login.py", "/static/htmx-licence.md", "/static/"):
        assert visitor.get(path).status_code == 404, path
    assert set(rendering.STATIC) == {"htmx.min.js", "review.js", "review.css"}


def test_errors_show_no_trace_and_logs_hold_no_value(stored, monkeypatch, caplog):
    engine, run = stored
    visitor = member(engine, run, "Ann")

    def fail(*args, **kwargs):
        raise RuntimeError("cough and fever of Mrs Smith")

    monkeypatch.setattr("evaluation.reading.app.shown.chart_view", fail)
    with caplog.at_level(logging.DEBUG):
        answer = visitor.get(ONE)
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    assert "Smith" not in answer.text
    assert "RuntimeError" in caplog.text
    assert "Smith" not in caplog.text


def test_what_was_sent_is_not_quoted_by_errors(stored):
    visitor = member(*stored, "Ann")
    for path in (f"{ONE}/<b>part", "/read/<b>x"):
        answer = visitor.post(path, OWN)
        assert answer.status_code in (404, 405)
        assert "<b>" not in answer.text


def test_log_ins_and_outs_are_in_the_log(stored):
    visitor = member(*stored, "Ann")
    visitor.post("/logout")
    visitor.login("Ann", "wrong")
    kinds = [(r.kind, r.reviewer) for r in rows(stored[0], reading_log)]
    for kind in ("reader-added", "login", "logout", "login-refused"):
        assert (kind, "Ann") in kinds
    assert json.loads(rows(stored[0], reading_log)[0].payload_json)["specialty"] == "internal medicine"


def test_a_visit_has_a_token_of_its_own(stored):
    one, other = Visitor(*stored), Visitor(*stored)
    assert one.csrf() != other.csrf()
    assert other.post("/login", {"name": "Ann"}, csrf=one.csrf()).status_code == 403
    assert VISIT in one.client.cookies
