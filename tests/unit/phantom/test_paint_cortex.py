import numpy as np
import pytest

from glomerulab.phantom.canvas import Canvas, Ink
from glomerulab.phantom.cortex import draw_cortex
from glomerulab.phantom.materials import Material, material_table
from glomerulab.phantom.paint_cortex import distance_to_core, paint_cortex
from glomerulab.phantom.texture import noise_bank

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
    whole = _painted(128, 60.0, 60.0, np.zeros((0, 3)))
    # 21 pixels further, so that the blocks of the two views do not coincide.
    part = _painted(64, 60.0 + 21 * 0.5, 60.0 + 21 * 0.5, np.zeros((0, 3)))
    assert part.amounts == pytest.approx(whole.amounts[:, 21:85, 21:85], abs=1e-5)


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
