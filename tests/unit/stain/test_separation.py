from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.errors import StainError
from glomerulab.stain.optical_density import find_tissue
from glomerulab.stain.separation import (
    MAX_SAMPLED_PASSES,
    concentrations,
    even_sample,
    macenko_stains,
    objective,
    solve,
    solve_tissue,
)
from tests.support.beer_lambert import HE, PAS, section, unit_rows, worst_angle


def test_dyes_are_found_within_a_few_degrees() -> None:
    truth = section(1)
    found = macenko_stains(find_tissue(truth.image, truth.white).full_density())
    assert worst_angle(found, truth.stain_matrix) < 4.0
    assert found[0, 0] > found[0, 1]
    assert np.linalg.norm(found, axis=0) == pytest.approx([1.0, 1.0])


def test_one_colour_is_an_error() -> None:
    with pytest.raises(StainError, match="one colour"):
        macenko_stains(np.full((3, 500), 0.4, dtype=np.float32))


def test_too_few_pixels_are_an_error() -> None:
    with pytest.raises(StainError, match="too few"):
        macenko_stains(np.ones((3, 2), dtype=np.float32))


def test_an_even_sample_is_evenly_spaced_and_small_enough() -> None:
    density = np.arange(3000, dtype=np.float32).reshape(3, 1000)
    sample = even_sample(density, 300)
    assert sample[0].tolist() == list(range(0, 1000, 5))  # odd: JPEG repeats every eight pixels
    assert np.array_equal(even_sample(density, 5000), density)


def test_the_dyes_are_found() -> None:
    truth = section(1)
    solved = solve(find_tissue(truth.image, truth.white).full_density(), sparsity=0.02)
    assert worst_angle(solved.stain_matrix, truth.stain_matrix) < 1.0


def test_the_same_pixels_give_the_same_result_to_the_last_bit() -> None:
    truth = section(2)
    density = find_tissue(truth.image, truth.white).full_density()
    one, other = (solve(density, sparsity=0.02) for _ in range(2))
    assert np.array_equal(one.stain_matrix, other.stain_matrix)
    assert one.objective == other.objective


def test_the_objective_is_that_of_the_paper_at_the_solution() -> None:
    truth = section(3)
    density = find_tissue(truth.image, truth.white).full_density()
    solved = solve(density, sparsity=0.1)
    exact = objective(density.T.astype(float), solved.stain_matrix, sparsity=0.1)
    assert solved.objective == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_callers_start_is_never_changed(order: Literal["C", "F"]) -> None:
    truth = section(4)
    start = np.array(unit_rows(PAS).T * 2.0, order=order)
    given = start.copy()
    solve(find_tissue(truth.image, truth.white).full_density(), sparsity=0.02, start=start)
    assert np.array_equal(start, given)


def test_a_handful_of_passes_is_enough() -> None:
    truth = section(4, size=512)
    assert solve(find_tissue(truth.image, truth.white).full_density(), sparsity=0.02).n_passes <= 5


@pytest.mark.parametrize("sparsity", [0.02, 0.1])
@pytest.mark.parametrize("glass", [0.2, 0.95])
def test_a_large_image_ends_at_the_optimum_of_all_its_pixels(sparsity: float, glass: float) -> None:
    truth = section(5, size=900, glass=glass, nuclei=0.05)
    density = find_tissue(truth.image, truth.white).full_density()
    tissue = find_tissue(truth.image, truth.white)
    assert (tissue.pixels is None) == (glass > 0.9)  # too little tissue to take a sample of
    solved = solve_tissue(tissue, sparsity=sparsity)
    assert solved.n_px == density.shape[1]
    polished = solve(density, sparsity=sparsity, start=solved.stain_matrix).stain_matrix
    exact = density.T.astype(float)
    best = objective(exact, polished, sparsity=sparsity)
    assert objective(exact, solved.stain_matrix, sparsity=sparsity) <= best * (1.0 + 1e-9)
    assert solved.objective == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("sparsity", [0.02, 0.1])
def test_a_misleading_sample_does_not_prevent_the_optimum(sparsity: float) -> None:
    truth, other = section(1, size=900), section(2, size=900, dyes=PAS)
    image = truth.image.copy()
    image.reshape(-1, 3)[::3] = other.image.reshape(-1, 3)[::3]  # all that the sample meets
    tissue = find_tissue(image, truth.white)
    assert tissue.pixels is not None
    density = find_tissue(image, truth.white).full_density()
    solved = solve_tissue(tissue, sparsity=sparsity)
    assert solved.n_px == density.shape[1]
    assert solved.n_passes > MAX_SAMPLED_PASSES
    polished = solve(density, sparsity=sparsity, start=solved.stain_matrix).stain_matrix
    exact = density.T.astype(float)
    best = objective(exact, polished, sparsity=sparsity)
    assert objective(exact, solved.stain_matrix, sparsity=sparsity) <= best * (1.0 + 1e-9)


def test_one_colour_cannot_be_separated() -> None:
    with pytest.raises(StainError):
        solve(np.full((3, 4000), 0.5, np.float32), sparsity=0.02)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.0, 0.3),
    st.sampled_from([HE, PAS]),
)
def test_amounts_satisfy_the_conditions_of_optimality(seed: int, sparsity: float, dyes) -> None:
    density = np.random.default_rng(seed).exponential(0.5, (50, 3))
    matrix = unit_rows(dyes).T
    amounts = concentrations(density, matrix, sparsity=sparsity)
    slope = (amounts @ matrix.T - density) @ matrix + sparsity  # (50, 2)
    assert amounts.min() >= 0.0
    assert slope.min() >= -1e-9  # nothing is to be gained by more of a stain
    assert np.abs(slope * amounts).max() <= 1e-9  # nor by less


def test_amounts_keep_the_shape_of_the_image() -> None:
    density = np.random.default_rng(0).exponential(0.5, (4, 5, 3))
    assert concentrations(density, unit_rows(HE).T, sparsity=0.0).shape == (4, 5, 2)


def test_more_sparsity_leaves_less_stain() -> None:
    density = np.random.default_rng(0).exponential(0.5, (1000, 3))
    totals = [
        concentrations(density, unit_rows(HE).T, sparsity=sparsity).sum()
        for sparsity in (0.0, 0.1, 0.3)
    ]
    assert totals == sorted(totals, reverse=True)
