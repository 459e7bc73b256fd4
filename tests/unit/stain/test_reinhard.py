import numpy as np
import pytest

from glomerulab.stain.reinhard import (
    lab_statistics,
    lab_to_rgb,
    rgb_to_lab,
    transfer_lab_statistics,
)
from tests.support.beer_lambert import section


def test_white_and_black_are_on_the_grey_axis() -> None:
    lab = rgb_to_lab(np.array([[255, 255, 255], [0, 0, 0]], dtype=np.uint8))
    assert lab == pytest.approx(np.array([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), abs=1e-6)


def test_every_grey_level_comes_back() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert np.array_equal(lab_to_rgb(rgb_to_lab(image)), image)


def test_tissue_takes_the_target_statistics_and_glass_stays() -> None:
    truth, target = section(1), section(2, dyes=((0.5, 0.75, 0.43), (0.3, 0.9, 0.3)))
    mask = truth.amounts.sum(axis=-1) > 0.15
    there = target.amounts.sum(axis=-1) > 0.15
    own, wanted = lab_statistics(truth.image, mask), lab_statistics(target.image, there)
    arrays = [tuple(map(np.array, statistics)) for statistics in (own, wanted)]
    out = transfer_lab_statistics(truth.image, mask, source=arrays[0], target=arrays[1])
    mean, std = lab_statistics(out, mask)
    assert mean == pytest.approx(wanted[0], abs=1.0)
    assert std == pytest.approx(wanted[1], rel=0.1)
    assert np.array_equal(out[~mask], truth.image[~mask])
