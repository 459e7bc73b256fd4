import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from glomerulab.apps.serve.errors import BusyError, JobStateError
from glomerulab.apps.serve.files import SlideFolder
from glomerulab.apps.serve.job_process import JobTask
from glomerulab.apps.serve.job_records import (
    JobFolder,
    JobProgress,
    JobRecord,
    JobRequest,
    JobResult,
    SlideRequest,
)
from glomerulab.apps.serve.jobs import Jobs
from glomerulab.apps.serve.settings import JobSettings, Limits
from glomerulab.apps.web.error_handlers import UNEXPECTED
from glomerulab.errors import OutputError, UnknownRecordError

REQUEST = JobRequest(slides=(SlideRequest(path="a.tif"),), regions="a.geojson")


# Work that other processes find by name: what a job does is tested with job_process.


def quick(task: JobTask) -> None:
    JobFolder(task.folder).write_outcome(JobResult(n_images=3, n_referred=1))


def failing(task: JobTask) -> None:
    JobFolder(task.folder).write_outcome(JobResult(error="no such slide"))


def endless(task: JobTask) -> None:
    folder = JobFolder(task.folder)
    folder.result.mkdir()
    (folder.result / "half.png").write_text("half")
    folder.write_progress(JobProgress(stage="Cutting crops", done=1, total=9))
    time.sleep(600)


def shot(_task: JobTask) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def losing_its_folder(task: JobTask) -> None:
    """Leave a place where nothing can be written down, as on a full disk."""
    shutil.rmtree(task.folder)
    task.folder.write_text("")


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    (tmp_path / "slides").mkdir()
    return JobSettings(tmp_path / "jobs", tmp_path / "run", SlideFolder(tmp_path / "slides"))


def until(jobs: Jobs, job_id: str, *states: str) -> JobRecord:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        record = jobs.get(job_id, "anna")
        if record.state in states and (record.state != "running" or jobs.progress(record)):
            return record
        time.sleep(0.01)
    raise AssertionError(record)


def test_a_job_is_done_and_kept(settings):
    jobs = Jobs(settings, work=quick)
    record = jobs.add(REQUEST, "anna")
    done = until(jobs, record.id, "done")
    assert done.outcome == JobResult(n_images=3, n_referred=1)
    assert done.ended >= done.started >= done.created
    assert jobs.counts()["done"] == 1
    jobs.close()
    again = Jobs(settings, work=endless)
    assert again.get(record.id, "anna") == done
    again.delete(record.id, "anna")
    again.close()
    assert not (settings.folder / record.id).exists()


def test_a_failed_job_reports_its_reason_and_the_next_one_is_done(settings):
    jobs = Jobs(settings, work=failing)
    record = jobs.add(REQUEST, "anna")
    assert until(jobs, record.id, "failed").error == "no such slide"
    with pytest.raises(JobStateError, match="failed"):
        jobs.result(jobs.get(record.id, "anna"))
    jobs._work = shot
    second = jobs.add(REQUEST, "anna")
    assert "exit code -9" in until(jobs, second.id, "failed").error
    jobs._work = quick
    assert until(jobs, jobs.add(REQUEST, "anna").id, "done").n_starts == 1
    jobs.close()


def test_a_cancelled_job_leaves_nothing_of_its_work(settings):
    jobs = Jobs(settings, work=endless)
    record, waiting = jobs.add(REQUEST, "anna"), jobs.add(REQUEST, "anna")
    until(jobs, record.id, "running")
    assert jobs.cancel(waiting.id, "anna").state == "cancelled"
    assert jobs.cancel(record.id, "anna").state == "cancelled"
    with pytest.raises(JobStateError, match="already cancelled"):
        jobs.cancel(record.id, "anna")
    jobs.close()
    for one in (record, waiting):
        folder = settings.folder / one.id
        assert [path.name for path in folder.iterdir()] == ["job.json"]
        assert JobFolder(folder).read().state == "cancelled"


def test_a_job_can_be_forgotten_only_when_it_has_ended(settings):
    jobs = Jobs(settings, work=endless)
    record = jobs.add(REQUEST, "anna")
    until(jobs, record.id, "running")
    with pytest.raises(JobStateError, match="cancel it first"):
        jobs.delete(record.id, "anna")
    jobs.cancel(record.id, "anna")
    jobs.delete(record.id, "anna")
    jobs.close()
    assert [path for path in settings.folder.iterdir() if path.is_dir()] == []


def test_a_stopped_server_resumes_its_job(settings):
    jobs = Jobs(settings, work=endless)
    record = jobs.add(REQUEST, "anna")
    until(jobs, record.id, "running")
    jobs.close()
    assert JobFolder(settings.folder / record.id).read().state == "running"
    again = Jobs(settings, work=quick)
    assert until(again, record.id, "done").n_starts == 2
    again.close()


