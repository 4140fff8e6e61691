"""Fixtures of several files of tests."""

import pytest
from taught_runs import Shelf


@pytest.fixture
def shelf(tmp_path):
    """A database of runs to teach from."""
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.engine.dispose()
