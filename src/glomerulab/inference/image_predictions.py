"""Predict images in batches: read by several processes, passed to the network in order.

An image that cannot be read is reported beside the others. Predictions of a manifest are cached
line by line in ``answers.jsonl``, so that an interrupted run continues.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import laplace

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import TaxonomyError
from glomerulab.images import RgbImage, read_image, resized
from glomerulab.inference.calibration import ModelCalibration
from glomerulab.inference.engines.base import Engine, probabilities_of
from glomerulab.models.card import ModelCard
from glomerulab.predictions import predictions_table
from glomerulab.runtime.files import size_and_mtime
from glomerulab.runtime.parallel import Outcome, map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import JsonLines
from glomerulab.runtime.sealing import SealedFolder, is_crossval
from glomerulab.stain.optical_density import estimate_white, tissue_mask

__all__ = [
    "ImagePrediction",
    "ManifestPredictions",
    "predict_batch",
    "predict_images",
    "predict_manifest",
]

CACHE_FILE = "answers.jsonl"
BATCH = 16
SAME_MPP = 0.02
MAX_ENLARGED_PX = 4096
"""Maximum side of an image that is enlarged to measure its sharpness, px."""
MIN_VARIANCE = 1.0
MIN_SIDE_PX = 24
"""Of a crop; below it no lesion could be seen."""
MIN_TISSUE_SHARE = 0.25
MIN_CONTRAST = 3.0
"""Standard deviation of the grey levels at the network's input, below which there is nothing to
see: an even colour, or glass with the noise of a camera."""
MAX_SCALE_FACTOR = 1.5
"""Between the micrometres per pixel of image and model; above it the image is referred."""
NOT_FINITE = (
    "the network's output is not a finite number, so there is no prediction for the image; if this "
    "happens often, the weights are damaged: train or export the model again"
)


@dataclass(frozen=True, eq=False)
class ModelInput:
    """An image at the input size of a network, and the sharpness of the original."""

    pixels: RgbImage
    """Shape (S, S, 3), S being the input size of the model."""
    sharpness: float
    reasons: tuple[str, ...] = ()
    """Keys of `glomerulab.cases.calls.REASONS` that hold whatever the network finds."""


@dataclass(frozen=True)
class ImagePrediction:
    """The raw prediction of one image: what `glomerulab.inference.decide.decide` needs."""

    logits: tuple[float, ...]
    distance: float
    """Mahalanobis distance to the training images."""
    sharpness: float
    reasons: tuple[str, ...] = ()
    """As of `ModelInput`."""


@dataclass(frozen=True)
class ManifestPredictions:
    """Predictions of a manifest, and the images that could not be read."""

    table: pd.DataFrame
    """Predictions table of the readable images, in the order of the manifest."""
    features: npt.NDArray[np.float32]
    """Shape (n, D): the input of the classifier for each row of `table`."""
    failures: tuple[Outcome[str, None], ...]
    """Ids of the unreadable images, each with its error."""


class ImageItem(NamedTuple):
    """One image file of a manifest."""

    position: int
    """Row in the manifest."""
    image_id: str
    path: Path
    mpp: float | None


class _CachedPrediction(NamedTuple):
    """One line of the cache."""

    image_id: str
    by: str
    """Fingerprint of the model and its calibration."""
    size: int
    modified: int
    """With `size`, detects that the file changed."""
    mpp: float | None
    logits: tuple[float, ...]
    distance: float
    sharpness: float
    reasons: tuple[str, ...]

    @property
    def prediction(self) -> ImagePrediction:
        return ImagePrediction(self.logits, self.distance, self.sharpness, self.reasons)


def predict_images(
    manifest: Manifest,
    engine: Engine,
    calibration: ModelCalibration,
    folder: Path,
    *,
    fingerprint: str | None = None,
    n_workers: int = 1,
    track: Track = silent,
) -> tuple[dict[str, ImagePrediction], dict[str, str]]:
    """Predict every image of a manifest that the cache does not hold yet.

    Parameters
    ----------
    folder : Path
        Folder of the cache ``answers.jsonl``.
    fingerprint : str, optional
        Cached predictions with another fingerprint are ignored; by default that of `calibration`.
    n_workers : int, default 1
        Processes that decode images.

    Returns
    -------
    predictions : dict of str to ImagePrediction
        By image id, of the images that were read and gave finite logits.
    failures : dict of str to str
        The reason for each of the others.
    """
    cache, by = JsonLines(folder / CACHE_FILE), fingerprint or calibration.fingerprint
    cached = _read_cache(cache, by)
    items = image_items(manifest)
    pending = [item for item in items if not _is_current(cached.get(item.image_id), item)]
    failed: list[Outcome[ImageItem, ModelInput]] = []
    for batch in read_batches(pending, engine.card, failed, n_workers=n_workers, track=track):
        predicted = predict_batch([image for _, image in batch], engine, calibration)
        lines = [
            _CachedPrediction(
                item.image_id, by, *size_and_mtime(item.path), item.mpp, **asdict(one)
            )
            for (item, _), one in zip(batch, predicted, strict=True)
        ]
        cached |= {line.image_id: line for line in lines}
        cache.append(*(line._asdict() for line in lines))
    failures = {one.item.image_id: str(one.error) for one in failed}
    predictions = {}
    for image_id in (item.image_id for item in items):
        if image_id in failures:
            continue
        if np.isfinite(cached[image_id].logits).all():
            predictions[image_id] = cached[image_id].prediction
        else:
            failures[image_id] = NOT_FINITE
    return predictions, failures


def predict_manifest(
    checkpoint: Path | SealedFolder,
    manifest: Manifest,
    *,
    batch_size: int = BATCH,
    n_workers: int = 1,
    track: Track = silent,
) -> ManifestPredictions:
    """Predict every image of a manifest with torch, uncalibrated, as `evaluate` needs it.

    Parameters
    ----------
    checkpoint : Path
        A run folder, its ``checkpoint`` folder, or a cross-validation, whose models are averaged.
    manifest : Manifest
        With the labels of the model.
    batch_size : int, default 16
    n_workers : int, default 1
        Processes that decode images.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or altered.
    TaxonomyError
        If the manifest has other labels than the model.
    GlomerulabError
        If no image can be read: the error of the first.
    """
    from glomerulab.inference.engines.ensemble import EnsembleEngine
    from glomerulab.inference.engines.torch_engine import TorchEngine
    from glomerulab.models.layers import record_features

    files = SealedFolder.of(checkpoint)
    engine = EnsembleEngine(files) if is_crossval(files.folder) else TorchEngine(files)
    card = engine.card
    _check_labels(card, manifest)
    failed: list[Outcome[ImageItem, ModelInput]] = []
    rows: list[int] = []
    logits = [np.zeros((0, len(card.labels)), dtype=np.float32)]
    features = np.zeros((0, 0), dtype=np.float32)
    with record_features(engine.first.network.model) as recorded:
        for batch in read_batches(
            image_items(manifest),
            card,
            failed,
            batch_size=batch_size,
            n_workers=n_workers,
            track=track,
        ):
            rows += [item.position for item, _ in batch]
            logits.append(engine.predict(np.stack([image.pixels for _, image in batch])).logits)
    if not rows and failed:
        raise failed[0].error or AssertionError  # an outcome without value has its error
    if recorded:
        features = np.concatenate([one.numpy() for one in recorded])
    probabilities = probabilities_of(np.concatenate(logits), card.head)
    return ManifestPredictions(
        predictions_table(manifest.table.iloc[rows], probabilities, card.taxonomy),
        features,
        tuple(Outcome(one.item.image_id, None, one.error) for one in failed),
    )


def model_input(card: ModelCard, image: RgbImage, mpp: float | None) -> ModelInput:
    """Resize an image to the input of a network, and measure its sharpness before that.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Normalised to the stain reference of the run, if it has one.
    mpp : float or None
        Micrometres per pixel; None where unknown.
    """
    pixels = resized(image, card.input_size, card.input_size)
    sharp = sharpness(_at_mpp(image, mpp, card.mpp))
    return ModelInput(pixels, sharp, _image_reasons(image, pixels, mpp, card.mpp))


def _image_reasons(
    image: RgbImage, pixels: RgbImage, mpp: float | None, target_mpp: float | None
) -> tuple[str, ...]:
    """Return why an image can be no glomerulus, or none at the scale of the model."""
    reasons = []
    if min(image.shape[:2]) < MIN_SIDE_PX:
        reasons.append("too_small")
    elif (
        pixels.mean(axis=2).std() < MIN_CONTRAST
        or tissue_mask(pixels, estimate_white(pixels)).mean() < MIN_TISSUE_SHARE
    ):
        reasons.append("no_tissue")
    if mpp is not None and target_mpp is not None:
        factor = max(mpp / target_mpp, target_mpp / mpp)
        if factor > MAX_SCALE_FACTOR * (1 + SAME_MPP):
            reasons.append("other_scale")
    return tuple(reasons)


def predict_batch(
    batch: Sequence[ModelInput], engine: Engine, calibration: ModelCalibration
) -> list[ImagePrediction]:
    """Predict images, and measure their distances to the training images.

    On a CPU each passes the network by itself: in a batch, the last bits of a result depend on the
    others. On a GPU, whose bits differ anyhow, they pass together.
    """
    if engine.is_gpu and batch:
        output = engine.predict(np.stack([one.pixels for one in batch]))
        distances = calibration.distances(output.features)
        return [
            ImagePrediction(tuple(map(float, logits)), float(distance), one.sharpness, one.reasons)
            for one, logits, distance in zip(batch, output.logits, distances, strict=True)
        ]

    def predict_one(image: ModelInput) -> ImagePrediction:
        output = engine.predict(image.pixels[np.newaxis])
        (distance,) = calibration.distances(output.features)
        logits = tuple(map(float, output.logits[0]))
        return ImagePrediction(logits, float(distance), image.sharpness, image.reasons)

    if engine.max_concurrency == 1:
        return [predict_one(one) for one in batch]
    with ThreadPoolExecutor(engine.max_concurrency) as threads:
        return list(threads.map(predict_one, batch))


def image_items(manifest: Manifest) -> list[ImageItem]:
    """Return the images of a manifest, in its order."""
    table = manifest.table
    rows = zip(table["image_id"], manifest.image_paths(), table["mpp"], strict=True)
    return [
        ImageItem(position, str(image_id), path, None if pd.isna(mpp) else float(mpp))
        for position, (image_id, path, mpp) in enumerate(rows)
    ]


def read_batches(
    items: Sequence[ImageItem],
    card: ModelCard,
    failures: list[Outcome[ImageItem, ModelInput]],
    *,
    batch_size: int = BATCH,
    n_workers: int = 1,
    track: Track = silent,
) -> Iterator[list[tuple[ImageItem, ModelInput]]]:
    """Yield images as batches of network inputs; append unreadable ones to `failures`.

    The batches do not depend on the number of processes.
    """
    batch: list[tuple[ImageItem, ModelInput]] = []
    read = partial(_read, card=card)
    with closing(map_outcomes(read, items, n_workers=n_workers)) as outcomes:
        for outcome in track(_in_order(outcomes, items), "Predicting", len(items)):
            if outcome.value is None:
                failures.append(outcome)
                continue
            batch.append((outcome.item, outcome.value))
            if len(batch) == batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def sharpness(image: RgbImage) -> float:
    """Measure how much of the contrast of an image is in its finest detail.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        At the micrometres per pixel of the model: the measure depends on them.

    Returns
    -------
    float
        Logarithm (base 10) of the variance of the Laplacian over the variance of the grey levels.

    Notes
    -----
    The variance of the Laplacian [1]_ grows with the contrast of the staining; divided by the
    variance it does not. Ours, not the paper's: the division, and the logarithm.

    References
    ----------
    .. [1] Pech-Pacheco et al., ICPR 2000.
    """
    # The mean of the channels, ten times faster than along the last axis; the sum is exact.
    red, green, blue = (image[..., channel].astype(np.float64) for channel in range(3))
    grey: npt.NDArray[np.float64] = (red + green + blue) / 3
    variance = max(float(grey.var()), MIN_VARIANCE)
    return float(np.log10(max(float(laplace(grey).var()), 1e-6) / variance))


def _read(item: ImageItem, *, card: ModelCard) -> ModelInput:
    return model_input(card, read_image(item.path), item.mpp)


def _in_order(
    outcomes: Iterator[Outcome[ImageItem, ModelInput]], items: Sequence[ImageItem]
) -> Iterator[Outcome[ImageItem, ModelInput]]:
    """Yield outcomes in the order of the items."""
    waiting: dict[ImageItem, Outcome[ImageItem, ModelInput]] = {}
    remaining = iter(items)
    following = next(remaining, None)
    for outcome in outcomes:
        waiting[outcome.item] = outcome
        while following in waiting:
            yield waiting.pop(following)
            following = next(remaining, None)


def _at_mpp(image: RgbImage, mpp: float | None, target_mpp: float | None) -> RgbImage:
    """Rescale an image to the micrometres per pixel of the model."""
    if mpp is None or target_mpp is None or abs(mpp / target_mpp - 1) < SAME_MPP:
        return image
    factor = mpp / target_mpp
    if factor > 1:
        # Bounds the size of what a wrong scale would enlarge: only the middle is measured.
        most = max(int(MAX_ENLARGED_PX / factor), 3)
        image = image[_middle(image.shape[0], most), _middle(image.shape[1], most)]
    height, width = (max(round(side * factor), 3) for side in image.shape[:2])
    return resized(image, width, height)


def _middle(length: int, most: int) -> slice:
    start = max(length - most, 0) // 2
    return slice(start, start + most)


def _check_labels(card: ModelCard, manifest: Manifest) -> None:
    model_labels, labels = card.taxonomy.label_ids, manifest.taxonomy.label_ids
    if model_labels != labels:
        raise TaxonomyError(
            f"the manifest has the labels {', '.join(labels)}, but the model predicts "
            f"{', '.join(model_labels)}; give the manifest the taxonomy.toml of the run, and its "
            "labels",
            where=manifest.location,
        )


def _is_current(cached: _CachedPrediction | None, item: ImageItem) -> bool:
    return (
        cached is not None
        and (cached.size, cached.modified) == size_and_mtime(item.path)
        and cached.mpp == item.mpp
    )


def _read_cache(cache: JsonLines, fingerprint: str) -> dict[str, _CachedPrediction]:
    """Read the cached predictions of the same model, by image id."""
    cached = {}
    for fields in cache.read():
        try:
            one = _CachedPrediction(
                **{
                    **fields,
                    "logits": tuple(fields["logits"]),
                    "reasons": tuple(fields["reasons"]),
                }
            )
        except (TypeError, KeyError):  # not a line of this version
            continue
        if one.by == fingerprint:
            cached[one.image_id] = one
    return cached
