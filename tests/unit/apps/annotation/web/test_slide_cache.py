import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from glomerulab.apps.annotation.web import slide_cache as shelf_module
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.errors import SlideError, UnknownRecordError
from glomerulab.runtime.names import hashed_name


def test_slides_are_known_by_key_and_new_ones_are_found(make_slide, tmp_path):
    make_slide("slides/a.tiff")
    shelf = SlideCache(tmp_path / "slides")
    assert [entry.slide_id for entry in shelf.entries()] == ["a"]
    make_slide("slides/b.tiff")
    assert [entry.slide_id for entry in shelf.entries()] == ["a", "b"]
    assert shelf.entry(hashed_name("b")).path.name == "b.tiff"


def test_a_key_says_nothing_and_is_no_path():
    assert hashed_name("../../etc/passwd").isalnum()
    assert len(hashed_name("Müller, Hans 系膜")) == 16


def test_what_is_not_on_the_shelf_is_not_there(make_slide):
    shelf = SlideCache(make_slide())
    for key in ("../slide", "slide", hashed_name("other"), ""):
        with pytest.raises(UnknownRecordError):
            shelf.tile(key, 0, 0, 0)
    with pytest.raises(UnknownRecordError, match="no such tile"):
        shelf.tile(hashed_name("slide"), 99, 0, 0)


def test_an_empty_shelf_has_nothing():
    assert SlideCache().entries() == []


def test_tiles_read_at_once_by_many_are_those_read_alone(make_slide):
    shelf = SlideCache(make_slide())
    key = hashed_name("slide")
    level = shelf.pyramid(key).max_level
    places = [(column, row) for column in range(5) for row in range(4)]
    alone = [shelf.tile(key, level, *place) for place in places]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda place: shelf.tile(key, level, *place), places)) == alone


def test_only_the_last_slides_stay_open(make_slide, tmp_path, monkeypatch):
    monkeypatch.setattr(shelf_module, "MAX_OPEN", 2)
    for name in "abc":
        make_slide(f"slides/{name}.tiff")
    shelf = SlideCache(tmp_path / "slides")
    for name in "abca":
        shelf.tile(hashed_name(name), 3, 0, 0)
    assert list(shelf._open) == [hashed_name("c"), hashed_name("a")]


@pytest.mark.real
def test_an_unreadable_slide_says_so_every_time(real_data):
    shelf = SlideCache(real_data / "slides" / "openslide_unreadable.svs")
    key = hashed_name("openslide_unreadable")
    for _ in range(2):
        with pytest.raises(SlideError):
            shelf.tile(key, shelf.pyramid(key).max_level, 0, 0)
    assert key not in shelf._open


@pytest.mark.real
def test_the_thumbnail_is_of_the_tissue_and_not_the_label(real_data):
    shelf = SlideCache(real_data / "slides" / "CMU-1-Small-Region.svs")
    image = Image.open(io.BytesIO(shelf.thumbnail(hashed_name("CMU-1-Small-Region"))))
    assert image.height == 480
    assert abs(image.width / image.height - 2220 / 2967) < 0.01
