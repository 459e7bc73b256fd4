import json
from collections.abc import Callable
from pathlib import Path

import pytest

from glomerulab.apps.annotation.records import SaveConflictError
from glomerulab.apps.annotation.region_files import export_regions, import_regions, name_on_slide
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.regions import list_regions
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.files import read_regions, write_regions
from tests.support.annotation_studies import OWNER, make_study

TRIANGLE = Region("tuft", ((100.0, 100.0), (300.0, 100.0), (200.0, 250.0)), ("Glomerulus",))
SQUARE = Region.from_box("1", Box(400, 300, 200, 200))


def test_qupaths_regions_come_in_and_go_out_the_same(
    store: Store, tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    make_study(store)
    slide = make_slide("S-1.tiff")
    write_regions([TRIANGLE, SQUARE], tmp_path / "in.geojson")
    assert import_regions(store, tmp_path / "in.geojson", slide, login="anna") == (2, 0)
    drawn = list_regions(store, login="anna", slide_id="S-1")
    assert [name_on_slide(one) for one in drawn] == ["tuft", "1"]
    assert [one.box for one in drawn] == [TRIANGLE.box(), SQUARE.box()]
    assert export_regions(store, tmp_path / "out.geojson", slide, login=OWNER) == 2
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
    import_regions(store, path, slide, login="anna")
    assert import_regions(store, path, slide, login="anna") == (0, 2)
    write_regions([Region.from_box("1", Box(0, 0, 9, 9))], path)
    with pytest.raises(SaveConflictError, match="S-1:1"):
        import_regions(store, path, slide, login="anna")


def test_regions_of_one_name_on_two_slides_are_two(
    store: Store, tmp_path: Path, make_slide: Callable[..., Path]
) -> None:
    make_study(store)
    path = tmp_path / "in.geojson"
    write_regions([SQUARE], path)
    for name in ("S-1.tiff", "S-2.tiff"):
        import_regions(store, path, make_slide(name), login="anna")
    assert {one.slide_id for one in list_regions(store, login="anna")} == {"S-1", "S-2"}
