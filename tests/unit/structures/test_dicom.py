import shutil
import subprocess

import highdicom as hd
import numpy as np
import pytest
import shapely

from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.slide import open_slide
from glomerulab.structures.dicom import write_annotations, write_segmentations
from glomerulab.structures.measuring import measure_objects
from tests.support.structure_maps import draw_disc, make_map

SHAPE = (600, 700)
MPP = 0.5  # of the slide; the map has twice that
# The validator's edition asks slides for a patient's plane, which the standard gives up for them.
# It also takes an attribute of three dimensions that is not there for one that is empty.
MISTAKES = ("PlaneOrientationMacro", "<CommonZCoordinateValue> = <>")


@pytest.fixture(scope="module")
def drawn():
    cortex = np.zeros(SHAPE, bool)
    cortex[:, : SHAPE[1] // 2] = True
    tubules = draw_disc(SHAPE, (100, 100), 20) | draw_disc(SHAPE, (100, 200), 30)
    return make_map(
        {
            "cortex": cortex,
            "tubule": tubules,
            "glomerulus": draw_disc(SHAPE, (200, 100), 60),
            "fibrosis": np.zeros(SHAPE, bool),
        },
        mpp=2 * MPP,
    )


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "肾 1.tif"
    image = np.full((2 * SHAPE[0], 2 * SHAPE[1], 3), (225, 150, 190), np.uint8)
    write_pyramid(image, path, mpp=MPP)
    with open_slide(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def segmentations(drawn, slide, tmp_path_factory):
    return write_segmentations(drawn, slide, tmp_path_factory.mktemp("seg"))


@pytest.fixture(scope="module")
def annotations(drawn, slide, tmp_path_factory):
    path = tmp_path_factory.mktemp("ann") / "objects.ann.dcm"
    objects, _ = measure_objects(drawn, slide)
    assert write_annotations(objects, slide, path)
    return path


def test_each_structure_that_occurs_is_a_segmentation_with_the_mask(drawn, segmentations):
    names = [path.name.removesuffix(".seg.dcm") for path in segmentations]
    assert names == ["cortex", "tubule", "glomerulus"]
    read = [hd.seg.segread(path) for path in segmentations]
    for name, one in zip(names, read, strict=True):
        mask = (drawn.likely & drawn.frame.bit(name)) != 0
        assert np.array_equal(one.get_total_pixel_matrix()[..., 0], mask)
        spacing = one.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        assert [float(value) for value in spacing] == [0.001, 0.001]
    assert len({one.SeriesInstanceUID for one in read}) == 1
    cortex = read[0].get_segment_description(1)
    assert cortex.segmented_property_type.value == "50403003"
    assert read[0].NumberOfFrames < 4  # tiles of glass are left out


def test_of_a_slide_that_is_not_dicom_nothing_is_referred_to(segmentations, annotations):
    for path in (*segmentations, annotations):
        text = str(hd.imread(path) if "seg" in path.name else hd.ann.annread(path))
        assert "Referenced Series" not in text
        assert "Source Image" not in text
        assert "肾 1" in text


def test_objects_are_polygons_in_millimetres_with_measurements(drawn, slide, annotations):
    read = hd.ann.annread(annotations)
    tubules, glomeruli = read.get_annotation_groups()
    assert (tubules.label, glomeruli.label) == ("Tubule", "Glomerulus")
    assert tubules.number_of_annotations == 2
    objects, _ = measure_objects(drawn, slide)
    (outline,) = glomeruli.get_graphic_data("3D")
    polygon = shapely.Polygon(outline[:, :2])
    assert polygon.area * 1e6 == pytest.approx(objects[-1].measures["area_um2"].value, rel=0.01)
    assert polygon.centroid.x == pytest.approx((201 - 0.5) * MPP / 1000, abs=1e-4)
    names, values, units = tubules.get_measurements()
    assert names[0].meaning == "area um2"
    assert units[0].value == "um2"
    assert values[:, 0] == pytest.approx([one.measures["area_um2"].value for one in objects[:2]])


def test_without_objects_and_structures_no_file_is_written_and_old_ones_go(slide, tmp_path):
    for name in ("objects.ann.dcm", "tubule.seg.dcm"):
        (tmp_path / name).touch()
    assert write_segmentations(make_map({"tubule": np.zeros(SHAPE, bool)}), slide, tmp_path) == []
    assert not write_annotations([], slide, tmp_path / "objects.ann.dcm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
def test_dciodvfy_finds_no_error(segmentations, annotations):
    for path in (*segmentations, annotations):
        assert errors_of(path) == []


def errors_of(path):
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert {"Segmentation", "MicroscopyBulkSimpleAnnotations"} & set(lines)
    return [
        line
        for line in lines
        if line.startswith("Error") and not any(mistake in line for mistake in MISTAKES)
    ]


@pytest.mark.real
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
def test_files_of_a_dicom_slide_refer_to_its_level_0(real_data, tmp_path):
    with open_slide(real_data / "slides" / "boxes_dicom", mpp_override=4.0) as slide:
        assert slide.dimensions == (16, 16)
        drawn = make_map({"tubule": draw_disc((16, 16), (8, 8), 5)}, mpp=4.0, scale=1.0)
        paths = write_segmentations(drawn, slide, tmp_path)
        objects, _ = measure_objects(drawn)
        write_annotations(objects, slide, tmp_path / "objects.ann.dcm")
    seg = hd.seg.segread(paths[0])
    ann = hd.ann.annread(tmp_path / "objects.ann.dcm")
    level_0 = ann.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    (series,) = seg.ReferencedSeriesSequence
    assert [one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence] == [level_0]
    assert seg.StudyInstanceUID == ann.StudyInstanceUID
    points = ann.get_annotation_groups()[0].get_graphic_data("2D")[0]
    assert shapely.Polygon(points).area == pytest.approx(objects[0].polygon.area, rel=0.001)
    assert "CommonZCoordinateValue" not in ann.AnnotationGroupSequence[0]
    assert errors_of(tmp_path / "objects.ann.dcm") == []
