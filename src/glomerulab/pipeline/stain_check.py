"""Comparison of a cohort before and after stain normalisation, from the images themselves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import ImageFileError, ManifestError, StainError
from glomerulab.evaluation.stain_check import StainCheck, compare_by_stain, with_maps
from glomerulab.images import read_image
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.stain.features import downscaled, image_features, measure_pair
from glomerulab.stain.reference import read_reference

__all__ = ["check_stains"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Pair:
    image_id: str
    before: Path
    after: Path


@dataclass(frozen=True)
class _Measured:
    pair: _Pair
    measures: dict[str, float]
    before: FloatArray
    after: FloatArray


def check_stains(
    before: Manifest,
    after: Manifest,
    *,
    predict: str = "slide_id",
    seed: int = 0,
    n_workers: int = 1,
    track: Track = silent,
) -> StainCheck:
    """Compare a cohort before and after normalisation, image by image and by stain.

    Parameters
    ----------
    before, after : Manifest
        Matched by ``image_id``.
    predict : str, default "slide_id"
        Column that is predicted from the pixels: slide, scanner or site.
    seed : int, default 0
        For t-SNE, folds and permutations.
    n_workers : int, default 1
    track : Track, default silent

    Raises
    ------
    ManifestError
        If the manifests share no readable image, or `predict` is not a column.
    """
    pairs, rows = _matched(before, after, predict)
    measured, unreadable = _measure_all(pairs, n_workers, track)
    if not measured:
        raise ManifestError("no image of the manifest could be read", where=str(after.folder))
    table = rows.loc[[one.pair.image_id for one in measured]].reset_index()
    measures = pd.DataFrame([one.measures for one in measured])
    table = pd.concat([table, measures], axis="columns")
    parts = compare_by_stain(
        table,
        np.stack([one.before for one in measured]),
        np.stack([one.after for one in measured]),
        predict=predict,
        seed=seed,
    )
    return StainCheck(
        table=with_maps(table, parts),
        column=predict,
        parts=parts,
        unreadable=unreadable,
        paths=tuple((one.pair.before, one.pair.after) for one in measured),
        targets=_target_images(after),
    )


def _matched(before: Manifest, after: Manifest, predict: str) -> tuple[list[_Pair], pd.DataFrame]:
    if predict not in before.table:
        known = ", ".join(before.table.columns)
        raise ManifestError(
            f"the manifest has no column {predict!r} (columns: {known})", where=str(before.folder)
        )
    old = dict(zip(before.table["image_id"], before.image_paths(), strict=True))
    new = dict(zip(after.table["image_id"], after.image_paths(), strict=True))
    shared = [image_id for image_id in old if image_id in new]
    if not shared:
        raise ManifestError(
            "the manifest shares no image_id with the one before normalisation",
            where=str(after.folder),
        )
    columns = list(dict.fromkeys(["patient_id", "slide_id", "stain", predict]))
    rows = before.table.set_index("image_id")[columns].loc[shared].copy()
    if "stain_status" in after.table:
        rows["stain_status"] = after.table.set_index("image_id")["stain_status"].loc[shared]
    return [_Pair(image_id, old[image_id], new[image_id]) for image_id in shared], rows


def _target_images(after: Manifest) -> dict[str, Path]:
    """Return the images that the targets were fitted on; a mean of several has none."""
    found: dict[str, Path] = {}
    if "stain_target" not in after.table:
        return found
    for name in sorted(set(after.table["stain_target"].dropna()) - {""}):
        try:
            target = read_reference(after.folder / name)
            read_image(Path(target.source))
        except (StainError, ImageFileError):  # moved or deleted since; the check needs none
            continue
        found[target.stain] = Path(target.source)
    return found


def _measure_all(
    pairs: Sequence[_Pair], n_workers: int, track: Track
) -> tuple[list[_Measured], tuple[str, ...]]:
    """Measure every pair; return the results and one sentence per failure."""
    measured: list[_Measured] = []
    unreadable: list[str] = []
    for outcome in track(
        map_outcomes(_measure, pairs, n_workers=n_workers), "Measuring", len(pairs)
    ):
        if outcome.value is None:
            unreadable.append(f"{outcome.item.image_id}: {outcome.error}")
        else:
            measured.append(_Measured(outcome.item, *outcome.value))
    measured.sort(key=lambda one: one.pair.image_id)  # independent of the order of the workers
    return measured, tuple(unreadable)


def _measure(pair: _Pair) -> tuple[dict[str, float], FloatArray, FloatArray]:
    before, after = read_image(pair.before), read_image(pair.after)
    if before.shape != after.shape:
        raise ManifestError(
            f"the image is {after.shape[1]} x {after.shape[0]} px after and {before.shape[1]} x "
            f"{before.shape[0]} px before normalisation",
            where=str(pair.after),
        )
    before, after = downscaled(before), downscaled(after)
    return asdict(measure_pair(before, after)), image_features(before), image_features(after)
