import numpy as np
import pytest

from glomerulab.phantom.anatomy import LOOP, MESANGIAL, SCARRED, draw_glomerulus
from glomerulab.phantom.lesions import Lesions

SEEDS = range(12)


def _drawn(lesions: Lesions, seed: int):
    return draw_glomerulus(lesions, np.random.default_rng(seed))


@pytest.mark.parametrize("severity", [0.01, 0.5, 1.0])
def test_a_crescent_covers_a_tenth_of_the_circumference_or_more(severity):
    shares = [_drawn(Lesions(cgn=severity), seed).crescent_share for seed in SEEDS]
    assert min(shares) >= 0.10


def test_a_glomerulus_without_crescent_has_none():
    assert _drawn(Lesions(mspgn=1.0, fsg=1.0), 0).crescent_share == 0.0


def test_a_plain_crescent_is_larger_than_a_subtle_one():
    subtle = [_drawn(Lesions(cgn=0.1), seed).crescent_share for seed in SEEDS]
    plain = [_drawn(Lesions(cgn=1.0), seed).crescent_share for seed in SEEDS]
    assert np.mean(plain) > 1.5 * np.mean(subtle)


def test_healthy_mesangial_areas_have_fewer_than_four_cells():
    counts = [count for seed in SEEDS for count in _drawn(Lesions(), seed).mesangial_cells]
    assert max(counts) < 4


@pytest.mark.parametrize("severity", [0.01, 1.0])
def test_most_diseased_mesangial_areas_have_four_cells_or_more(severity):
    for seed in SEEDS:
        counts = np.array(_drawn(Lesions(mspgn=severity), seed).mesangial_cells)
        assert (counts >= 4).mean() >= 0.5


def test_only_sclerosis_scars_loops():
    healthy = _drawn(Lesions(mspgn=1.0, cgn=1.0), 3).tuft.sites[:, 6]
    scarred = _drawn(Lesions(fsg=0.3), 3).tuft.sites[:, 6]
    assert set(healthy) == {LOOP, MESANGIAL}
    assert SCARRED in set(scarred)


def test_a_scar_is_a_segment_and_not_the_whole_tuft():
    for seed in SEEDS:
        kinds = _drawn(Lesions(fsg=1.0), seed).tuft.sites[:, 6]
        assert 0.02 < (kinds == SCARRED).mean() < 0.5


@pytest.mark.parametrize(
    "lesions", [Lesions(), Lesions(mspgn=1.0), Lesions(fsg=1.0, cgn=1.0)], ids=str
)
def test_every_nucleus_lies_within_the_capsule(lesions):
    glomerulus = _drawn(lesions, 5)
    away = np.hypot(glomerulus.nuclei[:, 0], glomerulus.nuclei[:, 1])
    assert away.max() <= glomerulus.capsule_um.max()


def test_nuclei_are_as_large_as_nuclei():
    long_axes = 2 * _drawn(Lesions(cgn=0.6), 1).nuclei[:, 2]
    assert 4.5 <= np.median(long_axes) <= 8.0


def test_the_outline_is_where_the_glomerulus_was_placed():
    glomerulus = draw_glomerulus(
        Lesions(), np.random.default_rng(0), place_um=(300.0, -50.0), radius_um=80.0
    )
    assert np.mean(glomerulus.outline(), axis=0) == pytest.approx([300.0, -50.0], abs=8.0)
