import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from glomerulab.cases.structures import read_case_structures
from glomerulab.phantom.section import Scanner, draw_section
from glomerulab.phantom.slides import STRUCTURES, PhantomSlide, render_slide, write_phantom_slides
from glomerulab.phantom.truth import bit_of, outlines
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import read_regions
from glomerulab.slides.slide import open_slide
from glomerulab.structures.classes import KNOWN_STRUCTURES, structure
from glomerulab.structures.maps import MapFrame, create_map, open_map
from glomerulab.structures.write import write_structures

WITHIN = {"atrophic_tubule": "tubule", "sclerosed_glomerulus": "glomerulus", "tuft": "glomerulus"}


@pytest.fixture(scope="module")
def slide() -> PhantomSlide:
    section = draw_section("PAS", np.random.default_rng(1), scanner=Scanner())
    return render_slide(["normal", "cgn", "fsg", "mspgn"], section, 11, mpp=1.0, scarred=0.5)


def _mask(slide: PhantomSlide, name: str) -> np.ndarray:
    return slide.masks & bit_of(name) > 0


def test_the_bits_stand_in_the_order_of_the_known_structures():
    from glomerulab.phantom import primitives

    names = ("CORTEX", "MEDULLA", "FIBROSIS", "TUBULE", "ATROPHIC", "ARTERY")
    names += ("CAPILLARY", "GLOMERULUS", "SCLEROSED", "TUFT")
    assert [getattr(primitives, f"{name}_BIT") for name in names] == [
        bit_of(one.id) for one in KNOWN_STRUCTURES
    ]


def test_the_slide_shows_every_structure_of_the_cortex(slide):
    for name in set(STRUCTURES) - {"medulla", "sclerosed_glomerulus"}:
        assert _mask(slide, name).mean() > 0.001, name


@pytest.mark.parametrize("name", WITHIN)
def test_a_structure_lies_within_its_holder(slide, name):
    assert structure(name).within == WITHIN[name]
    assert not (_mask(slide, name) & ~_mask(slide, WITHIN[name])).any()


def test_structures_exclude_each_other_and_lie_in_cortex_or_medulla(slide):
    tissue = _mask(slide, "cortex") | _mask(slide, "medulla")
    assert not (_mask(slide, "cortex") & _mask(slide, "medulla")).any()
    flat = [_mask(slide, name) for name in ("fibrosis", "tubule", "artery", "capillary")]
    flat.append(_mask(slide, "glomerulus"))
    assert np.sum(flat, axis=0).max() == 1
    assert not (np.any(flat, axis=0) & ~tissue).any()


def test_tissue_is_what_is_not_glass(slide):
    tissue = _mask(slide, "cortex") | _mask(slide, "medulla")
    glass = slide.pixels[~tissue].mean()
    assert slide.pixels[tissue].mean() < glass - 30


@pytest.mark.parametrize("scarred", [0.0, 0.3, 0.9])
def test_fibrosis_and_atrophy_follow_the_scarring(scarred):
    section = draw_section("HE", np.random.default_rng(1), scanner=Scanner())
    shares = render_slide(["normal"] * 3, section, 5, mpp=2.0, scarred=scarred).shares()
    between = shares["cortex_mm2"] - shares["glomerulus_mm2"] - shares["artery_mm2"]
    assert shares["fibrosis_mm2"] / between == pytest.approx(0.6 * scarred, abs=0.12)
    assert shares["atrophy_of_tubules"] <= 0.02 + scarred
    assert (shares["atrophy_share"] > 0) == (scarred > 0)


def test_the_shares_are_those_of_the_masks(slide):
    shares = slide.shares()
    cortex = _mask(slide, "cortex")
    assert shares["cortex_mm2"] == pytest.approx(cortex.sum() * 1e-6)
    assert shares["fibrosis_share"] == pytest.approx(
        (_mask(slide, "fibrosis") & cortex).sum() / cortex.sum(), abs=1e-5
    )
    assert shares["atrophy_share"] == pytest.approx(
        (_mask(slide, "atrophic_tubule") & cortex).sum() / cortex.sum(), abs=1e-5
    )
    assert shares["glomeruli"] == len(slide.glomeruli)
    n_sclerosed = sum(one.form.sclerosed for one in slide.glomeruli)
    assert shares["sclerosed_glomeruli"] == n_sclerosed
    assert shares["glomeruli_per_mm2"] == pytest.approx(
        shares["glomeruli"] / shares["cortex_mm2"], rel=1e-3
    )


