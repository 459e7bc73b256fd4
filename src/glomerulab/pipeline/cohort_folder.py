"""The folder of a cohort: one folder for each case, and what became of it.

``cohort.json`` holds the settings, ``cases.parquet`` the cases in their order, ``cases/<name>/``
what ``predict`` wrote, and ``status/`` small files whose names say everything that a run needs:

- ``<name>.done.json`` and ``<name>.failed.json`` end a case,
- ``<name>.claim`` is held by the process that works on it,
- ``<name>.attempts`` grows by a byte at each start, so that a case that ends its process each time
  becomes a failure.

Claims are made by exclusive creation and ends by renaming, which hold on network file systems,
where locks and databases do not.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import pandas as pd
from pandas.api.types import infer_dtype
from pyarrow import ArrowException
from pydantic import BaseModel, ConfigDict, ValidationError

from glomerulab.cases.case_folder import CASE_FILE
from glomerulab.errors import OutputError
from glomerulab.runtime.files import (
    atomic_write,
    is_running,
    make_folder,
    output_errors,
    private_opener,
    read_content,
    read_json,
    remove_partial_files,
)
from glomerulab.runtime.messages import count_noun
from glomerulab.runtime.parallel import N_ATTEMPTS
from glomerulab.runtime.resume import changed_settings, describe_changes

__all__ = ["CaseCounts", "CohortFolder", "State", "Status"]

State = Literal["done", "failed", "running", "pending"]

COHORT_FILE = "cohort.json"
CASES_TABLE = "cases.parquet"
CASES_FOLDER = "cases"
STATUS_FOLDER = "status"
BEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
"""A claim that was not renewed for so long is that of a process which was killed elsewhere."""
WAY_OUT = "choose another --out"


class CaseCounts(BaseModel):
    """What is known of a case that ended; zeros and nothing of one that failed."""

    model_config = ConfigDict(frozen=True)

    seconds: float = 0
    synthetic: bool = False
    """Whether any image was rendered by a program."""
    slides: int = 0
    images: int = 0
    glomeruli: int = 0
    referred: int = 0
    """Images that a person must look at."""
    failures: int = 0
    """Slides, regions and images without a call."""
    grades: dict[str, str] = {}
    """By item; empty: not assessed, ``?``: several are possible."""
    traceback: str = ""
    """Of an unexpected error."""


class Status(BaseModel):
    """How a case ended."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Of its folder and files."""
    case: str
    """Patient; the slide or image where none is known."""
    state: Literal["done", "failed"]
    reason: str
    """Why it failed; empty if it did not."""
    facts: CaseCounts


