"""Copy a TIFF without identity: its pages, tags, tiles and colour profiles by allow-lists."""

import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from openslide import OpenSlide
from PIL import Image

from glomerulab.errors import SlideError
from glomerulab.images import read_image
from glomerulab.runtime.files import atomic_write
from glomerulab.slides.removed_text import RemovedText
from glomerulab.slides.scrubbing import (
    scrubbed_icc,
    scrubbed_j2k,
    scrubbed_jpeg,
    scrubbed_zlib,
)
from glomerulab.slides.slide import Level, Slide, open_slide
from glomerulab.slides.tiff_structure import (
    Directory,
    Tag,
    TiffFile,
    block_ranges,
    blocks,
    read_tiff,
    sub_directories,
    unaccounted,
    write_tiff,
)

__all__ = ["deidentify_tiff"]

STRUCTURE_TAGS = {254, 256, 257, 258, 259, 262, 266, 274, 277, 284, 317, 338, 339, 32997, 32998}
STRIP_TAGS, TILE_TAGS = frozenset({273, 278, 279}), frozenset({322, 323, 324, 325})
LISTS = frozenset({273, 279, 324, 325})
COLOUR_TAGS = {282, 283, 296, 320, 529, 530, 531, 532}
KEPT_TAGS = frozenset(STRUCTURE_TAGS | STRIP_TAGS | TILE_TAGS | COLOUR_TAGS)
"""Layout, compression, colour and resolution, but no dates, names, software, XMP or EXIF."""

NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, IMAGE_DESCRIPTION, SUB_IFDS = 254, 256, 257, 270, 330
COMPRESSION, JPEG_TABLES, ICC_PROFILE = 259, 347, 34675
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, CENTIMETRES = 282, 283, 296, 3
UNCOMPRESSED = 1
ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
INTEGERS, RATIONALS = frozenset({1, 3, 4, 16}), frozenset({5})
MAX_DROPPED = 10_000
"""Comments that are searched for; the others are left out all the same."""
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
        "Gamma",
        "DisplayColor",
        "Exposure Time",
        "Exposure Scale",
    }
)
"""Keys of Aperio's description about optics and geometry only."""

NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
LIBRARY_LINE = re.compile(
    r"Aperio (Image Library|Leica Biosystems GT450|Format)( v\d{1,3}(\.\d{1,4}){0,3})?\s*"
    r"\d{1,7}x\d{1,7}( \[[\d, x-]{1,40}\])?( \(\d{1,5}x\d{1,5}\))?"
    r"( (JPEG|JPEG2000|J2K|LZW|RAW)/(RGB|YCC|YUYV|YUV|KDU|RAW)( Q=\d{1,3})?)?"
)

MIN_CORRELATION = 0.3
"""Of the grey levels of a page and of the slide, for the page to be a copy of the slide."""
FLAT = 8.0
"""Spread of grey levels up to which a picture shows nothing but glass."""
N_PATCHES, PATCH_PX = 8, 32
MAX_GAP_BYTES = 65_536
"""Of the original, of which texts are searched; longer gaps hold old pixels."""

N_SHORT = 8
"""Bytes of padding between two structures."""

GreyImage = npt.NDArray[np.uint8]
Scrub = Callable[[bytes, list[bytes] | None], bytes]
SCRUBS: dict[int, Scrub] = {
    5: lambda block, _: block,
    7: scrubbed_jpeg,
    8: scrubbed_zlib,
    32946: scrubbed_zlib,
    33003: scrubbed_j2k,
    33005: scrubbed_j2k,
    34712: scrubbed_j2k,
    32773: lambda block, _: block,
    50000: lambda block, _: block,
}
"""By compression; raw pixels are cut to the size of a tile."""


