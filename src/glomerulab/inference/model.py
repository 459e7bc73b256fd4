"""A trained model with its calibration: predictions for arrays and image files.

The predict command, the server and notebooks call the functions of this module, so that all give
the same decision for an image.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np

from glomerulab.cohort.schema import check_stain
from glomerulab.errors import CheckpointError
from glomerulab.images import RgbImage, read_image, resized
from glomerulab.inference.calibration import ModelCalibration, has_calibration, read_calibration
from glomerulab.inference.decide import Decision, decide
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.image_predictions import (
    ImagePrediction,
    ModelInput,
    model_input,
    predict_batch,
)
from glomerulab.models.card import ModelCard, read_model_card, weights_hash
from glomerulab.runtime.files import StrPath
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SealedFolder, is_crossval, open_model_folder
from glomerulab.stain.normalize import normalize
from glomerulab.stain.optical_density import checked_image

__all__ = [
    "PreparedCrop",
    "TrainedModel",
    "decide_crops",
    "load_model",
    "prepare_crop",
    "read_identity",
]

MAX_PICTURE_PX = 512


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model and its calibration; see `load_model`."""

    engine: Engine
    calibration: ModelCalibration
    seal_warning: str | None = None
    """What a user must know if no complete seal covers the folder; None if one does."""

    @property
    def fingerprint(self) -> str:
        """Identifies all that a call rests on: weights, labels, preprocessing, calibration."""
        return _fingerprint(self.engine.weights_sha256, self.card, self.calibration)

    @property
    def card(self) -> ModelCard:
        """The labels, input size and normalisation constants of the network."""
        return self.engine.card

    def predict(
        self,
        images: Iterable[RgbImage | StrPath],
        *,
        stain: str | None = None,
        mpp: float | None = None,
        batch_size: int = 16,
    ) -> list[Decision]:
        """Predict images of one stain and resolution, each with calibration and quality gates.

        Parameters
        ----------
        images : iterable of ndarray of uint8, shape (H, W, 3), or of paths of image files
            Crops of one glomerulus each, of any size.
        stain : str, optional
            HE, PAS, PASM, TRI, H-DAB or other. Images are normalised to the reference of the model
            for this stain. Without a stain they keep their colours, and every decision has the
            reason ``stain_unknown``.
        mpp : float, optional
            Micrometres per pixel, at which sharpness is compared with the training images.
        batch_size : int, default 16
            Images per pass of the network.

        Returns
        -------
        list of Decision
            One per image, in order.

        Raises
        ------
        GlomerulabError
            If a file cannot be read, or the network returns a value that is not finite.
        ValueError
            If an array is no RGB image, the stain is unknown, or `mpp` or `batch_size` is not
            above 0.
        """
        check_stain(stain)
        if mpp is not None and not 0 < mpp < math.inf:  # negated, so that NaN is refused
            raise ValueError(f"mpp must be above 0 and finite, got {mpp}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if isinstance(images, (str, PathLike)) or (
            isinstance(images, np.ndarray) and images.ndim == 3
        ):
            raise ValueError("images must be a sequence of images; put a single image into a list")
        decisions: list[Decision] = []
        for batch in _batches(images, batch_size):
            crops = [
                prepare_crop(_as_image(one), self.card, self.calibration, stain=stain, mpp=mpp)
                for one in batch
            ]
            predictions = predict_batch(
                [crop.model_input for crop in crops], self.engine, self.calibration
            )
            decisions += decide_crops(crops, predictions, self.card, self.calibration)
        return decisions


