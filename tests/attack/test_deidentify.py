"""Identifiers planted wherever a file has room: none is in a copy that is called verified."""

import io
import struct
import zlib

import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from glomerulab.errors import SlideError
from glomerulab.images import read_image
from glomerulab.slides.deidentify import deidentify
from glomerulab.slides.slide import open_slide
from glomerulab.slides.tiff_structure import Tag, read_tiff, write_tiff
from tests.support.costly_images import chunk

pytestmark = pytest.mark.slow

SECRET = "Zhang-Meiling"
FORMS = [SECRET.encode(code) for code in ("ascii", "utf-16-le", "utf-16-be")]
PARTS = [b"Zhang", b"Meiling", *(part.encode("utf-16-le") for part in ("Zhang", "Meiling"))]


def held(content: bytes) -> list[bytes]:
    return [form for form in (*FORMS, *PARTS) if form in content]


def tissue(height: int = 700, width: int = 900) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / step) * np.cos(y / (step + 9)) for step in (23, 31, 47)]
    return np.stack([(wave * 100 + 128) for wave in waves], axis=-1).astype(np.uint8)


def segment(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


def profile(secret: bytes) -> bytes:
    """A profile with a private tag, a text, and bytes that no tag points to."""
    good = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    n_tags = struct.unpack_from(">I", good, 128)[0]
    end = 132 + 12 * n_tags
    entries = [list(struct.unpack_from(">4sII", good, 132 + 12 * n)) for n in range(n_tags)]
    text = b"text\0\0\0\0" + secret + b"\0" * (-len(secret) % 4)
    for entry in entries:
        entry[1] += 12
    place = len(good) + 12
    table = b"".join(struct.pack(">4sII", *entry) for entry in entries)
    table += struct.pack(">4sII", b"cust", place, len(text))
    whole = good[:128] + struct.pack(">I", n_tags + 1) + table + good[end:] + text + secret
    whole = whole[:48] + secret[:8].ljust(8) + whole[56:]
    return struct.pack(">I", len(whole)) + whole[4:]


@pytest.fixture
def jpeg_pyramid(tmp_path):
    path = tmp_path / "plain.tif"
    pyvips.Image.new_from_array(tissue()).tiffsave(
        str(path), tile=True, pyramid=True, compression="jpeg", xres=2000, yres=2000, resunit="cm"
    )
    return path


def rewritten(source, target, *, tags=None, scrub=lambda _directory, block: block, extra=b""):
    tiff = read_tiff(source)
    pages = [page.with_tags({**page.tags, **(tags or {})}) for page in tiff.directories]
    write_tiff(pages, source, target, is_big=tiff.is_big, scrub=scrub)
    with target.open("ab") as stream:
        stream.write(extra)
    return target


PLACES_IN_TILES = {
    "comment": lambda secret: segment(0xFE, secret),
    "EXIF": lambda secret: segment(0xE1, b"Exif\0\0" + secret),
    "XMP": lambda secret: segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + secret),
    "APP13": lambda secret: segment(0xED, b"Photoshop 3.0\0" + secret),
    "APP15": lambda secret: segment(0xEF, secret),
    "profile": lambda secret: segment(0xE2, b"ICC_PROFILE\0\1\1" + secret),
    "between": lambda secret: secret,
    "JFIF with more": lambda secret: segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0" + secret),
    "Adobe with more": lambda secret: segment(0xEE, b"Adobe\0\x64\0\0\0\0\0" + secret),
}


OWN = ("profile", "EXIF")
"""Segments that a plain JPEG has of its own: a second one hides the first from Pillow."""


