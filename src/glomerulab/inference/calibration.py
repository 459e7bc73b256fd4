"""Calibration of a trained model, fitted once and kept in the folder ``gates`` of its run.

Temperature, conformal threshold, out-of-distribution detector, sharpness threshold, the stains of
the training images and the stain references: with them a run folder is all that prediction needs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from glomerulab.cases.case_folder import CalibrationFacts, ModelFacts
from glomerulab.errors import CheckpointError, StainError
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.ood import MahalanobisDetector
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.sealing import SealedFolder, read_bundle, write_bundle
from glomerulab.stain.reference import StainReference, reference_from_json

__all__ = ["ModelCalibration", "has_calibration", "model_facts"]

CALIBRATION_FOLDER = "gates"
NAME = "gates"
FORMAT = 2
"""Format 1 had the features of the last stage only."""


@dataclass(frozen=True, eq=False)
class ModelCalibration:
    """What turns the output of a network into a call."""

    facts: CalibrationFacts
    ood: MahalanobisDetector
    references: Mapping[str, StainReference]
    """By stain; empty if the images of the run were not normalised."""

    @property
    def fingerprint(self) -> str:
        """Identifies this calibration and its model."""
        return f"{self.facts.weights_sha256}-{self.facts.distance_threshold!r}"

    def distances(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the distance of each image to the training images, shape (B,)."""
        return self.ood.distances(features)


def has_calibration(folder: Path) -> bool:
    """Return whether a run folder holds its calibration."""
    return (folder / CALIBRATION_FOLDER / f"{NAME}.json").is_file()


def write_calibration(calibration: ModelCalibration, folder: Path) -> None:
    """Write the calibration into a run folder, atomically."""
    content = save(
        {"class_means": calibration.ood.class_means, "whitening": calibration.ood.whitening}
    )
    facts: dict[str, object] = {"format": FORMAT, **calibration.facts.model_dump(mode="json")}
    facts["stain_references"] = {
        stain: asdict(reference) for stain, reference in calibration.references.items()
    }
    write_bundle(folder / CALIBRATION_FOLDER, NAME, content, facts)


def read_calibration(folder: Path | SealedFolder) -> ModelCalibration:
    """Read the calibration of a run folder."""
    files = SealedFolder.of(folder)
    content, found = read_bundle(files, f"{CALIBRATION_FOLDER}/{NAME}")
    where = str(files.folder / CALIBRATION_FOLDER / f"{NAME}.json")
    if found.get("format", FORMAT) != FORMAT:
        raise CheckpointError(
            "the calibration was fitted by another version; run `glomerulab gates RUN` again, and "
            "export again what was exported",
            where=where,
        )
    references = found.get("stain_references", {})
    if not isinstance(references, dict):
        raise CheckpointError("stain_references must be an object", where=where)
    try:
        arrays = load(content)
        return ModelCalibration(
            CalibrationFacts.model_validate(
                {key: found[key] for key in CalibrationFacts.model_fields if key in found}
            ),
            MahalanobisDetector(arrays["class_means"], arrays["whitening"]),
            {stain: reference_from_json(one) for stain, one in references.items()},
        )
    except ValidationError as error:
        raise CheckpointError(first_problem(error), where=where) from error
    except (SafetensorError, KeyError, TypeError, ValueError, StainError) as error:
        raise CheckpointError(
            f"the calibration is not valid: {error!r}; run `glomerulab gates RUN` again",
            where=where,
        ) from error


def model_facts(engine: Engine, calibration: ModelCalibration, run: Path) -> ModelFacts:
    """Collect what a case folder states about its model; of `run` only the folder name."""
    card = engine.card
    return ModelFacts(
        model=card.model,
        head=card.head,
        taxonomy_name=card.taxonomy_name,
        labels=card.labels,
        run=run.resolve().name,
        normalized_to=tuple(calibration.references),
        **calibration.facts.model_dump(),
    )
