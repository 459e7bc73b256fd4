from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from glomerulab.apps.annotation.crops import crop_regions
from glomerulab.apps.annotation.store.annotations import list_items, next_item
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.images import NewImage, add_images
from glomerulab.apps.annotation.store.regions import RegionToSave, save_region
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import NotAllowedError
from glomerulab.geometry import Box
from glomerulab.images import read_image
from glomerulab.slides.slide import open_slide
from tests.support.annotation_studies import OWNER, make_study

BOX = Box(300, 200, 200, 160)


def _draw(store: Store, region_id: str, box: Box = BOX, version: int = 0, **more: object) -> None:
    region = RegionToSave(region_id, "S-1", box, version, str(uuid4()), **more)
    save_region(store, region, login="anna")


@pytest.fixture
def entry(make_slide: Callable[..., Path]) -> SlideEntry:
    return SlideEntry(make_slide("S-1.tiff"), "S-1", "p9", "PAS")


def test_a_drawn_region_becomes_an_image_of_its_pixels_and_a_queue_item(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    _draw(store, "r1")
    done = crop_regions(store, [entry], out=tmp_path / "crops", by=OWNER)
    assert (done.n_added, done.n_there, done.failures) == (1, 0, {})
    distribute(store, by=OWNER)
    image = next_item(store, "bo").image
    assert (image.patient_id, image.stain, image.mpp, image.region_id) == ("p9", "PAS", 0.5, "r1")
    assert image.box == BOX.grown(0.1)
    with open_slide(entry.path) as slide:
        expected = slide.read_region(BOX.grown(0.1), mpp=0.5)
    np.testing.assert_array_equal(read_image(image.image_path), expected)


def test_cutting_again_cuts_only_what_is_new_and_tells_what_changed_meanwhile(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    for name in ("r1", "r2"):
        _draw(store, name)
    crop_regions(store, [entry], out=tmp_path, by=OWNER)
    _draw(store, "r3", Box(310, 200, 200, 160))
    before = NewImage("r3", str(tmp_path / "r3.png"), region_id="r3", box=BOX.grown(0.1))
    add_images(store, [before], by=OWNER)  # of the box as it was when the cut began
    _draw(store, "r4")
    done = crop_regions(store, [entry], out=tmp_path, by=OWNER)
    assert (done.n_added, done.n_there, done.changed) == (1, 3, ("r3",))
    distribute(store, by=OWNER)
    assert len(list_items(store, "anna")) == 4


def test_a_region_moved_after_a_cut_that_failed_is_cut_where_it_is_now(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    _draw(store, "r1")
    crop_regions(store, [entry], out=tmp_path, by=OWNER)
    left = item_files(tmp_path)
    other = open_store(tmp_path / "other.db", create=True)
    make_study(other, n_images=0)
    _draw(other, "r1")
    _draw(other, "r1", Box(10, 20, 200, 160), version=1)
    crop_regions(other, [entry], out=tmp_path, by=OWNER)
    (path,) = item_files(tmp_path) - left
    with open_slide(entry.path) as slide:
        expected = slide.read_region(Box(10, 20, 200, 160).grown(0.1), mpp=0.5)
    np.testing.assert_array_equal(read_image(path), expected)
    other.close()


def item_files(folder: Path) -> set[Path]:
    return set(folder.glob("*.png"))


def test_a_region_that_cannot_be_cut_does_not_stop_the_others(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    _draw(store, "outside", Box(90_000, 90_000, 10, 10))
    _draw(store, "inside")
    elsewhere = RegionToSave("elsewhere", "S-2", BOX, 0, str(uuid4()))
    save_region(store, elsewhere, login="bo")
    done = crop_regions(store, [entry], out=tmp_path, by=OWNER)
    assert done.n_added == 1
    assert done.failures.keys() == {"outside", "elsewhere"}
    assert "wholly outside" in done.failures["outside"]
    assert "not among the slides" in done.failures["elsewhere"]


def test_only_an_owner_cuts(store: Store, tmp_path: Path, entry: SlideEntry) -> None:
    make_study(store, n_images=0)
    with pytest.raises(NotAllowedError):
        crop_regions(store, [entry], out=tmp_path, by="anna")
