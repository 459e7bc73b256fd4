import math

import numpy as np
import pytest

from glomerulab.inference.proposals import blob_outline, find_blobs
from glomerulab.inference.score_map import ScoreMap
from glomerulab.slides.regions.polygons import centroid, contains, mean_radius

CELL_UM = 16.0
CELL_PX = 32.0  # level-0 pixels of half a micrometre


def painted(*discs: tuple[float, float, float, float], shape=(80, 120)) -> ScoreMap:
    """Discs of (x, y, radius) in µm at a probability."""
    rows, columns = (np.indices(shape) + 0.5) * CELL_UM
    values = np.zeros(shape, dtype=np.float32)
    for x, y, radius, chance in discs:
        inside = np.hypot(columns - x, rows - y) < radius
        values[inside] = np.maximum(values[inside], chance)
    return ScoreMap(values, (CELL_PX, CELL_PX), CELL_UM, int(values.size))


def test_a_disc_is_found_where_it_is_and_as_large_as_it_is() -> None:
    (blob,) = find_blobs(painted((600, 500, 90, 1.0)))
    assert (blob.x, blob.y) == pytest.approx((1200, 1000), abs=CELL_PX / 2)
    assert blob.radius == pytest.approx(180, rel=0.15)
    assert blob.elongation < 1.15
    assert blob.score > 0.9


def test_two_that_touch_are_taken_apart() -> None:
    blobs = find_blobs(painted((500, 500, 75, 1.0), (660, 500, 75, 1.0)))
    assert len(blobs) == 2
    assert sorted(blob.x for blob in blobs) == pytest.approx([1000, 1320], abs=2 * CELL_PX)


def test_a_speck_is_no_glomerulus() -> None:
    assert find_blobs(painted((600, 500, 14, 1.0))) == []


def test_an_empty_map_has_none() -> None:
    assert find_blobs(painted()) == []


def test_the_surest_comes_first() -> None:
    blobs = find_blobs(painted((300, 300, 90, 0.6), (900, 700, 90, 0.95)))
    assert [round(blob.score, 1) for blob in blobs] == pytest.approx([0.9, 0.6], abs=0.1)
    assert blobs[0].x > blobs[1].x


def test_a_blob_at_the_edge_of_the_slide_is_found() -> None:
    (blob,) = find_blobs(painted((0, 0, 120, 1.0)))
    assert contains(blob_outline(blob), [(2 * CELL_PX, 2 * CELL_PX)])[0]


def test_an_outline_grows_about_its_centre() -> None:
    (blob,) = find_blobs(painted((600, 500, 90, 1.0)))
    plain, grown = blob_outline(blob), blob_outline(blob, growth=1.25)
    assert centroid(plain) == pytest.approx((blob.x, blob.y), abs=1)
    assert mean_radius(grown) / mean_radius(plain) == pytest.approx(1.25)


def test_a_long_one_lies_along_its_axis() -> None:
    rows, columns = (np.indices((80, 120)) + 0.5) * CELL_UM
    along = (columns - 900 + rows - 600) / math.sqrt(2)
    across = (columns - 900 - rows + 600) / math.sqrt(2)
    values = ((along / 150) ** 2 + (across / 75) ** 2 < 1).astype(np.float32)
    (blob,) = find_blobs(ScoreMap(values, (CELL_PX, CELL_PX), CELL_UM, 1))
    assert blob.elongation == pytest.approx(2, rel=0.25)
    assert math.tan(blob.angle) == pytest.approx(1, rel=0.1)