@pytest.mark.parametrize("form", FORMS, ids=["ascii", "le", "be"])
@pytest.mark.parametrize("place", PLACES_IN_TILES)
def test_in_the_segments_of_tiles(jpeg_pyramid, tmp_path, place, form):
    planted = PLACES_IN_TILES[place](form)
    secret = rewritten(
        jpeg_pyramid, tmp_path / "s.tif", scrub=lambda _, block: block[:2] + planted + block[2:]
    )
    assert held(secret.read_bytes())
    if place == "between":  # OpenSlide calls that damaged
        with pytest.raises(SlideError):
            deidentify(secret, tmp_path / "copy.tif")
        assert not (tmp_path / "copy.tif").exists()
        return
    deidentify(secret, tmp_path / "copy.tif")
    assert not held((tmp_path / "copy.tif").read_bytes())
    before, after = openslide.OpenSlide(jpeg_pyramid), openslide.OpenSlide(tmp_path / "copy.tif")
    for level, size in enumerate(before.level_dimensions):
        whole = before.read_region((0, 0), level, size)
        assert whole.tobytes() == after.read_region((0, 0), level, size).tobytes()


@pytest.mark.parametrize("form", FORMS, ids=["ascii", "le", "be"])
def test_after_the_end_of_tiles_and_of_the_file(jpeg_pyramid, tmp_path, form):
    secret = rewritten(
        jpeg_pyramid, tmp_path / "s.tif", scrub=lambda _, block: block + form, extra=form
    )
    deidentify(secret, tmp_path / "copy.tif")
    assert not held((tmp_path / "copy.tif").read_bytes())


@pytest.mark.parametrize("form", FORMS, ids=["ascii", "le", "be"])
@pytest.mark.parametrize(
    "code",
    [269, 270, 271, 272, 284, 285, 305, 306, 315, 316, 320, 339, 512, 532, 700, 33432, 65000],
)
def test_in_a_tag(jpeg_pyramid, tmp_path, code, form):
    tags = {code: Tag(7 if code in {700, 65000} else 2, len(form) + 1, form + b"\0")}
    secret = rewritten(jpeg_pyramid, tmp_path / "s.tif", tags=tags)
    try:
        deidentify(secret, tmp_path / "copy.tif")
    except SlideError:
        assert not (tmp_path / "copy.tif").exists()
    else:
        assert not held((tmp_path / "copy.tif").read_bytes())


@pytest.mark.parametrize("form", FORMS, ids=["ascii", "le", "be"])
def test_in_tables_and_profiles(jpeg_pyramid, tmp_path, form):
    tables = read_tiff(jpeg_pyramid).directories[0].tags[347].value
    tables = tables[:2] + segment(0xFE, form) + tables[2:] + form
    tags = {347: Tag(7, len(tables), tables)}
    tags[34675] = Tag(7, len(profile(form)), profile(form))
    secret = rewritten(jpeg_pyramid, tmp_path / "s.tif", tags=tags)
    deidentify(secret, tmp_path / "copy.tif")
    content = (tmp_path / "copy.tif").read_bytes()
    assert not held(content)
    assert b"acsp" in content


def test_within_the_compressed_pixels_it_is_found_and_refused(jpeg_pyramid, tmp_path):
    """Bytes before a tile's end that no decoder reads, with the same text in a tag."""
    form = FORMS[0]
    secret = rewritten(
        jpeg_pyramid,
        tmp_path / "s.tif",
        tags={315: Tag(2, len(form) + 1, form + b"\0")},
        scrub=lambda _, block: block[:-2] + form + block[-2:],
    )
    with pytest.raises(SlideError, match="still holds"):
        deidentify(secret, tmp_path / "copy.tif")
    assert not (tmp_path / "copy.tif").exists()


APERIO = (
    "Aperio Image Library v11.2.1 \r\n900x700 [0,0 900x700] (256x256) JPEG/RGB Q=30|AppMag = 20|"
    "MPP = 0.4990|Filename = {0}|User = {0}|Left = {0}|ICC Profile = {0}"
)


