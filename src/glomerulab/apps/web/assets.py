"""Static files with their digest in the address, so that browsers can cache them."""

import hashlib
from functools import cached_property
from importlib import resources
from pathlib import Path

from starlette.responses import FileResponse, Response

__all__ = ["Assets"]

SHARED = Path(str(resources.files("glomerulab.reports") / "templates"))
SHARED_NAMES = ("picture_viewer.css", "picture_viewer.js")
"""Of files that reports embed and the applications serve."""
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Assets:
    """The files below the folder ``static`` of a package, and those that all pages share.

    Parameters
    ----------
    package : str
        Such as ``glomerulab.apps.annotation.web``.
    """

    def __init__(self, package: str) -> None:
        self.root = Path(str(resources.files(package) / "static"))
        self._urls: dict[str, str] = {}

    def url(self, name: str) -> str:
        """Return the address of a file below ``static``, which changes with its content."""
        if name not in self._urls:
            digest = hashlib.sha256(self._files[name].read_bytes()).hexdigest()[:12]
            self._urls[name] = f"/static/{name}?v={digest}"
        return self._urls[name]

    def response(self, name: str) -> Response | None:
        """Return a known file; None for any other name."""
        path = self._files.get(name)
        if path is None:
            return None
        # The address contains the digest, so the response can be cached forever.
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)

    @cached_property
    def _files(self) -> dict[str, Path]:
        own = {
            path.relative_to(self.root).as_posix(): path
            for path in self.root.rglob("*")
            if path.suffix in TYPES
        }
        return {name: SHARED / name for name in SHARED_NAMES} | own
