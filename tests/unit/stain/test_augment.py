import numpy as np
import pytest

from glomerulab.augment import StainJitter, jitter_stains
from glomerulab.stain.fitting import fit
from tests.support.beer_lambert import section


def test_the_same_generator_gives_the_same_image() -> None:
    image = section(1, size=96).image
    one, other = (jitter_stains(image, np.random.default_rng(5), stain="HE") for _ in range(2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, jitter_stains(image, np.random.default_rng(6), stain="HE"))


def test_tissue_changes_and_glass_hardly_does() -> None:
    truth = section(2, noise=0.0)
    rng = np.random.default_rng(1)
    changes = []
    for _ in range(5):
        out = jitter_stains(truth.image, rng, stain="HE").astype(float)
        bare = truth.amounts.sum(axis=-1) == 0.0
        assert np.abs(out[bare] - truth.image[bare]).max() <= 0.02 * 255.0 + 1.0
        changes.append(np.abs(out - truth.image)[truth.amounts.sum(axis=-1) > 0.3].mean())
    assert min(changes) > 1.0


def test_no_jitter_changes_next_to_nothing() -> None:
    truth = section(3)
    still = StainJitter(amount=0.0, angle_degrees=0.0, white=0.0)
    out = jitter_stains(truth.image, np.random.default_rng(0), stain="HE", jitter=still)
    assert np.abs(out.astype(float) - truth.image).mean() < 1.5


def test_known_stains_are_not_fitted_again() -> None:
    truth = section(4)
    known = fit(truth.image, "HE")
    given = jitter_stains(truth.image, np.random.default_rng(2), stain="HE", source=known)
    assert np.array_equal(given, jitter_stains(truth.image, np.random.default_rng(2), stain="HE"))


def test_a_blank_image_is_copied_and_the_generator_moves_on() -> None:
    blank = np.full((50, 50, 3), 240, dtype=np.uint8)
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    out = jitter_stains(blank, rng, stain="HE")
    assert np.array_equal(out, blank)
    assert not np.shares_memory(out, blank)
    jitter_stains(section(5, size=64).image, other, stain="HE")
    assert rng.random() == other.random()


@pytest.mark.parametrize("name", ["amount", "angle_degrees", "white"])
def test_a_jitter_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        StainJitter(**{name: -1.0})
