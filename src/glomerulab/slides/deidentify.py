"""Copy a slide without label, macro and identifying metadata, and verify the copy.

Only what is known to be harmless is kept: pyramid, thumbnail, structural tags, optical settings.
The compressed pixels are copied, never encoded again. The copy is verified before it gets its name,
so that there is a verified copy or none.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from glomerulab.errors import OutputError, SlideError
from glomerulab.runtime.files import atomic_write
from glomerulab.slides.slide import open_slide
from glomerulab.slides.sources import OpenSlideSource, detect_vendor
from glomerulab.slides.tiff_structure import (
    Directory,
    Tag,
    TiffFile,
    block_ranges,
    blocks,
    read_tiff,
    write_tiff,
)

__all__ = ["Deidentified", "deidentify"]

REWRITABLE_VENDORS = ("aperio", "generic-tiff")
"""Formats that can be rewritten; every other is refused."""

STRUCTURE_TAGS = {254, 256, 257, 258, 259, 262, 266, 274, 277, 284, 317, 338, 339, 32997, 32998}
PIXEL_TAGS = {273, 278, 279, 322, 323, 324, 325, 347, 512}
COLOUR_TAGS = {282, 283, 296, 320, 530, 531, 532, 34675}
KEPT_TAGS = frozenset(STRUCTURE_TAGS | PIXEL_TAGS | COLOUR_TAGS)
"""Layout, compression, colour and resolution, but no dates, names, software, XMP or EXIF."""

NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, IMAGE_DESCRIPTION, SUB_IFDS = 254, 256, 257, 270, 330
ASCII = 2
REDUCED_IMAGE = 1
PIXELS_OF_ROUNDING, SHARE_OF_ROUNDING = 2.0, 0.02
APERIO_LABEL_SUBFILE_TYPES = (1, 9)

KEPT_APERIO_KEYS = frozenset(
    {
        "AppMag",
        "MPP",
        "StripeWidth",
        "Left",
        "Top",
        "LineCameraSkew",
        "LineAreaXOffset",
        "LineAreaYOffset",
        "Focus Offset",
        "OriginalWidth",
        "OriginalHeight",
        "Originalheight",
        "Filtered",
        "ICC Profile",
        "Gamma",
        "DisplayColor",
        "Exposure Time",
        "Exposure Scale",
    }
)
"""Keys of Aperio's description about optics and geometry only."""

NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
LIBRARY_LINE = re.compile(
    r"Aperio (Image Library|Leica Biosystems GT450|Format)[ \w.]*\s*"
    r"\d+x\d+ (\[[\d, x-]*\] )?(\(\d+x\d+\) )?([A-Z\d]+/[A-Z\d]+( Q=\d+)?)?"
)


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
        Aperio SVS, or a generic tiled TIFF.
    out : Path
        The copy; choose a name that does not identify.
    overwrite : bool, default False
        Replace `out` if it exists.

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
    vendor = _rewritable_vendor(slide)
    _check_decodable(slide)
    original = read_tiff(slide)
    kept = _choose_directories(original, vendor, slide)
    with atomic_write(out) as temporary:
        write_tiff(kept, slide, temporary, is_big=original.is_big)
        images, properties = _verify(slide, temporary, kept)
    if vendor != "aperio":
        pages = enumerate(original.directories)
        images = tuple(
            f"page {place + 1}" for place, page in pages if not _is_level(place, page, vendor)
        )
    return Deidentified(out, images, properties)


def _rewritable_vendor(slide: Path) -> str:
    if slide.is_dir():
        raise SlideError(
            "the slide is a folder (DICOM slides are several files); only Aperio SVS and generic "
            "tiled TIFF can be rewritten without label and metadata, nothing was written",
            where=str(slide),
        )
    if not slide.is_file():
        raise SlideError("there is no such slide file", where=str(slide))
    vendor = detect_vendor(slide)
    if vendor not in REWRITABLE_VENDORS:
        kind = "a plain image or damaged" if vendor is None else f"in the format {vendor!r}"
        raise SlideError(
            f"the slide is {kind}; only Aperio SVS and generic tiled TIFF can be rewritten without "
            "label and metadata, nothing was written",
            where=str(slide),
        )
    return vendor


def _check_decodable(slide: Path) -> None:
    """Decode a sample of the pixels: a bit-for-bit copy of damage must not pass as verified."""
    with open_slide(slide) as opened:
        _ = opened.background