def deidentify_tiff(slide: Path, out: Path, vendor: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy a TIFF, and return the names of images and properties that were left out.

    `vendor` is OpenSlide's name of the format, or ``tiff`` for a plain image.
    """
    original = read_tiff(slide)
    removed = RemovedText()
    removed.add(slide.stem, "the name of the file")
    kept = _choose_directories(original, vendor, slide, removed)
    _add_removed(removed, original, slide)
    dropped: list[bytes] = []

    def scrub(directory: Directory, block: bytes) -> bytes:
        return _scrubbed_block(directory, block, dropped if len(dropped) < MAX_DROPPED else None)

    with atomic_write(out) as temporary:
        write_tiff(kept, slide, temporary, is_big=original.is_big, scrub=scrub)
        for each in dropped:
            removed.add_bytes(each, "a comment beside its pixels")
        for directory in kept:
            removed.keep(directory.text(IMAGE_DESCRIPTION).encode())
        _verify_structure(slide, temporary, kept, vendor)
        removed.check(slide, temporary, _metadata(temporary))
        if vendor == "tiff":
            _verify_image(slide, temporary)
            images: tuple[str, ...] = ()
            properties = tuple(sorted({f"tag {code}" for code in _dropped_tags(original, kept)}))
        else:
            images, properties = verify_slide(slide, temporary)
        if any(dropped):
            properties = (*properties, "comments beside the pixels")
    if vendor != "aperio":
        pages = enumerate(original.directories)
        images = tuple(
            f"page {place + 1}" for place, page in pages if not _is_level(place, page, vendor)
        )
    return images, properties


def _choose_directories(
    tiff: TiffFile, vendor: str, slide: Path, removed: RemovedText
) -> list[Directory]:
    """Return the images to keep, without their identifying tags."""
    kept: list[Directory] = []
    for place, directory in enumerate(tiff.directories):
        if _is_level(place, directory, vendor):
            _check_shape(tiff.directories[0], directory, slide)
            kept.append(_scrubbed(directory, vendor))
        elif vendor == "aperio" and _is_thumbnail(place, directory, tiff, slide):
            kept.append(_scrubbed(directory, vendor))
        for inner in sub_directories(slide, tiff, directory):
            _add_tags(removed, inner)
            if place == 0 and inner.is_tiled:
                _check_shape(directory, inner, slide)
                reduced = {NEW_SUBFILE_TYPE: Tag(LONG, 1, struct.pack(f"{inner.order}I", 1))}
                kept.append(_scrubbed(inner.with_tags({**inner.tags, **reduced}), vendor))
    scale = _described_scale(tiff.directories[0], slide)
    return [kept[0].with_tags({**kept[0].tags, **scale}), *kept[1:]]


def _is_level(place: int, directory: Directory, vendor: str) -> bool:
    """Return whether a page is a level of the pyramid, by the rules of OpenSlide."""
    if vendor == "tiff":
        return place == 0
    reduced = next(iter(directory.numbers(NEW_SUBFILE_TYPE)), 0) & REDUCED_IMAGE
    return directory.is_tiled and (vendor == "aperio" or place == 0 or bool(reduced))


def _check_shape(first: Directory, directory: Directory, slide: Path) -> None:
    """Refuse a page that is marked as a level but is not a smaller copy of the slide."""
    if not _has_shape_of(first, directory):
        (wide, high), (width, height) = _size(first), _size(directory)
        raise SlideError(
            f"the slide has a page of {width} x {height} pixels among its levels, which is not the "
            f"shape of the slide ({wide} x {high}) and perhaps a label; remove it first, nothing "
            "was written",
            where=str(slide),
        )


def _size(directory: Directory) -> tuple[int, int]:
    numbers = (directory.numbers(IMAGE_WIDTH), directory.numbers(IMAGE_LENGTH))
    if not all(numbers):
        raise ValueError("a page has no size")
    return numbers[0][0], numbers[1][0]


def _has_shape_of(first: Directory, directory: Directory) -> bool:
    (wide, high), (width, height) = _size(first), _size(directory)
    wanted = width * high / max(1, wide)
    return abs(height - wanted) <= PIXELS_OF_ROUNDING + SHARE_OF_ROUNDING * wanted


def _is_thumbnail(place: int, directory: Directory, tiff: TiffFile, slide: Path) -> bool:
    """Return whether an image is Aperio's thumbnail: the second, and a small copy of the slide."""
    description = directory.text(IMAGE_DESCRIPTION).casefold()
    subfile_type = next(iter(directory.numbers(NEW_SUBFILE_TYPE)), 0)
    named = "label" in description or "macro" in description
    if place != 1 or named or subfile_type in APERIO_LABEL_SUBFILE_TYPES:
        return False
    if not _has_shape_of(tiff.directories[0], directory):
        return False
    with OpenSlide(slide) as handle:
        picture = handle.associated_images.get("thumbnail")
        if picture is None:
            return False
        size = (min(256, picture.width), min(256, picture.height))
        whole = handle.get_thumbnail((1024, 1024)).convert("L").resize(size)
        return _show_the_same(np.asarray(whole), np.asarray(picture.convert("L").resize(size)))


def _show_the_same(one: GreyImage, other: GreyImage) -> bool:
    spreads = float(one.std()), float(other.std())
    if max(spreads) < FLAT:
        return True
    if min(spreads) == 0:
        return False
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) >= MIN_CORRELATION


