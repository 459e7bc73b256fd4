from dataclasses import replace

import numpy as np
import pytest

from glomerulab.phantom.cortex import draw_cortex
from glomerulab.phantom.glomerulus import Lesions, draw_glomerulus
from glomerulab.phantom.scene import Scene, paint
from glomerulab.phantom.section import Scanner, Section, draw_section
from glomerulab.phantom.stains import Material


@pytest.fixture
def section() -> Section:
    return draw_section("PAS", np.random.default_rng(1), scanner=Scanner())


@pytest.fixture(scope="module")
def scene() -> Scene:
    rng = np.random.default_rng(3)
    glomerulus = draw_glomerulus(Lesions(fsg=0.5), rng, place_um=(130.0, 120.0))
    holes = np.array([[130.0, 120.0, 85.0]])
    cores = np.array([[-400.0, 120.0, 700.0, 120.0, 110.0]], np.float32)
    return Scene((glomerulus,), draw_cortex((0.0, 0.0, 300.0, 300.0), holes, rng), cores)


def _view(scene: Scene, section: Section, **place):
    defaults = {"left_um": 0.0, "upper_um": 0.0, "shape": (256, 256), "mpp": 1.0}
    return paint(scene, section, **{**defaults, **place})


def test_tiles_fit_together(scene, section):
    full = _view(scene, section)
    part = _view(scene, section, left_um=70.0, upper_um=90.0, shape=(80, 100))
    inner = np.s_[90:170, 70:170]
    assert part.concentrations == pytest.approx(full.concentrations[:, *inner], abs=1e-4)
    assert (part.structure == full.structure[inner]).mean() > 0.999
    assert (part.masks == full.masks[inner]).mean() > 0.999
    assert (part.objects == full.objects[inner]).mean() > 0.999


def test_no_nucleus_floats_on_glass(scene, section):
    view = _view(scene, section, upper_um=-60.0)
    assert (view.structure[:40] == Material.NUCLEUS).sum() == 0
    assert (view.structure[:40] == Material.GLASS).mean() > 0.9
    assert view.concentrations[:, :40].mean() < 0.02


def test_thickness_and_strength_scale_the_concentrations(scene, section):
    unscaled = _view(scene, section).concentrations
    weak = _view(scene, replace(section, thickness=section.thickness * 0.2)).concentrations
    single = _view(scene, replace(section, first_strength=0.0)).concentrations
    assert weak == pytest.approx(0.2 * unscaled, abs=1e-4)
    assert not single[0].any()
    assert single[1] == pytest.approx(unscaled[1])


def test_few_nuclei_are_painted(scene, section):
    counts = [
        (_view(scene, replace(section, nuclei_kept=share)).structure == Material.NUCLEUS).sum()
        for share in (1.0, 0.05, 0.0)
    ]
    assert 0 < counts[1] < 0.15 * counts[0]
    assert counts[2] == 0


def test_a_view_elsewhere_shows_no_glomerulus(scene, section):
    view = _view(scene, section, left_um=400.0)
    assert not view.lesion_bits.any()
    assert (view.structure != Material.CAPSULE).all()
