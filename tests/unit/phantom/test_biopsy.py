import numpy as np
import pytest

from glomerulab.phantom.biopsy import biopsy_scene
from glomerulab.phantom.paint_cortex import distance_to_core
from glomerulab.phantom.scanner import Scanner
from glomerulab.phantom.section import draw_section
from glomerulab.phantom.texture import noise_bank


@pytest.mark.parametrize("n", [1, 3, 12])
def test_every_glomerulus_lies_whole_in_the_tissue_and_apart_from_the_others(n):
    rng = np.random.default_rng(n)
    section = draw_section("HE", rng, scanner=Scanner())
    scene, (width, height) = biopsy_scene(["normal"] * n, section, rng)
    assert len(scene.glomeruli) == n
    for one in scene.glomeruli:
        outside = distance_to_core(scene.cores, noise_bank(), one.x_um, one.y_um)
        assert outside < -0.9 * float(one.capsule_um.mean())
        assert 0 < one.x_um < width
        assert 0 < one.y_um < height
    places = np.array([(one.x_um, one.y_um) for one in scene.glomeruli])
    gaps = np.hypot(*(places[:, None] - places).transpose(2, 0, 1)) + 1e9 * np.eye(n)
    assert gaps.min() > 2 * section.radius_um


def test_the_kinds_are_those_asked_for():
    rng = np.random.default_rng(0)
    kinds = ["cgn", "normal", "fsg+cgn"]
    scene, _ = biopsy_scene(kinds, draw_section("PAS", rng, scanner=Scanner()), rng)
    assert [one.lesions.labels for one in scene.glomeruli] == [
        ("cgn",),
        ("normal",),
        ("fsg", "cgn"),
    ]
