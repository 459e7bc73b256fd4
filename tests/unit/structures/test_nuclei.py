import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import polygon2mask

from glomerulab.phantom.crops import render_crop
from glomerulab.phantom.section import cohort_section
from glomerulab.phantom.stains import Material
from glomerulab.stain.fitting import fit_many
from glomerulab.structures.nuclei import count_nuclei


@pytest.mark.parametrize("stain", ["HE", "PAS"])
def test_nuclei_of_the_phantom_are_counted(stain):
    section = cohort_section(0, stain, 3)
    crops = [render_crop("normal", section, seed, size=512, mpp=0.5) for seed in range(2)]
    stains = fit_many([crop.pixels for crop in crops], stain)
    for crop in crops:
        mask = polygon2mask((512, 512), np.array(crop.outline)[:, ::-1])
        _, n_seen = ndimage.label((crop.structure == Material.NUCLEUS) & mask)
        # Some spots are two nuclei that overlap.
        assert n_seen * 0.9 <= count_nuclei(crop.pixels, mask, stains, 0.5) <= n_seen * 1.3


def test_a_mask_of_one_colour_has_no_nuclei():
    section = cohort_section(0, "HE", 3)
    crop = render_crop("normal", section, 1, size=256, mpp=1.0)
    stains = fit_many([crop.pixels], "HE")
    grey = np.full((50, 50, 3), 180, np.uint8)
    assert count_nuclei(grey, np.ones((50, 50), bool), stains, 0.5) == 0
