"""Run a batch on a Dask cluster: one that stands, or one that a cluster file asks for.

Items and values pass through the scheduler, so they hold paths and small rows; pixels stay on disk.
The package ``distributed`` comes with ``glomerulab[cluster]``.
"""

import importlib.util
import logging
import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from glomerulab.errors import ConfigError, GlomerulabError
from glomerulab.runtime.files import read_configuration
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.parallel import (
    N_AHEAD_PER_WORKER,
    N_ATTEMPTS,
    Outcome,
    Workers,
    killed_error,
    outcome_of,
)

if TYPE_CHECKING:
    import distributed

__all__ = ["ClusterFile", "DaskWorkers", "open_workers"]

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Value = TypeVar("Value")

WAIT_FOR_SCHEDULER = "20s"
DASK_SETTINGS: dict[str, Any] = {
    # A worker that hands its memory to the disk is slower than one that says that it is full.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # Daemonic processes may not start others, as torch and numba do.
    "distributed.worker.daemon": False,
    # Tasks wait at the scheduler: those assigned to a worker that dies are all blamed for it.
    "distributed.scheduler.worker-saturation": 1.0,
    # Dask counts the deaths of every worker that a task was assigned to, run or not. The last word
    # is ours: a suspect runs alone.
    "distributed.scheduler.allowed-failures": N_ATTEMPTS,
    # A killed worker starts again by itself, which takes longer than 15 s on a busy node.
    "distributed.deploy.lost-worker-timeout": "60s",
}
WARN_AFTER = 60
"""Seconds without a worker until a warning."""
REPLACE_EVERY = 10
"""Seconds between looks for workers that were lost for good or whose job has ended."""


