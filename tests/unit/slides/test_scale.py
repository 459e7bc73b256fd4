import numpy as np
import pytest
import pyvips
from PIL import Image, TiffImagePlugin, TiffTags

from glomerulab.errors import MissingMppError, SlideError
from glomerulab.geometry import Box, Region
from glomerulab.slides.scale import region_size_warning, scale_warnings, with_described_scale
from glomerulab.slides.slide import open_slide

OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
 <Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="20"/></Instrument>
 <Image ID="Image:0"><Pixels ID="Pixels:0" SizeX="64" SizeY="48" {sizes}/></Image>
 <Image ID="Image:1"><Pixels ID="Pixels:1" PhysicalSizeX="9" PhysicalSizeY="9"/></Image>
</OME>"""


def physical(x, y, unit=None):
    units = "" if unit is None else f' PhysicalSizeXUnit="{unit}" PhysicalSizeYUnit="{unit}"'
    return OME.format(sizes=f'PhysicalSizeX="{x}" PhysicalSizeY="{y}"{units}')


def scale_of(description, **properties):
    found = with_described_scale(properties, description)
    return found.get("openslide.mpp-x"), found.get("openslide.mpp-y")


@pytest.fixture
def make_tiff(tmp_path):
    """Write a TIFF in tiles (OpenSlide reads it) or strips (Pillow does)."""

    def make(description, *, tiled, per_unit=(0.0, 0.0), unit=1, orientation=1):
        path = tmp_path / ("tiled.ome.tif" if tiled else "strips.ome.tif")
        pixels = np.full((600, 800, 3), 230, dtype=np.uint8)
        if tiled:
            image = pyvips.Image.new_from_memory(pixels.data, 800, 600, 3, "uchar")
            image = image.copy(interpretation="srgb")
            image.set_type(pyvips.GValue.gstr_type, "image-description", description)
            image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
            image.tiffsave(str(path), tile=True, pyramid=True)
            return path
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[270] = description
        tags[274] = orientation
        if any(per_unit):
            tags[282], tags[283] = per_unit
        tags[296] = unit
        Image.fromarray(pixels).save(path, tiffinfo=tags)
        return path

    return make


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [
        (0.5, None, 0.5),
        (0.5, "µm", 0.5),
        (0.5, "\u03bcm", 0.5),
        (0.5, "um", 0.5),
        (250, "nm", 0.25),
        (0.0005, "mm", 0.5),
        (0.00005, "cm", 0.5),
        (5e-7, "m", 0.5),
        (5000, "Å", 0.5),
        (2e-5, "in", 0.508),
    ],
)
def test_the_scale_of_ome_xml_is_read_in_any_unit(size, unit, expected):
    assert [float(one) for one in scale_of(physical(size, size, unit))] == pytest.approx(
        [expected, expected]
    )


@pytest.mark.parametrize(
    "text",
    [
        physical(1, 1, "pixel"),
        physical(1, 1, "reference frame"),
        physical("", ""),
        physical(-0.5, 0.5),
        OME.format(sizes='PhysicalSizeX="0.5"'),
        OME.format(sizes="")[:-20],
        '<!DOCTYPE OME [<!ENTITY x "0.5">]><OME><Pixels PhysicalSizeX="&x;"/></OME>',
        "a scan of 0.5 micrometres",
    ],
)
def test_a_description_without_a_scale_leaves_that_of_the_tags(text):
    tags = {"openslide.mpp-x": "0.3", "openslide.mpp-y": "0.3"}
    assert scale_of(text, **tags) == ("0.3", "0.3")


@pytest.mark.parametrize("tiled", [True, False])
def test_a_slide_has_the_scale_and_objective_of_its_ome_xml(make_tiff, tiled):
    with open_slide(make_tiff(physical(1.0, 0.5), tiled=tiled)) as slide:
        assert slide.mpp_xy == (1.0, 0.5)
        assert slide.objective == 20
        assert slide.read_region(Box(0, 0, 100, 100), mpp=0.5).shape == (100, 200, 3)


def test_the_units_of_a_plain_ome_tiff_are_utf_8(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = physical(0.5, 0.5, "\u00b5m").encode()
    tags.tagtype[270] = TiffTags.ASCII
    Image.new("RGB", (80, 60), (230, 230, 230)).save(tmp_path / "s.ome.tif", tiffinfo=tags)
    with open_slide(tmp_path / "s.ome.tif") as slide:
        assert slide.mpp_xy == (0.5, 0.5)


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [(3, (20000.0, 40000.0), (0.5, 0.25)), (2, (50800, 50800), (0.5, 0.5))],
)
def test_a_plain_tiff_has_the_scale_of_its_resolution(make_tiff, unit, per_unit, expected):
    with open_slide(make_tiff("", tiled=False, unit=unit, per_unit=per_unit)) as slide:
        assert slide.mpp_xy == pytest.approx(expected)


def test_a_plain_tiff_without_a_unit_has_no_scale(make_tiff):
    path = make_tiff("", tiled=False, unit=1, per_unit=(2.0, 2.0))
    with open_slide(path) as slide, pytest.raises(MissingMppError, match="--mpp-override"):
        _ = slide.mpp


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m"])
def test_the_scale_of_imagej_is_read(make_tiff, unit):
    text = f"ImageJ=1.54f\nunit={unit}\nmin=0.0"
    with open_slide(make_tiff(text, tiled=False, per_unit=(2.0, 2.0))) as slide:
        assert slide.mpp == pytest.approx(0.5)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_a_tiled_tiff_that_is_stored_turned_is_refused_with_the_way_out(make_tiff, orientation):
    with pytest.raises(SlideError, match="vips autorot") as caught:
        open_slide(make_tiff("", tiled=True, orientation=orientation))
    assert caught.value.where is not None


@pytest.mark.parametrize(
    ("mpp", "objective", "vendor", "n"),
    [
        (0.5, 20, "aperio", 0),
        (0.25, 40, "aperio", 0),
        (0.46, 20, "hamamatsu", 0),
        (0.25, 20, "aperio", 1),
        (0.5, 40, "aperio", 1),
        (1.0, 20, None, 1),
        (0.2425, 20, "mirax", 0),
        (1.0, None, None, 0),
    ],
)
def test_an_objective_that_contradicts_the_scale_is_told(mpp, objective, vendor, n):
    pair = (mpp, mpp)
    assert len(scale_warnings("s", pair, pair, objective=objective, vendor=vendor)) == n


def squares(*sides):
    return [Region.from_box(str(i), Box(0, 0, side, side)) for i, side in enumerate(sides)]


@pytest.mark.parametrize("mpp", [0.01, 0.1, 4.0])
def test_regions_of_another_size_than_glomeruli_name_the_scale_as_cause(mpp):
    doubt = region_size_warning("s", squares(200, 200, 250), (mpp, mpp))
    assert (doubt.values["n_outside"], doubt.values["n"]) == (3, 3)
    assert "--mpp-override" in str(doubt)
    assert "--drawn-mpp" in str(doubt)


def test_a_few_regions_of_another_size_are_counted():
    doubt = region_size_warning("s", squares(200, 20, 250, 900, 300), (1.0, 1.0))
    assert (doubt.values["n_outside"], doubt.values["n"]) == (2, 5)
    assert "--mpp-override" not in str(doubt)


def test_regions_of_glomerular_size_raise_no_doubt():
    assert region_size_warning("s", squares(100, 300, 60), (1.0, 1.0)) is None
    assert region_size_warning("s", [], (1.0, 1.0)) is None
    flat = [Region.from_box("1", Box(0, 0, 100, 30))]
    assert region_size_warning("s", flat, (0.5, 4.0)) is None
