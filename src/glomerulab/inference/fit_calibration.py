"""Fit the calibration of a run on its own training and validation images."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cases.case_folder import CalibrationFacts
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import CheckpointError, ConfigError, GlomerulabError, PredictionsError
from glomerulab.evaluation.calibration import fit_temperature
from glomerulab.evaluation.eval_set import eval_set_of_split
from glomerulab.evaluation.run_tables import RunTables, read_run
from glomerulab.evaluation.uncertainty import conformal_threshold
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.images import RgbImage, read_image
from glomerulab.inference.calibration import (
    CALIBRATION_FOLDER,
    ModelCalibration,
    write_calibration,
)
from glomerulab.inference.engines.base import Engine, stack_images
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.image_predictions import sharpness
from glomerulab.inference.ood import MahalanobisDetector
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SealedFolder, crossval_runs, is_crossval
from glomerulab.stain.reference import StainReference, read_reference

__all__ = ["fit_calibration"]

COVERAGE = 0.9
IN_DISTRIBUTION_SHARE = 0.95
"""Share of the validation images within the distance threshold."""
BLURRED_SHARE = 0.01
"""Share of the training images below the sharpness threshold."""
BATCH = 32


def fit_calibration(run: Path, *, track: Track = silent) -> ModelCalibration:
    """Fit the calibration of a run and write it into its folder.

    Parameters
    ----------
    run : Path
        A run folder; its images must be readable.

    Raises
    ------
    CheckpointError
        If the training or validation images are missing, or too few to fit anything.

    Notes
    -----
    Temperature and conformal threshold are fitted on validation, the out-of-distribution detector
    and the sharpness threshold on the training originals, the distance threshold on validation:
    95 % of its images lie nearer. Nothing is fitted on the test part. For a cross-validation,
    temperature and conformal threshold are those of the held-out predictions of its single models,
    so that they fit the mean of the models only approximately.
    """
    files = SealedFolder(run, rewriting=f"{CALIBRATION_FOLDER}/")
    tables = read_run(files)
    engine = open_engine(files)
    # Of a cross-validation, every image was held out once.
    split = "test" if is_crossval(run) else "validation"
    try:
        validation = eval_set_of_split(
            tables.predictions, tables.taxonomy, head=tables.head, split=split
        )
    except PredictionsError as error:
        raise CheckpointError(
            "the run has no labelled validation images, on which calibration is fitted; train on "
            "a manifest with a validation part",
            where=str(run),
        ) from error
    if is_crossval(run):  # the features of an ensemble are those of its first model
        first = read_run(crossval_runs(run)[0])
        training, held_out = (_originals(first, name) for name in ("train", "test"))
        references = _references(first)
    else:
        training, held_out = (_originals(tables, name) for name in ("train", "validation"))
        references = _references(tables)
    features, sharpnesses = _measure(training, engine, track, "training")
    held_out_features, _ = _measure(held_out, engine, track, "held-out")
    ood = MahalanobisDetector.fit(features, training.labels(), where=str(run))
    distances = np.sort(ood.distances(held_out_features))
    rank = min(int(np.ceil((len(distances) + 1) * IN_DISTRIBUTION_SHARE)), len(distances)) - 1
    stains = training.table["stain"].dropna().value_counts()
    facts = CalibrationFacts(
        weights_sha256=engine.weights_sha256,
        temperature=fit_temperature(validation),
        coverage=COVERAGE,
        conformal_threshold=conformal_threshold(validation, coverage=COVERAGE),
        n_validation=validation.n_images,
        distance_threshold=float(distances[rank]),
        sharpness_threshold=float(np.quantile(sharpnesses, BLURRED_SHARE)),
        n_training_images=len(training.table),
        n_training_patients=int(training.table["patient_id"].nunique()),
        stains_seen={str(stain): int(n) for stain, n in stains.items()},
        trained_on_synthetic=tables.is_synthetic,
        test_summary=_test_summary(tables, "en"),
        test_summary_zh=_test_summary(tables, "zh"),
    )
    calibration = ModelCalibration(facts, ood, references)
    write_calibration(calibration, run)
    files.reseal()
    return calibration


def _originals(tables: RunTables, split: str) -> Manifest:
    part = tables.manifest.part(split)
    return part.with_table(part.table[part.table["parent_id"].isna()])


def _measure(
    part: Manifest, engine: Engine, track: Track, name: str
) -> tuple[npt.NDArray[np.float32], list[float]]:
    """Return the features, shape (n, D), and the sharpness of the images of a part."""
    features: list[npt.NDArray[np.float32]] = []
    sharpnesses: list[float] = []
    paths = part.image_paths()
    starts = range(0, len(paths), BATCH)
    for start in track(starts, f"Measuring the {name} images", len(starts)):
        images = [_read(path) for path in paths[start : start + BATCH]]
        features.append(engine.predict(stack_images(images, engine.card.input_size)).features)
        sharpnesses += [sharpness(image) for image in images]
    return np.concatenate(features), sharpnesses


def _read(path: Path) -> RgbImage:
    try:
        return read_image(path)
    except GlomerulabError as error:
        raise CheckpointError(
            f"the run has no calibration yet, and fitting it needs its images: {error.message}; "
            "run `glomerulab gates RUN` once where the images are",
            where=str(path),
        ) from error


def _test_summary(tables: RunTables, language: Language) -> str:
    """Summarise the result on the held-out part; empty for a run without one."""
    try:
        test = eval_set_of_split(tables.predictions, tables.taxonomy, head=tables.head)
    except PredictionsError:
        return ""
    if tables.head == "softmax":
        n_right = int((test.decision == test.truth).sum())
    else:
        unknown = np.isnan(test.labels)
        n_right = int((((test.labels == 1) == test.calls) | unknown).all(axis=1).sum())
    return translate(
        "{n_right} of {n_images} held-out images right ({share:.0%}), of {n_patients} patients",
        language,
        n_right=n_right,
        n_images=test.n_images,
        share=n_right / test.n_images,
        n_patients=test.n_patients,
    )


def _references(tables: RunTables) -> dict[str, StainReference]:
    """Find the stain references that the training images were normalised to."""
    configured = tables.config.get("stain_reference")
    if configured:
        return _configured_references(Path(str(configured)), tables.folder)
    table = tables.manifest.table
    if "stain_target" not in table:
        return {}
    found: dict[str, StainReference] = {}
    rows = zip(table["stain"], table["stain_target"], tables.manifest.image_paths(), strict=True)
    for stain, target, image in rows:
        if pd.isna(stain) or pd.isna(target) or stain in found:
            continue
        # `normalize` writes images/ and targets/ side by side; the path starts from their parent.
        path = image.parent.parent / str(target)
        if path.is_file():
            found[str(stain)] = read_reference(path)
    return found


def _configured_references(path: Path, run: Path) -> dict[str, StainReference]:
    existing = next((one for one in (path, run / path) if one.exists()), None)
    if existing is None:
        raise ConfigError(
            f"the stain reference of the run is missing: there is no file or folder {path}; put "
            "it back, or correct `stain_reference` in the config.toml of the run",
            where=str(path),
        )
    files = sorted(existing.glob("*.json")) if existing.is_dir() else [existing]
    references = [read_reference(file) for file in files]
    return {reference.stain: reference for reference in references}