class _CohortRecord(BaseModel):
    """What ``cohort.json`` holds."""

    format: Literal[1]
    created: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class CohortFolder:
    """The folder of a cohort."""

    folder: Path

    def record(self) -> _CohortRecord:
        """Return what ``cohort.json`` holds.

        Raises
        ------
        OutputError
            If the folder is not that of a cohort.
        """
        found = read_json(
            self.folder / COHORT_FILE,
            COHORT_FILE,
            error=OutputError,
            way_out="give the folder that `glomerulab predict --cohort` wrote",
        )
        try:
            return _CohortRecord.model_validate(found)
        except ValidationError as error:
            raise OutputError(
                f"{COHORT_FILE} is damaged or was written by another version; {WAY_OUT}",
                where=str(self.folder),
            ) from error

    def begin(self, settings: dict[str, Any], cases: pd.DataFrame, *, created: str) -> str:
        """Record a new cohort, or continue the one in the folder; return when it was created.

        Parameters
        ----------
        settings : dict
            JSON values that determine the results.
        cases : DataFrame
            ``case``, ``name`` and ``source``, a hash of what the case is made of.

        Raises
        ------
        OutputError
            If the folder holds something else, a cohort with other settings, or a case that is
            done and is not in `cases` or was made of something else.
        """
        if (self.folder / CASE_FILE).exists():
            raise OutputError(
                f"this folder holds predictions that are no cohort; {WAY_OUT}",
                where=str(self.folder),
            )
        for name in (STATUS_FOLDER, CASES_FOLDER):
            make_folder(self.folder / name)
        remove_partial_files(self.folder / STATUS_FOLDER)
        path = self.folder / COHORT_FILE
        if not path.exists():
            record = _CohortRecord(format=1, created=created, settings=settings)
            _write_once(path, record.model_dump_json(indent=1))
        known = self.record()
        changes = changed_settings(known.settings, settings)
        if changes:
            raise OutputError(
                f"this folder holds a cohort with other settings ({describe_changes(changes)}); "
                f"{WAY_OUT}",
                where=str(self.folder),
            )
        self._check_unchanged(cases)
        with atomic_write(self.folder / CASES_TABLE) as temporary:
            cases.to_parquet(temporary, index=False)
        return known.created

    def cases(self) -> pd.DataFrame:
        """Return the cases in their order: ``case``, ``name``, ``source``."""
        self.record()
        path = self.folder / CASES_TABLE
        try:
            table = pd.read_parquet(path, columns=["case", "name", "source"])
            kinds = {infer_dtype(table[name], skipna=False) for name in table}
        except (OSError, ValueError, KeyError, TypeError, ArrowException):
            kinds = {"unreadable"}
        if not kinds <= {"string", "empty"}:
            raise OutputError(
                "the table of the cases is missing or damaged; delete it if it is there, and run "
                "the same `glomerulab predict` again",
                where=str(path),
            )
        return table

    def states(self) -> dict[str, State]:
        """Return the state of every case that is not pending, from the names of the files alone."""
        found: dict[str, State] = {}
        if not (self.folder / STATUS_FOLDER).is_dir():
            self.record()
            return found
        with os.scandir(self.folder / STATUS_FOLDER) as entries:
            for entry in entries:
                for suffix, state in _STATES.items():
                    if entry.name.endswith(suffix):
                        name = entry.name.removesuffix(suffix)
                        if found.get(name) not in {"done", "failed"}:
                            found[name] = state
        return found

    def case_folder(self, name: str) -> Path:
        """Return the folder of a case."""
        return self.folder / CASES_FOLDER / name

    def status(self, name: str) -> Status | None:
        """Return how a case ended; None if it did not."""
        for state in ("done", "failed"):
            path = self._file(name, f".{state}.json")
            if path.is_file():
                content = read_content(path, "status of the case", error=OutputError)
                try:
                    return Status.model_validate(json.loads(content) | {"name": name})
                except (ValueError, TypeError, RecursionError) as error:
                    raise OutputError(
                        "the status of the case is damaged; delete it, and run the same "
                        "`glomerulab predict` again",
                        where=str(path),
                    ) from error
        return None

    def finish(self, case: str, name: str, facts: CaseCounts) -> None:
        """Record that a case is done."""
        self._end(Status(name=name, case=case, state="done", reason="", facts=facts))

    def fail(self, case: str, name: str, reason: str, facts: CaseCounts) -> None:
        """Record that a case failed; it stays so until `retry`."""
        self._end(Status(name=name, case=case, state="failed", reason=reason, facts=facts))

    def retry(self, names: Sequence[str]) -> None:
        """Make failed cases pending."""
        with output_errors("the cases cannot be made pending", self.folder):
            for name in names:
                for suffix in (".attempts", ".failed.json"):
                    self._file(name, suffix).unlink(missing_ok=True)

    @contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Hold the claim on a case; yield False if another process has it.

        The claim is renewed while the block runs. One whose process was killed is taken over: at
        once on the same machine, elsewhere after five minutes without renewal.
        """
        path, mine = self._file(name, ".claim"), _new_claim()
        is_mine = _claim(path, mine)
        stale = None if is_mine else _stale_claim(path)
        if stale is not None:
            _remove_stale(path, stale)
            is_mine = _claim(path, mine)
        if not is_mine:
            yield False
            return
        ended = Event()
        beat = Thread(target=_renew, args=(path, ended), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            ended.set()
            beat.join()
            # One that was suspended for long may have lost its claim to another process.
            if _read_claim(path) == mine:
                path.unlink(missing_ok=True)

    @contextmanager
    def attempt(self, name: str) -> Iterator[int]:
        """Count an attempt at a case whose claim is held, and yield its number.

        Only what kills the process stays counted.
        """
        path = self._file(name, ".attempts")
        with (
            output_errors("the attempt cannot be counted", path),
            open(path, "ab", opener=private_opener) as file,
        ):
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())
            number = file.tell()
        try:
            yield number
        finally:
            path.unlink(missing_ok=True)

    def _end(self, status: Status) -> None:
        record = status.model_dump_json(exclude={"name"}, exclude_unset=True)
        with atomic_write(self._file(status.name, f".{status.state}.json")) as temporary:
            temporary.write_text(record + "\n", encoding="utf-8")

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / STATUS_FOLDER / f"{name}{suffix}"

    def _check_unchanged(self, cases: pd.DataFrame) -> None:
        """Refuse a table that lacks cases that are done, or has them of other slides or images."""
        if not (self.folder / CASES_TABLE).exists():
            return
        before = self.cases().set_index("name")["source"]
        now = cases.set_index("name")["source"].reindex(before.index)
        differ = before.index[(before != now).to_numpy(dtype=bool)]
        states = self.states() if len(differ) else {}
        done = [name for name in differ if states.get(name) == "done"]
        if not done:
            return
        gone = [name for name in done if pd.isna(now[name])]
        what = "not in the table now" if gone else "made of other slides or images"
        listed = gone or done
        raise OutputError(
            f"{count_noun(len(listed), 'case')} of this folder that is done was {what}, first "
            f"{listed[0]!r}; {WAY_OUT}",
            where=str(self.folder),
        )


_STATES: dict[str, State] = {
    ".done.json": "done",
    ".failed.json": "failed",
    ".claim": "running",
}


def too_often() -> str:
    """Return why a case failed whose process was killed each time."""
    return (
        f"its process was killed {N_ATTEMPTS} times, most often because the memory or the walltime "
        "ran out; look at its slides, then `glomerulab cohort retry`"
    )


def _write_once(path: Path, text: str) -> None:
    """Write a file unless another process did it first."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with output_errors("the file cannot be written", path):
            with open(temporary, "w", encoding="utf-8", opener=private_opener) as file:
                file.write(text + "\n")
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links: the last one counts for all
                temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _new_claim() -> str:
    """Return what a claim holds: machine, process, and a number that tells it from others."""
    return f"{_this_host()}\n{os.getpid()}\n{secrets.token_hex(8)}\n"


