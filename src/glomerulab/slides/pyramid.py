"""Write a tiled, pyramidal TIFF that OpenSlide opens and that states its micrometres per pixel.

libvips works in strips, so that a slide larger than the memory can be written.
"""

import errno
import math
import os
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyvips

from glomerulab.errors import OutputError
from glomerulab.images import RgbImage
from glomerulab.runtime.files import atomic_write

__all__ = ["Compression", "write_pyramid"]

Compression = Literal["jpeg", "deflate"]

MICROMETRES_PER_MILLIMETRE = 1000.0
BIGTIFF_FROM_PX = 1_000_000_000


def write_pyramid(
    image: "RgbImage | pyvips.Image",
    path: Path,
    *,
    mpp: float,
    compression: Compression = "jpeg",
    jpeg_quality: int = 90,
    tile_px: int = 256,
) -> None:
    """Write an image as a pyramidal TIFF.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3), or pyvips.Image with three bands of uint8
        Level 0. Each further level has half the size, down to a single tile.
    path : Path
        Ends in ``.tif`` or ``.tiff``; replaced if it exists.
    mpp : float
        Micrometres per pixel of level 0; OpenSlide reads it as ``openslide.mpp-x``.
    compression : {"jpeg", "deflate"}, default "jpeg"
        ``deflate`` is lossless.
    jpeg_quality : int, default 90
        1 to 100; from 90 chroma is not subsampled.
    tile_px : int, default 256
        Side of a tile; a multiple of 16.

    Raises
    ------
    ValueError
        If an argument is out of its range or the image is not RGB of uint8.
    OutputError
        If the file cannot be written, for instance because the disk is full.
    """
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp must be positive and finite, got {mpp}")
    if tile_px < 16 or tile_px % 16:
        raise ValueError(f"tile_px must be a multiple of 16, got {tile_px}")
    if not 1 <= jpeg_quality <= 100:
        raise ValueError(f"jpeg_quality must be from 1 to 100, got {jpeg_quality}")
    if compression not in get_args(Compression):
        raise ValueError(f"compression must be jpeg or deflate, got {compression!r}")
    if path.suffix.lower() not in {".tif", ".tiff"}:
        raise ValueError(f"path must end in .tif or .tiff, got {path.name!r}")
    level_0 = _as_vips(image)
    per_millimetre = MICROMETRES_PER_MILLIMETRE / mpp
    with atomic_write(path) as temporary:
        try:
            level_0.tiffsave(
                str(temporary),
                tile=True,
                tile_width=tile_px,
                tile_height=tile_px,
                pyramid=True,
                depth="onetile",
                region_shrink="mean",
                compression=compression,
                Q=jpeg_quality,
                bigtiff=level_0.width * level_0.height >= BIGTIFF_FROM_PX,
                xres=per_millimetre,
                yres=per_millimetre,
                resunit="cm",
                keep="none",
            )
        except pyvips.Error as error:
            reason = _reason(error)
            raise OutputError(f"the slide cannot be written: {reason}", where=str(path)) from error


def _reason(error: "pyvips.Error") -> str:
    """Return the system's message, which libvips surrounds with its own."""
    text = str(error)
    known = (os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES))
    return next((reason for reason in known if reason in text), " ".join(text.split()))


def _as_vips(image: "RgbImage | pyvips.Image") -> "pyvips.Image":
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        height, width, _ = image.shape
        pixels = np.ascontiguousarray(image)
        vips = pyvips.Image.new_from_memory(pixels.data, width, height, 3, "uchar")
        return vips.copy(interpretation="srgb")
    if image.bands != 3 or image.format != "uchar":
        raise ValueError(f"image must have 3 bands of uchar, got {image.bands} of {image.format}")
    return image
