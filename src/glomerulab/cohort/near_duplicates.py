"""Find pictures that are nearly the same in two parts of a split, and refuse them.

A perceptual hash of each picture is compared with those of the other parts in all eight
orientations, so a copy that was re-encoded, resized, turned or mirrored is found.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from glomerulab.cohort.manifest import Manifest, raise_first
from glomerulab.cohort.schema import Problem
from glomerulab.errors import LeakageError, ManifestError
from glomerulab.images import RgbImage, read_image
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent

__all__ = [
    "MAX_DISTANCE",
    "N_BITS",
    "NearDuplicate",
    "check_near_duplicates",
    "find_near_duplicates",
    "hash_distances",
    "orientation_hashes",
    "read_allowed_pairs",
]

Bits = npt.NDArray[np.bool_]

HASH_SIZE = 16
THUMBNAIL_PX = 64  # what a hash of 16 x 16 is computed from

N_BITS = HASH_SIZE * HASH_SIZE
"""Length of a hash."""

MAX_DISTANCE = 48
"""Bits that two hashes may differ in and still be nearly the same picture, as measured."""

N_NAMED = 20
N_ROWS_AT_ONCE = 512

TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two images of different parts that are nearly the same picture."""

    image_id: str
    part: str
    other_image_id: str
    other_part: str
    distance: int
    """Bits in which the hashes differ, from 0 to `N_BITS`."""

    def __str__(self) -> str:
        """Name both images and their parts."""
        return (
            f"{self.image_id!r} ({self.part}) and {self.other_image_id!r} ({self.other_part}), "
            f"{self.distance} of {N_BITS} bits apart"
        )


def orientation_hashes(image: RgbImage) -> Bits:
    """Hash a picture in its eight orientations.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)

    Returns
    -------
    ndarray of bool, shape (8, N_BITS)
        The first is the picture as it is.

    Notes
    -----
    The hash is imagehash's `phash` of 16 x 16 coefficients: which of the lowest frequencies of a
    64 x 64 grey thumbnail are above their median.
    """
    thumbnail = (
        Image.fromarray(image)
        .convert("L")
        .resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    )
    turned = [thumbnail if turn is None else thumbnail.transpose(turn) for turn in TURNS]
    return np.stack([imagehash.phash(one, hash_size=HASH_SIZE).hash.ravel() for one in turned])


def hash_distances(hashes: Bits, others: Bits) -> npt.NDArray[np.int64]:
    """Count the bits in which pictures differ, in the orientation that fits best.

    Parameters
    ----------
    hashes : ndarray of bool, shape (n, N_BITS)
        Of pictures as they are.
    others : ndarray of bool, shape (m, 8, N_BITS)
        Of pictures in every orientation.

    Returns
    -------
    ndarray of int64, shape (n, m)
        From 0 to `N_BITS`.
    """
    # With bits as -1 and 1 the product counts equal minus different bits: one matrix product.
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    other_signs = np.where(others, np.float32(1), np.float32(-1)).reshape(-1, N_BITS)
    likeness = (signs @ other_signs.T).reshape(len(hashes), len(others), others.shape[1])
    distances: npt.NDArray[np.int64] = ((N_BITS - likeness.max(axis=2)) / 2).astype(np.int64)
    return distances


def find_near_duplicates(
    manifest: Manifest,
    *,
    column: str = "split",
    max_distance: int = MAX_DISTANCE,
    n_workers: int = 1,
    track: Track = silent,
) -> list[NearDuplicate]:
    """Find the pairs of images in different parts that are nearly the same picture.

    Parameters
    ----------
    manifest : Manifest
    column : str, default "split"
        "split" or "fold"; images without a part are left out.
    max_distance : int, default MAX_DISTANCE
        Bits that may differ.
    n_workers : int, default 1
        Processes that read images.
    track : Track, default silent

    Returns
    -------
    list of NearDuplicate
        Nearest first, then by image_id.

    Raises
    ------
    ManifestError
        If an image cannot be read; the message names the first.
    """
    rows_inside = np.flatnonzero(manifest.table[column].notna())
    ids = manifest.table["image_id"].astype(str).to_numpy()[rows_inside]
    parts = manifest.table[column].astype(str).to_numpy()[rows_inside]
    hashes = _hash_images(manifest, rows_inside, n_workers, track)
    found = []
    for part in sorted(set(parts)):
        # Each pair of parts once; the rows in slices, so that memory stays small.
        here, later = np.flatnonzero(parts == part), np.flatnonzero(parts > part)
        for start in range(0, len(here), N_ROWS_AT_ONCE):
            rows = here[start : start + N_ROWS_AT_ONCE]
            distances = hash_distances(hashes[rows, 0], hashes[later])
            for i, j in np.argwhere(distances <= max_distance):
                row, other = rows[i], later[j]
                found.append(
                    NearDuplicate(
                        str(ids[row]),
                        str(parts[row]),
                        str(ids[other]),
                        str(parts[other]),
                        int(distances[i, j]),
                    )
                )
    return sorted(found, key=lambda pair: (pair.distance, pair.image_id, pair.other_image_id))


