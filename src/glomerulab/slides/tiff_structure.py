"""Read and write the directories and tags of a TIFF without decoding its pixels.

Classic TIFF and BigTIFF of either byte order. Compressed tiles and strips are copied unchanged, so
that directories and tags can be removed while every pixel is kept bit for bit.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from glomerulab.errors import SlideError

KINDS_BY_SIZE = {1: (1, 2, 6, 7), 2: (3, 8), 4: (4, 9, 11, 13), 8: (5, 10, 12, 16, 17, 18)}
TYPE_SIZES = {kind: size for size, kinds in KINDS_BY_SIZE.items() for kind in kinds}
UNSIGNED_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
LONG, LONG8 = 4, 16
ORIENTATION, SUB_DIRECTORIES = 274, 330
STRIP_OFFSETS, STRIP_BYTE_COUNTS = 273, 279
TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325
MAX_DIRECTORIES = 1000
CLASSIC_LIMIT = 1 << 32


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of a directory; the value is the bytes of the file."""

    kind: int
    """TIFF field type."""
    count: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """One image of a TIFF."""

    tags: dict[int, Tag]
    order: str
    """Byte order as in `struct`: ``<`` or ``>``."""

    def numbers(self, code: int) -> tuple[int, ...]:
        """Return an unsigned value, empty if the tag is absent or of another type."""
        tag = self.tags.get(code)
        if tag is None or tag.kind not in UNSIGNED_FORMATS:
            return ()
        return struct.unpack(f"{self.order}{tag.count}{UNSIGNED_FORMATS[tag.kind]}", tag.value)

    def text(self, code: int) -> str:
        """Return a text value, empty if the tag is absent."""
        tag = self.tags.get(code)
        return "" if tag is None else tag.value.split(b"\0")[0].decode("utf-8", errors="replace")

    @property
    def is_tiled(self) -> bool:
        """Whether the pixels are stored in tiles, not in strips."""
        return TILE_OFFSETS in self.tags

    def with_tags(self, tags: dict[int, Tag]) -> "Directory":
        """Return the same image with other tags."""
        return replace(self, tags=tags)


@dataclass(frozen=True, slots=True)
class TiffFile:
    """The directories of a file, its byte order, and whether it is a BigTIFF."""

    directories: tuple[Directory, ...]
    order: str
    is_big: bool


def read_tiff(path: Path) -> TiffFile:
    """Read all directories of a TIFF; raise `SlideError` if they are damaged."""
    try:
        with path.open("rb") as stream:
            order, is_big, offset = _header(stream)
            directories = tuple(_chain(stream, offset, order, is_big))
    except (struct.error, ValueError, KeyError) as error:
        raise SlideError(f"the TIFF is damaged: {error}", where=str(path)) from error
    except OSError as error:
        raise SlideError(f"the slide cannot be read: {error.strerror}", where=str(path)) from error
    return TiffFile(directories, order, is_big)


def sub_directories(path: Path, tiff: TiffFile, directory: Directory) -> list[Directory]:
    """Return the images that a directory holds within itself, as OME-TIFF has its levels."""
    with path.open("rb") as stream:
        try:
            return [
                _directory(stream, offset, tiff.order, tiff.is_big)[0]
                for offset in directory.numbers(SUB_DIRECTORIES)[:MAX_DIRECTORIES]
            ]
        except (struct.error, ValueError, KeyError) as error:
            raise SlideError(
                f"the sub-directories of the TIFF are damaged: {error}", where=str(path)
            ) from error


def stored_orientation(path: Path) -> int:
    """Return how the first image of a TIFF is stored: 1 upright, 2 to 8 mirrored or turned."""
    with path.open("rb") as stream:
        order, is_big, offset = _header(stream)
        for code, _, _, inline in _entries(stream, offset, order, is_big):
            if code == ORIENTATION:
                return int(struct.unpack(f"{order}H", inline[:2])[0])
    return 1


