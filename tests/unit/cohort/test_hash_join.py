"""The search for near hashes against a count of every pair, bit by bit."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.cohort import hash_join
from glomerulab.cohort.hash_join import near_pairs, pack_hashes, same_rows

Bits = npt.NDArray[np.bool_]
N_BITS = 256


def _every_pair(hashes: Bits, others: Bits, max_distance: int) -> set[tuple[int, int, int]]:
    """Compare all, with one matrix product per orientation."""
    ours = np.where(hashes, 1.0, -1.0).astype(np.float32)
    least = np.full((len(hashes), len(others)), N_BITS)
    for turned in np.moveaxis(others, 1, 0):
        theirs = np.where(turned, 1.0, -1.0).astype(np.float32)
        least = np.minimum(least, ((N_BITS - ours @ theirs.T) / 2).astype(int))
    return {(int(i), int(j), int(least[i, j])) for i, j in np.argwhere(least <= max_distance)}


def _found(
    hashes: Bits, others: Bits, max_distance: int, **options: int
) -> list[tuple[int, int, int]]:
    pairs = near_pairs(
        pack_hashes(hashes),
        pack_hashes(others),
        max_distance=max_distance,
        max_pairs=options.pop("max_pairs", 1_000_000),
        **options,
    )
    return [(int(i), int(j), int(d)) for i, j, d in pairs]


def _random_hashes(rng: np.random.Generator, n: int) -> Bits:
    return rng.integers(0, 2, (n, 8, N_BITS)).astype(bool)


def _altered(rng: np.random.Generator, bits: Bits, n_flipped: int) -> Bits:
    altered = bits.copy()
    altered[rng.choice(N_BITS, n_flipped, replace=False)] ^= True
    return altered


@pytest.fixture
def _indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the hashes into blocks, however few they are."""
    monkeypatch.setattr(hash_join, "N_BLOCKS", (17,))
    monkeypatch.setattr(hash_join, "N_COMPARED_AT_ONCE", -1)
    monkeypatch.setattr(hash_join, "COMPARE_NS", 1e9)
    monkeypatch.setattr(hash_join, "VISIT_NS", 0.0)


@pytest.mark.usefixtures("_indexed")
@pytest.mark.parametrize("n_threads", [1, 3])
def test_every_copy_up_to_the_limit_is_found_once_in_its_best_orientation(
    rng: np.random.Generator, n_threads: int
) -> None:
    others = _random_hashes(rng, 60)
    copies = [
        _altered(rng, others[row, rng.integers(8)], n_flipped)
        for row, n_flipped in enumerate(range(20, 70))
    ]
    hashes = np.stack([*copies, *_random_hashes(rng, 30)[:, 0]])
    found = _found(hashes, others, 48, n_threads=n_threads)
    assert len(found) == len(set(found)) == 29  # 20 to 48 bits
    assert set(found) == _every_pair(hashes, others, 48)


@pytest.mark.usefixtures("_indexed")
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_sources=st.integers(1, 4),
    most_flipped=st.integers(0, 60),
    max_distance=st.integers(0, 60),
)
def test_clusters_of_alike_hashes_are_compared_as_all_pairs_are(
    seed: int, n_sources: int, most_flipped: int, max_distance: int
) -> None:
    rng = np.random.default_rng(seed)
    sources = _random_hashes(rng, n_sources)
    others = sources[rng.integers(n_sources, size=20)]
    for one in others.reshape(-1, N_BITS):
        one[:] = _altered(rng, one, rng.integers(most_flipped + 1))
    hashes = others[:12, rng.integers(8)]
    found = _found(hashes, others, max_distance)
    assert len(found) == len(set(found))
    assert set(found) == _every_pair(hashes, others, max_distance)


@pytest.mark.parametrize("n_blocks", hash_join.N_BLOCKS)
@pytest.mark.parametrize("max_distance", [0, 7, 48])
def test_no_way_to_spread_the_bits_escapes_all_blocks(n_blocks: int, max_distance: int) -> None:
    blocks = hash_join._blocks(n_blocks, max_distance)
    assert sum(block.radius + 1 for block in blocks) == max_distance + 1
    places = [place for one in blocks for place in range(one.start, one.start + one.width)]
    assert len(places) == len(set(places))
    masks = blocks[0].masks()
    assert len(set(masks)) == len(masks) == blocks[0].n_masks()


def test_the_search_ends_at_the_largest_number_of_pairs(rng: np.random.Generator) -> None:
    others = np.repeat(_random_hashes(rng, 1), 50, axis=0)
    assert len(_found(others[:, 0], others, 48, max_pairs=30)) == 30


def test_equal_rows_are_found_and_others_are_not(rng: np.random.Generator) -> None:
    table = rng.integers(0, 3, (500, 2)).astype(np.uint64)
    table[:, 0] += np.uint64(1 << 63)
    first = same_rows(table)
    assert np.array_equal(table[first], table)
    assert (first <= np.arange(len(table))).all()
    assert len(np.unique(first)) == len(np.unique(table, axis=0)) == 9
