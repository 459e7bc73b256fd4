"""Bound what an image costs to decode, from its headers, before a pixel is decoded.

Width times height bounds neither time nor memory: one tile can be larger than its image, thousands
of progressive scans can pass over the same pixels, and a directory can list more tags and tiles
than the file holds. The limits lie far above what programs write.
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from glomerulab.errors import ImageFileError

__all__ = ["MAX_SCANS", "MAX_TILE_PIXELS", "check_cost", "check_tiff_cost"]

MAX_TILE_PIXELS = 4096 * 4096
"""Of one tile of a TIFF or DICOM slide; scanners write 240 to 1024 pixels along a side."""

MAX_PADDING = 2
"""All tiles of an image may have this many times the pixels that the image may have."""

MAX_BLOCKS = 100_000
"""Tiles or strips of an image that is decoded as a whole."""

MAX_REUSE = 16
"""The tiles may together be this many times as long as the file: blank ones share their bytes."""

MAX_SCANS = 64
"""Of a JPEG; progressive files have about ten."""

MAX_SCANNED_PIXELS = 300_000_000
"""Pixels times channels times the scans above `FREE_SCANS`, of all tiles together."""

FREE_SCANS = 16
"""Scans that an image of any size may have."""

MAX_SEGMENTS = 10_000
"""Markers of a JPEG before its pixels end."""

MAX_CHUNKS = 100_000
"""Of a PNG; each usually holds 8 KiB."""

MAX_MISSING_BYTES = 64 * 2**20
"""That a chunk of a PNG may state beyond the length of the file, as in one that is cut short."""

MAX_METADATA_BYTES = 16 * 2**20
"""Profiles, EXIF, XMP and comments together."""

MAX_FILLING_BYTES = 65_536
"""Bytes between the markers of a JPEG that belong to none."""

MAX_DIRECTORIES = 1000
MAX_TAGS = 4096
"""Per directory of a TIFF."""

MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Neither a stuffed byte, filling, nor a restart within a scan."""

FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SOI, EOI, SOS, APP1, APP2, COMMENT = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xFE
APPLICATION = range(0xE0, 0xF0)

WIDTH, HEIGHT, COMPRESSION, STRIPS, SAMPLES = 256, 257, 259, 273, 277
STRIP_ROWS, STRIP_BYTES, PLANES = 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
SUB_DIRECTORIES = (330, 34665, 34853, 40965)
JPEG_IN_TIFF = 7
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
TYPE_BYTES |= {13: 4, 16: 8, 17: 8, 18: 8}
UNSIGNED = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}

CODESTREAM = b"\xff\x4f\xff\x51"
CODESTREAM_WITHIN = 2**20
RUN_LENGTH_BMP = (1, 2)

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0")
"""The last two are wrong, but Pillow reads them."""


def check_cost(stream: BinaryIO, *, max_pixels: int) -> None:
    """Refuse an image file whose headers promise too much work.

    Parameters
    ----------
    stream : binary file
        JPEG, PNG, TIFF, BMP or JPEG 2000; any other content passes.
    max_pixels : int
        Pixels that the image may have.

    Raises
    ------
    ImageFileError
        If a limit of this module is exceeded, or the structure is too damaged to tell.
    """
    head = stream.read(32)
    stream.seek(0)
    try:
        if head.startswith(b"\xff\xd8"):
            _check_jpeg(stream.read())
        elif head.startswith(b"\x89PNG\r\n\x1a\n"):
            _check_png(stream)
        elif head[:4] in TIFF_STARTS:
            check_tiff_cost(stream, max_pixels=max_pixels)
        elif head.startswith(b"BM") and len(head) == 32:
            _check_bmp(head)
        elif head.startswith(CODESTREAM) or head[4:8] == b"jP  ":
            _check_jpeg_2000(stream.read(CODESTREAM_WITHIN), max_pixels)
    except struct.error as error:
        raise ImageFileError(
            "a header of the image is cut short; copy or export it again"
        ) from error
    finally:
        stream.seek(0)


