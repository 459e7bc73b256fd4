import numpy as np
import pytest

from glomerulab.inference.score_map import CELL_PX, score_map
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


def test_glass_is_not_looked_at_and_most_tissue_only_coarsely(tmp_path) -> None:
    engine = ByColour()
    disc_slide(tmp_path / "s.tif", [(400, 300, 90)])
    with open_slide(tmp_path / "s.tif") as slide:
        found = score_map(slide, engine)
    assert engine.n_images == found.n_looked_at
    assert found.n_looked_at < 0.3 * found.values.size
    assert found.values[0].max() == 0.0


def test_a_slide_of_glass_gives_zeros_without_asking(tmp_path) -> None:
    engine = ByColour()
    disc_slide(tmp_path / "s.tif", [], size=(120, 121))
    with open_slide(tmp_path / "s.tif") as slide:
        assert score_map(slide, engine).values.max() == 0.0
    assert engine.n_images == 0


def test_blocks_fit_together(tmp_path, monkeypatch) -> None:
    disc_slide(tmp_path / "s.tif", [(400, 300, 90), (800, 500, 60)])
    with open_slide(tmp_path / "s.tif") as slide:
        whole = score_map(slide, ByColour()).values
        monkeypatch.setattr("glomerulab.inference.score_map.BLOCK_CELLS", 11)
        parts = score_map(slide, ByColour()).values
    np.testing.assert_allclose(whole, parts, atol=0.05)
