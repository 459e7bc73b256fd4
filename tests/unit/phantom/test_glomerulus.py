import numpy as np
import pytest

from glomerulab.phantom.glomerulus import (
    KINDS,
    Glomerulus,
    GlomerulusForm,
    Lesions,
    draw_form,
    draw_glomerulus,
    draw_lesions,
    draw_sclerosed,
    kind_schedule,
)
from glomerulab.phantom.glomerulus_paint import (
    CGN_BIT,
    FSG_BIT,
    LOOP,
    MESANGIAL,
    MSPGN_BIT,
    SCARRED,
    paint_glomerulus,
)
from glomerulab.phantom.primitives import (
    GLOMERULUS_BIT,
    SCLEROSED_BIT,
    TUFT_BIT,
    Canvas,
    Ink,
    blank_canvas,
    noise_bank,
)
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


NO_EDGE = np.zeros((0, 5), np.float32)


def _painted_one(glomerulus: Glomerulus, cores: np.ndarray = NO_EDGE) -> Canvas:
    canvas = blank_canvas((440, 440), left_um=-110.0, upper_um=-110.0, mpp=0.5)
    ink = Ink(material_table("PAS"), noise_bank())
    paint_glomerulus(canvas, glomerulus.shape(), ink, cores, 7)
    return canvas


def _painted(lesions: Lesions, seed: int = 0) -> Canvas:
    return _painted_one(draw_glomerulus(lesions, np.random.default_rng(seed)))


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


def _formed(seed: int = 0, **form) -> Glomerulus:
    return draw_glomerulus(Lesions(), np.random.default_rng(seed), form=GlomerulusForm(**form))


def _area_um2(canvas: Canvas, bit: int) -> float:
    return np.count_nonzero(canvas.masks & bit) * canvas.mpp**2


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_the_mask_has_the_area_of_the_outline(seed):
    glomerulus = _formed(seed, aspect=1.3, turn=0.7)
    x, y = np.array(glomerulus.outline(256)).T
    by_formula = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    assert _area_um2(_painted_one(glomerulus), GLOMERULUS_BIT) == pytest.approx(
        by_formula, rel=0.01
    )


def test_an_ellipse_keeps_the_area_of_its_circle():
    round_one = _formed(waviness=0.0)
    long_one = _formed(waviness=0.0, aspect=1.5, turn=1.0)
    areas = [_area_um2(_painted_one(one), GLOMERULUS_BIT) for one in (round_one, long_one)]
    assert areas[0] == pytest.approx(np.pi * 85.0**2, rel=0.01)
    assert areas[1] == pytest.approx(areas[0], rel=0.01)
    assert long_one.capsule_um.max() / long_one.capsule_um.min() == pytest.approx(1.5, rel=0.01)


def test_a_flattened_side_lies_nearer():
    flat = _formed(waviness=0.0, flat=0.6).capsule_um
    assert flat.min() == pytest.approx(0.6 * 85.0, rel=0.05)
    assert flat.max() == pytest.approx(85.0, rel=0.02)


def test_the_tuft_lies_within_the_glomerulus_and_shrinks_when_it_collapses():
    open_one, collapsed = (_painted_one(_formed(3, collapse=share)) for share in (0.0, 0.4))
    for canvas in (open_one, collapsed):
        tuft = canvas.masks & TUFT_BIT > 0
        assert (canvas.masks[tuft] & GLOMERULUS_BIT > 0).all()
        assert (canvas.objects > 0).sum() == (canvas.masks & GLOMERULUS_BIT > 0).sum()
    share = _area_um2(collapsed, TUFT_BIT) / _area_um2(open_one, TUFT_BIT)
    assert share == pytest.approx(0.36, abs=0.08)


def test_a_globally_sclerosed_glomerulus_has_no_open_loops_and_no_lesion_of_a_segment():
    for seed in range(6):
        canvas = _painted_one(draw_sclerosed(np.random.default_rng(seed), radius_um=60.0))
        inside = canvas.masks & GLOMERULUS_BIT > 0
        assert (canvas.masks[inside] & SCLEROSED_BIT > 0).all()
        assert not canvas.lesion_bits.any()
        assert (canvas.structure[inside] == Material.LOOP_LUMEN).mean() < 0.1


def test_a_fibrous_crescent_has_fewer_nuclei_and_more_collagen():
    lesions = Lesions(cgn=0.8)
    cellular, fibrous = (
        draw_glomerulus(lesions, np.random.default_rng(2), form=GlomerulusForm(fibrous=share))
        for share in (0.0, 1.0)
    )
    assert len(fibrous.nuclei) < len(cellular.nuclei)
    shares = [
        (canvas.structure[canvas.lesion_bits == CGN_BIT] == Material.FIBROSIS).mean()
        for canvas in map(_painted_one, (cellular, fibrous))
    ]
    assert shares[0] == 0.0
    assert shares[1] > 0.8


def test_the_edge_of_the_tissue_cuts_a_glomerulus():
    half_plane = np.array([[-9000.0, 0.0, 9000.0, 0.0, 1e-3]], np.float32)
    half_plane[0, [1, 3]], half_plane[0, 4] = -5000.0, 5000.0
    whole = _formed(1)
    cut = _painted_one(whole.moved((0.0, 0.0), is_cut=True), half_plane)
    area = _area_um2(_painted_one(whole), GLOMERULUS_BIT)
    assert _area_um2(cut, GLOMERULUS_BIT) == pytest.approx(area / 2, rel=0.25)
    assert not cut.amounts[:, 300:].any()


def test_a_moved_glomerulus_is_the_same_elsewhere():
    here = _formed(4)
    there = here.moved((200.0, -30.0))
    assert np.mean(np.array(there.outline()) - here.outline(), axis=0) == pytest.approx([200, -30])
    assert there.nuclei[:, :2] - here.nuclei[:, :2] == pytest.approx(
        np.tile([200.0, -30.0], (len(here.nuclei), 1)), abs=1e-3
    )


def test_forms_vary_and_a_crescent_does_not_collapse_the_tuft(rng):
    forms = [draw_form(Lesions(), rng) for _ in range(200)]
    assert max(form.aspect for form in forms) > 1.4
    assert 0.1 < np.mean([form.collapse > 0 for form in forms]) < 0.3
    assert 0.15 < np.mean([form.flat < 1 for form in forms]) < 0.35
    assert {draw_form(Lesions(cgn=0.5), rng).collapse for _ in range(50)} == {0.0}
