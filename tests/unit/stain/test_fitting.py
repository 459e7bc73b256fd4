import io

import numpy as np
import pytest
from PIL import Image

from glomerulab.errors import StainError
from glomerulab.stain.fitting import (
    FitFailure,
    StainStatus,
    check_tissue,
    fit,
    fit_many,
    try_fit,
    try_fit_many,
)
from glomerulab.stain.reference import PAPER, StainParameters
from tests.support.beer_lambert import HE, PAS, section, worst_angle


@pytest.mark.parametrize(("stain", "dyes"), [("HE", HE), ("PAS", PAS)])
def test_a_reference_holds_stains_amounts_and_white(stain: str, dyes) -> None:
    truth = section(1, dyes=dyes)
    found = fit(truth.image, stain, source="slide 7")
    assert worst_angle(found.stain_matrix, truth.stain_matrix) < 1.0
    assert found.white == pytest.approx(truth.white, abs=1.0)
    tissue = truth.amounts[truth.amounts.sum(axis=-1) > 0.15]
    assert found.percentiles == pytest.approx(np.percentile(tissue, 99, axis=0), rel=0.05)
    assert found.source == "slide 7"
    assert found.objective is not None
    assert found.objective > 0.0


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_the_alternatives_are_fitted_too(method: str) -> None:
    truth = section(2)
    found = fit(truth.image, "HE", parameters=StainParameters(method=method))
    assert worst_angle(found.stain_matrix, truth.stain_matrix) < 5.0
    assert (found.lab_mean is not None) == (method == "reinhard")
    assert found.objective is None


def test_a_given_white_is_used() -> None:
    truth = section(3, glass=0.0)
    assert fit(truth.image, "HE", white=truth.white).white == tuple(truth.white)


def test_an_unknown_stain_is_a_clear_error() -> None:
    with pytest.raises(StainError, match="HE, PAS"):
        fit(section(1, size=32).image, "Giemsa")


def test_another_stain_is_not_taken_for_this_one() -> None:
    brown = section(1, dyes=((0.65, 0.70, 0.29), (0.27, 0.57, 0.78)))
    refused = try_fit(brown.image, "HE")
    assert isinstance(refused, FitFailure)
    assert refused.status is StainStatus.NOT_TISSUE
    assert "HE" in refused.reason


def test_teal_ink_over_a_section_is_named_as_the_likely_cause() -> None:
    truth = section(1)
    # Like the darker ink on a real slide, whose median lets 0.30, 0.67 and 0.68 through.
    truth.image[:, :80] = np.rint(truth.image[:, :80] * (0.15, 0.62, 0.66)).astype(np.uint8)
    refused = try_fit(truth.image, "HE")
    assert isinstance(refused, FitFailure)
    assert refused.status is StainStatus.NOT_TISSUE
    assert "HE" in refused.reason
    assert "green or teal marker ink" in refused.reason


def test_another_stain_without_ink_is_not_called_ink() -> None:
    brown = section(1, dyes=((0.65, 0.70, 0.29), (0.27, 0.57, 0.78)))
    refused = try_fit(brown.image, "HE")
    assert isinstance(refused, FitFailure)
    assert "ink" not in refused.reason


def test_h_dab_is_fitted_by_its_own_prior() -> None:
    truth = section(1, dyes=((0.65, 0.70, 0.29), (0.27, 0.57, 0.78)))
    assert worst_angle(fit(truth.image, "H-DAB").stain_matrix, truth.stain_matrix) < 1.0


def test_images_of_a_slide_are_fitted_together() -> None:
    truths = [section(seed) for seed in range(3)]
    together = fit_many((truth.image for truth in truths), "HE", source="s1")
    assert worst_angle(together.stain_matrix, truths[0].stain_matrix) < 1.0
    assert together.n_sources == 3
    assert together.source == "s1"


def test_a_blank_crop_does_not_spoil_its_slide() -> None:
    truth = section(1)
    blank = np.full((64, 64, 3), 241, dtype=np.uint8)
    together = fit_many([blank, truth.image], "HE")
    assert worst_angle(together.stain_matrix, truth.stain_matrix) < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_jpeg_do_not_move_the_stains_of_a_slide(seed: int) -> None:
    file = io.BytesIO()  # each block of 8 by 8 pixels errs alike, and most widths are multiples
    Image.fromarray(section(seed, size=1024).image).save(file, "JPEG", quality=50)
    image = np.array(Image.open(file))
    own = fit(image, "HE")
    together = fit_many([image], "HE", white=np.array(own.white))
    assert worst_angle(together.stain_matrix, own.stain_matrix) < 0.1


def test_an_empty_list_of_images_is_rejected() -> None:
    assert isinstance(try_fit_many([], "HE"), FitFailure)
    with pytest.raises(StainError, match="s9: blank"):
        fit_many([], "HE", source="s9")


def test_the_paper_preset_changes_stains_a_little() -> None:
    truth = section(4)
    recommended, paper = fit(truth.image, "HE"), fit(truth.image, "HE", parameters=PAPER)
    assert 0.1 < worst_angle(recommended.stain_matrix, paper.stain_matrix) < 4.0


def test_known_stains_are_not_used_where_there_is_no_tissue() -> None:
    truth = section(1)
    known = fit(truth.image, "HE")
    assert check_tissue(truth.image, known) is known
    refused = check_tissue(np.full((50, 50, 3), 240, np.uint8), known)
    assert isinstance(refused, FitFailure)