def check_tiff_cost(
    stream: BinaryIO, *, max_pixels: int | None, n_tiles_read: int | None = None
) -> None:
    """Refuse a TIFF of which a directory, a tile or a JPEG within promises too much work.

    Parameters
    ----------
    stream : binary file
    max_pixels : int or None
        Pixels that an image may have; None for slides, of which only tiles are decoded.
    n_tiles_read : int, optional
        The number of JPEG tiles per directory that are looked into, the longest first; all by
        default.

    Raises
    ------
    ImageFileError
        As `check_cost`.
    """
    # OpenSlide reads no directory within another.
    for directory in _directories(stream, with_inner=max_pixels is not None):
        if WIDTH in directory.entries and HEIGHT in directory.entries:
            _check_image(directory, max_pixels)
            _check_jpeg_tiles(directory, n_tiles_read)


# JPEG


def _check_jpeg(content: bytes) -> int:
    """Check one JPEG, and return its pixels times the scans above `FREE_SCANS`."""
    n_scans, n_segments, n_filling, n_metadata, pixels = 0, 0, 0, 0, 0
    place, in_scan = 0, False
    while (found := MARKER.search(content, place)) is not None:
        if not in_scan:
            n_filling += found.start() - place
        code, place, in_scan = content[found.start() + 1], found.end(), False
        n_segments += 1
        if code == EOI:
            break
        if code in {0x01, SOI}:
            continue
        (length,) = struct.unpack_from(">H", content.ljust(place + 2, b"\0"), place)
        payload = content[place + 2 : place + max(length, 2)]
        place += max(length, 2)
        if code in FRAMES and len(payload) >= 6:
            height, width, n_components = struct.unpack_from(">xHHB", payload)
            pixels = max(pixels, width * height * max(1, n_components))
        elif code == SOS:
            n_scans, in_scan = n_scans + 1, True
        elif code in APPLICATION or code == COMMENT:
            n_metadata += len(payload)
            _check_tags_of_jpeg(code, payload)
        _limit(n_segments, MAX_SEGMENTS, "markers")
        _limit(n_filling, MAX_FILLING_BYTES, "bytes between its markers")
        _limit(n_metadata, MAX_METADATA_BYTES, "bytes of metadata")
        _limit(n_scans, MAX_SCANS, "scans")
    scanned = max(0, n_scans - FREE_SCANS) * pixels
    _limit(scanned, MAX_SCANNED_PIXELS, "pixels in its scans")
    return scanned


def _check_tags_of_jpeg(code: int, payload: bytes) -> None:
    if code == APP1 and payload.startswith(b"Exif\0"):
        _check_tags(payload[6:])
    elif code == APP2 and payload.startswith(b"MPF\0"):
        _check_tags(payload[4:])


def _check_tags(block: bytes) -> None:
    """Check the tags of EXIF, which has the structure of a TIFF; other content is not read."""
    if block[:2] in {b"II", b"MM"} and len(block) >= 8:
        for _ in _directories(io.BytesIO(block)):
            pass


# PNG


def _check_png(stream: BinaryIO) -> None:
    n_file = stream.seek(0, io.SEEK_END)
    stream.seek(8)
    n_chunks, n_metadata = 0, 0
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        # Pillow takes memory for as many bytes as are stated.
        _limit(length, n_file + MAX_MISSING_BYTES, "bytes in one chunk")
        n_chunks += 1
        _limit(n_chunks, MAX_CHUNKS, "chunks")
        if kind not in {b"IDAT", b"fdAT"}:
            n_metadata += length
            _limit(n_metadata, MAX_METADATA_BYTES, "bytes of metadata")
        if kind == b"eXIf":
            _check_tags(stream.read(length))
            length = 0
        if kind == b"IEND":
            return
        stream.seek(length + 4, io.SEEK_CUR)


