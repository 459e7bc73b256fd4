"""Copy compressed images without comments, private segments and bytes after their end.

The compressed pixels are not decoded: every segment that changes a pixel is kept as it is, every
other is left out. Each function returns its own result unchanged, by which a copy is verified.
"""

import re
import struct
import zlib
from collections.abc import Iterator

__all__ = [
    "scrubbed_icc",
    "scrubbed_j2k",
    "scrubbed_jpeg",
    "scrubbed_png",
    "scrubbed_zlib",
    "without_pictures",
]

SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
SOI, EOI, SOS, DHT, DQT, DRI, DNL = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xDC
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JFIF, EXIF, ICC, ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
FILLING = 0
"""Stands for bytes that belong to no segment."""
KEPT_JPEG = FRAMES | {SOS, DHT, DQT, DRI, DNL}
JFIF_BYTES = b"JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE_BYTES = b"Adobe\0\x64\0\0\0\0"
ICC_MARK, ICC_PIECE = b"ICC_PROFILE\0", 65_000

ICC_HEADER, ICC_TAG = 128, 12
ICC_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
ICC_SPACES = (b"RGB ", b"GRAY", b"CMYK", b"XYZ ", b"Lab ")
ICC_TAGS = {b"wtpt", b"bkpt", b"chad", b"lumi", b"gamt", b"rXYZ", b"gXYZ", b"bXYZ"}
ICC_TAGS |= {b"rTRC", b"gTRC", b"bTRC", b"kTRC"}
ICC_TAGS |= {
    name + number for name in (b"A2B", b"B2A", b"D2B", b"B2D") for number in (b"0", b"1", b"2")
}
ICC_TEXT = b"desc\0\0\0\0\0\0\0\x07colour\0".ljust(90 + 7 + 3, b"\0")

J2K_MAIN = frozenset({0x51, 0x52, 0x53, 0x5C, 0x5D, 0x5E, 0x5F, 0x60, 0x61})
"""Size, coding style, quantization, regions, order and packed headers."""
J2K_SOT, J2K_SOD, J2K_EOC = 0x90, 0x93, 0xD9

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_LENGTHS = {b"IHDR": 13, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"sBIT": 4}
PNG_LENGTHS |= {b"PLTE": 768, b"tRNS": 256, b"IEND": 0}
"""Chunks that are kept, and the most bytes they may have."""


PACKED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
MOST_PICTURES = 64
"""Of those within metadata."""


# JPEG


def scrubbed_jpeg(
    content: bytes, dropped: list[bytes] | None = None, *, keeps_icc: bool = False
) -> bytes:
    """Return a JPEG, or JPEG tables, with those segments alone that its pixels need.

    Parameters
    ----------
    content : bytes
        A file, a tile, or the tables that tiles share.
    dropped : list of bytes, optional
        Receives what is left out.
    keeps_icc : bool, default False
        Keep the colour profile, without its text, and the orientation of EXIF.

    Raises
    ------
    ValueError
        If it is no complete JPEG.
    """
    out, profile, orientation = [b"\xff\xd8"], b"", 1
    dropped = [] if dropped is None else dropped
    for code, body in _segments(content):
        if code not in KEPT_JPEG:
            dropped.append(body)
        if code == EXIF and keeps_icc:
            orientation = _orientation(body)
        elif code == ICC and body.startswith(ICC_MARK):
            profile += body[len(ICC_MARK) + 2 :]
        elif (kept := _kept_segment(code, body)) is not None:
            out.append(kept)
    start = 1 + (len(out) > 1 and out[1][1] == JFIF)
    if keeps_icc:
        exif = _segment(EXIF, b"Exif\0\0" + _exif(orientation))
        out[start:start] = [exif] * (orientation != 1) + _icc_segments(scrubbed_icc(profile))
    return b"".join([*out, b"\xff\xd9"])


