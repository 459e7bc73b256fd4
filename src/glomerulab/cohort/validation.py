"""Validation of a manifest beyond single cells, with all problems found at once.

Rows are checked against each other (patients, parents, slides), labels against the taxonomy, and
the table against the pixels.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.leakage import (
    look_alike_message,
    look_alike_patients,
    patients_in_several_parts,
)
from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.schema import HALF_BOX, Problem, half_boxes
from glomerulab.images import read_image
from glomerulab.runtime.parallel import Workers, map_outcomes
from glomerulab.runtime.progress import Track, silent

__all__ = ["validate_manifest"]

ROUNDING_PX = 2.0
ROUNDING_SHARE = 0.02


def validate_manifest(
    manifest: Manifest,
    *,
    check_pixels: bool = True,
    allow_shared_patients: bool = False,
    n_workers: int = 1,
    workers: Workers | None = None,
    track: Track = silent,
) -> list[Problem]:
    """Find every problem of a manifest.

    Parameters
    ----------
    manifest : Manifest
        As read; reading has already refused malformed cells.
    check_pixels : bool, default True
        Decode every image, to find unreadable files, the same pixels under two ids, and images
        whose shape differs from their box. Otherwise only check that the files exist.
    allow_shared_patients : bool, default False
        Accept patients in several parts, as in a split by image (the paper's protocol).
    n_workers : int, default 1
        Processes that decode images.
    workers : Workers, optional
        Of a cluster, which sees the same paths; in place of `n_workers` processes.
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
        *_incomplete_boxes(manifest),
    ]
    if not allow_shared_patients:
        problems += _look_alikes(manifest)
    for column in ("split", "fold"):
        problems += _divided_parents(manifest, column)
        if not allow_shared_patients:
            problems += _divided_patients(manifest, column)
    problems += (
        _check_pixels(manifest, n_workers, workers, track) if check_pixels else _missing(manifest)
    )
    return sorted(problems, key=lambda problem: -1 if problem.row is None else problem.row)


def _problem(manifest: Manifest, row: int, message: str) -> Problem:
    image_id = manifest.table["image_id"].iloc[row]
    return Problem(message, row, image_id if isinstance(image_id, str) else None)