# BMP and JPEG 2000


def _check_bmp(head: bytes) -> None:
    n_header, compression = struct.unpack_from("<14xI12xH", head)
    if n_header >= 40 and compression in RUN_LENGTH_BMP:
        raise ImageFileError("the BMP is run-length coded, which is slow to decode; save it as PNG")


def _check_jpeg_2000(content: bytes, max_pixels: int) -> None:
    place = content.find(CODESTREAM)
    if place < 0:
        raise ImageFileError(
            f"the JPEG 2000 has no pixels within its first {CODESTREAM_WITHIN:,} bytes; save it "
            "without metadata"
        )
    while place >= 0:
        right, lower, left, upper = struct.unpack_from(">4I", content, place + 8)
        (n_components,) = struct.unpack_from(">H", content, place + 40)
        _limit(max(0, right - left) * max(0, lower - upper), max_pixels, "pixels")
        _limit(n_components, 4, "channels")
        place = content.find(CODESTREAM, place + 4)


# TIFF


@dataclass(frozen=True, slots=True)
class _Directory:
    """The tags of one image, of which values are read when they are needed."""

    stream: BinaryIO
    order: str
    entries: dict[int, tuple[int, int, int]]
    """Type, count, and place of the value in the file."""
    n_file: int

    def numbers(self, code: int) -> npt.NDArray[np.float64]:
        """Return an unsigned value; empty if the tag is absent or of another type."""
        kind, count, place = self.entries.get(code, (0, 0, 0))
        if kind not in UNSIGNED or place >= self.n_file:
            return np.zeros(0)
        self.stream.seek(place)
        dtype = np.dtype(f"{self.order}{UNSIGNED[kind]}")
        content = self.stream.read(min(count * dtype.itemsize, self.n_file))
        whole = len(content) // dtype.itemsize * dtype.itemsize
        return np.frombuffer(content[:whole], dtype).astype(np.float64)

    def number(self, code: int, default: int = 0) -> int:
        """Return the first of a tag's numbers."""
        found = self.numbers(code)
        return int(found[0]) if len(found) else default


def _directories(stream: BinaryIO, *, with_inner: bool = True) -> Iterator[_Directory]:
    """Yield the directories of a TIFF within the limits, by default those in others too."""
    n_file = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    is_big = struct.unpack_from(f"{order}2xH", head)[0] == 43
    waiting = [struct.unpack_from(f"{order}8xQ" if is_big else f"{order}4xI", head)[0]]
    seen: set[int] = set()
    n_value_bytes = 0
    while waiting:
        offset = waiting.pop(0)
        if not 0 < offset < n_file or offset in seen:
            continue
        seen.add(offset)
        _limit(len(seen), MAX_DIRECTORIES, "directories")
        entries, following = _entries(stream, offset, order, is_big=is_big)
        directory = _Directory(stream, order, entries, n_file)
        n_value_bytes += sum(TYPE_BYTES.get(kind, 0) * count for kind, count, _ in entries.values())
        _limit(n_value_bytes, 2 * n_file + 65_536, "bytes of tags")
        yield directory
        waiting.append(following)
        for code in SUB_DIRECTORIES if with_inner else ():
            waiting += [int(place) for place in directory.numbers(code)[:MAX_DIRECTORIES]]


