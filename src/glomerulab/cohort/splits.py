"""Split a cohort into train, validation and test, or into folds, without leakage.

Whole groups of images (those of a patient, those made from one another) go to one part, balanced
on labels and stains as far as the groups allow. No image is opened here.
"""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glomerulab.cohort.leakage import check_look_alikes, patients_in_several_parts
from glomerulab.cohort.manifest import Manifest, raise_first
from glomerulab.cohort.schema import SPLITS, Problem
from glomerulab.errors import ManifestError

__all__ = [
    "assign_folds",
    "assign_parts",
    "parts_table",
    "split_by_image",
    "split_by_patient",
    "split_warnings",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

By = str
"""The unit that is never divided: ``patient``, ``image`` (with everything made from it), or a
column of the manifest such as ``site``, whose images and their patients stay together."""

MINOR_WEIGHT = 0.5
"""Of stains and of pairs of labels; images, groups and labels weigh 1."""
N_STARTS = (8, 24)
"""At least and at most: small problems have more poor local optima and cost less."""
N_SWAP_CANDIDATES = 400
SMALLEST_GAIN = 1e-12


def split_by_patient(
    manifest: Manifest, *, ratios: tuple[float, float, float] = (6, 2, 2), seed: int = 0
) -> Manifest:
    """Split a cohort so that all images of a patient are in one part.

    Parameters
    ----------
    ratios : tuple of float, default (6, 2, 2)
        Train, validation, test. A part of ratio 0 stays empty; train cannot be 0.
    seed : int, default 0
        Same images, ratios and seed: same split, whatever the order of the rows.

    Returns
    -------
    Manifest
        With `split` filled and all else unchanged.

    Raises
    ------
    ManifestError
        If an image has no patient, or there are fewer patients than parts; a `LeakageError` if
        patient ids look alike.
    ValueError
        If a ratio is negative or not finite, or that of train is 0.
    """
    return _split(manifest, by="patient", ratios=ratios, seed=seed)


def split_by_image(
    manifest: Manifest, *, ratios: tuple[float, float, float] = (6, 2, 2), seed: int = 0
) -> Manifest:
    """Split a cohort image by image: the paper's protocol, which divides patients.

    Images made from one another (`parent_id`) still stay together. Scores on such a test part are
    optimistic; `split_warnings` counts the divided patients. Parameters, result and errors are
    those of `split_by_patient`, except that images may lack a patient.
    """
    return _split(manifest, by="image", ratios=ratios, seed=seed)


def assign_folds(
    manifest: Manifest, *, n_folds: int, by: By = "patient", seed: int = 0
) -> Manifest:
    """Assign every image to one of several folds of about equal size and composition.

    Parameters
    ----------
    manifest : Manifest
        Images whose `split` is "test" are left out of every fold.
    n_folds : int
        At least 2.
    by : str, default "patient"
        See `By`.
    seed : int, default 0

    Returns
    -------
    Manifest
        With `fold` filled from 0 to `n_folds` - 1, and empty in the test part.

    Raises
    ------
    ManifestError
        If there are fewer groups than folds, or an image has no patient or no value in the column.
    ValueError
        If `n_folds` is below 2.
    """
    if n_folds < 2:
        raise ValueError(f"n_folds must be at least 2, got {n_folds}")
    table = manifest.table.copy()
    inside = (table["split"] != "test").fillna(value=True).to_numpy(dtype=np.bool_)
    part = assign_parts(manifest, inside, by, np.full(n_folds, 1 / n_folds), seed=seed)
    table["fold"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table.loc[inside, "fold"] = part
    return manifest.with_table(table)


def split_warnings(manifest: Manifest, *, column: str = "split") -> list[str]:
    """List what limits the scores of a split: divided or unknown patients, absent labels.

    Parameters
    ----------
    manifest : Manifest
        With `column` filled.
    column : str, default "split"
        "split" or "fold"; beside folds the test part counts as one more part.
    """
    table, plural = manifest.table, "parts" if column == "split" else "folds"
    held_out = "the test part" if column == "split" else "a fold that is held out"
    part = table[column].astype("string")
    if column == "fold":
        part = part.fillna(table["split"].where(table["split"] == "test"))
    warnings = []
    n_divided = len(patients_in_several_parts(table.assign(**{column: part}), column))
    if n_divided:
        n_patients = table["patient_id"].nunique()
        warnings.append(
            f"{n_divided} of {n_patients} patients have images in several {plural}: the model "
            f"sees patients of {held_out} in training, and scores will be optimistic"
        )
    n_unknown = int(table["patient_id"].isna().sum())
    if n_unknown:
        warnings.append(
            f"{n_unknown} images have no patient_id: their patients may be in several {plural} "
            "without notice"
        )
    for name, rows in _rows_by_part(manifest, column).items():
        absent = [i for i in manifest.taxonomy.label_ids if not (rows[i] == 1).any()]
        if absent:
            where = f"the {name} part" if column == "split" else f"fold {name}"
            warnings.append(f"no image of {where} shows: {', '.join(absent)}")
    return warnings


def parts_table(manifest: Manifest, *, column: str = "split") -> pd.DataFrame:
    """Count patients, images and labels in each part.

    Parameters
    ----------
    column : str, default "split"
        "split" or "fold".

    Returns
    -------
    DataFrame
        One row per part that has images (index), in order; columns patients, images, then for each
        label the number of images that show it.
    """
    rows = {
        part: {"patients": int(inside["patient_id"].nunique()), "images": len(inside)}
        | {i: int((inside[i] == 1).sum()) for i in manifest.taxonomy.label_ids}
        for part, inside in _rows_by_part(manifest, column).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _rows_by_part(manifest: Manifest, column: str) -> dict[object, pd.DataFrame]:
    """Return the rows of each part that has any, in the order of the parts."""
    table = manifest.table
    parts = SPLITS if column == "split" else sorted(table[column].dropna().unique())
    rows = {part: table[(table[column] == part).fillna(value=False)] for part in parts}
    return {part: inside for part, inside in rows.items() if len(inside)}


def _split(
    manifest: Manifest, *, by: By, ratios: tuple[float, float, float], seed: int
) -> Manifest:
    wanted = np.array(ratios, dtype=np.float64)
    if wanted.shape != (3,) or not np.isfinite(wanted).all() or (wanted < 0).any():
        raise ValueError(f"ratios must be three numbers of at least 0, got {ratios}")
    if wanted[0] == 0:
        raise ValueError(f"the ratio of the train part must be above 0, got {ratios}")
    names = [name for name, ratio in zip(SPLITS, wanted, strict=True) if ratio > 0]
    shares = wanted[wanted > 0] / wanted.sum()
    table = manifest.table.copy()
    part = assign_parts(manifest, np.ones(len(table), dtype=np.bool_), by, shares, seed=seed)
    table["split"] = pd.array([names[index] for index in part], dtype="string")
    return manifest.with_table(table)


def assign_parts(
    manifest: Manifest, inside: npt.NDArray[np.bool_], by: By, shares: FloatArray, *, seed: int
) -> IntArray:
    """Return the part, from 0, of each row that is inside; groups are never divided.

    Parameters
    ----------
    inside : ndarray of bool, shape (n_rows,)
    shares : ndarray of float, shape (n_parts,)
        Summing to 1.
    """
    if by != "image":
        check_look_alikes(manifest)
    group = np.unique(group_rows(manifest, by)[inside], return_inverse=True)[1]
    n_groups = int(group.max()) + 1 if len(group) else 0
    if n_groups < len(shares):
        or_by_image = ", or split by image" if by == "patient" else ""
        raise ManifestError(
            f"{n_groups} {by}(s) cannot fill {len(shares)} parts; add {by}s or ask for fewer parts"
            + or_by_image,
            where=manifest.location,
        )
    per_row, weights = _balanced_columns(manifest, inside)
    counts = np.zeros((n_groups, per_row.shape[1]))
    np.add.at(counts, group, per_row)
    counts = np.column_stack([np.ones(n_groups), counts])
    part_of_group = balanced_parts(counts, shares, np.append(1.0, weights), seed=seed)
    return part_of_group[group]


def _balanced_columns(
    manifest: Manifest, inside: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Return the quantities to balance, shape (rows, columns), and the weight of each column."""
    labels = manifest.labels()[inside]
    present = np.nan_to_num(labels)
    columns = [np.ones(len(labels)), *present.T]
    minor = [
        present[:, first] * present[:, second]
        for first, second in combinations(range(present.shape[1]), 2)
    ]
    known = ~np.isnan(labels)
    if not known.all():
        columns += list(known.astype(np.float64).T)
    stain = manifest.table["stain"][inside].astype(object)
    minor += [(stain == name).to_numpy(dtype=np.float64) for name in sorted(set(stain.dropna()))]
    weights = np.repeat([1.0, MINOR_WEIGHT], [len(columns), len(minor)])
    return np.column_stack(columns + minor), weights


def group_rows(manifest: Manifest, by: By) -> IntArray:
    """Find the groups of images that no split may divide.

    An image and everything made from it (named by `parent_id`) are always one group, even if the
    parent itself is not in the manifest.

    Parameters
    ----------
    by : str
        See `By`.

    Returns
    -------
    ndarray of int64, shape (n_rows,)
        Group of each row, from 0, numbered by the smallest image_id of the group, so that the
        order of the rows does not matter.

    Raises
    ------
    ManifestError
        If the manifest has no such column, or `by` is not "image" and neither an image nor any of
        its relatives has a value in it.
    """
    table = manifest.table
    column = {"patient": "patient_id", "image": None}.get(by, by)
    if column is not None and column not in table:
        raise ManifestError(
            f"the manifest has no column {column}; group by patient, by image, or by one of "
            f"{', '.join(map(str, table))}",
            where=manifest.location,
        )
    n_rows = len(table)
    ids = pd.concat([table["image_id"], table["parent_id"]], ignore_index=True)
    image, known_images = pd.factorize(ids)  # -1 where empty
    links, n_nodes = [(image[:n_rows], image[n_rows:])], len(known_images)
    for name in () if column is None else {column, "patient_id"}:
        value, known = pd.factorize(table[name])
        links.append((image[:n_rows], np.where(value < 0, -1, value + n_nodes)))
        n_nodes += len(known)
    group = _connected_components(links, n_nodes)[image[:n_rows]]
    if column is not None:
        _check_known(manifest, group, column)
    smallest = table["image_id"].astype(object).groupby(group).min()
    number = np.empty(n_nodes, dtype=np.int64)
    number[smallest.sort_values().index] = np.arange(len(smallest))
    return number[group]


def _connected_components(links: list[tuple[IntArray, IntArray]], n_nodes: int) -> IntArray:
    """Return the component of each node; a link to -1 is none."""
    ends = np.concatenate([np.stack(pair) for pair in links], axis=1)
    ends = ends[:, (ends >= 0).all(axis=0)]
    graph = coo_array((np.ones(ends.shape[1], dtype=np.int8), tuple(ends)), shape=(n_nodes,) * 2)
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _check_known(manifest: Manifest, group: IntArray, column: str) -> None:
    table = manifest.table
    has_value = table[column].notna().to_numpy()
    known = np.isin(group, np.unique(group[has_value]))
    way_out = (
        "fill the column (`manifest import` has --column patient_id=NAME for a table and --pattern "
        "for a folder; `extract` takes it from a slides table), or split by image, which lets "
        "pictures of one patient be in several parts"
        if column == "patient_id"
        else "fill the column, or group by patient"
    )
    problems = [
        Problem(
            f"{column} is empty, so a split by {column.removesuffix('_id')} is impossible; "
            f"{way_out}",
            int(row),
            str(table["image_id"].iloc[row]),
        )
        for row in np.flatnonzero(~known)
    ]
    raise_first(problems, where=manifest.location)


def balanced_parts(
    counts: FloatArray, shares: FloatArray, weights: FloatArray, *, seed: int
) -> IntArray:
    """Assign indivisible groups to parts so that each part has its share of every column.

    Parameters
    ----------
    counts : ndarray of float, shape (n_groups, n_columns)
        Amount of each quantity in each group, at least 0.
    shares : ndarray of float, shape (n_parts,)
        Wanted share of each part, above 0, summing to 1.
    weights : ndarray of float, shape (n_columns,)
        Importance of each column, at least 0.
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
    the actual and the wanted amount. (Relative, since three images of a rare label then go to
    three parts rather than all to the largest.) Greedy assignment, largest groups first, then
    moves and swaps until none helps, from several seeded starts; the best is kept. The result
    depends on the order of the groups, so callers pass them in a defined order.
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
        search = _LocalSearch(scaled, wanted, 1 / shares**2, rng, jitter=start / n_starts)
        search.fill_empty_parts()
        search.improve()
        loss = search.loss()
        if best_parts is None or loss < best_loss - SMALLEST_GAIN:
            best_parts, best_loss = search.parts, loss
    assert best_parts is not None
    return best_parts


class _LocalSearch:
    """A greedy start and its improvement; `excess` is the actual minus the wanted amount."""

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
        self.parts: IntArray = np.empty(len(scaled), dtype=np.int64)
        self.rng = rng
        # From largest first to a random order, so that the starts differ.
        tie_break = rng.permutation(len(scaled))
        rank = np.argsort(np.lexsort((tie_break, -self.norms))) / len(scaled)
        order = (1 - jitter) * rank + jitter * rng.uniform(0, 1, len(scaled))
        for group in np.argsort(order, kind="stable"):
            change = 2 * self.excess @ scaled[group] + self.norms[group]
            part = int(np.argmin(part_weights * change))
            self.parts[group] = part
            self.excess[part] += scaled[group]
        self.sizes = np.bincount(self.parts, minlength=len(wanted))

    def loss(self) -> float:
        """Return the weighted squared difference from the wanted shares."""
        return float(self.part_weights @ (self.excess**2).sum(axis=1))

    def fill_empty_parts(self) -> None:
        """Move the cheapest group of a part that has several into each empty part."""
        for part in np.flatnonzero(self.sizes == 0):
            change = self._change_of_moves()[:, part]
            change[self.sizes[self.parts] < 2] = np.inf
            self._move(int(np.argmin(change)), int(part))

    def improve(self) -> None:
        """Move or swap groups as long as the loss falls."""
        # Sampled swaps can miss an improvement, so they are drawn more than once.
        patience = 1 if len(self.parts) <= N_SWAP_CANDIDATES else 3
        failures = 0
        while failures < patience:
            if self._best_move() or self._best_swap():
                failures = 0
            else:
                failures += 1

    def _change_of_moves(self) -> FloatArray:
        """Return how the loss changes when a group moves to a part, shape (groups, parts)."""
        weights = self.part_weights
        along = self._along_excess(self.scaled)
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
        along = self._along_excess(scaled)
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

    def _along_excess(self, scaled: FloatArray) -> FloatArray:
        """Return the product of groups with the weighted excess, shape (groups, parts)."""
        along: FloatArray = scaled @ (self.part_weights[:, np.newaxis] * self.excess).T
        return along

    def _move(self, group: int, part: int) -> None:
        old = self.parts[group]
        self.excess[old] -= self.scaled[group]
        self.excess[part] += self.scaled[group]
        self.sizes[old] -= 1
        self.sizes[part] += 1
        self.parts[group] = part
