import numpy as np
import pytest

from glomerulab.phantom.cortex import (
    ARTERIOLE,
    DISTAL,
    PROXIMAL,
    distance_to_core,
    draw_cortex,
    paint_cortex,
)
from glomerulab.phantom.primitives import Canvas, Ink, noise_bank
from glomerulab.phantom.stains import Material, material_table

BOX = (0.0, 0.0, 400.0, 300.0)
HOLES = np.array([[200.0, 150.0, 80.0]])


def test_no_nucleus_and_no_tubule_is_in_a_hole(rng):
    cortex = draw_cortex(BOX, HOLES, rng)
    for table in (cortex.nuclei, cortex.sites.sites):
        assert np.hypot(table[:, 0] - 200, table[:, 1] - 150).min() > 80.0


def test_proximal_tubules_prevail(rng):
    kinds = draw_cortex(BOX, HOLES, rng).sites.sites[:, 6]
    assert (kinds == PROXIMAL).sum() > (kinds == DISTAL).sum() > 0
    assert set(kinds) <= {0, 1, 2, 3}


def test_an_arteriole_is_at_every_vascular_pole(rng):
    sites = draw_cortex(BOX, HOLES, rng, poles=[(200.0, 240.0), (110.0, 150.0)]).sites.sites
    for x, y in ((200.0, 240.0), (110.0, 150.0)):
        at_pole = np.hypot(sites[:, 0] - x, sites[:, 1] - y) < 1e-3
        assert sites[at_pole, 6].tolist() == [ARTERIOLE]


def test_the_calibre_of_tubules_follows_its_scale():
    narrow = draw_cortex(BOX, HOLES, np.random.default_rng(0), tubule_scale=0.8)
    wide = draw_cortex(BOX, HOLES, np.random.default_rng(0), tubule_scale=1.2)
    assert len(narrow.sites.sites) > len(wide.sites.sites)


def test_tubules_have_the_calibre_of_tubules(rng):
    sites = draw_cortex(BOX, HOLES, rng).sites.sites
    proximal = sites[sites[:, 6] == PROXIMAL]
    assert 30.0 < 2 * proximal[:, 2].mean() < 60.0


CORES = np.array([[-500.0, 100.0, 500.0, 100.0, 300.0]], np.float32)


def _painted(side: int, left: float, upper: float, holes: np.ndarray, cores=CORES) -> Canvas:
    cortex = draw_cortex((0.0, 0.0, 250.0, 250.0), np.zeros((0, 3)), np.random.default_rng(2))
    canvas = Canvas(
        np.zeros((2, side, side), np.float32),
        np.zeros((side, side), np.uint8),
        np.zeros((side, side), np.uint8),
        left,
        upper,
        0.5,
    )
    ink = Ink(material_table("PAS"), noise_bank())
    paint_cortex(canvas, cores, cortex.sites, ink, holes.astype(np.float32))
    return canvas


def test_tissue_shows_tubules_with_lumina_and_membranes_in_interstitium():
    structure = _painted(256, 60.0, 60.0, np.zeros((0, 3))).structure
    for material in (
        Material.INTERSTITIUM,
        Material.TUBULE_MEMBRANE,
        Material.PROXIMAL,
        Material.BRUSH_BORDER,
        Material.DISTAL,
        Material.TUBULE_LUMEN,
    ):
        assert (structure == material).mean() > 0.005, material
    assert (structure == Material.GLASS).sum() == 0


def test_two_views_of_one_place_agree_to_the_bit():
    full = _painted(128, 60.0, 60.0, np.zeros((0, 3)))
    # 21 pixels further, so that the blocks of the two views do not coincide.
    part = _painted(64, 60.0 + 21 * 0.5, 60.0 + 21 * 0.5, np.zeros((0, 3)))
    assert part.amounts == pytest.approx(full.amounts[:, 21:85, 21:85], abs=1e-5)


def test_the_middle_of_a_hole_stays_blank():
    canvas = _painted(128, 60.0, 60.0, np.array([[92.0, 92.0, 25.0]]))
    assert canvas.structure[56:72, 56:72].max() == Material.GLASS
    assert canvas.structure[:8, :8].min() > Material.GLASS


def test_off_the_core_there_is_only_glass():
    canvas = _painted(64, 60.0, 60.0, np.zeros((0, 3)), CORES + np.float32([0, 2000, 0, 2000, 0]))
    assert not canvas.amounts.any()
    assert not canvas.structure.any()


def test_far_from_the_edge_the_distance_is_that_to_a_thick_segment():
    bank = noise_bank()
    assert distance_to_core(CORES, bank, 0.0, 100.0) == pytest.approx(-300.0)
    assert distance_to_core(CORES, bank, 0.0, 600.0) == pytest.approx(200.0)
    assert distance_to_core(CORES, bank, 1000.0, 100.0) == pytest.approx(200.0)
