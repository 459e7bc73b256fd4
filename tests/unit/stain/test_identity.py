from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.errors import StainError
from glomerulab.images import read_image
from glomerulab.stain.fitting import FitFailure, StainStatus, fit, fit_many, try_fit
from glomerulab.stain.identity import SIGNATURE_NAMES, Signatures, looks_like, signature
from glomerulab.stain.normalize import normalize
from glomerulab.stain.reference import PAPER, STAIN_PRIORS, StainParameters
from tests.support.beer_lambert import HE, PAS, section

OF_KIDNEY = {"HE": "he", "PAS": "pas", "PASM": "sil", "TRI": "tri"}


@pytest.mark.parametrize("strength", [0.4, 1.0, 1.5])
def test_the_signature_does_not_depend_on_the_strength_of_the_stain(strength: float) -> None:
    density = np.random.default_rng(0).gamma(2.0, 0.4, (3, 5000)).astype(np.float32)
    matrix = np.array(HE).T / np.linalg.norm(HE, axis=1)
    one = signature(density, matrix, (1.2, 0.8))
    other = signature(strength * density, matrix, (strength * 1.2, strength * 0.8))
    assert one.shape == (len(SIGNATURE_NAMES),)
    assert np.allclose(one, other, atol=1e-5)


def test_the_nearest_stain_is_reported_once_it_is_ten_times_likelier() -> None:
    n = len(SIGNATURE_NAMES)
    apart = np.zeros(n)
    apart[2] = 5.0
    signatures = Signatures(
        {"HE": np.zeros(n), "PAS": apart}, {s: np.eye(n) for s in ("HE", "PAS")}
    )
    other = looks_like(apart, "HE", signatures)
    assert other is not None
    assert other[0] == "PAS"
    assert other[1] == pytest.approx((1 + 25 / 4) ** ((4 + n) / 2))
    assert looks_like(apart, "PAS", signatures) is None
    assert looks_like(apart / 2, "HE", signatures) is None  # as likely for both


@pytest.mark.parametrize(
    "parameters", [StainParameters(), PAPER, StainParameters(method="macenko")]
)
def test_synthetic_pas_stated_as_he_is_another_stain_with_every_method(
    parameters: StainParameters,
) -> None:
    he, pas = section(1, dyes=HE).image, section(1, dyes=PAS).image
    assert not isinstance(try_fit(he, "HE", parameters=parameters), FitFailure)
    found = try_fit(pas, "HE", parameters=parameters)
    assert isinstance(found, FitFailure)
    assert found.status is StainStatus.OTHER_STAIN
    assert "PAS" in found.reason
    assert not isinstance(try_fit(pas, "PAS", parameters=parameters), FitFailure)


def test_another_stain_is_an_error_of_the_fit_unless_the_caller_trusts_it() -> None:
    pas = section(2, dyes=PAS).image
    with pytest.raises(StainError, match="other_stain"):
        fit(pas, "HE")
    with pytest.raises(StainError, match="other_stain"):
        fit_many([pas, pas], "HE")
    assert fit(pas, "HE", check_stain=False).stain == "HE"


def test_another_stain_keeps_its_colours_whatever_its_slide_looks_like() -> None:
    pas = section(3, dyes=PAS).image
    target = fit(section(4).image, "HE")
    result = normalize(pas, target)
    assert result.status is StainStatus.OTHER_STAIN
    assert np.array_equal(result.image, pas)
    with pytest.raises(StainError, match="other_stain"):
        normalize(pas, target, strict=True)
    of_slide = normalize(pas, target, fallback=fit(section(5).image, "HE"))
    assert of_slide.status is StainStatus.OTHER_STAIN


@pytest.mark.real
def test_real_kidney_sections_are_accepted_as_their_stain_and_refused_as_another(
    real_data: Path,
) -> None:
    rows = []
    for stain, folder in OF_KIDNEY.items():
        for path in sorted((real_data / "kidney_compartments").glob(f"*/{folder}/*[0-9].png")):
            image = read_image(path)
            rows.append(
                {"stain": stain}
                | {s: isinstance(try_fit(image, s), FitFailure) for s in STAIN_PRIORS}
            )
    table = pd.DataFrame(rows)
    refused = table.groupby("stain").mean()
    assert refused.loc["HE", "HE"] <= 0.04
    assert refused.loc["PAS", "PAS"] == refused.loc["TRI", "TRI"] == 0.0
    for true in ("PASM", "TRI"):
        for stated in ("HE", "PAS"):
            assert refused.loc[true, stated] >= 0.9
    assert refused.loc["PAS", "HE"] >= 0.8


@pytest.mark.real
def test_real_sections_in_other_colours_are_refused_as_he(real_data: Path) -> None:
    for name in ("cd34_39", "cd68", "ihc_40", "jones", "sirius_red"):
        image = read_image(real_data / "eleven_stains" / f"{name}.jpg")
        assert isinstance(try_fit(image, "HE"), FitFailure), name
        assert isinstance(try_fit(image, "PAS"), FitFailure), name
