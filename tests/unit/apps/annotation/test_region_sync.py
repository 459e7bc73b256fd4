import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from glomerulab.apps.annotation.records import NewImage, SaveConflictError
from glomerulab.apps.annotation.region_crops import crop_regions
from glomerulab.apps.annotation.region_sync import export_region_file, import_region_file
from glomerulab.apps.annotation.store.annotations import list_items
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import Store, open_store
from glomerulab.apps.annotation.store.regions import RegionInput, list_regions, save_region
from glomerulab.apps.annotation.store.study import add_images
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import MissingMppError, NotAllowedError, RegionError
from glomerulab.geometry import Box, Region
from glomerulab.images import read_image
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.slides.regions.files import InvalidRegion, read_regions, write_regions
from glomerulab.slides.slide import open_slide
from tests.support.annotation_studies import OWNER, make_study, next_item

BOX = Box(300, 200, 200, 160)


def _draw(store: Store, region_id: str, box: Box = BOX, version: int = 0, **more: object) -> None:
    region = RegionInput(region_id, "S-1", box, version, str(uuid4()), **more)
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
    assert (done.n_added, done.n_existing, done.failures) == (1, 0, {})
    assert not any("coarser" in one.text for one in done.scale_warnings)
    distribute(store, by=OWNER)
    image = next_item(store, "bo").image
    assert (image.patient_id, image.stain, image.mpp, image.region_id) == ("p9", "PAS", 0.5, "r1")
    assert image.box == BOX.grown(0.1)
    with open_slide(entry.path) as slide:
        expected = slide.read_region(BOX.grown(0.1), mpp=0.5)
    np.testing.assert_array_equal(read_image(image.image_path), expected)


