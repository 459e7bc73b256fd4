from functools import cache
from itertools import combinations

import numpy as np
import pytest
from shapely.geometry import Point, Polygon

from glomerulab.phantom.arteries import draw_artery, paint_artery
from glomerulab.phantom.biopsy import biopsy_scene, draw_scarring
from glomerulab.phantom.cortex import distance_to_core
from glomerulab.phantom.primitives import ARTERY_BIT, Ink, blank_canvas, noise_bank
from glomerulab.phantom.section import Scanner, draw_section
from glomerulab.phantom.stains import material_table

SEEDS = range(5)
EVERYWHERE = np.array([[-9000.0, 0.0, 9000.0, 0.0, 9000.0]], np.float32)


@cache
def _scene(n: int, seed: int, scarred: float = 0.0):
    rng = np.random.default_rng(seed)
    section = draw_section("HE", rng, scanner=Scanner())
    return biopsy_scene(["normal"] * n, section, rng, scarred=scarred)


@pytest.mark.parametrize("n", [1, 3, 12])
def test_every_glomerulus_is_inside_the_tissue_unless_the_edge_cuts_it(n):
    scene, (width, height) = _scene(n, n)
    assert len(scene.glomeruli) >= n
    for one in scene.glomeruli:
        outside = distance_to_core(scene.cores, noise_bank(), one.x_um, one.y_um)
        assert outside < (0.0 if one.form.is_cut else -0.9 * float(one.capsule_um.mean()))
        assert 0 < one.x_um < width
        assert 0 < one.y_um < height


@pytest.mark.parametrize("seed", SEEDS)
def test_glomeruli_and_arteries_hardly_overlap(seed):
    scene, _ = _scene(8, seed)
    bodies = [Polygon(one.outline()) for one in scene.glomeruli]
    bodies += [Point(one.shape.x_um, one.shape.y_um).buffer(one.reach_um) for one in scene.arteries]
    for number, body in enumerate(bodies):
        for other in bodies[:number]:
            assert body.intersection(other).area < 0.01 * min(body.area, other.area)


def test_some_glomeruli_touch_some_are_cut_and_sizes_differ():
    glomeruli = [_scene(8, seed)[0].glomeruli for seed in SEEDS]
    outlines = [[Polygon(one.outline()) for one in of_scene] for of_scene in glomeruli]
    gaps = [a.distance(b) for of_scene in outlines for a, b in combinations(of_scene, 2)]
    assert sum(gap < 2.0 for gap in gaps) >= 3
    flat = [one for of_scene in glomeruli for one in of_scene]
    assert 0 < np.mean([one.form.is_cut for one in flat]) < 0.3
    diameters = [2 * float(one.capsule_um.mean()) for one in flat]
    assert min(diameters) < 90.0
    assert max(diameters) > 165.0


def test_scarred_kidneys_have_more_sclerosed_glomeruli():
    def share(seeds, scarred: float) -> float:
        scenes = [_scene(8, seed, scarred)[0] for seed in seeds]
        return float(np.mean([one.form.sclerosed for scene in scenes for one in scene.glomeruli]))

    assert share(SEEDS, 0.0) < 0.12
    assert share((0, 1), 0.9) > 0.2


def test_the_requested_kinds_come_first():
    rng = np.random.default_rng(0)
    kinds = ["cgn", "normal", "fsg+cgn"]
    scene, _ = biopsy_scene(kinds, draw_section("PAS", rng, scanner=Scanner()), rng)
    assert [one.lesions.labels for one in scene.glomeruli[:3]] == [
        ("cgn",),
        ("normal",),
        ("fsg", "cgn"),
    ]
    assert not any(one.form.sclerosed for one in scene.glomeruli[:3])


def test_some_cores_reach_the_medulla_and_hold_no_glomerulus_there():
    sides = []
    for seed in SEEDS:
        scene, _ = _scene(8, seed)
        zones = scene.zones
        sides.append(zones.side)
        for one in scene.glomeruli:
            assert not zones.side * (one.x_um - zones.border_um) > 0
    assert set(sides) > {0.0}


def test_scarring_ranges_from_little_to_all(rng):
    drawn = [draw_scarring(rng) for _ in range(300)]
    assert np.median(drawn) < 0.3
    assert min(drawn) < 0.02
    assert max(drawn) > 0.9


def test_the_mask_of_an_artery_is_its_wall_and_lumen(rng):
    artery = draw_artery(rng)
    canvas = blank_canvas((300, 300), left_um=-150.0, upper_um=-150.0, mpp=1.0)
    ink = Ink(material_table("HE"), noise_bank())
    paint_artery(canvas, artery.shape, ink, EVERYWHERE, 3)
    by_formula = np.pi * artery.shape.radius_um**2 * artery.shape.elongation
    assert (canvas.masks & ARTERY_BIT > 0).sum() == pytest.approx(by_formula, rel=0.05)
    assert set(np.unique(canvas.objects)) == {0, 3}


def test_old_arteries_have_a_thick_intima():
    young, old = (
        np.mean(
            [
                one.intima_um / one.radius_um
                for one in (
                    draw_artery(np.random.default_rng(n), scarred=s).shape for n in range(40)
                )
            ]
        )
        for s in (0.0, 0.9)
    )
    assert old > 1.3 * young
