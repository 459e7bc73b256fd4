"""Slides that are put into a folder become jobs by themselves; their results are put beside it.

A slide is new if neither a job nor a folder of results has its name and size (of DICOM its series
and size), so that each is done once, also after a restart. The job is recorded first: what a killed
server leaves is completed.
"""

import csv
import json
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from glomerulab.apps.serve.errors import BusyError
from glomerulab.apps.serve.files import RESULTS, RESULTS_SUFFIX, find_result
from glomerulab.apps.serve.job_records import JobRecord, JobRequest, SlideRequest
from glomerulab.apps.serve.jobs import INBOX_CLIENT, Jobs
from glomerulab.errors import ConfigError
from glomerulab.i18n.catalogue import Language
from glomerulab.runtime.files import atomic_write, exclusive_lock, make_folder, size_and_mtime
from glomerulab.runtime.names import hashed_name, safe_name
from glomerulab.runtime.tables import not_a_formula
from glomerulab.slides.files import (
    DICOM_SUFFIXES,
    SLIDE_SUFFIXES,
    dicom_slides,
    slide_series,
)

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Seconds between two looks; a slide that did not change in between is complete."""
LOCK_FILE = ".server.lock"
SLIDE_FILE = "slide.json"
TABLE_FILE = "slides.csv"
COLUMNS = ("slide", "folder", "state", "error", "ended")
N_KEY = 8
N_SERIES_KEY = 16


class SlideState(NamedTuple):
    """A slide of the inbox at one look."""

    n_bytes: int
    changed: int
    """Newest time of change of its files."""
    series: str | None
    """Of DICOM."""


class Inbox:
    """The folder, watched by a thread."""

    def __init__(
        self, folder: Path, jobs: Jobs, *, language: Language = "en", every_s: float = LOOK_S
    ) -> None:
        self.folder = folder.resolve()
        self.results = self.folder.with_name(f"{self.folder.name}{RESULTS_SUFFIX}")
        self._jobs = jobs
        self._language = language
        self._every_s = every_s
        self._last: Mapping[str, SlideState] = {}
        self._written: set[str] = set()
        """Jobs whose results are in place."""
        root = jobs.settings.slides.root
        if not self.folder.is_dir() or (self.folder != root and root not in self.folder.parents):
            raise ConfigError(
                "--inbox must be the folder of --slides, or a folder within it", where=str(folder)
            )
        self._within = self.folder.relative_to(root)
        if not self.results.exists():
            make_folder(self.results)
            # Who may read the slides may read what is found on them.
            self.results.chmod(self.folder.stat().st_mode & 0o777)
        self._lock = ExitStack()
        busy = "another server watches this inbox; end it first"
        self._lock.enter_context(exclusive_lock(self.results / LOCK_FILE, busy=busy))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="inbox", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()
        self._lock.close()

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except Exception:  # such as a full disk; the next look may help
                log.exception("the inbox %s", self.folder)
            self._stop.wait(self._every_s)

    def _look(self) -> None:
        """Put the results of ended jobs in place, and queue slides that are new and complete."""
        records = {
            record.inbox_folder: record
            for record in self._jobs.of_client(INBOX_CLIENT)
            if record.inbox_folder is not None and self._is_here(record)
        }
        for name, record in records.items():
            with self._logged(name):
                self._write(self.results / name, record)
        now = dict(_slides(self.folder))
        complete = [name for name, state in now.items() if self._last.get(name) == state]
        self._last = now
        done = {*map(_identity, records), *(_identity(one.name) for one in self.results.iterdir())}
        for name in complete:
            with self._logged(name):
                place = self.results / _folder_name(name, now[name])
                if _identity(place.name) not in done:
                    self._add(name, place)
                    done.add(_identity(place.name))

    def _is_here(self, record: JobRecord) -> bool:
        """Whether a job is of this inbox: its slide is, or lies in a folder of several series."""
        path = Path(record.request.slides[0].path)
        is_series = path.suffix.lower() in DICOM_SUFFIXES
        return self._within in (path.parent, *([path.parent.parent] if is_series else []))

    @contextmanager
    def _logged(self, name: str) -> Iterator[None]:
        """Log what goes wrong with one slide, such as a name that is no text."""
        try:
            yield
        except BusyError:  # there is room again when some jobs have ended
            pass
        except Exception:
            log.exception("%r of the inbox %s", name, self.folder)

    def _add(self, name: str, place: Path) -> None:
        path = (self._within / name).as_posix()
        request = JobRequest(
            slides=(SlideRequest(path=path),), detect=True, language=self._language
        )
        self._write(place, self._jobs.add(request, INBOX_CLIENT, inbox_folder=place.name))

    def _write(self, place: Path, record: JobRecord) -> None:
        """Write what is known of a slide, ``slide.json`` last; nothing if that is in place."""
        if record.id in self._written:
            return
        known = _read(place)
        if known.get("job") != record.id or known.get("state") != record.state:
            make_folder(place)
            if record.state == "done":
                self._copy_results(place, record)
            facts = {
                "research_use_only": True,
                "slide": record.request.slides[0].path,
                "job": record.id,
                "state": record.state,
                "error": record.error,
                "ended": record.ended,
                "warnings": [] if record.outcome is None else list(record.outcome.warnings),
            }
            with atomic_write(place / SLIDE_FILE) as temporary:
                temporary.write_text(
                    json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
                )
            self._write_table()
        if record.is_ended:
            self._written.add(record.id)

    def _copy_results(self, place: Path, record: JobRecord) -> None:
        folder = self._jobs.result(record)
        for name in RESULTS:
            if (path := find_result(folder, name)) is not None:
                with atomic_write(place / name) as temporary:
                    shutil.copyfile(path, temporary)

    def _write_table(self) -> None:
        """Write ``slides.csv``: every slide with its folder, and why it failed."""
        rows = [
            {**_read(place), "folder": place.name}
            for place in sorted(self.results.iterdir())
            if (place / SLIDE_FILE).is_file()
        ]
        with (
            atomic_write(self.results / TABLE_FILE) as temporary,
            temporary.open("w", encoding="utf-8-sig", newline="") as stream,
        ):
            writer = csv.DictWriter(stream, COLUMNS, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(
                {name: not_a_formula(cell) for name, cell in row.items()} for row in rows
            )


def _slides(folder: Path) -> Iterator[tuple[str, SlideState]]:
    """Yield the slides of a folder, by name, with size and time of change of all their files."""
    for name, files in _files_of_slides(folder):
        try:
            found = [size_and_mtime(file) for file in files]
        except OSError:  # it is being moved
            continue
        n_bytes = sum(size for size, _ in found)
        if n_bytes:
            yield name, SlideState(n_bytes, max(time for _, time in found), _series(files))


def _series(files: Sequence[Path]) -> str | None:
    """Return the series of a DICOM slide; None for another slide, or a damaged one."""
    return slide_series(files) if files[0].suffix.lower() in DICOM_SUFFIXES else None


def _files_of_slides(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    for place in (folder, *sorted(folder.iterdir())):
        suffix = place.suffix.lower()
        if place != folder and place.name.startswith("."):
            continue
        try:
            if place.is_dir():
                for path, files in dicom_slides(place).items():
                    opened = files[0] if path == folder else path
                    yield opened.relative_to(folder).as_posix(), files
            elif suffix in SLIDE_SUFFIXES and suffix not in DICOM_SUFFIXES:
                # A slide of MIRAX is a file and the folder of its name.
                yield place.name, [place, *place.with_suffix("").glob("*")]
        except OSError:  # it is being moved
            continue


def _folder_name(name: str, state: SlideState) -> str:
    """Return the folder of a slide's results; one that grew since has another."""
    if state.series is not None:
        return f"{safe_name(name)}-{hashed_name(f'{state.series} {state.n_bytes}')}"
    return f"{safe_name(name)}-{hashed_name(f'{name} {state.n_bytes}')[:N_KEY]}"


def _identity(folder: str) -> str:
    """Return what stays of a folder's name whatever lies beside the slide: of DICOM, the hash."""
    key = folder.rpartition("-")[2]
    return key if len(key) == N_SERIES_KEY else folder


def _read(place: Path) -> dict[str, Any]:
    """Return what ``slide.json`` of a folder holds; nothing if it is missing or damaged."""
    try:
        found = json.loads((place / SLIDE_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
