"""Counts, areas and measures of the phantom's true masks are the phantom's truth."""

import math

import numpy as np
import pytest
from scipy import ndimage

from glomerulab.phantom.section import cohort_section
from glomerulab.phantom.slides import render_slide
from glomerulab.phantom.truth import STRUCTURES, bit_of
from glomerulab.structures.areas import summarize
from glomerulab.structures.maps import MapFrame, StructureMap
from glomerulab.structures.measuring import measure_objects


@pytest.fixture(scope="module")
def phantom():
    return render_slide(["normal", "mspgn"], cohort_section(0, "PAS", 1), 1, mpp=1.0, scarred=0.3)


@pytest.fixture(scope="module")
def drawn(phantom):
    height, width = phantom.masks.shape
    frame = MapFrame(STRUCTURES, width, height, (1.0, 1.0), (1.0, 1.0), (width, height))
    parts = phantom.objects
    inside = ndimage.minimum_filter(parts, 3) == ndimage.maximum_filter(parts, 3)
    core = np.where(inside, phantom.masks, 0).astype(np.uint16)
    return StructureMap(frame, phantom.masks, phantom.masks, phantom.masks, core)


@pytest.fixture(scope="module")
def objects(drawn):
    return measure_objects(drawn)[0]


def test_areas_shares_and_density_are_the_true_ones(phantom, drawn, objects):
    truth = phantom.shares()
    found = summarize(drawn, objects, slide_id="s1", stain="PAS")
    for name in STRUCTURES:
        assert found.structures[name].area_mm2.likely == pytest.approx(
            truth[f"{name}_mm2"], abs=1e-6
        )
    assert found.atrophy_share.likely == pytest.approx(truth["atrophy_share"], abs=1e-5)
    assert found.fibrosis_share.likely == pytest.approx(truth["fibrosis_share"], abs=1e-5)
    assert found.structures["glomerulus"].n.likely == truth["glomeruli"]
    assert found.glomeruli_per_mm2.likely == pytest.approx(truth["glomeruli_per_mm2"], abs=1e-4)


def test_touching_tubules_are_parted_as_they_were_drawn(phantom, objects):
    is_tubule = (phantom.masks & bit_of("tubule")) > 0
    sizes = np.bincount(phantom.objects[is_tubule])
    n_true = np.count_nonzero(sizes >= 150)  # the least size of a tubule, 1 µm² per pixel
    n_found = sum(one.structure == "tubule" for one in objects)
    assert n_found == pytest.approx(n_true, rel=0.03)


def test_glomeruli_have_their_true_sizes(phantom, objects):
    glomeruli = [one for one in objects if one.structure == "glomerulus"]
    assert len(glomeruli) == len(phantom.glomeruli)
    for one in glomeruli:
        centre = one.polygon.centroid
        true = min(
            phantom.glomeruli,
            key=lambda other: math.hypot(other.x_um - centre.x, other.y_um - centre.y),
        )
        number = phantom.glomeruli.index(true) + 1
        area = one.measures["area_um2"]
        assert abs(area.value - np.count_nonzero(phantom.objects == number)) <= area.error
        tuft = np.count_nonzero((phantom.objects == number) & (phantom.masks & bit_of("tuft") > 0))
        assert one.measures["tuft_share"].value == pytest.approx(tuft / area.value, abs=0.01)