@pytest.mark.parametrize(
    "text",
    [
        APERIO,
        APERIO.replace("v11.2.1", "v11.2.1 {0}"),
        APERIO.replace("Library v11.2.1 ", "Library {0} "),
        APERIO.replace("JPEG/RGB", "{0}/RGB"),
        APERIO.replace("[0,0 900x700]", "[{0}]"),
        APERIO.replace("Q=30", "Q=30 {0};{0}"),
        APERIO.replace("|MPP", "|{0}|MPP"),
    ],
)
@pytest.mark.parametrize("shape", [None, (700, 900), (175, 225), (400, 300), (64, 64)])
def test_in_the_description_and_an_unnamed_label_of_aperio(tmp_path, text, shape, rng):
    label = None if shape is None else rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "s.svs") as tiff:
        settings = {"photometric": "rgb", "metadata": None}
        description = text.format(SECRET)
        tiff.write(tissue(), tile=(256, 256), description=description, **settings)
        if label is not None:
            tiff.write(label, description="Aperio Image Library", rowsperstrip=16, **settings)
    deidentify(tmp_path / "s.svs", tmp_path / "copy.svs")
    content = (tmp_path / "copy.svs").read_bytes()
    assert not held(content)
    if label is not None:
        assert label[5, :16].tobytes() not in content
    with open_slide(tmp_path / "copy.svs") as copy:
        assert copy.associated_images == ()
        assert copy.mpp == pytest.approx(0.499)


@pytest.mark.parametrize("shape", [(350, 450), (175, 225)])
def test_a_tiled_label_of_the_slide_s_shape_is_refused(tmp_path, rng, shape):
    label = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "s.tif") as tiff:
        tiff.write(tissue(), tile=(256, 256), photometric="rgb", metadata=None)
        tiff.write(label, tile=(256, 256), photometric="rgb", subfiletype=1, metadata=None)
    with pytest.raises(SlideError, match="perhaps a label"):
        deidentify(tmp_path / "s.tif", tmp_path / "copy.tif")


@pytest.mark.parametrize("tiles", [{"tile": (256, 256)}, {"rowsperstrip": 64}])
def test_in_the_xml_of_an_ome_tiff(tmp_path, tiles):
    pixels = tissue()
    with tifffile.TiffWriter(tmp_path / "s.ome.tif", ome=True) as tiff:
        metadata = {
            "axes": "YXS",
            "PhysicalSizeX": 0.37,
            "PhysicalSizeY": 0.37,
            "Name": SECRET,
            "Description": SECRET,
        }
        inner = {"subifds": 1} if "tile" in tiles else {}
        tiff.write(pixels, photometric="rgb", metadata=metadata, **inner, **tiles)
        if inner:
            tiff.write(pixels[::2, ::2].copy(), photometric="rgb", subfiletype=1, **tiles)
    assert held((tmp_path / "s.ome.tif").read_bytes())
    deidentify(tmp_path / "s.ome.tif", tmp_path / "copy.tif")
    assert not held((tmp_path / "copy.tif").read_bytes())
    with open_slide(tmp_path / "copy.tif") as copy:
        assert copy.mpp == pytest.approx(0.37)
        assert len(copy.levels) == (2 if inner else 1)
    np.testing.assert_array_equal(read_image(tmp_path / "copy.tif"), pixels)


@pytest.mark.parametrize("form", FORMS, ids=["ascii", "le", "be"])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_in_plain_images(tmp_path, kind, form):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[274], exif[315] = 6, SECRET
    format_ = {"png": "PNG", "jpg": "JPEG"}[kind]
    Image.fromarray(tissue(120, 90)).save(stream, format_, exif=exif, icc_profile=profile(form))
    content = stream.getvalue()
    if kind == "png":
        packed = zlib.compress(form)
        planted = [
            chunk(b"tEXt", b"Author\0" + form),
            chunk(b"zTXt", b"Author\0\0" + packed),
            chunk(b"iTXt", b"Author\0\0\0\0\0" + form),
            chunk(b"prVt", form),
        ]
        content = content[:33] + b"".join(planted) + content[33:] + form
    else:
        planted = [make(form) for name, make in PLACES_IN_TILES.items() if name not in OWN]
        content = content[:2] + b"".join(planted) + content[2:] + form
    (tmp_path / f"s.{kind}").write_bytes(content)
    deidentify(tmp_path / f"s.{kind}", tmp_path / f"copy.{kind}")
    copy = (tmp_path / f"copy.{kind}").read_bytes()
    assert not held(copy)
    np.testing.assert_array_equal(
        read_image(tmp_path / f"copy.{kind}"), read_image(tmp_path / f"s.{kind}")
    )
