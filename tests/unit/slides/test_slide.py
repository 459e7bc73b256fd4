import pickle
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from glomerulab.errors import MissingMppError, SlideError
from glomerulab.geometry import Box
from glomerulab.slides.slide import estimate_background, open_slide, stain_of_properties


def test_a_slide_has_its_size_levels_and_mpp(make_slide):
    with open_slide(make_slide(size=(1200, 900), mpp=0.25)) as slide:
        assert slide.slide_id == "slide"
        assert slide.vendor == "generic-tiff"
        assert slide.dimensions == (1200, 900)
        assert [level.downsample for level in slide.levels][:2] == [1.0, 2.0]
        assert slide.mpp == pytest.approx(0.25, rel=1e-6)
        assert slide.objective is None
        assert slide.bounds is None
        assert slide.bounds_offset == (0.0, 0.0)


def test_a_plain_image_is_a_slide_of_one_level_without_mpp(tmp_path, rng):
    pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "field.png", dpi=(300, 300))
    with open_slide(tmp_path / "field.png") as slide:
        assert slide.dimensions == (60, 40)
        assert len(slide.levels) == 1
        np.testing.assert_array_equal(slide.read_region(Box(5, 6, 20, 10)), pixels[6:16, 5:25])
        with pytest.raises(MissingMppError, match="--mpp-override"):
            _ = slide.mpp
    with open_slide(tmp_path / "field.png", mpp_override=0.5) as slide:
        assert slide.read_region(Box(0, 0, 60, 40), mpp=1.0).shape == (20, 30, 3)


def test_padding_is_the_glass_of_the_slide(make_slide):
    with open_slide(make_slide()) as slide:
        assert slide.background == (244, 242, 240)
        crop = slide.read_region(Box(-50, -50, 100, 100))
        assert (crop[:50] == slide.background).all()
        assert slide.padded_share(Box(-50, -50, 100, 100)) == 0.75


def test_a_pickled_slide_opens_the_file_anew(make_slide):
    with open_slide(make_slide(), mpp_override=0.4) as slide:
        copy = pickle.loads(pickle.dumps(slide))
        with copy:
            box = Box(100, 100, 50, 50)
            np.testing.assert_array_equal(copy.read_region(box), slide.read_region(box))
            assert copy.mpp == 0.4


def test_a_thumbnail_keeps_the_shape_and_never_enlarges(make_slide):
    with open_slide(make_slide(size=(1200, 900))) as slide:
        assert slide.thumbnail(300).shape == (225, 300, 3)
        assert slide.thumbnail(5000).shape == (900, 1200, 3)


def test_a_print_resolution_is_not_taken_for_a_scale(make_slide):
    with (
        open_slide(make_slide(mpp=352.8)) as slide,
        pytest.raises(MissingMppError, match="print resolution"),
    ):
        _ = slide.mpp


@pytest.mark.parametrize("mpp", [0.049, 0.01, 10.1, 352.8])
def test_a_scale_that_no_microscope_has_is_refused_with_the_way_out(make_slide, mpp):
    with (
        open_slide(make_slide(mpp=mpp)) as slide,
        pytest.raises(MissingMppError, match="--mpp-override"),
    ):
        _ = slide.mpp


@pytest.mark.parametrize("mpp", [0.01, 40.0])
def test_a_scale_that_no_microscope_has_cannot_be_given_either(make_slide, mpp):
    with pytest.raises(ValueError, match=f"{mpp:g}"):
        open_slide(make_slide(), mpp_override=mpp)


def test_a_given_scale_that_contradicts_the_slide_is_told(make_slide):
    with open_slide(make_slide(mpp=1.0), mpp_override=0.5) as slide:
        (doubt,) = slide.scale_warnings
        assert doubt.values == {"slide": "slide", "stated": "1", "used": "0.5"}
    with open_slide(make_slide(mpp=1.0), mpp_override=1.005) as slide:
        assert slide.scale_warnings == []


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_mpp_is_refused(make_slide, mpp):
    with pytest.raises(ValueError, match=r"0\.05 to 10"):
        open_slide(make_slide(), mpp_override=mpp)
    with open_slide(make_slide()) as slide, pytest.raises(ValueError, match="positive and finite"):
        slide.read_region(Box(0, 0, 10, 10), mpp=mpp)


def test_a_region_too_large_for_memory_is_refused_with_the_way_out(make_slide):
    with (
        open_slide(make_slide()) as slide,
        pytest.raises(SlideError, match="larger mpp"),
    ):
        slide.read_region(Box(0, 0, 50_000, 50_000))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such slide"),
        (b"", "empty"),
        (b"not a slide at all", "neither as a slide"),
        (b"II*\0\x08\0\0\0", "neither as a slide"),
    ],
)
def test_a_file_that_is_not_a_slide_is_refused_with_its_name_and_reason(tmp_path, content, reason):
    path = tmp_path / "病理 切片.svs"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SlideError, match=reason) as caught:
        open_slide(path)
    assert caught.value.where == str(path)


