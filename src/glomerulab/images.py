"""Read and write image files: anything Pillow reads becomes uint8 RGB.

The one place that defines what CMYK, 16-bit, palette, transparent and grey images become, and which
files are too large.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from glomerulab.errors import ImageFileError
from glomerulab.image_headers import check_cost
from glomerulab.runtime.files import StrPath, atomic_write

__all__ = [
    "MAX_PIXELS",
    "RgbImage",
    "decode_image",
    "image_size",
    "read_image",
    "resized",
    "tiff_tags",
    "write_image",
]

RgbImage = npt.NDArray[np.uint8]
"""uint8, shape (H, W, 3), channels red, green, blue."""

MAX_PIXELS = 100_000_000
"""Larger images are refused: a small file can claim a size that fills the memory."""

MAX_GREY_16_BIT = 65535

UNTRUSTED_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""Formats of images from clients: some of Pillow's other formats start programs."""

ON_SIDE = (5, 6, 7, 8)
"""EXIF orientations in which the stored rows are the columns of the upright image."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How pixels of each EXIF orientation become upright, without reading more of the metadata."""

Z_RLE = 3


def read_image(path: StrPath) -> RgbImage:
    """Read an image file as RGB.

    Parameters
    ----------
    path : Path
        PNG, JPEG, TIFF, BMP or anything else Pillow reads; of several frames the first.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new, writable array.

    Raises
    ------
    ImageFileError
        If the file is missing, empty, truncated, no image, or above `MAX_PIXELS`.

    Notes
    -----
    Transparent pixels are blended with white, the colour of glass. 16-bit grey is scaled by 1/257;
    floating-point grey is refused. CMYK and palettes are converted by Pillow. The orientation that
    a camera or program noted (EXIF, or the tag of a TIFF) is applied; embedded colour profiles are
    not.
    """
    path = Path(path)
    with _opened(path) as image:
        return _upright(image)


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """Decode an image from a client to the same pixels as `read_image` returns for its file.

    Parameters
    ----------
    content : bytes
        A PNG, JPEG, TIFF or BMP file.
    max_pixels : int, default `MAX_PIXELS`
        Limit of the size in the header, checked before a pixel is decoded.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new, writable array.

    Raises
    ------
    ImageFileError
        If it is truncated, of another format, or has too many pixels.
    """
    with _opened(io.BytesIO(content), formats=UNTRUSTED_FORMATS, max_pixels=max_pixels) as image:
        return _upright(image)


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height of the upright image from its header, without decoding the pixels.

    Raises
    ------
    ImageFileError
        If the header cannot be read or claims more than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        width, height = image.size
        # Pillow gives the size of a TIFF upright, that of other formats as stored.
        is_on_side = image.format != "TIFF" and _orientation(image) in ON_SIDE
        return (height, width) if is_on_side else (width, height)


def tiff_tags(path: Path | io.BytesIO) -> dict[int, Any]:
    """Return the tags of the first image of a TIFF; empty for other formats.

    Raises
    ------
    ImageFileError
        As `read_image`, without decoding the pixels.
    """
    with _opened(path) as image:
        tags = dict(getattr(image, "tag_v2", {}))
    return {n: _utf8(value) if isinstance(value, str) else value for n, value in tags.items()}


def _utf8(text: str) -> str:
    """Return the text of a tag, which Pillow reads as Latin-1 and OME-XML writes as UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def resized(image: RgbImage, width: int, height: int) -> RgbImage:
    """Resize an image with antialiasing, as for the input of every network.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    width, height : int
        Wanted size in pixels; the aspect ratio is not kept.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(picture, dtype=np.uint8)


