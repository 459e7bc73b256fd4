"""Run a batch on a Dask cluster: one that stands, or one that a cluster file asks for.

Items and values pass through the scheduler, so they hold paths and small rows; pixels stay on disk.
The package ``distributed`` comes with ``glomerulab[cluster]``.
"""

import importlib.util
import logging
import math
import os
import re
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from glomerulab.errors import ConfigError, GlomerulabError, OutputError
from glomerulab.runtime.cluster_file import (
    DASK_SETTINGS,
    ClusterFile,
    queue_cluster,
    read_cluster_file,
)
from glomerulab.runtime.parallel import (
    N_AHEAD_PER_WORKER,
    Outcome,
    Workers,
    killed_error,
    outcome_of,
)

if TYPE_CHECKING:
    import distributed

__all__ = ["DaskWorkers", "open_workers"]

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Value = TypeVar("Value")

WAIT_FOR_SCHEDULER = "20s"
WARN_AFTER = 60
"""Seconds without a worker until a warning."""
GPUS = "CUDA_VISIBLE_DEVICES"
REPLACE_EVERY = 10
"""Seconds between looks for workers that were lost for good or whose job has ended."""


@contextmanager
def open_workers(
    scheduler: str | None = None, cluster: str | Path | None = None
) -> Iterator[Workers | None]:
    """Return the workers of a Dask scheduler, or of the cluster that a file describes.

    Nothing is started before `map_outcomes` has an item for it, so that a command checks its input
    before a queue gets its jobs. What was started ends with the block.

    Parameters
    ----------
    scheduler : str, optional
        Address such as ``tcp://host:8786``.
    cluster : path, optional
        TOML file, see `ClusterFile`.

    Yields
    ------
    Workers or None
        None without either: the work stays on this machine.

    Raises
    ------
    ConfigError
        If both are given, the file is invalid, or the extra is not installed.
    """
    if scheduler is None and cluster is None:
        yield None
        return
    if scheduler is not None and cluster is not None:
        raise ConfigError("--scheduler and --cluster exclude each other; give one of them")
    described = None if cluster is None else read_cluster_file(Path(cluster))
    _import_packages()
    with ExitStack() as started:
        yield DaskWorkers(lambda: started.enter_context(_connected(scheduler, described)))


@contextmanager
def _connected(
    scheduler: str | None, described: ClusterFile | None
) -> Iterator["distributed.Client"]:
    """Connect to a scheduler, or start a cluster and end it with the block.

    Raises
    ------
    GlomerulabError
        If the scheduler cannot be reached, or the cluster not be started.
    """
    import dask

    with dask.config.set(DASK_SETTINGS):
        if scheduler is not None:
            start = f"dask worker {scheduler}"
            with (
                _client(scheduler) as client,
                _beside(partial(_warn, client, f"start some with `{start} --nthreads 1`")),
            ):
                yield client
        elif described is not None:
            with (
                _started(described) as started,
                _client(started) as client,
                _beside(partial(_replace, started, described)),
                _beside(partial(_warn, client, f"their output is in {described.logs}")),
            ):
                yield client


@contextmanager
def _started(described: ClusterFile) -> Iterator[Any]:
    """Start a local cluster, or submit the jobs of a queue; end it with the block."""
    try:
        cluster = start_cluster(described)
    except (OSError, RuntimeError, ValueError) as error:
        raise GlomerulabError(f"the cluster cannot be started: {_reason(error)}") from error
    with closing(cluster):
        _submit(cluster, described)
        yield cluster


def _submit(cluster: Any, described: ClusterFile) -> None:  # noqa: ANN401 - as start_cluster
    """Submit the jobs that are missing, as `scale`, which only logs what the queue refuses.

    Raises
    ------
    GlomerulabError
        If the queue takes no job.
    """
    local = _local_environments(described) if described.kind == "local" else None
    while len(cluster.worker_spec) < described.n_workers:
        (name, spec), *_ = cluster.new_worker_spec().items()
        if local is not None:
            spec = spec | {"options": spec["options"] | {"env": local[name]}}
        cluster.worker_spec[name] = spec
    try:
        cluster.sync(cluster._correct_state)  # noqa: SLF001 - what `scale` calls
    except (OSError, RuntimeError, ValueError) as error:
        cluster.sync(_forget_refused, cluster)
        raise GlomerulabError(
            f"the queue takes no job ({_reason(error)}); correct the cluster file, or run this "
            "where jobs are submitted from"
        ) from error


