"""Databases for the tests: SQLite files, and schemas of a private PostgreSQL server. And torch on one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from tests.postgres_server import PostgresServer

_numbers = count(1)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch computes on one thread: small models only wait for a second one, and equal runs stay equal."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of an empty PostgreSQL database: WARDSTAR_TEST_POSTGRES, or a server of our own; skips without either."""
    if given := os.environ.get("WARDSTAR_TEST_POSTGRES"):
        yield given
        return
    server = PostgresServer()
    try:
        server.start()
        try:
            yield server.url
        finally:
            server.stop()
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Returns a function that gives the URL of a fresh schema; all are dropped after the test."""
    made: list[str] = []
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")

    def make() -> str:
        name = f"wardstar_test_{os.getpid()}_{next(_numbers)}"
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        made.append(name)
        url = make_url(postgres_server).update_query_dict({"options": f"-csearch_path={name}"})
        return url.render_as_string(hide_password=False)

    yield make
    with engine.connect() as connection:
        for name in made:
            connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / '100% a.db'}"
    make: Callable[[], str] = request.getfixturevalue("postgres_url")
    return make()
