import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.phantom.primitives import (
    MAX_GATHERED,
    N_SITE_COLUMNS,
    Canvas,
    Ink,
    blank_canvas,
    cover,
    far_apart,
    gather,
    lay,
    noise_at,
    noise_bank,
    nuclei_table,
    paint_nuclei,
    pixel_span,
    put,
    site_distance,
    site_grid,
    spread_out,
    two_nearest,
)
from glomerulab.phantom.stains import Material, material_table


def test_the_noise_is_standardised_and_cannot_be_changed():
    bank = noise_bank()
    assert bank.mean() == pytest.approx(0.0, abs=1e-5)
    assert bank.std() == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        bank[0, 0] = 1.0


def test_the_noise_repeats_without_a_seam():
    bank = noise_bank()
    for x, y in [(0.3, 0.7), (255.9, 3.2), (-0.4, -7.7)]:
        assert noise_at(bank, x, y) == pytest.approx(noise_at(bank, x + 256, y - 512), abs=1e-4)
    assert noise_at(bank, 255.9999, 4.0) == pytest.approx(noise_at(bank, 0.0001, 4.0), abs=1e-2)


def test_at_a_cell_the_noise_is_the_cell():
    bank = noise_bank()
    assert noise_at(bank, 17.0, 41.0) == pytest.approx(float(bank[41, 17]))


def test_neighbouring_noise_is_alike():
    bank = noise_bank()
    assert np.corrcoef(bank[:, :-1].ravel(), bank[:, 1:].ravel())[0, 1] > 0.4


def test_coverage_falls_from_one_to_zero_over_its_width():
    assert [cover(d, 1.0) for d in (-2.0, -0.25, 0.0, 0.25, 2.0)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_layers_are_mixed_by_share_and_the_largest_gives_the_label():
    ink = Ink(material_table("HE"), noise_bank())
    now = lay((0.0, 0.0, 0), ink, int(Material.BLOOD), 1.0, 0.25)
    assert now[1] == pytest.approx(0.25 * ink.uptake[Material.BLOOD, 1])
    assert now[2] == Material.GLASS
    assert lay(now, ink, int(Material.BLOOD), 1.0, 0.75)[2] == Material.BLOOD


def test_a_partly_covered_pixel_keeps_a_share_of_its_content():
    canvas = blank_canvas((1, 1), left_um=0.0, upper_um=0.0, mpp=1.0)
    canvas.amounts[:] = 1.0
    put(canvas, 0, 0, (0.0, 3.0, 7), 0.75)
    assert canvas.amounts[:, 0, 0].tolist() == [0.25, 2.5]
    assert canvas.structure[0, 0] == 7


def test_a_span_holds_the_object_and_stays_in_view():
    assert pixel_span(10.0, 2.0, 0.0, 0.5, 100) == (15, 26)
    assert pixel_span(0.0, 5.0, 0.0, 0.5, 4) == (0, 4)
    first, last = pixel_span(-100.0, 5.0, 0.0, 0.5, 4)
    assert first >= last


def _sites(rng, n: int) -> np.ndarray:
    table = np.zeros((n, N_SITE_COLUMNS), np.float32)
    turn = rng.uniform(0, np.pi, n)
    table[:, 0], table[:, 1] = rng.uniform(0, 200, n), rng.uniform(0, 120, n)
    table[:, 2] = rng.uniform(3, 7, n)
    table[:, 3], table[:, 4] = np.cos(turn), np.sin(turn)
    table[:, 5] = rng.uniform(1, 2, n)
    return table


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.floats(5, 195), st.floats(5, 115))
def test_the_wall_is_where_an_exhaustive_search_finds_it(seed, x, y):
    grid = site_grid(_sites(np.random.default_rng(seed), 120), bucket_um=12.0)
    found = np.empty(MAX_GATHERED, np.int32)
    # Gathered for a block whose middle is elsewhere.
    n = gather(grid, x + 2.0, y - 2.0, 3.0, found)
    nearest, first, second = two_nearest(grid.sites, found, n, x, y)
    distances = np.array([site_distance(site, x, y) for site in grid.sites])
    one, other = np.sort(distances)[:2]
    # Where two sites are so far that no wall is near, their distance does not matter.
    wall, true_wall = max(first, 0.5 * (first - second)), max(one, 0.5 * (one - other))
    assert min(wall, 3.0) == pytest.approx(min(true_wall, 3.0), abs=1e-4)
    assert distances[nearest] == pytest.approx(first, abs=1e-4)


