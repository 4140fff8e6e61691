"""Where a replay is at each moment, in memory that outlives its kill: phases, steps begun, calls to models.

`Marks` is shared between a process and those forked from it. `watch` makes the program write them: it wraps the
functions between which a kill may fall, and nothing else of it is changed.
"""

from __future__ import annotations

import functools
import mmap
import struct
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

PHASES = ("before start", "loading", "between steps", "in search", "in commit", "in checkpoint", "at the end")
BEFORE, LOADING, BETWEEN, SEARCH, COMMIT, CHECKPOINT, END = range(len(PHASES))
MOST_STEPS = 4096
_HEAD = struct.Struct(f"iiqq{len(PHASES)}q{len(PHASES)}d")
_CALLS = struct.Struct("q")


class Marks:
    """Phase now, steps begun, calls that models computed, hits; how often each phase was entered, and its seconds."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEAD.size + MOST_STEPS * _CALLS.size)
        self.clear()

    def clear(self) -> None:
        """Sets everything back."""
        self.phase, self.steps, self.calls, self.hits = BEFORE, 0, 0, 0
        self.times, self.seconds = [0] * len(PHASES), [0.0] * len(PHASES)
        self.write()

    def write(self) -> None:
        """Puts the attributes into the shared memory."""
        head = _HEAD.pack(self.phase, self.steps, self.calls, self.hits, *self.times, *self.seconds)
        self._memory[: _HEAD.size] = head

    def read(self) -> Marks:
        """Takes the attributes from the shared memory, and returns itself."""
        self.phase, self.steps, self.calls, self.hits, *rest = _HEAD.unpack(self._memory[: _HEAD.size])
        self.times, self.seconds = rest[: len(PHASES)], rest[len(PHASES) :]
        return self

    def begin_step(self) -> None:
        """Notes how many calls were made before this step."""
        _CALLS.pack_into(self._memory, _HEAD.size + self.steps * _CALLS.size, self.calls)
        self.steps += 1
        self.write()

    def lost_calls(self, stored: int) -> int:
        """Returns the calls of the step that was at work, when `stored` steps of this session are stored."""
        if stored >= self.steps:
            return 0
        return self.calls - int(_CALLS.unpack_from(self._memory, _HEAD.size + stored * _CALLS.size)[0])

    @contextmanager
    def within(self, phase: int):
        """Is in a phase while the block runs."""
        before, began = self.phase, time.perf_counter()
        self.phase = phase
        self.times[phase] += 1
        self.write()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - began
            self.phase = before
            self.write()


def watch(marks: Marks) -> None:
    """Wraps the functions of this process; also lets `random` models be cached, so that their calls are kept."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    from evaluation.store.run_store import RunStore
    from search.generation_cache import CachedModel
    from workflow import case_worker, graph, step

    case_worker.WITHOUT_COST = ("scripted:",)  # type: ignore[assignment]
    _wrap(step, "run_search", lambda call: _within(marks, SEARCH, call))
    _wrap(RunStore, "put", lambda call: _within(marks, COMMIT, call))
    _wrap(RunStore, "finish", lambda call: _within(marks, END, call))
    for name in ("put", "put_writes", "delete_thread", "get_tuple", "setup"):
        _wrap(SqliteSaver, name, lambda call: _within(marks, CHECKPOINT, call))
    _wrap(RunStore, "begin", lambda call: _then(marks, LOADING, call))
    _wrap(RunStore, "get", lambda call: _then(marks, LOADING, call))
    _wrap(case_worker.CaseWorker, "__enter__", lambda call: _then(marks, BETWEEN, call))
    _wrap(graph, "run_step", lambda call: _begin(marks, call))
    _wrap(CachedModel, "_answer", lambda call: _count(marks, call))


def _wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    call = getattr(owner, name)
    setattr(owner, name, functools.wraps(call)(make(call)))


def _within(marks: Marks, phase: int, call: Any) -> Any:
    def wrapped(*args: Any, **named: Any) -> Any:
        if marks.phase == phase:  # one function of the phase calls another
            return call(*args, **named)
        with marks.within(phase):
            return call(*args, **named)

    return wrapped


def _then(marks: Marks, phase: int, call: Any) -> Any:
    def wrapped(*args: Any, **named: Any) -> Any:
        result = call(*args, **named)
        marks.phase = phase
        marks.times[phase] += 1
        marks.write()
        return result

    return wrapped


def _begin(marks: Marks, call: Any) -> Any:
    def wrapped(*args: Any, **named: Any) -> Any:
        marks.begin_step()
        return call(*args, **named)

    return wrapped


def _count(marks: Marks, call: Any) -> Any:
    def wrapped(model: Any, *args: Any) -> Any:
        misses, hits = model.misses, model.hits
        try:
            return call(model, *args)
        finally:
            marks.calls += model.misses - misses
            marks.hits += model.hits - hits
            marks.write()

    return wrapped
