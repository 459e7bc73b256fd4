import numpy as np
import pytest

from glomerulab.stain.kernels import solver as kernels
from glomerulab.stain.optical_density import find_tissue, pixel_tables
from glomerulab.stain.separation import objective
from tests.support.beer_lambert import HE, section, unit_rows

START = unit_rows(((0.55, 0.70, 0.46), (0.20, 0.90, 0.25)))
NOTHING = np.zeros((3, kernels.N_MOMENTS))


@pytest.fixture
def density() -> np.ndarray:
    truth = section(11, size=64)
    light = np.maximum(truth.image.reshape(-1, 3), 1.0)
    return np.maximum(np.log(truth.white / light), 0.0).T.astype(np.float32).copy()


def _step(density: np.ndarray, stains: np.ndarray, sparsity: float):
    moments, candidate = np.empty((3, kernels.N_MOMENTS)), np.empty((2, 3))
    kernels.sum_moments(*density, stains, sparsity, moments)
    value, decrease = kernels.newton_step(moments, stains, sparsity, 0.0, candidate)
    return value + 0.5 * float(np.sum(density.astype(float) ** 2)), decrease, candidate


def test_near_the_optimum_a_step_gains_what_it_promises(density: np.ndarray) -> None:
    stains = unit_rows(HE)
    for _ in range(3):
        _, _, stains = _step(density, stains, 0.05)
    nearby = stains + 1e-3 * np.random.default_rng(0).normal(size=(2, 3))
    nearby = np.maximum(nearby, 0) / np.linalg.norm(np.maximum(nearby, 0), axis=1, keepdims=True)
    exact = density.T.astype(float)
    before, promised, there = _step(density, nearby, 0.05)
    gained = objective(exact, nearby.T, sparsity=0.05) - objective(exact, there.T, sparsity=0.05)
    assert before > 0
    assert promised == pytest.approx(gained, rel=0.05)


def test_the_gradient_is_that_of_finite_differences(density: np.ndarray) -> None:
    # A heavily damped step is the steepest descent: its direction must agree.
    moments, candidate = np.empty((3, kernels.N_MOMENTS)), np.empty((2, 3))
    kernels.sum_moments(*density, START, 0.05, moments)
    kernels.newton_step(moments, START, 0.05, 1e8, candidate)
    taken = (candidate - START) / np.linalg.norm(candidate - START)
    exact = density.T.astype(float)

    def value(stains: np.ndarray) -> float:
        unit = stains / np.linalg.norm(stains, axis=1, keepdims=True)
        return objective(exact, unit.T, sparsity=0.05)

    slope = np.zeros((2, 3))
    for place in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[place] = 1e-5
        slope[place] = (value(START + step) - value(START - step)) / 2e-5
    steepest = -slope / np.linalg.norm(slope)
    assert float(np.sum(taken * steepest)) > 0.9999


@pytest.mark.parametrize("sparsity", [0.0, 0.02, 0.1])
def test_moments_give_the_objective(density: np.ndarray, sparsity: float) -> None:
    value, _, _ = _step(density, START, sparsity)
    exact = objective(density.T.astype(float), START.T, sparsity=sparsity)
    assert value == pytest.approx(exact, rel=2e-5)


def test_moments_count_each_pixel_in_one_set(density: np.ndarray) -> None:
    moments = np.empty((3, kernels.N_MOMENTS))
    kernels.sum_moments(*density, START, 0.0, moments)
    assert moments[:, 0].sum() <= density.shape[1]
    assert moments[:, 0].sum() >= 0.5 * density.shape[1]
    assert (moments[:, 0] == np.round(moments[:, 0])).all()


def test_a_component_at_zero_does_not_turn_negative() -> None:
    rng = np.random.default_rng(2)
    dyes = unit_rows(((0.8, 0.6, 0.0), (0.0, 0.6, 0.8)))
    amounts = rng.exponential(0.5, (4000, 2)) * (rng.random((4000, 2)) < 0.6)
    density = (amounts @ dyes).T.astype(np.float32).copy()
    stains = unit_rows(((0.7, 0.7, 0.1), (0.1, 0.7, 0.7)))
    red, green, blue = density
    kernels.descend(red, green, blue, stains, 0.0, 1e-9, 1.0, NOTHING)
    assert stains == pytest.approx(dyes, abs=2e-3)
    assert stains.min() >= 0.0


def test_descent_reports_its_passes_and_objective(density: np.ndarray) -> None:
    stains = START.copy()
    value, n_passes = kernels.descend(*density, stains, 0.02, 1e-8, 1.0, NOTHING)
    exact = objective(density.T.astype(float), stains.T, sparsity=0.02)
    assert value == pytest.approx(exact, rel=1e-4)
    assert 1 <= n_passes <= 15


def test_tissue_moments_are_those_of_the_gathered_density() -> None:
    truth = section(12, size=96, glass=0.4, border=0.2)  # 9,216 pixels: the last block is short
    tissue = find_tissue(truth.image, truth.white).full_density()
    gathered, blockwise = (np.empty((3, kernels.N_MOMENTS)) for _ in range(2))
    squares = kernels.sum_moments(*np.ascontiguousarray(tissue), START, 0.02, gathered)
    pixels, light = truth.image.reshape(-1, 3), pixel_tables(truth.white)
    squares_too, n = kernels.sum_tissue_moments(pixels, light, START, 0.02, blockwise)
    assert 0 < n == tissue.shape[1] < len(pixels)
    assert squares_too == pytest.approx(squares, rel=1e-6)
    assert squares == pytest.approx(np.sum(tissue.astype(float) ** 2), rel=1e-6)
    assert blockwise == pytest.approx(gathered, rel=1e-5)


def test_a_sample_represents_all_patients_where_the_rest_is_known(density: np.ndarray) -> None:
    # Twice the pixels of a sample, written as the sample itself and the moments of the other half.
    full, part = (np.empty((3, kernels.N_MOMENTS)) for _ in range(2))
    sample = np.ascontiguousarray(density[:, ::2])
    direct, by_sample = START.copy(), START.copy()
    kernels.descend(*density, direct, 0.02, 1e-10, 1.0, NOTHING)
    kernels.descend(*sample, by_sample, 0.02, 1e-10, 1.0, NOTHING)
    assert np.abs(by_sample - direct).max() > 1e-5
    kernels.sum_moments(*density, by_sample, 0.02, full)
    kernels.sum_moments(*sample, by_sample, 0.02, part)
    scale = density.shape[1] / sample.shape[1]
    kernels.descend(*sample, by_sample, 0.02, 1e-10, scale, full - scale * part)
    assert np.abs(by_sample - direct).max() < 1e-5
