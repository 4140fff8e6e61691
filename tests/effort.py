"""How much the tests do: enough for each change by default, far more by `make test-thorough` (WARDSTAR_THOROUGH=1)."""

import os
from typing import TypeVar

THOROUGH = os.environ.get("WARDSTAR_THOROUGH", "") not in ("", "0")
T = TypeVar("T")


def effort(usual: T, thorough: T) -> T:
    """Returns one of two amounts of work."""
    return thorough if THOROUGH else usual
