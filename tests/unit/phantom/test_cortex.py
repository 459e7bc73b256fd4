import numpy as np

from glomerulab.phantom.cortex import ARTERIOLE, DISTAL, PROXIMAL, draw_cortex

BOX = (0.0, 0.0, 400.0, 300.0)
HOLES = np.array([[200.0, 150.0, 80.0]])


def test_no_nucleus_and_no_tubule_lies_in_a_hole(rng):
    cortex = draw_cortex(BOX, HOLES, rng)
    for table in (cortex.nuclei, cortex.sites.sites):
        assert np.hypot(table[:, 0] - 200, table[:, 1] - 150).min() > 80.0


def test_proximal_tubules_prevail(rng):
    kinds = draw_cortex(BOX, HOLES, rng).sites.sites[:, 6]
    assert (kinds == PROXIMAL).sum() > (kinds == DISTAL).sum() > 0
    assert set(kinds) <= {0, 1, 2, 3}


def test_an_arteriole_stands_at_every_vascular_pole(rng):
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