def _scrubbed(directory: Directory, vendor: str) -> Directory:
    """Return a directory with the tags alone that its pixels need, each of its own form."""
    n_blocks = len(directory.numbers(324 if directory.is_tiled else 273))
    tags = {
        code: tag
        for code, tag in directory.tags.items()
        if code in KEPT_TAGS and _is_of_its_form(code, tag, directory, n_blocks)
    }
    if JPEG_TABLES in directory.tags:
        tags[JPEG_TABLES] = _undefined(scrubbed_jpeg(directory.tags[JPEG_TABLES].value))
    profile = (
        scrubbed_icc(directory.tags[ICC_PROFILE].value) if ICC_PROFILE in directory.tags else b""
    )
    if profile:
        tags[ICC_PROFILE] = _undefined(profile)
    if vendor == "aperio":
        text = _scrubbed_aperio(directory.text(IMAGE_DESCRIPTION)).encode("ascii") + b"\0"
        tags[IMAGE_DESCRIPTION] = Tag(ASCII, len(text), text)
    return directory.with_tags(tags)


def _undefined(value: bytes) -> Tag:
    return Tag(UNDEFINED, len(value), value)


def _is_of_its_form(code: int, tag: Tag, directory: Directory, n_blocks: int) -> bool:
    """Return whether a tag holds numbers, and no more than it needs."""
    if code in LISTS:
        return (code in TILE_TAGS) == directory.is_tiled and tag.count == n_blocks
    if code in STRIP_TAGS | TILE_TAGS and (code in TILE_TAGS) != directory.is_tiled:
        return False
    n_samples = next(iter(directory.numbers(277)), 1)
    n_colours = 3 * 2 ** min(16, next(iter(directory.numbers(258)), 8))
    most = {258: n_samples, 338: n_samples, 339: n_samples, 320: n_colours, 530: 2, 529: 3, 532: 6}
    kinds = RATIONALS if code in {282, 283, 529, 532} else INTEGERS
    return tag.kind in kinds and tag.count <= most.get(code, 1)


def _described_scale(first: Directory, slide: Path) -> dict[int, Tag]:
    """Return the resolution that OME-XML or ImageJ states in words, as tags."""
    text = first.text(IMAGE_DESCRIPTION)
    if "OME" not in text and not text.startswith("ImageJ="):
        return {}
    with open_slide(slide) as opened:
        stated = opened.stated_mpp_xy
    if stated is None:
        return {}
    tags = {RESOLUTION_UNIT: Tag(SHORT, 1, struct.pack(f"{first.order}H", CENTIMETRES))}
    for code, mpp in zip((X_RESOLUTION, Y_RESOLUTION), stated, strict=True):
        per_cm = Fraction(1e4 / mpp).limit_denominator(10_000)
        value = struct.pack(f"{first.order}II", per_cm.numerator, per_cm.denominator)
        tags[code] = Tag(RATIONAL, 1, value)
    return tags


