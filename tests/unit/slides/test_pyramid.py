import numpy as np
import openslide
import pytest
import pyvips

from glomerulab.errors import OutputError
from glomerulab.slides.pyramid import write_pyramid

RGB = np.zeros((9, 9, 3), np.uint8)


@pytest.mark.parametrize("mpp", [0.1234, 0.25, 0.5, 1.0])
def test_openslide_reads_the_mpp(tmp_path, rng, mpp):
    pixels = rng.integers(0, 256, (600, 800, 3), dtype=np.uint8)
    write_pyramid(pixels, tmp_path / "s.tiff", mpp=mpp)
    slide = openslide.OpenSlide(tmp_path / "s.tiff")
    for axis in "xy":
        assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(mpp, rel=1e-6)


def test_deflate_keeps_every_pixel_and_levels_halve_to_one_tile(tmp_path, rng):
    pixels = rng.integers(0, 256, (600, 800, 3), dtype=np.uint8)
    write_pyramid(pixels, tmp_path / "s.tiff", mpp=0.5, compression="deflate")
    slide = openslide.OpenSlide(tmp_path / "s.tiff")
    read = np.asarray(slide.read_region((0, 0), 0, (800, 600)).convert("RGB"))
    np.testing.assert_array_equal(read, pixels)
    assert slide.level_dimensions == ((800, 600), (400, 300), (200, 150))


def test_a_vips_image_is_written(tmp_path):
    image = (pyvips.Image.black(3000, 2000, bands=3) + 240).cast("uchar")
    write_pyramid(image, tmp_path / "s.tif", mpp=0.5)
    assert openslide.OpenSlide(tmp_path / "s.tif").dimensions == (3000, 2000)


@pytest.mark.parametrize(
    ("image", "name", "options", "reason"),
    [
        (np.zeros((9, 9), np.uint8), "s.tiff", {"mpp": 1.0}, "uint8"),
        (np.zeros((9, 9, 3), np.float32), "s.tiff", {"mpp": 1.0}, "uint8"),
        (pyvips.Image.black(9, 9), "s.tiff", {"mpp": 1.0}, "3 bands"),
        (np.zeros((9, 9, 3), np.uint8), "s.png", {"mpp": 1.0}, "end in .tif"),
        (np.zeros((9, 9, 3), np.uint8), "s.tiff", {"mpp": 0.0}, "positive"),
        (np.zeros((9, 9, 3), np.uint8), "s.tiff", {"mpp": 1.0, "tile_px": 100}, "multiple of 16"),
        (RGB, "s.tiff", {"mpp": float("nan")}, "positive"),
        (RGB, "s.tiff", {"mpp": 1.0, "jpeg_quality": 0}, "1 to 100"),
        (RGB, "s.tiff", {"mpp": 1.0, "jpeg_quality": 101}, "1 to 100"),
        (RGB, "s.tiff", {"mpp": 1.0, "compression": "lzma"}, "jpeg or deflate"),
    ],
)
def test_invalid_arguments_are_refused(tmp_path, image, name, options, reason):
    with pytest.raises(ValueError, match=reason):
        write_pyramid(image, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"s\.tiff"):
        write_pyramid(np.zeros((64, 64, 3), np.uint8), tmp_path / "none" / "s.tiff", mpp=1.0)


def test_odd_sides_are_halved_downwards_and_a_level_is_the_mean_of_its_pixels(tmp_path):
    ramp = np.tile(np.arange(301, dtype=np.uint16) // 2, (203, 1)).astype(np.uint8)
    write_pyramid(
        np.stack([ramp] * 3, axis=-1),
        tmp_path / "s.tiff",
        mpp=0.5,
        compression="deflate",
        tile_px=64,
    )
    slide = openslide.OpenSlide(tmp_path / "s.tiff")
    assert slide.level_dimensions == ((301, 203), (150, 101), (75, 50), (37, 25))
    half = np.asarray(slide.read_region((0, 0), 1, (150, 101)).convert("RGB"))[:100, :, 0]
    np.testing.assert_array_equal(half, np.tile(np.arange(150, dtype=np.uint8), (100, 1)))


def test_a_higher_jpeg_quality_has_a_smaller_error(tmp_path, rng):
    pixels = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    errors = []
    for quality in (40, 95):
        write_pyramid(pixels, tmp_path / "s.tiff", mpp=0.5, jpeg_quality=quality)
        slide = openslide.OpenSlide(tmp_path / "s.tiff")
        read = np.asarray(slide.read_region((0, 0), 0, (128, 128)).convert("RGB"))
        errors.append(np.abs(read.astype(int) - pixels).mean())
    assert errors[1] < errors[0] / 2