def test_a_contour_has_the_area_of_its_mask_with_its_holes():
    y, x = np.mgrid[:60, :80]
    away = np.hypot(x - 40, y - 30)
    ring = (away < 25) & (away > 10)
    (piece,) = outlines(ring)
    assert len(piece.interiors) == 1
    assert piece.area == pytest.approx(ring.sum(), abs=1.0)
    assert piece.centroid.coords[0] == pytest.approx((40.5, 30.5))
    assert outlines(np.zeros((4, 4), bool)) == []
    (full,) = outlines(np.ones((3, 5), bool))
    assert full.bounds == (0.0, 0.0, 5.0, 3.0)


def test_outlines_rasterise_to_the_masks(slide):
    regions = slide.structures("s")
    height, width = slide.masks.shape
    for name in ("cortex", "glomerulus", "sclerosed_glomerulus", "artery", "tubule", "fibrosis"):
        canvas = Image.new("1", (width, height))
        draw = ImageDraw.Draw(canvas)
        for region in regions:
            if region.labels == (name,):
                draw.polygon([(x - 0.5, y - 0.5) for x, y in region.polygon], fill=1)
                for hole in region.holes:
                    draw.polygon([(x - 0.5, y - 0.5) for x, y in hole], fill=0)
        drawn, true = np.asarray(canvas), _mask(slide, name)
        # Pillow also fills the pixels on an outline, which matters for small and thin structures.
        assert 2 * (drawn & true).sum() / max(drawn.sum() + true.sum(), 1) > 0.9 - (not true.any())


def test_every_object_has_its_outline(slide):
    regions = slide.structures("s")
    ids = [region.region_id for region in regions]
    assert len(set(ids)) == len(ids)
    counts = {name: sum(r.labels == (name,) for r in regions) for name in STRUCTURES}
    assert counts["glomerulus"] == len(slide.glomeruli)
    assert counts["tubule"] > counts["atrophic_tubule"] > 20


def test_the_files_tell_the_structures_of_each_slide(tmp_path):
    write_phantom_slides(tmp_path, n_patients=2, n_glomeruli=2, seed=1, mpp=2.0)
    with (tmp_path / "structures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slide_id"] for row in rows] == ["phantom-p001-s001-he", "phantom-p002-s002-pas"]
    for row in rows:
        path = tmp_path / "structures" / f"{row['slide_id']}.geojson"
        regions = read_regions(path)
        glomeruli = [region for region in regions if region.labels == ("glomerulus",)]
        assert len(glomeruli) == int(row["glomeruli"])
        assert {label for region in regions for label in region.labels} <= set(STRUCTURES)
        features = json.loads(path.read_text())["features"]
        assert any(len(one["geometry"]["coordinates"]) > 1 for one in features)


def test_the_bytes_of_the_structures_do_not_depend_on_the_workers(tmp_path):
    for n_workers in (1, 2):
        write_phantom_slides(
            tmp_path / str(n_workers), n_patients=2, n_glomeruli=1, mpp=4.0, n_workers=n_workers
        )
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in "12"
    )
    assert first == second


def test_a_perfect_segmentation_is_measured_as_the_truth(slide, tmp_path):
    height, width = slide.masks.shape
    frame = MapFrame(STRUCTURES, width, height, (1.0, 1.0), (1.0, 1.0), (width, height))
    found = create_map(tmp_path / "map", frame)
    for layer in (found.possible, found.likely, found.certain):
        layer[:] = slide.masks
    inner = np.all(
        [
            np.roll(slide.objects, by, axis) == slide.objects
            for by, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1))
        ],
        axis=0,
    )
    found.core[:] = np.where(inner, slide.masks, 0)
    write_pyramid(slide.pixels, tmp_path / "s1.tif", mpp=1.0)
    with open_slide(tmp_path / "s1.tif") as opened:
        write_structures(
            open_map(tmp_path / "map"), opened, tmp_path / "out", formats=["csv"], stain="PAS"
        )
    measured = read_case_structures(tmp_path / "out", {"s1"})
    shares = slide.shares()
    for key, true in {
        "cortex_mm2": shares["cortex_mm2"],
        "fibrosis": shares["fibrosis_share"],
        "atrophy": shares["atrophy_share"],
        "atrophy_of_tubules": shares["atrophy_of_tubules"],
        "glomeruli": shares["glomeruli"],
        "sclerosed_glomeruli": shares["sclerosed_glomeruli"],
        "arteries": shares["arteries"],
        "glomeruli_per_mm2": shares["glomeruli_per_mm2"],
    }.items():
        value = measured[key].value
        assert value is not None
        assert value.likely == pytest.approx(true, rel=1e-3), key
