"""Fit the gates of a run on its own training and validation images, and keep them in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.linalg import solve_triangular
from sklearn.covariance import LedoitWolf

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import CheckpointError, ConfigError, GlomerulabError, PredictionsError
from glomerulab.evaluation.calibration import fit_temperature
from glomerulab.evaluation.eval_set import eval_set_of_split
from glomerulab.evaluation.run_tables import RunTables, read_run
from glomerulab.evaluation.uncertainty import conformal_threshold
from glomerulab.images import RgbImage, read_image
from glomerulab.inference.calibration import GateFacts, Gates, nearest, whitened, write_gates
from glomerulab.inference.engines.base import Engine, open_engine, stacked
from glomerulab.inference.sharpness import sharpness
from glomerulab.runtime.progress import Track, silent
from glomerulab.stain.reference import StainReference, read_reference

__all__ = ["KNOWN_SHARE", "fit_cloud", "fit_gates"]

COVERAGE = 0.9
KNOWN_SHARE = 0.95
"""Share of validation images that the distance gate lets through."""
BLURRED_SHARE = 0.01
"""Share of training images that the sharpness gate would stop."""
MIN_TRAINING = 10
SMALLEST_SCALE = 1e-6
BATCH = 32

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Seen:
    """What the network and the eye see of some images."""

    features: Matrix
    sharpness: npt.NDArray[np.float64]


def fit_gates(run: Path, *, track: Track = silent) -> Gates:
    """Fit the gates of a run and write them into its folder.

    Parameters
    ----------
    run : Path
        A run folder whose images can still be read.
    track : Track, optional

    Returns
    -------
    Gates

    Raises
    ------
    CheckpointError
        If the training or validation images are gone, or too few to fit anything.

    Notes
    -----
    Temperature and conformal threshold rest on validation, the cloud of features and the
    sharpness on the training originals, the threshold of the distance on validation: 95 of a
    hundred of its images lie nearer. Nothing is fitted on the test part.
    """
    tables = read_run(run)
    engine = open_engine(run)
    try:
        validation = eval_set_of_split(
            tables.predictions, tables.taxonomy, head=tables.head, split="validation"
        )
    except PredictionsError as error:
        raise CheckpointError(
            "has no validation images with labels, on which calibration is fitted; train on a "
            "manifest with a validation part",
            where=str(run),
        ) from error
    parts = {name: _originals(tables, name) for name in ("train", "validation")}
    seen = {name: _see(part, engine, track) for name, part in parts.items()}
    means, whitening = fit_cloud(seen["train"].features, parts["train"].labels(), where=str(run))
    near = np.sort(nearest(seen["validation"].features, whitened(means, whitening)))
    place = min(int(np.ceil((len(near) + 1) * KNOWN_SHARE)), len(near)) - 1
    gates = Gates(
        GateFacts(
            weights_sha256=engine.weights_sha256,
            temperature=fit_temperature(validation),
            coverage=COVERAGE,
            conformal_threshold=conformal_threshold(validation, coverage=COVERAGE),
            n_validation=validation.n_images,
            distance_threshold=float(near[place]),
            sharpness_threshold=float(np.quantile(seen["train"].sharpness, BLURRED_SHARE)),
            **_training_facts(tables, parts["train"]),
        ),
        means,
        whitening,
        _references(tables),
    )
    write_gates(gates, run)
    return gates


def _originals(tables: RunTables, name: str) -> Manifest:
    table = tables.manifest.table
    wanted = (table["split"] == name).fillna(value=False) & table["parent_id"].isna()
    return tables.manifest.with_table(table[wanted.to_numpy(dtype=bool)])


def _see(part: Manifest, engine: Engine, track: Track) -> _Seen:
    features: list[Matrix] = []
    sharp: list[float] = []
    paths = part.image_paths()
    starts = range(0, len(paths), BATCH)
    for start in track(starts, "Fitting the gates", len(starts)):
        images = [_read(path) for path in paths[start : start + BATCH]]
        features.append(engine.answer(stacked(images, engine.card.input_size)).features)
        sharp += [sharpness(image) for image in images]
    return _Seen(np.concatenate(features), np.array(sharp))


def _read(path: Path) -> RgbImage:
    try:
        return read_image(path)
    except GlomerulabError as error:
        raise CheckpointError(
            f"the run's gates are not fitted yet, and for that its images are needed: "
            f"{error.message}; run `glomerulab gates RUN` where they are, once",
            where=str(path),
        ) from error


def fit_cloud(
    features: Matrix, labels: npt.NDArray[np.float64], *, where: str
) -> tuple[Matrix, Matrix]:
    """Fit a mean per set of labels, and one shrunk covariance for all.

    Parameters
    ----------
    features : ndarray of float, shape (n, D)
        Of training images.
    labels : ndarray of float, shape (n, K)
    where : str
        The run, for the error.

    Returns
    -------
    means : ndarray of float32, shape (C, D)
    whitening : ndarray of float32, shape (D, D)
        See `glomerulab.inference.calibration.whitened`.

    Raises
    ------
    CheckpointError
        If there are too few images.
    """
    if len(features) < MIN_TRAINING:
        raise CheckpointError(
            f"{len(features)} training images are too few to know what is like them; "
            f"{MIN_TRAINING} are needed",
            where=where,
        )
    _, classes = np.unique(np.nan_to_num(labels, nan=-1.0), axis=0, return_inverse=True)
    classes = classes.reshape(-1)
    means = np.stack([features[classes == one].mean(axis=0) for one in range(classes.max() + 1)])
    deviations = (features - means[classes]).astype(np.float64)
    # Each map on a scale of its own: else shrinking would drown the stages whose values are small.
    scale = deviations.std(axis=0) + SMALLEST_SCALE
    covariance = LedoitWolf(assume_centered=True).fit(deviations / scale).covariance_
    lower = np.linalg.cholesky(covariance)
    whitening = solve_triangular(lower, np.eye(len(lower)), lower=True).T / scale[:, None]
    return means.astype(np.float32), np.ascontiguousarray(whitening, dtype=np.float32)


def _training_facts(tables: RunTables, training: Manifest) -> dict[str, object]:
    stains = training.table["stain"].dropna().value_counts()
    return {
        "n_training_images": len(training.table),
        "n_training_patients": int(training.table["patient_id"].nunique()),
        "stains_seen": {str(stain): int(n) for stain, n in stains.items()},
        "trained_on_synthetic": tables.is_synthetic,
        **_test_summary(tables),
    }


def _test_summary(tables: RunTables) -> dict[str, str]:
    """Say in English and Chinese how the run did on its held-out part."""
    try:
        test = eval_set_of_split(tables.predictions, tables.taxonomy, head=tables.head)
    except PredictionsError:  # a run without a held-out part: then nothing is claimed
        return {"test_summary": ""}
    if tables.head == "softmax":
        n_right = int((test.decision == test.truth).sum())
    else:
        unknown = np.isnan(test.labels)
        n_right = int((((test.labels == 1) == test.calls) | unknown).all(axis=1).sum())
    share = f"{n_right / test.n_images:.0%}"
    return {
        "test_summary": f"{n_right} of {test.n_images} held-out images right ({share}), "
        f"of {test.n_patients} patients",
        "test_summary_zh": f"{test.n_patients} 名患者的 {test.n_images} 幅留出图像中 {n_right} 幅"
        f"判定正确（{share}）",
    }


def _references(tables: RunTables) -> dict[str, StainReference]:
    """Find what the training images were normalised to."""
    stated = tables.config.get("stain_reference")
    if stated:
        return _stated_references(Path(str(stated)), tables.folder)
    table = tables.manifest.table
    if "stain_target" not in table:
        return {}
    found: dict[str, StainReference] = {}
    columns = zip(table["stain"], table["stain_target"], tables.manifest.image_paths(), strict=True)
    for stain, target, image in columns:
        if pd.isna(stain) or pd.isna(target) or stain in found:
            continue
        # `normalize` writes images/ and targets/ side by side; the path starts from their folder.
        path = image.parent.parent / str(target)
        if path.is_file():
            found[str(stain)] = read_reference(path)
    return found


def _stated_references(path: Path, run: Path) -> dict[str, StainReference]:
    candidates: Sequence[Path] = (path, run / path)
    place = next((one for one in candidates if one.exists()), None)
    if place is None:
        raise ConfigError("the stain reference of the run is not there", where=str(path))
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    references = [read_reference(file) for file in files]
    return {reference.stain: reference for reference in references}
