import numpy as np
import pytest

from glomerulab.phantom.scanner import Scanner
from glomerulab.phantom.section import SCANNERS, Section, draw_section, scanner_park
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
