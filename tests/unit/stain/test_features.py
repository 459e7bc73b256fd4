import numpy as np
import pytest

from glomerulab.stain.features import (
    FEATURE_NAMES,
    downscaled,
    image_features,
    measure_pair,
)
from tests.support.beer_lambert import TARGET_HE, section


def test_every_feature_has_a_name_and_a_finite_value() -> None:
    for image in (section(1).image, np.full((50, 60, 3), 240, np.uint8)):
        features = image_features(image)
        assert features.shape == (len(FEATURE_NAMES),)
        assert np.isfinite(features).all()


def test_colour_features_follow_the_stain_and_texture_follows_the_tissue() -> None:
    one, other = section(1), section(1, dyes=TARGET_HE)
    moved = image_features(one.image) - image_features(other.image)
    change = dict(zip(FEATURE_NAMES, moved, strict=True))
    assert abs(change["b_mean"]) > 1.0
    assert abs(change["tissue_share"]) < 0.02


def test_an_unchanged_image_is_similar_to_itself() -> None:
    image = section(2).image
    same = measure_pair(image, image)
    assert same.ssim == pytest.approx(1.0)
    assert same.pcc == pytest.approx(1.0)
    assert same.background_delta_e == 0.0
    assert same.nmi_before == same.nmi_after


def test_saturation_and_moved_glass_are_seen() -> None:
    truth = section(3, noise=0.5)
    brighter = np.clip(truth.image.astype(int) + 14, 0, 255).astype(np.uint8)
    found = measure_pair(truth.image, brighter)
    assert found.saturated_before < 0.01
    assert found.saturated_after > 0.1
    assert found.background_delta_e > 2.0
    assert found.background_before == pytest.approx(0.2, abs=0.05)


def test_images_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        measure_pair(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))


def test_an_image_without_tissue_has_no_intensity_and_one_without_glass_no_difference() -> None:
    blank = np.full((40, 40, 3), 240, np.uint8)
    assert np.isnan(measure_pair(blank, blank).nmi_before)
    black = np.zeros((40, 40, 3), np.uint8)
    assert np.isnan(measure_pair(black, black).background_delta_e)
    assert np.isnan(measure_pair(black, black).pcc)


def test_large_images_are_shrunk_and_small_ones_kept() -> None:
    assert downscaled(np.zeros((1000, 2000, 3), np.uint8)).shape == (256, 512, 3)
    small = np.zeros((100, 200, 3), np.uint8)
    assert downscaled(small) is small
