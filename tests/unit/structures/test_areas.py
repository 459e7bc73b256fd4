import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.structures.areas import area_summaries, quotient
from glomerulab.structures.summary import Range
from tests.support.structure_maps import make_map

SHAPE = (100, 100)


def columns(first, last):
    mask = np.zeros(SHAPE, bool)
    mask[:, first:last] = True
    return mask


def drawn_map():
    likely = {
        "cortex": columns(0, 50),
        "fibrosis": columns(40, 60),
        "atrophic_tubule": columns(45, 48),
    }
    certain = {"cortex": columns(0, 40), "fibrosis": columns(45, 60)}
    possible = {"cortex": columns(0, 80), "fibrosis": columns(30, 60)}
    return make_map(likely, certain=certain, possible=possible, mpp=10.0)


def test_areas_are_counted_at_each_layer_within_the_likely_cortex():
    found = area_summaries(drawn_map())
    assert found["cortex"].area_mm2 == pytest.approx((0.4, 0.5, 0.8))  # 100 px are 0.01 mm²
    fibrosis = found["fibrosis"]
    assert fibrosis.area_mm2 == pytest.approx((0.15, 0.2, 0.3))
    assert fibrosis.cortex_mm2 == pytest.approx((0.05, 0.1, 0.2))


def test_the_range_of_a_share_covers_every_cortex():
    share = area_summaries(drawn_map())["fibrosis"].share_of_cortex
    # Certain fibrosis lies outside the certain cortex; of the possible, all 30 in the 80.
    assert share == pytest.approx((0.0, 10 / 50, 20 / 50))


def test_what_atrophy_or_fibrosis_covers_is_counted_once():
    found = area_summaries(drawn_map())
    either = found["atrophic_tubule_or_fibrosis"]
    assert either.cortex_mm2.likely == pytest.approx(0.1)


def test_without_cortex_no_share_is_known():
    found = area_summaries(make_map({"fibrosis": columns(0, 10)}))
    assert found["fibrosis"].cortex_mm2 is None
    assert found["fibrosis"].share_of_cortex is None
    assert "atrophic_tubule_or_fibrosis" not in found


def test_of_a_cortex_that_is_only_possible_no_share_is_known():
    empty = np.zeros(SHAPE, bool)
    drawn = make_map(
        {"cortex": empty, "fibrosis": columns(0, 9)}, possible={"cortex": columns(0, 50)}
    )
    found = area_summaries(drawn)
    assert found["cortex"].area_mm2 == pytest.approx((0, 0, 50e-4))
    assert found["fibrosis"].share_of_cortex is None


@given(seed=st.integers(0, 10**6), strip_rows=st.integers(1, 30))
@settings(max_examples=20)
def test_areas_are_those_of_numpy_for_any_strips(seed, strip_rows):
    rng = np.random.default_rng(seed)
    level = {name: rng.integers(0, 4, (23, 31)) for name in ("cortex", "tubule")}
    possible, likely, certain = ({n: v >= at for n, v in level.items()} for at in (1, 2, 3))
    drawn = make_map(likely, certain=certain, possible=possible, mpp=1000.0)
    found = area_summaries(drawn, strip_rows=strip_rows)
    tubule = found["tubule"]
    inside = [np.sum(mask["tubule"] & likely["cortex"]) for mask in (certain, likely, possible)]
    assert tubule.cortex_mm2 == pytest.approx(inside)
    assert tubule.share_of_cortex.likely == pytest.approx(inside[1] / likely["cortex"].sum())
    assert list(tubule.share_of_cortex) == sorted(tubule.share_of_cortex)


def test_a_number_per_area_has_the_range_of_both():
    assert quotient(Range(8, 10, 12), Range(1, 2, 4)) == (2, 5, 12)
    assert quotient(Range(8, 10, 12), Range(0, 2, 4)) == (2, 5, 6)
    assert quotient(Range(0, 0, 0), Range(0, 0, 4)) is None