class ClusterFile(BaseModel):
    """A cluster that ``--cluster`` starts, as its TOML file describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local", "slurm", "pbs", "lsf", "sge"]
    jobs: int = Field(1, ge=1, le=10_000)
    """Jobs in the queue; of ``local``, worker processes."""
    cores: int = Field(1, ge=1, le=1024)
    """Of each worker, used by one task at a time."""
    memory: str = "8GB"
    """Of each worker; one that needs more is ended."""
    walltime: str | None = None
    """Of each job, as the queue writes it: ``04:00:00``."""
    queue: str | None = None
    """Queue or partition."""
    account: str | None = None
    """Account or project that is billed."""
    gpus: int = Field(0, ge=0, le=1)
    """1: each worker has a GPU of its own."""
    directives: tuple[str, ...] = ()
    """Further lines for the head of the job script, such as ``--constraint=avx2``."""
    prologue: tuple[str, ...] = ()
    """Shell lines before the worker starts, such as ``module load openslide``."""
    folder: str | None = None
    """Local folder of a node for temporary files."""
    logs: str = "logs"
    """Folder for the output of the jobs."""
    interface: str | None = None
    """Network interface of the workers, such as ``ib0``."""

    @field_validator("memory")
    @classmethod
    def _is_size(cls, memory: str) -> str:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)? ?[kKMGT]i?B", memory):
            raise ValueError(f"must be a size such as 16GB, got {memory!r}")
        return memory

    @field_validator("walltime")
    @classmethod
    def _is_time(cls, walltime: str | None) -> str | None:
        if walltime is not None:
            _seconds(walltime)
        return walltime


@contextmanager
def open_workers(
    scheduler: str | None = None, cluster: str | Path | None = None
) -> Iterator[Workers | None]:
    """Connect to a Dask scheduler, or start the cluster of a file and end it with the block.

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
    GlomerulabError
        If the scheduler cannot be reached.
    """
    if scheduler is None and cluster is None:
        yield None
        return
    if scheduler is not None and cluster is not None:
        raise ConfigError("--scheduler and --cluster exclude each other; give one of them")
    described = None if cluster is None else read_cluster_file(Path(cluster))
    _check_installed()
    import dask
    import dask_jobqueue  # noqa: F401 - brings its own settings, which must not end with ours
    import distributed  # noqa: F401 - as above

    with dask.config.set(DASK_SETTINGS):
        if scheduler is not None:
            start = f"dask worker {scheduler}"
            with (
                _client(scheduler) as client,
                _beside(partial(_warn, client, f"start some with `{start} --nthreads 1`")),
            ):
                yield DaskWorkers(client)
        elif described is not None:
            with (
                _started(described) as started,
                _client(started) as client,
                _beside(partial(_replace, started, described)),
                _beside(partial(_warn, client, f"their output is in {described.logs}")),
            ):
                yield DaskWorkers(client)


def read_cluster_file(path: Path) -> ClusterFile:
    """Read a cluster file.

    Raises
    ------
    ConfigError
        If it is no TOML or has an unknown or invalid key.
    """
    _, values = read_configuration(path)
    try:
        return ClusterFile.model_validate(values)
    except ValidationError as error:
        raise ConfigError(first_problem(error), where=str(path)) from error


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
    while len(cluster.worker_spec) < described.jobs:
        (name, spec), *_ = cluster.new_worker_spec().items()
        if described.kind == "local":
            spec = spec | {
                "options": spec["options"] | {"env": _local_environment(described, name)}
            }
        cluster.worker_spec[name] = spec
    try:
        cluster.sync(cluster._correct_state)  # noqa: SLF001 - what `scale` calls
    except (OSError, RuntimeError, ValueError) as error:
        cluster.sync(_forget_refused, cluster)
        raise GlomerulabError(
            f"the queue takes no job ({_reason(error)}); correct the cluster file, or run this "
            "where jobs are submitted from"
        ) from error


def _local_environment(described: ClusterFile, number: int) -> dict[str, str]:
    """Return the threads of a worker of this machine, and the GPU that it has for itself."""
    environment = {"OMP_NUM_THREADS": str(described.cores)}
    if described.gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(
            map(str, range(described.jobs))
        )
        devices = visible.split(",")
        environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return environment


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


def queue_cluster(described: ClusterFile) -> Any:  # noqa: ANN401 - a class for each kind
    """Return the cluster of a queue without a job yet; `job_script` shows what it submits."""
    import dask_jobqueue

    kinds = {
        "slurm": dask_jobqueue.SLURMCluster,
        "pbs": dask_jobqueue.PBSCluster,
        "lsf": dask_jobqueue.LSFCluster,
        "sge": dask_jobqueue.SGECluster,
    }
    further = {
        name: value
        for name, value in {
            "queue": described.queue,
            "walltime": _queue_time(described),
            "local_directory": described.folder,
            "interface": described.interface,
            **_booked_cores(described),
        }.items()
        if value is not None
    }
    # One thread per process: torch and numba use the cores of the worker by themselves.
    return kinds[described.kind](
        cores=1,
        processes=1,
        memory=described.memory,
        scheduler_options={"dashboard_address": ":0"},
        job_extra_directives=[*_directives(described), *described.directives],
        job_script_prologue=[
            f"export OMP_NUM_THREADS={described.cores}",
            *(
                f"export DASK_{name.upper().replace('.', '__').replace('-', '_')}={value}"
                for name, value in DASK_SETTINGS.items()
            ),
            *described.prologue,
        ],
        worker_extra_args=_lifetime(described.walltime),
        log_directory=described.logs,
        **further,
    )


def _booked_cores(described: ClusterFile) -> dict[str, Any]:
    """Return the argument by which each queue books the cores of a job, and the account."""
    cores, account = described.cores, described.account
    if described.kind == "slurm":
        return {"job_cpu": cores, "account": account}
    if described.kind == "pbs":
        gpus = f":ngpus={described.gpus}" if described.gpus else ""
        memory = described.memory.replace(" ", "")
        spec = f"select=1:ncpus={cores}:mem={memory}{gpus}"
        return {"resource_spec": spec, "account": account}
    if described.kind == "lsf":
        return {"ncpus": cores, "project": account}
    return {"resource_spec": None, "project": account}


def _directives(described: ClusterFile) -> list[str]:
    """Return the lines of the job's head that dask-jobqueue has no argument for."""
    lines = []
    if described.kind == "sge" and described.cores > 1:
        lines.append(f"-pe smp {described.cores}")
    if described.gpus:
        asked = {"slurm": "--gres=gpu:1", "lsf": '-gpu "num=1"', "sge": "-l gpu=1"}
        lines += [asked[described.kind]] if described.kind in asked else []
    return lines


