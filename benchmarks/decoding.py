"""Processor seconds and memory of the dearest images: those refused and those decoded.

Run: python benchmarks/decoding.py

Each image is decoded in a process of its own, as `glomerulab serve` decodes a crop: at most 16
million pixels and 20 MiB. Memory is the peak above what the process held before.
"""

import io
import multiprocessing
import re
import statistics
import struct
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from glomerulab.errors import ImageFileError
from glomerulab.images import decode_image
from tests.support.costly_images import chunk, jpeg_with_scans, tiff_of_tags, tiff_with_tile

SIDE = 4000
MAX_PIXELS = 16_000_000
MAX_BYTES = 20 * 2**20


def noise(*shape: int, levels: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, levels, shape, dtype=np.uint8)


def saved(pixels: np.ndarray, kind: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **settings)
    return stream.getvalue()


def repeated_noise() -> bytes:
    """A progressive JPEG of noise whose last scan is repeated up to the limits."""
    content = saved(noise(SIDE, SIDE, 3), "JPEG", progressive=True, quality=30)
    last = content[content.rindex(b"\xff\xda") : -2]
    n_more = min(12, (MAX_BYTES - len(content)) // len(last))
    return content[:-2] + n_more * last + b"\xff\xd9"


def interlaced_png() -> bytes:
    """16-bit RGBA, all zero, in seven passes."""
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    steps.append((0, 1, 1, 2))
    sizes = [(-(-(SIDE - x) // dx), -(-(SIDE - y) // dy)) for x, y, dx, dy in steps]
    rows = zlib.compress(bytes(sum(height * (1 + 8 * width) for width, height in sizes)), 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 6, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


IMAGES: dict[str, Callable[[], bytes]] = {
    "TIFF, one tile of 16000 x 44000": lambda: tiff_with_tile(
        16_000, 44_000, deflated=zlib.compress(bytes(16_000 * 44_000 * 3), 9)
    ),
    "progressive JPEG, 4 Mpx, 4,000 scans": lambda: jpeg_with_scans(2000, 4000, n_bytes=300),
    "progressive JPEG, 4 Mpx, 50,000 scans": lambda: jpeg_with_scans(2000, 50_000),
    "TIFF, 4,000 tags of the same 15 MiB": lambda: tiff_of_tags(4000, n_bytes=15 * 2**20),
    "crop, PNG of 256 px": lambda: saved(noise(256, 256, 3), "PNG"),
    "JPEG, noise": lambda: saved(noise(SIDE, SIDE, 3), "JPEG", quality=85),
    "progressive JPEG, noise, scans repeated": repeated_noise,
    "progressive JPEG, flat, 22 scans": lambda: jpeg_with_scans(SIDE, 22),
    "PNG, RGBA": lambda: saved(noise(SIDE, SIDE, 4, levels=2), "PNG", compress_level=1),
    "PNG, 16-bit RGBA, interlaced": interlaced_png,
    "PNG, 16-bit grey": lambda: saved(
        np.repeat(noise(SIDE, SIDE // 4), 4, axis=1).astype(np.uint16) * 257, "PNG"
    ),
    "TIFF, LZMA": lambda: saved(noise(SIDE, SIDE, 3, levels=2), "TIFF", compression="lzma"),
    "TIFF, LZW, RGBA": lambda: saved(
        noise(SIDE, SIDE, 4, levels=2), "TIFF", compression="tiff_lzw"
    ),
}


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def decode(content: bytes, out: Connection) -> None:
    before = peak_mib()
    times = []
    for _ in range(3):
        start = time.process_time()
        try:
            decode_image(content, max_pixels=MAX_PIXELS)
            outcome = "decoded"
        except ImageFileError:
            outcome = "refused"
        times.append(time.process_time() - start)
    out.send((outcome, statistics.median(times), peak_mib() - before))


def main() -> None:
    context = multiprocessing.get_context("spawn")
    print("| image | MiB | | CPU s | peak MiB |\n|---|---|---|---|---|")
    for name, make in IMAGES.items():
        content = make()
        assert len(content) <= MAX_BYTES, (name, len(content))
        inlet, outlet = context.Pipe()
        process = context.Process(target=decode, args=(content, outlet))
        process.start()
        outcome, seconds, mib = inlet.recv()
        process.join()
        print(f"| {name} | {len(content) / 2**20:.1f} | {outcome} | {seconds:.3f} | {mib:.0f} |")


if __name__ == "__main__":
    main()