def block_ranges(path: Path, directory: Directory) -> list[tuple[int, int]]:
    """Return offset and length of every tile or strip; `path` is for the error."""
    codes = (
        (TILE_OFFSETS, TILE_BYTE_COUNTS)
        if directory.is_tiled
        else (STRIP_OFFSETS, STRIP_BYTE_COUNTS)
    )
    offsets, lengths = (directory.numbers(code) for code in codes)
    if not offsets or len(offsets) != len(lengths):
        raise SlideError(
            f"the TIFF is damaged: {len(offsets)} offsets and {len(lengths)} lengths of pixels",
            where=str(path),
        )
    return list(zip(offsets, lengths, strict=True))


def write_tiff(
    directories: Sequence[Directory],
    source: Path,
    target: Path,
    *,
    is_big: bool,
    scrub: Callable[[Directory, bytes], bytes] = lambda _directory, block: block,
) -> None:
    """Write directories of one file to another, with the compressed pixels they point to.

    `scrub` returns the bytes to write of each tile or strip.
    """
    order = directories[0].order
    with source.open("rb") as pixels, target.open("wb") as out:
        out.write(_header_bytes(order, is_big))
        placed = []
        for directory in directories:
            ranges = [
                _copy(pixels, out, start, length, partial(scrub, directory))
                for start, length in block_ranges(source, directory)
            ]
            placed.append(_placed(directory, ranges, is_big))
        link = 8 if is_big else 4  # position of the offset of the next directory
        for directory in placed:
            link = _write_directory(out, directory, link, is_big)
        if not is_big and out.tell() >= CLASSIC_LIMIT:
            raise SlideError("the slide is too large for a classic TIFF", where=str(source))


def _header(stream: BinaryIO) -> tuple[str, bool, int]:
    """Return byte order, whether BigTIFF, and the offset of the first directory."""
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        raise ValueError("not a TIFF")
    (version,) = struct.unpack(f"{order}H", head[2:4])
    if version == 42:
        return order, False, struct.unpack(f"{order}I", head[4:8])[0]
    if version == 43:
        return order, True, struct.unpack(f"{order}Q", head[8:16])[0]
    raise ValueError("not a TIFF")


def _chain(stream: BinaryIO, offset: int, order: str, is_big: bool) -> Iterator[Directory]:
    """Yield the linked list of directories."""
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) > MAX_DIRECTORIES:
            raise ValueError("its directories form a circle")
        seen.add(offset)
        directory, offset = _directory(stream, offset, order, is_big)
        yield directory


def _directory(stream: BinaryIO, offset: int, order: str, is_big: bool) -> tuple[Directory, int]:
    """Read one directory and the offset of the next."""
    _, _, link_format = _formats(order, is_big)
    entries = _entries(stream, offset, order, is_big)
    (following,) = struct.unpack(link_format, stream.read(struct.calcsize(link_format)))
    tags: dict[int, Tag] = {}
    for code, kind, count, inline in entries:
        length = TYPE_SIZES[kind] * count
        value = inline[:length]
        if length > len(inline):
            stream.seek(struct.unpack(link_format, inline)[0])
            value = stream.read(length)
        if len(value) != length:
            raise ValueError(f"tag {code} is cut short")
        tags[code] = Tag(kind, count, value)
    return Directory(tags, order), following


def _entries(
    stream: BinaryIO, offset: int, order: str, is_big: bool
) -> list[tuple[int, int, int, bytes]]:
    """Return code, type, count and inline bytes of each tag; the link to the next follows."""
    count_format, entry_format, _ = _formats(order, is_big)
    stream.seek(offset)
    (n_tags,) = struct.unpack(count_format, stream.read(struct.calcsize(count_format)))
    entries = stream.read(n_tags * struct.calcsize(entry_format))
    return list(struct.iter_unpack(entry_format, entries))


def _formats(order: str, is_big: bool) -> tuple[str, str, str]:
    """Return the formats of a tag count, an entry and a link."""
    if is_big:
        return f"{order}Q", f"{order}HHQ8s", f"{order}Q"
    return f"{order}H", f"{order}HHI4s", f"{order}I"


def _header_bytes(order: str, is_big: bool) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    if is_big:
        return mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 0)
    return mark + struct.pack(f"{order}HI", 42, 0)


