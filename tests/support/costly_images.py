"""Small image files that promise far more work than their size."""

import io
import re
import struct
import zlib

import numpy as np
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def jpeg_with_scans(side: int, n_scans: int, *, n_bytes: int = 0) -> bytes:
    """A progressive JPEG whose last scan is repeated, each followed by a comment of `n_bytes`."""
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 127, np.uint8)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    starts = [found.start() for found in re.finditer(rb"\xff\xda", content)]
    comment = b"\xff\xfe" + struct.pack(">H", n_bytes + 2) + bytes(n_bytes) if n_bytes else b""
    scan = content[starts[-1] : -2] + comment
    return content[:-2] + scan * (n_scans - len(starts)) + b"\xff\xd9"


def tiff_with_tile(width: int, height: int, *, side: int = 100, deflated: bytes = b"") -> bytes:
    """A TIFF of side x side pixels, stored in one deflated tile of width x height."""
    tile = deflated or zlib.compress(bytes(1000))
    return _tiff({322: width, 323: height, 259: 8}, tile, side)


def tiff_of_jpeg_tiles(jpeg: bytes, tile: int, *, side: int = 100) -> bytes:
    """A tiled TIFF in which every tile is the same JPEG."""
    return _tiff({322: tile, 323: tile, 259: 7, 262: 6}, jpeg, side)


def _tiff(tags: dict[int, int], tile: bytes, side: int) -> bytes:
    n_tiles = max(1, -(-side // tags[322])) * max(1, -(-side // tags[323]))
    numbers = {256: side, 257: side, 258: 8, 262: 2, 277: 3, 284: 1} | tags
    lists = {324: [8] * n_tiles, 325: [len(tile)] * n_tiles}
    out = io.BytesIO()
    out.write(b"II*\0\0\0\0\0" + tile + b"\0" * (len(tile) % 2))
    entries = []
    for code, value in sorted((numbers | lists).items()):
        values = value if isinstance(value, list) else [value]
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            place = out.tell()
            out.write(packed)
            packed = struct.pack("<I", place)
        entries.append(struct.pack("<HHI4s", code, 4, len(values), packed))
    start = out.tell()
    out.write(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
    out.seek(4)
    out.write(struct.pack("<I", start))
    return out.getvalue()


def tiff_of_tags(n_tags: int, *, n_bytes: int) -> bytes:
    """A TIFF directory of many tags, all of the same bytes of the file."""
    entries = b"".join(struct.pack("<HHII", 1000 + n, 1, n_bytes, 0) for n in range(n_tags))
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", n_tags) + entries + bytes(4)
    return content.ljust(n_bytes, b"\0")


def bmp_of_runs(side: int = 4000) -> bytes:
    """A BMP of 8 bits in runs of one pixel, which Pillow decodes in Python."""
    pixels = b"\x01\x07" * (side * side // 8)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + len(header) + 1024
    return (
        struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
        + header
        + bytes(1024)
        + pixels
    )
