import numpy as np
import pytest

from glomerulab.phantom.section import (
    SCANNERS,
    Scanner,
    Section,
    draw_scanner,
    draw_section,
    expose,
    scanner_park,
)
from glomerulab.phantom.stains import draw_stain_matrix


def test_a_cohort_has_its_scanners_from_its_seed():
    park = scanner_park(3)
    assert len({scanner.white for scanner in park}) == SCANNERS
    assert park == scanner_park(3) != scanner_park(4)


def test_two_sections_differ(rng):
    first, second = (draw_section("HE", rng, scanner=Scanner()) for _ in range(2))
    assert first.thickness != second.thickness
    assert first.radius_um != second.radius_um
    assert not np.array_equal(first.stain_matrix, second.stain_matrix)


def test_another_white_changes_nothing_else(rng):
    section = draw_section("PAS", rng, scanner=Scanner(noise=2.0))
    grey = section.with_white((120.0, 125.0, 130.0))
    assert grey.scanner.white == (120.0, 125.0, 130.0)
    assert grey.scanner.noise == 2.0
    assert grey.stain_matrix is section.stain_matrix


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("stain", "PASM"),
        ("stain_matrix", np.ones((2, 3))),
        ("thickness", -1.0),
        ("first_strength", 11.0),
        ("second_strength", float("nan")),
        ("nuclei_kept", 1.5),
        ("radius_um", 10.0),
        ("tubule_scale", 3.0),
    ],
)
def test_an_impossible_setting_is_named(setting, value, rng):
    settings = {"stain": "HE", "stain_matrix": draw_stain_matrix("HE", rng), "scanner": Scanner()}
    with pytest.raises(ValueError, match=setting):
        Section(**{**settings, setting: value})


def _light(level: float = 0.5, side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), level, np.float32)


def test_a_perfect_scanner_only_rounds(rng):
    light = rng.random((16, 16, 3)).astype(np.float32)
    assert np.array_equal(
        expose(light, Scanner(), rng, mpp=0.5), np.floor(light * 255 + 0.5).astype(np.uint8)
    )


def test_grey_background_is_the_white_of_the_scanner(rng):
    pixels = expose(_light(1.0), Scanner(white=(105.0, 140.0, 170.0)), rng, mpp=0.5)
    assert pixels[5, 5].tolist() == [105, 140, 170]


def test_noise_has_the_stated_strength_at_white(rng):
    pixels = expose(_light(0.8, 256), Scanner(noise=4.0), rng, mpp=0.5)
    assert pixels.std() == pytest.approx(4.0 * np.sqrt(0.8), rel=0.03)


def test_gamma_scales_optical_density(rng):
    pixels = expose(_light(np.exp(-1.0)), Scanner(gamma=1.5), rng, mpp=0.5)
    assert pixels[0, 0, 0] == round(255 * np.exp(-1.5))


def test_blur_is_given_in_micrometres(rng):
    light = _light(0.0, 65)
    light[32, 32] = 1.0
    near = expose(light, Scanner(blur_um=1.0), rng, mpp=0.5)
    far = expose(light, Scanner(blur_um=1.0), rng, mpp=2.0)
    assert near[32, 32, 0] < far[32, 32, 0]


def test_shading_darkens_the_corners_only(rng):
    pixels = expose(_light(1.0), Scanner(shading=0.2), rng, mpp=0.5)
    assert pixels[32, 32, 0] >= 254
    assert pixels[0, 0, 0] == pytest.approx(255 * 0.8, abs=3)


def test_a_black_frame_covers_its_share(rng):
    pixels = expose(_light(1.0, 512), Scanner(black_border=0.27), rng, mpp=0.5)
    assert (pixels == 0).all(axis=2).mean() == pytest.approx(0.27, abs=0.01)


def test_jpeg_changes_little(rng):
    waves = 0.5 + 0.3 * np.sin(np.arange(64) / 5.0)
    light = np.repeat(np.outer(waves, waves)[..., np.newaxis], 3, axis=2).astype(np.float32)
    exact = expose(light, Scanner(), rng, mpp=0.5).astype(int)
    packed = expose(light, Scanner(jpeg_quality=90), rng, mpp=0.5).astype(int)
    assert 0 < np.abs(exact - packed).mean() < 3


def test_drawn_scanners_differ_and_stay_bright(rng):
    first, second = draw_scanner("a", rng), draw_scanner("b", rng)
    assert first.white != second.white
    assert min(first.white + second.white) > 200


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("white", (0.0, 255.0, 255.0)),
        ("white", (256.0, 255.0, 255.0)),
        ("blur_um", -1.0),
        ("noise", -0.1),
        ("gamma", 0.0),
        ("shading", 1.0),
        ("black_border", -0.1),
        ("jpeg_quality", 0),
    ],
)
def test_an_impossible_scanner_setting_is_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        Scanner(**{setting: value})
