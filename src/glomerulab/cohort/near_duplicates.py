"""Near-duplicate images in different parts of a split.

A perceptual hash of each image is compared with those of the other parts in all eight
orientations, which finds re-encoded, resized, rotated and mirrored copies.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise, product
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from glomerulab.cohort.manifest import Manifest, raise_first
from glomerulab.cohort.schema import Problem
from glomerulab.errors import LeakageError, ManifestError
from glomerulab.images import RgbImage, read_image
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.tables import TableSchema, read_table

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
Words = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

HASH_SIZE = 16
THUMBNAIL_PX = 64  # input of a 16 x 16 hash

N_BITS = HASH_SIZE * HASH_SIZE
"""Length of a hash."""

MAX_DISTANCE = 48
"""Largest distance, in bits, of two hashes of the same picture, as measured."""

ALLOWED_PAIRS = TableSchema(
    "table of allowed pairs",
    ("image_id", "other_image_id"),
    required=("image_id", "other_image_id"),
    error=ManifestError,
)
N_NAMED = 20
MAX_PAIRS = 1_000_000

ORIENTATIONS = (
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
    """Two nearly identical images in different parts."""

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
    """Hash an image in its eight orientations.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)

    Returns
    -------
    ndarray of bool, shape (8, N_BITS)
        The first is the hash of the unchanged image.

    Notes
    -----
    The hash is imagehash's `phash` of 16 x 16 coefficients: whether each of the lowest frequencies
    of a 64 x 64 grey thumbnail is above their median.
    """
    thumbnail = (
        Image.fromarray(image)
        .convert("L")
        .resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    )
    oriented = [thumbnail if step is None else thumbnail.transpose(step) for step in ORIENTATIONS]
    return np.stack([imagehash.phash(one, hash_size=HASH_SIZE).hash.ravel() for one in oriented])


def hash_distances(hashes: Bits, others: Bits) -> npt.NDArray[np.int64]:
    """Count the bits in which hashes differ, in the best matching orientation.

    Parameters
    ----------
    hashes : ndarray of bool, shape (n, N_BITS)
        Of unchanged images.
    others : ndarray of bool, shape (m, 8, N_BITS)
        Of images in every orientation.

    Returns
    -------
    ndarray of int64, shape (n, m)
        From 0 to `N_BITS`.
    """
    # With bits as -1 and 1 the matrix product is the number of equal minus different bits.
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    other_signs = np.where(others, np.float32(1), np.float32(-1)).reshape(-1, N_BITS)
    similarity = (signs @ other_signs.T).reshape(len(hashes), len(others), others.shape[1])
    distances: npt.NDArray[np.int64] = ((N_BITS - similarity.max(axis=2)) / 2).astype(np.int64)
    return distances


def find_near_duplicates(
    manifest: Manifest,
    *,
    column: str = "split",
    n_workers: int = 1,
    track: Track = silent,
) -> list[NearDuplicate]:
    """Find the pairs of images in different parts whose hashes differ by at most `MAX_DISTANCE`.

    Parameters
    ----------
    column : str, default "split"
        "split" or "fold"; images without a part are ignored.
    n_workers : int, default 1
        Processes that read images.
    track : Track, default silent

    Returns
    -------
    list of NearDuplicate
        Nearest first, then by image_id. At most `MAX_PAIRS`: a million blank images would give
        more pairs than any memory holds.

    Raises
    ------
    ManifestError
        If an image cannot be read; the message names the first.
    """
    table = manifest.table
    rows = np.flatnonzero(table[column].notna())
    names, part = np.unique(table[column].astype(str).to_numpy()[rows], return_inverse=True)
    order = np.argsort(part, kind="stable")
    rows, part = rows[order], part[order]
    hashes = _hash_images(manifest, rows, n_workers, track)
    ids = table["image_id"].astype(str).to_numpy()[rows]
    found = [
        NearDuplicate(ids[row], names[part[row]], ids[other], names[part[other]], distance)
        for row, other, distance in islice(_near_rows(hashes, part, n_workers), MAX_PAIRS)
    ]
    return sorted(found, key=lambda pair: (pair.distance, pair.image_id, pair.other_image_id))


def check_near_duplicates(
    manifest: Manifest,
    *,
    column: str = "split",
    allowed: Collection[frozenset[str]] = (),
    n_workers: int = 1,
    track: Track = silent,
) -> None:
    """Raise an error if `find_near_duplicates` finds pairs that are not allowed.

    Parameters
    ----------
    column : str, default "split"
    allowed : collection of frozenset of str, default ()
        Pairs of image_ids that may be in two parts, since a person has checked them.
    n_workers : int, default 1
    track : Track, default silent

    Raises
    ------
    LeakageError
        With the list of pairs.
    ManifestError
        If an image cannot be read.
    """
    found = find_near_duplicates(manifest, column=column, n_workers=n_workers, track=track)
    refused = [
        pair for pair in found if frozenset((pair.image_id, pair.other_image_id)) not in allowed
    ]
    if refused:
        at_least = "at least " if len(found) == MAX_PAIRS else ""
        rest = f"; and {len(refused) - N_NAMED} more" if len(refused) > N_NAMED else ""
        raise LeakageError(
            f"{at_least}{len(refused)} pair(s) of nearly identical images in two parts: "
            + "; ".join(str(pair) for pair in refused[:N_NAMED])
            + rest
            + ". Remove one of each, give both the same patient_id, or list pairs that are really "
            "different in a CSV for --allow-near-duplicates"
        )


def read_allowed_pairs(path: Path) -> frozenset[frozenset[str]]:
    """Read the pairs for `check_near_duplicates` from a CSV with image_id and other_image_id.

    Raises
    ------
    ManifestError
        If the file cannot be read or lacks a column or a cell.
    """
    table = read_table(path, ALLOWED_PAIRS)
    for line, row in zip(table.lines, table.rows, strict=True):
        if not (row["image_id"] and row["other_image_id"]):
            raise ManifestError(f"line {line}: a pair needs two image_ids", where=str(path))
    return frozenset(frozenset((row["image_id"], row["other_image_id"])) for row in table.rows)


def _near_rows(hashes: Words, part: Rows, n_threads: int) -> Iterator[tuple[int, int, int]]:
    """Yield the pairs of rows in two parts and their distance, the nearest first.

    Equal images of one part are compared once. The rows are sorted by part.
    """
    from glomerulab.cohort.hash_join import near_pairs, same_rows

    edges = np.searchsorted(part, np.arange(part.max(initial=0) + 2))
    whole = hashes.reshape(-1, hashes.shape[1] * hashes.shape[2])
    equal = np.concatenate(
        [start + same_rows(whole[start:stop]) for start, stop in pairwise(edges)]
    )
    by_group = np.argsort(equal, kind="stable")
    firsts, begin = np.unique(equal[by_group], return_index=True)
    end = np.append(begin[1:], len(equal))
    distinct = hashes if len(firsts) == len(hashes) else hashes[firsts]
    edges = np.searchsorted(part[firsts], np.arange(len(edges)))
    search = partial(
        near_pairs, max_distance=MAX_DISTANCE, max_pairs=MAX_PAIRS, n_threads=n_threads
    )
    pairs = [
        search(distinct[start:stop, 0], distinct[stop:]) + np.array([start, stop, 0])
        for start, stop in pairwise(edges)
    ]
    found = np.concatenate(pairs)
    for one, other, distance in found[np.argsort(found[:, 2], kind="stable")].tolist():
        ours, theirs = (by_group[begin[group] : end[group]] for group in (one, other))
        for pair in product(ours.tolist(), theirs.tolist()):
            yield (*pair, distance)


def _hash_images(manifest: Manifest, rows: Rows, n_workers: int, track: Track) -> Words:
    """Return the packed hashes of the given rows, shape (n_rows, 8, 4)."""
    from glomerulab.cohort.hash_join import pack_hashes

    paths = manifest.image_paths()
    items = [(index, paths[row]) for index, row in enumerate(rows)]
    hashes = np.zeros((len(rows), len(ORIENTATIONS), N_BITS // 64), dtype=np.uint64)
    problems = {}
    outcomes = map_outcomes(_hash_file, items, n_workers=n_workers)
    for outcome in track(outcomes, "Comparing images", len(items)):
        index = outcome.item[0]
        if outcome.value is None:
            row = int(rows[index])
            image_id = str(manifest.table["image_id"].iloc[row])
            problems[row] = Problem(str(outcome.error), row, image_id)
        else:
            hashes[index] = pack_hashes(outcome.value)
    raise_first([problems[row] for row in sorted(problems)], where=manifest.location)
    return hashes


def _hash_file(item: tuple[int, Path]) -> Bits:
    return orientation_hashes(read_image(item[1]))
