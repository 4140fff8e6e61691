"""Runs the cases of a run on a Ray cluster: actors hold the models, results go straight to the database.

Only ids and counts travel through Ray: a case is read, and its record written, by the worker itself. Without an address
a cluster of this machine alone is started, bound to 127.0.0.1, and ended with the run. Ray's usage statistics are off.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import make_url

from clinical_data.errors import ModelError, UsageError
from workflow.case_worker import CaseReport, CaseWorker
from workflow.executors.crew import Event, Job, Lost, Signal, Task, open_worker, spread
from workflow.guard import quiet_libraries

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 * 2**20  # Ray takes no less than 75 MB; reports are a few hundred bytes
PATIENCE_SECONDS = 60.0  # between remarks while the cluster is busy with other work


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Where workers run, and what each of them needs.

    Attributes:
        address: of a cluster that runs already (`HOST:6379`, `auto`); empty: one of this machine alone is started.
        gpus_per_worker: GPUs of one worker, also a part of one (0.5: two workers share a GPU).
    """

    address: str = ""
    gpus_per_worker: float = 0.0

    @property
    def here(self) -> bool:
        """Says whether the cluster is reached over the loopback interface."""
        return self.address.rpartition(":")[0] in ("", "127.0.0.1", "localhost") and self.address != "auto"


def run_on_ray(
    job: Job, case_ids: Sequence[str], workers: int, cluster: RayCluster, give_up: Callable[[Task], CaseReport]
) -> Iterator[CaseReport]:
    """Yields a report per case as the workers finish them.

    Args:
        job, case_ids: the run, and its cases that are to be taken.
        workers: most actors at a time.
        cluster: where, and with how much of a GPU each.
        give_up: records what is open of a case as failed.

    Raises:
        UsageError: Ray is not installed, no node has room for a worker, or not every node can reach the database.
        ModelError: the cluster cannot be reached, or no worker comes to work.
        UsageError, ModelError, StorageError: as `CaseWorker`.
    """
    with RayCrew(job, workers, cluster) as crew:
        yield from spread(crew, case_ids, workers, give_up)


class RayCrew:
    """Actors of a Ray cluster, spread over its nodes.

    Args:
        job: the run.
        workers: processors that a cluster of our own offers.
        cluster: where to find it.

    Raises:
        UsageError, ModelError: as `run_on_ray`.
    """

    def __init__(self, job: Job, workers: int, cluster: RayCluster) -> None:
        if cluster.gpus_per_worker < 0:
            raise UsageError("--gpus-per-worker must not be negative")
        self._ray: Any = _ray(here=cluster.here)
        self._stack = ExitStack()
        self._told: dict[Any, Any] = {}  # what an actor will say -> the actor
        self._actors: list[Any] = []
        if not self._ray.is_initialized():
            self._stack.callback(self._ray.shutdown)
            self._connect(workers, cluster)
        try:
            self._job = replace(job, url=self._url_for_nodes(job.url))
            self._check_room(cluster)
        except BaseException:
            self._stack.close()
            raise
        how = self._ray.remote(
            num_cpus=1,
            num_gpus=cluster.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._actor = how(RayWorker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            self._ray.kill(actor, no_restart=True)
        self._stack.close()

    def hire(self) -> Any:
        """Asks the cluster for one more actor; where there is no room yet, it comes later."""
        actor = self._actor.remote(self._job)
        self._actors.append(actor)
        self._told[actor.begin.remote()] = actor
        return actor

    def give(self, worker: Any, task: Task) -> None:
        """Sends a case."""
        self._told[worker.run.remote(task.case_id, task.doomed)] = worker

    def hear(self) -> Iterator[tuple[Any, Event]]:
        """Yields what the actors tell, once one of them tells anything.

        Raises:
            WardstarError: what an actor raised.
        """
        errors = self._ray.exceptions
        ready: list[Any] = []
        while not ready:
            ready, _ = self._ray.wait(list(self._told), num_returns=1, timeout=PATIENCE_SECONDS)
            if not ready:
                logger.info("waiting for %d workers of the Ray cluster", len(self._told))
        for told in ready:
            actor = self._told.pop(told)
            try:
                event: Event = self._ray.get(told)
            except errors.RayTaskError as error:
                raise error.cause from None
            except errors.RayError as error:
                self._actors.remove(actor)
                event = Lost(f"lost by Ray ({type(error).__name__})")
            yield actor, event

    def _connect(self, workers: int, cluster: RayCluster) -> None:
        how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if cluster.address:
            how["address"] = cluster.address
        else:  # never the cluster that RAY_ADDRESS may name
            how |= {"address": "local", "num_cpus": workers, "include_dashboard": False}
            how |= {"object_store_memory": OBJECT_STORE_BYTES, "_node_ip_address": "127.0.0.1"}
        try:
            self._ray.init(**how)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            self._stack.close()
            where = cluster.address or "of this machine"
            hint = "check --ray-address, and that the nodes have the same versions of Python and Ray"
            raise ModelError(f"the Ray cluster {where} cannot be used ({type(error).__name__})", hint=hint) from error

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _url_for_nodes(self, url: str) -> str:
        """Returns the database URL as workers in other folders can use it.

        SQLite locks do not hold over a network file system, so that all workers must be on this machine.
        """
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return url
        if {node["NodeManagerHostname"] for node in self._nodes()} != {socket.gethostname()}:
            hint = "import into PostgreSQL: --db postgresql+psycopg://USER@HOST/NAME"
            raise UsageError("an SQLite database serves one machine; this Ray cluster has others", hint=hint)
        path = Path(str(parsed.database)).absolute()
        return parsed.set(database=str(path)).render_as_string(hide_password=False)

    def _check_room(self, cluster: RayCluster) -> None:
        needed = {"CPU": 1.0, "GPU": cluster.gpus_per_worker}
        found = [node["Resources"] for node in self._nodes()]
        if not any(all(has.get(kind, 0.0) >= least for kind, least in needed.items()) for has in found):
            raise UsageError(
                f"no node of the Ray cluster has a processor and {cluster.gpus_per_worker:g} GPUs for a worker",
                hint="lower --gpus-per-worker, or add a node",
            )


class RayWorker:
    """The actor: it holds the models while cases go through."""

    def __init__(self, job: Job) -> None:
        quiet_libraries()
        self._job = job
        self._stack = ExitStack()
        self._worker: CaseWorker | None = None

    def begin(self) -> Signal:
        """Opens the database and loads the models; apart from the constructor, so that an error arrives as itself."""
        self._worker = self._stack.enter_context(open_worker(self._job))
        return Signal.READY

    def run(self, case_id: str, doomed: str) -> CaseReport:
        """Takes one case through the pathway."""
        if self._worker is None:
            raise ModelError("the worker was not begun")
        return self._worker.run(case_id, doomed=doomed)


def _ray(*, here: bool) -> Any:
    """Returns the library, set up before it loads."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a worker without GPUs sees those of its node
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would let its workers wait behind all else on the machine
    if here:  # else Ray asks for the way to an address in the Internet, and takes 127.0.0.1 for that of its interface
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    quiet_libraries()
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UsageError("--executor ray needs Ray", hint="pip install 'wardstar[ray]'") from error
    return ray