def _claim(path: Path, content: str) -> bool:
    with output_errors("the case cannot be claimed", path.parent):
        try:
            file = open(path, "x", encoding="utf-8", opener=private_opener)  # noqa: SIM115
        except FileExistsError:
            return False
        try:
            with file:
                file.write(content)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return True


def _read_claim(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # released in between
        return None


def _stale_claim(path: Path) -> str | None:
    """Return what a claim holds whose process was killed; None for one that is held."""
    content = _read_claim(path)
    try:
        age = _now(path.parent) - path.stat().st_mtime
    except OSError:
        return None
    if content is None or age > STALE_SECONDS:  # whoever has its process number now
        return content
    host, pid = [*content.split("\n"), ""][:2]  # one that is being written is empty
    is_dead = host == _this_host() and pid.isdecimal() and not is_running(int(pid))
    return content if is_dead else None


def _remove_stale(path: Path, content: str) -> None:
    """Remove a claim by renaming it; the new one of a quicker process is put back."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with output_errors("the claim of a killed process cannot be removed", path):
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        found = _read_claim(aside)
        if found is not None and found != content:
            _claim(path, found)
        aside.unlink(missing_ok=True)


def _renew(path: Path, ended: Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        try:
            os.utime(path)
        except OSError:  # the file server is away: the claim ages until it is back
            continue


def _now(folder: Path) -> float:
    """Return the time of the file server, which may differ from this machine's."""
    probe = folder / f".now.{secrets.token_hex(4)}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _this_host() -> str:
    """Identify the machine and the space of process numbers, which containers have of their own."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}"


def seconds_since(start: float) -> float:
    """Return rounded seconds since a `time.monotonic`."""
    return round(time.monotonic() - start, 1)
