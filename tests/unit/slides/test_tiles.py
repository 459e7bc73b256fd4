import io

import numpy as np
import openslide
import pytest
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from glomerulab.errors import SlideError
from glomerulab.slides import tiles
from glomerulab.slides.slide import open_slide
from glomerulab.slides.tiles import TilePyramid


def _pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@pytest.mark.real
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
def test_tiles_equal_those_of_openslide(real_data, name):
    path = real_data / "slides" / name
    own = DeepZoomGenerator(openslide.OpenSlide(path), tile_size=254, overlap=1)
    with open_slide(path) as slide:
        pyramid = TilePyramid(slide)
        assert pyramid.max_level == own.level_count - 1
        for level, address in [(0, (0, 0)), (8, (0, 0)), (pyramid.max_level, (3, 2))]:
            expected = io.BytesIO()
            tile = own.get_tile(level, address)
            tile.info.clear()
            tile.save(expected, format="JPEG", quality=tiles.JPEG_QUALITY, subsampling=0)
            assert pyramid.tile_jpeg(level, *address) == expected.getvalue()


def test_a_plain_image_has_tiles_too(tmp_path):
    Image.new("RGB", (600, 300), (10, 200, 30)).save(tmp_path / "field.png")
    with open_slide(tmp_path / "field.png") as slide:
        pyramid = TilePyramid(slide)
        assert _pixels(pyramid.tile_jpeg(pyramid.max_level, 2, 1)).shape == (47, 93, 3)


@pytest.mark.parametrize("place", [(99, 0, 0), (-1, 0, 0), (10, 50, 0), (10, 0, -1)])
def test_a_tile_that_does_not_exist_is_a_value_error(make_slide, place):
    with open_slide(make_slide()) as slide, pytest.raises(ValueError, match="Invalid"):
        TilePyramid(slide).tile_jpeg(*place)


def test_a_slide_without_a_pyramid_has_no_coarse_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_TILE_READ_PX", 100_000)
    Image.new("RGB", (1000, 1000)).save(tmp_path / "flat.png")
    with open_slide(tmp_path / "flat.png") as slide:
        pyramid = TilePyramid(slide)
        assert pyramid.min_level == 10  # level 9 would read 508 x 508
        with pytest.raises(SlideError, match="zoom in"):
            pyramid.tile_jpeg(pyramid.min_level - 1, 0, 0)
        assert pyramid.tile_jpeg(pyramid.min_level, 0, 0)


def test_a_tile_has_no_metadata(make_slide):
    with open_slide(make_slide()) as slide:
        image = Image.open(io.BytesIO(TilePyramid(slide).tile_jpeg(5, 0, 0)))
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
