"""The command line, with a case that kills the process that takes it, or breaks in it: a script, not a test.

    python deadly.py HOW:STEP:CASE ARGUMENTS ...

HOW: `kill` (SIGKILL), `break` (an error), `memory` (no memory left under RLIMIT_AS), `load` (SIGKILL while loading).
Worker processes that are spawned import this file again, and so die or break as well.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from workflow import case_worker, step
from workflow.cli import main

_search, _load = step.run_search, case_worker.load_models
_how, _step, _case = sys.argv[1].split(":")


def search(strategy: str, problem: Any, *rest: Any, **more: Any) -> Any:
    """Searches, or does not live to do so."""
    if (problem.step, problem.case_id) == (_step, _case):
        if _how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if _how == "memory":
            exhaust()
        if _how == "break":
            raise ValueError("a value of the record")
    return _search(strategy, problem, *rest, **more)


def exhaust() -> None:
    """Takes more memory than there is."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, before[1]))
    try:
        bytearray(2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def load(*rest: Any) -> Any:
    """Loads models, or does not live to do so."""
    if _how == "load":
        os.kill(os.getpid(), signal.SIGKILL)
    return _load(*rest)


step.run_search, case_worker.load_models = search, load
if __name__ == "__main__":
    main(sys.argv[2:])
