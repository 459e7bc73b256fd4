"""Tiles of probabilities are blended where they overlap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.inference.blending import Blender, TileSettings
from glomerulab.structures.maps import LAYERS

SIDE, N_STRUCTURES = 32, 3
LIMITS = np.array([*LAYERS.values(), 0.5])


@settings(max_examples=25)
@given(
    overlap=st.integers(4, SIDE // 2),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**32 - 1),
    n_missing=st.integers(0, 3),
)
def test_each_pixel_has_the_weighted_mean_of_the_tiles_that_cover_it(
    overlap: int, size: tuple[int, int], seed: int, n_missing: int
) -> None:
    rng = np.random.default_rng(seed)
    tiles = TileSettings(SIDE, overlap)
    n_columns, n_rows = size
    places = [(row, column) for row in range(n_rows) for column in range(n_columns)]
    chances = rng.random((len(places), N_STRUCTURES + 1, SIDE, SIDE), np.float32)
    missing = set(rng.choice(len(places), min(n_missing, len(places)), replace=False).tolist())
    height, width = (tiles.step_px * (n - 1) + SIDE for n in (n_rows, n_columns))
    found = np.zeros((4, height, width), np.uint16)
    covered = np.zeros((height, width), np.bool_)
    sums = np.zeros((N_STRUCTURES + 2, height, width))
    ramp = np.clip((np.arange(SIDE) + 0.5 - overlap // 4) / (overlap - 2 * (overlap // 4)), 0, 1)
    along = np.minimum(ramp, ramp[::-1])
    blender = Blender(tiles, n_columns, n_rows, n_structures=N_STRUCTURES, core_bits=[np.uint16(2)])
    for number, (row, column) in enumerate(places):
        given_chances = None if number in missing else chances[number]
        bits, there = blender.add(row, column, given_chances)
        y, x = row * tiles.step_px, column * tiles.step_px
        found[:, y : y + bits.shape[1], x : x + bits.shape[2]] = bits
        covered[y : y + bits.shape[1], x : x + bits.shape[2]] = there
        if number not in missing:
            weight = np.outer(along, along)
            sums[:-1, y : y + SIDE, x : x + SIDE] += chances[number] * weight
            sums[-1, y : y + SIDE, x : x + SIDE] += weight
    assert (covered == (sums[-1] > 0)).all()
    mean = sums[:-1] / np.where(covered, sums[-1], 1.0)
    for layer, limit in enumerate(LIMITS):
        channels = range(N_STRUCTURES) if layer < 3 else [N_STRUCTURES]
        for channel in channels:
            bit = 1 << channel if layer < 3 else 2
            is_clear = covered & (np.abs(mean[channel] - limit) > 1e-5)
            expected = mean[channel] >= limit
            assert ((found[layer] & bit > 0) == expected)[is_clear].all()


def test_rows_of_tiles_without_tissue_between_leave_nothing_behind() -> None:
    tiles = TileSettings(SIDE, 8)
    blender = Blender(tiles, 1, 5, n_structures=1, core_bits=[])
    ones = np.ones((1, SIDE, SIDE), np.float32)
    blender.add(0, 0, ones)
    bits, covered = blender.add(3, 0, ones * 0.4)
    assert covered[3:, 3:-3].all()
    assert bits[0][covered].all()
    assert not bits[1][covered].any()


def test_an_overlap_of_more_than_half_a_tile_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="overlap_px"):
        TileSettings(32, 17)