def _conflicting_labels(manifest: Manifest) -> list[Problem]:
    problems = []
    labels = manifest.labels() == 1
    for row in np.flatnonzero(labels.sum(axis=1) > 1).tolist():
        present = labels[row]
        flags = {i: int(on) for i, on in zip(manifest.taxonomy.label_ids, present, strict=True)}
        problems += [
            _problem(manifest, row, f"labels {first} and {second} exclude each other; keep one")
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


def _look_alikes(manifest: Manifest) -> list[Problem]:
    ids = manifest.table["patient_id"].drop_duplicates()
    first_row = dict(zip(ids.tolist(), ids.index.tolist(), strict=True))
    return [
        _problem(manifest, max(first_row[name] for name in names), look_alike_message(names))
        for names in look_alike_patients(manifest.table)
    ]


def _contradictions(
    table: pd.DataFrame, key: str, column: str
) -> Iterator[tuple[int, str, str, int]]:
    """Yield (row, key, first value, its line) of each row whose key had another value before."""
    first: dict[str, tuple[str, int]] = {}
    known_rows = table[[key, column]].notna().all(axis=1).to_numpy()
    cells = [table.loc[known_rows, name].astype(str).tolist() for name in (key, column)]
    for row, name, value in zip(table.index[known_rows].tolist(), *cells, strict=True):
        known, line = first.setdefault(name, (value, row + 2))
        if known != value:
            yield row, name, known, line


def _bad_parents(manifest: Manifest) -> list[Problem]:
    problems = []
    known = set(manifest.table["image_id"].dropna())
    for row, (image_id, parent) in enumerate(_text(manifest, "image_id", "parent_id")):
        if parent and parent == image_id:
            problems.append(_problem(manifest, row, "the image is its own parent"))
        elif parent and parent not in known:
            problems.append(
                _problem(manifest, row, f"its parent {parent!r} is not in the manifest")
            )
    return problems


def _divided_parents(manifest: Manifest, column: str) -> list[Problem]:
    part_of = {cells[0]: cells[1] for cells in _text(manifest, "image_id", column)}
    return [
        _problem(
            manifest,
            row,
            f"the image is in {column} {part or 'none'}, its parent {parent!r} in "
            f"{part_of[parent] or 'none'}",
        )
        for row, (parent, part) in enumerate(_text(manifest, "parent_id", column))
        if parent and parent in part_of and part_of[parent] != part
    ]


def _text(manifest: Manifest, *columns: str) -> list[tuple[str, ...]]:
    """Return cells as text, missing ones as empty text, one tuple per row."""
    cells = (manifest.table[name].astype("string").fillna("").tolist() for name in columns)
    return list(zip(*cells, strict=True))


def _incomplete_boxes(manifest: Manifest) -> list[Problem]:
    """Find rows with half a position, half a size, or a position without a size."""
    return [_problem(manifest, row, HALF_BOX) for row in half_boxes(manifest.table)]


def _missing(manifest: Manifest) -> list[Problem]:
    ids = manifest.table["image_id"].tolist()
    return [
        Problem(f"{path}: no such image", row, None if pd.isna(ids[row]) else ids[row])
        for row, path in _paths(manifest)
        if not path.is_file()
    ]


def _paths(manifest: Manifest) -> list[tuple[int, Path]]:
    given = manifest.table["image_path"].notna().tolist()
    return [(row, path) for row, path in enumerate(manifest.image_paths()) if given[row]]


def _check_pixels(
    manifest: Manifest, n_workers: int, workers: Workers | None, track: Track
) -> list[Problem]:
    """Decode every image to find unreadable files, duplicates and wrong shapes."""
    paths = _paths(manifest)
    pictures: dict[int, _Picture] = {}
    problems = []
    outcomes = map_outcomes(_decode, paths, n_workers=n_workers, workers=workers)
    for outcome in track(outcomes, "Checking images", len(paths)):
        row, _ = outcome.item
        if outcome.value is None:
            problems.append(_problem(manifest, row, str(outcome.error)))
        else:
            pictures[row] = outcome.value
    return problems + _same_pixels(manifest, pictures) + _wrong_shapes(manifest, pictures)


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


def _wrong_shapes(manifest: Manifest, pictures: "dict[int, _Picture]") -> list[Problem]:
    """Find images whose aspect ratio or scale differs from that of their box."""
    table = manifest.table
    mpp = table["mpp"].to_numpy(dtype=float, na_value=math.nan)
    scales = np.column_stack([_numbers(table, f"slide_mpp_{axis}") for axis in "xy"])
    is_in_um = np.isfinite(scales).all(axis=1) & np.isfinite(mpp)
    scales[~np.isfinite(scales).all(axis=1)] = 1.0  # square pixels
    # An image made from another may be rotated.
    boxed = table[["width", "height"]].notna().all(axis=1) & table["parent_id"].isna()
    problems = []
    for row in sorted(pictures):
        if not boxed.iloc[row]:
            continue
        picture = pictures[row]
        width, height = int(table["width"].iloc[row]), int(table["height"].iloc[row])
        across, down = width * scales[row, 0], height * scales[row, 1]
        if not _is_close(picture.height, picture.width * down / across):
            message = (
                f"the image has {picture.width} x {picture.height} pixels, another shape than its "
                f"box of {width} x {height} level-0 pixels"
            )
            problems.append(_problem(manifest, row, message))
        elif is_in_um[row] and not _is_close(picture.width, across / mpp[row]):
            message = (
                f"the image has {picture.width} pixels across at {mpp[row]:g} µm per pixel, but "
                f"its box is {across:g} µm wide; correct mpp or slide_mpp_x"
            )
            problems.append(_problem(manifest, row, message))
    return problems


def _numbers(table: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """Return a further column as numbers, NaN where it has none."""
    cells = table[column] if column in table else pd.Series([pd.NA] * len(table))
    return pd.to_numeric(cells, errors="coerce").to_numpy(dtype=float, na_value=math.nan)


def _is_close(n_px: int, wanted: float) -> bool:
    return abs(n_px - wanted) <= ROUNDING_PX + ROUNDING_SHARE * wanted


@dataclass(frozen=True, slots=True)
class _Picture:
    width: int
    height: int
    fingerprint: str
    """Hash of size and decoded pixels, so that the file format does not matter."""


def _decode(item: tuple[int, Path]) -> _Picture:
    image = read_image(item[1])
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    return _Picture(image.shape[1], image.shape[0], digest)
