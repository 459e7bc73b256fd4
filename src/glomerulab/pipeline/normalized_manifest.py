"""The manifest of a normalised cohort: which file each image now is, and what became of it."""

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from glomerulab.cohort.leakage import TargetLeak
from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.schema import TARGET_LEAK_COLUMN
from glomerulab.pipeline.normalize_progress import Record

__all__ = ["NO_TARGET", "UNREADABLE", "normalized_manifest"]

NO_TARGET = "no_target"
"""Status of an image whose stain has no target."""

UNREADABLE = "unreadable"
"""Status of an image that could not be read; its row points to the original."""

COLUMNS = (
    "image_path",
    "stain_status",
    "stain_reason",
    "stain_target",
    TARGET_LEAK_COLUMN,
    "normalized_from",
)


def normalized_manifest(
    manifest: Manifest,
    files: Mapping[str, Path],
    records: Mapping[str, Record],
    *,
    out: Path,
    leaks: Mapping[str, TargetLeak],
) -> Manifest:
    """Describe the images of a cohort after normalisation.

    Parameters
    ----------
    manifest : Manifest
        Of the originals.
    files : mapping of str to Path
        By image_id, where the new images are; those without a target are missing.
    records : mapping of str to Record
        By image_id, what became of each of `files`.
    out : Path
        Folder of the new manifest.
    leaks : mapping of str to TargetLeak
        By stain, the targets that come from the test or the validation part.

    Returns
    -------
    Manifest
        The columns of `manifest` and ``stain_status``, ``stain_reason``, ``stain_target``,
        ``stain_target_leak`` and ``normalized_from``. Images that could not be read, or have no
        target, point to the original.
    """
    table = manifest.table.copy()
    start = out.absolute()
    rows = []
    for image_id, original, stain in zip(
        table["image_id"], manifest.image_paths(), table["stain"].fillna(""), strict=True
    ):
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


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()
