import json
import uuid
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from glomerulab.apps.annotation.crops import crop_regions
from glomerulab.apps.annotation.store.accounts import find_account
from glomerulab.apps.annotation.store.annotations import find_item, item_at, list_items
from glomerulab.apps.annotation.store.regions import RegionToSave, list_regions, save_region
from glomerulab.apps.annotation.web.region_sync import (
    export_regions,
    import_regions,
    queue_boxes,
)
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.errors import AnnotationError, RegionError, SlideError
from glomerulab.geometry import Box
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.regions.files import read_regions
from glomerulab.slides.slide import open_slide

REGION = "0" * 31 + "1"
BOX = Box(300, 200, 200, 160)


@pytest.fixture
def site(web, make_slide):
    return replace(web.site, shelf=SlideCache(make_slide(mpp=0.5)))


@pytest.fixture
def entry(site):
    return site.shelf.entry(hashed_name("slide"))


def _draw(site, login="anna", *, box=BOX, version=0, region_id=REGION, deleted=False):
    region = RegionToSave(region_id, "slide", box, version, str(uuid.uuid4()), deleted=deleted)
    return save_region(site.store, region, login=login)


def test_a_box_becomes_a_region_a_crop_and_an_item_of_every_reader(site, entry):
    _draw(site)
    owner = find_account(site.store, "owner")
    assert queue_boxes(site, owner, entry) == 1
    for login in ("anna", "bo"):
        last = list_items(site.store, login)[-1]
        image = find_item(site.store, login, last.assignment_id).image
        assert (image.slide_id, image.mpp, image.region_id) == ("slide", 0.5, REGION)
        assert image.box == BOX.grown(0.1)
        with open_slide(entry.path) as slide:
            expected = slide.read_region(image.box, mpp=0.5)
        np.testing.assert_array_equal(np.asarray(Image.open(image.image_path)), expected)
    assert queue_boxes(site, owner, entry) == 0


def test_a_box_that_was_handed_out_stays_as_it_was(site, entry):
    version = _draw(site).region.version
    queue_boxes(site, find_account(site.store, "owner"), entry)
    for change in ({"box": Box(1, 1, 9, 9)}, {"deleted": True}):
        with pytest.raises(AnnotationError, match="handed out"):
            _draw(site, version=version, **change)


def test_a_box_may_be_moved_and_deleted_before_that(site, entry):
    version = _draw(site).region.version
    moved = _draw(site, version=version, box=Box(5, 6, 70, 80)).region
    assert list_regions(site.store, login="anna", slide_id="slide")[0].box == Box(5, 6, 70, 80)
    _draw(site, version=moved.version, deleted=True)
    assert list_regions(site.store, login="anna", slide_id="slide") == []
    assert queue_boxes(site, find_account(site.store, "owner"), entry) == 0


def test_a_slide_without_mpp_is_not_cut(web, tmp_path):
    Image.new("RGB", (900, 700), (200, 150, 180)).save(tmp_path / "slide.png")
    site = replace(web.site, shelf=SlideCache(tmp_path / "slide.png"))
    entry = site.shelf.entry(hashed_name("slide"))
    _draw(site)
    with pytest.raises(SlideError, match=r"could not be cut.*micromet") as caught:
        queue_boxes(site, find_account(site.store, "owner"), entry)
    assert str(tmp_path) not in str(caught.value)  # a browser learns no path


def test_a_box_cut_from_the_command_line_counts_as_handed_out(site, entry, tmp_path):
    version = _draw(site).region.version
    crop_regions(site.store, [entry], out=tmp_path / "elsewhere", by="owner")
    with pytest.raises(AnnotationError, match="handed out"):
        _draw(site, version=version, box=Box(1, 1, 9, 9))
    assert queue_boxes(site, find_account(site.store, "owner"), entry) == 0


def test_one_box_off_the_slide_does_not_hold_the_others_back(site, entry):
    _draw(site)
    _draw(site, region_id="0" * 31 + "2", box=Box(90_000, 90_000, 10, 10))
    with pytest.raises(SlideError, match=r"1 box.*wholly outside.*1 other"):
        queue_boxes(site, find_account(site.store, "owner"), entry)
    image = item_at(site.store, "anna", len(list_items(site.store, "anna"))).image
    assert image.region_id == REGION


def test_regions_go_out_and_come_in_as_qupath_has_them(site, entry, tmp_path):
    anna, bo = (find_account(site.store, login) for login in ("anna", "bo"))
    _draw(site)
    file = tmp_path / "out.geojson"
    export_regions(site, anna, entry, file=file, bounds_offset=(10.0, 20.0))
    ring = json.loads(file.read_text())["features"][0]["geometry"]["coordinates"][0]
    assert ring[0] == [290.0, 180.0]
    assert [r.box() for r in read_regions(file, bounds_offset=(10.0, 20.0))] == [BOX]
    for _ in range(2):  # the same file again changes nothing
        assert import_regions(site, bo, entry, file=file, bounds_offset=(10.0, 20.0)) == 1
    assert [r.box for r in list_regions(site.store, login="bo", slide_id="slide")] == [BOX]
    assert len(list_regions(site.store, login="owner", slide_id="slide")) == 2


def test_of_a_broken_region_file_nothing_is_taken(site, entry, tmp_path):
    file = tmp_path / "bad.geojson"
    good = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    features = [{"type": "Feature", "geometry": good}, {"type": "Feature", "geometry": None}]
    file.write_text(json.dumps(features))
    with pytest.raises(RegionError):
        import_regions(
            site, find_account(site.store, "bo"), entry, file=file, bounds_offset=(0.0, 0.0)
        )
    assert list_regions(site.store, login="owner", slide_id="slide") == []
