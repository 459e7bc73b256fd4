"""Everything that can be wrong with a manifest beyond a single cell, found all at once.

Rows against each other (patients, parents, slides), labels against the taxonomy, and the table
against the pixels.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulab.cohort.leakage import patients_in_several_parts
from glomerulab.cohort.manifest import Manifest, raise_first
from glomerulab.cohort.schema import Problem
from glomerulab.images import read_image
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent

__all__ = ["raise_if_invalid", "validate_manifest"]

PIXELS_OF_ROUNDING = 2.0
SHARE_OF_ROUNDING = 0.02


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
        Decode every image, to find the unreadable, the same picture under two ids, and pictures
        of another shape than the box they were cut from. Without it only whether the files are
        there is checked.
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
        *_half_known_boxes(manifest),
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
    raise_first(problems, where=where or manifest.location)


def _problem(manifest: Manifest, row: int, message: str) -> Problem:
    image_id = manifest.table["image_id"].iloc[row]
    return Problem(message, row, image_id if isinstance(image_id, str) else None)


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
    return [
        _problem(manifest, row, f"slide {slide!r} belongs to patient {patient!r} in line {line}")
        for row, slide, patient, line in _contradictions(manifest.table, "slide_id", "patient_id")
    ]


def _divided_patients(manifest: Manifest, column: str) -> list[Problem]:
    divided = patients_in_several_parts(manifest.table, column)
    rows = manifest.table[manifest.table["patient_id"].isin(list(divided))]
    return [
        _problem(
            manifest,
            row,
            f"patient {patient!r} is in {column} {part} in line {line} already; "
            "split again by patient",
        )
        for row, patient, part, line in _contradictions(rows, "patient_id", column)
    ]


def _contradictions(
    table: pd.DataFrame, key: str, column: str
) -> Iterator[tuple[int, str, str, int]]:
    """Yield (row, key, first value, its line) of each row whose key had another value before."""
    first: dict[str, tuple[str, int]] = {}
    cells = table[[key, column]].dropna().astype(str).itertuples(name=None)
    for row, name, value in cells:
        known, line = first.setdefault(name, (value, row + 2))
        if known != value:
            yield row, name, known, line


def _bad_parents(manifest: Manifest) -> list[Problem]:
    problems = []
    known = set(manifest.table["image_id"].dropna())
    for row, (image_id, parent) in enumerate(_text(manifest, "image_id", "parent_id")):
        if parent and parent == image_id:
            problems.append(_problem(manifest, row, "is its own parent"))
        elif parent and parent not in known:
            problems.append(
                _problem(manifest, row, f"its parent {parent!r} is not in the manifest")
            )
    return problems


def _divided_parents(manifest: Manifest, column: str) -> list[Problem]:
    """Tell each child that stands in another part than its parent."""
    part_of = {cells[0]: cells[1] for cells in _text(manifest, "image_id", column)}
    problems = []
    for row, (parent, part) in enumerate(_text(manifest, "parent_id", column)):
        if parent and parent in part_of and part_of[parent] != part:
            places = f"is in {column} {part or 'none'}, its parent {parent!r} in "
            problems.append(_problem(manifest, row, places + (part_of[parent] or "none")))
    return problems


def _text(manifest: Manifest, *columns: str) -> list[tuple[str, ...]]:
    """Return cells as text, missing ones as empty text, one tuple per row."""
    cells = manifest.table[list(columns)].astype("string").fillna("")
    return list(cells.itertuples(index=False, name=None))


def _half_known_boxes(manifest: Manifest) -> list[Problem]:
    """Tell each row that gives only half of a place, half of a size, or a place without a size."""
    known = manifest.table[["x", "y", "width", "height"]].notna().to_numpy()
    half = (known[:, 0] != known[:, 1]) | (known[:, 2] != known[:, 3])
    return [
        _problem(manifest, int(row), "x and y belong together, and to a width and height")
        for row in np.flatnonzero(half | (known[:, 0] & ~known[:, 2]))
    ]


def _absent(manifest: Manifest) -> list[Problem]:
    return [
        _problem(manifest, row, f"{path}: no such image")
        for row, path in _paths(manifest)
        if not path.is_file()
    ]


def _paths(manifest: Manifest) -> list[tuple[int, Path]]:
    given = manifest.table["image_path"].notna()
    return [(row, path) for row, path in enumerate(manifest.image_paths()) if given.iloc[row]]


def _pixels(manifest: Manifest, n_workers: int, track: Track) -> list[Problem]:
    """Decode every image and tell the unreadable, the doubled and the misshapen."""
    paths = _paths(manifest)
    pictures: dict[int, _Picture] = {}
    problems = []
    outcomes = map_outcomes(_look_at, paths, n_workers=n_workers)
    for outcome in track(outcomes, "Checking images", len(paths)):
        row, _ = outcome.item
        if outcome.value is None:
            problems.append(_problem(manifest, row, str(outcome.error)))
        else:
            pictures[row] = outcome.value
    return problems + _same_pixels(manifest, pictures) + _misshapen(manifest, pictures)


def _same_pixels(manifest: Manifest, pictures: "dict[int, _Picture]") -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for row in sorted(pictures):
        earlier = first.setdefault(pictures[row].fingerprint, row)
        if earlier != row:
            other = manifest.table["image_id"].iloc[earlier]
            message = f"same pixels as image {other!r} in line {earlier + 2}"
            problems.append(_problem(manifest, row, message))
    return problems


def _misshapen(manifest: Manifest, pictures: "dict[int, _Picture]") -> list[Problem]:
    """Tell each image that cannot be a picture of the box it claims: the shapes differ."""
    table = manifest.table
    # What was made of another image may have been turned.
    boxed = table[["width", "height"]].notna().all(axis=1) & table["parent_id"].isna()
    problems = []
    for row in sorted(pictures):
        if not boxed.iloc[row]:
            continue
        picture, box = (
            pictures[row],
            (int(table["width"].iloc[row]), int(table["height"].iloc[row])),
        )
        wanted = picture.width * box[1] / box[0]
        if abs(picture.height - wanted) > PIXELS_OF_ROUNDING + SHARE_OF_ROUNDING * wanted:
            message = (
                f"is {picture.width} x {picture.height} pixels, another shape than its box of "
                f"{box[0]} x {box[1]} level-0 pixels"
            )
            problems.append(_problem(manifest, row, message))
    return problems


@dataclass(frozen=True, slots=True)
class _Picture:
    width: int
    height: int
    fingerprint: str
    """Hash of size and decoded pixels, so that the file format does not matter."""


def _look_at(item: tuple[int, Path]) -> _Picture:
    image = read_image(item[1])
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    return _Picture(image.shape[1], image.shape[0], digest)
