"""Exact search for pairs of binary hashes that differ in few bits, by multi-index hashing.

Hashes are cut into blocks. Two hashes within the wanted distance are within a smaller distance in
at least one block, so only those with neighbouring values of a block are compared in whole.
Norouzi, Punjani and Fleet: Fast exact search in Hamming space with multi-index hashing, IEEE TPAMI
36 (2014), section 3.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from glomerulab.runtime.jit import I64, compiled

__all__ = ["near_pairs", "pack_hashes", "same_rows"]

Words = npt.NDArray[np.uint64]
Pairs = I64
"""Shape (n_pairs, 3): row, other row, distance."""

N_WORDS = 4
N_BITS = 64 * N_WORDS
SPREAD = 97
"""Odd, so that its multiples modulo `N_BITS` are a permutation of the bits. Those of neighbouring
frequencies resemble each other and come into different blocks."""

N_BLOCKS = range(11, 20)
N_COMPARED_AT_ONCE = 100_000_000
"""Pairs for which no index is worth its time."""
N_SAMPLED = 200_000
VISIT_NS, COMPARE_NS, SORT_NS = 10.0, 1.2, 60.0
"""Measured on an AMD EPYC: a neighbouring value, a comparison, a hash sorted by a block."""

ONE, TWO, FOUR, TOP = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
FIVES, THREES = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
MIX, HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
NIBBLES, ONES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive bits, and the distance in them up to which hashes are compared."""

    start: int
    width: int
    radius: int

    def masks(self) -> I64:
        """Return what a value is XORed with to reach its neighbours, the nearest first."""
        bits = [1 << place for place in range(self.width)]
        near = (chosen for n in range(self.radius + 1) for chosen in combinations(bits, n))
        return np.array([sum(chosen) for chosen in near], dtype=np.int64)

    def n_masks(self) -> int:
        return sum(comb(self.width, n) for n in range(self.radius + 1))


EVERYTHING = _Block(0, 0, 0)
"""The block of no bits: every pair is compared."""


def pack_hashes(bits: npt.NDArray[np.bool_]) -> Words:
    """Pack hashes of shape (..., 256) into uint64, shape (..., 4), for `near_pairs`."""
    spread = np.take(bits, np.arange(N_BITS) * SPREAD % N_BITS, axis=-1)
    packed: Words = np.ascontiguousarray(np.packbits(spread, axis=-1)).view(np.uint64)
    return packed


def same_rows(table: Words) -> I64:
    """Return for each row of words, shape (n, n_words), an earlier or the same row that equals it.

    Of rows that are equal, all but a few name one row.
    """
    key = _digests(table)
    return _first_of_runs(table, key, np.argsort(key, kind="stable"))


def near_pairs(
    hashes: Words, others: Words, *, max_distance: int, max_pairs: int, n_threads: int = 1
) -> Pairs:
    """Find the pairs of a hash and another that differ in few bits in any orientation.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (n, 4)
        From `pack_hashes`.
    others : ndarray of uint64, shape (m, n_orientations, 4)
    max_distance : int
        Of the best matching orientation.
    max_pairs : int
        The search ends when it has found as many.
    n_threads : int, default 1

    Returns
    -------
    ndarray of int64, shape (n_pairs, 3)
        Row, other row and distance of each pair, in no particular order; all of them if they are
        fewer than `max_pairs`.
    """
    if not len(hashes) or not len(others):
        return np.zeros((0, 3), dtype=np.int64)
    hashes, others = np.ascontiguousarray(hashes), np.ascontiguousarray(others)
    flat = others.reshape(-1, N_WORDS)
    blocks = _cheapest_blocks(hashes, flat, max_distance)
    bounds = np.array([(one.start, one.width, one.radius) for one in blocks], dtype=np.int64)
    found: list[Pairs] = []
    with ThreadPoolExecutor(n_threads) as pool:
        for number, block in enumerate(blocks):
            rows, _ = _counting_sort(hashes, block.start, block.width)
            flat_rows, flat_starts = _counting_sort(flat, block.start, block.width)
            join = partial(
                _join,
                flat=flat[flat_rows],
                flat_rows=flat_rows,
                flat_starts=flat_starts,
                others=others,
                earlier=bounds[:number],
                masks=block.masks(),
                max_distance=max_distance,
                max_pairs=max_pairs,
            )
            values = _values(hashes[rows], block.start, block.width).astype(np.int64)
            parts = [np.array_split(one, n_threads) for one in (hashes[rows], rows, values)]
            found += pool.map(join, *parts)
            del join  # a copy of the hashes, before the next one is made
            if sum(map(len, found)) >= max_pairs:
                break
    return np.concatenate(found)[:max_pairs]


def _cheapest_blocks(hashes: Words, flat: Words, max_distance: int) -> list[_Block]:
    """Return the blocks that take the least time, judged by a sample of pairs.

    Hashes of real images resemble each other more than random ones, so how many pairs a block lets
    through is measured.
    """
    n_pairs = len(hashes) * len(flat)
    if n_pairs <= N_COMPARED_AT_ONCE:
        return [EVERYTHING]
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, len(side), N_SAMPLED) for side in (hashes, flat))
    differing = hashes[one] ^ flat[other]
    best, least = [EVERYTHING], n_pairs * COMPARE_NS
    for n_blocks in N_BLOCKS:
        blocks = _blocks(n_blocks, max_distance)
        cost = 0.0
        for block in blocks:
            passed = np.bitwise_count(_values(differing, block.start, block.width)) <= block.radius
            by_chance = block.n_masks() / 2.0**block.width
            cost += len(hashes) * block.n_masks() * VISIT_NS + len(flat) * SORT_NS
            cost += n_pairs * max(float(passed.mean()), by_chance) * COMPARE_NS
        if cost < least:
            best, least = blocks, cost
    return best


