"""The job queue: kept on disk, started by one thread, one process per job."""

import datetime as dt
import logging
import multiprocessing
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from glomerulab.apps.serve.errors import BusyError, JobStateError
from glomerulab.apps.serve.job_process import JobTask, end_process, run_job_process
from glomerulab.apps.serve.job_records import JobFolder, JobProgress, JobRecord, JobRequest
from glomerulab.apps.serve.settings import JobSettings, Limits
from glomerulab.apps.web.error_handlers import UNEXPECTED
from glomerulab.errors import GlomerulabError, OutputError, UnknownRecordError
from glomerulab.runtime.files import exclusive_lock, make_folder

log = logging.getLogger(__name__)

LOCK_FILE = ".server.lock"
POLL_S = 0.1
MAX_ID_LENGTH = 40
"""Of an unknown id in a message."""
INBOX_CLIENT = "(inbox)"
"""Of the jobs of the inbox, which every client sees; no key can have this name."""
GIVEN_UP = (
    "the server ended {n} times during this job, which is given up, since the job may be the "
    "cause; see the server's log"
)


class Jobs:
    """Queue, run, cancel and delete jobs; thread-safe."""

    def __init__(
        self,
        settings: JobSettings,
        limits: Limits | None = None,
        *,
        work: Callable[[JobTask], None] = run_job_process,
    ) -> None:
        self.settings = replace(settings, folder=make_folder(settings.folder).resolve())
        self.limits = limits or Limits()
        self._work = work
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._stopping = False
        self._running: tuple[str, BaseProcess] | None = None
        self._server_lock = _lock_folder(self.settings.folder)
        self._records = self._load_records()
        self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that starts jobs is running."""
        return self._thread.is_alive()

    def add(
        self, request: JobRequest, client: str, *, inbox_folder: str | None = None
    ) -> JobRecord:
        """Queue a job."""
        with self._lock:
            waiting = [record for record in self._records.values() if not record.is_ended]
            n_own = sum(record.client == client for record in waiting)
            if n_own >= self.limits.jobs_per_client:
                raise BusyError(
                    f"{n_own} of your jobs are waiting; try again when one has ended",
                    status=429,
                    wait_s=60,
                )
            if len(waiting) >= self.limits.jobs_waiting:
                raise BusyError(
                    f"{len(waiting)} jobs are waiting; try again later", status=503, wait_s=60
                )
            record = JobRecord(
                id=secrets.token_hex(8),
                client=client,
                request=request,
                created=_now(),
                inbox_folder=inbox_folder,
            )
            folder = self._folder(record.id)
            folder.make()
            folder.write(record)
            self._records[record.id] = record
        self._changed.set()
        return record

    def of_client(self, client: str) -> list[JobRecord]:
        """Return a client's jobs and those of the inbox, the newest first."""
        seen = {client, INBOX_CLIENT}
        with self._lock:
            own = [record for record in self._records.values() if record.client in seen]
        return sorted(own, key=lambda record: record.created, reverse=True)

    def get(self, job_id: str, client: str) -> JobRecord:
        """Return a job."""
        with self._lock:
            record = self._records.get(job_id)
        if record is None or record.client not in {client, INBOX_CLIENT}:
            raise UnknownRecordError(
                f"there is no job {job_id[:MAX_ID_LENGTH]!r} of this client; GET /v1/jobs lists "
                "its jobs"
            )
        return record

    def progress(self, record: JobRecord) -> JobProgress | None:
        """Return the progress of a running job."""
        return self._folder(record.id).read_progress() if record.state == "running" else None

    def result(self, record: JobRecord) -> Path:
        """Return the folder of a finished job's predictions and reports."""
        if record.state != "done":
            raise JobStateError(f"the job is {record.state}; only a job that is done has a result")
        return self._folder(record.id).result

    def cancel(self, job_id: str, client: str) -> JobRecord:
        """Cancel a job that has not ended, and delete its files."""
        with self._lock:
            record = self.get(job_id, client)
            if record.is_ended:
                raise JobStateError(f"the job is already {record.state} and cannot be cancelled")
            record = record.model_copy(update={"state": "cancelled", "ended": _now()})
            # Persist the state before killing the process.
            is_kept = self._keep(record)
            running = self._running
        if running is not None and running[0] == job_id:
            end_process(running[1])
        folder = self._folder(job_id)
        folder.delete_files()
        with self._lock:
            # On a full disk there may be room now; a job without a record does not start again.
            if not is_kept and job_id in self._records and not self._keep(record):
                folder.delete_record()
        return record

    def delete(self, job_id: str, client: str) -> None:
        """Delete a job that has ended, with its result."""
        with self._lock:
            record = self.get(job_id, client)
            if not record.is_ended:
                raise JobStateError(f"the job is {record.state}; cancel it first")
            del self._records[job_id]
        self._folder(job_id).remove()

    def counts(self) -> dict[str, int]:
        """Return the number of jobs by state."""
        found = dict.fromkeys(("queued", "running", "done", "failed", "cancelled"), 0)
        with self._lock:
            for record in self._records.values():
                found[record.state] += 1
        return found

    def close(self) -> None:
        """Stop; a running job resumes at the next start."""
        self._stopping = True
        self._changed.set()
        self._thread.join()
        self._server_lock()

    def _folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.settings.folder / job_id)

    def _load_records(self) -> dict[str, JobRecord]:
        """Read the jobs of an earlier server, and queue interrupted ones again."""
        records = {}
        for path in sorted(self.settings.folder.iterdir()):
            record = JobFolder(path).read() if path.is_dir() else None
            if record is None or record.id != path.name:
                continue
            if record.state == "cancelled":
                JobFolder(path).delete_files()
            elif record.state == "running":
                record = self._requeue(record)
            records[record.id] = record
        return records

    def _requeue(self, record: JobRecord) -> JobRecord:
        if record.n_starts >= self.limits.job_starts:
            error = GIVEN_UP.format(n=record.n_starts)
            record = record.model_copy(update={"state": "failed", "error": error, "ended": _now()})
        else:
            log.warning("job %s was interrupted and is queued again", record.id)
            record = record.model_copy(update={"state": "queued"})
        self._folder(record.id).write(record)
        return record

    def _update(self, record: JobRecord, **changes: object) -> JobRecord:
        changed = record.model_copy(update=changes)
        self._folder(record.id).write(changed)
        self._records[record.id] = changed
        return changed

    def _keep(self, record: JobRecord) -> bool:
        """Set the record of a job; return whether it could also be written, as to a full disk."""
        self._records[record.id] = record
        try:
            self._folder(record.id).write(record)
        except OutputError:
            log.exception("the record of job %s could not be written", record.id)
            return False
        return True

    def _loop(self) -> None:
        while not self._stopping:
            self._changed.clear()
            record = self._begin_next()
            if record is None:
                self._changed.wait(timeout=5.0)
                continue
            try:
                self._run(record)
            except Exception as error:  # such as a full disk; the next job must still run
                log.exception("job %s", record.id)
                self._fail(record.id, f"the server could not run the job: {_public_message(error)}")

    def _begin_next(self) -> JobRecord | None:
        with self._lock:
            queued = [record for record in self._records.values() if record.state == "queued"]
            if not queued or self._stopping:
                return None
            # Somebody waits for the job of a client; those of the inbox come after.
            oldest = min(
                queued,
                key=lambda one: (one.inbox_folder is not None, one.created, one.id),
            )
            try:
                return self._update(
                    oldest, state="running", started=_now(), n_starts=oldest.n_starts + 1
                )
            except OutputError:
                log.exception("job %s could not be started", oldest.id)
                return None

    def _run(self, record: JobRecord) -> None:
        folder = self._folder(record.id)
        folder.delete_outcome()
        settings = self.settings
        task = JobTask(
            folder.path,
            record.request,
            settings.run,
            settings.slides.root,
            settings.n_workers,
            settings.fingerprint,
            settings.detector,
            settings.detector_sha256,
            settings.references,
        )
        # Spawned: torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=self._work, args=(task,), name=f"job {record.id}")
        process.start()
        with self._lock:
            self._running = (record.id, process)
        ended_in_time = self._wait(process, record.id)
        end_process(process)
        with self._lock:
            self._running = None
            current = self._records.get(record.id)
            if current is None:  # cancelled and deleted meanwhile
                folder.remove()
                return
            if current.state != "running":  # cancelled meanwhile
                folder.delete_files()
                return
            if self._stopping and ended_in_time is None:
                return  # still recorded as running: queued again at the next start
            self._conclude(record, folder, process.exitcode, in_time=ended_in_time is True)

    def _wait(self, process: BaseProcess, job_id: str) -> bool | None:
        """Wait for the process: True if it ended, False on timeout, None if the server stops."""
        deadline = time.monotonic() + self.limits.job_s
        while process.is_alive():
            process.join(POLL_S)
            if self._stopping:
                return None
            record = self._records.get(job_id)
            if record is None or record.state != "running":  # cancelled, perhaps deleted
                return True
            if time.monotonic() > deadline:
                return False
        return True

    def _conclude(
        self, record: JobRecord, folder: JobFolder, exit_code: int | None, *, in_time: bool
    ) -> None:
        outcome = folder.read_outcome()
        if outcome is not None and outcome.error is None:
            self._update(record, state="done", outcome=outcome, ended=_now())
            return
        if outcome is not None:
            reason = outcome.error
        elif in_time:
            reason = (
                f"the job's process ended with exit code {exit_code} and no outcome, most often "
                "because memory ran out; see the server's log"
            )
        else:
            reason = f"the job was not done within {self.limits.job_s / 3600:g} hours"
        self._update(record, state="failed", error=reason, ended=_now())
        folder.delete_files()

    def _fail(self, job_id: str, reason: str) -> None:
        with self._lock:
            record = self._records.get(job_id)
            if record is None or record.is_ended:
                return
            # Kept in memory even if the disk is full: the next start then queues the job again.
            changes = {"state": "failed", "error": reason, "ended": _now()}
            self._keep(record.model_copy(update=changes))


def _public_message(error: Exception) -> str:
    """Return the part of an error that a client may see: `where` could be a server path."""
    if isinstance(error, GlomerulabError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return UNEXPECTED


def _lock_folder(folder: Path) -> Callable[[], None]:
    """Lock the folder against a second server; return the function that unlocks it."""
    lock = ExitStack()
    busy = "another server uses this jobs folder; give another --jobs"
    lock.enter_context(exclusive_lock(folder / LOCK_FILE, busy=busy))
    return lock.close


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