def test_cutting_again_cuts_only_new_regions_and_reports_changed_ones(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    _draw(store, "r1")
    _draw(store, "r2", Box(600, 200, 200, 160))
    crop_regions(store, [entry], out=tmp_path, by=OWNER)
    _draw(store, "r3", Box(310, 500, 200, 160))
    was = Box(300, 500, 200, 160)
    before = NewImage("r3", str(tmp_path / "r3.png"), region_id="r3", box=was.grown(0.1))
    add_images(store, [before], by=OWNER)  # of the box as it was when the cut began
    _draw(store, "r4", Box(600, 500, 200, 160))
    done = crop_regions(store, [entry], out=tmp_path, by=OWNER)
    assert (done.n_added, done.n_existing, done.changed) == (1, 3, ("r3",))
    distribute(store, by=OWNER)
    assert len(list_items(store, "anna")) == 4


def test_a_glomerulus_that_two_readers_drew_is_cut_once(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    _draw(store, "r1")
    crop_regions(store, [entry], out=tmp_path, by=OWNER)
    for name, x in (("r2", 310), ("r3", 700), ("r4", 705)):
        save_region(
            store, RegionInput(name, "S-1", Box(x, 200, 200, 160), 0, str(uuid4())), login="bo"
        )
    for n_added in (1, 0):
        done = crop_regions(store, [entry], out=tmp_path, by=OWNER)
        assert (done.n_added, done.failures) == (n_added, {})
        assert done.repeated == {"r2": "r1", "r4": "r3"}


def test_a_scale_of_the_table_that_contradicts_the_slide_is_told_when_regions_are_cut(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    _draw(store, "r1")
    done = crop_regions(store, [replace(entry, mpp=2.0)], out=tmp_path, by=OWNER)
    assert any("0.5 µm per pixel, but 2 was given" in str(one) for one in done.scale_warnings)
    _draw(store, "r2", Box(600, 200, 200, 160))
    assert not crop_regions(store, [entry], out=tmp_path, by=OWNER).scale_warnings


def test_a_region_around_several_others_is_not_cut_and_named(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    _draw(store, "both", Box(290, 150, 500, 400))
    _draw(store, "r1", Box(330, 200, 200, 160))
    _draw(store, "r2", Box(540, 350, 200, 160))
    done = crop_regions(store, [entry], out=tmp_path, by=OWNER)
    assert (done.n_added, set(done.failures)) == (2, {"both"})
    assert "'r1'" in done.failures["both"]
    assert crop_regions(store, [entry], out=tmp_path, by=OWNER).n_added == 0


def test_a_region_imported_again_under_another_name_is_told(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    path, notes = tmp_path / "r.csv", []
    write_regions([Region.from_box("a", BOX), Region.from_box("twice", BOX)], path)
    assert import_region_file(store, path, entry.path, login="anna", notes=notes) == (1, 0)
    other = tmp_path / "other.csv"
    write_regions([Region.from_box("b", BOX), Region.from_box("c", Box(600, 200, 90, 90))], other)
    assert import_region_file(store, other, entry.path, login="anna", notes=notes) == (1, 0)
    assert import_region_file(store, other, entry.path, login="anna") == (0, 1)
    told = [note.en for note in notes if "counted once" in note.en]
    assert ["twice = a" in told[0], "b = S-1:a" in told[1]] == [True, True]


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
    elsewhere = RegionInput("elsewhere", "S-2", BOX, 0, str(uuid4()))
    save_region(store, elsewhere, login="bo")
    done = crop_regions(store, [entry], out=tmp_path, by=OWNER)
    assert done.n_added == 1
    assert done.failures.keys() == {"outside", "elsewhere"}
    assert "outside" in done.failures["outside"]
    assert "not among the slides" in done.failures["elsewhere"]


def test_a_cut_finer_than_the_slide_is_told(
    store: Store, tmp_path: Path, entry: SlideEntry
) -> None:
    make_study(store, n_images=0)
    _draw(store, "r1")
    done = crop_regions(store, [entry], out=tmp_path / "crops", by=OWNER, mpp=0.25)
    assert done.n_added == 1
    (told,) = [one for one in done.scale_warnings if "coarser" in one.text]
    assert dict(told.values) == {"slide": "S-1", "mpp": "0.25"}


def test_only_an_owner_cuts(store: Store, tmp_path: Path, entry: SlideEntry) -> None:
    make_study(store, n_images=0)
    with pytest.raises(NotAllowedError):
        crop_regions(store, [entry], out=tmp_path, by="anna")


TRIANGLE = Region("tuft", ((100.0, 100.0), (300.0, 100.0), (200.0, 250.0)), ("Glomerulus",))
SQUARE = Region.from_box("1", Box(400, 300, 200, 200))


def test_qupaths_regions_come_in_and_go_out_the_same(
    store: Store, tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    make_study(store)
    slide = make_slide("S-1.tiff")
    write_regions([TRIANGLE, SQUARE], tmp_path / "in.geojson")
    assert import_region_file(store, tmp_path / "in.geojson", slide, login="anna") == (2, 0)
    drawn = list_regions(store, login="anna", slide_id="S-1")
    assert [one.name_on_slide for one in drawn] == ["tuft", "1"]
    assert [one.box for one in drawn] == [TRIANGLE.box(), SQUARE.box()]
    assert export_region_file(store, tmp_path / "out.geojson", slide, login=OWNER) == 2
    assert read_regions(tmp_path / "out.geojson") == [TRIANGLE, SQUARE]
    kinds = json.loads((tmp_path / "out.geojson").read_text())["type"]
    assert kinds == "FeatureCollection"


def test_importing_again_draws_nothing_twice_and_a_changed_shape_is_a_conflict(
    store: Store, tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    make_study(store)
    slide = make_slide("S-1.tiff")
    path = tmp_path / "in.geojson"
    write_regions([TRIANGLE, SQUARE], path)
    import_region_file(store, path, slide, login="anna")
    assert import_region_file(store, path, slide, login="anna") == (0, 2)
    write_regions([Region.from_box("1", Box(0, 0, 9, 9))], path)
    with pytest.raises(SaveConflictError, match="S-1:1"):
        import_region_file(store, path, slide, login="anna")


def test_regions_of_one_name_on_two_slides_are_two(
    store: Store, tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    make_study(store)
    path = tmp_path / "in.geojson"
    write_regions([SQUARE], path)
    for name in ("S-1.tiff", "S-2.tiff"):
        import_region_file(store, path, make_slide(name), login="anna")
    assert {one.slide_id for one in list_regions(store, login="anna")} == {"S-1", "S-2"}


def test_a_file_without_a_region_of_the_slide_is_an_error(
    store: Store, tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    make_study(store)
    write_regions([replace(SQUARE, slide_id="S-2")], tmp_path / "in.csv")
    with pytest.raises(RegionError, match="no region"):
        import_region_file(store, tmp_path / "in.csv", make_slide("S-1.tiff"), login="anna")
    options = RegionOptions(classes=("cgn",))
    write_regions([TRIANGLE], tmp_path / "in.geojson")
    with pytest.raises(RegionError, match="'cgn'"):
        import_region_file(
            store, tmp_path / "in.geojson", make_slide("S-1.tiff"), login="anna", options=options
        )


def test_a_region_outside_the_slide_is_named_and_the_others_come_in(
    store: Store, tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    make_study(store)
    far = Region.from_box("far", Box(90_000, 90_000, 200, 200))
    write_regions([SQUARE, far], tmp_path / "in.geojson")
    invalid: list[InvalidRegion] = []
    slide = make_slide("S-1.tiff")
    done = import_region_file(store, tmp_path / "in.geojson", slide, login="anna", invalid=invalid)
    assert done == (1, 0)
    assert [one.region_id for one in invalid] == ["far"]


def test_regions_of_a_slide_without_a_scale_come_in(store: Store, tmp_path: Path) -> None:
    make_study(store)
    Image.new("RGB", (900, 700), (200, 120, 180)).save(tmp_path / "S-1.png")
    write_regions([SQUARE], tmp_path / "in.geojson")
    source, slide = tmp_path / "in.geojson", tmp_path / "S-1.png"
    assert import_region_file(store, source, slide, login="anna") == (1, 0)
    with pytest.raises(MissingMppError, match="--drawn-mpp"):
        import_region_file(store, source, slide, login="anna", options=RegionOptions(drawn_mpp=1.0))
