import struct
import zlib

import pytest

from glomerulab.png_rows import lacks_rows


def png(width: int, height: int, raw: bytes, *, depth=8, colour=2, interlace=0, n_parts=1) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    stream = zlib.compress(raw)
    size = -(-len(stream) // n_parts)
    parts = [stream[place : place + size] for place in range(0, len(stream), size)]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + b"".join(chunk(b"IDAT", part) for part in parts) + chunk(b"IEND", b"")
    )  # fmt: skip


# Bytes counted by hand: a byte for the filter of each row, and its pixels.
@pytest.mark.parametrize(
    ("width", "height", "further", "n_bytes"),
    [
        (5, 4, {}, 4 * (1 + 15)),
        (5, 4, {"n_parts": 4}, 4 * (1 + 15)),
        (5, 4, {"colour": 6}, 4 * (1 + 20)),
        (5, 4, {"colour": 0, "depth": 16}, 4 * (1 + 10)),
        (9, 2, {"colour": 3, "depth": 1}, 2 * (1 + 2)),
        # Of 3 x 3 pixels, Adam7 has passes of 1x1, 2x1 (third column), 1x2... grey, 8 bit:
        # 1: (0,0); 4: (2,0); 5: (0,2), (2,2); 6: (1,0), (1,2); 7: row 1 of 3.
        (3, 3, {"colour": 0, "interlace": 1}, 2 + 2 + 3 + 2 + 2 + 4),
    ],
)
def test_rows_that_lack_are_told_from_whole_images(width, height, further, n_bytes) -> None:
    assert not lacks_rows(png(width, height, bytes(n_bytes), **further))
    assert not lacks_rows(png(width, height, bytes(n_bytes + 3), **further))
    assert lacks_rows(png(width, height, bytes(n_bytes - 1), **further))


def test_without_pixels_all_lack() -> None:
    assert lacks_rows(png(5, 4, b""))
