"""The stain solver against others that minimise the same objective."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize, nnls
from sklearn.decomposition import NMF, MiniBatchDictionaryLearning, SparseCoder

from glomerulab.images import read_image
from glomerulab.stain.optical_density import estimate_white, find_tissue
from glomerulab.stain.separation import concentrations, even_sample, objective, solve
from tests.support.beer_lambert import HE, section, unit_rows

GAP = 1e-9


def _density(seed: int, n_px: int = 3000) -> np.ndarray:
    truth = section(seed)
    return even_sample(find_tissue(truth.image, truth.white).full_density(), n_px)


def _relative_gap(
    density: np.ndarray, ours: np.ndarray, theirs: np.ndarray, sparsity: float
) -> float:
    exact = density.T.astype(np.float64)
    best = objective(exact, theirs, sparsity=sparsity)
    return (objective(exact, ours, sparsity=sparsity) - best) / best


def _polished(density: np.ndarray, start: np.ndarray, sparsity: float) -> np.ndarray:
    """Minimise the same objective over six numbers with SciPy, bounded below by zero."""
    exact = density.T.astype(np.float64)

    def value(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = numbers.reshape(3, 2)
        norms = np.linalg.norm(matrix, axis=0)
        unit = matrix / norms
        if unit[:, 0] @ unit[:, 1] > 1.0 - 1e-9:  # one dye twice: the amounts are not defined
            return float(np.sum(exact**2)), np.zeros(6)
        amounts = concentrations(exact, unit, sparsity=sparsity)
        residual = exact - amounts @ unit.T
        slope = -residual.T @ amounts  # envelope theorem: the amounts are optimal
        tangent = (slope - unit * np.sum(unit * slope, axis=0)) / norms
        return (
            0.5 * float(np.sum(residual**2)) + sparsity * float(amounts.sum()),
            tangent.ravel(),
        )

    found = minimize(
        value,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(1e-12, None)] * 6,
        options={"maxiter": 500, "ftol": 1e-15, "gtol": 1e-10},
    )
    matrix = found.x.reshape(3, 2)
    return matrix / np.linalg.norm(matrix, axis=0)


@pytest.mark.parametrize("sparsity", [0.02, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_scipy_from_many_starts_finds_nothing_better(seed: int, sparsity: float) -> None:
    density = _density(seed)
    ours = solve(density, sparsity=sparsity).stain_matrix
    rng = np.random.default_rng(seed)
    starts = [ours, unit_rows(HE).T, *(rng.dirichlet((2, 2, 2), 2).T for _ in range(6))]
    for start in starts:
        theirs = _polished(density, start, sparsity)
        assert _relative_gap(density, ours, theirs, sparsity) <= GAP


@pytest.mark.parametrize("sparsity", [0.02, 0.1])
def test_dictionary_learning_turned_the_right_way_is_never_better(sparsity: float) -> None:
    # Samples are pixels, atoms are dyes, the penalty falls on the amounts: eq. (9).
    density = _density(1)
    ours = solve(density, sparsity=sparsity).stain_matrix
    learner = MiniBatchDictionaryLearning(
        n_components=2,
        alpha=sparsity,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        positive_code=True,
        positive_dict=True,
        max_iter=60,
        random_state=0,
        dict_init=unit_rows(HE),
    )
    theirs = learner.fit(density.T.astype(np.float64)).components_.T
    theirs = theirs / np.linalg.norm(theirs, axis=0)
    assert _relative_gap(density, ours, theirs, sparsity) <= GAP


def test_without_sparsity_nmf_is_never_better() -> None:
    density = _density(2)
    ours = solve(density, sparsity=0.0).stain_matrix
    exact = density.T.astype(np.float64)
    learner = NMF(2, init="nndsvda", max_iter=2000, tol=0.0, random_state=0)
    learner.fit(exact)
    theirs = learner.components_.T / np.linalg.norm(learner.components_.T, axis=0)
    assert _relative_gap(density, ours, theirs, 0.0) <= GAP


@pytest.mark.parametrize("sparsity", [0.01, 0.1])
def test_amounts_are_those_of_scikit_learns_lasso(sparsity: float) -> None:
    density = _density(3, 200).T.astype(np.float64)
    coder = SparseCoder(
        unit_rows(HE),
        transform_algorithm="lasso_cd",
        transform_alpha=sparsity,
        positive_code=True,
        transform_max_iter=5000,
    )
    theirs = coder.transform(density)
    assert np.allclose(
        concentrations(density, unit_rows(HE).T, sparsity=sparsity), theirs, atol=1e-4
    )


def test_without_sparsity_amounts_are_non_negative_least_squares() -> None:
    density = _density(4, 200).T.astype(np.float64)
    theirs = np.array([nnls(unit_rows(HE).T, pixel)[0] for pixel in density])
    assert np.allclose(concentrations(density, unit_rows(HE).T, sparsity=0.0), theirs, atol=1e-9)


def _real_images(real_data: Path) -> list[Path]:
    kidney = sorted((real_data / "kidney_compartments").glob("*/*/*[0-9].png"))
    colon = sorted((real_data / "glas_colon_he" / "images").iterdir())
    fields = sorted((real_data / "stain").iterdir())
    return [*kidney, *fields, *colon]


def _check_optimum(path: Path, sparsity: float, n_starts: int) -> float:
    """Return the relative gap of ours to the best of many runs of SciPy."""
    image = read_image(path)
    density = find_tissue(image, estimate_white(image)).full_density()
    ours = solve(density, sparsity=sparsity).stain_matrix
    # Starts are compared on a sample; what wins there is polished on all pixels.
    sample = even_sample(density, 4000)
    rng = np.random.default_rng(0)
    starts = [ours, unit_rows(HE).T, *(rng.dirichlet((2, 2, 2), 2).T for _ in range(n_starts))]
    tried = [_polished(sample, start, sparsity) for start in starts]
    exact = sample.T.astype(np.float64)
    best = min(tried, key=lambda matrix: objective(exact, matrix, sparsity=sparsity))
    contestants = [_polished(density, ours, sparsity), _polished(density, best, sparsity)]
    return max(_relative_gap(density, ours, theirs, sparsity) for theirs in contestants)


@pytest.mark.real
@pytest.mark.parametrize("sparsity", [0.02, 0.1])
def test_real_images_end_at_the_best_known_optimum(real_data: Path, sparsity: float) -> None:
    paths = _real_images(real_data)[::25]
    gaps = {path.name: _check_optimum(path, sparsity, n_starts=3) for path in paths}
    assert max(gaps.values()) <= GAP, gaps


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("sparsity", [0.02, 0.1])
def test_every_real_image_ends_at_the_best_known_optimum(real_data: Path, sparsity: float) -> None:
    paths = _real_images(real_data)
    assert len(paths) >= 280
    gaps = {path.name: _check_optimum(path, sparsity, n_starts=5) for path in paths}
    worse = {name: gap for name, gap in gaps.items() if gap > GAP}
    assert worse == {}
