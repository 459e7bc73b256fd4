"""Whether a PNG holds all the rows that its header claims, which Pillow does not ask.

A compressed stream that ends in good order, but early, gives an image whose lower rows are black.
"""

import struct
import zlib
from collections.abc import Iterator

__all__ = ["lacks_rows"]

SIGNATURE_BYTES = 8
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By the colour type of the header."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))  # fmt: skip
"""First column, first row, steps of both: the passes of an interlaced image."""


def lacks_rows(content: bytes) -> bool:
    """Return whether the pixels end before the last row.

    Parameters
    ----------
    content : bytes
        A PNG file that can be opened.

    Returns
    -------
    bool
    """
    header, expected, found = b"", 0, 0
    inflater = zlib.decompressobj()
    for kind, data in _chunks(content):
        if kind == b"IHDR":
            header, expected = data, _expected_bytes(data)
        elif kind == b"IDAT" and header:
            try:
                found += len(inflater.decompress(data, expected - found))
                while inflater.unconsumed_tail and found < expected:
                    found += len(inflater.decompress(inflater.unconsumed_tail, expected - found))
            except zlib.error:
                return True
        if header and found >= expected:
            return False
    return found + len(inflater.flush()) < expected


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = SIGNATURE_BYTES
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length


def _expected_bytes(header: bytes) -> int:
    """Return how many bytes the rows have, each with the one that names its filter."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header[:13])
    bits = depth * CHANNELS[colour]
    passes = ADAM7 if interlace else ((0, 0, 1, 1),)
    sizes = ((-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in passes)
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0)
