"""Image files in and out: whatever Pillow reads becomes uint8 RGB, whatever is written is whole.

The one place that decides what CMYK, 16-bit, palette, transparent and grey images turn into, and
when a file is too large to trust. Slides are not opened here.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from glomerulab.errors import ImageFileError
from glomerulab.runtime.files import atomic_write

__all__ = [
    "MAX_PIXELS",
    "RgbImage",
    "decode_image",
    "image_size",
    "read_image",
    "resized",
    "write_image",
]

RgbImage = npt.NDArray[np.uint8]
"""uint8, shape (H, W, 3), channels red, green, blue."""

MAX_PIXELS = 100_000_000
"""Images above this are refused: a small file can claim a size that fills the memory."""

TOO_MANY_PIXELS = (
    f"more than the {MAX_PIXELS:,} allowed in a plain image; a larger one must be a pyramidal TIFF"
)

MAX_GREY_16_BIT = 65535

SENT_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""What bytes from elsewhere may be: some of Pillow's other formats start programs."""

Z_RLE = 3


def read_image(path: Path) -> RgbImage:
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
    Transparent pixels are laid on white, as glass is. 16-bit grey is scaled by 1/257;
    floating-point grey is refused. CMYK and palettes are converted by Pillow; embedded colour
    profiles are not applied, and EXIF orientation neither: pixels lie as stored.
    """
    with warnings.catch_warnings():
        # The size is checked below against our own limit; Pillow's warning says nothing new.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # Damaged metadata alone is no reason to speak; damaged pixels raise.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        try:
            with Image.open(path) as image:
                _refuse_huge(image.size, path)
                return np.array(_as_rgb(image), dtype=np.uint8)
        except (UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ImageFileError(_unidentified_reason(path, error), where=str(path)) from error
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageFileError(f"cannot be read: {_reason(error)}", where=str(path)) from error


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> RgbImage:
    """Read an image that somebody sent, to the same pixels as `read_image` its file.

    Parameters
    ----------
    content : bytes
        A PNG, JPEG, TIFF or BMP file.
    max_pixels : int, default `MAX_PIXELS`
        Refused by the size that the header claims, before a pixel is decoded.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new, writable array.

    Raises
    ------
    ImageFileError
        If it is truncated, of another format, or has too many pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        try:
            with Image.open(io.BytesIO(content), formats=SENT_FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ImageFileError(
                        f"the image claims {width} x {height} pixels, more than the "
                        f"{max_pixels:,} allowed"
                    )
                return np.array(_as_rgb(image), dtype=np.uint8)
        except Image.DecompressionBombError as error:
            raise ImageFileError(
                f"the image claims more than the {max_pixels:,} pixels allowed"
            ) from error
        except UnidentifiedImageError as error:
            known = ", ".join(SENT_FORMATS)
            raise ImageFileError(f"not an image in a format that is taken ({known})") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageFileError(f"the image cannot be read: {_reason(error)}") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) from the header, without decoding the pixels.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of int
        Width and height in pixels.

    Raises
    ------
    ImageFileError
        If the header cannot be read or claims more than `MAX_PIXELS`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # Damaged metadata alone is no reason to speak; damaged pixels raise.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        try:
            with Image.open(path) as image:
                _refuse_huge(image.size, path)
                return image.size
        except (UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ImageFileError(_unidentified_reason(path, error), where=str(path)) from error
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageFileError(f"cannot be read: {_reason(error)}", where=str(path)) from error


def resized(image: RgbImage, width: int, height: int) -> RgbImage:
    """Resize an image, antialiased, as every network here is shown it.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    width, height : int
        Wanted size in pixels; the aspect ratio is not kept.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        A new array.
    """
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(picture, dtype=np.uint8)


def write_image(image: RgbImage, path: Path, *, jpeg_quality: int = 95) -> None:
    """Write an RGB image as PNG or JPEG, by the suffix; the file appears whole or not at all.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    path : Path
        Ends in ``.png``, ``.jpg`` or ``.jpeg``; replaced if it exists.
    jpeg_quality : int, default 95
        1 to 100; chroma is not subsampled, since stains live in it.

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
            # Run lengths alone are matched (zlib's Z_RLE): tissue has no longer repeats, so that
            # files are no larger than the default's and written in well under half the time.
            Image.fromarray(image).save(
                temporary, format="PNG", compress_level=1, compress_type=Z_RLE
            )
        else:
            Image.fromarray(image).save(
                temporary, format="JPEG", quality=jpeg_quality, subsampling=0
            )


def _as_rgb(image: ImageFile.ImageFile) -> Image.Image:
    """Convert any Pillow mode to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point grey levels have no stated white; save it as 8 or 16 bit")
    if image.mode.startswith("I"):
        return Image.fromarray(_grey_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, (255, 255, 255, 255))
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _grey_to_8_bit(grey: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    values = grey.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (0 <= low <= high <= MAX_GREY_16_BIT):
        raise ValueError(f"grey levels from {low:g} to {high:g} are outside 0 to {MAX_GREY_16_BIT}")
    return np.rint(values / 257.0).astype(np.uint8)


def _refuse_huge(size: tuple[int, int], path: Path) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageFileError(
            f"claims {width} x {height} pixels, {TOO_MANY_PIXELS}", where=str(path)
        )


def _unidentified_reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"claims {TOO_MANY_PIXELS}"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty (0 bytes)"
    return "not an image in any known format"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
