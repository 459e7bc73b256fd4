import hashlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import get_worker
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.errors import ConfigError, GlomerulabError, OutputError, SlideError
from glomerulab.runtime.cluster import DaskWorkers, _local_environments, open_workers
from glomerulab.runtime.cluster_file import (
    DASK_SETTINGS,
    ClusterFile,
    _seconds,
    queue_cluster,
    read_cluster_file,
)
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.parallel import N_ATTEMPTS, Workers, map_outcomes


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two real worker processes."""
    path = tmp_path_factory.mktemp("cluster") / "cluster.toml"
    path.write_text('kind = "local"\njobs = 2\nmemory = "1GB"\n')
    with open_workers(cluster=path) as found:
        assert found is not None
        yield found


def _half(number: int) -> int:
    if number % 2:
        raise SlideError("is odd", where=f"item {number}")
    return number // 2


def test_a_cluster_gives_what_this_process_gives(workers: Workers) -> None:
    there = sorted(map_outcomes(_half, range(200), workers=workers), key=lambda one: one.item)
    here = list(map_outcomes(_half, range(200)))
    assert [(one.item, one.value, str(one.error)) for one in there] == [
        (one.item, one.value, str(one.error)) for one in here
    ]
    assert all(isinstance(one.error, SlideError) for one in there[1::2])


def _pid(number: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def test_the_items_are_taken_by_both_workers(workers: Workers) -> None:
    pids = {one.value for one in map_outcomes(_pid, range(40), workers=workers)}
    assert len(pids) == 2
    assert os.getpid() not in pids


def _count(number: int) -> tuple[str, int]:
    """Keep the interpreter busy, as a loop over rows does."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        number += 1
    return get_worker().address, number


def _digest(number: int) -> tuple[str, int]:
    """Keep a core busy without the interpreter, as torch, numba and readers of slides do."""
    end, content = time.monotonic() + 3, bytes(2**28)
    while time.monotonic() < end:
        number += hashlib.sha256(content).digest()[0]
    return get_worker().address, number


@pytest.mark.parametrize("work", [_count, _digest])
def test_a_worker_answers_its_scheduler_while_it_works(work, workers: DaskWorkers) -> None:
    answers: dict[str, set[float]] = {}
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(lambda: list(map_outcomes(work, [1], workers=workers)))
        while not ended.done():
            known = workers.client.scheduler_info(n_workers=-1)["workers"]
            for address, one in known.items():
                answers.setdefault(address, set()).add(one["last_seen"])
            time.sleep(0.1)
    ((address, _),) = [one.value for one in ended.result()]
    # Every half second with few workers; without an answer for five minutes one is taken for dead.
    assert len(answers[address]) >= 3


def _refuse(number: int) -> int:
    raise OutputError("the disk is full", where="out")


def test_a_full_disk_ends_the_batch(workers: Workers) -> None:
    with pytest.raises(OutputError, match="disk is full"):
        list(map_outcomes(_refuse, range(10), workers=workers))
    # what was in flight is cancelled, and the cluster goes on
    assert [one.value for one in map_outcomes(_half, [4], workers=workers)] == [2]


def _limit_files(n_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes or hard, hard))


def _write(folder: Path, number: int) -> str:
    with atomic_write(folder / f"{number}.txt") as temporary:
        temporary.write_text("x" * 5000)
    return get_worker().address


def _copy_without_care(folder: Path, number: int) -> None:
    (folder / f"{number}.txt").write_text("x" * 5000)


