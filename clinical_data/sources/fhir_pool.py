"""Spreads validation over processes: pieces go out in chunks, results come back in the order of the input.

A worker is this module run by the same Python, with a chunk at a time on its standard input and the result on its
standard output. It ends when its input ends, so a killed import leaves none behind. Unlike `multiprocessing`, this
never runs the caller's own script again.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from clinical_data.errors import StorageError
from clinical_data.sources.fhir_files import Piece
from clinical_data.sources.fhir_validate import Reduced, reduce_pieces

logger = logging.getLogger(__name__)

MOST_WORKERS = 4  # about 80 MB each: the whole import stays below 600 MB
_PROTOCOL = pickle.HIGHEST_PROTOCOL

Place = tuple[str, int]  # file, and how many of its pieces are done
Worker = subprocess.Popen[bytes]


def usable_processors() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reduce_chunks(
    chunks: Iterable[tuple[Place, list[Piece]]], workers: int, alone: int = 0
) -> Iterator[tuple[Place, Reduced]]:
    """Yields, for each chunk in order, its place and what the chunk came to.

    Args:
        chunks: pieces of input, each list with the place that the input has come to with it.
        workers: number of processes; below 2 the work is done in this one.
        alone: number of chunks that are done in this process before others are started for the rest.

    Raises:
        StorageError: a worker ended before its work was done.
    """
    rest = iter(chunks)
    for place, chunk in rest if workers < 2 else islice(rest, alone):
        yield place, reduce_pieces(chunk)
    ahead = next(rest, None)
    if ahead is None:
        return
    team = [_start() for _ in range(workers)]
    try:
        yield from _round(chain([ahead], rest), team)
    finally:
        for worker in team:
            _stop(worker)


def _round(chunks: Iterable[tuple[Place, list[Piece]]], team: list[Worker]) -> Iterator[tuple[Place, Reduced]]:
    """Hands out chunks in turn; no worker ever has more than one, which bounds memory and keeps the order."""
    busy: deque[tuple[Worker, Place]] = deque()
    free = deque(team)
    for place, chunk in chunks:
        done = None
        if not free:
            worker, reached = busy.popleft()
            done = reached, _receive(worker)
            free.append(worker)
        worker = free.popleft()
        _send(worker, chunk)
        busy.append((worker, place))
        if done is not None:
            yield done  # staged while the workers go on
    while busy:
        worker, reached = busy.popleft()
        yield reached, _receive(worker)


def _start() -> Worker:
    paths = [p for p in sys.path if p] + [str(Path.cwd())] * ("" in sys.path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", __name__]
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    except OSError as error:
        raise StorageError(f"cannot start a worker of the import ({error.strerror})") from error


def _stop(worker: Worker) -> None:
    for stream in (worker.stdin, worker.stdout):
        try:
            if stream:
                stream.close()
        except OSError:  # what was left to write to a worker that is gone
            logger.debug("worker %d of the import had ended already", worker.pid)
    worker.terminate()
    worker.wait()


def _send(worker: Worker, chunk: list[Piece]) -> None:
    try:
        pickle.dump([tuple(piece) for piece in chunk], _pipe(worker.stdin), _PROTOCOL)
        _pipe(worker.stdin).flush()
    except OSError as error:
        raise _lost(worker) from error


def _receive(worker: Worker) -> Reduced:
    try:
        return Reduced(*pickle.load(_pipe(worker.stdout)))
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        raise _lost(worker) from error


def _pipe(stream: Any) -> Any:
    return stream


def _lost(worker: Worker) -> StorageError:
    return StorageError(
        f"a worker of the import ended before its work was done (exit status {worker.poll()})",
        hint="memory may have run out; start the import again: it goes on where it stopped",
    )


def main() -> None:
    """Works off chunks from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    chunks, results = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a library prints must not get between the results
    gc.freeze()
    while True:
        try:
            chunk = pickle.load(chunks)
        except (EOFError, pickle.UnpicklingError):  # the import has ended, maybe in the middle of a chunk
            return
        found = reduce_pieces(Piece(*piece) for piece in chunk)
        plain = (found.kept, found.facts, found.read, found.unused, found.quarantined)
        try:
            pickle.dump(plain, results, _PROTOCOL)
            results.flush()
        except BrokenPipeError:  # the import has ended, or was killed
            os._exit(0)


if __name__ == "__main__":
    main()
