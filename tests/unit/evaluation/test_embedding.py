import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from glomerulab.evaluation.embedding import MIN_IMAGES, embed


def test_groups_that_are_apart_stay_apart_and_a_seed_gives_the_same_places():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 20)
    features = rng.normal(size=(60, 80)) + 8.0 * np.eye(3)[groups] @ rng.normal(size=(3, 80))
    places = embed(features, seed=1)
    assert places.shape == (60, 2)
    assert KNeighborsClassifier(5).fit(places, groups).score(places, groups) == 1.0
    np.testing.assert_array_equal(places, embed(features, seed=1))


def test_few_images_or_features_are_placed_too():
    assert embed(np.random.default_rng(0).normal(size=(MIN_IMAGES, 1))).shape == (MIN_IMAGES, 2)


def test_too_few_images_and_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=f"at least {MIN_IMAGES} images are needed, got 3"):
        embed(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="must be finite"):
        embed(np.full((20, 4), np.nan))
