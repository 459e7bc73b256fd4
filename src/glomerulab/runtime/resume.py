"""Continue an interrupted run in its output folder, or refuse the folder of another run.

A step that can be resumed keeps three things in its output folder:

- `SettingsFile`, a small text file of the settings that determine the results. It is written before
  the first result; a later run compares its own settings with it and stops if they differ.
- `JsonLines`, one line per finished item, appended as soon as the item is on disk.
- `folder_lock`, which keeps a second process out while the first is working.

A typical step::

    with folder_lock(out, ".step.lock"):
        SettingsFile(out / "step.json").continue_or_refuse(settings, way_out="choose another --out")
        done = JsonLines(out / "step.jsonl")
        finished = {record["image_id"] for record in done.read()}
        for item in items_to_do:
            ...
            done.append({"image_id": item.image_id})
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from glomerulab.errors import OutputError
from glomerulab.runtime.files import (
    atomic_write,
    exclusive_lock,
    new_folder,
    private_opener,
    read_utf8,
    remove_partial_files,
)

__all__ = [
    "Change",
    "JsonLines",
    "SettingsFile",
    "changed_settings",
    "describe_changes",
    "folder_lock",
]

MAX_CHANGES_LISTED = 5
NOT_SET = None
CHOOSE_ANOTHER = "choose another output folder"
MAX_VALUE_LENGTH = 80

_as_json = partial(json.dumps, ensure_ascii=False, indent=1)


class Change(NamedTuple):
    """A setting that differs between the run in a folder and the present one."""

    name: str
    """Dotted, such as ``optimizer.learning_rate``."""
    then: object
    """None where the setting is missing."""
    now: object


def changed_settings(
    then: Mapping[str, Any], now: Mapping[str, Any], *, ignore: Collection[str] = ()
) -> list[Change]:
    """Compare two settings, nested tables by dotted names.

    Parameters
    ----------
    then, now : mapping
        JSON or TOML values. Tuples equal lists, as both are lists in a file.
    ignore : collection of str, optional
        Dotted names, or names of tables, that do not change the results.

    Examples
    --------
    >>> changed_settings({"mpp": 0.5, "head": {"kind": "softmax"}}, {"mpp": 0.5, "head": {}})
    [Change(name='head.kind', then='softmax', now=None)]
    """
    old, new = _flat(then), _flat(now)
    return [
        Change(name, old.get(name, NOT_SET), new.get(name, NOT_SET))
        for name in sorted(old.keys() | new.keys())
        if old.get(name, NOT_SET) != new.get(name, NOT_SET)
        and not any(name == one or name.startswith(f"{one}.") for one in ignore)
    ]


def describe_changes(changes: Collection[Change]) -> str:
    """Return the changes as text for a message: ``mpp 0.5 then, 0.25 now``.

    Examples
    --------
    >>> describe_changes([Change("mpp", 0.5, 0.25), Change("seed", None, 1)])
    'mpp 0.5 then, 0.25 now; seed not set then, 1 now'
    """
    listed = [
        f"{one.name} {_text(one.then)} then, {_text(one.now)} now"
        for one in list(changes)[:MAX_CHANGES_LISTED]
    ]
    n_more = len(changes) - len(listed)
    return "; ".join(listed) + (f"; and {n_more} more" if n_more else "")


@dataclass(frozen=True)
class SettingsFile:
    """The settings of the run in a folder, as a text file.

    The default format is JSON. Give `load` and `dump` for another (``tomllib.loads``, or functions
    of the step).
    """

    path: Path
    load: Callable[[str], Any] = json.loads
    dump: Callable[[Mapping[str, Any]], str] = _as_json

    def read(self) -> dict[str, Any] | None:
        """Return the settings of the run in the folder; None where there is none.

        Raises
        ------
        OutputError
            If the file is damaged or cannot be read.
        """
        if not self.path.is_file():
            return None
        try:
            settings = self.load(read_utf8(self.path, self.path.name, error=OutputError))
        except (ValueError, RecursionError) as error:
            raise OutputError(
                f"{self.path.name} is damaged ({error}); {CHOOSE_ANOTHER}",
                where=str(self.path.parent),
            ) from error
        if not isinstance(settings, dict):
            raise OutputError(
                f"{self.path.name} holds no settings; {CHOOSE_ANOTHER}", where=str(self.path.parent)
            )
        return settings

    def write(self, settings: Mapping[str, Any]) -> None:
        """Replace the file."""
        with atomic_write(self.path) as temporary:
            temporary.write_text(self.dump(settings), encoding="utf-8")

    def continue_or_refuse(
        self,
        settings: Mapping[str, Any],
        *,
        way_out: str = CHOOSE_ANOTHER,
        defaults: Mapping[str, Any] | None = None,
    ) -> bool:
        """Record the settings of a new run, or check them against those in the folder.

        Parameters
        ----------
        settings : mapping
            JSON or TOML values that determine the results.
        way_out : str, optional
            End of the error message, such as ``"choose another --out"``.
        defaults : mapping, optional
            Values of settings that earlier versions did not record.

        Returns
        -------
        bool
            True if the folder holds a run with these settings, False if it is new.

        Raises
        ------
        OutputError
            If the folder holds a run with other settings; the message lists them.
        """
        then = self.read()
        if then is None:
            self.write(settings)
            return False
        changes = changed_settings({**(defaults or {}), **then}, settings)
        if changes:
            raise OutputError(
                f"this folder holds a run with other settings ({describe_changes(changes)}); "
                f"{way_out}",
                where=str(self.path.parent),
            )
        return True


@dataclass(frozen=True)
class JsonLines:
    """An append-only file with one JSON object per line."""

    path: Path

    def read(self) -> list[dict[str, Any]]:
        """Return the records in the order in which they were written.

        A line that is no JSON object, such as the torn one of a run that was killed, is left out:
        the file only saves work, and what it lacks is computed again.
        """
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                found.append(record)
        return found

    def replace(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace the file."""
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(map(_as_line, records)), encoding="utf-8")

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records at the end, behind a torn last line if there is one."""
        lines = "".join(map(_as_line, records))
        with open(self.path, "a+b", opener=private_opener) as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    lines = "\n" + lines
            file.write(lines.encode())


@contextmanager
def folder_lock(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes that use the same lock out of a folder; the lock ends with the process.

    Unfinished files of a killed process are removed.

    Parameters
    ----------
    folder : Path
        Made if it does not exist, and removed again if the block fails before it writes a file.
    name : str
        Lock file in `folder`, such as ``.extract.lock``. It remains beside what was written.

    Raises
    ------
    OutputError
        If another process holds the lock, or the folder cannot be written to.
    """
    busy = (
        f"another process is writing to this folder; wait until it has ended, or {CHOOSE_ANOTHER}"
    )
    with new_folder(folder), exclusive_lock(folder / name, busy=busy):
        remove_partial_files(folder)
        yield


def _as_line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested tables as one with dotted names, and tuples as lists."""
    flat: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, Mapping):
            flat[prefix + name] = _as_list(value)
    return flat


def _as_list(value: object) -> object:
    return [_as_list(one) for one in value] if isinstance(value, list | tuple) else value


def _text(value: object) -> str:
    if value is NOT_SET:
        return "not set"
    text = repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 3]}..."