def test_a_point_on_the_ellipse_is_at_distance_zero():
    site = np.array([10, 20, 5, 1, 0, 2, 0, 0, 0], np.float32)
    assert site_distance(site, 20.0, 20.0) == pytest.approx(0.0)
    assert site_distance(site, 10.0, 25.0) == pytest.approx(0.0)
    assert site_distance(site, 10.0, 20.0) == pytest.approx(-5.0)


def test_an_empty_grid_finds_nothing():
    grid = site_grid(np.zeros((0, N_SITE_COLUMNS), np.float32), bucket_um=10.0)
    found = np.empty(MAX_GATHERED, np.int32)
    n = gather(grid, 0.0, 0.0, 5.0, found)
    assert n == 0
    assert two_nearest(grid.sites, found, n, 0.0, 0.0)[0] == -1


def test_discs_that_are_kept_do_not_overlap_and_those_left_out_would(rng):
    xs, ys, radii = rng.uniform(0, 100, 300), rng.uniform(0, 100, 300), rng.uniform(1, 6, 300)
    kept = far_apart(xs, ys, radii, 12.0)
    gaps = np.hypot(xs[:, None] - xs, ys[:, None] - ys) - radii[:, None] - radii
    np.fill_diagonal(gaps, np.inf)
    assert gaps[np.ix_(kept, kept)].min() >= -1e-9
    assert (gaps[np.ix_(~kept, kept)].min(axis=1) < 0).all()


def test_no_discs_stay_no_discs():
    empty = np.zeros(0)
    assert far_apart(empty, empty, empty, 1.0).shape == (0,)


def _canvas(side: int = 64) -> Canvas:
    return blank_canvas((side, side), left_um=0.0, upper_um=0.0, mpp=0.5)


def test_a_nucleus_is_painted_with_the_position_and_size_of_its_table(rng):
    canvas = _canvas()
    table = nuclei_table(
        np.array([[20.0, 10.0]]), half_axes_um=(4.0, 3.0), angles=np.array([0.0]), rng=rng
    )
    paint_nuclei(canvas, table, Ink(material_table("HE"), noise_bank()))
    painted = canvas.structure == Material.NUCLEUS
    rows, columns = np.nonzero(painted)
    assert columns.mean() * 0.5 == pytest.approx(20.0, abs=0.8)
    assert rows.mean() * 0.5 == pytest.approx(10.0, abs=0.8)
    area = painted.sum() * 0.25
    assert area == pytest.approx(np.pi * table[0, 2] * table[0, 3], rel=0.25)
    assert canvas.amounts[0][painted].mean() > 0.5


def test_nuclei_outside_the_view_leave_it_blank(rng):
    canvas = _canvas()
    table = nuclei_table(
        np.array([[-20.0, 10.0], [200.0, 10.0]]),
        half_axes_um=(3.0, 2.0),
        angles=np.zeros(2),
        rng=rng,
    )
    paint_nuclei(canvas, table, Ink(material_table("PAS"), noise_bank()))
    assert not canvas.structure.any()


def test_overlapping_nuclei_are_left_out_but_never_the_first(rng):
    places = np.zeros((6, 2))
    places[3:] = [[20, 0], [40, 0], [40.5, 0]]
    table = nuclei_table(places, half_axes_um=(3.0, 3.0), angles=np.zeros(6), rng=rng)
    assert spread_out(table, n_first=2).tolist() == [True, True, False, True, True, False]
