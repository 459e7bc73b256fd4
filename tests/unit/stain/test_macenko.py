import numpy as np
import pytest

from glomerulab.errors import StainError
from glomerulab.stain.optical_density import tissue_density
from glomerulab.stain.separation import even_sample, macenko_stains
from tests.support.beer_lambert import section, worst_angle


def test_dyes_are_found_within_a_few_degrees() -> None:
    truth = section(1)
    found = macenko_stains(tissue_density(truth.image, truth.white))
    assert worst_angle(found, truth.stain_matrix) < 4.0
    assert found[0, 0] > found[0, 1]
    assert np.linalg.norm(found, axis=0) == pytest.approx([1.0, 1.0])


def test_one_colour_is_an_error() -> None:
    with pytest.raises(StainError, match="one colour"):
        macenko_stains(np.full((3, 500), 0.4, dtype=np.float32))


def test_too_few_pixels_are_an_error() -> None:
    with pytest.raises(StainError, match="too few"):
        macenko_stains(np.ones((3, 2), dtype=np.float32))


def test_an_even_sample_is_evenly_spaced_and_small_enough() -> None:
    density = np.arange(3000, dtype=np.float32).reshape(3, 1000)
    sample = even_sample(density, 300)
    assert sample[0].tolist() == list(range(0, 1000, 5))  # odd: JPEG repeats every eight pixels
    assert np.array_equal(even_sample(density, 5000), density)
