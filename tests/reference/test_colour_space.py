import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab
from skimage.metrics import structural_similarity as skimage_ssim

from glomerulab.stain.features import structural_similarity
from glomerulab.stain.reinhard import lab_to_rgb, rgb_to_lab


def test_cielab_is_that_of_scikit_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.abs(rgb_to_lab(image) - rgb2lab(image)).max() < 0.02


def test_the_way_back_is_that_of_scikit_image() -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    lab = rgb2lab(image)
    theirs = np.rint(255.0 * lab2rgb(lab)).astype(np.uint8)
    assert np.abs(lab_to_rgb(lab).astype(int) - theirs).max() <= 1


def test_structural_similarity_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(2)
    one = rng.uniform(0, 255, (80, 90))
    other = np.clip(one + rng.normal(0, 20, one.shape), 0, 255)
    theirs = skimage_ssim(
        one, other, data_range=255.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert structural_similarity(one, other) == pytest.approx(theirs, abs=0.01)
