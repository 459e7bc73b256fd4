"""Images that ask for more memory and time than their size: refused before they are decoded."""

import contextlib
import io
import pathlib
import random
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from glomerulab.errors import GlomerulabError, ImageFileError, SlideError
from glomerulab.images import decode_image
from glomerulab.slides.slide import open_slide
from tests.support.costly_images import (
    chunk,
    jpeg_with_scans,
    tiff_of_jpeg_tiles,
    tiff_of_tags,
    tiff_with_tile,
)

pytestmark = pytest.mark.slow

CROP_PIXELS = 16_000_000
MEMORY_LIMIT = 1500 * 2**20
"""Above what the process holds: four times the dearest crop that is accepted."""


@pytest.fixture(autouse=True)
def limited_memory():
    """Turn an allocation of gigabytes into a `MemoryError`, which fails the test."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pathlib.Path("/proc/self/statm").open() as stream:
        held = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("side", [1, 100, 3000])
@pytest.mark.parametrize(
    ("width", "height"), [(16_000, 44_000), (65_536, 65_536), (2**31, 2), (16, 2**28), (5000, 5000)]
)
def test_tiles_larger_than_the_image(width, height, side, tmp_path):
    content = tiff_with_tile(width, height, side=side)
    with pytest.raises(ImageFileError):
        decode_image(content, max_pixels=CROP_PIXELS)
    (tmp_path / "s.tif").write_bytes(content)
    with pytest.raises(SlideError):
        open_slide(tmp_path / "s.tif")


@pytest.mark.parametrize("n_bytes", [0, 100, 600])
@pytest.mark.parametrize("n_scans", [100, 1000, 4000, 30_000])
@pytest.mark.parametrize("side", [8, 500, 4000])
def test_scans_by_the_thousand(side, n_scans, n_bytes, tmp_path):
    content = jpeg_with_scans(side, n_scans, n_bytes=n_bytes)
    with pytest.raises(ImageFileError):
        decode_image(content, max_pixels=CROP_PIXELS)
    (tmp_path / "s.tif").write_bytes(tiff_of_jpeg_tiles(content, max(16, side)))
    with pytest.raises(SlideError):
        open_slide(tmp_path / "s.tif")


@pytest.mark.parametrize("filling", [b"", b"\xff", b"\xff" * 50, b"\xff\xd8", b"\xff\x01"])
def test_scans_hidden_between_other_markers(filling):
    content = jpeg_with_scans(100, 200).replace(b"\xff\xda", filling + b"\xff\xda")
    with pytest.raises(ImageFileError):
        decode_image(content, max_pixels=CROP_PIXELS)


@pytest.mark.parametrize("compressed", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_text_or_profile_of_a_png_that_unpacks_to_gigabytes(compressed):
    packed = zlib.compress(bytes(2**28), 9)
    heads = {b"iCCP": b"a\0\0", b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0"}
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    content = stream.getvalue()
    bomb = content[:33] + 4 * chunk(compressed, heads[compressed] + packed) + content[33:]
    with contextlib.suppress(ImageFileError):  # either is right: what stays packed does no harm
        assert decode_image(bomb, max_pixels=CROP_PIXELS).shape == (8, 8, 3)


@pytest.mark.parametrize("n_tags", [100, 1000, 4000, 60_000])
def test_tags_that_share_their_bytes(n_tags, tmp_path):
    content = tiff_of_tags(n_tags, n_bytes=10 * 2**20)
    with pytest.raises(ImageFileError):
        decode_image(content, max_pixels=CROP_PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_mutated_headers_end_in_an_image_or_an_error(kind, tmp_path):
    """1,500 files of each format: up to four bytes, or a field of four, are replaced."""
    rng = random.Random(17)
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    settings = {"progressive": True} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(stream, kind, **settings)
    start = stream.getvalue()
    n_header = 700 if kind == "JPEG" else 120
    for number in range(1500):
        content = bytearray(start)
        places = range(len(content) - 200, len(content)) if kind == "TIFF" else range(n_header)
        if number % 2:
            place = rng.choice(places[:-4])
            content[place : place + 4] = struct.pack(
                "<I", rng.choice([0, 1, 2**16, 2**31, 2**32 - 1])
            )
        else:
            for _ in range(rng.randint(1, 4)):
                content[rng.choice(places)] = rng.randrange(256)
        try:
            image = decode_image(bytes(content), max_pixels=CROP_PIXELS)
        except GlomerulabError:
            continue
        assert image.dtype == np.uint8
        assert image.shape[0] * image.shape[1] <= CROP_PIXELS
