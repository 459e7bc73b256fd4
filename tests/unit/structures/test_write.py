import csv
import json
import math

import numpy as np
import pytest
import shapely

from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import read_regions
from glomerulab.slides.slide import open_slide
from glomerulab.structures.measuring import measure_objects
from glomerulab.structures.summary import Range, read_summary
from glomerulab.structures.write import write_structures
from tests.support.structure_maps import draw_disc, make_map

MPP = 0.5  # of the slide; the map has twice that
GLASS, PINK, BLUE = (245, 245, 245), (225, 130, 180), (90, 60, 150)
GLOMERULUS, TUBULE, CUT = (150, 150), (150, 350), (190, 455)
"""Centres, rows and columns of the map; the last lies at the glass."""
N_NUCLEI = 12


def grown(mask):
    return mask.repeat(2, axis=0).repeat(2, axis=1)


def drawn_masks(shape=(300, 800)):
    cortex = np.zeros(shape, bool)
    cortex[:, :480] = True
    return {
        "cortex": cortex,
        "tubule": draw_disc(shape, TUBULE, 30) | draw_disc(shape, CUT, 24),
        "glomerulus": draw_disc(shape, GLOMERULUS, 80),
        "tuft": draw_disc(shape, GLOMERULUS, 60),
    }


@pytest.fixture(scope="module")
def drawn():
    return make_map(drawn_masks(), mpp=2 * MPP)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    masks = drawn_masks()
    shape = (600, 1600)
    image = np.full((*shape, 3), GLASS, np.uint8)
    image[grown(masks["cortex"])] = PINK
    image[draw_disc(shape, (2 * TUBULE[0], 2 * TUBULE[1]), 30)] = GLASS
    for turn in np.linspace(0, 2 * math.pi, N_NUCLEI, endpoint=False):
        centre = (
            2 * GLOMERULUS[0] + 80 * math.sin(turn),
            2 * GLOMERULUS[1] + 80 * math.cos(turn),
        )
        image[draw_disc(shape, centre, 6)] = BLUE
    path = tmp_path_factory.mktemp("slide") / "=1+1.tif"
    noise = np.random.default_rng(0).integers(-6, 7, image.shape)
    write_pyramid(np.clip(image + noise, 0, 255).astype(np.uint8), path, mpp=MPP)
    with open_slide(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def written(drawn, slide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "new"
    return folder, write_structures(drawn, slide, folder, stain="HE")


def test_objects_are_numbered_and_measured_on_the_slide(drawn, slide):
    objects, notes = measure_objects(drawn, slide, stain="HE")
    assert notes == []
    assert [one.object_id for one in objects] == ["tubule-1", "tubule-2", "glomerulus-1"]
    tubule, cut, glomerulus = objects
    lumen = tubule.measures["lumen_area_um2"]
    assert lumen.value == pytest.approx(math.pi * 15**2, rel=0.06)
    assert tubule.measures["wall_um"].value == pytest.approx(15, abs=1)
    assert glomerulus.measures["n_nuclei"].value == N_NUCLEI
    tuft_mm2 = math.pi * 60**2 / 1e6
    assert glomerulus.measures["nuclei_per_mm2"].value == pytest.approx(
        N_NUCLEI / tuft_mm2, rel=0.02
    )
    assert [one.touches_edge for one in objects] == [False, True, False]
    assert all(one.in_cortex for one in objects)
    centre = glomerulus.polygon.centroid
    assert (centre.x, centre.y) == pytest.approx((301, 301), abs=0.5)
    assert cut.measures["lumen_share"].value == 0


@pytest.mark.parametrize(
    ("stain", "reason"),
    [(None, "not known"), ("TRI", "no haematoxylin"), ("PASM", "no haematoxylin")],
)
def test_without_haematoxylin_nuclei_are_not_counted_and_a_note_says_why(
    drawn, slide, stain, reason
):
    objects, (note,) = measure_objects(drawn, slide, stain=stain)
    assert reason in note
    assert not any("n_nuclei" in one.measures for one in objects)


def test_the_summary_has_counts_areas_and_density(written, drawn):
    folder, summary = written
    assert read_summary(folder / "summary.json") == summary
    tubule = summary.structures["tubule"]
    assert (tubule.n, tubule.n_in_cortex, tubule.n_at_edge) == ((2, 2, 2), (2, 2, 2), 1)
    cortex_mm2 = 480 * 300 / 1e6
    assert summary.cortex_mm2.likely == pytest.approx(cortex_mm2)
    assert summary.glomeruli_per_mm2 == pytest.approx(Range(*[1 / cortex_mm2] * 3))
    assert tubule.share_of_cortex.likely == pytest.approx(
        np.sum(drawn_masks()["tubule"]) / (480 * 300), rel=0.01
    )


def test_qupath_gets_objects_over_areas_with_colours_and_measurements(written):
    folder, _ = written
    content = json.loads((folder / "structures.geojson").read_text())
    names = [one["properties"]["name"] for one in content["features"]]
    assert names == ["cortex-1", "tuft-1", "tubule-1", "tubule-2", "glomerulus-1"]
    glomerulus = content["features"][-1]["properties"]
    assert glomerulus["classification"] == {"name": "glomerulus", "color": [60, 150, 80]}
    assert glomerulus["measurements"]["area_um2"] == pytest.approx(math.pi * 80**2, rel=0.01)
    assert glomerulus["measurements"]["tuft_share error"] > 0
    regions = {one.region_id: one for one in read_regions(folder / "structures.geojson")}
    assert len(regions) == 5
    outline = shapely.Polygon(regions["glomerulus-1"].polygon)
    assert outline.area * MPP**2 == pytest.approx(math.pi * 80**2, rel=0.01)


def test_the_table_has_a_row_per_object_and_runs_no_formula(written):
    folder, _ = written
    with (folder / "objects.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["object_id"] for row in rows] == ["tubule-1", "tubule-2", "glomerulus-1"]
    assert {row["slide_id"] for row in rows} == {"'=1+1"}
    assert float(rows[2]["equivalent_diameter_um"]) == pytest.approx(160, abs=1)
    assert rows[2]["medial_diameter_um"] == ""
    assert rows[0]["n_nuclei"] == ""


def test_only_the_wanted_formats_are_written(drawn, slide, tmp_path):
    write_structures(drawn, slide, tmp_path, formats=["csv"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objects.csv", "summary.json"]


def test_without_cortex_shares_and_density_are_unknown_and_a_note_says_why(slide, tmp_path):
    masks = {name: mask for name, mask in drawn_masks().items() if name != "cortex"}
    summary = write_structures(make_map(masks, mpp=2 * MPP), slide, tmp_path, formats=[])
    assert summary.cortex_mm2 is None
    assert summary.glomeruli_per_mm2 is None
    assert summary.structures["glomerulus"].n_in_cortex is None
    assert any("cortex" in note for note in summary.notes)
