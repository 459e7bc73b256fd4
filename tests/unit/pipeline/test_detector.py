from dataclasses import replace

import numpy as np
import pytest

from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import OutputError, RegionError
from glomerulab.images import read_image
from glomerulab.pipeline.detector import TileSettings, check_parts, cut_tiles
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.slides.regions.files import write_regions
from tests.support.detecting import disc_slide

DISCS = [(400, 300, 90), (1100, 550, 110)]


@pytest.fixture
def entries(tmp_path) -> list[SlideEntry]:
    """A slide with two discs, and one without."""
    for name, discs in (("a", DISCS), ("b", [])):
        regions = disc_slide(tmp_path / f"{name}.tif", discs)
        write_regions(regions, tmp_path / "regions" / f"{name}.geojson") if discs else None
    (tmp_path / "regions" / "b.geojson").write_text('{"type":"FeatureCollection","features":[]}')
    further = (("synthetic", "1"),)
    return [SlideEntry(tmp_path / f"{n}.tif", n, f"p{n}", "HE", None, further) for n in "ab"]


@pytest.fixture(autouse=True)
def _folder(tmp_path) -> None:
    (tmp_path / "regions").mkdir()


def test_a_tile_has_the_label_of_the_structure_at_its_centre(entries, tmp_path) -> None:
    tiles = cut_tiles(entries, tmp_path / "regions", tmp_path / "out").manifest
    table = tiles.table
    x, y = table["x"] + table["width"] / 2, table["y"] + table["height"] / 2
    inside = np.zeros(len(table), dtype=bool)
    near = np.zeros(len(table), dtype=bool)
    on_a = (table["slide_id"] == "a").to_numpy()
    for cx, cy, radius in DISCS:
        distance = np.hypot(x - cx, y - cy).to_numpy(dtype=float)
        inside |= on_a & (distance < 0.55 * radius)
        near |= on_a & (distance < 1.1 * radius)
    assert (table["glomerulus"] == 1).to_numpy().tolist() == inside.tolist()
    assert not (near & ~inside).any()
    assert (table["glomerulus"] + table["other"] == 1).all()
    assert set(table["slide_id"]) == {"a", "b"}
    assert tiles.is_synthetic


def test_tiles_are_cut_at_their_mpp_around_their_centre(entries, tmp_path) -> None:
    tiles = cut_tiles(entries, tmp_path / "regions", tmp_path / "out").manifest
    for path, shows in zip(tiles.image_paths(), tiles.table["glomerulus"], strict=True):
        image = read_image(path)
        assert image.shape == (64, 64, 3)
        assert (image[32, 32].mean() < 150) == bool(shows)


def test_a_second_run_reuses_the_results_and_another_one_is_rejected(entries, tmp_path) -> None:
    first = cut_tiles(entries, tmp_path / "regions", tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in first.manifest.image_paths()}
    again = cut_tiles(entries, tmp_path / "regions", tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in again.manifest.image_paths()} == times
    with pytest.raises(OutputError, match="another --out"):
        cut_tiles(entries, tmp_path / "regions", tmp_path / "out", settings=TileSettings(seed=1))


def test_workers_do_not_change_what_is_cut(entries, tmp_path) -> None:
    one = cut_tiles(entries, tmp_path / "regions", tmp_path / "one").manifest
    two = cut_tiles(entries, tmp_path / "regions", tmp_path / "two", n_workers=2).manifest
    assert one.table.equals(two.table)


def test_a_slide_without_mpp_is_named_and_the_others_are_cut(entries, tmp_path) -> None:
    (tmp_path / "b.tif").write_bytes(b"broken")
    cut = cut_tiles(entries, tmp_path / "regions", tmp_path / "out")
    assert [failure.slide for failure in cut.failures] == ["b"]
    assert set(cut.manifest.table["slide_id"]) == {"a"}


def test_a_slide_whose_regions_are_all_left_out_is_named(entries, tmp_path) -> None:
    options = RegionOptions(skip_classes=("cgnn",))
    cut = cut_tiles(
        entries,
        tmp_path / "regions",
        tmp_path / "out",
        settings=TileSettings(region_options=options),
    )
    assert any("'cgnn'" in note for note in cut.notes)
    assert any(note.startswith("b: no region") for note in cut.notes)


def test_slides_without_any_glomerulus_are_refused(entries, tmp_path) -> None:
    with pytest.raises(RegionError, match="no glomerulus"):
        cut_tiles(entries[1:], tmp_path / "regions", tmp_path / "out")
    with pytest.raises(RegionError, match="no such region file"):
        cut_tiles(entries, tmp_path / "nowhere", tmp_path / "out")


def test_a_scale_that_contradicts_the_slide_is_told(entries, tmp_path) -> None:
    other = [replace(entry, mpp=0.5) for entry in entries]
    notes = cut_tiles(other, tmp_path / "regions", tmp_path / "out").notes
    assert sum("0.5 was given" in note for note in notes) == 2


def test_a_part_without_a_glomerulus_is_named_before_the_training(entries, tmp_path) -> None:
    tiles = cut_tiles(entries, tmp_path / "regions", tmp_path / "out").manifest
    part = tiles.table["slide_id"].map({"a": "train", "b": "validation"})
    divided = tiles.with_table(tiles.table.assign(split=part))
    with pytest.raises(RegionError, match=r"validation part \(b\)"):
        check_parts(divided, tmp_path / "regions")
