"""The Jinja environment of HTML pages, and images as data URIs."""

import base64
import json
import re
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from PIL import Image

from glomerulab.images import read_image

__all__ = [
    "THUMBNAIL_PX",
    "jpeg_uri",
    "page_environment",
    "picture_bytes",
    "script_json",
    "svg_uri",
    "thumbnail_uri",
    "with_code",
]

THUMBNAIL_PX = 192
JPEG_QUALITY = 85
FINE_QUALITY = 90


@cache
def page_environment(*packages: str) -> Environment:
    """Return a Jinja environment with autoescaping, strict names and the shared style sheet.

    Templates are looked up in the ``templates`` folder of each of `packages`, then in that of
    `glomerulab.reports`, which holds ``report.css``.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, "glomerulab.reports")]),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = with_code
    return environment


def svg_uri(path: Path) -> str:
    """Return an SVG file as a data URI, for the ``src`` of an image: ids cannot clash there."""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def thumbnail_uri(path: Path, *, size_px: int = THUMBNAIL_PX) -> str:
    """Return a small JPEG of an image as a data URI; see `picture_bytes` for one to be read from.

    Parameters
    ----------
    path : Path
        In a format of `read_image`.
    size_px : int, default 192
        The longer side.

    Raises
    ------
    ImageFileError
        If the image cannot be read.
    """
    try:
        found = path.stat()
    except OSError:  # read_image raises the error
        return _thumbnail_uri(path, size_px, (0, 0))
    return _thumbnail_uri(path, size_px, (found.st_mtime_ns, found.st_size))


# A report is rendered again, with the same pictures, for each format and after each correction.
@lru_cache(maxsize=1024)
def _thumbnail_uri(path: Path, size_px: int, _written: tuple[int, int]) -> str:
    return jpeg_uri(_jpeg(path, size_px, quality=JPEG_QUALITY, subsampling=2))


def picture_bytes(path: Path, *, size_px: int) -> bytes:
    """Return an image as a JPEG that a diagnosis can be read from: fine, with full colour.

    An image whose longer side is above `size_px` is made smaller.

    Raises
    ------
    ImageFileError
        If the image cannot be read.
    """
    return _jpeg(path, size_px, quality=FINE_QUALITY, subsampling=0)


def jpeg_uri(content: bytes) -> str:
    """Return a JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"


def _jpeg(path: Path, size_px: int, *, quality: int, subsampling: int) -> bytes:
    image = Image.fromarray(read_image(path))
    image.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def with_code(text: str) -> Markup:
    """Escape a text, and set what stands between backticks as code."""
    escaped = str(escape(text))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))  # noqa: S704 - escaped


def script_json(value: object) -> Markup:
    """Return JSON that can be placed inside a script element."""
    text = json.dumps(value, ensure_ascii=False)
    for character, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(character, escaped)
    return Markup(text)  # noqa: S704 - no character that could end the element is left