@pytest.mark.parametrize("write", [_write, _copy_without_care])
def test_a_worker_whose_disk_is_full_leaves_its_items_to_the_other(
    write, workers: DaskWorkers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full, _ = workers.workers()
    workers.client.run(_limit_files, 1000, workers=[full])
    try:
        found = list(map_outcomes(partial(write, tmp_path), range(20), workers=workers))
        assert sorted(one.item for one in found) == list(range(20))
        assert full not in {one.value for one in found}
        assert full in caplog.text
        assert len(list(tmp_path.glob("*.txt"))) == 20
        workers.client.run(_limit_files, 1000)
        with pytest.raises(OutputError, match="File too large"):
            list(map_outcomes(partial(write, tmp_path), range(20, 24), workers=workers))
    finally:
        workers.client.run(_limit_files, 0)


def _settings(_number: int) -> dict[str, object]:
    own = multiprocessing.current_process()
    return {name: dask.config.get(name) for name in DASK_SETTINGS} | {"daemon": own.daemon}


def test_the_settings_hold_in_the_workers(workers: DaskWorkers) -> None:
    (found,) = [one.value for one in map_outcomes(_settings, [1], workers=workers)]
    assert found == DASK_SETTINGS | {"daemon": False}
    known = workers.client.scheduler_info(n_workers=-1)["workers"].values()
    assert {(one["nthreads"], one["memory_limit"]) for one in known} == {(1, 10**9)}
    of_scheduler = workers.client.run_on_scheduler(
        lambda dask_scheduler: (dask_scheduler.allowed_failures, dask_scheduler.WORKER_SATURATION)
    )
    assert of_scheduler == (N_ATTEMPTS, 1.0)


def _sleep(_number: int) -> None:
    time.sleep(0.3)


def test_items_wait_at_the_scheduler_and_are_not_assigned_ahead(workers: DaskWorkers) -> None:
    outcomes = map_outcomes(_sleep, range(12), workers=workers)
    next(outcomes)  # the others are on their way
    states = workers.client.run_on_scheduler(
        lambda dask_scheduler: [one.state for one in dask_scheduler.tasks.values()]
    )
    outcomes.close()
    assert states.count("processing") <= 2
    assert states.count("queued") >= 3


def test_the_scheduler_keeps_nothing_of_tasks_that_are_done(workers: DaskWorkers) -> None:
    list(map_outcomes(_half, range(50), workers=workers))
    kept = workers.client.run_on_scheduler(
        lambda dask_scheduler: [
            one.metadata for one in dask_scheduler.extensions["spans"].spans.values()
        ]
    )
    assert not any(kept)


def _die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_only_the_item_that_kills_its_workers_fails(workers: Workers) -> None:
    found = {one.item: one for one in map_outcomes(_die_at_three, range(30), workers=workers)}
    assert sorted(found) == list(range(30))
    assert [item for item, one in found.items() if one.error is not None] == [3]


def _die_once(folder: Path, number: int) -> int:
    mark = folder / "died"
    if number == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_the_items_of_a_killed_worker_are_done_by_another(workers, tmp_path: Path) -> None:
    outcomes = list(map_outcomes(partial(_die_once, tmp_path), range(20), workers=workers))
    assert sorted(one.value for one in outcomes) == list(range(20))


def _stop_worker(dask_worker) -> None:
    dask_worker.loop.add_callback(dask_worker.close, nanny=True)


def test_workers_that_are_lost_for_good_are_replaced(workers: DaskWorkers, monkeypatch) -> None:
    monkeypatch.setattr("glomerulab.runtime.cluster.REPLACE_EVERY", 1)
    workers.client.run(_stop_worker)
    assert [one.value for one in map_outcomes(_half, [4, 8], workers=workers)] == [2, 4]


def test_few_items_are_in_flight_at_a_time(workers: DaskWorkers) -> None:
    counts = []
    for _ in map_outcomes(_half, range(300), workers=workers):
        tasks = workers.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        counts.append(tasks)
    # 4 for each of 2 workers, and those whose release is still on its way
    assert max(counts) <= 4 * 4


def test_a_scheduler_that_does_not_answer_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr("glomerulab.runtime.cluster.WAIT_FOR_SCHEDULER", "1s")
    with (
        open_workers("tcp://127.0.0.1:1") as workers,
        pytest.raises(GlomerulabError, match="no Dask scheduler") as caught,
    ):
        list(map_outcomes(_half, [1], workers=workers))
    assert "127.0.0.1:1" in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "slrum"', "slurm"),
        ('kind = "slurm"\ncoers = 4', "coers"),
        ('kind = "local"\njobs = 0', "jobs"),
        ("kind = ", "TOML"),
    ],
)
def test_a_wrong_cluster_file_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_cluster_file(path)
    assert str(path) in str(caught.value)


def test_a_scheduler_and_a_cluster_file_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude"), open_workers("tcp://h:1", tmp_path / "c"):
        pass


