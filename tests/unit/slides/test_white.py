import numpy as np
import pytest

from glomerulab.slides.white import estimate_white


def test_glass_is_told_from_tissue():
    pixels = np.full((100, 100, 3), (180, 90, 150), dtype=np.uint8)
    pixels[:20] = (245, 243, 241)
    assert estimate_white(pixels) == (245, 243, 241)


def test_without_glass_white_is_pure():
    assert estimate_white(np.full((50, 50, 3), 100, dtype=np.uint8)) == (255, 255, 255)


def test_a_few_specks_are_no_glass():
    pixels = np.full((100, 100, 3), 100, dtype=np.uint8)
    pixels[0, :20] = 230
    assert estimate_white(pixels) == (255, 255, 255)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        estimate_white(np.zeros((5, 5), dtype=np.uint8))


def test_the_grey_glass_of_a_dim_lamp_is_white_and_tissue_does_not_shift_it():
    pixels = np.full((100, 100, 3), (201, 203, 198), dtype=np.uint8)
    pixels[30:] = (230, 150, 200)  # pale eosin: as bright as the glass, but coloured
    assert estimate_white(pixels) == (201, 203, 198)


def test_glass_too_dark_to_be_told_from_tissue_is_not_guessed():
    assert estimate_white(np.full((50, 50, 3), 180, dtype=np.uint8)) == (255, 255, 255)
