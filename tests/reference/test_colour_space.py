import numpy as np
from skimage.color import lab2rgb, rgb2lab

from glomerulab.stain.reinhard import lab_to_rgb, rgb_to_lab


def test_cielab_is_that_of_scikit_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.abs(rgb_to_lab(image) - rgb2lab(image)).max() < 0.02


def test_the_way_back_is_that_of_scikit_image() -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    lab = rgb2lab(image)
    theirs = np.rint(255.0 * lab2rgb(lab)).astype(np.uint8)
    assert np.abs(lab_to_rgb(lab).astype(int) - theirs).max() <= 1