def _scrubbed_block(directory: Directory, block: bytes, dropped: list[bytes] | None) -> bytes:
    """Return a tile or strip without what is not pixels."""
    compression = next(iter(directory.numbers(COMPRESSION)), 1)
    if compression != UNCOMPRESSED:
        if compression not in SCRUBS:
            raise ValueError(f"its compression {compression} is not known")
        return SCRUBS[compression](block, dropped)
    width, height = _size(directory)
    sides = [next(iter(directory.numbers(code)), 0) for code in (322, 323)]
    if not directory.is_tiled:
        sides = [width, min(height, next(iter(directory.numbers(278)), height))]
    bits = directory.numbers(258) or (1,)
    is_planar = next(iter(directory.numbers(284)), 1) == 2
    n_bits = bits[0] if is_planar else sum(bits)
    length = -(-sides[0] * n_bits // 8) * sides[1]
    if dropped is not None:
        dropped.append(block[length:])
    return block[:length]


def _scrubbed_aperio(description: str) -> str:
    """Keep geometry, optics, and the words by which OpenSlide recognizes Aperio's format."""
    head, *pairs = description.split("|")
    lines = [LIBRARY_LINE.search(part) for part in head.split(";")]
    known = [" ".join(line.group().split()) for line in lines if line is not None]
    kept = [pair.strip() for pair in pairs if _is_harmless(pair)]
    return "|".join([";".join(known) or "Aperio Image Library", *kept])


def _is_harmless(pair: str) -> bool:
    key, _, value = (part.strip() for part in pair.partition("="))
    return key in KEPT_APERIO_KEYS and bool(NUMBER.fullmatch(value))


def _dropped_tags(original: TiffFile, kept: list[Directory]) -> set[int]:
    present = {code for directory in original.directories for code in directory.tags}
    return present - {code for directory in kept for code in directory.tags}


def _add_removed(removed: RemovedText, original: TiffFile, slide: Path) -> None:
    """Remember every text of the original; those that are kept are forgotten again later."""
    for directory in original.directories:
        _add_tags(removed, directory)
    if not any(SUB_IFDS in directory.tags for directory in original.directories):
        removed.add_bytes(unaccounted(slide)[:MAX_GAP_BYTES], "bytes between its structures")


def _add_tags(removed: RemovedText, directory: Directory) -> None:
    for code, tag in directory.tags.items():
        if code == JPEG_TABLES:
            dropped: list[bytes] = []
            scrubbed_jpeg(tag.value, dropped)
            for each in dropped:
                removed.add_bytes(each, "a comment in its JPEG tables")
        elif code == ICC_PROFILE:
            removed.add_bytes(tag.value, "its colour profile")
            removed.keep(scrubbed_icc(tag.value))
        elif code not in KEPT_TAGS or tag.kind in {ASCII, UNDEFINED}:
            removed.add_bytes(tag.value, f"tag {code}")


def _metadata(path: Path) -> bytes:
    """Return the values of all tags but the places of tiles and strips, and the gaps."""
    values = [
        tag.value
        for directory in read_tiff(path).directories
        for code, tag in directory.tags.items()
        if code not in LISTS
    ]
    return b"\0".join([*values, unaccounted(path)])


def _verify_structure(slide: Path, copy: Path, kept: list[Directory], vendor: str) -> None:
    """Check that the copy holds nothing but structures of the known forms, and every block."""
    rewritten = read_tiff(copy)
    differs = SlideError("the copy differs from what should be kept", where=str(slide))
    for before, after in zip(kept, rewritten.directories, strict=True):
        if _scrubbed(after, vendor).tags != after.tags:
            raise differs
        if any(SUB_IFDS in each.tags for each in (before, after)):
            raise differs
        digests = [hashlib.sha256(), hashlib.sha256()]
        for digest, path, directory in zip(digests, (slide, copy), (before, after), strict=True):
            for block in blocks(path, directory):
                scrubbed = _scrubbed_block(directory, block, None) if block else block
                if path == copy and scrubbed != block:
                    raise differs
                digest.update(struct.pack("<Q", len(scrubbed)) + scrubbed)
        if digests[0].digest() != digests[1].digest():
            raise differs
    gaps = unaccounted(copy)
    n_structures = sum(
        len(directory.tags) + 2 + len(block_ranges(copy, directory))
        for directory in rewritten.directories
    )
    if gaps.strip(b"\0") or len(gaps) > N_SHORT * n_structures:
        raise differs


def _verify_image(slide: Path, copy: Path) -> None:
    if not np.array_equal(read_image(slide), read_image(copy)):
        raise SlideError("the pixels of the copy differ", where=str(slide))
    with open_slide(slide) as before, open_slide(copy) as after:
        _check_scale(before, after, slide)


def _check_scale(before: Slide, after: Slide, slide: Path) -> None:
    pairs = zip(before.stated_mpp_xy or (), after.stated_mpp_xy or (), strict=False)
    same = all(math.isclose(one, other, rel_tol=1e-6) for one, other in pairs)
    if not same or (before.stated_mpp_xy is None) != (after.stated_mpp_xy is None):
        raise SlideError("the copy lost its micrometres per pixel", where=str(slide))


def verify_slide(slide: Path, copy: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the copy as a slide, compare it with the original, and return what it lacks."""
    with open_slide(slide) as before, open_slide(copy) as after:
        if after.levels[: len(before.levels)] != before.levels:
            raise SlideError("the copy lost levels of the pyramid", where=str(slide))
        if not set(after.associated_images) <= {"thumbnail"}:
            raise SlideError("the copy still has a label or macro image", where=str(slide))
        _check_scale(before, after, slide)
        if before.vendor == "aperio" and after.objective != before.objective:
            raise SlideError("the copy lost the power of its objective", where=str(slide))
        _compare_pixels(before, after, slide)
        images = set(before.associated_images) - set(after.associated_images)
        properties = before.properties.keys() - after.properties.keys()
    return tuple(sorted(images)), tuple(sorted(properties))


def _compare_pixels(before: Slide, after: Slide, slide: Path) -> None:
    """Compare a sample of every level with the original, and with the level above it."""
    for number, level in enumerate(after.levels):
        across, down = (min(PATCH_PX, side) for side in (level.width, level.height))
        here, finer = [], []
        for left, upper in _grid(level, across, down):
            corner = (round(left * level.downsample), round(upper * level.downsample))
            patch = after.read_level(number, corner, (across, down))
            if number < len(before.levels):
                same = before.read_level(number, corner, (across, down))
                if patch.tobytes() != same.tobytes():
                    raise SlideError("the pixels of the copy differ", where=str(slide))
            if number:
                factor = level.downsample / after.levels[number - 1].downsample
                size = (max(1, round(across * factor)), max(1, round(down * factor)))
                wider = after.read_level(number - 1, corner, size).convert("L")
                here.append(np.asarray(patch.convert("L")))
                finer.append(np.asarray(wider.resize((across, down), Image.Resampling.BOX)))
        if here and not _show_the_same(np.stack(here), np.stack(finer)):
            raise SlideError(
                f"the slide has a page of {level.width} x {level.height} pixels among its levels, "
                "which does not show the slide and is perhaps a label; remove it first, nothing "
                "was written",
                where=str(slide),
            )


def _grid(level: Level, across: int, down: int) -> Iterator[tuple[int, int]]:
    """Yield the corners of patches all over a level."""
    for upper in sorted(set(np.linspace(0, level.height - down, N_PATCHES).astype(int).tolist())):
        for left in sorted(
            set(np.linspace(0, level.width - across, N_PATCHES).astype(int).tolist())
        ):
            yield left, upper
