"""DeLong against published numbers and against its definition, term by term.

pROC's aSAH data are not copied here (GPL). Computed on them by hand: s100b 0.7314 (0.6301 to
0.8326), wfns 0.8237, ndka 0.6120; wfns against s100b z = 2.209, p = 0.02718, as its manual prints.
"""

import numpy as np
import pytest

from glomerulab.evaluation.comparison import delong_area, delong_difference

# Hanley & McNeil, Radiology 143:29-36, 1982, Table I: 109 CT images rated 1 to 5.
NORMAL = {1: 33, 2: 6, 3: 6, 4: 11, 5: 2}
ABNORMAL = {1: 3, 2: 2, 3: 2, 4: 11, 5: 33}


def _ratings():
    scores = [r for counts in (NORMAL, ABNORMAL) for r, n in counts.items() for _ in range(n)]
    labels = [0] * sum(NORMAL.values()) + [1] * sum(ABNORMAL.values())
    return np.array(labels, dtype=float), np.array(scores, dtype=float)


def test_the_ct_ratings_give_what_the_stata_manual_prints_for_them():
    # Stata Base Reference Manual, roctab, example 1 (DeLong's standard error).
    area = delong_area(*_ratings())
    assert area.auc == pytest.approx(0.8932, abs=5e-5)
    assert area.standard_error == pytest.approx(0.0307, abs=5e-5)
    assert area.low == pytest.approx(0.83295, abs=5e-6)
    assert area.high == pytest.approx(0.95339, abs=5e-6)


def _by_definition(labels, scores):
    """Covariance of areas from the kernel of every pair, as in DeLong et al. 1988, eq. (5)."""
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    kernel = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (
        positive[:, :, None] == negative[:, None, :]
    )
    v10, v01 = kernel.mean(axis=2), kernel.mean(axis=1)
    return kernel.mean(axis=(1, 2)), np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


def test_ranks_give_the_variance_of_the_definition():
    rng = np.random.default_rng(4)
    labels = (rng.random(90) < 0.4).astype(float)
    scores = np.round(labels + rng.normal(size=(2, 90)), 1)  # with ties
    areas, covariance = _by_definition(labels, scores)
    for k in (0, 1):
        found = delong_area(labels, scores[k])
        assert found.auc == pytest.approx(areas[k])
        assert found.standard_error == pytest.approx(np.sqrt(covariance[k, k]))
    found = delong_difference(labels, scores[0], scores[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert found.difference == pytest.approx(areas[0] - areas[1])
    assert found.standard_error == pytest.approx(np.sqrt(variance))


def test_the_standard_error_is_the_spread_over_repeated_studies():
    rng = np.random.default_rng(8)
    labels = np.repeat([0.0, 1.0], 60)
    studies = [delong_area(labels, labels + rng.normal(size=120)) for _ in range(600)]
    spread = np.std([study.auc for study in studies])
    assert np.mean([study.standard_error for study in studies]) == pytest.approx(spread, rel=0.08)
