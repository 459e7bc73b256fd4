"""Read the images of a study for a browser.

The paths come from the store, never from a request. A JPEG or PNG is sent unchanged, anything else
as PNG; the type is detected from the content, never from the name.
"""

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from glomerulab.apps.annotation.records import Study
from glomerulab.errors import ImageFileError
from glomerulab.images import image_size, read_image
from glomerulab.reports.references import find_references

MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
REFERENCES_FOLDER = "references"
THUMBNAIL_PX = 240
MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BrowserImage:
    """The bytes of an image and their media type."""

    content: bytes
    media_type: str


def read_browser_image(path: Path) -> BrowserImage:
    """Read an image file in a format that every browser shows."""
    content = _read_bytes(path)
    for magic, media_type in MAGIC.items():
        if content.startswith(magic):
            return BrowserImage(content, media_type)
    stream = io.BytesIO()
    Image.fromarray(read_image(path)).save(stream, format="PNG", compress_level=1)
    return BrowserImage(stream.getvalue(), "image/png")


def read_thumbnail(path: Path) -> bytes:
    """Return a small picture of an image file as JPEG, cached until the file changes."""
    try:
        state = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _cached_thumbnail(path, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=2048)  # of about 10 kB each
def _cached_thumbnail(path: Path, *_version: int) -> bytes:
    picture = Image.fromarray(read_image(path))
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=85)
    return stream.getvalue()


def reference_pictures(study: Study) -> dict[str, Path]:
    """Return the pictures that the study supplies of its labels, by label id."""
    return find_references(study.image_root / REFERENCES_FOLDER, study.taxonomy.label_ids)


def image_digest(path: Path) -> str:
    """Return the SHA-256 of an image file as hex, cached until the file changes."""
    try:
        state = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _cached_digest(path, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=4096)
def _cached_digest(path: Path, *_version: int) -> str:
    image_size(path)  # raises if it is not an image
    return hashlib.sha256(_read_bytes(path)).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > MAX_FILE_BYTES:
        raise ImageFileError(
            f"the image file is larger than {MAX_FILE_BYTES // 2**20} MiB; give a smaller one",
            where=path.name,
        )
    return content


def _unreadable(path: Path, error: OSError) -> ImageFileError:
    # Names the file without its folder: browsers must not learn paths of the server.
    return ImageFileError(f"the image file cannot be read: {error.strerror}", where=path.name)