def without_pictures(content: bytes) -> list[bytes]:
    """Return bytes without the pixels and tables of the JPEGs in them, such as thumbnails.

    Cameras write the same tables into each JPEG, so that they stand in many a copy.
    """
    found, waiting, n_left = [], [content], MOST_PICTURES
    while waiting:
        part = waiting.pop()
        start = part.find(b"\xff\xd8\xff")
        n_left -= 1
        if start < 0 or n_left < 0:
            found.append(part)
            continue
        dropped: list[bytes] = []
        try:
            scrubbed_jpeg(part[start:], dropped)
        except ValueError:
            dropped = [part[start + 2 :]]
        found.append(part[:start])
        waiting += dropped
    return found


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield code and body of each segment up to the end; scans with their pixels."""
    if content[:2] != b"\xff\xd8":
        raise ValueError("it does not start as a JPEG")
    place, in_scan = 2, False
    while (found := SCAN_END.search(content, place)) is not None:
        code, start = content[found.start() + 1], found.end()
        if found.start() > place and not in_scan:
            yield FILLING, content[place : found.start()]
        in_scan = False
        if code == EOI:
            yield FILLING, content[start:]
            return
        if code in {SOI, 0x01}:
            raise ValueError("a JPEG stands within a JPEG")
        (length,) = struct.unpack_from(">H", content.ljust(start + 2, b"\0"), start)
        place = start + length
        if length < 2 or place > len(content):
            break
        if code == SOS:
            end = SCAN_END.search(content, place)
            if end is None:
                break
            yield code, content[start + 2 : end.start()]
            place, in_scan = end.start(), True
        else:
            yield code, content[start + 2 : place]
    raise ValueError("the JPEG is cut short")


def _kept_segment(code: int, body: bytes) -> bytes | None:
    if code == JFIF and body.startswith(b"JFIF\0"):
        return _segment(code, JFIF_BYTES)
    if code == ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
        return _segment(code, ADOBE_BYTES + body[11:12])
    if code == SOS:
        n_header = 4 + 2 * body[0] if body else 0
        if not n_header or len(body) < n_header:
            raise ValueError("a scan is cut short")
        return b"\xff\xda" + struct.pack(">H", n_header + 2) + body
    n_used = _used(code, body)
    return None if n_used is None else _segment(code, body[:n_used])


def _used(code: int, body: bytes) -> int | None:
    """Return how many bytes of a segment its own counts account for; None if it is not needed."""
    if code in FRAMES and len(body) >= 6:
        return 6 + 3 * body[5]
    if code in {DRI, DNL}:
        return 2
    place = 0
    if code == DQT:
        while place < len(body):
            place += 1 + 64 * (2 if body[place] >> 4 else 1)
    elif code == DHT:
        while place + 17 <= len(body):
            place += 17 + sum(body[place + 1 : place + 17])
    else:
        return None
    if place > len(body):
        raise ValueError("a table is cut short")
    return place


def _segment(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


def _icc_segments(profile: bytes) -> list[bytes]:
    pieces = [profile[n : n + ICC_PIECE] for n in range(0, len(profile), ICC_PIECE)]
    return [
        _segment(ICC, ICC_MARK + bytes([number, len(pieces)]) + piece)
        for number, piece in enumerate(pieces, start=1)
    ]


def _orientation(body: bytes) -> int:
    """Return the orientation that EXIF states in its first directory, else 1."""
    block = body.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 10:
        return 1
    (start,) = struct.unpack_from(f"{order}4xI", block)
    if start + 2 > len(block):
        return 1
    (n_tags,) = struct.unpack_from(f"{order}H", block, start)
    for place in range(start + 2, min(start + 2 + 12 * n_tags, len(block) - 11), 12):
        code, kind, _, value = struct.unpack_from(f"{order}HHIH", block, place)
        if code == 274 and kind == 3 and 1 <= value <= 8:
            return int(value)
    return 1


def _exif(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 274, 3, 1, orientation, 0)
    return b"MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)


# JPEG 2000


def scrubbed_j2k(content: bytes, dropped: list[bytes] | None = None) -> bytes:
    """Return a JPEG 2000 codestream without comments and indexes; errors as `scrubbed_jpeg`."""
    if content[:2] != b"\xff\x4f":
        raise ValueError("it does not start as a JPEG 2000 codestream")
    out, place = [b"\xff\x4f"], 2
    dropped = [] if dropped is None else dropped
    while True:
        code, body, place = _j2k_segment(content, place)
        if code == J2K_EOC:
            dropped.append(content[place:])
            return b"".join([*out, b"\xff\xd9"])
        if code != J2K_SOT:
            kept = out if code in J2K_MAIN else dropped
            kept.append(content[place - len(body) - 4 : place])
            continue
        if len(body) != 8:
            raise ValueError("a tile of the JPEG 2000 is damaged")
        tile, length, part, n_parts = struct.unpack(">HIBB", body)
        start = place - 12
        end = start + length if length else content.rfind(b"\xff\xd9")
        inner: list[bytes] = []
        while True:
            code, body, place = _j2k_segment(content, place)
            if code == J2K_SOD:
                break
            kept = inner if code in J2K_MAIN else dropped
            kept.append(content[place - len(body) - 4 : place])
        if not place <= end <= len(content):
            raise ValueError("a tile of the JPEG 2000 is cut short")
        data = b"".join([*inner, b"\xff\x93", content[place:end]])
        out.append(
            b"\xff\x90\0\x0a" + struct.pack(">HIBB", tile, 12 + len(data), part, n_parts) + data
        )
        place = end


def _j2k_segment(content: bytes, place: int) -> tuple[int, bytes, int]:
    if place + 2 > len(content) or content[place] != 0xFF:
        raise ValueError("the JPEG 2000 is cut short")
    code = content[place + 1]
    if code in {J2K_SOD, J2K_EOC}:
        return code, b"", place + 2
    (length,) = struct.unpack_from(">H", content.ljust(place + 4, b"\0"), place + 2)
    end = place + 2 + length
    if length < 2 or end > len(content):
        raise ValueError("the JPEG 2000 is cut short")
    return code, content[place + 4 : end], end


# Deflate, PNG and colour profiles


def scrubbed_zlib(content: bytes, dropped: list[bytes] | None = None) -> bytes:
    """Return a deflate stream without what follows it; errors as others."""
    unpacker = zlib.decompressobj()
    left = content
    try:
        while left and not unpacker.eof:
            unpacker.decompress(left, 2**20)
            left = unpacker.unconsumed_tail
    except zlib.error as error:
        raise ValueError(f"the deflate stream is damaged ({error})") from error
    if not unpacker.eof:
        return content
    n_used = len(content) - len(unpacker.unused_data)
    if dropped is not None:
        dropped.append(content[n_used:])
    return content[:n_used]


def scrubbed_png(content: bytes, dropped: list[bytes] | None = None) -> bytes:
    """Return a PNG with the chunks alone that its pixels and colours need; errors as others."""
    chunks = list(_chunks(content))
    packed = scrubbed_zlib(b"".join(body for kind, body in chunks if kind == b"IDAT"), dropped)
    if dropped is not None:
        dropped += [body for kind, body in chunks if kind != b"IDAT" and kind not in PNG_LENGTHS]
        dropped += [_unpacked(body) for kind, body in chunks if kind in PACKED_CHUNKS]
        dropped.append(content[content.rindex(b"IEND") + 8 :])
    out, has_pixels = [PNG_START], False
    for kind, body in chunks:
        if kind == b"IDAT":
            if not has_pixels:
                out += [_chunk(kind, packed[n : n + 2**20]) for n in range(0, len(packed), 2**20)]
            has_pixels = True
        elif kind == b"iCCP":
            profile = _icc_of_png(body)
            if profile:
                out.append(_chunk(kind, b"icc\0\0" + zlib.compress(profile, 9)))
        elif kind == b"eXIf" and (orientation := _orientation(body)) != 1:
            out.append(_chunk(kind, _exif(orientation)))
        elif len(body) <= PNG_LENGTHS.get(kind, -1):
            out.append(_chunk(kind, body))
    return b"".join(out)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG_START)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + 8 + length]
        if len(body) < length:
            break
        yield kind, body
        place += 12 + length
        if kind == b"IEND":
            return
    raise ValueError("the PNG is cut short")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _unpacked(body: bytes) -> bytes:
    """Return the text of a packed chunk, up to a limit; empty if it is damaged."""
    start = body.find(b"\x78", body.find(b"\0"))
    try:
        return zlib.decompressobj().decompress(body[start:], 2**20) if start > 0 else b""
    except zlib.error:
        return b""


def _icc_of_png(body: bytes) -> bytes:
    try:
        return scrubbed_icc(zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], 2**24))
    except zlib.error:
        return b""


def scrubbed_icc(profile: bytes) -> bytes:
    """Return a colour profile without text, dates, makers and private tags; empty if it is none."""
    if len(profile) < ICC_HEADER + 4 or profile[36:40] != b"acsp":
        return b""
    known = profile[12:16] in ICC_CLASSES and {profile[16:20], profile[20:24]} <= set(ICC_SPACES)
    if not known:
        return b""
    (n_tags,) = struct.unpack_from(">I", profile, ICC_HEADER)
    kept: dict[bytes, bytes] = {b"desc": ICC_TEXT}
    for number in range(min(n_tags, 100)):
        place = ICC_HEADER + 4 + ICC_TAG * number
        if place + ICC_TAG > len(profile):
            break
        name, start, length = struct.unpack_from(">4sII", profile, place)
        value = profile[start : start + length]
        n_used = _icc_used(value) if len(value) == length else 0
        if name in ICC_TAGS and n_used:
            kept[name] = value[:4] + bytes(4) + value[8:n_used]
    return _icc(profile[8:12] + profile[12:24], profile[64:68], kept)


def _icc_used(value: bytes) -> int:
    """Return how many bytes of a tag its own counts account for; 0 if it is of no known type."""
    kind, n_value = value[:4], len(value)
    if n_value < 12:
        return 0
    if kind == b"XYZ ":
        n_used = 20
    elif kind == b"sf32":
        n_used = 44  # a 3 x 3 matrix
    elif kind == b"curv":
        n_used = 12 + 2 * struct.unpack_from(">I", value, 8)[0]
    elif kind == b"para":
        n_used = 12 + 4 * (1, 3, 4, 5, 7, 0, 0, 0)[value[9] & 7]
    elif kind in {b"mft1", b"mft2"} and n_value >= 52:
        n_used = _icc_table_bytes(value)
    elif kind in {b"mAB ", b"mBA "}:
        n_used = n_value
    else:
        n_used = 0
    return n_used if n_used <= n_value else 0


def _icc_table_bytes(value: bytes) -> int:
    n_in, n_out, n_grid = value[8], value[9], value[10]
    n_table = int(n_grid**n_in) * n_out
    if value[:4] == b"mft1":
        return 48 + 256 * n_in + n_table + 256 * n_out
    n_before, n_after = struct.unpack_from(">HH", value, 48)
    return int(52 + 2 * (n_before * n_in + n_table + n_after * n_out))


def _icc(kind: bytes, intent: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Write a profile: version, class and spaces, a fixed date, the light of D50, and its tags."""
    header = bytes(8) + kind + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(24)
    header += intent + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D) + bytes(48)
    table, values = struct.pack(">I", len(tags)), b""
    start = ICC_HEADER + 4 + ICC_TAG * len(tags)
    for name, value in sorted(tags.items()):
        table += struct.pack(">4sII", name, start + len(values), len(value))
        values += value.ljust(-(-len(value) // 4) * 4, b"\0")
    profile = header + table + values
    return struct.pack(">I", len(profile)) + profile[4:]
