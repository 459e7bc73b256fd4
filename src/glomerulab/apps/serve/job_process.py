"""The process of one job, so that a crash does not reach the server.

It ends when the server ends; started again, `predict` resumes.
"""

import csv
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from glomerulab.apps.serve.files import FAILURES_FILE, REPORTS_FOLDER, SlideFolder, pack_results
from glomerulab.apps.serve.job_records import (
    JobFolder,
    JobProgress,
    JobRequest,
    JobResult,
    with_field_names,
)
from glomerulab.cases.case_folder import rewrite_facts
from glomerulab.errors import CheckpointError, ConfigError, GlomerulabError
from glomerulab.runtime.files import atomic_write, exclusive_lock, make_folder
from glomerulab.runtime.parallel import end_with_parent
from glomerulab.runtime.progress import Description
from glomerulab.structures.summary import STRUCTURES_FOLDER, SUMMARY_FILE

if TYPE_CHECKING:
    from glomerulab.inference.detector import Detector

Item = TypeVar("Item")

SECONDS_BETWEEN_REPORTS = 0.3
NICENESS = 5
"""Added niceness, so that crop requests go first."""
SLIDES_FILE = "slides.csv"
LOCK_FILE = ".lock"
NO_DETECTOR = (
    "this server has no segmenter to outline glomeruli (`detect`); give `regions`, or let its "
    "operator start it with --detector RUN"
)
END_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class JobTask:
    """Arguments of the process."""

    folder: Path
    request: JobRequest
    run: Path
    slides: Path
    n_workers: int
    fingerprint: str | None = None
    """Of the model that the server loaded."""
    detector: Path | None = None
    """Folder of the segmenter that outlines glomeruli."""
    detector_sha256: str | None = None
    """Of the weights that the server loaded."""
    references: Path | None = None
    """Folder with a picture of each label."""


def run_job_process(task: JobTask) -> None:
    """Entry point of a job's process."""
    end_with_parent()
    os.setsid()  # so that cancelling also ends the job's workers
    os.nice(NICENESS)
    # The process of a killed server may still be ending.
    with exclusive_lock(task.folder / LOCK_FILE):
        run_job(task)


def end_process(process: BaseProcess) -> None:
    """Terminate a job's process and its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not process.is_alive():
            break
        try:
            os.killpg(process.pid or 0, number)
        except (ProcessLookupError, PermissionError):  # setsid has not run yet
            process.kill()
        process.join(END_S)


def run_job(task: JobTask) -> None:
    """Predict the slides of a job, write its report, and record the outcome."""
    folder = JobFolder(task.folder)
    try:
        outcome = _predict(task, folder)
    except GlomerulabError as error:
        outcome = JobResult(error=_client_wording(str(error), task))
    folder.write_outcome(outcome)


def _predict(task: JobTask, folder: JobFolder) -> JobResult:
    from glomerulab.pipeline.predict import predict
    from glomerulab.pipeline.predict_inputs import PredictSettings
    from glomerulab.reports.case.write import write_case_reports

    allowed = SlideFolder(task.slides)
    regions = task.request.regions
    settings = PredictSettings(
        regions=None if regions is None else allowed.find(regions),
        detector=_detector(task) if task.request.detect else None,
        margin=task.request.margin,
        n_workers=task.n_workers,
        region_options=task.request.region_options(),
    )
    table = _write_slides(task, allowed)
    track = _FileTrack(folder)
    summary = predict(
        table,
        task.run,
        folder.result,
        settings=settings,
        fingerprint=task.fingerprint,
        track=track,
    )
    summaries = (folder.result / STRUCTURES_FOLDER).glob(f"*/{SUMMARY_FILE}")
    for path in (folder.result / FAILURES_FILE, *summaries):
        _translate_file(path, task)
    rewrite_facts(folder.result, partial(_client_wording, task=task))
    write_case_reports(
        folder.result,
        folder.result / REPORTS_FOLDER,
        formats=["html"],
        language=task.request.language,
        slides=table,
        references=task.references,
        track=track,
    )
    pack_results(folder.result)
    lines = (line.removeprefix("warning: ") for line in summary.region_lines)
    return JobResult(
        n_images=summary.n_images,
        n_referred=summary.n_referred,
        n_failures=len(summary.failures),
        warnings=tuple(_client_wording(line, task) for line in lines),
    )


def _detector(task: JobTask) -> "Detector":
    """Open the segmenter, unless it is another than the server loaded."""
    from glomerulab.inference.detector import open_detector

    if task.detector is None:  # of an earlier start
        raise ConfigError(NO_DETECTOR)
    detector = open_detector(task.detector)
    if detector.facts.weights_sha256 != task.detector_sha256:
        raise CheckpointError(
            "the segmenter in this folder is not the one that the server loaded; restart the "
            "server",
            where=str(task.detector),
        )
    return detector


def _write_slides(task: JobTask, allowed: SlideFolder) -> Path:
    """Write the slides table of the request; paths are checked again before they are opened."""
    path = make_folder(task.folder) / SLIDES_FILE
    rows = [
        (
            str(allowed.find(slide.path)),
            task.request.patient or "",
            slide.stain or "",
            "" if slide.mpp is None else repr(slide.mpp),
        )
        for slide in task.request.slides
    ]
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("slide_path", "patient_id", "stain", "mpp"))
        writer.writerows(rows)
    return path


def _translate_file(path: Path, task: JobTask) -> None:
    """Rewrite a table of failures, or a summary, with the client's names."""
    if not path.is_file():
        return
    text = _client_wording(path.read_text(encoding="utf-8"), task)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _client_wording(text: str, task: JobTask) -> str:
    """Replace server paths and command line options by the client's names."""
    text = text.replace(f"{task.folder / SLIDES_FILE}: ", "")
    places = [task.slides.resolve(), task.folder, task.folder.resolve(), task.run]
    for place in (*places, *filter(None, (task.detector, task.references))):
        text = text.replace(f"{place}/", "").replace(str(place), place.name)
    return with_field_names(text)


class _FileTrack:
    """A `Track` that writes ``progress.json``."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._last = 0.0

    def __call__(
        self, items: Iterable[Item], description: Description, total: int | None = None
    ) -> Iterator[Item]:
        """Yield every item, and write the progress at intervals."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        stage = description if isinstance(description, str) else description()
        self._report(stage, 0, total, at_once=True)
        for n_done, item in enumerate(items, start=1):
            yield item
            self._report(stage, n_done, total)

    def _report(self, stage: str, done: int, total: int | None, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._last >= SECONDS_BETWEEN_REPORTS:
            self._last = now
            self._folder.write_progress(JobProgress(stage=stage, done=done, total=total))
