"""Copy a slide without label, macro and identifying metadata, and verify the copy.

Only what is known to be harmless is kept: pyramid, thumbnail, structural tags, optical settings.
The compressed pixels are copied, never encoded again. The copy is verified before it gets its name,
so that there is a verified copy or none: it may hold structures of a fixed list alone, and none of
the texts that were left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from glomerulab.errors import OutputError, SlideError
from glomerulab.images import read_image
from glomerulab.runtime.files import atomic_write
from glomerulab.slides.deidentify_dicom import deidentify_dicom
from glomerulab.slides.deidentify_tiff import deidentify_tiff, verify_slide
from glomerulab.slides.files import dicom_files
from glomerulab.slides.removed_text import RemovedText
from glomerulab.slides.scrubbing import (
    scrubbed_jpeg,
    scrubbed_png,
)
from glomerulab.slides.slide import open_slide
from glomerulab.slides.sources import DICOM, detect_vendor

__all__ = ["Deidentified", "deidentify"]

REWRITABLE_VENDORS = ("aperio", "generic-tiff")
"""Formats that can be rewritten; every other is refused."""

IMAGE_STARTS = {
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpeg",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tiff"),
}

Scrub = Callable[[bytes, list[bytes] | None], bytes]


@dataclass(frozen=True, slots=True)
class Deidentified:
    """What a verified copy lacks."""

    path: Path
    removed_images: tuple[str, ...]
    """Names of images beside the pyramid; numbers of pages for a generic TIFF."""
    removed_properties: tuple[str, ...]
    """Names of metadata properties."""


def deidentify(slide: Path, out: Path, *, overwrite: bool = False) -> Deidentified:
    """Copy a slide without identity.

    Parameters
    ----------
    slide : Path
        Aperio SVS, a TIFF (tiled, OME or plain), a PNG or JPEG; of DICOM a file or the folder.
    out : Path
        The copy, a folder for DICOM; choose a name that does not identify.
    overwrite : bool, default False
        Replace `out` if it exists; a folder only if it holds such a copy alone.

    Raises
    ------
    SlideError
        If the format cannot be rewritten, the pixels are damaged, or the copy fails verification.
    OutputError
        If `out` exists, or is the slide itself.
    """
    if out.exists() and out.samefile(slide):
        raise OutputError(
            "the copy would replace the slide itself; write it elsewhere", where=str(out)
        )
    if out.exists() and not overwrite:
        raise OutputError("the file exists; give --overwrite to replace it", where=str(out))
    kind = _kind(slide)
    _check_decodable(slide)
    try:
        if kind == DICOM:
            images, properties = deidentify_dicom(
                slide, out, overwrite=overwrite, check=partial(verify_slide, slide)
            )
        elif kind in {"png", "jpeg"}:
            images, properties = _deidentify_image(slide, out, kind)
        else:
            images, properties = deidentify_tiff(slide, out, kind)
    except ValueError as error:
        raise SlideError(
            f"the slide cannot be copied without its metadata ({error}); nothing was written",
            where=str(slide),
        ) from error
    return Deidentified(out, images, properties)


def _kind(slide: Path) -> str:
    """Return how a slide is rewritten: OpenSlide's name of the format, or that of an image."""
    if slide.is_dir() and dicom_files(slide):
        return DICOM
    if slide.is_dir():
        raise _refused(slide, "a folder without DICOM files")
    if not slide.is_file():
        raise SlideError("there is no such slide file", where=str(slide))
    vendor = detect_vendor(slide)
    if vendor is not None:
        if vendor == DICOM:
            return DICOM
        if vendor not in REWRITABLE_VENDORS:
            raise _refused(slide, f"in the format {vendor!r}")
        return vendor
    with slide.open("rb") as stream:
        start = stream.read(8)
    for mark, kind in IMAGE_STARTS.items():
        if start.startswith(mark):
            return kind
    raise _refused(slide, "a plain image or damaged")


def _refused(slide: Path, what: str) -> SlideError:
    return SlideError(
        f"the slide is {what}; only Aperio SVS and generic tiled TIFF, OME-TIFF, DICOM, PNG and "
        "JPEG can be rewritten without label and metadata, nothing was written",
        where=str(slide),
    )


def _check_decodable(slide: Path) -> None:
    """Decode a sample of the pixels: a bit-for-bit copy of damage must not pass as verified."""
    with open_slide(slide) as opened:
        _ = opened.background


def _deidentify_image(slide: Path, out: Path, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rewrite a PNG or JPEG."""
    content = slide.read_bytes()
    scrub: Scrub = scrubbed_png if kind == "png" else partial(scrubbed_jpeg, keeps_icc=True)
    dropped: list[bytes] = []
    removed = RemovedText()
    removed.add(slide.stem, "the name of the file")
    with atomic_write(out) as temporary:
        temporary.write_bytes(scrub(content, dropped))
        for each in dropped:
            removed.add_bytes(each, "its metadata")
        written = temporary.read_bytes()
        own: list[bytes] = []
        if scrub(written, own) != written:
            raise SlideError("the copy holds more than what should be kept", where=str(slide))
        for each in own:
            removed.keep(each)
        removed.check(slide, temporary)
        if not np.array_equal(read_image(slide), read_image(temporary)):
            raise SlideError("the pixels of the copy differ", where=str(slide))
    properties = ("metadata",) if any(dropped) else ()
    return (), properties