def _queue_time(described: ClusterFile) -> str | None:
    """Return the walltime as the queue writes it; LSF has no seconds."""
    if described.walltime is None or described.kind != "lsf":
        return described.walltime
    minutes = -(-_seconds(described.walltime) // 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _lifetime(walltime: str | None) -> list[str]:
    """Return the arguments by which workers end in order before their walltime, not all at once."""
    if walltime is None:
        return []
    seconds = _seconds(walltime)
    stagger = max(seconds // 20, 1)
    kept = max(seconds - 2 * stagger - min(60, seconds // 10), 1)
    return ["--lifetime", f"{kept}s", "--lifetime-stagger", f"{stagger}s"]


def _seconds(walltime: str) -> int:
    """Return the seconds of ``[days-]hours:minutes:seconds``; shorter forms differ by queue."""
    found = re.fullmatch(r"(?:([0-9]+)-)?([0-9]+):([0-9]{2}):([0-9]{2})", walltime)
    if found is None:
        raise ValueError(f"must be hours:minutes:seconds, such as 04:00:00, got {walltime!r}")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 86_400 + hours * 3600 + minutes * 60 + seconds


class DaskWorkers:
    """The workers of a Dask cluster.

    At most `N_AHEAD_PER_WORKER` items per worker are in flight, so that a million items are not a
    million tasks of the scheduler.
    """

    def __init__(self, client: "distributed.Client") -> None:
        self.client = client

    def outcomes(
        self, function: Callable[[Item], Value], items: Sequence[Item]
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield the outcome of every item in order of completion, as `map_outcomes`."""
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

        waiting = iter(items)
        of_future: dict[Any, Item] = {}
        running = as_completed(loop=self.client.loop)

        def submit(n: int) -> None:
            for item in islice(waiting, n):
                future = self.client.submit(outcome_of, function, item, pure=False)
                of_future[future.key] = item
                running.add(future)

        try:
            submit(max(self.n_workers(), 1) * n_ahead)
            for future in running:
                item = of_future.pop(future.key)
                try:
                    outcome = future.result()
                except KilledWorker:
                    suspects.append(item)
                except CancelledError as error:
                    raise GlomerulabError(
                        "the connection to the Dask scheduler was lost; start it again if it has "
                        "ended, and run the same command to continue"
                    ) from error
                else:
                    yield outcome
                finally:
                    future.release()
                # Workers come and go: the window follows them.
                submit(max(self.n_workers() * n_ahead - len(of_future), 1))
        finally:
            if of_future:
                self.client.cancel(list(of_future), force=True)

    def n_workers(self) -> int:
        """Return how many workers there are now."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])


def _check_installed() -> None:
    for name in ("distributed", "dask_jobqueue"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                "clusters need the packages distributed and dask-jobqueue; install "
                "glomerulab[cluster]"
            )


@contextmanager
def _client(where: Any) -> Iterator["distributed.Client"]:  # noqa: ANN401 - address or cluster
    from distributed import Client

    try:
        client = Client(where, timeout=WAIT_FOR_SCHEDULER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise GlomerulabError(
            f"no Dask scheduler answers at {where}; check the address that `dask scheduler` printed"
        ) from error
    # It logs a traceback when the scheduler is lost, which our error says.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    with closing(client):
        yield client
