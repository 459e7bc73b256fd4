import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from glomerulab.apps.annotation.web import slide_cache as slide_cache_module
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.errors import SlideError, UnknownRecordError
from glomerulab.runtime.names import hashed_name


def test_slides_are_found_by_key_and_new_ones_appear(make_slide, tmp_path):
    make_slide("slides/a.tiff")
    slide_cache = SlideCache(tmp_path / "slides")
    assert [entry.slide_id for entry in slide_cache.entries()] == ["a"]
    make_slide("slides/b.tiff")
    assert [entry.slide_id for entry in slide_cache.entries()] == ["a", "b"]
    assert slide_cache.entry(hashed_name("b")).path.name == "b.tiff"


def test_a_slide_key_reveals_neither_name_nor_path():
    assert hashed_name("../../etc/passwd").isalnum()
    assert len(hashed_name("Müller, Hans 系膜")) == 16


def test_an_unknown_key_or_tile_is_an_error(make_slide):
    slide_cache = SlideCache(make_slide())
    for key in ("../slide", "slide", hashed_name("other"), ""):
        with pytest.raises(UnknownRecordError):
            slide_cache.tile(key, 0, 0, 0)
    with pytest.raises(UnknownRecordError, match="no such tile"):
        slide_cache.tile(hashed_name("slide"), 99, 0, 0)


def test_a_cache_without_source_has_no_entries():
    assert SlideCache().entries() == []


def test_tiles_read_at_once_by_many_are_those_read_alone(make_slide):
    slide_cache = SlideCache(make_slide())
    key = hashed_name("slide")
    level = slide_cache.pyramid(key).max_level
    places = [(column, row) for column in range(5) for row in range(4)]
    alone = [slide_cache.tile(key, level, *place) for place in places]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda place: slide_cache.tile(key, level, *place), places)) == alone


def test_only_the_last_slides_stay_open(make_slide, tmp_path, monkeypatch):
    monkeypatch.setattr(slide_cache_module, "MAX_OPEN", 2)
    for name in "abc":
        make_slide(f"slides/{name}.tiff")
    slide_cache = SlideCache(tmp_path / "slides")
    for name in "abca":
        slide_cache.tile(hashed_name(name), 3, 0, 0)
    assert list(slide_cache._open) == [hashed_name("c"), hashed_name("a")]


@pytest.mark.real
def test_an_unreadable_slide_is_reported_at_every_request(real_data):
    slide_cache = SlideCache(real_data / "slides" / "openslide_unreadable.svs")
    key = hashed_name("openslide_unreadable")
    for _ in range(2):
        with pytest.raises(SlideError):
            slide_cache.tile(key, slide_cache.pyramid(key).max_level, 0, 0)
    assert key not in slide_cache._open


@pytest.mark.real
def test_the_thumbnail_is_of_the_tissue_and_not_the_label(real_data):
    slide_cache = SlideCache(real_data / "slides" / "CMU-1-Small-Region.svs")
    image = Image.open(io.BytesIO(slide_cache.thumbnail(hashed_name("CMU-1-Small-Region"))))
    assert image.height == 480
    assert abs(image.width / image.height - 2220 / 2967) < 0.01
