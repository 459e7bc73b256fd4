"""Everything that can be wrong with a manifest beyond a single cell, found all at once.

Rows against each other (patients, parents, slides), labels against the taxonomy, and the table
against the pixels.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cohort.columns import Problem
from glomerulab.cohort.manifest import Manifest, raise_first
from glomerulab.images import read_image
from glomerulab.parallel import map_outcomes
from glomerulab.progress import Track, silent

__all__ = ["raise_if_invalid", "validate_manifest"]


def validate_manifest(
    manifest: Manifest,
    *,
    check_pixels: bool = True,
    allow_shared_patients: bool = False,
    n_workers: int = 1,
    track: Track = silent,
) -> list[Problem]:
    """Find every problem of a manifest.

    Parameters
    ----------
    manifest : Manifest
        As read; cells that cannot be were refused then.
    check_pixels : bool, default True
        Decode every image, to find the unreadable and the same picture under two ids. Without it
        only whether the files are there is checked.
    allow_shared_patients : bool, default False
        A split by image, the paper's protocol, puts a patient into several parts on purpose.
    n_workers : int, default 1
        Processes that decode images.
    track : Track, default silent

    Returns
    -------
    list of Problem
        In the order of the rows.
    """
    problems = [
        *_conflicting_labels(manifest),
        *_slides_of_two_patients(manifest),
        *_bad_parents(manifest),
    ]
    for column in ("split", "fold"):
        problems += _divided_parents(manifest, column)
        if not allow_shared_patients:
            problems += _divided_patients(manifest, column)
    problems += _pixels(manifest, n_workers, track) if check_pixels else _absent(manifest)
    return sorted(problems, key=lambda problem: -1 if problem.row is None else problem.row)


def raise_if_invalid(
    manifest: Manifest,
    *,
    check_pixels: bool = True,
    allow_shared_patients: bool = False,
    n_workers: int = 1,
    where: str | None = None,
) -> None:
    """Raise the first problem of a manifest, counting the others.

    Parameters
    ----------
    manifest : Manifest
    check_pixels : bool, default True
    allow_shared_patients : bool, default False
    n_workers : int, default 1
        All as in `validate_manifest`.
    where : str, optional
        The file, for the message; by default the folder of the manifest.

    Raises
    ------
    ManifestError
        If there is any problem.
    """
    problems = validate_manifest(
        manifest,
        check_pixels=check_pixels,
        allow_shared_patients=allow_shared_patients,
        n_workers=n_workers,
    )
    raise_first(problems, where=where or str(manifest.folder))


def _problem(manifest: Manifest, row: int, message: str) -> Problem:
    return Problem(message, row, str(manifest.table["image_id"].iloc[row]))


def _conflicting_labels(manifest: Manifest) -> list[Problem]:
    problems = []
    for row, shown in enumerate(manifest.labels() == 1):
        flags = {i: int(on) for i, on in zip(manifest.taxonomy.label_ids, shown, strict=True)}
        problems += [
            _problem(manifest, row, f"labels {first} and {second} exclude each other")
            for first, second in manifest.taxonomy.conflicts(flags)
        ]
    return problems


def _slides_of_two_patients(manifest: Manifest) -> list[Problem]:
    return _several(manifest, "slide_id", "patient_id", "slide {0!r} belongs to {1} in line {2}")


def _divided_patients(manifest: Manifest, column: str) -> list[Problem]:
    return _several(
        manifest,
        "patient_id",
        column,
        f"patient {{0!r}} is in {column} {{1}} in line {{2}} already; split again by patient",
    )


def _several(manifest: Manifest, key: str, column: str, message: str) -> list[Problem]:
    """Tell each row whose key had another value of the column in an earlier row."""
    first: dict[str, tuple[object, int]] = {}
    problems = []
    table = manifest.table
    rows = table[table[key].notna() & table[column].notna()]
    for row, name, value in zip(rows.index, rows[key], rows[column], strict=True):
        known, line = first.setdefault(str(name), (value, int(row) + 2))
        if known != value:
            text = message.format(str(name), f"{column} {known}" if key == "slide_id" else known,
                                  line)  # fmt: skip
            problems.append(_problem(manifest, int(row), text))
    return problems


def _bad_parents(manifest: Manifest) -> list[Problem]:
    table = manifest.table
    parents = table["parent_id"]
    itself = (parents == table["image_id"]).fillna(value=False)
    absent = parents.notna() & ~parents.isin(table["image_id"])
    return [_problem(manifest, int(row), "is its own parent") for row in np.flatnonzero(itself)] + [
        _problem(manifest, int(row), f"its parent {parents[row]!r} is not in the manifest")
        for row in np.flatnonzero(absent)
    ]


def _divided_parents(manifest: Manifest, column: str) -> list[Problem]:
    """Tell each child that stands in another part than its parent."""
    table = manifest.table
    parts = dict(zip(table["image_id"], table[column], strict=True))
    problems = []
    for row in np.flatnonzero(table["parent_id"].isin(table["image_id"])):
        part, parent = table[column].iloc[row], table["parent_id"].iloc[row]
        if _differ(part, parts[parent]):
            message = f"is in {column} {_named(part)}, its parent {parent!r} in "
            problems.append(_problem(manifest, int(row), message + _named(parts[parent])))
    return problems


def _differ(one: object, other: object) -> bool:
    if pd.isna(one) or pd.isna(other):  # type: ignore[call-overload]
        return bool(pd.isna(one) != pd.isna(other))  # type: ignore[call-overload]
    return one != other


def _named(part: object) -> str:
    return "none" if pd.isna(part) else str(part)  # type: ignore[call-overload]


def _absent(manifest: Manifest) -> list[Problem]:
    return [
        _problem(manifest, row, f"{path}: no such image")
        for row, path in enumerate(manifest.image_paths())
        if not path.is_file()
    ]


def _pixels(manifest: Manifest, n_workers: int, track: Track) -> list[Problem]:
    paths = manifest.image_paths()
    outcomes = map_outcomes(_fingerprint, list(enumerate(paths)), n_workers=n_workers)
    fingerprints: dict[int, str] = {}
    problems = []
    for outcome in track(outcomes, "Checking images", len(paths)):
        row, _ = outcome.item
        if outcome.value is None:
            problems.append(_problem(manifest, row, str(outcome.error)))
        else:
            fingerprints[row] = outcome.value
    first: dict[str, int] = {}
    for row in sorted(fingerprints):
        earlier = first.setdefault(fingerprints[row], row)
        if earlier != row:
            other = manifest.table["image_id"].iloc[earlier]
            message = f"same pixels as image {other!r} in line {earlier + 2}"
            problems.append(_problem(manifest, row, message))
    return problems


def _fingerprint(item: tuple[int, Path]) -> str:
    """Return a hash of size and decoded pixels, so that the file format does not matter."""
    image = read_image(item[1])
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