def load_model(
    run: StrPath | SealedFolder, *, fit_missing: bool = True, track: Track = silent
) -> TrainedModel:
    """Load a trained model with its calibration.

    Parameters
    ----------
    run : path
        A run folder of `glomerulab train`, or its export, which needs no torch.
    fit_missing : bool, default True
        Fit and store a calibration that is missing, from the images of the run.
    track : Track, optional
        Progress of the fit.

    Raises
    ------
    CheckpointError
        If the folder holds no complete model, its calibration belongs to other weights or is
        missing and cannot be fitted.
    RunError
        If a file is not the one that was sealed.
    """
    files = open_model_folder(run if isinstance(run, SealedFolder) else Path(run))
    engine = open_engine(files)
    if has_calibration(files.folder):
        calibration = read_calibration(files)
    elif fit_missing:
        from glomerulab.inference.fit_calibration import fit_calibration  # heavy, and rarely needed

        calibration = fit_calibration(files.folder, track=track)
        files = SealedFolder(files.folder)
    else:
        raise CheckpointError(
            "this run has no calibration; run `glomerulab gates RUN` first",
            where=str(files.folder),
        )
    if calibration.facts.weights_sha256 != engine.weights_sha256:
        raise CheckpointError(
            "the calibration was fitted for other weights; run `glomerulab gates RUN` again",
            where=str(files.folder),
        )
    return TrainedModel(engine, calibration, files.warning)


def read_identity(run: StrPath) -> tuple[ModelCard, str]:
    """Return the card and the fingerprint of a model; a run folder is not loaded for them.

    Errors as for `load_model`.
    """
    files = open_model_folder(Path(run))
    is_light = not (is_crossval(files.folder) or files.has("model.onnx"))
    if is_light and has_calibration(files.folder):
        content, card, _ = read_model_card(files)
        calibration, weights_sha256 = read_calibration(files), weights_hash(content)
        if calibration.facts.weights_sha256 == weights_sha256:
            return card, _fingerprint(weights_sha256, card, calibration)
    model = load_model(files)
    return model.card, model.fingerprint


def _fingerprint(weights_sha256: str, card: ModelCard, calibration: ModelCalibration) -> str:
    digest = hashlib.sha256(weights_sha256.encode())
    facts, ood = calibration.facts, calibration.ood
    for part in (card.model_dump_json(), facts.model_dump_json()):
        digest.update(part.encode())
    for array in (ood.class_means, ood.whitening):
        digest.update(array.tobytes())
    digest.update(repr(sorted(calibration.references.items())).encode())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class PreparedCrop:
    """A crop after normalisation and resizing."""

    model_input: ModelInput
    stain: str | None
    stain_status: str | None
    """Status of the normalisation; None if the run has no reference for the stain."""
    picture: RgbImage | None = None
    """A small copy with the crop's aspect ratio, for an overlay."""


def prepare_crop(
    image: RgbImage,
    card: ModelCard,
    calibration: ModelCalibration,
    *,
    stain: str | None,
    mpp: float | None,
    with_picture: bool = False,
) -> PreparedCrop:
    """Normalise a crop to the stain reference of the run and resize it to the input of the network.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    stain : str or None
        As in manifests; None if unknown, which leaves the colours unchanged.
    mpp : float or None
        Micrometres per pixel.
    with_picture : bool, default False
        Keep a small copy for an overlay.
    """
    reference = None if stain is None else calibration.references.get(stain)
    status = None
    if reference is not None:
        normalized = normalize(image, reference)
        image, status = normalized.image, normalized.status.value
    picture = _small_copy(image) if with_picture else None
    return PreparedCrop(model_input(card, image, mpp), stain, status, picture)


def decide_crops(
    crops: Sequence[PreparedCrop],
    predictions: Sequence[ImagePrediction],
    card: ModelCard,
    calibration: ModelCalibration,
) -> list[Decision]:
    """Return the decisions for crops from their raw predictions."""
    return decide(
        predictions,
        stains=[crop.stain for crop in crops],
        stain_statuses=[crop.stain_status for crop in crops],
        calibration=calibration,
        taxonomy=card.taxonomy,
        head=card.head,
    )


def _small_copy(image: RgbImage) -> RgbImage:
    height, width = image.shape[:2]
    factor = min(1.0, MAX_PICTURE_PX / max(height, width))
    return resized(image, max(round(width * factor), 1), max(round(height * factor), 1))


def _as_image(image: RgbImage | StrPath) -> RgbImage:
    return read_image(Path(image)) if isinstance(image, (str, PathLike)) else checked_image(image)


def _batches(images: Iterable[RgbImage | StrPath], size: int) -> Iterator[list[RgbImage | StrPath]]:
    rest = iter(images)
    while batch := list(islice(rest, size)):
        yield batch
