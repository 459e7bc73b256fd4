"""What a folder of crops was cut with, so that a second run continues it or refuses.

``extract.json`` holds the settings and a fingerprint per slide. It is written before the first
crop; a crop that stands in the folder is therefore known to be of these settings and regions.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glomerulab.errors import OutputError
from glomerulab.pipeline.crop_plan import CROPS_FOLDER
from glomerulab.runtime.files import atomic_write, exclusive_lock

__all__ = [
    "FAILURES_FILE",
    "MANIFEST_FILE",
    "STATE_FILE",
    "continue_or_refuse",
    "exclusive",
    "forget_run",
]

STATE_FILE = "extract.json"
MANIFEST_FILE = "manifest.csv"
FAILURES_FILE = "failures.csv"
LOCK_FILE = ".extract.lock"
FORMAT_VERSION = 1
WAY_OUT = "choose another --out, or give --overwrite to cut everything anew"


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Keep a second run out of the folder while this one works; a killed run keeps nobody out.

    Parameters
    ----------
    out : Path
        An existing folder.

    Yields
    ------
    None

    Raises
    ------
    OutputError
        If another run is at work there, or the folder cannot be written to.
    """
    busy = "another extract is at work in this folder; wait for it or choose another --out"
    with exclusive_lock(out / LOCK_FILE, busy=busy):
        yield


def continue_or_refuse(
    out: Path, *, settings: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> None:
    """Record a run, after making sure that what the folder holds was cut the same way.

    Parameters
    ----------
    out : Path
    settings : mapping
        JSON values only.
    fingerprints : mapping of str to str
        By slide id, of the slides of this run. Those of earlier runs on other slides are kept.

    Raises
    ------
    OutputError
        If the folder holds crops of other settings, or of another version of a slide or its
        regions, or was not made by extract; the message names the way out.
    """
    known = _read_state(out)
    if known is None:
        _refuse_foreign(out)
        known = {"fingerprints": {}}
    else:
        _refuse_other_settings(out, known["settings"], settings)
        for slide_id, fingerprint in fingerprints.items():
            if known["fingerprints"].get(slide_id, fingerprint) != fingerprint:
                raise OutputError(
                    f"slide {slide_id!r} or its regions changed since they were cut; {WAY_OUT}",
                    where=str(out),
                )
    state = {
        "version": FORMAT_VERSION,
        "settings": dict(settings),
        "fingerprints": {**known["fingerprints"], **fingerprints},
    }
    with atomic_write(out / STATE_FILE) as temporary:
        temporary.write_text(json.dumps(state, ensure_ascii=False, indent=1), encoding="utf-8")


def forget_run(out: Path) -> None:
    """Delete what extract wrote to a folder, and nothing else.

    Parameters
    ----------
    out : Path
        Left as it is if extract never wrote there.

    Raises
    ------
    OutputError
        If it cannot be deleted.
    """
    if _read_state(out) is None:
        return
    try:
        if (out / CROPS_FOLDER).is_dir():
            shutil.rmtree(out / CROPS_FOLDER)
        for name in (MANIFEST_FILE, FAILURES_FILE, "taxonomy.toml", STATE_FILE):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot delete: {error.strerror}", where=str(out)) from error


def _read_state(out: Path) -> dict[str, Any] | None:
    path = out / STATE_FILE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot be read: {error}; choose another --out", where=str(path)
        ) from error
    if not isinstance(state, dict) or not (
        state.get("version") == FORMAT_VERSION
        and isinstance(state.get("settings"), dict)
        and isinstance(state.get("fingerprints"), dict)
    ):
        raise OutputError(
            "is damaged or was written by another version; choose another --out", where=str(path)
        )
    return state


def _refuse_foreign(out: Path) -> None:
    for name in (MANIFEST_FILE, CROPS_FOLDER):
        if (out / name).exists():
            raise OutputError(
                f"holds a {name} that extract did not write; choose another --out", where=str(out)
            )


def _refuse_other_settings(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [name for name in new if old.get(name) != new[name]]
    if changed:
        told = ", ".join(f"{name} {old.get(name)!r} then, {new[name]!r} now" for name in changed)
        raise OutputError(
            f"its crops were cut with other settings ({told}); {WAY_OUT}", where=str(out)
        )
