"""Jobs of a server whose disk is really full: they can still be cancelled and deleted."""

import time
from contextlib import suppress
from pathlib import Path

import pytest

from glomerulab.apps.serve.files import SlideFolder
from glomerulab.apps.serve.job_process import JobTask
from glomerulab.apps.serve.job_records import JobFolder, JobProgress, JobRecord, JobRequest
from glomerulab.apps.serve.jobs import Jobs
from glomerulab.apps.serve.settings import JobSettings
from glomerulab.errors import OutputError, UnknownRecordError

REQUEST = JobRequest.model_validate({"slides": [{"path": "a.tif"}], "regions": "."})
PIECE = 4096


def endless(task: JobTask) -> None:
    """Write a result of ten pages, and work on."""
    folder = JobFolder(task.folder)
    folder.result.mkdir()
    (folder.result / "half.png").write_bytes(bytes(10 * PIECE))
    folder.write_progress(JobProgress(stage="Cutting crops", done=1, total=9))
    time.sleep(600)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(PIECE))
    return filler


def until_running(jobs: Jobs, job_id: str) -> None:
    deadline = time.monotonic() + 60
    while jobs.progress(jobs.get(job_id, "anna")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running_and_waiting(
    tmpfs: Path, tmp_path: Path
) -> tuple[JobSettings, Jobs, JobRecord, JobRecord]:
    (tmp_path / "slides").mkdir()
    settings = JobSettings(tmpfs / "jobs", tmp_path / "run", SlideFolder(tmp_path / "slides"))
    jobs = Jobs(settings, work=endless)
    running = jobs.add(REQUEST, "anna")
    until_running(jobs, running.id)
    return settings, jobs, running, jobs.add(REQUEST, "anna")


@pytest.mark.parametrize("has_result", [True, False])
def test_a_job_on_a_full_disk_is_cancelled_and_deleted(
    tmpfs: Path, tmp_path: Path, has_result: bool
) -> None:
    settings, jobs, running, waiting = running_and_waiting(tmpfs, tmp_path)
    fill(tmpfs)
    with pytest.raises(OutputError):
        jobs.add(REQUEST, "anna")
    order = (running, waiting) if has_result else (waiting,)
    for one in order:
        assert jobs.cancel(one.id, "anna").state == "cancelled"
        assert jobs.get(one.id, "anna").state == "cancelled"
    jobs.delete(waiting.id, "anna")
    with pytest.raises(UnknownRecordError):
        jobs.get(waiting.id, "anna")
    jobs.close()
    assert not (settings.folder / waiting.id).exists()
    assert has_result is not (settings.folder / running.id / "result").exists()


@pytest.mark.parametrize("has_room", [True, False])
def test_a_job_cancelled_on_a_full_disk_does_not_start_again(
    tmpfs: Path, tmp_path: Path, has_room: bool
) -> None:
    settings, jobs, running, waiting = running_and_waiting(tmpfs, tmp_path)
    filler = fill(tmpfs)
    jobs.cancel((running if has_room else waiting).id, "anna")
    jobs.close()
    filler.unlink()
    again = Jobs(settings, work=endless)
    found = {one.id: one.state for one in again.of_client("anna")}
    again.close()
    if has_room:  # that of the result which was deleted
        assert found[running.id] == "cancelled"
    else:
        assert waiting.id not in found
