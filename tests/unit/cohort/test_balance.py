from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glomerulab.cohort.balance import balanced_parts

SHARES = np.array([0.6, 0.2, 0.2])

EVERY_WAY = [np.array(parts) for parts in product(range(3), repeat=6) if set(parts) == {0, 1, 2}]


def _loss(counts: np.ndarray, shares: np.ndarray, parts: np.ndarray) -> float:
    """The definition, written without the tricks of the search."""
    totals = counts.sum(axis=0)
    loss = 0.0
    for part, share in enumerate(shares):
        wanted = share * totals
        has = counts[parts == part].sum(axis=0)
        loss += float((((has - wanted)[totals > 0] / wanted[totals > 0]) ** 2).sum())
    return loss


@settings(max_examples=30, deadline=None)
@given(counts=arrays(np.float64, (6, 3), elements=st.integers(0, 6)), seed=st.integers(0, 99))
def test_small_problems_are_solved_as_well_as_by_trying_everything(
    counts: np.ndarray, seed: int
) -> None:
    counts[:, 0] = np.maximum(counts[:, 0], 1)
    found = balanced_parts(counts, SHARES, np.ones(3), seed=seed)
    best = min(_loss(counts, SHARES, parts) for parts in EVERY_WAY)
    assert _loss(counts, SHARES, found) <= 1.1 * best + 1e-9


def test_no_move_or_swap_improves_what_is_returned(rng: np.random.Generator) -> None:
    counts = rng.integers(0, 10, (25, 4)).astype(np.float64)
    parts = balanced_parts(counts, SHARES, np.ones(4), seed=3)
    loss = _loss(counts, SHARES, parts)
    for group in range(25):
        for part in range(3):
            moved = parts.copy()
            moved[group] = part
            assert len(set(moved)) < 3 or _loss(counts, SHARES, moved) >= loss - 1e-9
        for other in range(group):
            swapped = parts.copy()
            swapped[[group, other]] = parts[[other, group]]
            assert _loss(counts, SHARES, swapped) >= loss - 1e-9


def test_a_column_of_weight_zero_does_not_count(rng: np.random.Generator) -> None:
    counts = np.column_stack([np.ones(30), rng.integers(0, 50, 30)]).astype(np.float64)
    parts = balanced_parts(counts, SHARES, np.array([1.0, 0.0]), seed=0)
    assert np.bincount(parts).tolist() == [18, 6, 6]


def test_no_part_is_empty_even_when_one_group_outweighs_all() -> None:
    counts = np.array([[1000.0], [1.0], [1.0]])
    assert set(balanced_parts(counts, SHARES, np.ones(1), seed=0)) == {0, 1, 2}


def test_fewer_groups_than_parts_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match=r"2 group\(s\) cannot fill 3 parts"):
        balanced_parts(np.ones((2, 1)), SHARES, np.ones(1), seed=0)