def _entries(
    stream: BinaryIO, offset: int, order: str, *, is_big: bool
) -> tuple[dict[int, tuple[int, int, int]], int]:
    """Return type, count and place of each tag, and the offset of the next directory."""
    n_inline, count_format, entry_format, link_format = (
        (8, "Q", "HHQQ", "Q") if is_big else (4, "H", "HHII", "I")
    )
    stream.seek(offset)
    (n_tags,) = struct.unpack(f"{order}{count_format}", stream.read(struct.calcsize(count_format)))
    _limit(n_tags, MAX_TAGS, "tags in a directory")
    n_entry = struct.calcsize(f"{order}{entry_format}")
    start = stream.tell()
    content = stream.read(n_tags * n_entry)
    entries: dict[int, tuple[int, int, int]] = {}
    for number in range(len(content) // n_entry):
        code, kind, count, value = struct.unpack_from(
            f"{order}{entry_format}", content, number * n_entry
        )
        is_inline = TYPE_BYTES.get(kind, 1) * count <= n_inline
        inline = start + (number + 1) * n_entry - n_inline
        entries.setdefault(code, (kind, count, inline if is_inline else value))
    link = stream.read(struct.calcsize(link_format))
    following = (
        struct.unpack(f"{order}{link_format}", link)[0]
        if len(link) == struct.calcsize(link_format)
        else 0
    )
    return entries, following


def _check_image(directory: _Directory, max_pixels: int | None) -> None:
    """Check the tiles or strips of one image against its size and that of the file."""
    width, height = directory.number(WIDTH), directory.number(HEIGHT)
    n_planes = directory.number(SAMPLES, 1) if directory.number(PLANES, 1) == 2 else 1
    if TILE_WIDTH in directory.entries or TILE_HEIGHT in directory.entries:
        across, down = directory.number(TILE_WIDTH), directory.number(TILE_HEIGHT)
        if across * down > MAX_TILE_PIXELS:
            raise ImageFileError(
                f"a tile of the TIFF has {across} x {down} pixels, more than the "
                f"{MAX_TILE_PIXELS:,} allowed; save it with tiles of 256 x 256 pixels"
            )
        across, down, counts = max(1, across), max(1, down), directory.numbers(TILE_BYTES)
    else:
        across, counts = max(1, width), directory.numbers(STRIP_BYTES)
        down = max(1, min(height, directory.number(STRIP_ROWS, height)))
    # OpenSlide takes memory for as many bytes as are stated, and ends the program without it.
    stated = int(counts.max(initial=0))
    if stated > directory.n_file:
        raise ImageFileError(
            f"the image cannot be read: a tile or strip has {stated:,} bytes, more than the whole "
            f"file ({directory.n_file:,}); it may be cut short: copy it again"
        )
    if max_pixels is not None:
        n_blocks = -(-width // across) * -(-height // down)
        _limit(n_blocks * across * down, MAX_PADDING * max_pixels, "pixels in its tiles")
        _limit(n_blocks * n_planes, MAX_BLOCKS, "tiles or strips")
        listed = (directory.entries.get(code, (0, 0, 0))[1] for code in (TILES, STRIPS))
        _limit(max(listed), MAX_BLOCKS, "tiles or strips")
        _limit(int(counts.sum()), MAX_REUSE * directory.n_file, "bytes in its tiles")


def _check_jpeg_tiles(directory: _Directory, n_tiles_read: int | None) -> None:
    if directory.number(COMPRESSION) != JPEG_IN_TIFF:
        return
    codes = (TILES, TILE_BYTES) if TILES in directory.entries else (STRIPS, STRIP_BYTES)
    offsets, lengths = (directory.numbers(code) for code in codes)
    n_scanned = 0
    for number in np.argsort(-lengths[: len(offsets)], kind="stable")[:n_tiles_read]:
        if offsets[number] >= directory.n_file:
            continue
        directory.stream.seek(int(offsets[number]))
        tile = directory.stream.read(int(min(lengths[number], directory.n_file)))
        n_scanned += _check_jpeg(tile)
        _limit(n_scanned, MAX_SCANNED_PIXELS, "pixels in the scans of its tiles")


def _limit(found: int, limit: int, what: str) -> None:
    if found > limit:
        raise ImageFileError(
            f"the image has {found:,} {what}, more than the {limit:,} allowed; save it again "
            "as a plain PNG, or as a TIFF with tiles of 256 x 256 pixels"
        )
