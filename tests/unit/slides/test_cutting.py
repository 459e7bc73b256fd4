import numpy as np
import openslide
import pytest

from glomerulab.errors import SlideError
from glomerulab.geometry import Box
from glomerulab.images import read_image
from glomerulab.slides import cutting
from glomerulab.slides.cutting import CropTask, cut_crop
from glomerulab.slides.slide import open_slide


def test_a_crop_is_cut_once(make_slide, tmp_path):
    slide = make_slide()
    task = CropTask(slide, None, Box(100, 100, 80, 60), 0.5, tmp_path / "new" / "folder" / "c.png")
    assert cut_crop(task) is True
    with open_slide(slide) as opened:
        np.testing.assert_array_equal(read_image(task.image_path), opened.read_region(task.box))
    assert cut_crop(task) is False


def test_slides_can_alternate(make_slide, tmp_path):
    box = Box(100, 100, 50, 50)
    for number in range(3):
        slide = make_slide(f"s{number % 2}.tiff", seed=number % 2)
        assert cut_crop(CropTask(slide, None, box, 0.5, tmp_path / f"{number}.png"))
    first, second, third = (read_image(tmp_path / f"{number}.png") for number in range(3))
    np.testing.assert_array_equal(first, third)
    assert (first != second).any()


@pytest.mark.real
def test_a_failed_slide_is_opened_again_for_the_next_region(real_data, tmp_path):
    slide = real_data / "slides" / "openslide_unreadable.svs"
    with pytest.raises(SlideError, match="marker length"):
        cut_crop(CropTask(slide, None, Box(0, 0, 8, 8), 0.499, tmp_path / "a.png"))
    assert cutting._current.slide is None
    assert not (tmp_path / "a.png").exists()


def test_a_slide_that_was_replaced_is_opened_again(make_slide, tmp_path):
    box = Box(100, 100, 50, 50)
    for number in range(2):
        slide = make_slide("same.tiff", seed=number)
        assert cut_crop(CropTask(slide, None, box, 0.5, tmp_path / f"{number}.png"))
    with open_slide(slide) as opened:
        np.testing.assert_array_equal(read_image(tmp_path / "1.png"), opened.read_region(box))


@pytest.mark.real
def test_a_crop_at_native_resolution_holds_the_pixels_of_openslide(real_data, tmp_path):
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    task = CropTask(slide, None, Box(512, 1023, 300, 200), 0.499, tmp_path / "c.png")
    assert cut_crop(task)
    own = openslide.OpenSlide(slide).read_region((512, 1023), 0, (300, 200)).convert("RGB")
    np.testing.assert_array_equal(read_image(task.image_path), np.asarray(own))
