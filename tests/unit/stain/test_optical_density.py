import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.stain.optical_density import (
    checked_image,
    checked_white,
    estimate_white,
    find_tissue,
    optical_density,
    optical_density_table,
    tissue_mask,
    transmitted_light,
)
from tests.support.beer_lambert import section


def test_density_is_the_natural_logarithm_of_white_over_light() -> None:
    image = np.array([[[255, 128, 1]]], dtype=np.uint8)
    expected = [0.0, np.log(255 / 128), np.log(255.0)]
    assert optical_density(image)[0, 0] == pytest.approx(expected)


def test_black_counts_as_one_grey_level_and_brighter_than_white_as_white() -> None:
    image = np.array([[[0, 250, 200]]], dtype=np.uint8)
    assert optical_density(image, 200.0)[0, 0] == pytest.approx([np.log(200.0), 0.0, 0.0])


@given(st.integers(1, 255), st.tuples(*[st.floats(1.0, 255.0)] * 3))
def test_light_and_density_undo_each_other(level: int, white: tuple[float, float, float]) -> None:
    image = np.full((2, 2, 3), level, dtype=np.uint8)
    there_and_back = transmitted_light(optical_density(image, np.array(white)), np.array(white))
    assert np.array_equal(there_and_back, np.minimum(image, np.rint(white)).astype(np.uint8))


def test_light_is_rounded_not_truncated() -> None:
    density = np.log(255.0 / np.array([100.4, 100.6, 254.7]))
    assert transmitted_light(density).tolist() == [100, 101, 255]


@pytest.mark.parametrize("white", [0.0, -1.0, 256.0, np.nan, np.array([255.0, 255.0])])
def test_an_impossible_white_is_refused(white: float) -> None:
    with pytest.raises(ValueError, match="white must be"):
        checked_white(white)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_an_array_that_is_not_an_rgb_image_is_rejected(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        checked_image(image)


def test_the_table_has_a_row_per_channel() -> None:
    table = optical_density_table(np.array([200.0, 220.0, 240.0]))
    assert table.shape == (3, 256)
    assert table[1, 110] == pytest.approx(np.log(2.0))


@pytest.mark.parametrize(
    "white", [(241.0, 238.0, 242.0), (105.0, 108.0, 103.0), (170.0, 165.0, 160.0), (255.0,) * 3]
)
@pytest.mark.parametrize("glass", [0.02, 0.2, 0.9])
def test_white_is_found_per_channel_however_little_glass_there_is(
    white: tuple[float, float, float], glass: float
) -> None:
    found = estimate_white(section(3, white=white, glass=glass).image)
    assert np.abs(found - white).max() <= 1.0


def test_white_is_found_beside_weakly_stained_tissue() -> None:
    truth = section(4, strength=(0.35, 0.35))
    assert np.abs(estimate_white(truth.image) - truth.white).max() <= 1.0


def test_without_glass_light_is_taken_to_be_neutral() -> None:
    found = estimate_white(section(5, glass=0.0, nuclei=0.3).image)
    assert np.ptp(found) <= 25.0
    assert found.min() >= 210.0


def test_pink_is_never_glass() -> None:
    pink = np.full((64, 64, 3), (240, 170, 215), dtype=np.uint8)
    pink[:8] = (120, 60, 140)
    assert estimate_white(pink).tolist() == [240.0, 240.0, 240.0]


def test_glass_and_black_are_not_tissue() -> None:
    image = np.array([[[240, 240, 240], [0, 0, 0], [6, 6, 6], [180, 90, 160]]], dtype=np.uint8)
    assert tissue_mask(image, 240.0).tolist() == [[False, False, False, True]]


def test_dark_blue_nuclei_are_tissue() -> None:
    image = np.full((1, 1, 3), (20, 12, 40), dtype=np.uint8)
    assert tissue_mask(image, 240.0).all()


def test_the_same_tissue_is_found_before_any_background() -> None:
    bright = section(1, noise=0.0)
    grey = section(1, noise=0.0, white=(120.0, 120.0, 120.0))
    same = tissue_mask(bright.image, bright.white) == tissue_mask(grey.image, grey.white)
    assert same.mean() > 0.99


def test_densities_are_those_of_the_mask_in_order() -> None:
    truth = section(2)
    mask = tissue_mask(truth.image, truth.white)
    expected = optical_density(truth.image, truth.white)[mask].T
    assert np.allclose(find_tissue(truth.image, truth.white).full_density(), expected, rtol=1e-6)


def test_lightness_moves_the_limit() -> None:
    image = np.full((1, 1, 3), 210, dtype=np.uint8)
    assert not tissue_mask(image, 240.0, glass_lightness=0.8).any()
    assert tissue_mask(image, 240.0, glass_lightness=0.95).all()


def test_an_image_with_gaps_in_memory_gives_the_same() -> None:
    truth = section(3)
    assert np.array_equal(
        tissue_mask(truth.image[::2, ::2], truth.white),
        tissue_mask(truth.image[::2, ::2].copy(), truth.white),
    )


def test_the_density_of_a_large_image_is_that_of_an_even_sample() -> None:
    truth = section(3, size=800)
    tissue = find_tissue(truth.image, truth.white)
    assert tissue.pixels is not None
    mask = tissue_mask(truth.image, truth.white)
    expected = optical_density(truth.image, truth.white)[mask].T
    assert tissue.count() == expected.shape[1] > 2 * tissue.density.shape[1]
    assert np.array_equal(
        tissue.density,
        find_tissue(truth.image.reshape(1, -1, 3)[:, ::3], truth.white).full_density(),
    )
    assert np.allclose(tissue.full_density(), expected, rtol=1e-6)
    small = find_tissue(truth.image[:400], truth.white)
    assert small.full_density() is small.density
    assert small.pixels is None
    assert small.count() == small.density.shape[1]
