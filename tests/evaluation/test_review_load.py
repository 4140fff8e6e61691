"""Fifty readers at once on this machine: no answer is lost, and the chain of the log stays whole."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from reading_runs import FIRST, add_reader, make_run, path_of
from review_server import serving

from evaluation.reading.audit import verify
from evaluation.reading.readers import csrf_token
from evaluation.reading.store import reviews_of

READERS = 50
ONE = path_of(1)


async def read(base: str, number: int, token: str) -> None:
    """One reader from the log-in to the end, as a browser does it."""
    answer = ("pneumonia", "heart failure", "urinary tract infection")[number % 3]
    async with httpx.AsyncClient(base_url=base, timeout=60, follow_redirects=True, trust_env=False) as client:

        async def post(path: str, **fields: str) -> httpx.Response:
            csrf = csrf_token(client.cookies.get("wardstar_session") or client.cookies["wardstar_visit"])
            response = await client.post(path, data={"csrf": csrf, **fields})
            assert response.status_code == 200, (path, response.status_code)
            return response

        assert (await client.get("/")).url.path == "/login"
        assert (await post("/login", name=f"Reader {number}", token=token)).url.path == "/"
        await client.get(ONE)
        for typed in ("a", f"of reader {number}"):
            await post(f"{ONE}/draft/first", answer=answer, words=typed)
        page = (await client.get(ONE)).text
        assert re.search(f">of reader {number}<", page)
        await post(f"{ONE}/first", answer=answer, words=f"of reader {number}", confidence=str(number))
        await post(f"{ONE}/after", answer=answer, confidence=str(number + 1))
        done = await post(f"{ONE}/finished", verdict="accepted", remark=f"remark {number}")
        assert "1 of 1 finished" in done.text


@pytest.mark.timeout(300)
def test_fifty_readers_at_once_lose_nothing(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    engine, run = make_run(url, tmp_path, cases=1, steps=(FIRST,))
    tokens = [add_reader(engine, f"Reader {number}") for number in range(READERS)]

    async def everyone(base: str) -> None:
        await asyncio.gather(*(read(base, number, token) for number, token in enumerate(tokens)))

    with serving(url) as server:
        asyncio.run(everyone(server.base))
    reviews = {r.reviewer: r for r in reviews_of(engine, run.run_id)}
    assert len(reviews) == READERS
    for number in range(READERS):
        review = reviews[f"Reader {number}"]
        assert (review.first.words, review.first.confidence) == (f"of reader {number}", number)
        assert (review.after.confidence, review.remark) == (number + 1, f"remark {number}")
    found = verify(engine)
    assert found.broken is None
    assert found.entries >= READERS * 11
    engine.dispose()
