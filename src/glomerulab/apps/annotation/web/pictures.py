"""The image of an item, as bytes that a browser shows.

Files are named by the store alone; nothing a browser says becomes a path. A JPEG or PNG goes out as
it is, anything else as PNG; what kind it is is told by content, never by name.
"""

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from glomerulab.errors import ImageFileError
from glomerulab.images import image_size, read_image

__all__ = ["Picture", "picture_digest", "read_picture"]

MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """What is sent."""

    content: bytes
    media_type: str


def read_picture(path: Path) -> Picture:
    """Read an image file for a browser.

    Parameters
    ----------
    path : Path
        From the store.

    Returns
    -------
    Picture

    Raises
    ------
    ImageFileError
        If it is missing, unreadable or no image.
    """
    content = _content(path)
    for magic, media_type in MAGIC.items():
        if content.startswith(magic):
            return Picture(content, media_type)
    stream = io.BytesIO()
    Image.fromarray(read_image(path)).save(stream, format="PNG", compress_level=1)
    return Picture(stream.getvalue(), "image/png")


def picture_digest(path: Path) -> str:
    """Return the SHA-256 of an image file as hex, having looked whether it is an image.

    Parameters
    ----------
    path : Path
        From the store.

    Returns
    -------
    str
        Remembered until the file changes.

    Raises
    ------
    ImageFileError
        If it is missing, unreadable or no image.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise ImageFileError(f"cannot be read: {error.strerror}", where=path.name) from error
    return _digest(path, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=4096)
def _digest(path: Path, *_version: int) -> str:
    image_size(path)
    return hashlib.sha256(_content(path)).hexdigest()


def _content(path: Path) -> bytes:
    """Read a file of bounded size; the error names the file, not its folder."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ImageFileError(f"cannot be read: {error.strerror}", where=path.name) from error
    if len(content) > MAX_FILE_BYTES:
        raise ImageFileError(f"is larger than {MAX_FILE_BYTES // 2**20} MiB", where=path.name)
    return content
