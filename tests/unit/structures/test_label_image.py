import json

import numpy as np
import openslide
import pytest
import tifffile

from glomerulab.slides.slide import open_slide
from glomerulab.structures.classes import structure
from glomerulab.structures.label_image import label_values, write_label_image
from tests.support.structure_maps import draw_disc, make_map

SHAPE = (900, 1300)


@pytest.fixture
def drawn():
    cortex = np.zeros(SHAPE, bool)
    cortex[:, :700] = True
    capsule = draw_disc(SHAPE, (450, 400), 200)
    own = draw_disc(SHAPE, (450, 1000), 100)
    tuft = draw_disc(SHAPE, (450, 400), 100)
    return make_map(
        {"cortex": cortex, "glomerulus": capsule, "tuft": tuft, "blood_clot": own}, mpp=1.25
    )


def test_openslide_shows_the_structure_on_top_in_its_colour(drawn, tmp_path):
    write_label_image(drawn, tmp_path / "labels.tif")
    with open_slide(tmp_path / "labels.tif") as slide:
        assert slide.mpp == pytest.approx(1.25)
        assert [(level.width, level.height) for level in slide.levels] == [
            (1300, 900),
            (650, 450),
            (325, 225),
        ]
    with openslide.OpenSlide(tmp_path / "labels.tif") as slide:
        for level in range(3):
            image = np.array(slide.read_region((0, 0), level, slide.level_dimensions[level]))
            at = {name: tuple(image[450 >> level, x >> level][:3].tolist()) for name, x in PLACES}
            assert at == {name: structure(name).colour for name, _ in PLACES}
        colours = {structure(name).colour for name in drawn.frame.structures} | {(255,) * 3}
        assert set(map(tuple, image.reshape(-1, 4)[:, :3].tolist())) == colours


PLACES = [("cortex", 20), ("glomerulus", 250), ("tuft", 400), ("blood_clot", 1000)]


def test_grey_levels_are_labels_which_the_file_names(drawn, tmp_path):
    write_label_image(drawn, tmp_path / "labels.tif")
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        labels = file.pages[0].asarray()
        names = json.loads(file.pages[0].description)["structures"]
    assert names == label_values(drawn.frame)
    for name, x in PLACES:
        assert labels[450, x] == names[name]
    assert np.array_equal(
        labels == names["blood_clot"], drawn.likely == drawn.frame.bit("blood_clot")
    )
    assert label_values(make_map({"tuft": np.ones((2, 2), bool)}).frame)["tuft"] == names["tuft"]


def test_a_strip_far_longer_than_wide_has_a_pyramid_too(tmp_path):
    write_label_image(make_map({"tubule": np.ones((2000, 1), bool)}), tmp_path / "labels.tif")
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert [page.shape for page in file.pages] == [(2000, 1), (1000, 1), (500, 1)]
        assert all((page.asarray() == file.pages[0].asarray()[0, 0]).all() for page in file.pages)