def _local_environments(described: ClusterFile) -> list[dict[str, str]]:
    """Return the threads of each worker of this machine, and the GPU that it has for itself."""
    n = described.n_workers
    threads = {"OMP_NUM_THREADS": str(described.cores)}
    if not described.gpus:
        return [threads] * n
    visible = os.environ.get(GPUS)
    devices = list(map(str, range(n))) if visible is None else re.findall(r"[^,\s]+", visible)
    if len(devices) < n:
        raise ConfigError(
            f"the cluster file asks for {n} GPUs, and {GPUS} names {len(devices)}; correct one of "
            "them"
        )
    return [threads | {GPUS: device} for device in devices[:n]]


async def _forget_refused(cluster: Any) -> None:  # noqa: ANN401 - as start_cluster
    """Forget jobs that the queue refused, which Dask takes for submitted."""
    from distributed import Status

    for name, job in list(cluster.workers.items()):
        if job.status is Status.created:
            job.status = Status.failed
            del cluster.workers[name]


def _reason(error: Exception) -> str:
    """Return what a command of a queue printed, or the innermost cause."""
    text = str(error)
    if "stderr:" in text:
        printed = " ".join(text.partition("stderr:")[2].split())
        return printed or " ".join(text.split())
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{error}" or type(error).__name__


def start_cluster(described: ClusterFile) -> Any:  # noqa: ANN401 - a class for each kind
    """Start a local cluster, or that of a queue without a job yet."""
    if described.kind == "local":
        from distributed import LocalCluster

        return LocalCluster(
            n_workers=0,  # started as the jobs of a queue are
            threads_per_worker=1,
            processes=True,
            memory_limit=described.memory,
            dashboard_address=":0",
            local_directory=described.folder,
        )
    return queue_cluster(described)


