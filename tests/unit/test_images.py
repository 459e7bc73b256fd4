import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glomerulab.errors import ImageFileError, OutputError
from glomerulab.images import (
    MAX_PIXELS,
    RgbImage,
    decode_image,
    image_size,
    read_image,
    resized,
    write_image,
)


def _colours(rng: np.random.Generator) -> RgbImage:
    return rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)


def _bomb(path: Path, side: int) -> Path:
    """A PNG of a few bytes whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    return path


def test_png_is_lossless(tmp_path: Path, rng: np.random.Generator) -> None:
    image = _colours(rng)
    write_image(image, tmp_path / "a.png")
    again = read_image(tmp_path / "a.png")
    assert np.array_equal(again, image)
    again[0, 0] = 0  # a new array that may be written to
    assert image_size(tmp_path / "a.png") == (32, 24)


def test_jpeg_keeps_full_chroma(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    image[:, ::2] = (200, 0, 120)
    write_image(image, tmp_path / "a.jpeg")
    assert abs(read_image(tmp_path / "a.jpeg").astype(int) - image).mean() < 4


@pytest.mark.parametrize("place", ["肾 活检/图 1.png", "a b/c d.jpg"])
def test_paths_may_hold_spaces_and_chinese(
    tmp_path: Path, rng: np.random.Generator, place: str
) -> None:
    path = tmp_path / place
    path.parent.mkdir()
    write_image(_colours(rng), path)
    assert read_image(path).shape == (24, 32, 3)


def test_greyscale_becomes_three_equal_channels(tmp_path: Path, rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (8, 9), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.stack([grey] * 3, axis=-1))


def test_bilevel_becomes_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[255] * 3, [0] * 3]]


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "a.tiff")
    for name in ("a.png", "a.tiff"):
        assert read_image(tmp_path / name)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_grey_levels_beyond_16_bit_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1_000_000]], dtype=np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(ImageFileError, match="grey levels from 0 to 1e"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("levels", [[0.0, 1.0], [0.0, 255.0], [0.0, np.nan]])
def test_floating_point_grey_is_refused(tmp_path: Path, levels: list[float]) -> None:
    Image.fromarray(np.array([levels], dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ImageFileError, match="floating-point grey levels"):
        read_image(tmp_path / "a.tiff")


def test_transparent_pixels_are_blended_with_white(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [
        [255, 0, 0],
        [255, 255, 255],
        [127, 127, 127],
    ]


def test_grey_with_alpha_is_blended_with_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 0], [7, 255]]], dtype=np.uint8), "LA").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[255] * 3, [7] * 3]


def test_a_palette_becomes_its_colours_and_its_transparent_entry_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "holes.png", transparency=1)
    assert read_image(tmp_path / "plain.png")[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert read_image(tmp_path / "holes.png")[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[..., 1] = 255  # magenta ink alone
    Image.fromarray(pixels, "CMYK").save(tmp_path / "a.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "a.jpg")[8, 8].tolist()
    assert red > 240
    assert green < 15
    assert blue > 240


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_noted_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.full((24, 40, 3), 255, dtype=np.uint8)
    upright[:8, :16] = 0  # a mark that tells all eight apart
    stored = _stored(upright, orientation)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    quality = {} if suffix == "tif" else {"quality": 95}
    Image.fromarray(stored).save(path, exif=exif, **quality)
    assert image_size(path) == (40, 24)
    read = read_image(path)
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).mean() < 3
    if suffix != "webp":
        np.testing.assert_array_equal(decode_image(path.read_bytes()), read)


def _stored(upright: RgbImage, orientation: int) -> RgbImage:
    """Mirror and turn as the EXIF standard defines each orientation."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]


def test_the_first_of_several_frames_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.tiff")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "bmp"])
def test_a_truncated_image_is_refused(
    tmp_path: Path, rng: np.random.Generator, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(_colours(rng)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        ImageFileError, match=rf"a\.{suffix}: the (image cannot be read|file is not an image)"
    ):
        read_image(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for read in (read_image, image_size):
        with pytest.raises(ImageFileError, match=r"a\.png: .*0 bytes"):
            read(tmp_path / "a.png")


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    for read in (read_image, image_size):
        with pytest.raises(ImageFileError, match="not an image"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["none.png", "."])
def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    for read in (read_image, image_size):
        with pytest.raises(ImageFileError, match=r"no such image file|Is a directory"):
            read(tmp_path / name)


def test_an_error_names_the_file_without_detours(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageFileError) as caught:
        read_image(tmp_path / "crops" / ".." / "cut.png")
    assert caught.value.where == str((tmp_path / "cut.png").resolve())


@pytest.mark.parametrize("side", [10_001, 15_000, 100_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = _bomb(tmp_path / "bomb.png", side)
    assert side * side > MAX_PIXELS
    for read in (read_image, image_size):
        with pytest.raises(ImageFileError, match=r"bomb\.png: .*pyramidal TIFF"):
            read(path)


def test_a_png_with_a_compressed_text_bomb_is_rejected(tmp_path: Path) -> None:
    # Pillow limits compressed text chunks and raises its own error.
    path = _bomb(tmp_path / "a.png", 4)
    data = path.read_bytes()
    text = b"comment\0\0" + zlib.compress(bytes(80_000_000))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + text))
    path.write_bytes(data[:33] + chunk + data[33:])
    with pytest.raises(ImageFileError, match=r"a\.png: "):
        read_image(path)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)],
)
def test_only_8_bit_rgb_is_written(tmp_path: Path, image: RgbImage) -> None:
    with pytest.raises(ValueError, match="image must be uint8"):
        write_image(image, tmp_path / "a.png")


def test_only_png_and_jpeg_are_written(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="must end in"):
        write_image(_colours(rng), tmp_path / "a.tiff")


def test_writing_into_a_missing_folder_is_an_output_error(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_image(_colours(rng), tmp_path / "none" / "a.png")


def test_resizing_is_within_a_grey_level_of_torchvision(rng: np.random.Generator) -> None:
    import torch
    from torchvision.transforms.v2 import functional as transforms

    image = rng.integers(0, 255, (181, 207, 3), dtype=np.uint8)
    theirs = transforms.resize(torch.from_numpy(image).permute(2, 0, 1), [96, 64], antialias=True)
    ours = resized(image, 64, 96).astype(int)
    assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_decoded_bytes_equal_the_pixels_of_their_file(tmp_path, rng, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(_colours(rng)).save(path)
    assert np.array_equal(decode_image(path.read_bytes()), read_image(path))


def test_bytes_that_claim_too_many_pixels_are_not_decoded(tmp_path: Path) -> None:
    content = _bomb(tmp_path / "a.png", 5000).read_bytes()
    with pytest.raises(ImageFileError, match=r"5000 x 5000.*16,000,000"):
        decode_image(content, max_pixels=16_000_000)
    with pytest.raises(ImageFileError, match="100,000,000 pixels"):
        decode_image(_bomb(tmp_path / "b.png", 100_000).read_bytes())


@pytest.mark.parametrize(
    "content", [b"", b"text", b"GIF89a" + bytes(40), b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_bytes_of_another_format_are_refused(content) -> None:
    with pytest.raises(ImageFileError, match="PNG, JPEG, TIFF, BMP"):
        decode_image(content)


def test_truncated_bytes_are_refused(tmp_path: Path, rng) -> None:
    write_image(_colours(rng), tmp_path / "a.png")
    with pytest.raises(ImageFileError, match="cannot be read"):
        decode_image((tmp_path / "a.png").read_bytes()[:-400])
