"""Agreement against published tables and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from glomerulab.evaluation.agreement import group_agreement, pair_agreement

# Fleiss, Psychological Bulletin 76(5):378-382, 1971, table 1: 30 patients, 6 raters each;
# depression, personality disorder, schizophrenia, neurosis, other.
FLEISS_1971 = (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 "
    "00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"
)

# Gwet, Handbook of Inter-Rater Reliability, 4th edition, 2014: 12 units, 4 raters, 5 categories,
# with missing ratings (a dot).
GWET_4_RATERS = "11.1 2232 3333 3333 2222 1234 4444 1121 2222 .555 ..11 ..3."


def _ratings_of_counts(counts: list[str]) -> np.ndarray:
    rows = [np.repeat(np.arange(len(row)), [int(digit) for digit in row]) for row in counts]
    return np.array(rows, dtype=float)


def test_fleiss_kappa_is_that_of_fleiss() -> None:
    ratings = _ratings_of_counts(FLEISS_1971.split())
    assert ratings.shape == (30, 6)
    found = group_agreement(ratings, np.arange(30), n_categories=5)
    assert found.percent[0] == pytest.approx(0.556, abs=5e-4)
    assert found.fleiss[0] == pytest.approx(0.430, abs=5e-4)


def test_ac1_and_fleiss_kappa_with_missing_ratings_are_those_of_gwet() -> None:
    ratings = np.array(
        [
            [np.nan if digit == "." else int(digit) - 1 for digit in row]
            for row in GWET_4_RATERS.split()
        ]
    )
    found = group_agreement(ratings, np.arange(12), n_categories=5)
    assert found.percent[0] == pytest.approx(0.81818, abs=5e-6)
    assert found.ac1[0] == pytest.approx(0.77544, abs=5e-6)
    assert found.fleiss[0] == pytest.approx(0.76117, abs=5e-6)


@pytest.mark.parametrize("n_categories", [2, 3, 16])
def test_cohens_kappa_is_that_of_scikit_learn(n_categories: int, rng: np.random.Generator) -> None:
    for _ in range(20):
        first = rng.integers(n_categories, size=60).astype(float)
        second = np.where(rng.random(60) < 0.6, first, rng.integers(n_categories, size=60))
        found = pair_agreement(first, second, np.arange(60), n_categories=n_categories)
        assert found.cohen[0] == pytest.approx(cohen_kappa_score(first, second))
