"""Search a written copy for what was left out of it: each text, its parts, in several encodings."""

import re
from collections.abc import Iterator
from pathlib import Path

from glomerulab.errors import SlideError
from glomerulab.slides.scrubbing import without_pictures

__all__ = ["RemovedText", "texts_in"]

MIN_BYTES = 4
"""Of a text that is searched in metadata."""

MIN_BYTES_IN_PIXELS = 6
"""Shorter ones stand among compressed pixels by chance."""

MAX_PARTS = 500
CHUNK = 1 << 24
OVERLAP = 1 << 10
ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "latin-1")

PIECES = re.compile(r"[<>\"|=;\r\n]+")
WORDS = re.compile(r"[^\W_]+", re.UNICODE)
RUNS = re.compile(rb"[\x20-\x7e\x80-\xff]{4,}")
WIDE_RUNS = re.compile(rb"(?:[\x20-\x7e]\0){4,}|(?:\0[\x20-\x7e]){4,}")

HARMLESS = frozenset({"adobe", "jfif", "exif", "colour", "profile", "icc_profile", "desc"})
"""Words of the formats themselves, which copies hold."""


class RemovedText:
    """The texts that a copy must not hold."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def add(self, text: str, origin: str) -> None:
        """Remember a text and its parts; `origin` names its place for the error."""
        for piece in PIECES.split(text):
            whole = " ".join(piece.split()).strip("\0 ")
            for part in (whole, *WORDS.findall(whole)):
                is_long = len(part.encode("utf-8", "replace")) >= MIN_BYTES
                if is_long and part.casefold() not in HARMLESS and len(self._found) < MAX_PARTS:
                    self._found.setdefault(part, origin)

    def add_whole(self, text: str, origin: str) -> None:
        """Remember a text without its parts, which many others have."""
        if len(text) >= MIN_BYTES:
            self._found.setdefault(text, origin)

    def add_bytes(self, content: bytes, origin: str) -> None:
        """Remember the readable texts of bytes, but for the pixels of pictures within them."""
        for part in without_pictures(content):
            for text in texts_in(part):
                self.add(text, origin)

    def keep(self, content: bytes) -> None:
        """Forget the texts of bytes that the copy holds on purpose, in any case."""
        kept = content.lower()
        self._found = {
            part: origin
            for part, origin in self._found.items()
            if not any(form.lower() in kept for form in _forms(part))
        }

    def check(self, slide: Path, copy: Path, metadata: bytes = b"") -> None:
        """Raise `SlideError` if a copy holds one of the texts; arguments as for `find`."""
        origin = self.find(copy, metadata)
        if origin is not None:
            raise SlideError(
                f"the copy still holds a text of the slide ({origin}), perhaps within its "
                "compressed pixels; nothing was written",
                where=str(slide),
            )

    def find(self, path: Path, metadata: bytes) -> str | None:
        """Return the origin of the first text that a file holds, None if it holds none.

        Parameters
        ----------
        path : Path
            The copy, of which all bytes are searched.
        metadata : bytes
            Its bytes but the pixels: here short texts are searched too, whatever their case.
        """
        folded = metadata.lower()
        for part, origin in self._found.items():
            if any(form.lower() in folded for form in _forms(part)):
                return origin
        long = [
            (form, origin)
            for part, origin in self._found.items()
            for form in _forms(part)
            if len(form) >= MIN_BYTES_IN_PIXELS
        ]
        with path.open("rb") as stream:
            last = b""
            while chunk := stream.read(CHUNK):
                searched = last + chunk
                for form, origin in long:
                    if form in searched:
                        return origin
                last = chunk[-OVERLAP:]
        return None


def texts_in(content: bytes) -> Iterator[str]:
    """Yield the readable runs of bytes, of one or two bytes per letter."""
    for run in RUNS.findall(content):
        try:
            yield run.decode("utf-8")
        except UnicodeDecodeError:
            yield run.decode("latin-1")
    for run in WIDE_RUNS.findall(content):
        yield run.replace(b"\0", b"").decode("ascii")


def _forms(text: str) -> set[bytes]:
    forms = set()
    for encoding in ENCODINGS:
        try:
            forms.add(text.encode(encoding))
        except UnicodeEncodeError:
            continue
    return forms
