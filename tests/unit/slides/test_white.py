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
