import numpy as np
import pytest

from glomerulab.phantom.glomerulus import (
    CGN_BIT,
    FSG_BIT,
    KINDS,
    LOOP,
    MESANGIAL,
    MSPGN_BIT,
    SCARRED,
    Lesions,
    draw_glomerulus,
    draw_lesions,
    kind_schedule,
    paint_glomerulus,
)
from glomerulab.phantom.primitives import Canvas, Ink, noise_bank
from glomerulab.phantom.stains import Material, material_table


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_draws_exactly_its_labels(kind, rng):
    assert draw_lesions(kind, rng).labels == KINDS[kind]


def test_severity_ranges_from_subtle_to_severe(rng):
    severities = [draw_lesions("fsg", rng).fsg for _ in range(300)]
    assert min(severities) < 0.15
    assert max(severities) > 0.95


def test_twenty_glomeruli_hold_every_kind_in_fixed_numbers(rng):
    kinds = kind_schedule(20, rng)
    counts = {kind: kinds.count(kind) for kind in KINDS}
    assert counts == {"normal": 6, "mspgn": 4, "fsg": 4, "cgn": 4, "fsg+cgn": 2}


def test_a_schedule_has_the_requested_length(rng):
    assert [len(kind_schedule(n, rng)) for n in (0, 7, 41)] == [0, 7, 41]


def test_an_unknown_kind_is_refused_with_the_known_ones(rng):
    with pytest.raises(ValueError, match=r"normal, mspgn, .* got 'global'"):
        draw_lesions("global", rng)


@pytest.mark.parametrize("severity", [-0.1, 1.1, float("nan")])
def test_an_impossible_severity_is_refused(severity):
    with pytest.raises(ValueError, match="severity of fsg"):
        Lesions(fsg=severity)


def test_severity_does_not_predict_the_kind():
    # Each kind consumes the same random numbers, so that lesions do not shift what follows.
    states = []
    for kind in KINDS:
        rng = np.random.default_rng(4)
        draw_lesions(kind, rng)
        states.append(rng.random())
    assert len(set(states)) == 1


SEEDS = range(12)


def _drawn(lesions: Lesions, seed: int):
    return draw_glomerulus(lesions, np.random.default_rng(seed))


@pytest.mark.parametrize("severity", [0.01, 0.5, 1.0])
def test_a_crescent_covers_a_tenth_of_the_circumference_or_more(severity):
    shares = [_drawn(Lesions(cgn=severity), seed).crescent_share for seed in SEEDS]
    assert min(shares) >= 0.10


def test_a_glomerulus_without_crescent_has_none():
    assert _drawn(Lesions(mspgn=1.0, fsg=1.0), 0).crescent_share == 0.0


def test_a_severe_crescent_is_larger_than_a_subtle_one():
    subtle = [_drawn(Lesions(cgn=0.1), seed).crescent_share for seed in SEEDS]
    severe = [_drawn(Lesions(cgn=1.0), seed).crescent_share for seed in SEEDS]
    assert np.mean(severe) > 1.5 * np.mean(subtle)


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


def test_a_scar_is_a_segment_of_the_tuft():
    for seed in SEEDS:
        kinds = _drawn(Lesions(fsg=1.0), seed).tuft.sites[:, 6]
        assert 0.02 < (kinds == SCARRED).mean() < 0.5


@pytest.mark.parametrize(
    "lesions", [Lesions(), Lesions(mspgn=1.0), Lesions(fsg=1.0, cgn=1.0)], ids=str
)
def test_every_nucleus_is_within_the_capsule(lesions):
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


def _painted(lesions: Lesions, seed: int = 0) -> Canvas:
    glomerulus = draw_glomerulus(lesions, np.random.default_rng(seed))
    canvas = Canvas(
        np.zeros((2, 440, 440), np.float32),
        np.zeros((440, 440), np.uint8),
        np.zeros((440, 440), np.uint8),
        -110.0,
        -110.0,
        0.5,
    )
    paint_glomerulus(canvas, glomerulus.shape(), Ink(material_table("PAS"), noise_bank()))
    return canvas


def test_a_normal_glomerulus_has_capsule_space_loops_and_mesangium():
    structure = _painted(Lesions()).structure
    inside = structure > 0
    for material in (
        Material.CAPSULE,
        Material.SPACE,
        Material.LOOP_WALL,
        Material.LOOP_LUMEN,
        Material.MESANGIUM,
        Material.TUFT_CELL,
    ):
        assert (structure == material).sum() > 0.01 * inside.sum(), material
    assert not np.isin(structure, [Material.SCLEROSIS, Material.CRESCENT]).any()


@pytest.mark.parametrize(
    ("lesions", "bit"),
    [(Lesions(mspgn=0.5), MSPGN_BIT), (Lesions(fsg=0.5), FSG_BIT), (Lesions(cgn=0.5), CGN_BIT)],
    ids=["mspgn", "fsg", "cgn"],
)
def test_a_lesion_map_holds_exactly_the_drawn_lesions(lesions, bit):
    assert set(np.unique(_painted(lesions).lesion_bits)) == {0, bit}


def test_without_lesions_the_lesion_map_is_empty():
    assert not _painted(Lesions()).lesion_bits.any()


def test_the_mesangium_grows_with_its_lesion():
    area = [
        (_painted(Lesions(mspgn=severity)).structure == Material.MESANGIUM).sum()
        for severity in (0.0, 0.1, 1.0)
    ]
    assert area[0] < area[1] < area[2]
    assert area[2] > 2 * area[0]


def test_a_scar_takes_up_more_pas_than_the_rest_of_the_tuft_and_has_lost_its_loops():
    canvas = _painted(Lesions(fsg=0.8))
    scar = canvas.lesion_bits == FSG_BIT
    tuft = ~scar & np.isin(canvas.structure, range(Material.TUFT_CELL, Material.SCLEROSIS))
    assert canvas.amounts[1][scar].mean() > 2 * canvas.amounts[1][tuft].mean()
    lumen = canvas.structure == Material.LOOP_LUMEN
    assert lumen[scar].mean() < 0.3 * lumen[tuft].mean()


def test_a_scar_adheres_to_the_capsule():
    canvas = _painted(Lesions(fsg=0.8))
    rows, columns = np.nonzero(canvas.lesion_bits == FSG_BIT)
    radius = np.hypot(rows - 220, columns - 220).max()
    capsule_rows, capsule_columns = np.nonzero(canvas.structure == Material.CAPSULE)
    near = np.hypot(capsule_rows[:, None] - rows[::20], capsule_columns[:, None] - columns[::20])
    assert near.min() <= 6.0
    assert radius > 120


def test_a_crescent_is_between_capsule_and_tuft():
    canvas = _painted(Lesions(cgn=0.7))
    rows, columns = np.nonzero(canvas.lesion_bits == CGN_BIT)
    assert np.hypot(rows - 220, columns - 220).min() > 0.45 * 170