QUEUE = {
    "cores": 4,
    "memory": "16GB",
    "walltime": "02:00:00",
    "queue": "long",
    "account": "kidney",
    "gpus": 1,
    "prologue": ("module load openslide",),
}
WANTED = {
    "slurm": ("-p long", "-A kidney", "--cpus-per-task=4", "--gres=gpu:1", "-t 02:00:00"),
    "pbs": ("-q long", "-A kidney", "ncpus=4:mem=16GB:ngpus=1", "walltime=02:00:00"),
    "lsf": ("-q long", '-P "kidney"', "-n 4", '-gpu "num=1"', "-W 02:00\n"),
    "sge": ("-q long", "-P kidney", "-pe smp 4", "-l gpu=1", "h_rt=02:00:00"),
}


def _environment(_number: int) -> tuple[str | None, str | None]:
    time.sleep(0.2)  # long enough that both workers take some
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS")


def test_each_worker_of_this_machine_has_its_threads_and_a_gpu_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    file = tmp_path / "cluster.toml"
    file.write_text('kind = "local"\njobs = 2\ncores = 3\ngpus = 1\nmemory = "1GB"\n')
    with open_workers(cluster=file) as workers:
        found = {one.value for one in map_outcomes(_environment, range(8), workers=workers)}
    assert found == {("2", "3"), ("5", "3")}


def test_the_number_of_gpus_is_that_of_the_workers_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('kind = "local"\ngpus = 3\nmemory = "1GB"\n')
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices = [one["CUDA_VISIBLE_DEVICES"] for one in _local_environments(read_cluster_file(file))]
    assert devices == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with open_workers(cluster=file) as workers, pytest.raises(ConfigError, match="3 GPUs"):
        list(map_outcomes(_half, [1], workers=workers))


@pytest.mark.parametrize(
    "text", ['kind = "slurm"\ngpus = 4', 'kind = "local"\ngpus = 4\njobs = 3', "gpus = -1"]
)
def test_a_number_of_gpus_that_the_workers_cannot_have_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text if "kind" in text else f'kind = "local"\n{text}')
    with pytest.raises(ConfigError, match=r"gpus|GPUs"):
        read_cluster_file(file)


@pytest.mark.parametrize("kind", WANTED)
def test_the_job_script_books_what_the_file_says(kind: str, tmp_path: Path) -> None:
    described = ClusterFile.model_validate(QUEUE | {"kind": kind, "logs": str(tmp_path)})
    cluster = queue_cluster(described)
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    missing = [part for part in WANTED[kind] if part not in script]
    assert missing == [], script
    assert "module load openslide" in script
    assert "export OMP_NUM_THREADS=4" in script
    assert "--nthreads 1" in script
    # ends before the walltime, and not all workers at once
    assert "--lifetime 6420s --lifetime-stagger 360s" in script


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_walltime_is_read_as_queues_write_it(days, hours, minutes, seconds) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert _seconds(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == total
    assert _seconds(f"{hours:02}:{minutes:02}:{seconds:02}") == total - days * 86_400


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory", "lots"),
        ("memory", "16"),
        ("walltime", "4h"),
        ("walltime", "30:00"),  # minutes in Slurm, hours in LSF
        ("walltime", "-1:00:00"),
        ("walltime", ""),
    ],
)
def test_a_value_that_no_queue_takes_is_named(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(f'kind = "slurm"\n{key} = "{value}"\n')
    with pytest.raises(ConfigError, match=key) as caught:
        read_cluster_file(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("kind", ["pbs", "lsf"])
def test_a_queue_that_takes_no_job_ends_the_command(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(f'kind = "{kind}"\nmemory = "1GB"\nlogs = "{tmp_path}"\n')
    # there is no such queue here
    with open_workers(cluster=path) as workers, pytest.raises(GlomerulabError, match="job"):
        list(map_outcomes(_half, [1], workers=workers))


def test_a_cluster_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('kind = "slurm"\nmemory = "1GB"\ninterface = "ib9"\n')
    with open_workers(cluster=path) as workers, pytest.raises(GlomerulabError, match="ib9"):
        list(map_outcomes(_half, [1], workers=workers))


INTERRUPTED = """
import os, signal, sys, time
from glomerulab.runtime.cluster import open_workers
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by jobs in the background
with open_workers(cluster=sys.argv[1]):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""


def test_ctrl_c_does_not_end_a_command_as_if_it_were_done(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('kind = "slurm"\n')
    command = [sys.executable, "-c", INTERRUPTED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr


def test_nothing_is_started_without_an_item(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('kind = "slurm"\nmemory = "1GB"\ninterface = "ib9"\n')
    with open_workers(cluster=path) as workers:
        assert list(map_outcomes(_half, [], workers=workers)) == []