def _copy(
    source: BinaryIO, target: BinaryIO, start: int, length: int, scrub: Callable[[bytes], bytes]
) -> tuple[int, int]:
    """Copy a block to the end of the target; return its place. Empty tiles stay empty."""
    if length == 0:
        return 0, 0
    n_left = source.seek(0, 2) - start
    if n_left < length:
        raise SlideError(f"the slide ends before the pixels at byte {start}", where=source.name)
    source.seek(start)
    block = source.read(length)
    scrubbed = scrub(block)
    _align(target)
    place = target.tell()
    target.write(scrubbed)
    return place, len(scrubbed)


def _placed(directory: Directory, ranges: Sequence[tuple[int, int]], is_big: bool) -> Directory:
    codes = (TILE_OFFSETS, TILE_BYTE_COUNTS)
    if not directory.is_tiled:
        codes = (STRIP_OFFSETS, STRIP_BYTE_COUNTS)
    if not is_big and max(start for start, _ in ranges) >= CLASSIC_LIMIT:
        raise SlideError("the pixels do not fit a classic TIFF")
    kind, letter = (LONG8, "Q") if is_big else (LONG, "I")
    tags = {
        code: Tag(
            kind, len(ranges), struct.pack(f"{directory.order}{len(ranges)}{letter}", *values)
        )
        for code, values in zip(codes, zip(*ranges, strict=True), strict=True)
        if directory.numbers(code) != values
    }
    return directory.with_tags({**directory.tags, **tags})


def _write_directory(out: BinaryIO, directory: Directory, link: int, is_big: bool) -> int:
    """Append a directory, point `link` at it, and return the position of its own link."""
    count_format, entry_format, link_format = _formats(directory.order, is_big)
    entries: list[bytes] = []
    for code, tag in sorted(directory.tags.items()):
        inline = tag.value.ljust(struct.calcsize(link_format), b"\0")
        if len(inline) > struct.calcsize(link_format):
            _align(out)
            inline = struct.pack(link_format, out.tell())
            out.write(tag.value)
        entries.append(struct.pack(entry_format, code, tag.kind, tag.count, inline))
    _align(out)
    start = out.tell()
    out.write(struct.pack(count_format, len(entries)) + b"".join(entries))
    own_link = out.tell()
    out.write(struct.pack(link_format, 0))
    out.seek(link)
    out.write(struct.pack(link_format, start))
    out.seek(0, 2)
    return own_link


def _align(out: BinaryIO) -> None:
    """Pad to a multiple of 8 bytes."""
    out.write(b"\0" * (-out.tell() % 8))


def unaccounted(path: Path) -> bytes:
    """Return the bytes of a file that belong to no header, directory, value or block."""
    tiff = read_tiff(path)
    count_format, entry_format, link_format = _formats(tiff.order, tiff.is_big)
    n_inline = struct.calcsize(link_format)
    content = path.stat().st_size
    taken = [(0, 16 if tiff.is_big else 8)]
    with path.open("rb") as stream:
        _, _, offset = _header(stream)
        for directory in tiff.directories:
            entries = _entries(stream, offset, tiff.order, tiff.is_big)
            size = struct.calcsize(count_format) + len(entries) * struct.calcsize(entry_format)
            taken.append((offset, size + n_inline))
            (following,) = struct.unpack(link_format, stream.read(n_inline))
            for _, kind, count, inline in entries:
                if (length := TYPE_SIZES[kind] * count) > n_inline:
                    taken.append((struct.unpack(link_format, inline)[0], length))
            taken += block_ranges(path, directory)
            offset = following
        gaps, end = [], 0
        for start, length in sorted((start, length) for start, length in taken if length):
            if start > end:
                stream.seek(end)
                gaps.append(stream.read(max(0, min(start, content) - end)))
            end = max(end, start + length)
        stream.seek(min(end, content))
        gaps.append(stream.read())
    return b"".join(gaps)


def blocks(path: Path, directory: Directory) -> Iterator[bytes]:
    """Yield every tile or strip as it is stored, as far as the file goes."""
    n_file = path.stat().st_size
    with path.open("rb") as stream:
        for start, length in block_ranges(path, directory):
            stream.seek(min(start, n_file))
            yield stream.read(min(length, n_file))
