import numpy as np
import pytest

from glomerulab.phantom.cortex import (
    ARTERIOLE,
    ATROPHIED,
    DISTAL,
    PROXIMAL,
    distance_to_core,
    draw_cortex,
)
from glomerulab.phantom.cortex_paint import Ground, paint_cortex
from glomerulab.phantom.primitives import (
    ATROPHIC_BIT,
    CORTEX_BIT,
    FIBROSIS_BIT,
    MEDULLA_BIT,
    TUBULE_BIT,
    Canvas,
    Ink,
    blank_canvas,
    noise_bank,
)
from glomerulab.phantom.stains import Material, material_table
from glomerulab.phantom.zones import NO_ZONES, Zones, draw_zones, zones_at

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


def _painted(
    side: int, left: float, upper: float, holes: np.ndarray, cores=CORES, zones=NO_ZONES
) -> Canvas:
    cortex = draw_cortex(
        (0.0, 0.0, 250.0, 250.0), np.zeros((0, 3)), np.random.default_rng(2), zones=zones
    )
    canvas = blank_canvas((side, side), left_um=left, upper_um=upper, mpp=0.5)
    ground = Ground(cores, cortex.sites, zones, holes.astype(np.float32), 1)
    paint_cortex(canvas, ground, Ink(material_table("PAS"), noise_bank()))
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


def _scarred(share: float, **medulla) -> Zones:
    return draw_zones((0.0, 0.0, 250.0, 250.0), share, np.random.default_rng(5), **medulla)


def test_a_scar_is_fibrosis_around_thin_tubules():
    masks = _painted(400, 25.0, 25.0, np.zeros((0, 3)), zones=_scarred(1.0)).masks
    healthy = _painted(400, 25.0, 25.0, np.zeros((0, 3))).masks
    assert (masks & FIBROSIS_BIT > 0).mean() > 0.4
    assert (masks & ATROPHIC_BIT > 0).mean() > 0.1
    assert not (healthy & (FIBROSIS_BIT | ATROPHIC_BIT)).any()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.8, 1.0])
def test_scars_cover_the_requested_share(share):
    xs, ys = np.meshgrid(np.arange(2.5, 250.0, 5.0), np.arange(2.5, 250.0, 5.0))
    scar, _ = zones_at(_scarred(share), noise_bank(), xs.ravel(), ys.ravel())
    assert (scar > 0).mean() == pytest.approx(share, abs=0.15)


def test_an_atrophied_tubule_is_a_tubule_and_never_in_the_medulla():
    zones = _scarred(1.0, border_um=125.0, side=1.0)
    masks = _painted(400, 25.0, 25.0, np.zeros((0, 3)), zones=zones).masks
    atrophic = masks & ATROPHIC_BIT > 0
    assert atrophic.any()
    assert (masks[atrophic] & TUBULE_BIT > 0).all()
    medulla = masks & MEDULLA_BIT > 0
    assert 0.3 < medulla.mean() < 0.7
    assert not (masks[medulla] & (ATROPHIC_BIT | FIBROSIS_BIT | CORTEX_BIT)).any()


def test_tubules_of_the_medulla_are_straight_and_parallel():
    zones = Zones(NO_ZONES.scar_um, -1000.0, 1.0)
    sites = draw_cortex(BOX, HOLES, np.random.default_rng(0), zones=zones).sites.sites
    tubules = sites[np.isin(sites[:, 6], (PROXIMAL, DISTAL, ATROPHIED))]
    assert set(tubules[:, 6]) == {DISTAL}
    assert np.abs(tubules[:, 4]).mean() < 0.3
    assert tubules[:, 5].min() > 1.7


def test_every_pixel_of_the_tissue_lies_in_the_cortex():
    canvas = _painted(128, 60.0, 60.0, np.zeros((0, 3)))
    assert ((canvas.structure > 0) == (canvas.masks & CORTEX_BIT > 0)).all()


def test_a_tubule_is_one_object():
    canvas = _painted(256, 60.0, 60.0, np.zeros((0, 3)))
    for number in np.unique(canvas.objects[canvas.objects > 0])[:40]:
        assert len(np.unique(canvas.masks[canvas.objects == number])) == 1


def test_tubules_keep_clear_of_an_outline_that_is_no_disc(rng):
    turns = np.arange(256) * (2 * np.pi / 256)
    radii = 40.0 + 40.0 * np.abs(np.cos(turns))
    hole = np.array([[200.0, 150.0, *radii]])
    for table in (draw_cortex(BOX, hole, rng).nuclei, draw_cortex(BOX, hole, rng).sites.sites):
        dx, dy = table[:, 0] - 200.0, table[:, 1] - 150.0
        away = np.hypot(dx, dy)
        limit = 40.0 + 40.0 * np.abs(np.cos(np.arctan2(dy, dx)))
        assert (away > limit - 0.1).all()
        assert away.min() < 75.0
