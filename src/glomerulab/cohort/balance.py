"""Share indivisible groups out to parts so that everything counted is shared as wished.

Pure numbers: it does not know of patients, images or labels.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["balanced_parts"]

FloatArray = npt.NDArray[np.float64]
PartOfGroup = npt.NDArray[np.int64]

N_STARTS = (8, 24)
"""At least and at most: small problems have more bad dead ends and cost less."""
N_SWAP_CANDIDATES = 400
SMALLEST_GAIN = 1e-12


def balanced_parts(
    counts: npt.NDArray[np.float64], shares: FloatArray, weights: FloatArray, *, seed: int
) -> PartOfGroup:
    """Give every group a part so that each part has its share of every column.

    Parameters
    ----------
    counts : ndarray of float, shape (n_groups, n_columns)
        What each group holds of each thing to be balanced, at least 0.
    shares : ndarray of float, shape (n_parts,)
        Wanted share of each part, above 0, summing to 1.
    weights : ndarray of float, shape (n_columns,)
        How much a column matters, at least 0.
    seed : int
        Of the order in which groups are tried.

    Returns
    -------
    ndarray of int64, shape (n_groups,)
        Part of each group, from 0; no part is empty.

    Raises
    ------
    ValueError
        If there are fewer groups than parts.

    Notes
    -----
    Minimises the weighted sum, over parts and columns, of the squared relative difference between
    what a part has and what it should have. (Relative, since three images of a rare label then
    go to three parts rather than all to the largest.) Greedy assignment, largest groups first, then
    moves and swaps until none helps, from several seeded starts; the best is kept. The result
    depends on the order of the groups, so callers give them in an order of their own.
    """
    n_groups, n_parts = len(counts), len(shares)
    if n_groups < n_parts:
        raise ValueError(f"{n_groups} group(s) cannot fill {n_parts} parts")
    totals = counts.sum(axis=0)
    used = totals > 0
    scaled = counts[:, used] / totals[used] * np.sqrt(weights[used])  # (groups, columns)
    wanted = shares[:, np.newaxis] * np.sqrt(weights[used])  # (parts, columns)
    rng = np.random.default_rng(seed)
    best_parts, best_loss = None, np.inf
    n_starts = int(np.clip(1000 // n_groups, *N_STARTS))
    for start in range(n_starts):
        search = _Search(scaled, wanted, 1 / shares**2, rng, jitter=start / n_starts)
        search.fill_empty_parts()
        search.improve()
        loss = search.loss()
        if best_parts is None or loss < best_loss - SMALLEST_GAIN:
            best_parts, best_loss = search.parts, loss
    assert best_parts is not None
    return best_parts


class _Search:
    """One greedy start and its improvement; `excess` is what parts have above their share."""

    def __init__(
        self,
        scaled: FloatArray,
        wanted: FloatArray,
        part_weights: FloatArray,
        rng: np.random.Generator,
        *,
        jitter: float,
    ) -> None:
        self.scaled = scaled
        self.norms = (scaled**2).sum(axis=1)
        self.excess = -wanted
        self.part_weights = part_weights
        self.parts: PartOfGroup = np.empty(len(scaled), dtype=np.int64)
        self.rng = rng
        # From largest first to any order, so that the starts differ.
        tie_break = rng.permutation(len(scaled))
        rank = np.argsort(np.lexsort((tie_break, -self.norms))) / len(scaled)
        order = (1 - jitter) * rank + jitter * rng.uniform(0, 1, len(scaled))
        for group in np.argsort(order, kind="stable"):
            gain = 2 * self.excess @ scaled[group] + self.norms[group]
            part = int(np.argmin(part_weights * gain))
            self.parts[group] = part
            self.excess[part] += scaled[group]
        self.sizes = np.bincount(self.parts, minlength=len(wanted))

    def loss(self) -> float:
        """Return the weighted squared difference from the wanted shares."""
        return float(self.part_weights @ (self.excess**2).sum(axis=1))

    def fill_empty_parts(self) -> None:
        """Give each empty part the group that costs least to take from a part of several."""
        for part in np.flatnonzero(self.sizes == 0):
            change = self._change_of_moves()[:, part]
            change[self.sizes[self.parts] < 2] = np.inf
            self._move(int(np.argmin(change)), int(part))

    def improve(self) -> None:
        """Move or swap groups as long as the loss falls."""
        # Sampled swaps can miss one that helps: they get more than one chance.
        patience = 1 if len(self.parts) <= N_SWAP_CANDIDATES else 3
        failures = 0
        while failures < patience:
            if self._best_move() or self._best_swap():
                failures = 0
            else:
                failures += 1

    def _change_of_moves(self) -> FloatArray:
        """Return how the loss changes when a group goes to a part, shape (groups, parts)."""
        weights = self.part_weights
        along = self._along(self.scaled)
        here = np.take_along_axis(along, self.parts[:, np.newaxis], axis=1)
        both = weights[self.parts][:, np.newaxis] + weights
        change: FloatArray = 2 * (along - here) + self.norms[:, np.newaxis] * both
        change[np.arange(len(change)), self.parts] = 0.0
        return change

    def _best_move(self) -> bool:
        change = self._change_of_moves()
        change[self.sizes[self.parts] < 2] = np.inf  # would leave a part empty
        group, part = np.unravel_index(int(np.argmin(change)), change.shape)
        if change[group, part] >= -SMALLEST_GAIN:
            return False
        self._move(int(group), int(part))
        return True

    def _best_swap(self) -> bool:
        chosen = np.arange(len(self.parts))
        if len(chosen) > N_SWAP_CANDIDATES:
            chosen = np.sort(self.rng.choice(chosen, N_SWAP_CANDIDATES, replace=False))
        scaled, parts = self.scaled[chosen], self.parts[chosen]
        along = self._along(scaled)
        here = along[np.arange(len(chosen)), parts]
        there = along[:, parts]  # of group i, along the part of group j
        distance = self.norms[chosen][:, np.newaxis] + self.norms[chosen] - 2 * scaled @ scaled.T
        weights = self.part_weights[parts]
        both = weights[:, np.newaxis] + weights
        change = 2 * (there + there.T - here[:, np.newaxis] - here) + distance * both
        change[parts[:, np.newaxis] == parts] = np.inf
        first, second = np.unravel_index(int(np.argmin(change)), change.shape)
        if change[first, second] >= -SMALLEST_GAIN:
            return False
        part, other_part = int(parts[first]), int(parts[second])
        self._move(int(chosen[first]), other_part)
        self._move(int(chosen[second]), part)
        return True

    def _along(self, scaled: FloatArray) -> FloatArray:
        """Return how far groups point along the excess of each part, shape (groups, parts)."""
        along: FloatArray = scaled @ (self.part_weights[:, np.newaxis] * self.excess).T
        return along

    def _move(self, group: int, part: int) -> None:
        old = self.parts[group]
        self.excess[old] -= self.scaled[group]
        self.excess[part] += self.scaled[group]
        self.sizes[old] -= 1
        self.sizes[part] += 1
        self.parts[group] = part
