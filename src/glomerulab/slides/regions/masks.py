"""Run-length masks of COCO, compressed or not, as outlines."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from skimage.measure import find_contours

from glomerulab.errors import RegionError
from glomerulab.slides.regions.features import Part

__all__ = ["mask_parts"]

MAX_PIXELS = 400_000_000
"""A mask is decoded whole, one byte per pixel."""


def mask_parts(mask: Mapping[str, Any], place: str) -> tuple[tuple[Part, ...], tuple[float, float]]:
    """Return the outlines of a mask, and the width and height of its image.

    Raises
    ------
    RegionError
        If the mask is malformed, empty, or of an image above `MAX_PIXELS`.
    """
    size, counts = mask.get("size") or (), mask.get("counts")
    if not isinstance(size, list) or [type(side) for side in size] != [int, int] or min(size) < 1:
        raise RegionError(f"{place}: its mask has no size [height, width]")
    height, width = size
    if height * width > MAX_PIXELS:
        raise RegionError(
            f"{place}: its mask of {width} x {height} pixels is too large; export polygons"
        )
    pixels = _decoded(counts, height, width, place)
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        raise RegionError(f"{place}: its mask is empty")
    top, left = int(rows[0]), int(columns[0])
    cut = pixels[top : rows[-1] + 1, left : columns[-1] + 1]
    # Contours run through pixel centres; drawn twice as large, they follow the pixels' edges.
    doubled = np.pad(cut.repeat(2, axis=0).repeat(2, axis=1), 1).astype(np.float32)
    parts = [
        Part(tuple((left + (x - 0.5) / 2, top + (y - 0.5) / 2) for y, x in contour[:-1].tolist()))
        for contour in find_contours(  # type: ignore[no-untyped-call]
            doubled, 0.5, positive_orientation="high"
        )
        if _is_outer(contour)
    ]
    return tuple(parts), (float(width), float(height))


def _decoded(counts: object, height: int, width: int, place: str) -> npt.NDArray[np.uint8]:
    """Return the pixels of a mask, shape (height, width)."""
    invalid = RegionError(f"{place}: its mask is not run lengths of {width} x {height} pixels")
    if isinstance(counts, list):
        if any(type(n) is not int or n < 0 for n in counts) or sum(counts) != height * width:
            raise invalid
        values = (np.arange(len(counts)) % 2).astype(np.uint8)
        return np.repeat(values, counts).reshape(height, width, order="F")
    if not isinstance(counts, str | bytes):
        raise invalid
    text = counts.encode() if isinstance(counts, str) else counts
    try:
        with warnings.catch_warnings():
            # pycocotools 2.0.11 is not yet written for NumPy 2's copy keyword.
            warnings.simplefilter("ignore", DeprecationWarning)
            pixels: npt.NDArray[np.uint8] = coco_mask.decode(
                {"size": [height, width], "counts": text}
            )
    except (ValueError, TypeError) as error:
        raise invalid from error
    # pycocotools leaves pixels without a run as they are in memory: a true mask reads back.
    if pixels.max() > 1 or coco_mask.encode(pixels)["counts"] != text:
        raise invalid
    return pixels


def _is_outer(contour: npt.NDArray[np.float64]) -> bool:
    """Return whether a contour surrounds its pixels, rather than a hole in them."""
    y, x = contour.T
    return bool(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) < 0)