def write_image(image: RgbImage, path: Path, *, jpeg_quality: int = 95) -> None:
    """Write an RGB image atomically as PNG or JPEG, by the suffix.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    path : Path
        Ends in ``.png``, ``.jpg`` or ``.jpeg``; replaced if it exists.
    jpeg_quality : int, default 95
        1 to 100; chroma is not subsampled, which would blur stains.

    Raises
    ------
    ValueError
        If `image` is not uint8 of shape (H, W, 3), or the suffix is another.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    suffix = path.suffix.lower()
    if suffix not in {".png", ".jpg", ".jpeg"}:
        raise ValueError(f"image path must end in .png, .jpg or .jpeg, got {path.name!r}")
    with atomic_write(path) as temporary:
        if suffix == ".png":
            # zlib's Z_RLE matches run lengths alone: tissue has no longer repeats, so that files
            # are no larger than with the default and written in less than half the time.
            Image.fromarray(image).save(
                temporary, format="PNG", compress_level=1, compress_type=Z_RLE
            )
        else:
            Image.fromarray(image).save(
                temporary, format="JPEG", quality=jpeg_quality, subsampling=0
            )


@contextmanager
def _opened(
    file: Path | io.BytesIO, *, formats: tuple[str, ...] | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[ImageFile.ImageFile]:
    """Open an image of a limited size, and turn Pillow's errors into `ImageFileError`."""
    where = _shown(file) if isinstance(file, Path) else None
    limit = f"more than the {max_pixels:,} pixels allowed"
    if where is not None:
        limit += "; save a larger one as a pyramidal TIFF"
    with warnings.catch_warnings():
        # The size is checked below against our own limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # Ignore warnings about metadata; damaged pixels raise.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        try:
            _check_cost(file, max_pixels)
            with Image.open(file, formats=formats) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ImageFileError(
                        f"the image claims {width} x {height} pixels, {limit}", where=where
                    )
                yield image
        except Image.DecompressionBombError as error:
            raise ImageFileError(f"the image claims {limit}", where=where) from error
        except UnidentifiedImageError as error:
            known = (
                "any known format" if formats is None else f"a known format ({', '.join(formats)})"
            )
            message = f"the file is not an image in {known}"
            if isinstance(file, Path) and file.is_file() and file.stat().st_size == 0:
                message = "the file is empty (0 bytes)"
            raise ImageFileError(message, where=where) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImageFileError(
                "there is no such image file; check the path", where=where
            ) from error
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageFileError(
                f"the image cannot be read ({_reason(error)}); it may be damaged: copy or export "
                "it again",
                where=where,
            ) from error


def _check_cost(file: Path | io.BytesIO, max_pixels: int) -> None:
    if isinstance(file, io.BytesIO):
        check_cost(file, max_pixels=max_pixels)
    else:
        with file.open("rb") as stream:
            try:
                check_cost(stream, max_pixels=max_pixels)
            except ImageFileError as error:
                raise ImageFileError(error.message, where=_shown(file)) from error


def _shown(path: Path) -> str:
    """Return a path as people write it, without the ``..`` of a path relative to a table."""
    return str(path.resolve() if ".." in path.parts else path)


def _orientation(image: Image.Image) -> int:
    """Return how the pixels are stored: 1 upright, 2 to 8 mirrored or turned."""
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if isinstance(found, int) else 1


def _upright(image: ImageFile.ImageFile) -> RgbImage:
    image.load()  # which turns a TIFF and forgets its orientation
    turned = TURNS.get(_orientation(image))
    upright = _as_rgb(image) if turned is None else _as_rgb(image).transpose(turned)
    return np.array(upright, dtype=np.uint8)


def _as_rgb(image: ImageFile.ImageFile) -> Image.Image:
    """Convert any Pillow mode to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point grey levels have no defined white; save it as 8 or 16 bit")
    if image.mode.startswith("I"):
        return Image.fromarray(_grey_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, (255, 255, 255, 255))
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _grey_to_8_bit(grey: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    low, high = float(grey.min()), float(grey.max())
    if not (0 <= low <= high <= MAX_GREY_16_BIT):
        raise ValueError(f"grey levels from {low:g} to {high:g} are outside 0 to {MAX_GREY_16_BIT}")
    # Rounded division without a copy in floating point; 257 is odd, so no value is halfway.
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
