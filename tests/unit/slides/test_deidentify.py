import io
import struct
from pathlib import Path

import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import Image

from glomerulab.errors import OutputError, SlideError
from glomerulab.images import read_image
from glomerulab.slides.deidentify import deidentify
from glomerulab.slides.removed_text import RemovedText
from glomerulab.slides.tiff_structure import Tag, block_ranges, read_tiff, write_tiff

IDENTIFYING = (b"CMU-1", b"b414003d", b"CPAPERIOCS", b"1004486", b"12/29/09", b"09:59:15")


def outside_pixels(path: Path) -> bytes:
    """Everything in a file but its compressed tiles and strips."""
    content = bytearray(path.read_bytes())
    for directory in read_tiff(path).directories:
        for start, length in block_ranges(path, directory):
            content[start : start + length] = b"\0" * length
    return bytes(content)


def with_secrets(source: Path, target: Path) -> None:
    """Add the tags in which programs leave names and dates."""
    tiff = read_tiff(source)
    secret = b"Patient Zhang San 2021:05:04\0"
    tags = {code: Tag(2, len(secret), secret) for code in (270, 305, 306, 315, 316, 700, 33432)}
    write_tiff(
        [each.with_tags({**each.tags, **tags}) for each in tiff.directories],
        source,
        target,
        is_big=tiff.is_big,
    )


@pytest.mark.real
def test_the_copy_of_an_aperio_slide_has_every_pixel_and_no_identity(real_data, tmp_path):
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    before = outside_pixels(slide)
    assert all(secret in before for secret in IDENTIFYING)
    done = deidentify(slide, tmp_path / "copy.svs")
    assert done.removed_images == ("label", "macro")
    assert "aperio.User" in done.removed_properties
    content = (tmp_path / "copy.svs").read_bytes()
    assert not any(secret in content for secret in IDENTIFYING)
    original, copy = openslide.OpenSlide(slide), openslide.OpenSlide(tmp_path / "copy.svs")
    assert set(copy.associated_images) == {"thumbnail"}
    assert copy.properties["openslide.mpp-x"] == original.properties["openslide.mpp-x"]
    assert copy.properties["openslide.objective-power"] == "20"
    assert copy.properties["openslide.vendor"] == "aperio"
    np.testing.assert_array_equal(
        np.asarray(copy.read_region((0, 0), 0, copy.dimensions)),
        np.asarray(original.read_region((0, 0), 0, original.dimensions)),
    )


@pytest.mark.real
def test_the_pixels_of_label_and_macro_are_not_in_the_copy(real_data, tmp_path):
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    deidentify(slide, tmp_path / "copy.svs")
    content, copy = slide.read_bytes(), (tmp_path / "copy.svs").read_bytes()
    stripped = [each for each in read_tiff(slide).directories if not each.is_tiled][1:]
    assert len(stripped) == 2
    for directory in stripped:
        for start, length in block_ranges(slide, directory):
            assert content[start : start + length] not in copy


@pytest.mark.parametrize("is_big", [False, True])
def test_a_generic_pyramid_loses_its_secrets_and_keeps_every_level(tmp_path, rng, is_big):
    pixels = rng.integers(0, 256, (700, 900, 3), dtype=np.uint8)
    pyvips.Image.new_from_array(pixels).tiffsave(
        str(tmp_path / "plain.tiff"),
        tile=True,
        pyramid=True,
        compression="deflate",
        bigtiff=is_big,
        xres=2000,
        yres=2000,
        resunit="cm",
    )
    with_secrets(tmp_path / "plain.tiff", tmp_path / "secret.tiff")
    assert b"Zhang San" in (tmp_path / "secret.tiff").read_bytes()
    done = deidentify(tmp_path / "secret.tiff", tmp_path / "copy.tiff")
    assert "tiff.Artist" in done.removed_properties
    assert b"Zhang San" not in (tmp_path / "copy.tiff").read_bytes()
    copy = openslide.OpenSlide(tmp_path / "copy.tiff")
    assert copy.level_count == openslide.OpenSlide(tmp_path / "plain.tiff").level_count
    assert float(copy.properties["openslide.mpp-x"]) == pytest.approx(0.5)
    read = np.asarray(copy.read_region((0, 0), 0, (900, 700)).convert("RGB"))
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("histolab_broken.svs", "plain image or damaged"),
        ("openslide_unopenable.tiff", "Unsupported TIFF compression"),
        ("openslide_unreadable.svs", "cannot be read"),
        ("", "is a folder .*only Aperio"),
        ("none.svs", "no such slide"),
    ],
)
def test_other_formats_are_refused_and_nothing_is_written(real_data, tmp_path, name, reason):
    with pytest.raises(SlideError, match=reason):
        deidentify(real_data / "slides" / name, tmp_path / "copy.svs")
    assert list(tmp_path.iterdir()) == []


def test_damaged_sub_directories_are_refused(tmp_path, make_slide):
    slide = make_slide()
    tiff = read_tiff(slide)
    first = tiff.directories[0]
    sub = first.with_tags({**first.tags, 330: Tag(4, 1, b"\x08\0\0\0")})
    write_tiff([sub, *tiff.directories[1:]], slide, tmp_path / "sub.tiff", is_big=False)
    with pytest.raises(SlideError, match="sub-directories"):
        deidentify(tmp_path / "sub.tiff", tmp_path / "copy.tiff")
    assert not (tmp_path / "copy.tiff").exists()


