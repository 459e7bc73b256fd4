import math

import numpy as np
import pytest

from glomerulab.inference.score_map import CELL_PX, ScoreMap, blob_outline, find_blobs, score_map
from glomerulab.slides.regions.polygons import centroid, contains, mean_radius
from glomerulab.slides.slide import open_slide
from tests.support.detecting import ByColour, disc_slide


@pytest.mark.parametrize(("mpp", "scale"), [(1.0, 1), (0.7, 1)])
def test_the_map_is_high_in_glomeruli_and_low_elsewhere(tmp_path, mpp, scale) -> None:
    discs = [(400, 300, 90), (1100, 600, 120)]
    disc_slide(tmp_path / "s.tif", discs, mpp=mpp)
    with open_slide(tmp_path / "s.tif") as slide:
        found = score_map(slide, ByColour())
    rows, columns = np.indices(found.values.shape) + 0.5
    xs, ys = columns * found.cell_px[0], rows * found.cell_px[1]
    for x, y, radius in discs:
        distance = np.hypot(xs - x, ys - y)
        assert found.values[distance < radius - 1.5 * CELL_PX * 4 / mpp].min() > 0.9
    far = np.min([np.hypot(xs - x, ys - y) - r for x, y, r in discs], axis=0)
    assert found.values[far > 5 * CELL_PX * 4 / mpp].max() < 0.1
    assert found.cell_um == CELL_PX * 4.0
    assert found.cell_px == pytest.approx((CELL_PX * 4 / mpp,) * 2)


def test_glass_is_skipped_and_most_tissue_evaluated_coarsely(tmp_path) -> None:
    engine = ByColour()
    disc_slide(tmp_path / "s.tif", [(400, 300, 90)])
    with open_slide(tmp_path / "s.tif") as slide:
        found = score_map(slide, engine)
    assert engine.n_images == found.n_evaluated
    assert found.n_evaluated < 0.3 * found.values.size
    assert found.values[0].max() == 0.0


def test_a_slide_of_glass_gives_zeros_without_running_the_network(tmp_path) -> None:
    engine = ByColour()
    disc_slide(tmp_path / "s.tif", [], size=(120, 121))
    with open_slide(tmp_path / "s.tif") as slide:
        assert score_map(slide, engine).values.max() == 0.0
    assert engine.n_images == 0


def test_the_block_size_does_not_change_the_map(tmp_path, monkeypatch) -> None:
    disc_slide(tmp_path / "s.tif", [(400, 300, 90), (800, 500, 60)])
    with open_slide(tmp_path / "s.tif") as slide:
        single = score_map(slide, ByColour()).values
        monkeypatch.setattr("glomerulab.inference.score_map.BLOCK_CELLS", 11)
        parts = score_map(slide, ByColour()).values
    np.testing.assert_allclose(single, parts, atol=0.05)


CELL_UM = 16.0
LEVEL0_CELL_PX = 32.0  # level-0 pixels of half a micrometre


def painted(*discs: tuple[float, float, float, float], shape=(80, 120)) -> ScoreMap:
    """Discs of (x, y, radius) in µm at a probability."""
    rows, columns = (np.indices(shape) + 0.5) * CELL_UM
    values = np.zeros(shape, dtype=np.float32)
    for x, y, radius, chance in discs:
        inside = np.hypot(columns - x, rows - y) < radius
        values[inside] = np.maximum(values[inside], chance)
    return ScoreMap(values, (LEVEL0_CELL_PX, LEVEL0_CELL_PX), CELL_UM, int(values.size))


def test_a_disc_is_found_with_its_centre_and_radius() -> None:
    (blob,) = find_blobs(painted((600, 500, 90, 1.0)))
    assert (blob.x, blob.y) == pytest.approx((1200, 1000), abs=LEVEL0_CELL_PX / 2)
    assert blob.radius == pytest.approx(180, rel=0.15)
    assert blob.elongation < 1.15
    assert blob.score > 0.9


def test_touching_discs_are_split() -> None:
    blobs = find_blobs(painted((500, 500, 75, 1.0), (660, 500, 75, 1.0)))
    assert len(blobs) == 2
    assert sorted(blob.x for blob in blobs) == pytest.approx([1000, 1320], abs=2 * LEVEL0_CELL_PX)


def test_a_small_spot_is_not_a_blob() -> None:
    assert find_blobs(painted((600, 500, 14, 1.0))) == []


def test_an_empty_map_has_no_blobs() -> None:
    assert find_blobs(painted()) == []


def test_blobs_are_sorted_by_score() -> None:
    blobs = find_blobs(painted((300, 300, 90, 0.6), (900, 700, 90, 0.95)))
    assert [round(blob.score, 1) for blob in blobs] == pytest.approx([0.9, 0.6], abs=0.1)
    assert blobs[0].x > blobs[1].x


def test_a_blob_at_the_edge_of_the_slide_is_found() -> None:
    (blob,) = find_blobs(painted((0, 0, 120, 1.0)))
    assert contains(blob_outline(blob), [(2 * LEVEL0_CELL_PX, 2 * LEVEL0_CELL_PX)])[0]


def test_an_outline_grows_about_its_centre() -> None:
    (blob,) = find_blobs(painted((600, 500, 90, 1.0)))
    outline, grown = blob_outline(blob), blob_outline(blob, growth=1.25)
    assert centroid(outline) == pytest.approx((blob.x, blob.y), abs=1)
    assert mean_radius(grown) / mean_radius(outline) == pytest.approx(1.25)


def test_an_ellipse_has_its_elongation_and_angle() -> None:
    rows, columns = (np.indices((80, 120)) + 0.5) * CELL_UM
    along = (columns - 900 + rows - 600) / math.sqrt(2)
    across = (columns - 900 - rows + 600) / math.sqrt(2)
    values = ((along / 150) ** 2 + (across / 75) ** 2 < 1).astype(np.float32)
    (blob,) = find_blobs(ScoreMap(values, (LEVEL0_CELL_PX, LEVEL0_CELL_PX), CELL_UM, 1))
    assert blob.elongation == pytest.approx(2, rel=0.25)
    assert math.tan(blob.angle) == pytest.approx(1, rel=0.1)