@contextmanager
def _beside(work: Callable[[Event], None]) -> Iterator[None]:
    """Run a function in a thread beside the block; its event is set when the block ends."""
    ended = Event()
    thread = Thread(target=work, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _replace(
    cluster: Any,  # noqa: ANN401 - as start_cluster
    described: ClusterFile,
    ended: Event,
) -> None:
    """Keep so many workers; Dask does not replace those that are lost."""
    while not ended.wait(REPLACE_EVERY):
        try:
            _submit(cluster, described)
        except GlomerulabError as error:  # it may be that the queue is down for a while
            logger.warning("%s", error)


def _warn(client: "distributed.Client", way_out: str, ended: Event) -> None:
    """Warn once if no worker comes, since jobs that end at once leave no other sign."""
    for _ in range(WARN_AFTER):
        if ended.wait(1) or client.scheduler_info(n_workers=-1)["workers"]:
            return
    logger.warning("no worker has come in %s s; %s", WARN_AFTER, way_out)


class DaskWorkers:
    """The workers of a Dask cluster, to which it connects at the first item.

    At most `N_AHEAD_PER_WORKER` items per worker are in flight, so that a million items are not a
    million tasks of the scheduler.
    """

    def __init__(self, connect: Callable[[], "distributed.Client"]) -> None:
        self._connect = connect
        self._counted = (0, -math.inf)

    @cached_property
    def client(self) -> "distributed.Client":
        """The connection to the scheduler."""
        return self._connect()

    def outcomes(
        self, function: Callable[[Item], Value], items: Sequence[Item]
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield the outcome of every item in order of completion, as `map_outcomes`.

        A worker that cannot write, such as one whose disk is full, leaves its items to the others;
        the error is raised when none of them can.

        Raises
        ------
        GlomerulabError
            If the scheduler cannot be reached, or the cluster not be started.
        """
        if not items:
            return
        suspects: list[Item] = []
        yield from self._map(function, items, N_AHEAD_PER_WORKER, suspects)
        for item in suspects:
            last: list[Item] = []
            # Alone, so that only it can be what ends its worker.
            yield from self._map(function, [item], 1, last)
            if last:
                yield Outcome(item, None, killed_error())

    def _map(
        self,
        function: Callable[[Item], Value],
        items: Sequence[Item],
        n_ahead: int,
        suspects: list[Item],
    ) -> Generator[Outcome[Item, Value], None, None]:
        from distributed import KilledWorker, as_completed
        from distributed.comm import CommClosedError

        waiting = iter(items)
        of_future: dict[Any, Item] = {}
        refusing: set[str] = set()
        running = as_completed(loop=self.client.loop)

        def submit(items: Iterable[Item]) -> None:
            # A preference only: those that can write may end meanwhile.
            able = sorted(self.workers() - refusing) if refusing else None
            for item in items:
                future = self.client.submit(
                    _outcome_there,
                    function,
                    item,
                    pure=False,
                    workers=able,
                    allow_other_workers=bool(refusing),
                )
                of_future[future.key] = item
                running.add(future)

        try:
            submit(islice(waiting, max(self._n_workers(), 1) * n_ahead))
            for future in running:
                item = of_future.pop(future.key)
                try:
                    outcome = future.result()
                except KilledWorker:
                    suspects.append(item)
                else:
                    if isinstance(outcome, Outcome):
                        yield outcome
                    else:
                        worker, error = outcome
                        self._note_refusal(worker, error, refusing)
                        submit([item])
                finally:
                    future.release()
                # Workers come and go: the window follows them.
                submit(islice(waiting, max(self._n_workers() * n_ahead - len(of_future), 1)))
        except (CancelledError, CommClosedError) as lost:
            raise GlomerulabError(
                "the connection to the Dask scheduler was lost; start it again if it has ended, "
                "and run the same command to continue"
            ) from lost
        finally:
            if of_future:
                with suppress(CommClosedError):
                    self.client.cancel(list(of_future), force=True)

    def workers(self) -> set[str]:
        """Return the addresses of the workers that there are now."""
        return set(self.client.scheduler_info(n_workers=-1)["workers"])

    def _n_workers(self) -> int:
        """Return how many workers there are, or were a second ago; a look asks the scheduler."""
        number, at = self._counted
        if time.monotonic() - at > 1:
            number = len(self.workers())
            self._counted = number, time.monotonic()
        return number

    def _note_refusal(self, worker: str, error: OutputError, refusing: set[str]) -> None:
        """Remember a worker that cannot write; raise its error if no other one can."""
        if worker not in refusing:
            refusing.add(worker)
            logger.warning("worker %s cannot go on, and others take its work: %s", worker, error)
        if not self.workers() - refusing:
            raise error


def _outcome_there(
    function: Callable[[Item], Value], item: Item
) -> Outcome[Item, Value] | tuple[str, OutputError]:
    """Apply a function to an item in a worker; a worker that cannot write tells its address."""
    try:
        return outcome_of(function, item)
    except OutputError as error:
        from distributed import get_worker

        return get_worker().address, error


def _import_packages() -> None:
    """Import packages that add defaults to Dask's configuration; `dask.config.set` undoes them."""
    for name in ("distributed", "dask_jobqueue"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                "clusters need the packages distributed and dask-jobqueue; install "
                "glomerulab[cluster]"
            )
    on_interrupt = signal.getsignal(signal.SIGINT)
    import dask_jobqueue  # noqa: F401
    import distributed  # noqa: F401

    # dask-jobqueue makes Ctrl+C end the process as if its work were done.
    if signal.getsignal(signal.SIGINT) is not on_interrupt:
        signal.signal(signal.SIGINT, on_interrupt)


@contextmanager
def _client(where: Any) -> Iterator["distributed.Client"]:  # noqa: ANN401 - address or cluster
    from distributed import Client

    class Forgetful(Client):  # type: ignore[misc]
        """A client of whose graphs the scheduler keeps no note, which it would for ever."""

        def _graph_to_futures(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - Dask's
            return super()._graph_to_futures(*arguments, **options | {"span_metadata": None})

    try:
        client = Forgetful(where, timeout=WAIT_FOR_SCHEDULER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise GlomerulabError(
            f"no Dask scheduler answers at {where}; check the address that `dask scheduler` printed"
        ) from error
    # It logs a traceback when the scheduler is lost, which our error says.
    for name in ("client", "batched"):
        logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
    with closing(client):
        yield client
