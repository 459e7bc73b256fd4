import numpy as np
import pytest

from glomerulab.errors import StainError
from glomerulab.stain.reference import MIN_SEPARATION_DEGREES, STAIN_PRIORS, prior_of


@pytest.mark.parametrize("stain", ["HE", "PAS", "PASM", "TRI", "H-DAB"])
def test_every_stain_lists_the_dye_of_higher_red_first(stain: str) -> None:
    matrix = prior_of(stain).stain_matrix
    assert matrix.shape == (3, 2)
    assert np.linalg.norm(matrix, axis=0) == pytest.approx([1.0, 1.0])
    assert matrix[0, 0] > matrix[0, 1]


@pytest.mark.parametrize("prior", STAIN_PRIORS.values(), ids=lambda prior: prior.stain)
def test_dyes_of_a_stain_are_farther_apart_than_the_gate(prior) -> None:
    cosine = prior.stain_matrix[:, 0] @ prior.stain_matrix[:, 1]
    assert np.degrees(np.arccos(cosine)) > 1.5 * MIN_SEPARATION_DEGREES


def test_an_unknown_stain_names_the_known_ones() -> None:
    with pytest.raises(StainError, match="unknown stain 'IHC'; known are: HE, PAS, PASM, TRI"):
        prior_of("IHC")


def test_who_changes_a_prior_changes_a_copy() -> None:
    matrix = prior_of("HE").stain_matrix
    kept = matrix.copy()
    matrix[:] = 0.0
    assert np.array_equal(prior_of("HE").stain_matrix, kept)
