"""A cohort on real Dask and Slurm processes that are killed: nothing is lost, nothing doubled."""

import os
import subprocess
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Timer

import pytest

from glomerulab.errors import GlomerulabError
from glomerulab.pipeline.cohort_folder import CohortFolder
from glomerulab.pipeline.cohort_merge import count_states, merge_cohort
from glomerulab.runtime.cluster import DaskWorkers, open_workers
from glomerulab.runtime.cluster_file import DASK_SETTINGS
from glomerulab.runtime.parallel import map_outcomes
from tests.support.cohorts import content, write_slides
from tests.support.dask_processes import (
    COMMAND,
    ENVIRONMENT,
    free_port,
    scheduler,
    wait_until,
    worker,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]  # its fixtures are made once

N_PATIENTS = 24
N_SECONDS = 110
"""A walltime of a minute, and the half that Slurm may take to look for it."""
needs_slurm = pytest.mark.skipif(
    not os.environ.get("SLURM_CONF"), reason="no Slurm; bash runs/slurm.sh start prints SLURM_CONF"
)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    return write_slides(folder, [f"p{number}" for number in range(N_PATIENTS)])


def predict(slides: Path, trained: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "predict", slides / "slides.csv", "--model", trained, "--regions", slides]
    command += ["--margin", "0", "--out", out, *options]
    with Path(f"{out}.log").open("ab") as log:
        return subprocess.Popen([str(one) for one in command], env=ENVIRONMENT, stderr=log)


@pytest.fixture(scope="module")
def whole(slides: Path, trained: Path, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert predict(slides, trained, out, "--cohort").wait() == 0
    merge_cohort(out)
    return content(out)


def n_ended(out: Path) -> int:
    return len(list((out / "status").glob("*.done.json"))) if (out / "status").is_dir() else 0


@pytest.mark.parametrize("seconds", [0.0, 0.07, 0.19, 0.31])
def test_a_scheduler_that_is_killed_among_short_tasks_is_told_and_nothing_else(
    tmp_path, seconds, capfd
) -> None:
    port = free_port()
    with scheduler(port) as one, worker(port, folder=tmp_path), ExitStack() as stack:
        workers = stack.enter_context(open_workers(f"tcp://127.0.0.1:{port}"))
        outcomes = stack.enter_context(closing(map_outcomes(abs, range(100_000), workers=workers)))
        next(outcomes)
        killer = Timer(seconds, one.kill)
        killer.start()
        with pytest.raises(GlomerulabError, match="scheduler was lost"):
            list(outcomes)
        killer.join()
    assert "Traceback" not in capfd.readouterr().err


def test_workers_scheduler_and_client_are_killed_and_the_next_call_goes_on(
    whole, slides, trained, tmp_path
) -> None:
    out, port = tmp_path / "out", free_port()
    address = f"tcp://127.0.0.1:{port}"
    with scheduler(port) as first, worker(port, "--no-nanny") as one, worker(port, "--no-nanny"):
        client = predict(slides, trained, out, "--scheduler", address)
        wait_until(lambda: n_ended(out) >= 3)
        one.kill()
        wait_until(lambda: n_ended(out) >= 6)
        first.kill()
        wait_until(lambda: client.poll() is not None)
    assert client.returncode == 1
    log = Path(f"{out}.log").read_text()
    assert "scheduler was lost" in log
    assert "Traceback" not in log
    assert 6 <= n_ended(out) < N_PATIENTS
    with scheduler(port), worker(port, "--no-nanny"), worker(port, "--no-nanny"):
        client = predict(slides, trained, out, "--scheduler", address)
        n_before = n_ended(out)
        wait_until(lambda: n_ended(out) >= n_before + 3)
        client.kill()
        client.wait()
        # the workers end what they hold; the next call takes the rest
        assert predict(slides, trained, out, "--scheduler", address).wait() == 0
    assert count_states(CohortFolder(out))["done"] == N_PATIENTS
    merge_cohort(out)
    assert content(out) == whole


def test_parts_run_side_by_side_in_one_folder(whole, slides, trained, tmp_path) -> None:
    out = tmp_path / "out"
    running = [predict(slides, trained, out, "--part", f"{n}/3") for n in (1, 2, 3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    merge_cohort(out)
    assert content(out) == whole


@needs_slurm
def test_slurm_takes_the_jobs_and_gives_the_bytes_of_one_run(
    whole, slides, trained, tmp_path
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(
        'kind = "slurm"\nqueue = "long"\njobs = 2\nmemory = "2GB"\nwalltime = "00:30:00"\n'
        f'logs = "{tmp_path}"\nfolder = "{tmp_path}"\ninterface = "lo"\n'
        f'prologue = ["export PYTHONPATH={ENVIRONMENT["PYTHONPATH"]}"]\n'
    )
    out = tmp_path / "out"
    assert predict(slides, trained, out, "--cluster", str(file)).wait() == 0
    merge_cohort(out)
    assert content(out) == whole
    # A busy controller may ignore a cancellation; the job then ends with its scheduler.
    wait_until(lambda: "dask-wor" not in queued_jobs())


def queued_jobs() -> str:
    command = ["squeue", "--noheader"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@needs_slurm
def test_a_queue_that_refuses_or_jobs_that_end_at_once_are_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("glomerulab.runtime.cluster.WARN_AFTER", 3)
    file = tmp_path / "cluster.toml"
    text = f'kind = "slurm"\nmemory = "1GB"\nlogs = "{tmp_path}"\ninterface = "lo"\n'
    file.write_text(text + 'queue = "nowhere"\n')
    with (
        open_workers(cluster=file) as workers,
        pytest.raises(GlomerulabError, match="partition"),
    ):
        list(map_outcomes(abs, [1], workers=workers))
    file.write_text(text + 'prologue = ["exit 3"]\n')
    with open_workers(cluster=file) as workers:
        assert isinstance(workers, DaskWorkers)
        assert workers.workers() == set()  # which submits the jobs
        wait_until(lambda: "no worker has come" in caplog.text, 30)


def sleep_until_told(folder: Path, number: int) -> int:
    """Note that the item began, and take a second."""
    (folder / f"{number}-{time.monotonic_ns()}").touch()
    time.sleep(1)
    return number


@needs_slurm
def test_a_job_whose_walltime_ends_is_replaced(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(DASK_SETTINGS, "distributed.deploy.lost-worker-timeout", "3s")
    monkeypatch.setattr("glomerulab.runtime.cluster.REPLACE_EVERY", 2)
    monkeypatch.setattr("glomerulab.runtime.cluster_file._lifetime", lambda walltime: [])
    file = tmp_path / "cluster.toml"
    root = Path(__file__).parents[2]
    # A minute is the shortest time that Slurm knows; without a lifetime the job is killed.
    file.write_text(
        'kind = "slurm"\nmemory = "1GB"\nwalltime = "00:01:00"\n'
        f'logs = "{tmp_path}"\nfolder = "{tmp_path}"\ninterface = "lo"\n'
        f'prologue = ["export PYTHONPATH={root / "src"}:{root}"]\n'
    )
    began = tmp_path / "began"
    began.mkdir()
    with open_workers(cluster=file) as workers:
        found = list(
            map_outcomes(partial(sleep_until_told, began), range(N_SECONDS), workers=workers)
        )
    assert sorted(one.value for one in found) == list(range(N_SECONDS))
    log = "".join(path.read_text() for path in tmp_path.glob("*.err"))
    assert "DUE TO TIME LIMIT" in log
