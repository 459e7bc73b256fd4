import numpy as np

from glomerulab.stain.optical_density import (
    find_tissue,
    optical_density,
    tissue_density,
    tissue_mask,
)
from tests.support.beer_lambert import section


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
    assert np.allclose(tissue_density(truth.image, truth.white), expected, rtol=1e-6)


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


def test_of_a_large_image_the_density_is_that_of_an_even_sample() -> None:
    truth = section(3, size=800)
    tissue = find_tissue(truth.image, truth.white)
    assert tissue.pixels is not None
    whole = tissue_density(truth.image, truth.white)
    assert tissue.count() == whole.shape[1] > 2 * tissue.density.shape[1]
    assert np.array_equal(
        tissue.density, tissue_density(truth.image.reshape(1, -1, 3)[:, ::3], truth.white)
    )
    assert np.array_equal(tissue.whole_density(), whole)
    small = find_tissue(truth.image[:400], truth.white)
    assert small.whole_density() is small.density
    assert small.pixels is None
    assert small.count() == small.density.shape[1]
