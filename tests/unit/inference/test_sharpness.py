import numpy as np
from scipy.ndimage import gaussian_filter

from glomerulab.inference.sharpness import sharpness


def test_blur_lowers_it_step_by_step(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (64, 64, 3)).astype(float)
    found = [
        sharpness(gaussian_filter(image, (s, s, 0)).astype(np.uint8)) for s in (0, 0.5, 1, 2, 4)
    ]
    assert found == sorted(found, reverse=True)


def test_paler_staining_does_not_count_as_blur(rng: np.random.Generator) -> None:
    image = gaussian_filter(rng.integers(0, 255, (64, 64, 3)).astype(float), (1, 1, 0))
    pale = 128 + (image - 128) * 0.5
    difference = sharpness(image.astype(np.uint8)) - sharpness(pale.astype(np.uint8))
    assert abs(difference) < 0.05


def test_an_empty_field_is_a_number(rng: np.random.Generator) -> None:
    assert np.isfinite(sharpness(np.full((8, 8, 3), 240, dtype=np.uint8)))
