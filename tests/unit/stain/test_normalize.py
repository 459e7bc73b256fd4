import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from glomerulab.errors import StainError
from glomerulab.stain.fitting import StainStatus, fit
from glomerulab.stain.normalize import (
    StainNormalizer,
    normalize,
    recompose,
    separate,
    transform,
)
from glomerulab.stain.reference import PAPER, StainParameters
from tests.support.beer_lambert import PAS, TARGET_HE, section

TARGET = section(100, dyes=TARGET_HE, white=(245.0, 245.0, 245.0))


def test_colours_are_those_of_the_same_tissue_stained_like_the_target() -> None:
    truth = section(1)
    result = normalize(truth.image, fit(TARGET.image, "HE"))
    tissue = truth.amounts.sum(axis=-1) > 0.15
    theirs = TARGET.amounts[TARGET.amounts.sum(axis=-1) > 0.15]
    gains = np.percentile(theirs, 99, axis=0) / np.percentile(truth.amounts[tissue], 99, axis=0)
    ideal = truth.recomposed(TARGET_HE, gains=gains, white=(245.0, 245.0, 245.0))
    error = np.abs(result.image - ideal)[tissue].mean()
    nothing = np.abs(truth.image - ideal)[tissue].mean()
    assert result.status is StainStatus.NORMALIZED
    assert error < 2.0 < nothing


def test_an_image_normalised_to_its_own_reference_stays_nearly_the_same() -> None:
    truth = section(2)
    own = fit(truth.image, "HE")
    moved = np.abs(transform(truth.image, own, own).astype(float) - truth.image)
    assert moved.mean() < 1.5


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_the_alternatives_bring_colours_nearer_to_the_target(method: str) -> None:
    parameters = StainParameters(method=method)
    truth = section(3)
    target = fit(TARGET.image, "HE", parameters=parameters)
    out = normalize(truth.image, target, strict=True).image
    tissue = truth.amounts.sum(axis=-1) > 0.15
    wanted = TARGET.image[TARGET.amounts.sum(axis=-1) > 0.15].mean(axis=0)
    before = np.abs(truth.image[tissue].mean(axis=0) - wanted).sum()
    assert np.abs(out[tissue].mean(axis=0) - wanted).sum() < 0.6 * before


def test_references_of_different_stains_or_parameters_do_not_mix() -> None:
    truth = section(4)
    he = fit(truth.image, "HE")
    with pytest.raises(ValueError, match="differ in parameters"):
        transform(truth.image, fit(truth.image, "HE", parameters=PAPER), he)
    with pytest.raises(ValueError, match="differ in stain"):
        transform(truth.image, he, fit(section(4, dyes=PAS).image, "PAS"))


def test_stains_of_the_slide_are_used_as_they_are() -> None:
    truth, target = section(5), fit(TARGET.image, "HE")
    slide = fit(section(6).image, "HE")
    result = normalize(truth.image, target, source=slide)
    assert result.source is slide
    assert np.array_equal(result.image, transform(truth.image, slide, target))


def test_one_stain_takes_the_stains_of_its_slide() -> None:
    eosin_only, target = section(7, strength=(0.0, 1.0)), fit(TARGET.image, "HE")
    slide = fit(section(7).image, "HE")
    result = normalize(eosin_only.image, target, fallback=slide)
    assert result.status is StainStatus.SLIDE_STAINS
    assert result.is_changed
    assert result.reason


def test_amounts_recompose_to_the_image() -> None:
    truth = section(8, noise=0.0)
    own = fit(truth.image, "HE")
    amounts = separate(truth.image, own)
    assert amounts.shape == (*truth.image.shape[:2], 2)
    back = recompose(amounts, own.stain_matrix, white=np.array(own.white))
    assert np.abs(back.astype(float) - truth.image).mean() < 1.0


def test_a_normalizer_can_be_sent_to_another_process() -> None:
    truth = section(9)
    normalizer = StainNormalizer(fit(TARGET.image, "HE"))
    there = pickle.loads(pickle.dumps(normalizer))
    assert np.array_equal(there(truth.image), normalizer(truth.image))


def test_strict_raises_where_an_image_would_be_left() -> None:
    with pytest.raises(StainError, match="constant"):
        normalize(np.full((40, 40, 3), 130, np.uint8), fit(TARGET.image, "HE"), strict=True)


def test_a_next_to_constant_dark_image_is_left_as_it_is() -> None:
    image = np.full((7, 15, 3), 7, np.uint8)
    image[2, 3, 2], image[5, 11, 0] = 15, 8
    result = normalize(image, fit(TARGET.image, "HE"))
    assert not result.is_changed
    assert np.array_equal(result.image, image)


IMAGES = npst.arrays(
    np.uint8,
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)),
    elements=st.integers(0, 255),
)


@settings(max_examples=80)
@given(image=IMAGES, paper=st.booleans())
def test_any_image_comes_back_as_an_image(image: np.ndarray, paper: bool) -> None:
    target = fit(TARGET.image, "HE", **({"parameters": PAPER} if paper else {}))
    kept = image.copy()
    result = normalize(image, target)
    assert result.image.dtype == np.uint8
    assert result.image.shape == image.shape
    assert np.array_equal(image, kept)
    assert not np.shares_memory(result.image, image)
    if not result.is_changed:
        assert np.array_equal(result.image, image)
        assert result.reason


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    strength=st.floats(0.35, 1.4),
    level=st.floats(110.0, 250.0),
    glass=st.floats(0.1, 0.8),
)
def test_background_stays_background(
    seed: int, strength: float, level: float, glass: float
) -> None:
    truth = section(
        seed, size=128, strength=(strength, strength), white=(level,) * 3, glass=glass, noise=1.0
    )
    target = fit(TARGET.image, "HE")
    result = normalize(truth.image, target, strict=True)
    bare = truth.amounts.sum(axis=-1) == 0.0
    # Noise of one grey level before a dim lamp is more before the target's.
    assert np.abs(result.image[bare].mean(axis=0) - target.white).max() < 8.0


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), strength=st.floats(0.4, 1.3))
def test_a_transform_to_its_own_reference_is_nearly_the_identity(
    seed: int, strength: float
) -> None:
    truth = section(seed, size=128, strength=(strength, strength), noise=0.5)
    result = normalize(truth.image, fit(truth.image, "HE"), strict=True)
    assert np.abs(result.image.astype(float) - truth.image).mean() < 1.5
