from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from glomerulab.phantom.glomerulus import LESION_BITS, render_crop
from glomerulab.phantom.lesions import KINDS, Lesions
from glomerulab.phantom.materials import Material
from glomerulab.phantom.scanner import Scanner
from glomerulab.phantom.section import Section, draw_section
from glomerulab.phantom.stains import recompose


def _section(stain: str = "PAS", **settings) -> Section:
    drawn = draw_section(stain, np.random.default_rng(8), scanner=Scanner())
    return replace(drawn, **settings)


def _inside(crop) -> np.ndarray:
    size = crop.pixels.shape[1], crop.pixels.shape[0]
    mask = Image.new("1", size)
    ImageDraw.Draw(mask).polygon(list(crop.outline), fill=1)
    return np.asarray(mask)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_the_labels_and_lie_in_the_glomerulus(kind):
    crop = render_crop(kind, _section(), 5, size=256, mpp=1.0)
    assert crop.labels == KINDS[kind]
    assert set(crop.masks) == set(KINDS[kind]) & set(LESION_BITS)
    inside = _inside(crop)
    for label, mask in crop.masks.items():
        assert mask.sum() > 50, label
        assert mask[~inside].sum() <= 0.02 * mask.sum(), label


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    first, again, other = (render_crop("cgn", _section(), seed, size=96) for seed in (1, 1, 2))
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.concentrations, again.concentrations)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("stain", ["HE", "PAS"])
def test_pixels_of_a_perfect_scanner_are_beer_lambert(stain):
    scanner = Scanner(white=(240.0, 235.0, 238.0))
    crop = render_crop("fsg", _section(stain, scanner=scanner), 4, size=160)
    light = recompose(crop.concentrations, crop.stain_matrix, white=crop.white)
    assert np.abs(crop.pixels - light).max() <= 0.51
    assert np.array_equal(crop.ideal(), crop.pixels)


def test_a_noisy_scanner_stays_around_the_ideal():
    crop = render_crop("fsg", _section(scanner=Scanner(noise=3.0)), 4, size=160)
    difference = crop.pixels.astype(float) - crop.ideal()
    assert abs(difference.mean()) < 0.1
    assert 1.0 < difference.std() < 3.1


def test_the_same_tissue_can_be_restained():
    crop = render_crop("normal", _section("HE"), 4, size=64)
    other = crop.ideal(_section("PAS").stain_matrix, white=255.0)
    assert other.shape == crop.pixels.shape
    assert not np.array_equal(other, crop.ideal())


def test_concentrations_and_matrix_have_their_stated_form():
    crop = render_crop("normal", _section(), 0, size=64)
    assert crop.concentrations.shape == (2, 64, 64)
    assert crop.concentrations.dtype == np.float32
    assert (crop.concentrations >= 0).all()
    assert np.linalg.norm(crop.stain_matrix, axis=0) == pytest.approx([1.0, 1.0])


def test_a_diseased_mesangium_shows_more_nuclei():
    plain = [render_crop(Lesions(), _section(), seed).mesangial_cells for seed in range(3)]
    ill = [render_crop(Lesions(mspgn=0.3), _section(), seed).mesangial_cells for seed in range(3)]
    assert min(np.mean(counts) for counts in ill) > max(np.mean(counts) for counts in plain)


def test_hard_cases_are_settings():
    blank = render_crop("normal", _section(thickness=0.0), 0, size=64)
    assert (blank.pixels == 255).all()
    grey = render_crop("normal", _section().with_white((130.0, 130.0, 130.0)), 0, size=64)
    assert grey.pixels.max() <= 130
    frame = render_crop("normal", _section(scanner=Scanner(black_border=0.27)), 0, size=256)
    assert (frame.pixels == 0).all(axis=2).mean() == pytest.approx(0.27, abs=0.02)


def test_a_smaller_mpp_shows_the_same_glomerulus_larger():
    fine, coarse = (render_crop("normal", _section(), 3, size=n, mpp=256 / n) for n in (256, 128))
    assert np.array(fine.outline).std() == pytest.approx(
        2 * np.array(coarse.outline).std(), rel=0.02
    )
    assert (fine.structure == Material.SPACE).mean() == pytest.approx(
        (coarse.structure == Material.SPACE).mean(), abs=0.02
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"size": 16}, "size"), ({"mpp": 0.0}, "mpp"), ({"mpp": float("nan")}, "mpp")],
)
def test_an_impossible_view_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        render_crop("normal", _section(), 0, **settings)