def test_a_folder_without_dicom_is_refused(tmp_path):
    with pytest.raises(SlideError, match="no DICOM"):
        open_slide(tmp_path)


@pytest.mark.real
def test_the_sample_without_mpp_works_with_an_override(real_data: Path):
    path = real_data / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    with open_slide(path) as slide, pytest.raises(MissingMppError, match="--mpp-override"):
        slide.read_region(Box(0, 0, 100, 100), mpp=0.5)
    with open_slide(path, mpp_override=0.25) as slide:
        assert slide.read_region(Box(0, 0, 100, 100), mpp=0.5).shape == (50, 50, 3)


@pytest.mark.real
def test_a_dicom_folder_is_one_slide(real_data: Path):
    with open_slide(real_data / "slides" / "boxes_dicom") as slide:
        assert slide.slide_id == "boxes_dicom"
        assert slide.vendor == "dicom"
        assert slide.dimensions == (16, 16)
        assert slide.mpp == 0.499
        assert slide.objective == 20


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("histolab_broken.svs", "neither as a slide"),
        ("openslide_unopenable.tiff", "compression"),
        ("openslide_unreadable.svs", "marker length"),
    ],
)
def test_the_errors_of_damaged_samples_give_the_reason(real_data: Path, name, reason):
    with pytest.raises(SlideError, match=reason), open_slide(real_data / "slides" / name) as slide:
        slide.read_region(Box(0, 0, 16, 16))


@pytest.mark.real
def test_native_pixels_are_openslides_own(real_data: Path):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    own = openslide.OpenSlide(path).read_region((600, 700), 0, (333, 222)).convert("RGB")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_region(Box(600, 700, 333, 222)), np.asarray(own))
        same = slide.read_region(Box(600, 700, 333, 222), mpp=0.499)
        np.testing.assert_array_equal(same, np.asarray(own))


PREPARATION = "dicom.SpecimenDescriptionSequence[0].SpecimenPreparationSequence[{}].CodeMeaning"


@pytest.mark.parametrize(
    ("text", "stain"),
    [
        ("H&E", "HE"),
        ("hematoxylin and eosin", "HE"),
        ("Haematoxylin-Eosin", "HE"),
        ("PAS", "PAS"),
        ("Periodic acid-Schiff", "PAS"),
        ("PAS-M", "PASM"),
        ("periodic acid silver methenamine", "PASM"),
        ("Masson's trichrome", "TRI"),
        ("hematoxylin, DAB", "H-DAB"),
        ("Hematoxylin and 3,3'-diaminobenzidine", "H-DAB"),
        ("dabigatran", None),
        ("Congo red", None),
        ("pass", None),
    ],
)
def test_a_stain_is_known_by_its_names(text, stain):
    assert stain_of_properties({"scanner.Stain": text}) == stain


def test_the_dyes_of_one_dicom_preparation_are_read_together():
    properties = {
        PREPARATION.format(0): "hematoxylin stain",
        PREPARATION.format(1): "water soluble eosin stain",
    }
    assert stain_of_properties(properties) == "HE"


def test_other_properties_name_no_stain():
    assert stain_of_properties({"aperio.Filename": "case 7 PAS"}) is None


def test_the_background_is_the_glass_not_the_tissue():
    pixels = np.full((100, 100, 3), (180, 90, 150), dtype=np.uint8)
    pixels[:20] = (245, 243, 241)
    assert estimate_background(pixels) == (245, 243, 241)


def test_without_glass_the_background_is_pure_white():
    assert estimate_background(np.full((50, 50, 3), 100, dtype=np.uint8)) == (255, 255, 255)


def test_a_few_bright_specks_are_not_glass():
    pixels = np.full((100, 100, 3), 100, dtype=np.uint8)
    pixels[0, :20] = 230
    assert estimate_background(pixels) == (255, 255, 255)


def test_grey_glass_is_found_beside_pale_tissue():
    pixels = np.full((100, 100, 3), (201, 203, 198), dtype=np.uint8)
    pixels[30:] = (230, 150, 200)  # pale eosin: as bright as the glass, but coloured
    assert estimate_background(pixels) == (201, 203, 198)


def test_a_dark_image_has_a_pure_white_background():
    assert estimate_background(np.full((50, 50, 3), 180, dtype=np.uint8)) == (255, 255, 255)
