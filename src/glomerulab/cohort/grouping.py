"""Which images must stay together in a split: those of a patient, and those of one origin."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glomerulab.cohort.manifest import Manifest, raise_first
from glomerulab.cohort.schema import Problem

__all__ = ["By", "group_rows"]

By = Literal["patient", "image"]
"""What is never divided: a patient, or an image with what was made of it."""


def group_rows(manifest: Manifest, by: By) -> npt.NDArray[np.int64]:
    """Find the groups of images that no split may divide.

    An image and what was made of it (its `parent_id` names it) are always one group, also when
    the parent itself is not in the manifest.

    Parameters
    ----------
    manifest : Manifest
    by : {"patient", "image"}
        Whether the images of a patient are one group, too.

    Returns
    -------
    ndarray of int64, shape (n_rows,)
        Group of each row, from 0, numbered by the smallest image_id of the group, so that the
        order of the rows does not matter.

    Raises
    ------
    ManifestError
        If `by` is "patient" and an image has none, nor any relative that has.
    ValueError
        If `by` is neither.
    """
    if by not in {"patient", "image"}:
        raise ValueError(f"by must be 'patient' or 'image', got {by!r}")
    table = manifest.table
    nodes = [("image", image_id) for image_id in table["image_id"]]
    links = [
        (row, ("image", parent)) for row, parent in enumerate(table["parent_id"]) if _is(parent)
    ]
    if by == "patient":
        links += [
            (row, ("patient", patient))
            for row, patient in enumerate(table["patient_id"])
            if _is(patient)
        ]
    group = _connected(nodes, links)
    if by == "patient":
        _refuse_patientless(manifest, group)
    return _numbered_by_smallest_id(table["image_id"], group)


def _is(cell: object) -> bool:
    return isinstance(cell, str)


def _connected(
    nodes: list[tuple[str, str]], links: Iterable[tuple[int, tuple[str, str]]]
) -> npt.NDArray[np.int64]:
    """Return the component of each of the first nodes, when links may name further nodes."""
    number = {node: place for place, node in enumerate(nodes)}
    pairs = [(row, number.setdefault(node, len(number))) for row, node in links]
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(number),) * 2)
    _, component = connected_components(graph, directed=False)
    return np.asarray(component[: len(nodes)], dtype=np.int64)


def _refuse_patientless(manifest: Manifest, group: npt.NDArray[np.int64]) -> None:
    table = manifest.table
    has_patient = table["patient_id"].notna().to_numpy()
    known = np.isin(group, np.unique(group[has_patient]))
    problems = [
        Problem(
            "patient_id is empty, so a split by patient is impossible; fill the column (on import: "
            "--column patient_id=NAME; on extract: a slides table), or split by image, "
            "which lets pictures of one patient stand in several parts",
            int(row),
            str(table["image_id"].iloc[row]),
        )
        for row in np.flatnonzero(~known)
    ]
    raise_first(problems, where=manifest.location)


def _numbered_by_smallest_id(ids: pd.Series, group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    smallest = ids.astype(object).groupby(group).min()
    order = {old: new for new, old in enumerate(smallest.sort_values().index)}
    return np.array([order[old] for old in group], dtype=np.int64)
