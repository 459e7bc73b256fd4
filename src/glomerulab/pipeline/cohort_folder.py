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

from glomerulab.errors import OutputError
from glomerulab.runtime.files import atomic_write, make_folder, private_opener, read_json
from glomerulab.runtime.messages import count_noun
from glomerulab.runtime.parallel import N_ATTEMPTS
from glomerulab.runtime.resume import changed_settings, describe_changes

__all__ = ["CohortFolder", "State", "Status"]

State = Literal["done", "failed", "running", "pending"]

COHORT_FILE = "cohort.json"
CASES_TABLE = "cases.parquet"
CASES_FOLDER = "cases"
STATUS_FOLDER = "status"
FORMAT_VERSION = 1
BEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
"""A claim that was not renewed for so long is that of a process which was killed elsewhere."""
WAY_OUT = "choose another --out"


@dataclass(frozen=True, slots=True)
class Status:
    """How a case ended."""

    name: str
    """Of its folder and files."""
    case: str
    """Patient; the slide or image where none is known."""
    state: Literal["done", "failed"]
    reason: str
    """Why it failed; empty if it did not."""
    facts: dict[str, Any]
    """Counts and grades of a case that is done, and its seconds."""


@dataclass(frozen=True)
class CohortFolder:
    """The folder of a cohort."""

    folder: Path

    def settings(self) -> dict[str, Any]:
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
        if not isinstance(found, dict) or found.get("format") != FORMAT_VERSION:
            raise OutputError(
                f"{COHORT_FILE} is damaged or was written by another version; {WAY_OUT}",
                where=str(self.folder),
            )
        return found

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
            If the folder holds a cohort with other settings, or a case that is done and was made
            of something else.
        """
        for name in (STATUS_FOLDER, CASES_FOLDER):
            make_folder(self.folder / name)
        path = self.folder / COHORT_FILE
        if not path.exists():
            record = {"format": FORMAT_VERSION, "created": created, "settings": settings}
            _write_once(path, json.dumps(record, indent=1, ensure_ascii=False))
        known = self.settings()
        changes = changed_settings(known["settings"], settings)
        if changes:
            raise OutputError(
                f"this folder holds a cohort with other settings ({describe_changes(changes)}); "
                f"{WAY_OUT}",
                where=str(self.folder),
            )
        self._check_unchanged(cases)
        with atomic_write(self.folder / CASES_TABLE) as temporary:
            cases.to_parquet(temporary, index=False)
        return str(known["created"])

    def cases(self) -> pd.DataFrame:
        """Return the cases in their order: ``case``, ``name``, ``source``."""
        self.settings()
        return pd.read_parquet(self.folder / CASES_TABLE)

    def states(self) -> dict[str, State]:
        """Return the state of every case that is not pending, from the names of the files alone."""
        found: dict[str, State] = {}
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
                record = read_json(path, "status of the case", error=OutputError)
                return Status(
                    name, record["case"], record["state"], record["reason"], record["facts"]
                )
        return None

    def finish(self, case: str, name: str, facts: dict[str, Any]) -> None:
        """Record that a case is done."""
        self._end(Status(name, case, "done", "", facts))

    def fail(self, case: str, name: str, reason: str, facts: dict[str, Any]) -> None:
        """Record that a case failed; it stays so until `retry`."""
        self._end(Status(name, case, "failed", reason, facts))

    def retry(self, names: Sequence[str]) -> None:
        """Make failed cases pending."""
        for name in names:
            for suffix in (".attempts", ".failed.json"):
                self._file(name, suffix).unlink(missing_ok=True)

    @contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Hold the claim on a case; yield False if another process has it.

        The claim is renewed while the block runs. One whose process was killed is taken over: at
        once on the same machine, elsewhere after five minutes without renewal.
        """
        path = self._file(name, ".claim")
        is_mine = _claim(path)
        if not is_mine and _is_stale(path):
            _remove_stale(path)
            is_mine = _claim(path)
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
            path.unlink(missing_ok=True)

    @contextmanager
    def attempt(self, name: str) -> Iterator[int]:
        """Count an attempt at a case whose claim is held, and yield its number.

        Only what kills the process stays counted.
        """
        path = self._file(name, ".attempts")
        with open(path, "ab", opener=private_opener) as file:
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())
            number = file.tell()
        try:
            yield number
        finally:
            path.unlink(missing_ok=True)

    def _end(self, status: Status) -> None:
        record = {
            "case": status.case,
            "state": status.state,
            "reason": status.reason,
            "facts": status.facts,
        }
        with atomic_write(self._file(status.name, f".{status.state}.json")) as temporary:
            temporary.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / STATUS_FOLDER / f"{name}{suffix}"

    def _check_unchanged(self, cases: pd.DataFrame) -> None:
        path = self.folder / CASES_TABLE
        if not path.exists():
            return
        before = pd.read_parquet(path).set_index("name")["source"]
        now = cases.set_index("name")["source"]
        both = before.index.intersection(now.index)
        changed = both[(before[both] != now[both]).to_numpy(dtype=bool)]
        states = self.states() if len(changed) else {}
        done = [name for name in changed if states.get(name) == "done"]
        if done:
            raise OutputError(
                f"{count_noun(len(done), 'case')} that is done was made of other slides or images, "
                f"first {done[0]!r}; {WAY_OUT}",
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
        temporary.write_text(text + "\n", encoding="utf-8")
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise OutputError(
            f"the file cannot be written: {error.strerror or error}", where=str(path)
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _claim(path: Path) -> bool:
    try:
        with open(path, "x", encoding="utf-8", opener=private_opener) as file:
            file.write(f"{_this_host()}\n{os.getpid()}\n")
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(
            f"the case cannot be claimed: {error.strerror or error}", where=str(path.parent)
        ) from error
    return True


def _is_stale(path: Path) -> bool:
    """Return whether the process that made a claim was killed."""
    try:
        host, pid = path.read_text(encoding="utf-8").split("\n")[:2]
        age = _now(path.parent) - path.stat().st_mtime
    except (OSError, ValueError):  # released in between, or being written
        return not path.exists()
    if host == _this_host():
        return not Path("/proc", pid).exists()
    return age > STALE_SECONDS


def _remove_stale(path: Path) -> None:
    """Remove a claim; by renaming it, so that a new one of a quicker process is not removed."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
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
