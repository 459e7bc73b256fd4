"""Paired tests against published and hand-computed values."""

import pytest
from scipy.stats import binom, norm

from glomerulab.evaluation.comparison import holm, mcnemar_exact


def test_mcnemar_is_the_exact_binomial_test():
    # 2 * P(X <= 9 | 30, 1/2)
    assert mcnemar_exact(9, 21) == pytest.approx(2 * binom.cdf(9, 30, 0.5))
    assert mcnemar_exact(9, 21) == pytest.approx(0.0427739, abs=1e-7)


def test_mcnemar_of_agrestis_approval_ratings_agrees_with_its_large_sample_form():
    # Agresti, Categorical Data Analysis, Table 10.1: 150 and 86 changed their mind, z = -4.17
    z = (86 - 150) / (86 + 150) ** 0.5
    assert z == pytest.approx(-4.17, abs=0.005)
    assert mcnemar_exact(86, 150) == pytest.approx(2 * norm.cdf(z), rel=0.25)


def test_holm_gives_what_r_gives():
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm") is 0.04 0.06 0.06 0.06
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.001, 0.6]) == pytest.approx([1.0, 0.003, 1.0])