def test_a_job_that_repeatedly_kills_the_server_fails(settings):
    folder = JobFolder(settings.folder / ("0" * 16))
    folder.make()
    folder.write(
        JobRecord(
            id="0" * 16, client="anna", request=REQUEST, created="2026", state="running", n_starts=3
        )
    )
    jobs = Jobs(settings, work=quick)
    record = jobs.get("0" * 16, "anna")
    jobs.close()
    assert record.state == "failed"
    assert "3 times" in record.error


def test_a_cancelled_job_whose_server_was_killed_at_once_is_cleared_up(settings):
    folder = JobFolder(settings.folder / ("0" * 16))
    folder.make()
    folder.result.mkdir()
    record = JobRecord(
        id="0" * 16, client="anna", request=REQUEST, created="2026", state="cancelled"
    )
    folder.write(record)
    Jobs(settings, work=quick).close()
    assert not folder.result.exists()


def test_a_job_that_takes_too_long_is_ended(settings):
    jobs = Jobs(settings, Limits(job_s=0.5), work=endless)
    record = jobs.add(REQUEST, "anna")
    assert "hours" in until(jobs, record.id, "failed").error
    jobs.close()
    assert not (settings.folder / record.id / "result").exists()


def test_too_many_jobs_of_one_client_and_of_all_are_rejected(settings):
    jobs = Jobs(settings, Limits(jobs_per_client=2, jobs_waiting=3), work=endless)
    for _ in range(2):
        jobs.add(REQUEST, "anna")
    with pytest.raises(BusyError) as own:
        jobs.add(REQUEST, "anna")
    jobs.add(REQUEST, "bo")
    with pytest.raises(BusyError) as all_of_them:
        jobs.add(REQUEST, "chen")
    jobs.close()
    assert (own.value.status, all_of_them.value.status) == (429, 503)


def test_a_job_is_seen_by_the_client_that_started_it_alone(settings):
    jobs = Jobs(settings, work=quick)
    record = jobs.add(REQUEST, "anna")
    for act in (jobs.get, jobs.cancel, jobs.delete):
        with pytest.raises(UnknownRecordError):
            act(record.id, "bo")
    assert jobs.of_client("bo") == []
    assert [one.id for one in jobs.of_client("anna")] == [record.id]
    jobs.close()


def test_a_second_server_cannot_use_the_folder(settings):
    jobs = Jobs(settings, work=quick)
    with pytest.raises(OutputError, match="another server"):
        Jobs(settings, work=quick)
    jobs.close()
    Jobs(settings, work=quick).close()


def test_unrelated_entries_in_the_folder_are_ignored(settings):
    (settings.folder / "notes").mkdir(parents=True)
    (settings.folder / "a.txt").write_text("x")
    (settings.folder / ("1" * 16)).mkdir()
    (settings.folder / ("1" * 16) / "job.json").write_text("{broken")
    jobs = Jobs(settings, work=quick)
    assert jobs.of_client("anna") == []
    jobs.close()
    assert (settings.folder / ("1" * 16) / "job.json").read_text() == "{broken"


def test_the_error_of_a_failed_job_contains_no_server_path(settings, monkeypatch):
    jobs = Jobs(settings, work=quick)

    def full(_record):
        raise OutputError("cannot write: No space left on device", where="/data/jobs/1")

    monkeypatch.setattr(jobs, "_run", full)
    error = until(jobs, jobs.add(REQUEST, "anna").id, "failed").error
    assert error == "the server could not run the job: cannot write: No space left on device"
    jobs.close()


def test_a_job_cancelled_and_forgotten_at_once_stops_no_other_and_leaves_nothing(settings):
    jobs = Jobs(settings, work=endless)
    for _ in range(3):
        record = jobs.add(REQUEST, "anna")
        while jobs.get(record.id, "anna").state != "running":
            time.sleep(0.0005)
        jobs.cancel(record.id, "anna")  # before its process runs, most often
        jobs.delete(record.id, "anna")
    jobs._work = quick
    assert until(jobs, jobs.add(REQUEST, "anna").id, "done").n_starts == 1
    jobs.close()
    assert len([path for path in settings.folder.iterdir() if path.is_dir()]) == 1


def test_an_unexpected_error_fails_one_job_and_not_the_next(settings, monkeypatch):
    jobs = Jobs(settings, work=quick)
    run_job = jobs._run

    def broken(_record):
        monkeypatch.setattr(jobs, "_run", run_job)
        raise ValueError("/data/jobs/1")

    monkeypatch.setattr(jobs, "_run", broken)
    first = jobs.add(REQUEST, "anna")
    error = until(jobs, first.id, "failed").error
    assert error == f"the server could not run the job: {UNEXPECTED}"
    until(jobs, jobs.add(REQUEST, "anna").id, "done")
    jobs.close()


def test_a_job_whose_outcome_cannot_be_written_is_not_reported_as_running(settings):
    jobs = Jobs(settings, work=losing_its_folder)
    record = until(jobs, jobs.add(REQUEST, "anna").id, "failed")
    assert record.error.startswith("the server could not run the job: ")
    assert record.ended is not None
    jobs.close()