def test_an_existing_copy_is_replaced_only_with_overwrite(make_slide, tmp_path):
    slide = make_slide()
    (tmp_path / "copy.tiff").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        deidentify(slide, tmp_path / "copy.tiff")
    with pytest.raises(OutputError, match="the slide itself"):
        deidentify(slide, slide, overwrite=True)
    deidentify(slide, tmp_path / "copy.tiff", overwrite=True)
    assert openslide.OpenSlide(tmp_path / "copy.tiff").dimensions == (1200, 900)


def _with_a_tiled_label(path: Path, rng: np.random.Generator, *, subfile_type: int) -> None:
    pixels = rng.integers(0, 256, (512, 768, 3), dtype=np.uint8)
    label = np.full((256, 256, 3), 7, np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, tile=(256, 256), photometric="rgb")
        tiff.write(pixels[::2, ::2].copy(), tile=(256, 256), photometric="rgb", subfiletype=1)
        tiff.write(label, tile=(256, 256), photometric="rgb", subfiletype=subfile_type)


def test_a_label_stored_in_tiles_is_left_out(tmp_path, rng):
    _with_a_tiled_label(tmp_path / "s.tif", rng, subfile_type=0)
    done = deidentify(tmp_path / "s.tif", tmp_path / "copy.tif")
    assert done.removed_images == ("page 3",)
    with tifffile.TiffFile(tmp_path / "copy.tif") as copy:
        assert [page.shape[:2] for page in copy.pages] == [(512, 768), (256, 384)]


def test_a_label_marked_as_a_level_is_refused(tmp_path, rng):
    _with_a_tiled_label(tmp_path / "s.tif", rng, subfile_type=1)
    with pytest.raises(SlideError, match="256 x 256"):
        deidentify(tmp_path / "s.tif", tmp_path / "copy.tif")
    assert not (tmp_path / "copy.tif").exists()


@pytest.mark.real
def test_the_comments_in_jpeg_2000_tiles_are_left_out(real_data, tmp_path):
    slide = real_data / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    assert b"Kakadu" in slide.read_bytes()
    deidentify(slide, tmp_path / "copy.svs")
    content = (tmp_path / "copy.svs").read_bytes()
    assert b"Kakadu" not in content
    assert b"IEC 61966" not in content
    before, after = openslide.OpenSlide(slide), openslide.OpenSlide(tmp_path / "copy.svs")
    assert before.level_dimensions == after.level_dimensions
    for corner in ((0, 0), (1500, 1200), (3900, 3000)):
        whole = [each.read_region(corner, 0, (500, 500)).tobytes() for each in (before, after)]
        assert whole[0] == whole[1]


def test_a_comment_within_a_jpeg_is_left_out_and_its_orientation_kept(tmp_path, rng):
    exif = Image.Exif()
    exif[274], exif[315] = 6, "Zhang Meiling"
    pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, comment="Zhang Meiling")
    deidentify(tmp_path / "a.jpg", tmp_path / "copy.jpg")
    assert b"Zhang" not in (tmp_path / "copy.jpg").read_bytes()
    copy, original = read_image(tmp_path / "copy.jpg"), read_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(copy, original)
    assert copy.shape == (30, 40, 3)


def _jpeg(pixels, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


def _exif_with_thumbnail(thumbnail: bytes) -> bytes:
    """EXIF as cameras write it: the maker, and in the second directory a small JPEG."""
    maker, n_first = b"NIKON Corporation\0", 8 + 2 + 12 + 4
    second = n_first + len(maker)
    place = second + 2 + 2 * 12 + 4
    return b"".join(
        [
            b"Exif\0\0MM\0*\0\0\0\x08",
            struct.pack(">HHHIII", 1, 271, 2, len(maker), n_first, second),
            maker,
            struct.pack(">HHHII", 2, 513, 4, 1, place),
            struct.pack(">HHIII", 514, 4, 1, len(thumbnail), 0),
            thumbnail,
        ]
    )


@pytest.mark.parametrize("place", ["exif", "after the end"])
def test_a_photograph_that_holds_a_second_picture_is_copied_without_it(tmp_path, rng, place):
    pixels = rng.integers(120, 255, (120, 160, 3), dtype=np.uint8)
    small = _jpeg(pixels[::2, ::2], comment="Zhang Meiling")
    exif = _exif_with_thumbnail(small)
    content = _jpeg(pixels, exif=exif) if place == "exif" else _jpeg(pixels) + small
    (tmp_path / "a.jpg").write_bytes(content)
    deidentify(tmp_path / "a.jpg", tmp_path / "copy.jpg")
    copy = (tmp_path / "copy.jpg").read_bytes()
    assert copy.count(b"\xff\xd8\xff") == 1
    assert b"Meiling" not in copy
    removed = RemovedText()
    removed.add_bytes(exif, "EXIF")
    (tmp_path / "other.jpg").write_bytes(b"\xff\xd8 Meiling")
    assert removed.find(tmp_path / "other.jpg", b"") == "EXIF"  # of the small picture's comment
    for text in ("NIKON", "Zhang"):
        assert removed.find(tmp_path / "copy.jpg", text.encode()) == "EXIF"


def test_a_text_that_remains_within_the_pixels_is_found(tmp_path, rng):
    pixels = rng.integers(0, 256, (512, 768, 3), dtype=np.uint8)
    pixels[0, :5] = np.frombuffer(b"Zhang Meiling!!", np.uint8).reshape(5, 3)
    with tifffile.TiffWriter(tmp_path / "s.tif") as tiff:
        tiff.write(pixels, tile=(256, 256), photometric="rgb", software="Zhang Meiling")
    with pytest.raises(SlideError, match="still holds"):
        deidentify(tmp_path / "s.tif", tmp_path / "copy.tif")
    assert not (tmp_path / "copy.tif").exists()
