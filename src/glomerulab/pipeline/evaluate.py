"""Image analysis for a run's report: features, saliency, near-duplicates, external sets."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.cohort.near_duplicates import NearDuplicate, find_near_duplicates
from glomerulab.errors import CheckpointError, ImageFileError, ManifestError
from glomerulab.evaluation.error_analysis import WorstError
from glomerulab.evaluation.run_tables import EXTERNAL, RunTables, read_run, with_external_set
from glomerulab.explain.explainer import Explainer, ExplainInput
from glomerulab.inference.image_predictions import predict_manifest
from glomerulab.reports.run.figures import ImageAnalysis
from glomerulab.reports.run.report import ExternalSet
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SealedFolder, is_crossval

__all__ = ["analyse_images", "predict_external_set"]

MOST_NAMED = 5
"""Images that a notice names."""
GALLERY_METHOD: Literal["occlusion"] = "occlusion"
"""The most faithful of the three methods in the explanation benchmark."""


def analyse_images(
    run: Path, split: str = "test", *, n_workers: int = 1, track: Track = silent
) -> ImageAnalysis:
    """Open the images and the checkpoint of a run for what its tables do not contain.

    Parameters
    ----------
    run : Path
        Run folder.
    split : str, default "test"
        Its features are computed, its errors explained.
    n_workers : int, default 1
    track : Track, default silent

    Raises
    ------
    CheckpointError
        If the run has no checkpoint.
    """
    files = SealedFolder(run)
    tables = read_run(files)
    if is_crossval(run):
        return _analyse_folds(tables, n_workers, track)
    if not (run / "checkpoint").is_dir():
        raise CheckpointError(
            "the checkpoint is missing; copy the whole run folder, or give --tables-only to "
            "evaluate its tables alone",
            where=str(run / "checkpoint"),
        )
    pairs, notices = _near_duplicates(tables.manifest, n_workers, track)
    own = tables.manifest.table
    ids = set(tables.predictions.loc[tables.predictions["split"] == split, "image_id"])
    part = tables.manifest.with_table(own[own["image_id"].isin(ids)])
    try:
        found = predict_manifest(files, part, n_workers=n_workers, track=track)
        features = _features(found.table["image_id"], found.features)
        missing = [one.item for one in found.failures]
    except ImageFileError:  # the tables can be evaluated all the same
        features, missing = None, sorted(ids)
    unreadable = _missing_text(missing, len(ids), split) if missing else ""
    return ImageAnalysis(
        unreadable=unreadable,
        features=features,
        explain=_Overlays(files, tables.image_paths, run / "explanations"),
        near_duplicates=pairs,
        notices=(*notices, *([unreadable] if unreadable else ())),
    )


def _analyse_folds(tables: RunTables, n_workers: int, track: Track) -> ImageAnalysis:
    """Search the folds of a cross-validation for equal images; each fold has a model of its own."""
    pairs, notices = _near_duplicates(tables.manifest, n_workers, track, column="fold")
    return ImageAnalysis(near_duplicates=pairs, notices=tuple(notices))


def predict_external_set(
    run: Path, manifest_path: Path, *, n_workers: int = 1, track: Track = silent
) -> ExternalSet:
    """Predict an external set and search for its images among the run's own.

    Unreadable images are left out, counted, and named in the notices of the image analysis.
    """
    files = SealedFolder(run)
    tables, manifest = read_run(files), read_manifest(manifest_path)
    found = predict_manifest(files, manifest, n_workers=n_workers, track=track)
    readable = manifest.with_table(
        manifest.table[manifest.table["image_id"].isin(set(found.table["image_id"]))]
    )
    name = f"{manifest_path.resolve().parent.name}-{manifest_path.stem}"
    both = with_external_set(tables, found.table, readable).manifest
    # Which of the run's own splits an image is in does not matter here.
    is_own = (both.table["split"] != EXTERNAL).to_numpy(dtype=bool)
    split = pd.array(["own cohort" if own else EXTERNAL for own in is_own], dtype="string")
    own_ids = "own:" + both.table["image_id"].astype(str)
    ids = both.table["image_id"].where(~pd.Series(is_own), own_ids)
    compared = both.with_table(both.table.assign(split=split, image_id=ids))
    pairs, notices = _near_duplicates(replace(compared, folder=Path("/")), n_workers, track)
    failures = [f"not evaluated: {one.item}: {one.error}" for one in found.failures]
    paths = dict(zip(readable.table["image_id"].astype(str), readable.image_paths(), strict=True))
    images = ImageAnalysis(
        features=_features(found.table["image_id"], found.features),
        explain=None
        if is_crossval(run)  # which has many networks
        else _Overlays(files, paths, run / "external" / name / "explanations"),
        near_duplicates=pairs,
        notices=(*failures, *notices),
    )
    return ExternalSet(name, readable, found.table, images, n_unreadable=len(found.failures))


def _missing_text(missing: Sequence[str], n_images: int, split: str) -> str:
    """Return which images cannot be read, and what the page lacks of them."""
    names = ", ".join(missing[:MOST_NAMED])
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    return (
        f"{len(missing)} of {n_images} images of the {split} split cannot be read: {names}{more}. "
        "This page shows no picture, no saliency map and no place in the map of features of them."
    )


class _Overlays:
    """Draws saliency maps of errors; the model is loaded at the first one."""

    def __init__(self, run: SealedFolder, image_paths: dict[str, Path], out: Path) -> None:
        self.run, self.image_paths, self.out = run, image_paths, out
        self.explainer: Explainer | None = None

    def __call__(self, error: WorstError) -> Path | None:
        path = self.image_paths.get(error.image_id)
        if path is None:
            return None
        if self.explainer is None:
            self.explainer = Explainer(self.run, methods=(GALLERY_METHOD,))
        found = self.explainer.explain(
            [ExplainInput(error.image_id, path)],
            self.out,
            label_ids=(error.label_id,),
            measured=False,
        )
        return None if found.failures else self.out / str(found.table["overlay"].iloc[0])


def _features(ids: pd.Series, features: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(features, index=ids.astype(str).to_numpy())


def _near_duplicates(
    manifest: Manifest, n_workers: int, track: Track, column: str = "split"
) -> tuple[tuple[NearDuplicate, ...] | None, list[str]]:
    """Find equal images in two splits; None and a notice where an image cannot be read."""
    originals = manifest.with_table(manifest.table[manifest.table["parent_id"].isna()])
    try:
        found = find_near_duplicates(originals, column=column, n_workers=n_workers, track=track)
        return tuple(found), []
    except ManifestError as error:
        return None, [f"near-duplicates were not searched for: {error}"]
