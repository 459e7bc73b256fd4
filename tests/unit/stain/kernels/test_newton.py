import numpy as np
import pytest

from glomerulab.stain.kernels import solver as kernels
from glomerulab.stain.kernels import solver as newton
from glomerulab.stain.separation import objective
from tests.support.beer_lambert import HE, section, unit_rows

START = unit_rows(((0.55, 0.70, 0.46), (0.20, 0.90, 0.25)))


@pytest.fixture
def density() -> np.ndarray:
    truth = section(11, size=64)
    light = np.maximum(truth.image.reshape(-1, 3), 1.0)
    return np.maximum(np.log(truth.white / light), 0.0).T.astype(np.float32).copy()


def _step(density: np.ndarray, stains: np.ndarray, sparsity: float):
    moments, candidate = np.empty((3, newton.N_MOMENTS)), np.empty((2, 3))
    kernels.sum_moments(*density, stains, sparsity, moments)
    value, decrease = newton.newton_step(moments, stains, sparsity, 0.0, candidate)
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
    moments, candidate = np.empty((3, newton.N_MOMENTS)), np.empty((2, 3))
    kernels.sum_moments(*density, START, 0.05, moments)
    newton.newton_step(moments, START, 0.05, 1e8, candidate)
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