def _blocks(n_blocks: int, max_distance: int) -> list[_Block]:
    """Cut the bits so that hashes within the distance agree, up to its radius, in some block.

    If every block differed in more than its radius, the hashes would differ in at least the sum of
    radius + 1, which is `max_distance` + 1.
    """
    edges = np.linspace(0, N_BITS, n_blocks + 1).astype(int)
    widths = np.diff(edges)
    radii = np.full(n_blocks, (max_distance + 1) // n_blocks - 1)
    widest_first = np.argsort(-widths, kind="stable")
    radii[widest_first[: (max_distance + 1) % n_blocks]] += 1
    return [
        _Block(int(start), int(width), int(radius))
        for start, width, radius in zip(edges[:-1], widths, radii, strict=True)
        if radius >= 0
    ]


def _values(table: Words, start: int, width: int) -> Words:
    word, shift = divmod(start, 64)
    values = table[:, word] >> np.uint64(shift)
    if shift + width > 64:
        values |= table[:, word + 1] << np.uint64(64 - shift)
    return values & np.uint64((1 << width) - 1)


@compiled
def _n_ones(word: np.uint64) -> np.uint64:
    """Count the bits that are set; compiled to the processor's instruction."""
    word -= (word >> ONE) & FIVES
    word = (word & THREES) + ((word >> TWO) & THREES)
    word = (word + (word >> FOUR)) & NIBBLES
    return (word * ONES) >> TOP


@compiled
def _value(words: Words, start: int, width: int) -> int:
    word, shift = start >> 6, start & 63
    value = words[word] >> np.uint64(shift)
    if shift + width > 64:
        value |= words[word + 1] << np.uint64(64 - shift)
    return int(value & ((ONE << np.uint64(width)) - ONE))


@compiled
def _counting_sort(table: Words, start: int, width: int) -> tuple[I64, I64]:
    """Return the rows in the order of a block's values, and where each value starts in it."""
    starts = np.zeros((1 << width) + 1, dtype=np.int64)
    for row in range(len(table)):
        starts[_value(table[row], start, width) + 1] += 1
    for value in range(1 << width):
        starts[value + 1] += starts[value]
    place = starts[:-1].copy()
    rows = np.empty(len(table), dtype=np.int64)
    for row in range(len(table)):
        value = _value(table[row], start, width)
        rows[place[value]] = row
        place[value] += 1
    return rows, starts


@compiled
def _distance(one: Words, other: Words) -> int:
    n = _n_ones(one[0] ^ other[0]) + _n_ones(one[1] ^ other[1])
    return int(n + _n_ones(one[2] ^ other[2]) + _n_ones(one[3] ^ other[3]))


@compiled
def _join(  # noqa: PLR0917 - compiled
    hashes: Words,
    rows: I64,
    values: I64,
    flat: Words,
    flat_rows: I64,
    flat_starts: I64,
    others: Words,
    earlier: I64,
    masks: I64,
    max_distance: int,
    max_pairs: int,
) -> Pairs:
    """Return the pairs whose block has a neighbouring value, unless an earlier block found them."""
    found = np.empty((max_pairs, 3), dtype=np.int64)
    n_found = 0
    limit = np.uint64(max_distance)
    # All hashes per mask: neighbouring values then lie in the order of the memory.
    for mask in masks:
        for index in range(len(hashes)):
            near = values[index] ^ mask
            a, b = hashes[index, 0], hashes[index, 1]
            for other in range(flat_starts[near], flat_starts[near + 1]):
                if _n_ones(a ^ flat[other, 0]) + _n_ones(b ^ flat[other, 1]) > limit:
                    continue
                if _distance(hashes[index], flat[other]) > max_distance:
                    continue
                row, orientation = divmod(flat_rows[other], others.shape[1])
                distance = _first_found(
                    hashes[index], others[row], orientation, earlier, max_distance
                )
                if distance < 0:
                    continue
                found[n_found, 0] = rows[index]
                found[n_found, 1] = row
                found[n_found, 2] = distance
                n_found += 1
                if n_found == max_pairs:
                    return found
    return found[:n_found]


@compiled
def _first_found(
    one: Words, other: Words, orientation: int, earlier: I64, max_distance: int
) -> int:
    """Return the distance over all orientations; -1 if an earlier block or orientation finds it."""
    for start, width, radius in earlier:
        differing = _value(one, start, width) ^ _value(other[orientation], start, width)
        if _n_ones(np.uint64(differing)) <= np.uint64(radius):
            return -1
    least = max_distance
    for k in range(len(other)):
        distance = _distance(one, other[k])
        if k < orientation and distance <= max_distance:
            return -1
        least = min(least, distance)
    return least


@compiled
def _digests(table: Words) -> Words:
    """Return a hash of each row; equal rows have equal ones."""
    digests = np.zeros(len(table), dtype=np.uint64)
    for row in range(len(table)):
        digest = np.uint64(0)
        for word in table[row]:
            digest = (digest ^ word) * MIX
            digest ^= digest >> HALF
        digests[row] = digest
    return digests


@compiled
def _first_of_runs(table: Words, digests: Words, order: I64) -> I64:
    first = order.copy()
    for place in range(len(order)):
        row = order[place]
        first[row] = row
        if place and digests[order[place - 1]] == digests[row]:
            earlier = first[order[place - 1]]
            if (table[earlier] == table[row]).all():
                first[row] = earlier
    return first
