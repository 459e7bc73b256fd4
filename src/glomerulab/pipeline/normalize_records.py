"""What became of each image that was normalised: its record, and its row in the new manifest."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.cohort.leakage import TargetLeak, recorded_paths
from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.schema import (
    NORMALIZED_FROM_COLUMN,
    STAIN_TARGET_COLUMN,
    TARGET_LEAK_COLUMN,
)
from glomerulab.errors import StainError
from glomerulab.runtime.files import size_and_mtime
from glomerulab.runtime.resume import JsonLines, SettingsFile
from glomerulab.stain.normalize import CHANGED
from glomerulab.stain.reference import StainReference, read_reference

__all__ = [
    "LOCK_FILE",
    "NO_TARGET",
    "OTHER_TARGET",
    "UNREADABLE",
    "Record",
    "Records",
    "done_before",
    "normalized_manifest",
    "open_records",
]

LOCK_FILE = ".normalize.lock"
RECORDS_FILE = "normalize.jsonl"
PART_RECORDS = "normalize.*-*.jsonl"
NO_TARGET = "no_target"
"""Status of an image whose stain has no target."""
OTHER_TARGET = "other_target"
"""Status of an image that was normalised before, to another target; it is not done twice."""
UNREADABLE = "unreadable"
"""Status of an image that could not be read; its row points to the original."""
COLUMNS = (
    "image_path",
    "stain_status",
    "stain_reason",
    STAIN_TARGET_COLUMN,
    TARGET_LEAK_COLUMN,
    NORMALIZED_FROM_COLUMN,
)


@dataclass(frozen=True)
class Record:
    """What became of one image, with the size and time of the file it was made from."""

    image_id: str
    status: str
    reason: str
    size: int
    """Bytes of the original."""
    modified: int
    """Nanoseconds since 1970."""


class Records:
    """The records of a folder, in memory and on disk."""

    def __init__(self, out: Path, part: tuple[int, int] | None) -> None:
        """Read those of all parts; each part writes to a file of its own, as several may run."""
        self._out = out
        name = RECORDS_FILE if part is None else f"normalize.{part[0]}-{part[1]}.jsonl"
        self._lines = JsonLines(out / name)
        files = (out / RECORDS_FILE, *sorted(out.glob(PART_RECORDS)))
        found = [Record(**fields) for file in files for fields in JsonLines(file).read()]
        self.by_image = {record.image_id: record for record in found}

    def add(self, record: Record) -> None:
        """Replace the record of an image."""
        self.by_image[record.image_id] = record
        self._lines.append(asdict(record))

    def is_done(self, image_id: str, original: Path, out: Path) -> bool:
        """Whether the new image exists and its original has not changed since."""
        record = self.by_image.get(image_id)
        if record is None or not out.is_file() or not original.is_file():
            return False
        return (record.size, record.modified) == size_and_mtime(original)

    def finish(self, order: Sequence[str]) -> None:
        """Write the records once and in order, whoever made them; delete those of parts."""
        records = [self.by_image.pop(image_id) for image_id in order]
        self._lines.replace(map(asdict, [*records, *self.by_image.values()]))
        for path in (*self._out.glob(PART_RECORDS), *self._out.glob(f"{LOCK_FILE}-*")):
            path.unlink(missing_ok=True)


def open_records(
    out: Path,
    targets: Mapping[str, StainReference],
    *,
    per: str,
    white: object,
    part: tuple[int, int] | None,
) -> Records:
    """Begin a run in a folder, or continue the one that is there."""
    stains = {stain: asdict(target) for stain, target in sorted(targets.items())}
    for fields in stains.values():
        if not fields["trusts_stain"]:  # folders of earlier versions do not have it
            del fields["trusts_stain"]
    SettingsFile(out / "normalize.json", dump=_as_text).continue_or_refuse(
        {"per": per, "white": white, "targets": stains},
        way_out="choose another folder, or delete this one",
    )
    return Records(out, part)


def _as_text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def normalized_manifest(
    manifest: Manifest,
    files: Mapping[str, Path],
    records: Mapping[str, Record],
    *,
    out: Path,
    leaks: Mapping[str, TargetLeak],
    before: Mapping[str, tuple[str, str]] | None = None,
) -> Manifest:
    """Return the manifest of the normalised images.

    Images that could not be read, or have no target, point to the original. `files`, `records` and
    `before` (status and reason of images that were normalised before) are by image id, `leaks` by
    stain; `out` is the folder of the new manifest.
    """
    table = manifest.table.copy()
    start = out.absolute()
    rows = []
    for number, (image_id, original, stain) in enumerate(
        zip(table["image_id"], manifest.image_paths(), table["stain"].fillna(""), strict=True)
    ):
        if before and image_id in before:
            rows.append(_kept_row(manifest, number, *before[image_id], start=start))
            continue
        record = records[image_id] if image_id in files else None
        if record is None or record.status == UNREADABLE:
            status, reason = (record.status, record.reason) if record else (NO_TARGET, "")
            rows.append((_relative(original, start), status, reason, "", "", ""))
            continue
        leak = leaks[stain].part if stain in leaks else ""
        rows.append(
            (
                _relative(files[image_id], start),
                record.status,
                record.reason,
                f"targets/{stain}.json",
                leak,
                _relative(original, start),
            )
        )
    for place, column in enumerate(COLUMNS):
        table[column] = pd.array([row[place] or None for row in rows], dtype="string")
    return Manifest(table, out, manifest.taxonomy)


def done_before(
    manifest: Manifest, targets: Mapping[str, StainReference]
) -> dict[str, tuple[str, str]]:
    """Return status and reason of the images that the manifest records as normalised, by id."""
    table = manifest.table
    if "stain_status" not in table or STAIN_TARGET_COLUMN not in table:
        return {}
    found = {}
    same: dict[tuple[str, Path], bool] = {}
    columns = (table[name] for name in ("image_id", "stain", "stain_status"))
    paths = recorded_paths(manifest, STAIN_TARGET_COLUMN)
    for image_id, stain, status, path in zip(*columns, paths, strict=True):
        if path is None or pd.isna(stain) or status not in CHANGED or stain not in targets:
            continue
        if (stain, path) not in same:
            same[stain, path] = _is_target(path, targets[stain])
        is_same = same[stain, path]
        reason = "normalised before" if is_same else "normalised before, to another target"
        found[str(image_id)] = (str(status) if is_same else OTHER_TARGET, reason)
    return found


def _is_target(path: Path, target: StainReference) -> bool:
    """Whether a file holds the stains, amounts and white of a target."""
    try:
        held = read_reference(path)
    except StainError:
        return False
    names = ("stain", "stain_vectors", "percentiles", "white")
    return all(getattr(held, name) == getattr(target, name) for name in names)


def _kept_row(
    manifest: Manifest, number: int, status: str, reason: str, *, start: Path
) -> tuple[str, ...]:
    """Return the cells of `COLUMNS` for an image that was normalised before."""
    row = manifest.table.iloc[number]
    kept = {name: "" if pd.isna(row.get(name)) else str(row[name]) for name in COLUMNS}
    changed = {
        "image_path": _relative(manifest.image_paths()[number], start),
        "stain_status": status,
        "stain_reason": reason,
    }
    return tuple((kept | changed).values())


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()
