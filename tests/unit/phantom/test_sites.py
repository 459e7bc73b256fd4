import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.phantom.sites import (
    MAX_GATHERED,
    N_SITE_COLUMNS,
    far_apart,
    gather,
    site_distance,
    site_grid,
    two_nearest,
)


def _sites(rng, n: int) -> np.ndarray:
    table = np.zeros((n, N_SITE_COLUMNS), np.float32)
    turn = rng.uniform(0, np.pi, n)
    table[:, 0], table[:, 1] = rng.uniform(0, 200, n), rng.uniform(0, 120, n)
    table[:, 2] = rng.uniform(3, 7, n)
    table[:, 3], table[:, 4] = np.cos(turn), np.sin(turn)
    table[:, 5] = rng.uniform(1, 2, n)
    return table


@settings(max_examples=30, deadline=None)
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
