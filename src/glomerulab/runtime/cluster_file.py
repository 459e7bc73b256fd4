"""The cluster that a TOML file describes, and the jobs that a queue gets for it."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from glomerulab.errors import ConfigError
from glomerulab.runtime.files import read_configuration
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.parallel import N_ATTEMPTS

__all__ = ["DASK_SETTINGS", "ClusterFile", "queue_cluster", "read_cluster_file"]

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
    gpus: int = Field(0, ge=0, le=64)
    """1: each worker has a GPU of its own; of ``local`` also their number, in place of `jobs`."""
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

    @model_validator(mode="after")
    def _has_one_gpu_per_worker(self) -> Self:
        if self.gpus > 1 and self.kind != "local":
            raise ValueError(
                "a job of a queue is one worker with one GPU; set gpus to 1, and jobs to the "
                "number of GPUs"
            )
        if self.gpus > 1 and self.jobs not in {1, self.gpus}:
            raise ValueError(
                f"{self.jobs} workers cannot have {self.gpus} GPUs; leave out jobs, and each GPU "
                "gets a worker"
            )
        return self

    @property
    def n_workers(self) -> int:
        """How many worker processes there are."""
        return max(self.jobs, self.gpus)


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