def check_near_duplicates(
    manifest: Manifest,
    *,
    column: str = "split",
    allowed: Collection[frozenset[str]] = (),
    max_distance: int = MAX_DISTANCE,
    n_workers: int = 1,
    track: Track = silent,
) -> None:
    """Raise if pictures of two parts are nearly the same and nobody allowed it by name.

    Parameters
    ----------
    manifest : Manifest
    column : str, default "split"
    allowed : collection of frozenset of str, default ()
        Pairs of image_ids that were looked at and may stand in two parts.
    max_distance : int, default MAX_DISTANCE
    n_workers : int, default 1
    track : Track, default silent

    Raises
    ------
    LeakageError
        Listing the pairs.
    ManifestError
        If an image cannot be read.
    """
    found = find_near_duplicates(
        manifest, column=column, max_distance=max_distance, n_workers=n_workers, track=track
    )
    refused = [
        pair for pair in found if frozenset((pair.image_id, pair.other_image_id)) not in allowed
    ]
    if refused:
        rest = f"; and {len(refused) - N_NAMED} more" if len(refused) > N_NAMED else ""
        raise LeakageError(
            f"{len(refused)} pair(s) of nearly the same picture in two parts: "
            + "; ".join(str(pair) for pair in refused[:N_NAMED])
            + rest
            + ". Remove one of each, give both the same patient_id, or list the pairs that differ "
            "in truth in a CSV for --allow-near-duplicates"
        )


def read_allowed_pairs(path: Path) -> frozenset[frozenset[str]]:
    """Read the pairs of images that may stand in two parts.

    Parameters
    ----------
    path : Path
        CSV with the columns image_id and other_image_id.

    Returns
    -------
    frozenset of frozenset of str

    Raises
    ------
    ManifestError
        If it cannot be read or lacks a column or a cell.
    """
    try:
        table = pd.read_csv(path, dtype="string", keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot be read as CSV: {error}", where=str(path)) from error
    missing = [name for name in ("image_id", "other_image_id") if name not in table]
    if missing:
        raise ManifestError(f"missing column(s): {', '.join(missing)}", where=str(path))
    pairs = table[["image_id", "other_image_id"]]
    empty = (pairs == "").any(axis=1).to_numpy()
    if empty.any():
        line = int(np.flatnonzero(empty)[0]) + 2
        raise ManifestError("a pair needs two image_ids", where=f"{path}: line {line}")
    return frozenset(frozenset(pair) for pair in pairs.itertuples(index=False, name=None))


def _hash_images(
    manifest: Manifest, rows: npt.NDArray[np.int64], n_workers: int, track: Track
) -> Bits:
    """Return the hashes of the images of some rows, shape (n_rows, 8, N_BITS)."""
    paths = manifest.image_paths()
    items = [(place, paths[row]) for place, row in enumerate(rows)]
    hashes = np.zeros((len(rows), len(TURNS), N_BITS), dtype=np.bool_)
    problems = {}
    outcomes = map_outcomes(_hash_file, items, n_workers=n_workers)
    for outcome in track(outcomes, "Comparing images", len(items)):
        place = outcome.item[0]
        if outcome.value is None:
            row = int(rows[place])
            image_id = str(manifest.table["image_id"].iloc[row])
            problems[row] = Problem(str(outcome.error), row, image_id)
        else:
            hashes[place] = outcome.value
    raise_first([problems[row] for row in sorted(problems)], where=manifest.location)
    return hashes


def _hash_file(item: tuple[int, Path]) -> Bits:
    return orientation_hashes(read_image(item[1]))
