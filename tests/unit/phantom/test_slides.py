import csv
import json
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from glomerulab.errors import ConfigError
from glomerulab.phantom.section import Scanner, draw_section
from glomerulab.phantom.slides import render_slide, write_phantom_slides
from glomerulab.slides.regions.files import read_regions


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("slides")
    write_phantom_slides(out, n_patients=2, n_glomeruli=3, seed=1, mpp=2.0)
    return out


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "slides.csv").open() as file:
        return list(csv.DictReader(file))


def test_openslide_reads_the_slides_with_their_mpp_and_levels(slides):
    for row in _rows(slides):
        with openslide.OpenSlide(slides / row["slide_path"]) as slide:
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(2.0, rel=1e-3)
            assert slide.level_count >= 2


def test_the_table_names_patient_and_stain_and_is_marked_synthetic(slides):
    rows = _rows(slides)
    assert [row["patient_id"] for row in rows] == ["phantom-p001", "phantom-p002"]
    assert [row["stain"] for row in rows] == ["HE", "PAS"]
    assert {row["synthetic"] for row in rows} == {"1"}


def test_regions_carry_the_labels_and_enclose_the_lesions(slides):
    for row in _rows(slides):
        regions = read_regions(slides / "regions" / f"{row['slide_id']}.geojson")
        truth = json.loads((slides / "truth" / f"{row['slide_id']}.json").read_text())
        bits = np.asarray(Image.open(slides / "masks" / f"{row['slide_id']}.png"))
        assert len(regions) == 3
        n_in_regions = 0
        for region, one in zip(regions, truth["glomeruli"], strict=True):
            assert sorted(region.labels) == sorted(one["labels"])
            box = region.box()
            cut = bits[box.y : box.y + box.height, box.x : box.x + box.width]
            n_in_regions += np.count_nonzero(cut)
            present = {name for name, bit in truth["lesion_bits"].items() if (cut & bit).any()}
            assert present == set(one["labels"]) - {"normal"}
        assert n_in_regions == pytest.approx(np.count_nonzero(bits), rel=0.02)


def test_a_region_shows_tissue_and_the_margin_shows_glass(slides):
    row = _rows(slides)[0]
    with openslide.OpenSlide(slides / row["slide_path"]) as slide:
        image = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    region = read_regions(slides / "regions" / f"{row['slide_id']}.geojson")[0]
    box = region.box()
    inside = image[box.y : box.y + box.height, box.x : box.x + box.width]
    assert image[:10, :10].mean() > 220
    assert inside.mean() < image[:10, :10].mean() - 15


def test_a_slide_shows_no_seams_between_its_tiles():
    section = draw_section("HE", np.random.default_rng(0), scanner=Scanner(blur_um=0.5))
    pixels = render_slide(["normal"] * 2, section, 0, mpp=1.0).pixels.astype(float)
    steps = np.abs(np.diff(pixels, axis=1)).mean(axis=(0, 2))
    neighbours = np.r_[steps[500:511], steps[512:524]]
    assert steps[511] < neighbours.max() * 1.15


def test_a_patient_can_have_slides_in_both_stains(tmp_path):
    write_phantom_slides(tmp_path, n_patients=1, slides_per_patient=2, n_glomeruli=1, mpp=4.0)
    assert [row["stain"] for row in _rows(tmp_path)] == ["HE", "PAS"]


@pytest.mark.parametrize("setting", ["n_patients", "slides_per_patient", "n_glomeruli"])
def test_rendering_no_crops_is_rejected(setting, tmp_path):
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        write_phantom_slides(tmp_path, **{setting: 0})


def test_bad_slides_are_refused_before_rendering(rng):
    section = draw_section("HE", rng, scanner=Scanner())
    with pytest.raises(ValueError, match="at least one glomerulus"):
        render_slide([], section, 0)
    with pytest.raises(ValueError, match="mpp"):
        render_slide(["normal"], section, 0, mpp=0.0)
