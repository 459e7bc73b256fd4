"""Files whose headers promise more work than an image needs."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from glomerulab.errors import ImageFileError, SlideError
from glomerulab.image_headers import MAX_SCANS
from glomerulab.images import decode_image, read_image
from glomerulab.slides.slide import open_slide
from tests.support.costly_images import (
    bmp_of_runs,
    chunk,
    jpeg_with_scans,
    tiff_of_jpeg_tiles,
    tiff_of_tags,
    tiff_with_tile,
)

PNG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
PIXEL = chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")

COSTLY = {
    "a tile larger than the image": lambda: tiff_with_tile(16_000, 44_000),
    "a tile of four pixels in height": lambda: tiff_with_tile(2**24, 4),
    "a hundred scans": lambda: jpeg_with_scans(64, MAX_SCANS + 36),
    "60 scans of many pixels": lambda: jpeg_with_scans(2000, 60),
    "scans within a tile": lambda: tiff_of_jpeg_tiles(jpeg_with_scans(64, 200), 64),
    "tags that share their bytes": lambda: tiff_of_tags(1000, n_bytes=200_000),
    "more tags than a directory has": lambda: tiff_of_tags(5000, n_bytes=1),
    "EXIF of such tags": lambda: _with_exif(tiff_of_tags(1000, n_bytes=40_000)),
    "runs of a BMP": bmp_of_runs,
    "a million chunks": lambda: PNG + 200_000 * chunk(b"teSt", b"") + PIXEL,
    "20 MiB of metadata": lambda: PNG + chunk(b"teSt", bytes(20 * 2**20)) + PIXEL,
    "pixels that state 4 GiB": lambda: (
        PNG + struct.pack(">I", 2**32 - 1) + b"IDAT" + zlib.compress(b"\0\0") + PIXEL
    ),
    "filling between markers": lambda: b"\xff\xd8" + b"\xff" * 10**6 + jpeg_with_scans(64, 10)[2:],
    "a million comments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 10**6 + b"\xff\xd9",
}


def _with_exif(block: bytes) -> bytes:
    content = b"Exif\0\0" + block[:60_000]
    segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    return b"\xff\xd8" + segment + jpeg_with_scans(64, 10)[2:]


@pytest.mark.parametrize("name", COSTLY)
def test_what_costs_too_much_is_refused_before_it_is_decoded(name, tmp_path, monkeypatch):
    content = COSTLY[name]()
    monkeypatch.setattr(Image, "open", lambda *_args, **_kinds: pytest.fail("it was opened"))
    with pytest.raises(ImageFileError):
        decode_image(content)
    (tmp_path / "crop.bin").write_bytes(content)
    with pytest.raises(ImageFileError) as raised:
        read_image(tmp_path / "crop.bin")
    assert raised.value.where == str(tmp_path / "crop.bin")


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_progressive_jpeg_as_programs_write_it_is_read(mode, subsampling, rng):
    pixels = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(
        stream, "JPEG", progressive=True, subsampling=subsampling, comment=b"\xff\xda" * 200
    )
    assert decode_image(stream.getvalue()).shape == (300, 400, 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"tile": (256, 256)},
        {"rowsperstrip": 1, "byteorder": ">"},
        {"rowsperstrip": 300},
        {"tile": (16, 16), "bigtiff": True},
        {"tile": (512, 1024), "compression": "zlib", "predictor": True},
    ],
)
def test_a_tiff_as_programs_write_it_is_read(settings, rng, tmp_path):
    pixels = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    with tifffile.TiffWriter(
        tmp_path / "a.tif",
        bigtiff=settings.pop("bigtiff", False),
        byteorder=settings.pop("byteorder", "<"),
    ) as tiff:
        tiff.write(pixels, photometric="rgb", **settings)
    np.testing.assert_array_equal(decode_image((tmp_path / "a.tif").read_bytes()), pixels)


@pytest.mark.parametrize(
    "content",
    [tiff_with_tile(16_000, 44_000), tiff_of_jpeg_tiles(jpeg_with_scans(64, 200), 64)],
    ids=["tile", "scans"],
)
def test_a_slide_is_not_opened_if_one_of_its_tiles_costs_too_much(content, tmp_path):
    (tmp_path / "s.tif").write_bytes(content)
    with pytest.raises(SlideError):
        open_slide(tmp_path / "s.tif")


@pytest.mark.real
def test_a_dicom_slide_with_a_huge_frame_is_not_opened(real_data, tmp_path):
    import pydicom

    for path in (real_data / "slides" / "boxes_dicom").iterdir():
        dataset = pydicom.dcmread(path)
        if path.name.endswith("1.dcm"):
            dataset.Rows = dataset.Columns = 60_000
        dataset.save_as(tmp_path / path.name)
    with pytest.raises(SlideError, match="60000 x 60000"):
        open_slide(tmp_path)