def _choose_directories(tiff: TiffFile, vendor: str, slide: Path) -> list[Directory]:
    """Return the images to keep, without their identifying tags."""
    kept: list[Directory] = []
    for place, directory in enumerate(tiff.directories):
        if SUB_IFDS in directory.tags:
            raise SlideError(
                "the slide has images in sub-directories (OME-TIFF); such files cannot be "
                "rewritten, nothing was written",
                where=str(slide),
            )
        if _is_level(place, directory, vendor):
            _check_shape(tiff.directories[0], directory, slide)
            kept.append(_scrubbed(directory, vendor))
        elif vendor == "aperio" and _is_thumbnail(place, directory):
            kept.append(_scrubbed(directory, vendor))
    return kept


def _is_level(place: int, directory: Directory, vendor: str) -> bool:
    """Return whether a page is a level of the pyramid, by the rules of OpenSlide."""
    reduced = next(iter(directory.numbers(NEW_SUBFILE_TYPE)), 0) & REDUCED_IMAGE
    return directory.is_tiled and (vendor == "aperio" or place == 0 or bool(reduced))


def _check_shape(first: Directory, directory: Directory, slide: Path) -> None:
    """Refuse a page that is marked as a level but is not a smaller copy of the slide."""
    (wide, high), (width, height) = (
        (each.numbers(IMAGE_WIDTH)[0], each.numbers(IMAGE_LENGTH)[0]) for each in (first, directory)
    )
    wanted = width * high / wide
    if abs(height - wanted) > PIXELS_OF_ROUNDING + SHARE_OF_ROUNDING * wanted:
        raise SlideError(
            f"the slide has a page of {width} x {height} pixels among its levels, which is not the "
            f"shape of the slide ({wide} x {high}) and perhaps a label; remove it first, nothing "
            "was written",
            where=str(slide),
        )


def _is_thumbnail(place: int, directory: Directory) -> bool:
    """Return whether an image is Aperio's thumbnail, the second of the file, and not a label."""
    description = directory.text(IMAGE_DESCRIPTION).casefold()
    subfile_type = next(iter(directory.numbers(NEW_SUBFILE_TYPE)), 0)
    named = "label" in description or "macro" in description
    return place == 1 and not named and subfile_type not in APERIO_LABEL_SUBFILE_TYPES


def _scrubbed(directory: Directory, vendor: str) -> Directory:
    tags = {code: tag for code, tag in directory.tags.items() if code in KEPT_TAGS}
    if vendor == "aperio":
        text = _scrubbed_aperio(directory.text(IMAGE_DESCRIPTION)).encode("ascii") + b"\0"
        tags[IMAGE_DESCRIPTION] = Tag(ASCII, len(text), text)
    return directory.with_tags(tags)


def _scrubbed_aperio(description: str) -> str:
    """Keep geometry, optics, and the words by which OpenSlide recognizes Aperio's format."""
    head, *pairs = description.split("|")
    lines = [LIBRARY_LINE.search(part) for part in head.split(";")]
    known = [" ".join(line.group().split()) for line in lines if line is not None]
    kept = [pair.strip() for pair in pairs if _is_harmless(pair)]
    return "|".join([";".join(known) or "Aperio Image Library", *kept])


def _is_harmless(pair: str) -> bool:
    key, _, value = (part.strip() for part in pair.partition("="))
    if key not in KEPT_APERIO_KEYS or not value.isascii():
        return False
    return bool(NUMBER.fullmatch(value)) or key == "ICC Profile"


def _verify(
    slide: Path, copy: Path, kept: list[Directory]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the copy, check it against the original, and return what it lacks."""
    rewritten = read_tiff(copy)
    for before, after in zip(kept, rewritten.directories, strict=True):
        allowed = KEPT_TAGS | {IMAGE_DESCRIPTION}
        if not after.tags.keys() <= allowed or _digest(slide, before) != _digest(copy, after):
            raise SlideError("the copy differs from what should be kept", where=str(slide))
    before_source, after_source = OpenSlideSource(slide), OpenSlideSource(copy)
    try:
        if after_source.level_dimensions != before_source.level_dimensions:
            raise SlideError("the copy lost levels of the pyramid", where=str(slide))
        if not set(after_source.associated_images) <= {"thumbnail"}:
            raise SlideError("the copy still has a label or macro image", where=str(slide))
        for name in ("openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power"):
            if after_source.properties.get(name) != before_source.properties.get(name):
                raise SlideError(f"the copy lost {name}", where=str(slide))
        images = set(before_source.associated_images) - set(after_source.associated_images)
        properties = before_source.properties.keys() - after_source.properties.keys()
    finally:
        before_source.close()
        after_source.close()
    return tuple(sorted(images)), tuple(sorted(properties))


def _digest(path: Path, directory: Directory) -> str:
    digest = hashlib.sha256(repr([length for _, length in block_ranges(path, directory)]).encode())
    for block in blocks(path, directory):
        digest.update(block)
    return digest.hexdigest()
